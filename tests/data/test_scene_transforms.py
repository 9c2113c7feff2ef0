"""Transforms of scenes: per sample, in metres, and true to the pipelines they come from."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from contrast3d.data.draws import Draws
from contrast3d.data.scene_transforms import (
    PIPELINES,
    AutoContrast,
    BoxCrop,
    Center,
    ColorJitter,
    ColorShift,
    DropShare,
    Elastic,
    Mirror,
    ScenePipeline,
    Tilt,
    _interpolated,
    scene_pipeline,
)
from contrast3d.errors import ConfigError
from contrast3d.types import Clouds

ALL = [
    Center(), BoxCrop(1.0), BoxCrop(1.0, around="point"), Tilt(), Mirror(), Elastic(), DropShare(p=1.0),
    AutoContrast(1.0), ColorShift(p=1.0), ColorJitter(p=1.0), *PIPELINES.values(),
]
RIGID = [Center(), Tilt(), Mirror()]


def scenes(ids=(0, 1, 2, 3), lengths=(200, 150, 300, 80)) -> Clouds:
    """Boxes of 3 x 2 x 2.5 m with colours and labels, which depend on their ids alone."""
    points, colors = [], []
    for i, n in zip(ids, lengths):
        generator = torch.Generator().manual_seed(i)
        points.append(torch.rand(n, 3, generator=generator) * torch.tensor([3.0, 2.0, 2.5]) + i)
        colors.append(torch.rand(n, 3, generator=generator) * 0.6 - 0.4)
    return Clouds.from_list(
        points, features=torch.cat(colors), point_labels=torch.cat([torch.arange(n) % 5 for n in lengths]),
        ids=torch.tensor(ids),
    )


def apply(transform, clouds: Clouds, epoch: int = 0) -> Clouds:
    return transform(clouds, Draws.of(0, epoch, clouds.ids))


def parts(clouds: Clouds, field: str = "points") -> list[torch.Tensor]:
    return list(getattr(clouds, field).split(clouds.lengths.tolist()))


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_a_scene_does_not_depend_on_its_batch_and_nothing_is_changed_in_place(transform):
    batch, alone = scenes(), scenes((2,), (300,))
    before = batch.points.clone(), batch.features.clone()
    together, single = apply(transform, batch), apply(transform, alone)
    for field in ("points", "features", "point_labels"):
        torch.testing.assert_close(parts(together, field)[2], getattr(single, field), rtol=1e-4, atol=1e-5)
    assert torch.equal(batch.points, before[0])
    assert torch.equal(batch.features, before[1])
    assert together.lengths.min() > 0


@pytest.mark.parametrize("transform", [t for t in ALL if not isinstance(t, Center)], ids=repr)
def test_epochs_differ(transform):
    clouds = scenes()
    first, second = apply(transform, clouds), apply(transform, clouds, epoch=1)
    same = len(first.points) == len(second.points) and torch.equal(first.points, second.points)
    same &= same and torch.equal(first.features, second.features)
    assert same == (transform is PIPELINES["none"])


@pytest.mark.parametrize("transform", RIGID, ids=repr)
def test_rigid_maps_keep_distances_and_are_recorded(transform):
    clouds = scenes()
    moved = apply(transform, clouds)
    for before, after, matrix in zip(parts(clouds), parts(moved), moved.transform):
        after, before, matrix = after.double(), before.double(), matrix.double()
        torch.testing.assert_close(torch.cdist(after, after), torch.cdist(before, before), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(before @ matrix[:3, :3].T + matrix[:3, 3], after, rtol=1e-4, atol=1e-4)


def test_center():
    for scene in parts(apply(Center(), scenes())):
        low, high = scene.amin(0), scene.amax(0)
        torch.testing.assert_close(low[:2], -high[:2], atol=1e-5, rtol=0)
        assert low[2] == pytest.approx(0, abs=1e-5)


def test_box_crop_keeps_a_box_of_large_scenes_only():
    clouds = scenes()
    for scene in parts(apply(BoxCrop(1.0), clouds)):
        assert (scene.amax(0) - scene.amin(0)).max() <= 2.0
    for scene, whole in zip(parts(apply(BoxCrop(1.0, (0.0, 0.0, 0.0)), clouds)), parts(clouds)):
        middle = (whole.amax(0) + whole.amin(0)) / 2
        away = whole - middle
        assert torch.equal(scene, whole[((away >= -1) & (away < 1)).all(1)])
    assert torch.equal(apply(BoxCrop(4.0), clouds).points, clouds.points), "no scene is as large as that"
    far = Clouds.from_list([torch.tensor([[0.0, 0, 0], [9, 9, 9]])], ids=torch.tensor([0]))
    assert len(apply(BoxCrop(0.5, (0.0, 0.0, 0.0)), far).points) == 2, "an empty box keeps the scene"
    assert len(apply(BoxCrop(0.5, around="point"), far).points) == 1


def test_tilt_stays_in_its_limits_and_turns_in_every_order():
    draws = Draws.of(0, 0, torch.arange(2000))
    up = Tilt(5.0, 180.0).matrices(draws)[:, :3, 2]
    degrees = up[:, 2].clamp(max=1).acos().rad2deg()
    assert degrees.max() <= 10.01
    assert degrees.max() > math.hypot(5, 5) + 0.1, "turned between the two tilts, which then add up"
    only_z = Tilt(0.0, 10.0).matrices(draws)[:, :3, :3]
    assert 9 < torch.atan2(only_z[:, 1, 0], only_z[:, 0, 0]).rad2deg().abs().max() <= 10.01
    tilts = Tilt(5.0, 0.0).matrices(draws)[:, :3, :3]
    firsts = [(tilts[:, i, j].abs() < 1e-7).float().mean().item() for i, j in ((0, 1), (1, 0))]
    assert firsts == pytest.approx([0.5, 0.5], abs=0.05), "x before y as often as y before x"


def test_mirror_flips_horizontal_axes_half_of_the_time():
    factors = Mirror(0.95).matrices(Draws.of(0, 0, torch.arange(4000))).diagonal(dim1=1, dim2=2)
    assert (factors[:, 2:] == 1).all()
    assert (factors[:, :2] < 0).float().mean(0).tolist() == pytest.approx([0.475, 0.475], abs=0.03)
    assert (Mirror(0.0).matrices(Draws.of(0, 0, torch.arange(9))).diagonal(dim1=1, dim2=2) == 1).all()


def test_interpolation_is_trilinear():
    values, places = torch.randn(3, 4 * 5 * 6), torch.rand(50, 3) * torch.tensor([2.9, 3.9, 4.9])
    axes = [range(4), range(5), range(6)]
    expected = RegularGridInterpolator(axes, values.view(3, 4, 5, 6).permute(1, 2, 3, 0).numpy())(places.numpy())
    torch.testing.assert_close(_interpolated(values, places, [4, 5, 6]).double(), torch.from_numpy(expected),
                               rtol=1e-4, atol=1e-5)


def test_elastic_bends_smoothly():
    points = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 4
    clouds = Clouds.from_list([points], ids=torch.tensor([0]))
    moved = apply(Elastic(0.5, 1.0, p=1.0), clouds).points - points
    assert 0.02 < moved.std() < 0.5
    distance, difference = torch.cdist(points, points), torch.cdist(moved, moved)
    assert difference[distance < 0.05].max() < 0.25 * difference.max(), "neighbours move together"
    assert torch.equal(apply(Elastic(p=0.0), clouds).points, points)
    doubled = apply(Elastic(0.5, 2.0, p=1.0), clouds).points - points
    torch.testing.assert_close(doubled, 2 * moved, rtol=1e-3, atol=1e-4)


def test_drop_share_drops_exactly_that_share():
    clouds = scenes()
    assert apply(DropShare(0.2, 1.0), clouds).lengths.tolist() == [160, 120, 240, 64]
    assert apply(DropShare(0.2, 0.0), clouds).lengths.tolist() == clouds.lengths.tolist()


def test_colors():
    clouds = scenes()
    for scene, before in zip(parts(apply(AutoContrast(1.0), clouds), "features"), parts(clouds, "features")):
        width = before.amax(0) - before.amin(0)
        slope = (scene.amax(0) - scene.amin(0)) / width
        blend = (slope - 1) / (1 / width - 1)
        assert blend.std() < 1e-3, "one blend for the three channels"
        assert 0 <= blend[0] <= 1
    shifted = apply(ColorShift(0.1, 1.0), scenes()).features - clouds.features
    for scene in shifted.split(clouds.lengths.tolist()):
        assert scene.median(0).values.abs().max() <= 0.1
        assert scene.std(0).max() < 1e-2  # but for what is clipped
    noise = apply(ColorJitter(0.05, 1.0), scenes()).features - clouds.features
    assert noise.std().item() == pytest.approx(0.05, abs=0.01)
    for transform in (AutoContrast(1.0), ColorShift(2.0, 1.0), ColorJitter(2.0, 1.0)):
        assert apply(transform, clouds).features.abs().max() <= 0.5 + 1e-6
        bare = dataclasses.replace(clouds, features=None)
        assert apply(transform, bare) is bare
    flat = clouds.replace(features=torch.full_like(clouds.features, 0.2))
    torch.testing.assert_close(apply(AutoContrast(1.0), flat).features, flat.features)


def test_more_channels_than_colours_stay():
    clouds = scenes()
    wide = clouds.replace(features=torch.cat((clouds.features, clouds.points), 1))
    for transform in (AutoContrast(1.0), ColorShift(p=1.0), ColorJitter(p=1.0)):
        assert torch.equal(apply(transform, wide).features[:, 3:], clouds.points)


def test_pipelines_by_name():
    assert isinstance(scene_pipeline("s3dis"), ScenePipeline)
    with pytest.raises(ConfigError, match="no scene pipeline 'attic'; there are: s3dis, scannet, rooms, none"):
        scene_pipeline("attic")
    for wrong in (lambda: BoxCrop(0.0), lambda: BoxCrop(around="wall"), lambda: Elastic(0.0), lambda: DropShare(1.0)):
        with pytest.raises(ConfigError):
            wrong()
