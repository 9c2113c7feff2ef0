"""How much of a partial view another one sees too; on numpy arrays, for it prepares data and never meets a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.kernels import overlap as kernels
from contrast3d.ops.kernels import threads
from contrast3d.ops.kernels.inputs import check_finite
from contrast3d.ops.kernels.radius_matches import columns_of

COLUMNS_MOST = 1 << 16  # per view: 256 kB
_SPAN = 1 << 21  # voxels along an axis that a packed key can tell apart


def voxel_means(points: Float[np.ndarray, "n 3"], voxel: float) -> Float[np.ndarray, "m 3"]:
    """(M, 3) float64: the mean of the points in each voxel floor(x / voxel), in the order in which they first occur."""
    numbers, count = _voxels(points, voxel)
    out = np.empty((count, 3))
    kernels.means_of(np.ascontiguousarray(points, np.float64), numbers, out)
    return out


def first_of_voxels(points: Float[np.ndarray, "n 3"], voxel: float) -> Int[np.ndarray, "m"]:
    """(M,) int64 rows, ascending: the first point in each voxel floor(x / voxel)."""
    numbers, count = _voxels(points, voxel)
    out = np.empty(count, np.int64)
    kernels.firsts_of(numbers, out)
    return out


def _voxels(points: np.ndarray, voxel: float) -> tuple[np.ndarray, int]:
    """The number of each point's voxel, and how many voxels there are."""
    if not voxel > 0:
        raise ConfigError(f"voxel = {voxel}; expected a positive number of metres")
    points = np.ascontiguousarray(points, np.float64)
    check_finite("points", points)
    numbers = np.empty(len(points), np.int32)
    if not len(points):
        return numbers, 0
    # Axis by axis: numpy takes ten times as long for points.min(0).
    low, high = (np.floor([end(axis) / voxel for axis in points.T]) for end in (np.min, np.max))
    if not (high - low < _SPAN).all() or np.abs([low, high]).max() > 1 << 60:
        raise DataError("points", f"{np.max(high - low) * voxel:g} m wide", f"up to {_SPAN} voxels",
                        "metres as the unit, or larger voxels")
    return numbers, kernels.voxels_of(points, voxel, low.astype(np.int64), numbers)


class ViewOverlaps:
    """V views of a scene in one frame, each (M_v, 3) points of about one density, arranged to be compared.

    Takes some 60 kB a view of 3,400 points: coordinates are kept in float32.
    """

    def __init__(self, views: Sequence[Float[np.ndarray, "_ 3"]], radius: float):
        if not radius > 0:
            raise ConfigError(f"radius = {radius}; expected a positive number of metres")
        self.radius = float(radius)
        self.offsets = np.cumsum([0] + [len(view) for view in views]).astype(np.int64)
        count, index = len(views), np.int32 if self.offsets[-1] < 1 << 31 else np.int64
        points = np.empty((int(self.offsets[-1]), 3), np.float32)
        self.low, self.high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
        corners, shapes, cells = np.zeros((count, 2)), np.zeros((count, 2), np.int64), np.ones(count)
        starts, first_cells = [], np.zeros(count, np.int64)
        filled = 0
        for v, view in enumerate(views):
            if not len(view):
                continue
            view = np.asarray(view, np.float32).astype(np.float64)
            check_finite("views", view)
            self.low[v], self.high[v] = view.min(0) - radius, view.max(0) + radius
            columns = columns_of(view, radius, COLUMNS_MOST)
            points[self.offsets[v] : self.offsets[v + 1]] = columns.points
            corners[v], shapes[v], cells[v] = columns.low, columns.shape, columns.cell
            starts.append((columns.starts + self.offsets[v]).astype(index))
            first_cells[v] = filled
            filled += len(columns.starts)
        packed = np.concatenate(starts) if starts else np.zeros(1, index)
        self._columns = (points, packed, first_cells, corners, shapes, cells)

    def of(self, pairs: Int[np.ndarray, "p 2"], least: float = 0.0) -> Float[np.ndarray, "p"]:
        """(P,) float64: of each pair of views the share of one that the other one sees, the larger of the two.

        The share of the points of j with a point of i within the radius, and the other way round (PointContrast's
        preparation of ScanNet). Where it is below `least` it is 0: such pairs are given up early.
        """
        pairs = np.ascontiguousarray(pairs, np.int64)
        if len(pairs) and not (pairs.min() >= 0 and pairs.max() < len(self.offsets) - 1):
            raise DataError("pairs", "a view that is not there", f"views 0 to {len(self.offsets) - 2}")
        out = np.empty(len(pairs))
        threads.run(kernels.overlaps_of, len(pairs), pairs, self.radius, float(least), self.offsets, self.low,
                    self.high, self._columns, out)
        out[out < least] = 0
        return out
