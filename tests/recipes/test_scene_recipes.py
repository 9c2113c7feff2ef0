"""Recipes of scenes, from the command line to the results, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from contrast3d import cli
from contrast3d.data.pair_loader import PairLoader
from contrast3d.data.rooms import Rooms
from contrast3d.data.scene_views import SceneViews, save_views
from contrast3d.downstream.segmenter import Segmenter
from contrast3d.downstream.semantic_segmentation import PUBLISHED
from contrast3d.engine.distributed import Ranks
from contrast3d.engine.loop import Outcome
from contrast3d.engine.run_dir import RunDir
from contrast3d.errors import ConfigError, DataError
from contrast3d.methods.point_contrast import PointContrast
from contrast3d.nn.batch_norm import BatchNorm
from contrast3d.recipes import table
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.pretrain import next_commands, pretrain
from contrast3d.recipes.runs import Run, load_run, record
from contrast3d.recipes.scene_contrast import SceneRecipe
from contrast3d.recipes.scene_sources import paired

NAME = "point-contrast-rooms"
SCENES = [name for name in table.RECIPES if isinstance(table.find(name), SceneRecipe)]
TINY = tiny.shrunk(table.find(NAME), frames=10)  # views that do not follow each other shall overlap
ALONE = Ranks(0, 1, 0, torch.device("cpu"))


def arguments(out: Path, recipe: SceneRecipe = TINY, name: str = NAME) -> list[str]:
    return ["pretrain", name, *tiny.flags(name, recipe), "--out", str(out), "--quiet"]


def weights(run: Path) -> bytes:
    return (run / "encoder.safetensors").read_bytes()


def quick(name=NAME, **fields) -> SceneRecipe:
    """Without a look at held-out rooms, which is most of a tiny run's time."""
    recipe = dataclasses.replace(table.find(name), **fields)
    unwatched = {} if "validation_scenes" in recipe.idle_fields() else {"validation_scenes": 0}
    return tiny.shrunk(table.find(name), **unwatched, **fields)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished tiny run."""
    run = tmp_path_factory.mktemp("scenes") / "tiny"
    assert cli.main(arguments(run)) == 0
    return run


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three scenes of four views of a bumpy floor as `data prepare pairs` would write them; the last has no pairs."""
    path, rng = tmp_path_factory.mktemp("folder"), np.random.default_rng(0)
    for i, name in enumerate(("kitchen-a", "kitchen-b", "office")):
        views = []
        for v in range(4):
            x, y = rng.uniform(v / 2, v / 2 + 2, 1500), rng.uniform(0, 2, 1500)
            views.append(np.stack([x, y, 0.3 * np.sin(3 * x + i) * np.cos(2 * y)], 1))
        pairs = np.array([[0, 1], [1, 2], [2, 3]] if name != "office" else np.zeros((0, 2), int))
        save_views(SceneViews.of(views, np.tile(np.eye(4), (4, 1, 1)), pairs=pairs,
                                 overlaps=np.full(len(pairs), 0.7, np.float32)), path / f"{name}.npz")
    return path


# The command line, end to end.


def test_what_a_run_leaves_behind(trained):
    run = load_run(trained)
    assert (run.name, run.recipe) == (NAME, TINY)
    lines = {line["kind"]: line for line in run.folder.metrics()}
    assert {"loss", "feature_std", "positive_distance", "negative_distance", "alignment", "lr"} <= lines["train"].keys()
    assert {key for key in lines["epoch"] if key.startswith("held_out_")} == {
        "held_out_feature_match_recall", "held_out_inlier_ratio"}
    assert all(math.isfinite(v) for line in lines.values() for v in line.values() if isinstance(v, float))
    assert run.finished()
    fresh, ours = TINY.make_encoder().state_dict(), run.encoder().state_dict()
    assert fresh.keys() == ours.keys()
    assert not torch.equal(fresh["final.weight"], ours["final.weight"])


def test_the_same_command_finds_it_finished(trained, capsys):
    before = weights(trained)
    assert cli.main(arguments(trained)) == 0
    said = capsys.readouterr().out
    assert "finished: 1 epochs" in said
    assert f"report: {trained / 'report.html'}\n" in said
    assert "What two views share" in (trained / "report.html").read_text()
    assert f"next: contrast3d evaluate registration {trained}   contrast3d evaluate segmentation {trained}" in said
    assert weights(trained) == before


def test_ctrl_c_and_the_same_command_again(tmp_path, capsys, monkeypatch):
    """Interrupted within an epoch: the weights are those of a run that was left alone."""
    recipe = quick(epochs=2)

    def trained(name):
        return cli.main([*arguments(tmp_path / name, recipe), "--device", "cpu"])

    assert trained("whole") == 0
    batch, interrupted = PairLoader.batch, []

    def sends_sigint(self, epoch, step):
        if (epoch, step) == (1, 0) and not interrupted:
            interrupted.append(os.kill(os.getpid(), signal.SIGINT))
        return batch(self, epoch, step)

    monkeypatch.setattr(PairLoader, "batch", sends_sigint)
    assert trained("cut") == 130
    assert "interrupted after 3 steps; everything is saved" in capsys.readouterr().err
    assert weights(tmp_path / "cut") != weights(tmp_path / "whole")
    assert trained("cut") == 0
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_registration(run, capsys):
    assert cli.main(["evaluate", "registration", str(run), "--draws", "1"]) == 0
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    results = {path.stem: json.loads(path.read_text()) for path in run.glob("results/registration-rooms-*.json")}
    assert {"registration-rooms-feature_match_recall", "registration-rooms-inlier_ratio",
            "registration-rooms-registration_recall"} <= results.keys()
    for result in results.values():
        assert result["recipe"] == NAME
        assert all(name.startswith("test-") for name in result["scenes"])  # rooms that training never shows
        assert math.isfinite(result["mean"])
        assert "untrained encoder" in result["baselines"]


def test_segmentation(run, capsys, monkeypatch):
    few = [Rooms(split, count, density=60.0) for split, count in (("train", 2), ("test", 1))]
    monkeypatch.setattr("contrast3d.recipes.evaluate_scenes._labelled", lambda dataset, root: few)
    assert cli.main(["evaluate", "segmentation", str(run), "--labels", "all", "--draws", "1", "--steps", "1"]) == 0
    said = capsys.readouterr().out
    assert "scratch" in said
    assert "bathtub" in said  # IoU of each class
    assert "best on" not in said  # so few scenes spare none to look at
    results = {path.stem: json.loads(path.read_text()) for path in run.glob("results/segmentation-rooms-*.json")}
    found = results["segmentation-rooms-100percent-mean_iou"]
    assert 0 <= found["mean"] <= 1
    assert any("scratch" in name for name in found["baselines"])


def test_segmentation_as_published(run, monkeypatch, capsys):
    few = [Rooms(split, count, density=60.0) for split, count in (("train", 2), ("test", 1))]
    monkeypatch.setattr("contrast3d.recipes.evaluate_scenes._labelled", lambda dataset, root: few)
    small = dataclasses.replace(PUBLISHED["s3dis"], steps=2, looks=1, batch_size=2)
    monkeypatch.setitem(PUBLISHED, "s3dis", small)
    command = ["evaluate", "segmentation", str(run), "--dataset", "S3DIS", "--labels", "all", "--draws", "1"]
    assert cli.main([*command, "--published"]) == 0
    assert capsys.readouterr().out.count("best on test") == 2  # of mean IoU and of the classes
    result = json.loads((run / "results" / "segmentation-s3dis-100percent-mean_iou_best.json").read_text())
    assert "best epoch chosen on test" in result["protocol"]
    assert "as published for s3dis" in result["protocol"]
    assert result["chosen"][0]["on"] == "test"


def test_what_runs_on_shapes_alone_is_refused(fails, run, tmp_path):
    for verb in (["evaluate", "linear", run], ["evaluate", "knn", run], ["evaluate", "finetune", run],
                 ["embed", run, "LDraw40", "-o", tmp_path / "index"], ["export", run, "-o", tmp_path / "files"]):
        said = fails(2, *verb)
        assert "trained on scenes" in said
        assert "registration" in said
    assert not (tmp_path / "index").exists()
    assert not (tmp_path / "files").exists()


def test_what_runs_on_scenes_alone_is_refused(fails, tmp_path):
    recipe = tiny.shrunk(table.find("simclr-ldraw40"))
    shapes = RunDir(tmp_path / "shapes").create(record("simclr-ldraw40", recipe))
    shapes.save_encoder(recipe.make_encoder(), {})
    for protocol in ("registration", "segmentation"):
        said = fails(2, "evaluate", protocol, shapes.path)
        assert f"{protocol} is about scenes" in said
        assert "was trained on single shapes" in said
        assert "linear" in said


@pytest.mark.parametrize(("words", "told"), [
    ("registration --steps 3", "registration knows no --steps"),
    ("registration --labels 1%", "registration knows no --labels"),
    ("registration --up y", "registration knows no --up"),
    ("registration --scenes kitchen", "--scenes names scenes of a folder"),
    ("registration --draws 0", "draws = 0"),
    ("segmentation --scenes kitchen", "segmentation knows no --scenes"),
    ("segmentation --epochs 3", "segmentation knows no --epochs"),
    ("segmentation --supervised-seconds 3", "segmentation knows no --supervised-seconds"),
    ("segmentation --labels 5", "segmentation takes shares of the training scenes"),
    ("segmentation --published", "--published belongs to --dataset S3DIS or ScanNet"),
    ("registration --published", "registration knows no --published"),
    ("segmentation --dataset ModelNet40", "no labelled scenes 'ModelNet40'; there are Rooms, S3DIS, ScanNet"),
])
def test_mistaken_evaluations_of_scenes(fails, trained, words, told):
    protocol, *flags = words.split()
    assert told in fails(2, "evaluate", protocol, trained, *flags)
    assert not list(trained.glob("results/*"))


# All recipes.


@pytest.mark.parametrize("name", SCENES)
def test_every_recipe_trains(name, folder, tmp_path):
    """At a size for tests, on scenes of the kind that it asks for."""
    recipe = table.find(name)
    here = {} if recipe.dataset == "Rooms" else {"dataset": str(folder), "test_scenes": ()}
    _, outcome = pretrain(name, quick(name, **here), Machine(out=tmp_path / "run", quiet=True))
    assert (outcome.status, outcome.steps) == ("finished", 2)
    assert math.isfinite(outcome.metrics["loss"])


@pytest.mark.parametrize("fields", [
    {"loss": "hardest"}, {"loss": "hardest", "squared_positive": False}, {"scale_views": True}, {"holistic": True},
    {"method": "supervised"}, {"schedule": "step"}, {"precision": "bfloat16"}, {"optimizer": "sgd", "clip_norm": 1.0},
    {"feature_noise": 0.0, "max_angle": 180.0},
], ids=str)
def test_every_turn_of_a_field_trains(fields, tmp_path):
    _, outcome = pretrain(NAME, quick(**fields), Machine(out=tmp_path / "run", quiet=True))
    assert outcome.status == "finished"
    assert math.isfinite(outcome.metrics["loss"])


def test_full_size():
    encoder = table.find("point-contrast-scannet").make_encoder()
    assert sum(p.numel() for p in encoder.parameters()) == 37_847_808
    assert (encoder.dense_dim, encoder.voxel_size, encoder.stem_norm.momentum) == (32, 0.025, 0.05)
    assert all(m.alone for m in encoder.modules() if isinstance(m, BatchNorm))
    assert not any(m.alone for m in TINY.make_encoder().modules() if isinstance(m, BatchNorm))


def test_the_released_values():
    """Of the scripts: 60,000 steps of 32 pairs, lr times 0.99 every 250 of them, momentum 0.8."""
    for name, loss, lr in (("point-contrast-scannet", "info-nce", 0.05), ("point-contrast-scannet-hardest", "hardest",
                                                                          0.1)):
        recipe = table.find(name)
        assert (recipe.loss, recipe.lr, recipe.momentum, recipe.weight_decay) == (loss, lr, 0.8, 1e-4)
        assert (recipe.epochs * recipe.steps, recipe.batch_size, recipe.temperature) == (60_000, 32, 0.4)
        assert (recipe.schedule, recipe.step_gamma, recipe.step_epochs * recipe.steps) == ("step", 0.99, 250)
        assert (recipe.optimizer, recipe.max_angle, recipe.num_pairs, recipe.num_candidates) == (
            "sgd", 180.0, 4096, 1024)
        assert not recipe.scale_views
        assert recipe.training().decay_all


def test_fields_reach_the_method_and_the_loader():
    recipe = quick(loss="hardest", num_candidates=7, squared_positive=False, max_angle=20.0, feature_noise=0.5,
                   scale_views=True)
    task = recipe.task(Machine(quiet=True), ALONE)
    method, loader = task.method, task.loader
    assert isinstance(method, PointContrast)
    assert (method.loss, method.num_pairs, method.num_candidates, method.squared_positive) == (
        "hardest", 200, 7, False)
    assert (loader.max_angle, loader.feature_noise, loader.scale, loader.voxel_size) == (20.0, 0.5, (0.8, 1.2), 0.1)
    assert (len(loader), loader.batch_size, loader.holistic) == (2, 2, False)
    assert method.encoder.voxel_size == 0.1
    assert task.on_epoch is None  # no rooms are looked at
    assert quick(temperature=0.3).make_method().temperature == 0.3
    training = dataclasses.replace(TINY, clip_norm=2.0, optimizer="sgd", momentum=0.7).training()
    assert (training.clip_norm, training.momentum) == (2.0, 0.7)
    assert TINY.training().clip_norm is None


def test_supervised_learns_the_classes_of_rooms():
    task = quick(method="supervised").task(Machine(quiet=True), ALONE)
    assert isinstance(task.method, Segmenter)
    assert task.title == "Rooms train"
    assert task.method.encoder.final is None


def test_ranks_share_the_pairs():
    shares = [quick().task(Machine(quiet=True), Ranks(r, 2, r, torch.device("cpu"))).loader.batch(0, 0)
              for r in range(2)]
    whole = quick().task(Machine(quiet=True), ALONE).loader.batch(0, 0)
    assert [len(share) for share in shares] == [1, 1]
    assert torch.equal(torch.cat([share.first.points for share in shares]), whole.first.points)


def test_only_the_first_process_looks_at_held_out_rooms():
    tasks = [TINY.task(Machine(quiet=True), Ranks(r, 2, r, torch.device("cpu"))) for r in range(2)]
    assert [task.on_epoch is None for task in tasks] == [False, True]


@pytest.mark.parametrize("name", SCENES)
def test_round_trip(name, tmp_path):
    own = table.find(name)
    changed = dataclasses.replace(own, lr=0.5, loss="hardest", test_scenes=("a", "b"), depth=50, holistic=True)
    for kept in (own, changed):
        (tmp_path / "recipe.json").write_text(json.dumps(record(name, kept)))
        run = load_run(tmp_path)
        assert (run.name, run.recipe) == (name, kept)
        assert hash(run.recipe) == hash(kept)


def test_a_run_of_scenes_has_no_points_per_view(trained):
    with pytest.raises(ConfigError, match=r"was trained on scenes.*Try: contrast3d evaluate registration"):
        load_run(trained).reader()


def test_the_seed_decides(tmp_path):
    def run(name, seed):
        pretrain(NAME, quick(seed=seed), Machine(out=tmp_path / name, device="cpu", quiet=True))
        return weights(tmp_path / name)

    assert run("first", 1) == run("again", 1)
    assert run("again", 1) != run("other", 2)


# A folder of scenes.


def test_a_folder_of_scenes(folder, tmp_path, capsys, fails):
    """Pairs that are stored are taken, others looked for; test scenes are kept from training and registered."""
    recipe = tiny.shrunk(table.find(NAME), dataset=str(folder), test_scenes=("office",))
    train, test = (recipe.scenes(split, Path("nowhere"), True) for split in ("train", "test"))
    assert [s.name for s in train] == ["kitchen-a", "kitchen-b"]
    assert [s.name for s in test] == ["office"]
    assert [len(s.pairs) for s in train] == [3, 3]
    out = tmp_path / "run"
    assert cli.main(arguments(out, recipe)) == 0
    assert "held_out_inlier_ratio" in load_run(out).folder.metrics()[-1]
    assert f"next: contrast3d evaluate registration {out}   contrast3d" in capsys.readouterr().out
    assert cli.main(["evaluate", "registration", str(out), "--draws", "1"]) == 0
    results = [json.loads(path.read_text()) for path in out.glob("results/registration-*.json")]
    assert {tuple(result["scenes"]) for result in results} == {("office",)}
    capsys.readouterr()
    assert "no scene called attic; there are kitchen-a" in fails(
        2, "evaluate", "registration", out, "--scenes", "attic")


def test_pairs_are_looked_for_where_none_are_stored(folder):
    recipe = quick(dataset=str(folder), test_scenes=("kitchen",), min_overlap=0.5)
    (office,) = recipe.scenes("train", Path("nowhere"), True)
    assert {(0, 1), (1, 2), (2, 3)} <= set(map(tuple, office.pairs.tolist()))
    assert (office.overlaps >= 0.5).all()


def test_stored_pairs_that_overlap_less_are_left_out(folder):
    """Of a file without overlaps all pairs stay."""
    kept = [
        [len(s.pairs) for s in quick(dataset=str(folder), test_scenes=("office",), min_overlap=least).scenes(
            "train", Path("nowhere"), True)] for least in (0.7, 0.75)]
    assert kept == [[3, 3], [0, 0]]
    views = [np.zeros((1, 3))] * 3
    (bare,) = paired([SceneViews.of(views, np.tile(np.eye(4), (3, 1, 1)), pairs=np.array([[0, 1]]),
                                    overlaps=np.zeros(1, np.float32))], 0.3, True)
    assert bare.pairs.tolist() == [[0, 1]]


def test_scannet_is_no_other_folder_below_the_data_root(folder, tmp_path, fails):
    """3DMatch has a folder of its own there, which must not pass for ScanNet."""
    shutil.copytree(folder, tmp_path / "3dmatch")
    pretrain_on = ["--data-root", tmp_path, "--out", tmp_path / "run", "--quiet"]
    told = fails(1, "pretrain", "point-contrast-scannet", *pretrain_on)
    assert f"{tmp_path}: no scenes; expected scenes, one .npz each" in told
    assert "data prepare pairs SCANS -o FOLDER" in told
    recipe = quick("point-contrast-scannet")
    assert [s.name for s in recipe.scenes("train", tmp_path / "3dmatch", True)] == ["kitchen-a", "kitchen-b", "office"]


def test_a_run_on_all_scenes_has_none_left_to_register(folder, tmp_path, fails):
    recipe = quick(dataset=str(folder))
    assert cli.main(arguments(tmp_path / "run", recipe)) == 0
    assert "the run was trained on all scenes of its data set" in fails(
        2, "evaluate", "registration", tmp_path / "run")


def test_data_that_changed_are_not_resumed_on(folder, tmp_path):
    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    recipe, machine = quick(dataset=str(mine)), Machine(out=tmp_path / "run", quiet=True)
    pretrain(NAME, recipe, machine)
    (mine / "kitchen-b.npz").unlink()
    with pytest.raises(ConfigError, match="trained on other data"):
        pretrain(NAME, recipe, machine)


def test_what_to_do_next():
    outcome, machine = Outcome("finished", 1, 1, 1.0, {}), Machine(data_root=Path("my data"))

    def commands(**fields):
        recipe = dataclasses.replace(TINY, **fields)
        return next_commands(Run(RunDir("R"), NAME, recipe), outcome, machine)

    both = ["contrast3d evaluate registration R", "contrast3d evaluate segmentation R", "contrast3d report R"]
    assert commands() == both
    assert commands(method="supervised") == both[1:]
    assert commands(dataset="mine") == both[1:]
    assert commands(dataset="mine", test_scenes=("a",)) == both
    assert commands(dataset="3DMatch", test_scenes=("a",)) == [f"{c} --data-root 'my data'" for c in both]


# What cannot be, and what would change nothing.


@pytest.mark.parametrize(("flags", "code", "told"), [
    ("--dataset nowhere", 1, "nowhere: no such folder"),
    ("--dataset 3DMatch --data-root nowhere", 1, "nowhere: no such folder"),
    ("--dataset FOLDER --test-scenes attic", 2, "no scene called attic; there are kitchen-a, kitchen-b, office"),
    ("--dataset FOLDER --test-scenes kitchen office", 1, "test_scenes: all scenes are held out"),
    ("--dataset FOLDER --test-scenes office --batch-size 7", 1, "2 scenes: 6 pairs of overlapping views; expected at"),
    ("--method supervised --dataset FOLDER", 2, "supervised pre-training needs labelled scenes"),
    ("--holistic --batch-size 3", 1, "2 scenes to see whole; expected at least batch_size = 3"),
    ("--rooms 0", 2, "rooms = 0"), ("--frames 1", 2, "frames = 1; expected at least 2"), ("--steps 0", 2, "steps = 0"),
    ("--batch-size 0", 2, "batch_size = 0"), ("--epochs 0", 2, "epochs = 0"), ("--depth 20", 2, "depth = 20"),
    ("--voxel-size 0", 2, "voxel_size = 0"), ("--width -1", 2, "width = -1"), ("--temperature nan", 2, "temperature"),
    ("--min-overlap 0", 2, "min_overlap = 0"), ("--min-overlap 1.5", 2, "min_overlap = 1.5"),
    ("--max-angle 200", 2, "max_angle = 200"), ("--loss triplet", 2, "invalid choice 'triplet'"),
    ("--out-channels 0", 2, "out_channels = 0"), ("--feature-noise -1", 2, "feature_noise = -1"),
    ("--norm-momentum 2", 2, "norm_momentum = 2"), ("--rooms 1 --frames 2 --batch-size 30", 1, "at least batch_size"),
])
def test_mistaken_fields_leave_no_folder_behind(fails, folder, tmp_path, flags, code, told):
    words = [str(folder) if word == "FOLDER" else word for word in flags.split()]
    small = ["--rooms", "2", "--frames", "4"] if "--dataset" not in words else []
    mine = [*small, "--validation-scenes", "0", "--quiet", "--out", tmp_path / "run"]
    mine += [f"--{field}=1" for field in ("epochs", "steps") if f"--{field}" not in words]  # should it be accepted
    assert told in fails(code, "pretrain", NAME, *mine, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("fields", "told"), [
    ({"loss": "hardest", "temperature": 0.7}, "--temperature changes nothing with --loss hardest"),
    ({"num_candidates": 3}, "--num-candidates changes nothing with --loss info-nce"),
    ({"squared_positive": False}, "--squared-positive changes nothing with --loss info-nce"),
    ({"step_gamma": 0.5}, "--step-gamma changes nothing with --schedule cosine"),
    ({"momentum": 0.5}, "--momentum changes nothing with --optimizer adamw"),
    ({"test_scenes": ("a",)}, "--test-scenes changes nothing with --dataset Rooms"),
    ({"dataset": "mine", "rooms": 3}, "--rooms changes nothing with --dataset mine"),
    ({"dataset": "mine", "frames": 3}, "--frames changes nothing with --dataset mine"),
    ({"method": "supervised", "out_channels": 3}, "--out-channels changes nothing with --method supervised"),
    ({"method": "supervised", "holistic": True}, "--holistic changes nothing with --method supervised"),
    ({"method": "supervised", "max_angle": 3.0}, "--max-angle changes nothing with --method supervised"),
    ({"method": "supervised", "probe_every": 2}, "--probe-every changes nothing with --method supervised"),
    ({"holistic": True, "min_overlap": 0.4}, "--min-overlap changes nothing with --holistic"),
    ({"validation_scenes": 0, "probe_every": 3}, "--probe-every changes nothing with --validation-scenes 0"),
])
def test_a_field_that_changes_nothing_is_refused(fields, told, tmp_path):
    recipe = dataclasses.replace(table.find(NAME), **fields)
    with pytest.raises(ConfigError, match=told):
        pretrain(NAME, recipe, Machine(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_split_scenes_errors_are_data_errors(folder):
    with pytest.raises(DataError, match="all scenes are held out"):
        quick(dataset=str(folder), test_scenes=("kitchen", "office")).scenes("train", Path("nowhere"), True)
