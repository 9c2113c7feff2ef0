"""Which views of a scene overlap: PointContrast's pairs (Xie et al. 2020, section 3), found among all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from contrast3d.data.recordings import moved
from contrast3d.data.scene_views import SceneViews
from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.overlap import ViewOverlaps, voxel_means

BLOCK = 4096  # pairs compared between two looks at the progress


def find_pairs(
    scene: SceneViews, min_overlap: float = 0.3, voxel: float = 0.05, radius: float = 0.075,
    means: Sequence[Float[np.ndarray, "_ 3"]] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Int[np.ndarray, "p 2"], Float[np.ndarray, "p"]]:
    """(pairs (P, 2) int64, overlaps (P,) float32): all i < j that overlap by `min_overlap` or more, in order.

    Each view is taken to the frame of the scene and to one point per `voxel` metres, the mean. The overlap is the
    share of the points of j with a point of i within `radius` metres, or the other way round, whichever is larger.

    means: these points, (M, 3) per view, where they are known already: `rgbd.read_scan` has them of all pixels,
    while a scene keeps its points thinned. on_progress: told (pairs done, of how many).

    Raises ConfigError where a number is out of range, DataError where the means are not of these views.
    """
    if not 0 <= min_overlap <= 1:
        raise ConfigError(f"min_overlap = {min_overlap}; expected a share from 0 to 1")
    if means is None:
        means = [voxel_means(moved(scene.points(v).astype(np.float64), scene.poses[v]), voxel).astype(np.float32)
                 for v in range(len(scene))]
    if len(means) != len(scene):
        raise DataError(scene.name, f"means of {len(means)} views", f"of {len(scene)}")
    views = ViewOverlaps(means, radius)
    total, done = len(scene) * (len(scene) - 1) // 2, 0
    found, overlaps = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)]
    for candidates in _blocks(len(scene)):
        shares = views.of(candidates, min_overlap)
        # A pair given up early has 0; where nothing is asked for, nothing is given up, and pairs apart count too.
        kept = shares >= min_overlap
        found.append(candidates[kept])
        overlaps.append(shares[kept].astype(np.float32))
        done += len(candidates)
        on_progress(done, total)
    return np.concatenate(found), np.concatenate(overlaps)


def with_pairs(scene: SceneViews, min_overlap: float = 0.3, **options) -> SceneViews:
    """The scene with its pairs found, and from which overlap on; see `find_pairs`."""
    pairs, overlaps = find_pairs(scene, min_overlap, **options)
    return replace(scene, pairs=pairs, overlaps=overlaps, min_overlap=min_overlap)


def _blocks(count: int) -> Iterator[Int[np.ndarray, "p 2"]]:
    """All i < j in order, some thousands at a time: of many views the list as a whole would fill the memory."""
    rows: list[np.ndarray] = []
    waiting = 0
    for i in range(count):
        others = np.arange(i + 1, count)
        rows.append(np.stack([np.full_like(others, i), others], 1))
        waiting += len(others)
        if waiting >= BLOCK or i == count - 1:
            if waiting:
                yield np.concatenate(rows)
            rows, waiting = [], 0
