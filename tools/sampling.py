"""Triangles -> the grid cells of points sampled by area: the same bits on every machine.

Only single IEEE operations (no matmul, einsum or pairwise sums, whose order depends on the machine), a
generator with a guaranteed stream (PCG64's doubles) and a seed made of the shape's name.
"""

from __future__ import annotations

import hashlib

import numpy as np

from contrast3d.data.compact import morton_codes, quantise


def sample_codes(triangles: np.ndarray, name: str, num_points: int) -> np.ndarray:
    """Triangles (T, 3, 3) float64 -> (num_points,) Morton codes, all different."""
    return sample(triangles, name, num_points)[0]


def sample(triangles: np.ndarray, name: str, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (T, 3, 3) float64 -> (num_points,) Morton codes, all different, and the triangle each was drawn from.

    The first `num_points` draws are centred by their bounding box and scaled to the unit sphere. Those that
    fall into a taken cell are replaced by further draws, from inside that box and sphere.
    """
    draw = _area_sampler(triangles, np.random.default_rng(_seed(name)))
    points, rows = draw(num_points)
    low, high = points.min(0), points.max(0)
    centre = (low + high) / 2
    radius = np.sqrt(_squared_norm(points - centre).max())
    codes, origins = np.empty(0, np.uint32), np.empty(0, np.int64)
    for _ in range(100):
        inside = (points >= low).all(1) & (points <= high).all(1)
        inside &= np.sqrt(_squared_norm(points - centre)) <= radius
        cells = morton_codes(quantise((points[inside] - centre) / radius))
        codes, origins = np.concatenate([codes, cells]), np.concatenate([origins, rows[inside]])
        first = _first_of_each(codes)
        codes, origins = codes[first], origins[first]
        if len(codes) >= num_points:
            return codes[:num_points], origins[:num_points]
        points, rows = draw(num_points)
    raise SystemExit(f"{name}: only {len(codes)} different grid cells, {num_points} needed")


def _seed(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def _area_sampler(triangles: np.ndarray, generator: np.random.Generator):
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    total = np.cumsum(np.sqrt(_squared_norm(_cross(b - a, c - a))))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        pick, u, v = generator.random((3, count))
        row = np.minimum(np.searchsorted(total, pick * total[-1], side="right"), len(total) - 1)
        fold = u + v > 1
        u, v = np.where(fold, 1 - u, u)[:, None], np.where(fold, 1 - v, v)[:, None]
        return a[row] + u * (b[row] - a[row]) + v * (c[row] - a[row]), row

    return draw


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    (ux, uy, uz), (vx, vy, vz) = u.T, v.T
    return np.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx], -1)


def _squared_norm(v: np.ndarray) -> np.ndarray:
    return v[..., 0] * v[..., 0] + v[..., 1] * v[..., 1] + v[..., 2] * v[..., 2]


def _first_of_each(codes: np.ndarray) -> np.ndarray:
    """Where each of the different codes appears first, in this order."""
    _, first = np.unique(codes, return_index=True)
    return np.sort(first)
