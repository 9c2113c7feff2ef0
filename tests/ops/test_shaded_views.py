"""Shaded views: what is in front hides what is behind, planes face the light, and pictures do not know each other."""

import dataclasses

import numpy as np
import pytest
import torch

from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.kernels import shaded_views as kernels
from contrast3d.ops.knn import knn
from contrast3d.ops.shaded_views import LOOK, Look, shaded_views


def ball(n=600, seed=0):
    points = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    return points / points.norm(dim=1, keepdim=True)


def plate(n=400, seed=0):
    """A level square."""
    points = torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return points * torch.tensor([1.0, 1.0, 0.0])


def normals_of(points, k, rounds=0):
    out = np.empty((1, len(points), 3), np.float32)
    near = knn(points[None], k)
    kernels.surfels(points[None].numpy(), near.numpy(), rounds, out, 0, 1)
    return torch.from_numpy(out[0]), near[0]


def test_normals_equal_those_of_an_eigendecomposition():
    points = ball(200) * torch.tensor([1.0, 0.7, 0.4])
    found, near = normals_of(points, 9)
    around = points[near].double()
    around = around - around.mean(1, keepdim=True)
    expected = torch.linalg.eigh(around.transpose(1, 2) @ around).eigenvectors[:, :, 0]
    assert ((found * expected).sum(1).abs() > 1 - 1e-5).all()


def test_points_beyond_an_edge_do_not_tilt_the_planes():
    grid = torch.rand(900, 2, generator=torch.Generator().manual_seed(3))
    floor, wall = grid[:450], grid[450:]
    zeros = torch.zeros(450, 1)
    points = torch.cat([torch.cat([floor, zeros], 1), torch.cat([wall[:, :1], zeros, wall[:, 1:]], 1)])
    axes = torch.cat([torch.tensor([[0, 0, 1.0]]).expand(450, 3), torch.tensor([[0, 1.0, 0]]).expand(450, 3)])
    tilted = [((normals_of(points, 16, rounds)[0] * axes).sum(1).abs() < 0.95).sum().item() for rounds in (0, 2)]
    assert tilted[1] < 0.6 * tilted[0]


@pytest.mark.parametrize(
    "points", [torch.zeros(5, 3), torch.eye(3)[[0, 1, 2]], torch.linspace(0, 1, 9)[:, None] * torch.ones(1, 3)],
    ids=["one place", "three points", "a line"],
)
def test_shapes_without_planes_give_pictures(points):
    pictures = shaded_views(points[None], 2, 32)
    assert torch.isfinite(pictures).all()
    assert (pictures < 0.99).any()


def test_a_ball_is_a_lit_disc_from_all_sides():
    pictures = shaded_views(ball(1500)[None], 4, 64)
    assert pictures.shape == (1, 4, 3, 64, 64)
    assert pictures.dtype == torch.float32
    assert ((pictures >= 0) & (pictures <= 1)).all()
    seen = pictures[0, :, 0] < LOOK.background - 1e-4
    share = seen.float().mean((1, 2))
    assert ((share - torch.pi / 4 * LOOK.fill**2).abs() < 0.08).all()  # its outline, a little grown
    upper_left, lower_right = pictures[0, :, 0, 24, 24], pictures[0, :, 0, 44, 44]
    assert (upper_left > lower_right + 0.1).all()
    assert torch.equal(pictures[:, :, 0], pictures[:, :, 1])


def test_surfaces_of_a_thousand_points_are_closed():
    picture = shaded_views(ball(1024)[None], 1, 96)[0, 0, 0]
    lines = torch.arange(96) - 47.5
    inside = (lines[:, None] ** 2 + lines**2).sqrt() < 0.9 * LOOK.fill * 48
    assert (picture[inside] == LOOK.background).float().mean() < 0.002


def test_the_front_hides_the_back():
    look = dataclasses.replace(LOOK, elevation=90.0, darkening=0.0)  # from above
    slope = plate() * 0.4 + torch.tensor([0, 0, -1.0])
    slope[:, 2] += 1.5 * slope[:, 0]
    alone = shaded_views(torch.cat([plate(), plate(seed=1)])[None], 1, 64, look)
    covered = shaded_views(torch.cat([plate(), slope])[None], 1, 64, look)
    inner = (slice(None),) * 3 + (slice(20, 44), slice(20, 44))
    assert (alone[inner] - covered[inner]).abs().mean() < 0.02


def test_what_lies_behind_an_edge_is_darker():
    step = torch.cat([plate(800), plate(300, 1) * 0.3 + torch.tensor([0, 0, 0.8])])
    dark, flat = (shaded_views(step[None], 1, 64, dataclasses.replace(LOOK, elevation=90.0, darkening=d))[0, 0, 0]
                  for d in (0.9, 0.0))
    around = torch.zeros(64, 64, dtype=torch.bool)
    around[32, 32 + 11], around[32, 32 - 11] = True, True
    assert (dark[around] < flat[around] - 0.02).all()
    assert abs(dark[32, 32] - flat[32, 32]) < 0.02


def test_turning_the_shape_by_one_view_turns_the_views():
    points = ball() * torch.tensor([1.0, 0.5, 0.3])
    turned = torch.stack([-points[:, 1], points[:, 0], points[:, 2]], 1)
    first, second = shaded_views(points[None], 4, 48), shaded_views(turned[None], 4, 48)
    assert (first[0] - second[0].roll(-1, 0)).abs().mean() < 0.01


def test_a_picture_depends_on_its_own_shape_alone():
    clouds = torch.stack([ball(), plate(600)])
    assert torch.equal(shaded_views(clouds, 3, 32)[1], shaded_views(clouds[1:], 3, 32)[0])
    scattered = clouds[1:].repeat(1, 1, 2)[..., ::2][..., [0, 2, 1]].contiguous()  # same points, other strides before
    assert shaded_views(scattered, 1, 32).shape == (1, 1, 3, 32, 32)


def test_finer_pictures_are_averaged_down():
    coarse, fine = (shaded_views(ball(1500)[None], 1, 32, dataclasses.replace(LOOK, fine=f)) for f in (1, 3))
    assert fine.shape == coarse.shape
    assert 0 < (coarse - fine).abs().mean() < 0.08


def test_bad_input_is_one_error():
    for n, views, size in ((2, 1, 32), (9, 0, 32), (9, 1, 4)):
        with pytest.raises(DataError, match="3 points or more"):
            shaded_views(torch.zeros(1, n, 3), views, size)
    with pytest.raises(DataError, match="points"):
        shaded_views(torch.full((1, 9, 3), torch.nan), 1, 32)
    with pytest.raises(ConfigError, match="fill"):
        Look(fill=0.0)
