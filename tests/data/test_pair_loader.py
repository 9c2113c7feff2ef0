"""PairLoader: what it gives is a function of its arguments, and the matches are all there are, by brute force."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from toy_scenes import toy_scene

from contrast3d.data.draws import Draws
from contrast3d.data.pair_loader import MATCH_VOXELS, PairLoader, rotations, whole
from contrast3d.data.scene_views import SceneViews
from contrast3d.errors import ConfigError, DataError

VOXEL = 0.1
SCENES = [toy_scene(0), toy_scene(1, views=4, points=500)]  # 2 + 3 pairs


def loader(scenes=SCENES, **options):
    return PairLoader(scenes, **{"voxel_size": VOXEL, "batch_size": 2, **options})


def same(one, other) -> bool:
    return all(
        torch.equal(getattr(a, key), getattr(b, key))
        for a, b in ((one.first, other.first), (one.second, other.second))
        for key in ("points", "offsets", "features", "ids", "transform")
    ) and torch.equal(one.matches, other.matches)


def pieces(batch):
    """(first points, second points, matches within them, both transforms) of each pair of a batch."""
    for b in range(len(batch)):
        sides = [(int(v.offsets[b]), int(v.offsets[b + 1])) for v in (batch.first, batch.second)]
        (low, high), (start, stop) = sides
        matches = batch.matches[(batch.matches[:, 0] >= low) & (batch.matches[:, 0] < high)]
        yield (batch.first.points[low:high], batch.second.points[start:stop],
               matches - torch.tensor([low, start]), batch.first.transform[b], batch.second.transform[b])


def in_world(points, transform, pose):
    """Training coordinates (N, 3) -> the frame of the scene, in float64."""
    back = torch.from_numpy(pose) @ torch.linalg.inv(transform.double())
    return points.double() @ back[:3, :3].T + back[:3, 3]


# Access.


def test_the_same_place_gives_the_same_batch():
    data = loader()
    kept = {place: data.batch(*place) for place in ((0, 0), (1, 1), (3, 0), (0, 1))}
    for place in ((0, 1), (3, 0), (0, 0), (1, 1)):
        assert same(loader().batch(*place), kept[place])
    assert not same(kept[0, 0], kept[0, 1])
    assert not same(kept[0, 0], loader(seed=1).batch(0, 0))


def test_torchs_generator_is_neither_asked_nor_moved():
    torch.manual_seed(0)
    one, state = loader(scale=(0.8, 1.2)).batch(0, 0), torch.get_rng_state()
    torch.manual_seed(1)
    assert same(one, loader(scale=(0.8, 1.2)).batch(0, 0))
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())


def test_every_pair_once_in_a_turn_and_views_new_in_the_next():
    """Epochs are so many steps; turns through the pairs take no notice of where they end."""
    data = loader(batch_size=1, steps=2)
    turns = [[data.batch(*divmod(5 * turn + i, 2)) for i in range(5)] for turn in range(2)]
    ids = [[int(batch.first.ids) for batch in turn] for turn in turns]
    assert [sorted(turn) for turn in ids] == [list(range(5))] * 2
    assert ids[0] != ids[1]
    again = turns[1][ids[1].index(ids[0][0])]
    assert not torch.equal(turns[0][0].first.transform, again.first.transform)
    assert len(data) == 2
    assert len(loader(batch_size=2)) == 2  # as often as all pairs give whole batches


def test_a_pair_does_not_depend_on_its_batch():
    by_id = {}
    for size in (1, 5):
        data = loader(batch_size=size)
        for step in range(len(data)):
            batch = data.batch(0, step)
            for i, (first, second, matches, *_) in zip(batch.first.ids.tolist(), pieces(batch)):
                former = by_id.setdefault(i, (first, second, matches))
                assert all(torch.equal(a, b) for a, b in zip(former, (first, second, matches)))
    assert len(by_id) == 5


def test_two_ranks_share_the_batch_of_one():
    one = loader(batch_size=4)
    ranks = [loader(batch_size=4, rank=rank, world=2) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [len(one)] * 2
    for place in ((0, 0), (2, 0)):
        whole_batch, shares = one.batch(*place), [rank.batch(*place) for rank in ranks]
        assert [len(share) for share in shares] == [2, 2]
        for side in ("first", "second"):
            for key in ("points", "features", "ids", "transform"):
                joined = torch.cat([getattr(getattr(share, side), key) for share in shares])
                assert torch.equal(joined, getattr(getattr(whole_batch, side), key))
        shift = torch.tensor([len(shares[0].first.points), len(shares[0].second.points)])
        assert torch.equal(torch.cat([shares[0].matches, shares[1].matches + shift]), whole_batch.matches)


# Views.


def test_views_are_turned_about_their_centre():
    data = loader(batch_size=5)
    batch = data.batch(0, 0)
    for view, side in ((batch.first, 1), (batch.second, 2)):
        turns = view.transform[:, :3, :3].double()
        torch.testing.assert_close(turns @ turns.mT, torch.eye(3).double().expand(5, 3, 3), rtol=0, atol=1e-6)
        torch.testing.assert_close(torch.linalg.det(turns), torch.ones(5).double())
        for row, transform in zip(view.ids.tolist(), view.transform):
            scene, *views = data.pairs[row]
            centre = torch.from_numpy(SCENES[scene].points(views[side - 1])).mean(0)
            moved = transform[:3, :3] @ centre + transform[:3, 3]
            torch.testing.assert_close(moved, torch.zeros(3), rtol=0, atol=1e-5)
    assert not torch.isclose(batch.first.transform, batch.second.transform).all(-1).all(-1).any()  # each its own
    assert len(batch.first.transform[:, :3, :3].unique(dim=0)) == 5


def test_rotations_are_as_released():
    """About an axis of a cube's inside, by an angle uniform in a whole turn either way."""
    turns = rotations(Draws.of(0, 0, torch.arange(4000)))
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3, dtype=torch.float64).expand_as(turns))
    angles = (((turns.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)).acos() / math.pi
    assert (torch.histc(angles, 4, 0, 1) / 1000 - 1).abs().max() < 0.1
    axes = torch.stack([turns[:, 2, 1] - turns[:, 1, 2], turns[:, 0, 2] - turns[:, 2, 0],
                        turns[:, 1, 0] - turns[:, 0, 1]], 1)
    assert axes.mean(0).abs().max() < 0.05  # no direction is preferred


def test_points_are_one_per_voxel_and_of_the_view():
    data = loader(batch_size=5)
    batch = data.batch(0, 0)
    for view, side in ((batch.first, 0), (batch.second, 1)):
        cells = torch.cat([view.batch_index[:, None], torch.floor(view.points / VOXEL).long()], 1)
        assert len(cells.unique(dim=0)) == len(cells)
        for b, row in enumerate(view.ids.tolist()):
            scene, *views = data.pairs[row]
            points = torch.from_numpy(SCENES[scene].points(views[side]))
            moved = points @ view.transform[b, :3, :3].T + view.transform[b, :3, 3]
            ours = view.points[view.offsets[b] : view.offsets[b + 1]]
            assert torch.cdist(ours, moved, compute_mode="donot_use_mm_for_euclid_dist").amin(1).max() < 1e-5
            occupied = torch.floor(moved / VOXEL).unique(dim=0)
            assert abs(len(ours) - len(occupied)) <= 2  # rounding on the border of a voxel


@pytest.mark.parametrize("options", [{}, {"scale": (0.8, 1.2)}], ids=["", "scaled"])
def test_the_matches_are_all_within_a_voxel_and_a_half(options):
    data = loader(batch_size=5, **options)
    batch = data.batch(0, 0)
    factors = []
    for row, (first, second, matches, one, other) in zip(batch.first.ids.tolist(), pieces(batch)):
        scene, a, b = data.pairs[row]
        poses = SCENES[scene].poses
        distance = torch.cdist(in_world(first, one, poses[a]), in_world(second, other, poses[b]),
                               compute_mode="donot_use_mm_for_euclid_dist")
        factors.append(torch.linalg.det(one[:3, :3].double()) ** (1 / 3))
        radius = MATCH_VOXELS * VOXEL  # in the scene: where both views are scaled, the radius is too
        sure, near = (distance <= radius - 1e-5), (distance <= radius + 1e-5)
        found = torch.zeros_like(sure)
        found[matches[:, 0], matches[:, 1]] = True
        assert len(matches) > 50
        assert len(matches) == found.sum()  # none twice
        assert not (sure & ~found).any()
        assert not (found & ~near).any()
    assert (torch.stack(factors) - 1).abs().max() < 1e-6 or options


def test_scale_is_one_for_both_views_and_mostly_applied():
    scenes = [toy_scene(views=41, points=20)]
    batch = loader(scenes, batch_size=40, scale=(0.8, 1.2)).batch(0, 0)
    one, other = (torch.linalg.det(v.transform[:, :3, :3].double()) ** (1 / 3) for v in (batch.first, batch.second))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=0)
    assert one.min() > 0.8 - 1e-5
    assert one.max() < 1.2
    assert 0.05 < one.std() < 0.2
    assert ((one - 1).abs() > 1e-5).sum() >= 33  # 95 % of 40


def test_a_point_of_a_view_may_match_several():
    batch = loader().batch(0, 0)
    assert batch.matches[:, 0].bincount().max() > 1
    assert batch.matches[:, 1].bincount().max() > 1


# Features.


def test_features_are_ones_with_noise_in_most_pairs():
    scenes = [toy_scene(views=101, points=60)]
    batch = loader(scenes, batch_size=100, feature_noise=0.01).batch(0, 0)
    assert batch.first.features.shape == (len(batch.first.points), 3)
    noise = torch.cat([batch.first.features, batch.second.features]) - 1
    some = noise[(noise != 0).any(1)]
    assert some.std().item() == pytest.approx(0.01, rel=0.05)
    assert some.mean().abs() < 5e-4
    assert np.abs(np.corrcoef(some.numpy().T) - np.eye(3)).max() < 0.05
    plain = torch.stack([
        (view.features[view.offsets[b] : view.offsets[b + 1]] == 1).all()
        for view in (batch.first, batch.second) for b in range(100)])
    assert 2 <= plain.sum() <= 20  # 5 % of 200 views


def test_features_without_noise_and_none():
    assert (loader(feature_noise=0.0).batch(0, 0).first.features == 1).all()
    assert loader(channels=1).batch(0, 0).second.features.shape[1] == 1
    assert loader(channels=0).batch(0, 0).first.features is None


def test_noise_is_keyed_by_view():
    batch = loader([toy_scene(views=2)], batch_size=1).batch(0, 0)
    least = min(len(batch.first.points), len(batch.second.points))
    assert not torch.equal(batch.first.features[:least], batch.second.features[:least])


# The whole scene as both views.


def test_holistic_views_are_the_whole_scene():
    scene = SCENES[0]
    data = loader(holistic=True)
    assert (len(data.pairs), len(data)) == (2, 1)
    batch = data.batch(0, 0)
    row = batch.first.ids.tolist().index(0)
    first, second, matches, one, other = list(pieces(batch))[row]
    everything = torch.cat([torch.from_numpy(scene.world(v)) for v in range(len(scene))])
    for points, transform in ((first, one), (second, other)):
        back = in_world(points, transform, np.eye(4))
        assert torch.cdist(back, everything).amin(1).max() < 1e-4  # of the scene
        assert torch.cdist(everything, back).amin(1).max() < 2 * VOXEL * 3**0.5  # and all of it
    assert not torch.isclose(one, other).all()
    distance = torch.cdist(in_world(first, one, np.eye(4)), in_world(second, other, np.eye(4)))
    assert abs(len(matches) - int((distance <= MATCH_VOXELS * VOXEL).sum())) <= 2
    assert len(matches[:, 0].unique()) > 0.95 * len(first)


def test_a_scene_without_views_is_whole_too():
    assert whole(SceneViews.of([], np.zeros((0, 4, 4))), VOXEL).shape == (0, 3)


def test_the_whole_scene_needs_no_pairs():
    bare = dataclasses.replace(SCENES[0], pairs=np.zeros((0, 2), np.int64), overlaps=np.zeros(0, np.float32))
    assert len(loader([bare], holistic=True, batch_size=1).batch(0, 0).matches)


# What cannot be.


def test_no_pairs():
    bare = dataclasses.replace(SCENES[0], pairs=np.zeros((0, 2), np.int64), overlaps=np.zeros(0, np.float32))
    with pytest.raises(DataError, match="1 scenes: 0 pairs of overlapping views; expected at least batch_size = 2"):
        loader([bare])
    with pytest.raises(DataError, match="0 scenes"):
        loader([])
    with pytest.raises(DataError, match="2 scenes: 5 pairs of overlapping views; expected at least batch_size = 6"):
        loader(batch_size=6)
    with pytest.raises(DataError, match="2 scenes to see whole; expected at least batch_size = 3"):
        loader(batch_size=3, holistic=True)


@pytest.mark.parametrize(("options", "match"), [
    ({"batch_size": 0}, "batch_size 0"), ({"batch_size": 3, "world": 2}, "divides"), ({"rank": 1}, "rank 1 of 1"),
    ({"voxel_size": 0.0}, "voxel_size"), ({"voxel_size": float("nan")}, "voxel_size"),
])
def test_impossible_loaders(options, match):
    with pytest.raises(ConfigError, match=match):
        loader(**options)


def test_steps_out_of_range():
    with pytest.raises(IndexError):
        loader().batch(0, 2)
    with pytest.raises(IndexError):
        loader().batch(0, -1)


def test_views_that_do_not_meet_and_empty_views():
    """A pair on paper: no matches, and no crash."""
    far = SceneViews.of([np.zeros((4, 3)), np.ones((3, 3)), np.zeros((0, 3))],
                        np.tile(np.eye(4), (3, 1, 1)), pairs=np.array([[0, 1], [1, 2]]), overlaps=np.zeros(2, "f4"))
    batch = loader([far]).batch(0, 0)
    assert batch.matches.shape == (0, 2)
    assert sorted(batch.first.lengths.tolist() + batch.second.lengths.tolist()) == [0, 1, 1, 1]


# Upright views.


def test_upright_views_keep_the_vertical_and_match():
    """The way into training only turns about the world's z axis; the headings of two views of a pair differ."""
    data, seen = loader(upright=True, max_angle=0.0, batch_size=1), []
    for step in range(len(data)):
        batch = data.batch(0, step)
        scene, *views = data.pairs[int(batch.first.ids)]
        for view, side in zip(views, (batch.first, batch.second)):
            pose = torch.from_numpy(SCENES[scene].poses[view])
            into_training = side.transform[0].double()[:3, :3] @ pose[:3, :3].T
            torch.testing.assert_close(into_training[2], torch.tensor([0.0, 0.0, 1.0]).double(), atol=1e-6, rtol=0)
            seen.append(math.atan2(into_training[1, 0], into_training[0, 0]))
        (first, second, matches, *_) = next(pieces(batch))
        ends = [in_world(points, side.transform[0], SCENES[scene].poses[view])
                for points, side, view in zip((first, second), (batch.first, batch.second), views)]
        apart = (ends[0][matches[:, 0]] - ends[1][matches[:, 1]]).norm(dim=1)
        assert len(matches)
        assert apart.max() <= MATCH_VOXELS * VOXEL + 1e-4
    assert len({round(heading, 3) for heading in seen}) == len(seen)


def test_upright_views_are_tilted_by_max_angle_at_most():
    batch = loader(upright=True, max_angle=10.0).batch(0, 0)
    for b in range(len(batch)):
        scene, view, _ = loader().pairs[int(batch.first.ids[b])]
        up = batch.first.transform[b].double()[:3, :3] @ torch.from_numpy(SCENES[scene].poses[view]).T[:3, :3][:, 2]
        assert 0 < math.degrees(math.acos(min(1.0, float(up[2])))) <= 10.001
