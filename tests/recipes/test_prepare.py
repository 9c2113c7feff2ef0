"""`contrast3d data prepare pairs`: files to pairs, resumed, interrupted, and everything that can be wrong."""

import csv
import json

import numpy as np
import pytest
import rgbd_folders as folders

from contrast3d import cli
from contrast3d.data.scene_views import SceneViews, load_views, save_views
from contrast3d.errors import DataError
from contrast3d.recipes import prepare as prepare_module
from contrast3d.recipes.prepare import prepare_pairs
from contrast3d.recipes.prepare_options import PairsOptions


@pytest.fixture
def scans(tmp_path):
    """Three scenes of eight frames, in three layouts."""
    source = tmp_path / "scans"
    folders.write_seven_scenes(source / "kitchen" / "seq-01", count=8)
    folders.write_scannet(source / "office", count=8)
    folders.write_sens(source / "scene0000_00.sens", count=8)
    return source


def test_scenes_of_all_layouts_become_files_with_pairs(scans, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["data", "prepare", "pairs", str(scans), "-o", str(out), "--every", "1"]) == 0
    said = capsys.readouterr()
    assert sorted(path.name for path in out.iterdir()) == [
        "kitchen-seq-01.npz", "office.npz", "prepared.json", "scene0000_00.npz",
    ]
    scene = load_views(out / "office.npz")
    assert len(scene) == 8
    assert 5 < len(scene.pairs) < 28
    assert scene.overlaps.min() >= 0.3
    for name in ("kitchen-seq-01", "scene0000_00"):
        other = load_views(out / f"{name}.npz")
        assert np.array_equal(other.pairs, scene.pairs)
        assert np.allclose(other.overlaps, scene.overlaps, atol=0.02)
    assert f"office: 8 views, {len(scene.pairs)} pairs, ScanNet frames" in said.out
    assert f"3 scenes of 24 views and {3 * len(scene.pairs)} pairs in {out}" in said.out
    assert "skipped" not in said.out


def test_what_is_there_is_not_made_again_unless_options_or_files_change(scans, tmp_path):
    options = PairsOptions(tmp_path / "out", every=1, quiet=True)
    assert len(prepare_pairs(scans, options).written) == 3
    assert prepare_pairs(scans, options).written == []
    assert prepare_pairs(scans, options).known == 3
    (options.out / "office.npz").unlink()
    assert prepare_pairs(scans, options).written == ["office"]
    folders.write_sens(scans / "scene0000_00.sens", count=5)
    changed = prepare_pairs(scans, options)
    assert changed.written == ["scene0000_00"]
    assert changed.scenes["scene0000_00"]["views"] == 5
    (options.out / "prepared.json").write_text("{ broken")
    assert len(prepare_pairs(scans, options).written) == 3
    assert len(prepare_pairs(scans, PairsOptions(options.out, every=1, min_overlap=0.5)).written) == 3
    assert len(prepare_pairs(scans, PairsOptions(options.out, every=1, min_overlap=0.5, restart=True)).written) == 3


def test_ctrl_c_loses_at_most_the_scene_in_hand(scans, tmp_path, monkeypatch, capsys):
    find, calls = prepare_module.find_pairs, []

    def interrupted(views, *args):
        calls.append(views.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return find(views, *args)

    monkeypatch.setattr(prepare_module, "find_pairs", interrupted)
    command = ["data", "prepare", "pairs", str(scans), "-o", str(tmp_path / "out"), "--every", "1"]
    assert cli.main(command) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["kitchen-seq-01.npz", "prepared.json"]
    assert cli.main(command) == 0
    assert calls == ["kitchen-seq-01", "office", "office", "scene0000_00"]
    assert "1 were there already" in capsys.readouterr().out


def test_frames_and_scenes_of_no_use_are_counted_and_listed(scans, tmp_path, capsys):
    (scans / "office" / "pose" / "25.txt").write_text("nan " * 16)
    (scans / "scene0000_00.sens").write_bytes(b"\x04\0\0\0")
    command = ["data", "prepare", "pairs", str(scans), "-o", str(tmp_path / "out"), "--every", "1"]
    for _ in range(2):  # the second run reads no frame again, and lists it all the same
        assert cli.main(command) == 0
        assert "skipped 1 frames and 1 scenes that cannot be used; why: " in capsys.readouterr().out
        rows = list(csv.reader((tmp_path / "out" / "skipped.csv").open()))
        assert [row[:2] for row in rows] == [["scene", "frame"], ["scene0000_00", ""], ["office", "25.png"]]
        assert "ends within its header" in rows[1][2]
        assert "lost" in rows[2][2]
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["office"]["views"] == 7


def test_nothing_to_use_is_one_error(tmp_path):
    (tmp_path / "a.sens").write_bytes(b"")
    (tmp_path / "b.sens").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 2 scenes can be used; a: .*header"):
        prepare_pairs(tmp_path, PairsOptions(tmp_path / "out"))
    with pytest.raises(DataError, match=r"a\.sens: .*a\.sens: the file ends"):
        prepare_pairs(tmp_path / "a.sens", PairsOptions(tmp_path / "out"))


def test_the_folder_written_to_may_lie_among_the_scans(scans, capsys):
    command = ["data", "prepare", "pairs", str(scans), "-o", str(scans / "pairs"), "--every", "1"]
    for _ in range(2):
        assert cli.main(command) == 0
        assert "3 scenes" in capsys.readouterr().out  # its files are not taken for fragments


def test_fragments_get_pairs_and_views_apart_a_hint(tmp_path, capsys):
    poses = np.stack([np.eye(4)] * 2)
    save_views(SceneViews.of([np.eye(3), np.eye(3)], poses), tmp_path / "in" / "same.npz")
    assert cli.main(["data", "prepare", "pairs", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    assert load_views(tmp_path / "out" / "same.npz").pairs.tolist() == [[0, 1]]
    save_views(SceneViews.of([np.eye(3), np.eye(3) + 9], poses), tmp_path / "in" / "same.npz")
    assert cli.main(["data", "prepare", "pairs", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    assert "try a smaller --every" in capsys.readouterr().err


def test_bad_arguments_are_one_line_each(scans, tmp_path, fails):
    begin, out = ("data", "prepare", "pairs", scans), ("-o", tmp_path / "out")
    assert "-o FOLDER is missing; see contrast3d data prepare pairs --help" in fails(2, *begin)
    assert "did you mean --every?" in fails(2, *begin, *out, "--evry", "3")
    assert "--every 0" in fails(2, *begin, *out, "--every", "0")
    assert "--min-overlap 2" in fails(2, *begin, *out, "--min-overlap", "2")
    assert "--voxel 0" in fails(2, *begin, *out, "--voxel", "0")
    assert "--radius -1" in fails(2, *begin, *out, "--radius", "-1")
    assert "--thin 5" in fails(2, *begin, *out, "--thin", "5")
    assert "expected FX FY CX CY" in fails(2, *begin, *out, "--intrinsics", "1", "2", "3")
    assert "did you mean pairs?" in fails(2, "data", "prepare", "pair", scans)
    assert "an argument is missing" in fails(2, "data", "prepare")
    assert "expected another folder" in fails(2, *begin, "-o", scans)
    (tmp_path / "file").write_text("")
    assert "is a file; expected a folder" in fails(2, *begin, "-o", tmp_path / "file")
    assert "no such file or folder" in fails(1, "data", "prepare", "pairs", tmp_path / "nowhere", *out)
    (tmp_path / "empty").mkdir()
    assert "an empty folder; expected ScanNet frames" in fails(1, "data", "prepare", "pairs", tmp_path / "empty", *out)


def test_help_names_it(capsys):
    assert cli.main(["data", "--help"]) == 0
    assert "data prepare pairs SOURCE -o FOLDER" in capsys.readouterr().out
    assert cli.main(["data", "prepare", "pairs", "--help"]) == 0
    assert "--min-overlap" in capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert "data prepare pairs" in capsys.readouterr().out


@pytest.mark.shared
def test_red_kitchen_from_files_to_pairs(shared, tmp_path, capsys):
    source = shared / "data" / "rgbd" / "redkitchen"
    assert cli.main(["data", "prepare", "pairs", str(source), "-o", str(tmp_path), "--every", "1"]) == 0
    assert "redkitchen: 40 views, 519 pairs, 7-Scenes" in capsys.readouterr().out
    scene = load_views(tmp_path / "redkitchen.npz")
    assert len(scene.pairs) == 519
    assert (tmp_path / "redkitchen.npz").stat().st_size < 16e6
