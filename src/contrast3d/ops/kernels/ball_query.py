"""CPU kernel of `ops.ball_query`."""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.masks import WIDTH, below, lowest_bit
from contrast3d.ops.kernels.threads import kernel

BLOCK = 8 * WIDTH  # points looked at before asking whether k are found


@kernel
def _distances(points, query, row):
    """row = the squared distances of the points (3, n) to the query (3,)."""
    x, y, z = points[0], points[1], points[2]
    qx, qy, qz = query[0], query[1], query[2]
    for j in range(len(row)):
        dx, dy, dz = x[j] - qx, y[j] - qy, z[j] - qz
        row[j] = dx * dx + dy * dy + dz * dz


@kernel
def points_within(points, queries, squared_radius, out, start, stop):
    """out[i] = the first k points of cloud b nearer than the radius to query i, i counting through (B, M).

    Missing ones repeat the first; a query that has none gets its nearest point.
    points (B, 3, N) padded by infinity, queries (B, M, 3), out (B * M, k) int64.
    """
    n, m, k = points.shape[2], queries.shape[1], out.shape[1]
    row = np.empty(BLOCK, points.dtype)
    for i in range(start, stop):
        found, nearest, least = 0, 0, points.dtype.type(np.inf)
        for first in range(0, n, BLOCK):
            width = min(BLOCK, n - first)
            distances = row[:width]
            _distances(points[i // m, :, first : first + width], queries[i // m, i % m], distances)
            for block in range(0, width, WIDTH):
                bits = below(row, block, squared_radius)
                while bits and found < k:
                    out[i, found] = first + block + lowest_bit(bits)
                    bits &= bits - np.uint64(1)
                    found += 1
            if found == k:
                break
            if found == 0:
                for j in range(width):
                    if distances[j] < least:
                        nearest, least = first + j, distances[j]
        out[i, found:] = out[i, 0] if found else nearest
