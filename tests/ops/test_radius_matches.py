"""Matches within a radius against their definition, the kernel against the torch path."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.radius_matches import _matches_torch, correspondences, radius_matches


def naive(first, second, radius):
    first, second = first.double().numpy(), second.double().numpy()
    pairs = [(i, j) for i, p in enumerate(first) for j in np.flatnonzero(((second - p) ** 2).sum(1) <= radius**2)]
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 60), m=st.integers(0, 80), seed=st.integers(0, 99), shift=st.sampled_from([0.0, -7.0, 1e4]),
    radius=st.sampled_from([0.5, 1.0, 1.5, 2.0, 5.0, 100.0]), dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_equals_naive_on_any_shape(n, m, radius, seed, shift, dtype):
    draw = torch.Generator().manual_seed(seed)
    first = torch.randint(-6, 7, (n, 3), generator=draw).to(dtype) + shift  # on the sphere, ties and duplicates
    second = torch.randint(-4, 5, (m, 3), generator=draw).to(dtype) + shift
    expected = naive(first, second, radius)
    assert torch.equal(radius_matches(first, second, radius), expected)
    assert torch.equal(_matches_torch(first.double(), second.double(), radius), expected)


def test_points_on_multiples_of_the_radius_lose_nobody():
    """0.3 / 0.1 is 2.9999999999999996: neighbours exactly on the border of a column must not get lost."""
    steps = torch.arange(40, dtype=torch.float64) * 0.1
    second = torch.cartesian_prod(steps, torch.zeros(1).double(), torch.zeros(1).double())
    for axis in range(3):
        turned = second.roll(axis, 1).contiguous()
        assert torch.equal(radius_matches(turned, turned, 0.1), naive(turned, turned, 0.1))


def test_threads_strides_and_far_points_change_nothing():
    draw = torch.Generator().manual_seed(0)
    first, second = torch.rand(500, 3, generator=draw), torch.rand(700, 3, generator=draw)
    second[0], first[0] = 1e5, -1e6  # a grid of columns as narrow as the radius would not fit into memory
    expected = naive(first, second, 0.08)
    assert len(expected) > 300
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            strided = first.t().contiguous().t()
            assert torch.equal(radius_matches(strided, second, 0.08), expected)
    finally:
        torch.set_num_threads(threads)


def test_correspondences_follow_the_transform():
    draw = torch.Generator().manual_seed(1)
    points = torch.rand(300, 3, generator=draw, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=draw, dtype=torch.float64))
    transform = torch.eye(4, dtype=torch.float64)
    transform[:3, :3], transform[:3, 3] = turn, torch.tensor([3.0, -2.0, 5.0])
    moved = points @ turn.T + transform[:3, 3]
    itself = torch.arange(300)[:, None].expand(-1, 2)
    assert torch.equal(correspondences(points.float(), moved.float(), transform, 1e-5), itself)
    assert torch.equal(correspondences(points, moved, transform, 0.1), radius_matches(points, points, 0.1))
    assert len(correspondences(points, moved, None, 0.1)) == 0


def test_bad_arguments_are_refused():
    points = torch.zeros(4, 3)
    for radius in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="radius"):
            radius_matches(points, points, radius)
    with pytest.raises(DataError, match="NaN, infinite"):
        radius_matches(points, points / 0, 1.0)
    with pytest.raises(DataError, match="NaN, infinite"):
        correspondences(points, points, torch.full((4, 4), torch.nan), 1.0)
