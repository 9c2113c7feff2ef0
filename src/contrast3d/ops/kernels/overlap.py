"""CPU kernels of `ops.overlap`: voxels by an open hash table, and how much of a view another one sees."""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.radius_matches import SLACK, cell_of, first_at_least
from contrast3d.ops.kernels.threads import kernel

BITS = 21  # of a packed coordinate
ROOM = 1 << 12  # of a table at first
_ASIDE = np.array([(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)])


@kernel
def place_of(keys, key):
    """Where the key is in the table, or the free place where it belongs; the table's length is a power of two."""
    mask = np.uint64(len(keys) - 1)
    hashed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    place = (hashed >> np.uint64(20)) & mask
    while keys[place] != -1 and keys[place] != key:
        place = (place + np.uint64(1)) & mask
    return place


@kernel
def doubled(keys, numbers):
    """The table with twice the room."""
    more, their = np.full(2 * len(keys), -1, np.int64), np.empty(2 * len(keys), np.int32)
    for i in range(len(keys)):
        if keys[i] != -1:
            place = place_of(more, keys[i])
            more[place], their[place] = keys[i], numbers[i]
    return more, their


@kernel
def voxels_of(points, voxel, low, out):
    """out[i] = the number of the voxel of each point (N, 3), numbered as they first occur; returns how many.

    low: (3,) int64, the least voxel along each axis. Neighbouring pixels mostly share a voxel: those ask no table,
    and the table grows with the voxels, not the points, to stay in cache.
    """
    keys, numbers = np.full(ROOM, -1, np.int64), np.empty(ROOM, np.int32)
    count, last, number = 0, np.int64(-1), np.int32(0)
    for i in range(len(points)):
        x = np.int64(np.floor(points[i, 0] / voxel)) - low[0]
        y = np.int64(np.floor(points[i, 1] / voxel)) - low[1]
        z = np.int64(np.floor(points[i, 2] / voxel)) - low[2]
        key = (x << (2 * BITS)) | (y << BITS) | z
        if key != last:
            last = key
            place = place_of(keys, key)
            if keys[place] == -1:
                keys[place], numbers[place] = key, count
                count += 1
            number = numbers[place]
            if 2 * count > len(keys):
                keys, numbers = doubled(keys, numbers)
        out[i] = number
    return count


@kernel
def means_of(points, numbers, out):
    """out[v] = the mean of the points (N, 3) that have number v."""
    counts = np.zeros(len(out), np.int64)
    out[:] = 0
    for i in range(len(points)):
        v = numbers[i]
        counts[v] += 1
        for axis in range(3):
            out[v, axis] += points[i, axis]
    for v in range(len(out)):
        for axis in range(3):
            out[v, axis] /= counts[v]


@kernel
def firsts_of(numbers, out):
    """out[v] = the first i with numbers[i] == v, where numbers count up as they first occur."""
    count = 0
    for i in range(len(numbers)):
        if numbers[i] == count:
            out[count] = i
            count += 1


@kernel
def _near_any(x, y, z, radius, columns, view):
    """Whether a point of the view lies within the radius; the own column first, for there most are found."""
    points, starts, first_cells, low, shape, cells = columns
    nx, ny, first = shape[view, 0], shape[view, 1], first_cells[view]
    ix, iy = cell_of(x, low[view, 0], cells[view], nx), cell_of(y, low[view, 1], cells[view], ny)
    reach = radius * (1 + SLACK)
    for step in range(9):
        cx, cy = ix + _ASIDE[step, 0], iy + _ASIDE[step, 1]
        if not (0 <= cx < nx and 0 <= cy < ny):
            continue
        column = first + cx * ny + cy
        start, stop = starts[column], starts[column + 1]
        if start == stop or points[start, 2] > z + reach or points[stop - 1, 2] < z - reach:
            continue
        row = first_at_least(points, start, stop, z - reach)
        while row < stop and points[row, 2] <= z + reach:
            dx, dy, dz = points[row, 0] - x, points[row, 1] - y, points[row, 2] - z
            if dx * dx + dy * dy + dz * dz <= radius * radius:
                return True
            row += 1
    return False


@kernel
def _share(seen, by, radius, least, offsets, low, high, columns):
    """The share of the points of view `seen` that view `by` has a point near to; 0 as soon as it stays below least."""
    points = columns[0]
    start, stop = offsets[seen], offsets[seen + 1]
    misses, allowed = 0, (1 - least) * (stop - start) + SLACK
    for i in range(start, stop):
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        inside = low[by, 0] <= x <= high[by, 0] and low[by, 1] <= y <= high[by, 1] and low[by, 2] <= z <= high[by, 2]
        if not (inside and _near_any(x, y, z, radius, columns, by)):
            misses += 1
            if misses > allowed:
                return 0.0
    return (stop - start - misses) / max(stop - start, 1)


@kernel
def overlaps_of(pairs, radius, least, offsets, low, high, columns, out, start, stop):
    """out[p] = the larger share of a view of the pair (P, 2) that the other one sees; 0 where it is below least.

    offsets: (V + 1,) the points of each view; low, high: (V, 3) its box, larger by the radius.
    columns: of all views one after the other, as `ops.overlap.Packed` holds them.
    """
    for p in range(start, stop):
        i, j = pairs[p, 0], pairs[p, 1]
        apart = False
        for axis in range(3):
            apart |= low[i, axis] + radius > high[j, axis] or low[j, axis] + radius > high[i, axis]
        out[p] = 0
        if not apart and offsets[i + 1] > offsets[i] and offsets[j + 1] > offsets[j]:
            first = _share(j, i, radius, least, offsets, low, high, columns)
            out[p] = max(first, _share(i, j, radius, least, offsets, low, high, columns))
