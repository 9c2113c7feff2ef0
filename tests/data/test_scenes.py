"""Labelled scenes: what they refuse, what they become, and that their hash is of what was trained on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from contrast3d.data.scenes import IGNORE, Scene, SceneSet
from contrast3d.errors import DataError

CLASSES = ("floor", "wall", "chair")


def scene(n=6, name="office", **fields):
    rng = np.random.default_rng(n)
    own = {
        "points": rng.normal(size=(n, 3)).astype(np.float32),
        "colors": rng.integers(0, 256, (n, 3)).astype(np.uint8),
        "labels": (np.arange(n) % 3).astype(np.uint8),
        "instances": np.arange(n, dtype=np.int32) - 1,
    }
    return Scene(name, **{**own, **fields})


def test_a_scene_becomes_a_batch_of_one():
    ours = scene(colors=np.array([[0, 255, 51]] * 6, np.uint8), labels=np.array([0, 1, 2, 255, 0, 1], np.uint8))
    clouds = ours.clouds(7)
    assert (len(clouds), clouds.ids.tolist()) == (1, [7])
    assert torch.equal(clouds.points, torch.from_numpy(ours.points))
    torch.testing.assert_close(clouds.features[0], torch.tensor([-0.5, 0.5, -0.3]))
    assert clouds.point_labels.tolist() == [0, 1, 2, IGNORE, 0, 1]
    assert clouds.point_labels.dtype == torch.int64


def test_what_is_not_known_is_left_out():
    clouds = scene(colors=None, labels=None, instances=None).clouds()
    assert clouds.features is clouds.point_labels is None
    assert len(scene(0).clouds().points) == 0


@pytest.mark.parametrize(("fields", "words"), [
    ({"points": np.zeros((6, 3))}, "points of float64"),
    ({"points": np.zeros((6, 2), np.float32)}, r"points of float32 \(6, 2\)"),
    ({"points": np.zeros(6, np.float32)}, r"points of float32 \(6,\)"),
    ({"points": np.full((6, 3), np.nan, np.float32)}, "NaN or infinite"),
    ({"points": np.full((6, 3), np.inf, np.float32)}, "NaN or infinite"),
    ({"colors": np.zeros((5, 3), np.uint8)}, "5 colors for 6 points"),
    ({"labels": np.zeros(7, np.uint8)}, "7 labels for 6 points"),
    ({"instances": np.zeros(0, np.int32)}, "0 instances for 6 points"),
])
def test_a_scene_that_cannot_be(fields, words):
    with pytest.raises(DataError, match=f"office: {words}"):
        scene(**fields)


def test_a_label_that_no_class_has():
    for labels in (np.array([0, 1, 3, 255, 0, 0], np.uint8), np.full(6, 254, np.uint8)):
        with pytest.raises(DataError, match=r"mine: office: a label (3|254); expected below 3, or 255"):
            SceneSet((scene(labels=labels),), CLASSES, "mine")
    assert len(SceneSet((scene(labels=np.full(6, IGNORE, np.uint8)), scene(labels=None)), CLASSES)) == 2
    with pytest.raises(DataError, match="a label 2; expected below 0"):
        SceneSet((scene(),))


def test_a_set_and_parts_of_it():
    scenes = SceneSet(tuple(scene(n, name=f"room{n}") for n in (3, 4, 5)), CLASSES, "Mine train")
    assert (len(scenes), scenes[1].name) == (3, "room4")
    part = scenes.subset([2, 0])
    assert [s.name for s in part.scenes] == ["room5", "room3"]
    assert (part.classes, part.title) == (CLASSES, "Mine train")
    assert scenes.subset([0], "few").title == "few"


def test_the_hash_is_of_points_and_labels():
    base = SceneSet((scene(5), scene(6)), CLASSES)
    assert base.hash == SceneSet((scene(5), scene(6, name="other", colors=None)), CLASSES, "other").hash
    assert len(base.hash) == 16
    moved = scene(6).points.copy()
    moved[0, 0] += 1e-6
    others = [
        SceneSet((scene(6), scene(5)), CLASSES), SceneSet((scene(5),), CLASSES),
        SceneSet((scene(5), scene(6, points=moved)), CLASSES),
        SceneSet((scene(5), scene(6, labels=np.zeros(6, np.uint8))), CLASSES),
        SceneSet((scene(5), scene(6, labels=None)), CLASSES),
    ]
    assert len({base.hash, *(other.hash for other in others)}) == 1 + len(others)


def test_the_hash_does_not_depend_on_the_layout_in_memory():
    ours = scene(6)
    turned = dataclasses.replace(ours, points=np.asfortranarray(ours.points))
    assert SceneSet((turned,), CLASSES).hash == SceneSet((ours,), CLASSES).hash
