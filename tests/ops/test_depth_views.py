"""A depth image as a view against its formula, step by step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrast3d.errors import ConfigError
from contrast3d.ops.depth_views import depth_view
from contrast3d.ops.overlap import first_of_voxels, voxel_means

CAMERA = (30.0, 31.0, 9.3, 7.2, 0.25, -0.125)
TURNED = np.array([[0.8, 0, 0.6, 4.0], [0, 1, 0, -700.0], [-0.6, 0, 0.8, 0.5], [0, 0, 0, 1]])


def naive(depth, units):
    """(N, 3) points in the camera's frame."""
    fx, fy, cx, cy, bx, by = CAMERA
    points = []
    for v, row in enumerate(depth.tolist()):
        for u, value in enumerate(row):
            z = value / units
            point = ((u - cx) * z / fx + bx, (v - cy) * z / fy + by, z)
            if 0 < value < 65535 and max(map(abs, point)) <= 32.767:
                points.append(point)
    return np.array(points).reshape(-1, 3)


@settings(max_examples=25, deadline=None)
@given(
    high=st.sampled_from([1, 900, 5000, 65536]), thin=st.sampled_from([0.0, 0.01, 0.3]), seed=st.integers(0, 99),
    voxel=st.sampled_from([0.0511, 0.5]), units=st.sampled_from([1000.0, 5000.0]), height=st.integers(0, 17),
)  # fmt: skip
def test_equals_naive(high, thin, seed, voxel, units, height):
    depth = np.random.default_rng(seed).integers(0, high, (height, 19)).astype(np.uint16)
    depth[height // 2 :: 3] = 65535
    xyz_mm, means = depth_view(depth, CAMERA, units, TURNED, thin, voxel)
    points = naive(depth, units)
    kept = points[first_of_voxels(points, thin)] if thin else points
    assert np.array_equal(xyz_mm, np.rint(kept * 1000).astype(np.int16))
    expected = voxel_means(points @ TURNED[:3, :3].T + TURNED[:3, 3], voxel)
    assert means.shape == expected.shape
    assert np.abs(means - expected).max(initial=0) < 1e-9


def test_tables_grow():
    depth = np.random.default_rng(0).integers(500, 30000, (120, 160)).astype(np.uint16)
    camera = (100.0, 100.0, 80.0, 60.0, 0.0, 0.0)
    xyz_mm, means = depth_view(depth, camera, 1000.0, np.eye(4), 0.0101, 0.0202)
    assert len(xyz_mm) > 18000
    assert len(means) > 18000
    assert len(np.unique(np.floor(means / 0.0202), axis=0)) == len(means)


def test_voxels_too_small_are_refused():
    for thin, voxel in ((-1.0, 1.0), (1e-9, 1.0), (0.0, 0.0), (0.0, 1e-9), (float("nan"), 1.0)):
        with pytest.raises(ConfigError, match="m or more"):
            depth_view(np.ones((2, 2), np.uint16), CAMERA, 1000.0, np.eye(4), thin, voxel)
