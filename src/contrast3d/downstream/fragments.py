"""What registration is judged on: the fragments of a scene, thinned, and the pairs of them that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contrast3d.data.pairs import find_pairs
from contrast3d.data.scene_views import SceneViews
from contrast3d.errors import ConfigError, DataError

SAME_PLACE = 0.075  # metres; as far as the overlap of views reaches


@dataclass(frozen=True)
class Pair:
    """Two fragments that overlap.

    first, second: their numbers. truth: (4, 4) takes coordinates of the first to those of the second. matches: (C, 2)
    rows of their points that are the same place under it: of each point of the first the nearest of the second, within
    7.5 cm.
    """

    first: int
    second: int
    truth: np.ndarray
    matches: np.ndarray


@dataclass(frozen=True)
class Fragments:
    """A scene ready to be registered.

    points: of each fragment, (N, 3) float32 in its own frame, one of each voxel. keypoints: of each, rows (K,) of them.
    """

    name: str
    points: list[np.ndarray]
    keypoints: list[np.ndarray]
    pairs: list[Pair]


def thinned(points: np.ndarray, voxel_size: float) -> np.ndarray:
    """The first point of each voxel of the grid floor(points / voxel_size), in their order."""
    coords = np.floor(points / voxel_size).astype(np.int64)
    return points[np.sort(np.unique(coords, axis=0, return_index=True)[1])]


def prepared(
    scene: SceneViews, *, voxel_size: float = 0.05, num_keypoints: int = 5000, overlap: float = 0.3,
    consecutive: bool = False, gt: bool = False, seed: int = 0,
) -> Fragments:
    """Thin a scene, draw up to `num_keypoints` points of each fragment, and find the pairs to register.

    overlap, consecutive: of `overlapping`. gt: the pairs of `listed` instead. Fragment v draws by (seed, v) alone.
    """
    if not (voxel_size > 0 and num_keypoints > 0):
        raise ConfigError(f"registration: {voxel_size=}, {num_keypoints=}; both must be positive")
    points = [thinned(scene.points(v), voxel_size) for v in range(len(scene))]
    keypoints = [
        np.sort(np.random.default_rng((seed, v)).permutation(len(p))[:num_keypoints]) for v, p in enumerate(points)
    ]
    pairs = [
        Pair(i, j, scene.relative(i, j), true_matches(points[i], points[j], scene.relative(i, j)))
        for i, j in (listed(scene) if gt else overlapping(scene, overlap, consecutive)).tolist()
    ]
    return Fragments(scene.name, points, keypoints, pairs)


def true_matches(first: np.ndarray, second: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(C, 2) rows: of each point of `first` the nearest of `second` under the true pose, where within 7.5 cm."""
    from scipy.spatial import cKDTree

    if not len(first) or not len(second):
        return np.zeros((0, 2), np.int64)
    there = first @ truth[:3, :3].T + truth[:3, 3]
    distances, rows = cKDTree(second).query(there, distance_upper_bound=SAME_PLACE)
    found = np.flatnonzero(np.isfinite(distances))
    return np.column_stack([found, rows[found]]).astype(np.int64)


def overlapping(scene: SceneViews, least: float = 0.3, consecutive: bool = False) -> np.ndarray:
    """(P, 2) pairs i < j of views that overlap by at least `least`: those that the scene lists with their overlaps, or
    else, or where it only lists pairs that overlap more, `find_pairs`.

    consecutive: also j = i + 1. 3DMatch counts the recall of registration without them (a sensor's own tracking
    settles them), the feature-match recall of PPFNet and FCGF is over all pairs of its list.
    """
    if not 0 <= least <= 1:
        raise ConfigError(f"an overlap of {least}; expected a share between 0 and 1")
    known = len(scene.pairs) and scene.overlaps.all()  # 0 is what a file without overlaps reads as
    known = known and scene.searched_from <= least
    pairs, overlaps = (scene.pairs, scene.overlaps) if known else find_pairs(scene, least)
    far = pairs[:, 1] - pairs[:, 0] > (0 if consecutive else 1)
    return pairs[far & (overlaps >= least)]


def listed(scene: SceneViews) -> np.ndarray:
    """(P, 2) the pairs that a gt.log gave the scene, which have no overlaps; a ConfigError where there are none."""
    if not len(scene.pairs) or scene.overlaps.any():
        raise ConfigError(f"{scene.name} has no pairs of a gt.log. Try: ThreeDMatch(root, gt=True), or pairs by "
                          "overlap")
    return scene.pairs


def check_scenes(scenes: Sequence[SceneViews]) -> None:
    """A DataError where there is nothing to register."""
    if not scenes or not any(len(scene) > 1 for scene in scenes):
        raise DataError("registration", f"{len(scenes)} scenes, none of two views", "scenes with overlapping views")
