"""CPU kernels of `ops.chamfer`: the nearest point of the other set, and what its distance asks of both points.

A block of queries runs through all points of the other set, one at a time: each step is one and the same comparison
in every lane of a vector, so the nearest needs no reduction, and of equally near points the first stays.
"""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.threads import kernel

STEP = 4  # points looked at together
BLOCK = 32  # queries that go together; sets of one patch are mostly of this size


@kernel
def _look(x, y, z, points, start, best, found):
    """found = the number of the nearest of points[start : start + STEP] where it beats the best so far.

    Several points go together, so that the best is read and written once for all of them.
    """
    p = points[start : start + STEP]
    for i in range(BLOCK):
        least, nearest = best[i], found[i]
        for t in range(STEP):
            dx, dy, dz = x[i] - p[t, 0], y[i] - p[t, 1], z[i] - p[t, 2]
            distance = dx * dx + dy * dy + dz * dz
            nearer = distance < least
            least = distance if nearer else least
            nearest = np.int32(start + t) if nearer else nearest
        best[i], found[i] = least, nearest


@kernel
def nearest(queries, points, squared, index, start, stop):
    """squared[b, i], index[b, i] = of the point of set b nearest to query i; blocks of queries from start to stop.

    queries (B, N, 3), points (B, M, 3) with M at least STEP, squared (B, N), index (B, N) int32; ceil(N / BLOCK)
    blocks in each set. A query with no finite distance gets infinity and the first point.
    """
    n, m = queries.shape[1], points.shape[1]
    blocks = (n + BLOCK - 1) // BLOCK
    place = np.zeros((3, BLOCK), queries.dtype)
    x, y, z = place[0], place[1], place[2]
    best, found = np.empty(BLOCK, queries.dtype), np.empty(BLOCK, np.int32)
    for block in range(start, stop):
        b, first = block // blocks, block % blocks * BLOCK
        count = min(BLOCK, n - first)
        for i in range(count):
            x[i], y[i], z[i] = queries[b, first + i, 0], queries[b, first + i, 1], queries[b, first + i, 2]
        best[:] = np.inf
        found[:] = 0
        for j in range(0, m, STEP):
            _look(x, y, z, points[b], min(j, m - STEP), best, found)  # looked at twice changes nothing
        squared[b, first : first + count] = best[:count]
        index[b, first : first + count] = found[:count]


@kernel
def _pull(queries, points, squared, index, scale, root, queries_grad, points_grad):
    """Add the gradient of scale * sum of squared distances, or of distances, to both ends of each."""
    for i in range(len(queries)):
        j = index[i]
        weight = 2 * scale
        if root:  # a distance of zero has no direction, and pulls at nothing
            weight = scale / np.sqrt(squared[i]) if squared[i] > 0 else scale * 0
        for axis in range(3):
            pull = weight * (queries[i, axis] - points[j, axis])
            queries_grad[i, axis] += pull
            points_grad[j, axis] -= pull


@kernel
def gradients(first, second, squared, index, scales, root, first_grad, second_grad, start, stop):
    """Gradients (B, N, 3), (B, M, 3), zero before, of both ways' sums times scales (2,); sets from start to stop.

    squared, index: pairs of what `nearest` found for the first and for the second set.
    """
    for b in range(start, stop):
        _pull(first[b], second[b], squared[0][b], index[0][b], scales[0], root, first_grad[b], second_grad[b])
        _pull(second[b], first[b], squared[1][b], index[1][b], scales[1], root, second_grad[b], first_grad[b])
