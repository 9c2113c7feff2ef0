"""Segmentation of scenes: the network, its scores on voxels and points, and the protocol around them."""

from __future__ import annotations

import dataclasses
import io
import json
import signal

import numpy as np
import pytest
import torch
from torch import nn

from contrast3d.data.scenes import IGNORE, Scene, SceneSet
from contrast3d.downstream import semantic_segmentation as module
from contrast3d.downstream.point_baselines import majority, point_numbers, pointwise
from contrast3d.downstream.segmentation_table import MAJORITY, POINTWISE, SCRATCH
from contrast3d.downstream.segmenter import Segmenter, as_voxels, load_matching, predict_scene, score_scenes
from contrast3d.downstream.semantic_segmentation import (
    PUBLISHED,
    Tuning,
    draw_scenes,
    fit_segmenter,
    segmentation,
    segmentation_best_on_test,
)
from contrast3d.engine.loop import Outcome as Ended
from contrast3d.engine.optimizers import build_optimizer
from contrast3d.errors import ConfigError, DataError
from contrast3d.nn.sparse_unet import SparseUNet
from contrast3d.types import Clouds, Features

CLASSES = ("floor", "wall", "chair", "unicorn")
QUICK = {"steps": 20, "looks": 2, "batch_size": 2, "voxel_size": 0.1, "transform": "none", "phase": 0, "lr": 0.03}


class Pointwise(nn.Module):
    """An MLP on height and colour; sees no neighbourhoods."""

    gives, embed_dim, dense_dim = frozenset({"pooled", "dense"}), 8, 8

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, clouds: Clouds) -> Features:
        points = self.layers(torch.cat((clouds.points[:, 2:], clouds.features), 1))
        return Features(points.new_zeros(len(clouds), 8), points)


def room(seed: int) -> Scene:
    """A grey floor, walls, and red chairs; the chairs' label needs the colour, that of the walls the height."""
    random = np.random.default_rng(seed)
    floor = np.c_[random.random((300, 2)) * 3, random.random(300) * 0.02]
    wall = np.c_[np.zeros(200), random.random(200) * 3, 0.1 + random.random(200) * 2]
    chair = np.c_[1 + random.random((100, 2)) * 0.5, 0.1 + random.random(100) * 0.8]
    points = np.concatenate((floor, wall, chair)) + [seed, 2 * seed, 1]
    labels = np.repeat([0, 1, 2], [300, 200, 100]).astype(np.uint8)
    colors = np.where(labels[:, None] == 2, [220, 30, 30], [120, 120, 120]) + random.integers(-25, 25, (600, 3))
    labels[random.random(600) < 0.02] = IGNORE
    order = random.permutation(600)
    points, colors = points.astype(np.float32), colors.astype(np.uint8)
    return Scene(f"room{seed}", points[order], colors[order], labels[order])


def rooms(count: int, first: int = 0, title: str = "toys train") -> SceneSet:
    return SceneSet(tuple(room(first + i) for i in range(count)), CLASSES, title)


TRAIN, TEST = rooms(10), rooms(2, 50, "toys test")


@pytest.fixture(scope="module")
def state():
    """Of an encoder that was trained on other rooms."""
    segmenter, _ = fit_segmenter(Pointwise, rooms(4, 20), TEST, Tuning(**{**QUICK, "steps": 60}))
    return {f"module.encoder.{name}": tensor for name, tensor in segmenter.encoder.state_dict().items()}


@pytest.fixture(scope="module")
def table(state):
    return segmentation(
        Pointwise, {**state, "final.kernel": torch.zeros(2)}, TRAIN, TEST, name="ours", shares=(0.1, 1.0), draws=2,
        seed=3, **QUICK,
    )


def test_the_whole_table(table):
    assert table.contestants == [MAJORITY, POINTWISE, SCRATCH, "ours"]
    assert table.dataset == "toys"
    assert table.shares == {0.1: 1, 1.0: 10}
    assert table.seeds == (3, 4)
    assert table.loaded == ["layers.0.bias", "layers.0.weight", "layers.2.bias", "layers.2.weight"]
    assert table.skipped == ["final.kernel"]
    assert table.protocol.startswith("semantic segmentation (steps 20, batch_size 2, voxel_size 0.1, transform none")
    assert all(len(outcomes) == 2 for outcomes in table.outcomes.values())
    floor_alone = table.cell(MAJORITY, 1.0).mean
    for share in table.shares:
        assert table.cell("ours", share).mean > table.cell(SCRATCH, share).mean > floor_alone
        assert table.gain(SCRATCH, share).mean == pytest.approx(
            table.cell("ours", share).mean - table.cell(SCRATCH, share).mean
        )
    assert table.cell("ours", 1.0).mean > 0.9
    assert table.cell(POINTWISE, 1.0).mean > 0.9
    assert floor_alone == pytest.approx(table.cell(MAJORITY, 1.0, "overall_accuracy").mean / 3, abs=1e-6)


def test_of_few_scenes_none_is_spared_for_validation(table):
    assert [o.scenes for o in table.outcomes["ours", 0.1]] == [(1, 0)] * 2
    assert table.cell("ours", 0.1, at="best") is None
    assert [o.scenes for o in table.outcomes["ours", 1.0]] == [(8, 2)] * 2
    assert table.cell("ours", 1.0, at="best") is not None
    assert {o.step for o in table.outcomes["ours", 1.0]} <= {10, 20}
    assert table.outcomes[MAJORITY, 1.0][0].best is None


def test_results(table):
    results = table.to_results("toy", commit="c", command="x", device="cpu", paper=0.7)
    by_name = {(r["condition"], r["metric"]): r for r in results}
    assert len(by_name) == len(results) == 6 + 12
    whole = by_name["100% (10 scenes)", "mean_iou"]
    assert whole["mean"] == table.cell("ours", 1.0).mean
    assert whole["baselines"][SCRATCH]["std"] == table.cell(SCRATCH, 1.0).std
    assert set(whole["classes"]) == set(CLASSES) == set(whole["baselines"][SCRATCH]["classes"])
    assert whole["baselines"][MAJORITY]["classes"]["floor"] > 0
    assert by_name["100% (10 scenes)", "mean_accuracy"]["baselines"][SCRATCH]["classes"] is None
    assert whole["classes"]["unicorn"] is None
    assert whole["classes"]["floor"] > 0.9
    assert (whole["paper"], by_name["10% (1 scene)", "mean_iou"]["paper"]) == (0.7, None)
    assert by_name["100% (10 scenes)", "mean_iou_points_best"]["chosen"][0]["scenes"] == [8, 2]
    assert ("10% (1 scene)", "mean_iou_best") not in by_name
    json.dumps(results, allow_nan=False)


def test_rendered(table):
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table.render(), table.render("mean_accuracy", "points", "best"), table.render_classes(1.0))
    text = " ".join(console.export_text().split())
    assert "10% (1 scene)" in text
    assert "ours over from scratch" in text
    assert "mean accuracy of points in %, best on validation" in text
    assert "unicorn" in text


def test_pages_are_the_last_weights_the_best_and_each_class(table):
    titles = [str(page.title) for page in table.pages()]
    assert [title.rpartition(", ")[2] for title in titles] == ["last", "best on validation", "last"]
    assert "mean iou" in titles[0]
    assert "IoU of voxels in %, 100% (10 scenes)" in titles[2]
    on_test = dataclasses.replace(table, best_of="test")
    assert str(on_test.pages()[2].title).endswith("best on test")
    unwatched = dataclasses.replace(table, shares={0.1: 1})
    assert len(unwatched.pages()) == 2


@pytest.mark.parametrize("rescale", [True, False])
def test_pretrained_weights_are_brought_to_the_length_of_fresh_ones_unless_as_published(rescale):
    def make(seed):
        torch.manual_seed(seed)
        return SparseUNet(3, None, depth=14, width=1 / 16)

    fresh, long = make(0), {name: 5 * tensor for name, tensor in make(1).state_dict().items()}
    loaded = module._loaded(make, long, rescale, 0)
    ratio = float(loaded.stem.weight.norm() / fresh.stem.weight.norm())
    assert ratio == pytest.approx(1.0) if rescale else ratio > 4
    assert not any(how.rescale for how in PUBLISHED.values())


def test_same_seed_same_numbers(table, state):
    again = segmentation(Pointwise, state, TRAIN, TEST, name="ours", shares=(1.0,), draws=1, seed=3, baselines=False,
                         **QUICK)
    first, second = (t.outcomes["ours", 1.0][0].last for t in (table, again))
    assert torch.equal(first.voxels, second.voxels)
    assert again.contestants == [SCRATCH, "ours"]


def test_best_on_test_says_so(state):
    told, trained = [], []
    table = segmentation_best_on_test(
        Pointwise, None, TRAIN, TEST, shares=(0.2,), draws=1, baselines=False, on_progress=told.append,
        on_trained=lambda *given: trained.append(given), **QUICK,
    )
    assert table.protocol.startswith("semantic segmentation, best epoch chosen on test")
    assert table.contestants == [SCRATCH] == [table.ours]
    assert table.cell(SCRATCH, 0.2, at="best").mean >= table.cell(SCRATCH, 0.2).mean
    assert table.outcomes[SCRATCH, 0.2][0].scenes == (2, 2)
    assert table.best_of == "test"
    assert told[0] == f"{SCRATCH}, 20% (2 scenes), draw 1 of 1"
    assert told[1].startswith(f"{told[0]}: mIoU ")
    (who, share, seed, segmenter), = trained
    assert (who, share, seed) == (SCRATCH, 0.2, 0)
    again = score_scenes(segmenter, TEST, 0.1)
    assert torch.equal(again.points, table.outcomes[SCRATCH, 0.2][0].last.points)


def test_validation_scenes_may_be_given(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "fit_segmenter", lambda make, few, test, how, watched, **rest: seen.append(
        (len(few), watched)) or (None, module.Outcome(majority(few, test, 0.1))))
    own = rooms(1, 70)
    segmentation(Pointwise, None, TRAIN, TEST, shares=(0.1, 1.0), draws=1, baselines=False, validation=own)
    segmentation(Pointwise, None, TRAIN, TEST, shares=(1.0,), draws=1, baselines=False, validation=0.0)
    assert seen == [(1, own), (10, own), (10, None)]


def test_draws_are_nested_and_differ():
    rows = {share: draw_scenes(40, share, 1) for share in (0.001, 0.1, 0.5, 1.0)}
    assert [len(r) for r in rows.values()] == [1, 4, 20, 40]
    for smaller, larger in zip(list(rows.values()), list(rows.values())[1:]):
        assert larger[: len(smaller)] == smaller
    assert draw_scenes(40, 0.1, 2) != rows[0.1]
    with pytest.raises(ConfigError, match=r"a share of 1\.5"):
        draw_scenes(4, 1.5, 0)


def test_both_begin_with_the_same_head_and_their_own_encoder(state, monkeypatch):
    seen = []

    def spy(segmenter, loader, settings, **rest):
        seen.append((segmenter, loader.batch(1, 1), settings))
        return Ended("finished", 1, 1, 0.0, {})

    monkeypatch.setattr(module, "run_training", spy)
    segmentation(Pointwise, state, TRAIN, TEST, shares=(0.3,), draws=1, seed=5, baselines=False,
                 **QUICK | {"encoder_lr_scale": 0.5})
    (scratch, a, how), (ours, b, same_how) = seen
    assert torch.equal(scratch.head.weight, ours.head.weight)
    assert torch.equal(a.points, b.points)
    assert how == same_how
    assert torch.equal(scratch.encoder.layers[0].weight, Pointwise(5).layers[0].weight)
    assert torch.equal(ours.encoder.layers[0].weight, state["module.encoder.layers.0.weight"])
    assert scratch.encoder_lr is None
    assert ours.encoder_lr == 0.015


def test_the_sparse_network_takes_what_it_learnt_without_its_last_layer():
    small = {"in_channels": 3, "depth": 14, "width": 0.125, "voxel_size": 0.2}
    pretrained = SparseUNet(out_channels=16, **small).state_dict()
    table = segmentation(
        lambda seed: SparseUNet(out_channels=None, **small), pretrained, TRAIN, TEST, shares=(0.1,), draws=1,
        baselines=False, **QUICK | {"steps": 2, "voxel_size": 0.2, "transform": "s3dis"},
    )
    assert table.skipped == ["final.bias", "final.weight"]
    assert len(table.loaded) == len(pretrained) - 2
    again = segmentation(
        lambda seed: SparseUNet(out_channels=None, **small), None, TRAIN, TEST, shares=(0.1,), draws=1,
        baselines=False, **QUICK | {"steps": 2, "voxel_size": 0.2, "transform": "s3dis"},
    )
    first, second = (t.outcomes[SCRATCH, 0.1][0].last.points for t in (table, again))
    assert torch.equal(first, second), "the weights that an encoder begins with follow from the seed"
    with pytest.raises(ConfigError, match=r"voxels of 0\.2 m, the scenes are thinned to 0\.1 m"):
        fit_segmenter(lambda seed: SparseUNet(out_channels=None, **small), TRAIN, TEST, Tuning(**QUICK))


@pytest.mark.parametrize(("sent", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_training_that_was_stopped_is_not_scored(monkeypatch, sent, raised):
    monkeypatch.setattr(module, "run_training", lambda *a, **k: Ended("interrupted", 1, 0, 0.0, {}, int(sent)))
    with pytest.raises(raised):
        fit_segmenter(Pointwise, TRAIN, TEST, Tuning(**QUICK))


def test_the_published_recipes():
    how = PUBLISHED["s3dis"]
    settings = how.training(0)
    assert (settings.optimizer, settings.lr, settings.momentum, settings.dampening) == ("sgd", 0.1, 0.9, 0.1)
    assert (settings.schedule, settings.poly_power, settings.weight_decay) == ("poly", 0.9, 1e-4)
    assert how.looks * how.epoch_steps == 60_000
    assert (PUBLISHED["scannet"].lr, PUBLISHED["scannet"].voxel_size) == (0.8, 0.02)
    groups = build_optimizer(Segmenter(Pointwise(), 13, encoder_lr=0.01), settings).param_groups
    assert {g["weight_decay"] for g in groups} == {1e-4}
    ours = dataclasses.replace(settings, decay_all=False)
    groups = build_optimizer(Segmenter(Pointwise(), 13), ours).param_groups
    assert {g["weight_decay"] for g in groups} == {0.0, 1e-4}


def test_loss_is_the_mean_over_labelled_points():
    segmenter = Segmenter(Pointwise(), 4)
    clouds, _ = as_voxels(TEST[0], 0.1)
    logits, known = segmenter.logits(clouds), clouds.point_labels != IGNORE
    expected = nn.functional.cross_entropy(logits[known], clouds.point_labels[known])
    torch.testing.assert_close(segmenter(clouds)["loss"], expected)
    nothing = segmenter(clouds.replace(point_labels=torch.full_like(clouds.point_labels, IGNORE)))["loss"]
    assert nothing == 0
    nothing.backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in segmenter.parameters())
    with pytest.raises(DataError, match="no labels of points"):
        segmenter(clouds.replace(point_labels=None))


def test_without_colors_the_encoder_sees_none():
    clouds = TEST[0].clouds()
    seen = []

    class Watching(nn.Module):
        dense_dim = 3

        def forward(self, clouds):
            seen.append(clouds.features)
            return Features(clouds.points[:1], points=clouds.points)

    for colors in (True, False):
        Segmenter(Watching(), 4, colors=colors)(clouds)
    assert seen[0] is clouds.features
    assert seen[0] is not None
    assert seen[1] is None


def test_scores_on_voxels_and_on_points_against_a_loop():
    segmenter = Segmenter(Pointwise(), 4).train()
    scores = score_scenes(segmenter, TEST, 0.3)
    assert segmenter.training
    points, voxels = torch.zeros(2, 4, 4, dtype=torch.int64)
    for scene in TEST.scenes:
        predicted = predict_scene(segmenter, scene, 0.3).tolist()
        middle = (scene.points[:, :2].max(0) + scene.points[:, :2].min(0)) / 2
        moved = scene.points - np.array([*middle, scene.points[:, 2].min()], np.float32)
        groups: dict[tuple, list[int]] = {}
        for i, p in enumerate(moved):
            groups.setdefault(tuple(np.floor(p / np.float32(0.3)).astype(int)), []).append(i)
        for members in groups.values():
            assert len({predicted[i] for i in members}) == 1, "points of a voxel share its class"
            labels = {int(scene.labels[i]) for i in members}
            if len(labels) == 1 and labels != {IGNORE}:
                voxels[labels.pop(), predicted[members[0]]] += 1
        for i, label in enumerate(scene.labels):
            if label != IGNORE:
                points[label, predicted[i]] += 1
    assert torch.equal(scores.points, points)
    assert abs(int(scores.voxels.sum() - voxels.sum())) <= 2, "but for points on the walls of voxels"


def test_load_matching_reports_what_it_left():
    source, target = Pointwise(1).state_dict(), Pointwise(2)
    source["layers.2.weight"] = torch.zeros(5, 16)
    loaded, skipped = load_matching(target, {f"encoder.{k}": v for k, v in source.items()})
    assert loaded == ["layers.0.bias", "layers.0.weight", "layers.2.bias"]
    assert skipped == ["encoder.layers.2.weight"]
    assert torch.equal(target.layers[0].weight, source["layers.0.weight"])
    whole = nn.ModuleDict({"encoder": Pointwise(3)})
    assert len(load_matching(whole, {f"encoder.{k}": v for k, v in Pointwise(4).state_dict().items()})[0]) == 4
    with pytest.raises(ConfigError, match=r"no tensor of the pre-trained state fits Pointwise: it has conv0\.kernel"):
        load_matching(target, {"conv0.kernel": torch.zeros(3)})


def test_baselines():
    assert majority(TRAIN, TEST, 0.1).voxels[:, 1:].sum() == 0
    swapped = SceneSet(tuple(dataclasses.replace(s, labels=np.array([1, 0, 2] + [IGNORE] * 253, np.uint8)[s.labels])
                             for s in rooms(1, 5).scenes), CLASSES)
    first, second = pointwise([(rooms(2), 1), (swapped, 2)], TEST, 0.1)
    again, = pointwise([(swapped, 2)], TEST, 0.1)
    assert torch.equal(second.points, again.points)
    assert first.measure("mean_iou") > 0.9
    assert second.measure("mean_iou") < 0.4, "each learns from its own scenes"
    clouds, _ = as_voxels(TEST[0], 0.05)
    numbers = point_numbers(clouds)
    assert numbers.shape == (len(clouds.points), 4 + 2 * 9)
    assert np.isfinite(numbers).all()
    np.testing.assert_allclose(point_numbers(clouds, np.array([5, 2])), numbers[[5, 2]])
    floor = clouds.point_labels.numpy() == 0
    assert np.median(numbers[floor, 8]) > 0.98, "the normal of the floor points up"
    one = Scene("dot", np.zeros((1, 3), np.float32), np.zeros((1, 3), np.uint8), np.zeros(1, np.uint8))
    assert np.isfinite(point_numbers(as_voxels(one, 0.1)[0])).all()


def test_what_cannot_be_segmented(state):
    with pytest.raises(ConfigError, match="no field stepz"):
        segmentation(Pointwise, None, TRAIN, TEST, stepz=3)
    with pytest.raises(ConfigError, match="steps = 0"):
        segmentation(Pointwise, None, TRAIN, TEST, steps=0)
    with pytest.raises(ConfigError, match="at least one draw"):
        segmentation(Pointwise, None, TRAIN, TEST, draws=0)
    with pytest.raises(ConfigError, match="called 'from scratch'"):
        segmentation(Pointwise, state, TRAIN, TEST, name=SCRATCH)
    with pytest.raises(ConfigError, match="called 'majority class'"):
        segmentation(Pointwise, state, TRAIN, TEST, name=MAJORITY)
    bare = SceneSet(tuple(dataclasses.replace(s, labels=None) for s in TEST.scenes), CLASSES, "bare test")
    with pytest.raises(DataError, match="bare test: no labels"):
        segmentation(Pointwise, None, TRAIN, bare)
    others = SceneSet(TEST.scenes, (*CLASSES, "dragon"), "others")
    with pytest.raises(DataError, match="others: the classes"):
        segmentation(Pointwise, None, TRAIN, others)
    with pytest.raises(ConfigError, match="Linear has not"):
        Segmenter(nn.Linear(3, 3), 4)
