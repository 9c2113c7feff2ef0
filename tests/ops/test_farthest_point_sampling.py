"""Farthest-point sampling against its definition, the kernel against the torch path."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrast3d.errors import DataError
from contrast3d.ops.farthest_point_sampling import _farthest_points_torch, farthest_point_sampling


def naive(points, m, start):
    out = np.empty((len(points), m), np.int64)
    for b, cloud in enumerate(points.double().numpy()):
        nearest, chosen = np.full(len(cloud), np.inf), start[b]
        for i in range(m):
            out[b, i] = chosen
            nearest = np.minimum(nearest, ((cloud - cloud[chosen]) ** 2).sum(1))
            nearest[out[b, : i + 1]] = -1
            chosen = nearest.argmax()
    return torch.from_numpy(out)


def grid(b, n, seed=0, dtype=torch.float32):
    """Small integers: exact distances, many ties and duplicates."""
    return torch.randint(-4, 5, (b, n, 3), generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(max_examples=30, deadline=None)
@given(
    b=st.integers(0, 3), n=st.integers(1, 140), seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]), data=st.data(),
)  # fmt: skip
def test_equals_naive_with_ties(b, n, seed, dtype, data):
    m = data.draw(st.integers(1, n))
    start = torch.randint(n, (b,), generator=torch.Generator().manual_seed(seed))
    points = grid(b, n, seed, dtype)
    expected = naive(points, m, start.numpy())
    assert torch.equal(farthest_point_sampling(points, m, start), expected)
    assert torch.equal(_farthest_points_torch(points.float(), m, start), expected)


def test_each_choice_is_the_farthest_of_real_coordinates():
    points = torch.randn(2, 300, 3, generator=torch.Generator().manual_seed(0))
    index = farthest_point_sampling(points, 40, start=7)
    assert (index[:, 0] == 7).all()
    for cloud, rows in zip(points.double(), index):
        for i in range(1, 40):
            to_chosen = torch.cdist(cloud, cloud[rows[:i]]).amin(1)
            assert to_chosen[rows[i]] >= to_chosen.max() - 1e-5


def test_coinciding_points_are_not_chosen_twice():
    index = farthest_point_sampling(torch.ones(2, 70, 3), 70)
    assert torch.equal(index, torch.arange(70).expand(2, 70))


def test_non_contiguous_and_thread_counts():
    points = torch.randn(3, 3, 200, generator=torch.Generator().manual_seed(0)).transpose(1, 2)
    two = farthest_point_sampling(points, 50)
    torch.set_num_threads(1)
    one = farthest_point_sampling(points.contiguous(), 50)
    torch.set_num_threads(2)
    assert torch.equal(one, two)


def test_too_many_points_a_bad_start_or_nan_are_refused():
    points = torch.zeros(2, 10, 3)
    with pytest.raises(DataError, match="m=11 points asked of clouds of 10 points"):
        farthest_point_sampling(points, 11)
    with pytest.raises(DataError, match="start: index"):
        farthest_point_sampling(points, 2, start=10)
    with pytest.raises(DataError, match="start: index"):
        farthest_point_sampling(points, 2, start=torch.tensor([0, -1]))
    with pytest.raises(DataError, match="NaN, infinite"):
        farthest_point_sampling(torch.full((1, 4, 3), torch.nan), 2)


@pytest.mark.parametrize("start", [torch.tensor([0]), torch.tensor([0, 1, 2]), torch.zeros(2, 1).long(), 0.5])
def test_a_start_that_is_not_one_per_cloud_is_refused(start):
    with pytest.raises(DataError, match=r"start: torch.* one per cloud: shape \(2,\)"):
        inspect.unwrap(farthest_point_sampling)(torch.zeros(2, 10, 3), 2, start)  # as without the tests' type checks
