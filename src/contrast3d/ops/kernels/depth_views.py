"""CPU kernel of `ops.depth_views`: one pass over a depth image that stores no point it does not keep."""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.overlap import BITS, ROOM, doubled, place_of
from contrast3d.ops.kernels.threads import kernel

CENTRE = 1 << (BITS - 1)  # in the middle of what a packed coordinate holds


@kernel
def _key(x, y, z, voxel, low):
    """The packed voxel of a point."""
    cx = np.int64(np.floor(x / voxel)) - low[0]
    cy = np.int64(np.floor(y / voxel)) - low[1]
    cz = np.int64(np.floor(z / voxel)) - low[2]
    return (cx << (2 * BITS)) | (cy << BITS) | cz


@kernel
def read_view(depth, saturated, units, camera, pose, thin, voxel, reach):
    """((n, 3) int16 millimetres, (m, 3) float64 means) of a depth image; `ops.depth_views.depth_view` says of what.

    camera: fx, fy, cx, cy, bx, by. Neighbouring pixels mostly share a voxel: those ask no table. Tables grow with the
    voxels, to stay in cache.
    """
    height, width = depth.shape
    fx, fy, cx, cy, bx, by = camera
    kept, count = np.empty((height * width, 3), np.int16), 0
    here = np.full(3, -CENTRE, np.int64)
    there = np.empty(3, np.int64)
    for axis in range(3):
        there[axis] = np.int64(np.floor(pose[axis, 3] / voxel)) - CENTRE
    near_keys, near_numbers = np.full(ROOM, -1, np.int64), np.empty(ROOM, np.int32)
    keys, numbers, sums = np.full(ROOM, -1, np.int64), np.empty(ROOM, np.int32), np.zeros((ROOM, 4))
    near_count, means, near_last, last, number = 0, 0, np.int64(-1), np.int64(-1), np.int64(0)
    for v in range(height):
        for u in range(width):
            if depth[v, u] == 0 or depth[v, u] >= saturated:
                continue
            z = depth[v, u] / units
            x, y = (u - cx) * z / fx + bx, (v - cy) * z / fy + by
            if z > reach or abs(x) > reach or abs(y) > reach:
                continue
            new = thin == 0
            if not new:
                key = _key(x, y, z, thin, here)
                if key != near_last:
                    near_last = key
                    place = place_of(near_keys, key)
                    new = near_keys[place] == -1
                    if new:
                        near_keys[place] = key
                        near_count += 1
                        if 2 * near_count > len(near_keys):
                            near_keys, near_numbers = doubled(near_keys, near_numbers)
            if new:
                kept[count, 0] = np.int16(np.rint(x * 1000))
                kept[count, 1] = np.int16(np.rint(y * 1000))
                kept[count, 2] = np.int16(np.rint(z * 1000))
                count += 1
            wx = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]
            wy = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]
            wz = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]
            key = _key(wx, wy, wz, voxel, there)
            if key != last:
                last = key
                place = place_of(keys, key)
                if keys[place] == -1:
                    keys[place], numbers[place] = key, means
                    means += 1
                number = np.int64(numbers[place])
                if 2 * means > len(keys):
                    keys, numbers = doubled(keys, numbers)
                    more = np.zeros((len(keys), 4))
                    more[: len(sums)] = sums
                    sums = more
            sums[number, 0] += wx
            sums[number, 1] += wy
            sums[number, 2] += wz
            sums[number, 3] += 1
    out = np.empty((means, 3))
    for i in range(means):
        for axis in range(3):
            out[i, axis] = sums[i, axis] / sums[i, 3]
    return kept[:count].copy(), out
