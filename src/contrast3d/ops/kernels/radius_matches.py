"""CPU kernels of `ops.radius_matches`: the plane is cut into columns, the points of each column stand by height.

A neighbour within the radius lies in one of the 3 x 3 columns around a query, in a run that two bisections find.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from contrast3d.ops.kernels.threads import kernel

COLUMNS_MOST = 1 << 20  # 8 MB; beyond it columns grow wider than the radius, and stay exact
SLACK = 1e-6  # by which columns and runs are larger than the radius: rounding must not lose a neighbour


class Columns(NamedTuple):
    """Points (N, 3) float64 in the order of their columns, and where each column begins.

    points: by column, by height within one; rows: (N,) their rows in the input.
    starts: (nx * ny + 1,) int64; low: (2,) corner of the grid; shape: (nx, ny); cell: width of a column.
    """

    points: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    low: np.ndarray
    shape: tuple[int, int]
    cell: float


def columns_of(points: np.ndarray, radius: float, most: int = COLUMNS_MOST) -> Columns:
    """Sort (N, 3) float64 points, N > 0, into at most so many columns, at least as wide as the radius."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    cell = radius * (1 + SLACK)
    extent = high - low
    while np.prod(extent / cell + 1) > most:
        cell *= 2
    nx, ny = (int(n) for n in extent // cell + 1)
    cells = np.minimum(((points[:, :2] - low) / cell).astype(np.int64), (nx - 1, ny - 1))
    column = cells[:, 0] * ny + cells[:, 1]
    rows = np.lexsort((points[:, 2], column))
    starts = np.zeros(nx * ny + 1, np.int64)
    np.cumsum(np.bincount(column, minlength=nx * ny), out=starts[1:])
    return Columns(points[rows], rows, starts, low, (nx, ny), cell)


@kernel
def first_at_least(points, start, stop, height):
    """The first row of points[start:stop] that is not below `height`."""
    while start < stop:
        middle = (start + stop) // 2
        if points[middle, 2] < height:
            start = middle + 1
        else:
            stop = middle
    return start


@kernel
def cell_of(value, low, cell, count):
    """The column of a coordinate, -2 or count + 1 for all that is farther out than a neighbour."""
    return np.int64(np.floor(min(max((value - low) / cell, -2.0), count + 1.0)))


@kernel
def _find(query, radius, columns, out):
    """The rows within the radius of one query (3,): into `out` as far as it reaches, in no order; their number."""
    points, rows, starts, low, (nx, ny), cell = columns
    x, y, z = query[0], query[1], query[2]
    reach = radius * (1 + SLACK)
    ix, iy = cell_of(x, low[0], cell, nx), cell_of(y, low[1], cell, ny)
    found = 0
    for cx in range(max(ix - 1, 0), min(ix + 2, nx)):
        for cy in range(max(iy - 1, 0), min(iy + 2, ny)):
            stop = starts[cx * ny + cy + 1]
            row = first_at_least(points, starts[cx * ny + cy], stop, z - reach)
            while row < stop and points[row, 2] <= z + reach:
                dx, dy, dz = points[row, 0] - x, points[row, 1] - y, points[row, 2] - z
                if dx * dx + dy * dy + dz * dz <= radius * radius:
                    if found < len(out):
                        out[found] = rows[row]
                    found += 1
                row += 1
    return found


@kernel
def count_matches(queries, radius, columns, counts, start, stop):
    """counts[i] = how many points lie within the radius of query i; queries (M, 3) float64."""
    nowhere = np.empty(0, np.int64)
    for i in range(start, stop):
        counts[i] = _find(queries[i], radius, columns, nowhere)


@kernel
def fill_matches(queries, radius, columns, ends, out, start, stop):
    """out[ends[i - 1] : ends[i]] = (i, row) for the rows within the radius of query i, by row; out (P, 2) int64."""
    for i in range(start, stop):
        first = ends[i - 1] if i else 0
        found = np.empty(ends[i] - first, np.int64)
        _find(queries[i], radius, columns, found)
        found.sort()
        for j in range(len(found)):
            out[first + j, 0] = i
            out[first + j, 1] = found[j]
