"""Voxels and overlaps of views against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.overlap import ViewOverlaps, first_of_voxels, voxel_means


def naive_voxels(points, voxel):
    members = {}
    for i, key in enumerate(map(tuple, np.floor(points / voxel).astype(int))):
        members.setdefault(key, []).append(i)
    return list(members.values())


def naive_overlap(a, b, radius):
    if not len(a) or not len(b):
        return 0.0
    a, b = (np.asarray(v, np.float32).astype(np.float64) for v in (a, b))
    near = ((a[:, None] - b[None]) ** 2).sum(-1) <= radius**2
    return max(near.any(0).mean(), near.any(1).mean())


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 300), voxel=st.sampled_from([0.05, 0.3, 1.0, 7.0]), seed=st.integers(0, 99))
def test_voxels_equal_naive(n, voxel, seed):
    points = np.random.default_rng(seed).normal(0, 2, (n, 3)).repeat(2, 0)[: n or None]
    members = naive_voxels(points, voxel)
    assert first_of_voxels(points, voxel).tolist() == [rows[0] for rows in members]
    expected = np.array([points[rows].mean(0) for rows in members]).reshape(-1, 3)
    assert np.abs(voxel_means(points, voxel) - expected).max(initial=0) < 1e-12


def test_the_table_grows():
    points = np.random.default_rng(0).permutation(np.stack(np.meshgrid(*[np.arange(-12.0, 13)] * 3), -1).reshape(-1, 3))
    assert len(points) == 25**3
    assert first_of_voxels(points, 1.0).tolist() == list(range(25**3))
    assert len(voxel_means(points, 2.0)) == 13**3


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 60), min_size=2, max_size=5), seed=st.integers(0, 99),
    radius=st.sampled_from([0.2, 0.5, 1.0, 3.0]), least=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)  # fmt: skip
def test_overlaps_equal_naive(sizes, seed, radius, least):
    rng = np.random.default_rng(seed)
    views = [rng.integers(-4, 5, (n, 3)) / 2 + rng.integers(-3, 4, 3) for n in sizes]
    pairs = np.array([(i, j) for i in range(len(sizes)) for j in range(len(sizes))])
    expected = np.array([naive_overlap(views[i], views[j], radius) for i, j in pairs])
    found = ViewOverlaps(views, radius).of(pairs, least)
    assert np.allclose(found, np.where(expected >= least, expected, 0), atol=1e-12)


def test_far_points_and_threads_change_nothing():
    rng = np.random.default_rng(0)
    views = [rng.random((400, 3)) + 0.25 * i for i in range(4)]
    views[1][7], views[2][3] = 1e4, -1e4
    pairs = np.array([(i, j) for i in range(4) for j in range(i + 1, 4)])
    expected = [naive_overlap(views[i], views[j], 0.1) for i, j in pairs]
    assert min(expected) < 0.1 < 0.3 < max(expected)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert np.allclose(ViewOverlaps(views, 0.1).of(pairs), expected, atol=1e-12)
    finally:
        torch.set_num_threads(threads)


def test_bad_arguments_are_refused():
    points = np.zeros((4, 3))
    with pytest.raises(ConfigError, match="voxel = 0"):
        voxel_means(points, 0.0)
    with pytest.raises(DataError, match="NaN"):
        first_of_voxels(points * np.nan, 1.0)
    with pytest.raises(DataError, match="m wide"):
        voxel_means(np.array([[0.0, 0, 0], [1e6, 0, 0]]), 0.01)
    with pytest.raises(ConfigError, match="radius = 0"):
        ViewOverlaps([points], 0.0)
    with pytest.raises(DataError, match="views 0 to 0"):
        ViewOverlaps([points], 1.0).of(np.array([[0, 1]]))
