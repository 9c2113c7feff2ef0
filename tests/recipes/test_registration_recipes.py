"""`evaluate registration` with other pairs than by default, from the command line to the results."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny

from contrast3d import cli
from contrast3d.data.fragment_files import write_gt_log
from contrast3d.data.scene_views import SceneViews, load_views, save_views
from contrast3d.engine.run_dir import RunDir
from contrast3d.recipes import table
from contrast3d.recipes.compare import compare, keys_of
from contrast3d.recipes.evaluate_flags import KNOWS, PAIRED
from contrast3d.recipes.runs import record
from contrast3d.recipes.scene_report import tables

NAME = "point-contrast-3dmatch"


def turned(angle: float) -> np.ndarray:
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[:3, 3] = 0.2 * angle, 0, 0.1
    return pose


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A data root with two scenes of 3DMatch, of three views that go along a bumpy floor, and one with few views."""
    root, rng = tmp_path_factory.mktemp("root"), np.random.default_rng(0)
    for name, starts in (("hotel", (0, 0.5, 1.0)), ("lab", (0, 0.5, 1.0)), ("short", (0, 1.0))):
        views, poses = [], np.stack([turned(0.3 * v) for v in range(len(starts))])
        for start, pose in zip(starts, poses):
            x, y = rng.uniform(start, start + 2, 1500), rng.uniform(0, 2, 1500)
            world = np.stack([x, y, 0.3 * np.sin(3 * x) * np.cos(2 * y)], 1)
            views.append((world - pose[:3, 3]) @ pose[:3, :3])
        save_views(SceneViews.of(views, poses), root / "3dmatch" / f"{name}.npz")
    return root


@pytest.fixture
def run(tmp_path) -> Path:
    """A run without training, in which nothing is kept from it."""
    return _run(tmp_path / "run")


def _run(path: Path, **fields) -> Path:
    recipe = tiny.shrunk(table.find(NAME), test_scenes=("hotel",), **fields)
    folder = RunDir(path).create(record(NAME, recipe))
    folder.save_encoder(recipe.make_encoder(), {})
    return folder.path


def evaluated(run: Path, root: Path, *flags: str) -> dict[str, dict]:
    """The results by the names of their files, after the command line made them."""
    command = ["evaluate", "registration", str(run), "--data-root", str(root), "--draws", "1", "--device", "cpu"]
    assert cli.main([*command, *flags]) == 0
    return {path.stem: json.loads(path.read_text()) for path in run.glob("results/registration-*.json")}


def test_pairs_that_follow_each_other(run, root, capsys):
    usual = evaluated(run, root)
    assert {(r["protocol"], r["pairs"]) for r in usual.values()} == {("registration", 1)}
    both = evaluated(run, root, "--consecutive")
    assert "registration of 3 pairs of fragments (consecutive)" in " ".join(capsys.readouterr().out.split())
    assert {name: both[name] for name in usual} == usual, "the usual ones stay"
    others = {name: result for name, result in both.items() if name not in usual}
    assert {(r["protocol"], r["pairs"]) for r in others.values()} == {("registration (consecutive)", 3)}
    assert "registration-consecutive-3dmatch-feature_match_recall" in others


def test_a_smaller_overlap(run, root):
    found = evaluated(run, root, "--min-overlap", "0.05")
    assert {r["protocol"] for r in found.values()} == {"registration (overlap 0.05)"}
    assert "registration-overlap0_05-3dmatch-inlier_ratio" in found


def test_the_advice_of_the_error_can_be_followed(run, root, capsys):
    assert cli.main(["evaluate", "registration", str(run), "--data-root", str(root), "--scenes", "short"]) == 1
    said = capsys.readouterr().err
    assert "no pair of views of short overlaps by 30%, those that follow each other aside" in said
    assert "Try: --consecutive" in said
    found = evaluated(run, root, "--scenes", "short", "--consecutive")
    assert {r["pairs"] for r in found.values()} == {1}


def test_the_pairs_of_gt_log(run, root, tmp_path, fails):
    mine = Path(shutil.copytree(root, tmp_path / "root"))
    said = fails(2, "evaluate", "registration", run, "--data-root", mine, "--pairs", "gt")
    assert "hotel has no list of pairs" in said
    assert "hotel-evaluation/gt.log is not there" in said
    scene = load_views(mine / "3dmatch" / "hotel.npz")
    listed = dataclasses.replace(scene, pairs=np.array([[0, 1], [0, 2]]))
    write_gt_log(listed, mine / "3dmatch" / "hotel-evaluation" / "gt.log")
    found = evaluated(run, mine, "--pairs", "gt")
    assert {(r["protocol"], r["pairs"]) for r in found.values()} == {("registration (pairs gt)", 2)}
    assert "registration-pairsgt-3dmatch-registration_recall" in found
    folder = evaluated(_run(tmp_path / "upright", upright=True), mine, "--dataset", str(mine / "3dmatch" / "hotel.npz"),
                       "--pairs", "gt")
    assert {(r["pairs"], r["leveled"]) for r in folder.values()} == {(2, True)}


def test_other_pairs_are_no_like_to_compare_with(root, tmp_path):
    one, other = _run(tmp_path / "one"), _run(tmp_path / "other", temperature=0.2)
    evaluated(one, root)
    evaluated(other, root, "--consecutive")
    evaluated(one, root, "--consecutive")
    assert {key[:3] for key in keys_of(compare([one, other]))} == {
        ("registration (consecutive)", "3DMatch", "all pairs")}


def test_other_pairs_are_another_table_of_the_report(run, root):
    evaluated(run, root)
    both = evaluated(run, root, "--consecutive")
    shown = {found.title: found for found in tables(both)}
    assert shown.keys() == {"3DMatch: registration", "3DMatch: registration (consecutive)"}
    assert "1 pairs of views" in shown["3DMatch: registration"].note
    assert "3 pairs of views" in shown["3DMatch: registration (consecutive)"].note


@pytest.mark.parametrize(("words", "told"), [
    ("registration --min-overlap 30", "--min-overlap 30; expected a share above 0 and up to 1"),
    ("registration --min-overlap 0", "--min-overlap 0; expected"),
    ("registration --pairs all", "--pairs"),
    ("registration --pairs gt --consecutive", "leave the overlap (--min-overlap) and consecutive (--consecutive) out"),
    ("registration --pairs gt --min-overlap 0.2", "the pairs of gt.log are taken as they are"),
    ("registration --pairs gt --dataset Rooms", "generated rooms have none"),
    ("segmentation --consecutive", "segmentation knows no --consecutive"),
    ("segmentation --min-overlap 0.2", "segmentation knows no --min-overlap"),
    ("segmentation --pairs gt", "segmentation knows no --pairs"),
])
def test_flags_that_cannot_be(run, root, fails, words, told):
    protocol, *flags = words.split()
    assert told in fails(2, "evaluate", protocol, run, "--data-root", root, *flags)
    assert not list(run.glob("results/*"))


def test_the_flags_belong_to_registration_alone():
    assert [protocol for protocol, flags in KNOWS.items() if set(PAIRED) & set(flags)] == ["registration"]
