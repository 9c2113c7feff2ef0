"""Batches of scenes: random access, every scene equally often, one point per voxel."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from contrast3d.data.scene_loader import SceneLoader, packed, thinned
from contrast3d.data.scene_transforms import Center
from contrast3d.data.scenes import IGNORE, Scene, SceneSet
from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.voxels import voxelize
from contrast3d.types import Clouds

FIELDS = ("points", "features", "point_labels", "offsets", "ids", "indices")


def scene_set(count=5, points=400) -> SceneSet:
    scenes = []
    for i in range(count):
        random = np.random.default_rng(i)
        xyz = (random.random((points + 10 * i, 3)) * [2, 2, 1] + i).astype(np.float32)
        colors = random.integers(0, 256, xyz.shape).astype(np.uint8)
        scenes.append(Scene(f"room{i}", xyz, colors, (xyz[:, 2] > i + 0.5).astype(np.uint8)))
    return SceneSet(tuple(scenes), ("low", "high"), "toy train")


def same(first: Clouds, second: Clouds) -> bool:
    return all(torch.equal(getattr(first, f), getattr(second, f)) for f in FIELDS)


def test_a_batch_is_a_function_of_its_number():
    loader, again = (SceneLoader(scene_set(), "scannet", 2, 0.1, seed=3) for _ in range(2))
    batches = {(e, s): loader.batch(e, s) for e in range(3) for s in range(len(loader))}
    for (epoch, step), batch in reversed(batches.items()):
        assert same(batch, again.batch(epoch, step))
    assert not same(batches[0, 0], SceneLoader(scene_set(), "scannet", 2, 0.1, seed=4).batch(0, 0))
    with pytest.raises(IndexError, match="step 2 of an epoch of 2 steps"):
        loader.batch(0, 2)


@pytest.mark.parametrize("transform", ["rooms", "s3dis", "scannet", None])
def test_torchs_generator_is_neither_asked_nor_moved(transform):
    loader, state = SceneLoader(scene_set(), transform, 2, 0.1), torch.get_rng_state()
    one = loader.batch(0, 0)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(torch.initial_seed() + 1)
    assert same(one, loader.batch(0, 0))


def test_ranks_share_the_batch_of_one():
    whole = SceneLoader(scene_set(), "s3dis", 4, 0.1, epoch_steps=3)
    shares = [SceneLoader(scene_set(), "s3dis", 4, 0.1, epoch_steps=3, rank=r, world=2) for r in range(2)]
    for step in range(3):
        batch, parts = whole.batch(1, step), [share.batch(1, step) for share in shares]
        assert torch.equal(torch.cat([p.ids for p in parts]), batch.ids)
        assert torch.equal(torch.cat([p.point_labels for p in parts]), batch.point_labels)
        torch.testing.assert_close(torch.cat([p.points for p in parts]), batch.points)


def test_every_scene_comes_equally_often_and_batches_are_full():
    loader = SceneLoader(scene_set(3), None, 4, 0.1, epoch_steps=5)
    ids = torch.cat([loader.rows(e, s)[0] for e in range(3) for s in range(5)])
    assert len(ids) == 60
    assert all(sorted(p.tolist()) == [0, 1, 2] for p in ids.split(3)), "each pass holds each scene once"
    assert len({tuple(p.tolist()) for p in ids.split(3)}) > 2, "in orders of their own"
    alone = SceneLoader(scene_set(1), "rooms", 3, 0.1).batch(0, 0)
    assert alone.ids.tolist() == [0, 0, 0]
    first, second, _ = alone.points.split(alone.lengths.tolist())
    assert first.shape != second.shape or not torch.equal(first, second), "repeats are augmented differently"


def test_one_point_per_voxel_with_its_colour_and_label():
    scenes = scene_set()
    batch = SceneLoader(scenes, None, 2, 0.2, phase=0).batch(0, 0)
    assert len(voxelize(batch, 0.2).coords) == len(batch.points) < 700
    for row, (points, colors, labels, where) in zip(batch.ids.tolist(), zip(*(
        getattr(batch, f).split(batch.lengths.tolist()) for f in ("points", "features", "point_labels", "indices")
    ))):
        scene = scenes[row]
        assert np.array_equal(points.numpy(), scene.points[where])
        np.testing.assert_allclose(colors.numpy(), scene.colors[where] / 255 - 0.5, atol=1e-6)
        kept = labels != IGNORE
        assert np.array_equal(labels[kept].numpy(), scene.labels[where][kept])
        assert 0 < kept.sum() < len(kept), "0.5 m lies within a voxel: its labels differ"


def test_thinning_against_a_loop():
    points = torch.tensor([[0.05, 0, 0], [0.01, 0, 0], [-0.01, 0, 0], [0.11, 0, 0], [0.02, 0.09, 0], [0.05, 0, 0]])
    clouds = Clouds(points, torch.tensor([0, 5, 6]), point_labels=torch.tensor([1, 1, 0, 255, 2, 0]))
    few, rows = thinned(clouds, 0.1)
    assert few.indices.tolist() == [2, 0, 3, 0], "the first of each voxel, sorted; the second cloud has its own"
    assert few.point_labels.tolist() == [0, IGNORE, IGNORE, 0]
    assert few.offsets.tolist() == [0, 3, 4]
    assert rows.tolist() == [1, 1, 0, 2, 1, 3]
    random = np.random.default_rng(0)
    many = torch.from_numpy(random.normal(size=(600, 3)).astype(np.float32))
    clouds = Clouds(many, torch.tensor([0, 200, 200, 600]), point_labels=torch.from_numpy(random.integers(0, 2, 600)))
    few, rows = thinned(clouds, 0.5)
    seen: dict[tuple, list[int]] = {}
    for i, (b, p) in enumerate(zip(clouds.batch_index.tolist(), many.numpy())):
        seen.setdefault((b, *np.floor(p / np.float32(0.5)).astype(int).tolist()), []).append(i)
    seen = dict(sorted(seen.items()))
    assert torch.equal(few.points, many[[members[0] for members in seen.values()]])
    for number, members in enumerate(seen.values()):
        labels = set(clouds.point_labels[members].tolist())
        assert few.point_labels[number] == (labels.pop() if len(labels) == 1 else IGNORE)
        assert (rows[members] == number).all()
    assert few.lengths.tolist()[1] == 0


def test_the_phase_moves_by_whole_voxels_along_all_three_axes():
    plain, moved = (SceneLoader(scene_set(), Center(), 2, 0.25, phase=p) for p in (0, 10))
    shifts = []
    for step in range(2):
        before, after = plain.batch(0, step), moved.batch(0, step)
        where = {(b, i): p for b, i, p in zip(before.batch_index.tolist(), before.indices.tolist(), before.points)}
        keys = zip(after.batch_index.tolist(), after.indices.tolist())
        found = torch.stack([(p - where[key]) / 0.25 for key, p in zip(keys, after.points) if key in where])
        torch.testing.assert_close(found, found.round(), atol=1e-4, rtol=0)
        assert found.min() > -0.01
        assert found.max() < 9.01
        shifts.append(found.round().unique(dim=0))
    shifts = torch.cat(shifts)
    assert len(shifts) == 4, "one of each scene"
    assert (shifts.std(0) > 0).all()


def test_voxels_are_dropped_after_the_thinning():
    """The pipelines drop a fifth of the voxels of a fifth of the scenes."""
    loader = SceneLoader(scene_set(1), "rooms", 1, 0.1)
    whole = [len(SceneLoader(scene_set(1), loader.transform.points, 1, 0.1).batch(e, 0).points) for e in range(30)]
    shares = np.array([len(loader.batch(e, 0).points) for e in range(30)]) / whole
    np.testing.assert_allclose(shares, np.where(shares > 0.9, 1, 0.8), atol=2e-3)
    assert 1 <= (shares < 0.9).sum() <= 14


def test_without_colours_and_labels():
    bare = SceneSet(tuple(dataclasses.replace(s, colors=None, labels=None) for s in scene_set().scenes))
    batch = SceneLoader(bare, "scannet", 2, 0.1).batch(0, 0)
    assert batch.features is None
    assert batch.point_labels is None


def test_what_cannot_be_loaded():
    some = scene_set()
    for keywords, message in (
        ({"batch_size": 3, "world": 2}, "does not divide by 2"), ({"batch_size": 2, "rank": 2, "world": 2}, "rank 2"),
        ({"voxel_size": 0.0}, "voxel_size=0.0"), ({"phase": -1}, "phase=-1"), ({"transform": "attic"}, "no scene pipe"),
    ):
        with pytest.raises(ConfigError, match=message):
            SceneLoader(**{"scenes": some, "transform": None, **keywords})
    with pytest.raises(DataError, match="no scenes"):
        SceneLoader(SceneSet(()), None)
    mixed = SceneSet((some[0], dataclasses.replace(some[1], labels=None)), some.classes)
    with pytest.raises(DataError, match="no labels in room1; expected labels in all"):
        SceneLoader(mixed, None)
    empty = SceneSet((Scene("hall", np.zeros((0, 3), np.float32)),))
    with pytest.raises(DataError, match="hall: no points"):
        SceneLoader(empty, None)
    far = packed([Scene("far", np.array([[0, 0, 0], [1e9, 1e9, 1e9]], np.float32))], torch.tensor([0]))
    with pytest.raises(DataError, match="a larger voxel_size"):
        thinned(far, 1e-3)
