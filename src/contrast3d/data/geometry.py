"""Plain numpy geometry that the readers of shape sets share: scale, axes, sampling."""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from contrast3d.errors import DataError

Normalize = bool | Literal["mean", "bbox"]


def unit_sphere(
    points: Float[np.ndarray, "s n 3"], centre: Literal["mean", "bbox"] = "mean"
) -> Float[np.ndarray, "s n 3"]:
    """Each shape with its mean (or the middle of its box) at the origin and its farthest point at radius 1.

    Shapes whose points all coincide end up at the origin.
    """
    points = points.astype(np.float32)
    if centre == "mean":
        points -= points.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
    else:
        points -= points.min(1, keepdims=True) / 2 + points.max(1, keepdims=True) / 2
    radius = np.sqrt(np.einsum("snc,snc->sn", points, points, dtype=np.float64).max(1))[:, None, None]
    return (points / np.where(radius > 0, radius, 1)).astype(np.float32)


def normalized(points: Float[np.ndarray, "s n 3"], normalize: Normalize) -> Float[np.ndarray, "s n 3"]:
    """`unit_sphere` by "mean" or "bbox" (True means "mean"), or the points as they are (False)."""
    if normalize is False:
        return np.ascontiguousarray(points, np.float32)
    return unit_sphere(points, "mean" if normalize is True else normalize)


def choose_points(
    available: int, num_points: int, key: str, seed: int = 0, replacement: bool = False
) -> Int[np.ndarray, "n"]:
    """(num_points,) rows of a cloud of `available` points, a function of `key` (the shape's name) and seed.

    Without replacement; where the cloud is too small, every point once and the rest drawn again.
    """
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    if replacement:
        return rng.integers(available, size=num_points)
    if num_points <= available:
        return rng.permutation(available)[:num_points]
    return np.concatenate([rng.permutation(available), rng.integers(available, size=num_points - available)])


def sample_surface(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], num_points: int, key: str,
    seed: int = 0,
) -> Float[np.ndarray, "n 3"]:
    """Points drawn uniformly by area on a triangle mesh; the same for the same `key` and seed.

    A DataError when the mesh has no area, or none that is finite.
    """
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    with np.errstate(over="ignore", invalid="ignore"):
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1).cumsum()
    if len(area) == 0 or not np.isfinite(area[-1]) or area[-1] <= 0:
        raise DataError(key, "a mesh without a finite, positive area", "triangles with an area")
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    draw = rng.random((num_points, 3))
    face = np.searchsorted(area, draw[:, 0] * area[-1], side="right").clip(max=len(area) - 1)
    root = np.sqrt(draw[:, 1:2])  # uniform in the triangle: Osada et al. 2002, eq. 1
    edge = draw[:, 2:3]
    return ((1 - root) * a[face] + root * (1 - edge) * b[face] + root * edge * c[face]).astype(np.float32)
