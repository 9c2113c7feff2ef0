"""RANSAC (Fischler and Bolles, 1981): a rigid pose out of matches of which many are wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from contrast3d.errors import ConfigError, DataError

DRAWN = 20_000  # triplets looked at together
BLOCK = 256  # poses judged together: their residuals stay in cache
REFITS = 10


class Alignment(NamedTuple):
    """A pose and the matches that it explains.

    transform: (4, 4) float64, takes `first` to `second`. inliers: (P,) bool.
    """

    transform: np.ndarray
    inliers: np.ndarray


def kabsch(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(..., 4, 4) float64: the rigid maps that take `first` (..., N, 3) nearest to `second` in least squares.

    Kabsch 1976, by the singular value decomposition; never a reflection.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    a, b = first.mean(-2, keepdims=True), second.mean(-2, keepdims=True)
    u, _, vt = np.linalg.svd(np.swapaxes(first - a, -1, -2) @ (second - b))
    u[..., -1] *= np.sign(np.linalg.det(u @ vt))[..., None]
    rotation = np.swapaxes(u @ vt, -1, -2)
    transform = np.zeros((*rotation.shape[:-2], 4, 4))
    transform[..., :3, :3] = rotation
    transform[..., :3, 3] = (b - a @ np.swapaxes(rotation, -1, -2))[..., 0, :]
    transform[..., 3, 3] = 1
    return transform


def ransac(
    first: np.ndarray, second: np.ndarray, *, distance: float = 0.075, hypotheses: int = 4000,
    draws: int = 100_000, similarity: float = 0.9, seed: int = 0,
) -> Alignment | None:
    """The pose that brings most matches first[i], second[i] (P, 3) within `distance`; None where none is found.

    distance: in metres. Up to `draws` triplets of matches are drawn; those whose triangles could be the same one
    (`plausible`) give poses, the first `hypotheses` of them are judged by all matches, and the best is fitted anew to
    its inliers until they stay the same. A function of its arguments, seed included.
    """
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] != 3:
        raise DataError("matches", f"shapes {first.shape} and {second.shape}", "(P, 3) twice")
    if not (distance > 0 and hypotheses > 0 and draws > 0 and 0 <= similarity <= 1):
        raise ConfigError(f"ransac: {distance=}, {hypotheses=}, {draws=}; all must be positive, {similarity=} in 0..1")
    if len(first) < 3:
        return None
    triplets = _triplets(first, second, distance, hypotheses, draws, similarity, np.random.default_rng(seed))
    if not len(triplets):
        return None
    poses = kabsch(first[triplets], second[triplets])
    return _refitted(first, second, poses[inlier_counts(first, second, poses, distance).argmax()], distance)


def _triplets(first, second, distance, hypotheses, draws, similarity, rng: np.random.Generator) -> np.ndarray:
    """(H, 3) rows of plausible triplets, in the order in which they were drawn."""
    found, missing = [np.zeros((0, 3), np.int64)], hypotheses
    for start in range(0, draws, DRAWN):
        rows = rng.integers(len(first), size=(min(DRAWN, draws - start), 3))
        rows = rows[plausible(first[rows], second[rows], distance, similarity)][:missing]
        found.append(rows)
        missing -= len(rows)
        if not missing:
            break
    return np.concatenate(found)


def plausible(first: np.ndarray, second: np.ndarray, distance: float, similarity: float = 0.9) -> np.ndarray:
    """(H,) bool: triangles (H, 3, 3) whose sides agree in length, and that are no lower than `distance`.

    similarity: the least ratio of the shorter to the longer of two sides that belong together. A flat triangle, three
    points on a line or a point taken twice, leaves the rotation about its longest side open.
    """
    sides = [np.roll(t, -1, axis=1) - t for t in (first, second)]
    a, b = (np.linalg.norm(s, axis=2) for s in sides)
    agree = (np.minimum(a, b) >= similarity * np.maximum(a, b)).all(1)
    for side, length in zip(sides, (a, b)):
        area = np.linalg.norm(np.cross(side[:, 0], side[:, 1]), axis=1)
        agree &= area > distance * length.max(1)
    return agree


def inlier_counts(first: np.ndarray, second: np.ndarray, poses: np.ndarray, distance: float) -> np.ndarray:
    """(H,) how many matches each pose (H, 4, 4) brings within `distance`.

    |R p + t - q|^2 = |p|^2 + |q|^2 + |t|^2 + 2 p.R't - 2 q.t - 2 q.R p is linear in what depends on the pose: one
    product of (H, 17) and (17, P), in float32 about the centres.
    """
    a, b = first.mean(0, dtype=np.float64), second.mean(0, dtype=np.float64)
    p, q = first - a, second - b
    outer = (q[:, :, None] * p[:, None, :]).reshape(-1, 9)
    known = np.column_stack([outer, p, q, np.ones(len(p)), (p**2).sum(1) + (q**2).sum(1)]).astype(np.float32).T
    rotation = poses[:, :3, :3]
    t = poses[:, :3, 3] + rotation @ a - b
    turned = np.einsum("hij,hi->hj", rotation, t)
    unknown = np.column_stack([
        -2 * rotation.reshape(-1, 9), 2 * turned, -2 * t, (t**2).sum(1), np.ones(len(t)),
    ]).astype(np.float32)
    known, limit = np.ascontiguousarray(known), np.float32(distance**2)
    counts = [
        np.count_nonzero(unknown[i : i + BLOCK] @ known < limit, axis=1) for i in range(0, len(unknown), BLOCK)
    ]
    return np.concatenate(counts) if counts else np.zeros(0, np.int64)


def _within(first: np.ndarray, second: np.ndarray, pose: np.ndarray, distance: float) -> np.ndarray:
    return np.linalg.norm(first @ pose[:3, :3].T + pose[:3, 3] - second, axis=1) < distance


def _refitted(first: np.ndarray, second: np.ndarray, pose: np.ndarray, distance: float) -> Alignment:
    """The pose fitted to its inliers again and again, while they become more."""
    inliers = _within(first, second, pose, distance)
    for _ in range(REFITS):
        if inliers.sum() < 3:
            break
        better = kabsch(first[inliers], second[inliers])
        now = _within(first, second, better, distance)
        if now.sum() < inliers.sum():
            break
        same = np.array_equal(now, inliers)
        pose, inliers = better, now
        if same:
            break
    return Alignment(pose, inliers)
