"""CPU kernels of `ops.knn`: fill a row of distances, then select its k smallest.

The selection is what `topk` spends its time on, so it is made of steps that fill vector registers:

1. Fold the row in half, keeping the smaller of each pair, until 1.5 k to 3 k minima of disjoint groups are
   left. The k-th smallest minimum is a bound: at least k elements lie at or below it, hardly any others do.
2. Collect the elements below the bound, and of those equal to it as many as are missing: about 30 of 1,024
   for k = 20, in any order of points and with any number of duplicates.
3. Rank every candidate by counting the smaller ones; its rank is its place in the result.

Rows are padded with infinity to a multiple of WIDTH.
"""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.masks import WIDTH, at_most, below, count_bits, lowest_bit
from contrast3d.ops.kernels.threads import kernel

COUNTING_LIMIT = 256  # counting is quadratic: beyond this many values, sort


@kernel
def _halve(values, out):
    """out = the smaller of each pair of values len(out) apart; an odd one out stands alone. No overlap."""
    second = values[len(out) :]
    out[-1] = values[len(out) - 1]
    for j in range(len(second)):
        out[j] = values[j] if values[j] < second[j] else second[j]


@kernel
def _fold(row, scratch, k):
    """The minima of 1.5 k or more disjoint groups of the row: a part of scratch, padded by infinity.

    Folds go one behind the other into scratch, so that LLVM can prove that source and target do not overlap.
    """
    count, used = len(row), 0
    source = row
    while count >= 3 * k:
        count = (count + 1) // 2
        target = scratch[used : used + count]
        _halve(source, target)
        source = target
        used += count
    if used == 0:
        scratch[:count] = row
        used = count
    scratch[used : used + WIDTH] = np.inf
    return scratch[used - count : used]


@kernel
def _kth_smallest(values, k):
    """The k-th smallest value: the smallest that has k values at or below it. Padding follows the values."""
    count = len(values)
    if count > COUNTING_LIMIT:
        return np.sort(values)[k - 1]
    result = values.dtype.type(np.inf)
    for i in range(count):
        if values[i] < result:
            rank = 0
            for start in range(0, count, WIDTH):
                rank += count_bits(at_most(values, start, values[i]))
            if rank >= k:
                result = values[i]
    return result


@kernel
def _append(bits, start, row, values, indices, count, limit):
    """Append the elements of row[start:] that the bits name, up to `limit` in all; return the new count."""
    while bits and count < limit:
        j = start + lowest_bit(bits)
        bits &= bits - np.uint64(1)
        values[count] = row[j]
        indices[count] = j
        count += 1
    return count


@kernel
def _collect(row, bound, k, values, indices):
    """Copy all elements below the bound, then as many equal to it as k needs, each in order; return the count."""
    count = 0
    for start in range(0, len(row), WIDTH):
        count = _append(below(row, start, bound), start, row, values, indices, count, len(row))
    for start in range(0, len(row), WIDTH):
        if count >= k:
            break
        equal = at_most(row, start, bound) & ~below(row, start, bound)
        count = _append(equal, start, row, values, indices, count, k)
    return count


@kernel
def _place(values, indices, count, taken, out):
    """out[:] = the indices of the len(out) smallest of values[:count], smallest first, ties as they stand."""
    k = len(out)
    if count > COUNTING_LIMIT:
        order = np.argsort(values[:count], kind="mergesort")
        for i in range(k):
            out[i] = indices[order[i]]
        return
    values[count : count + WIDTH] = np.inf
    taken[:count] = 0
    for i in range(count):
        rank = 0
        for start in range(0, count, WIDTH):
            rank += count_bits(below(values, start, values[i]))
        place = rank + taken[rank]  # equals have one rank and follow each other
        taken[rank] += 1
        if place < k:
            out[place] = indices[i]


@kernel
def _buffers(n, dtype):
    """Working memory of `_select` for rows of n elements."""
    return np.empty(n + 2 * WIDTH, dtype), np.empty(n, np.int64), np.empty(n, np.int64)


@kernel
def _select(row, buffers, out):
    """out[:] = the indices of the len(out) smallest elements of the row in order, ties by lower index."""
    values, indices, taken = buffers
    bound = _kth_smallest(_fold(row, values, len(out)), len(out))
    count = _collect(row, bound, len(out), values, indices)
    _place(values, indices, count, taken, out)


@kernel
def nearest_points(points, queries, own, out, start, stop):
    """3-D: out[i] = the k nearest of points[b] to query i, i counting through all (B, M) queries.

    points (B, 3, N) padded, queries (B, M, 3), out (B * M, k) int64. With `own`, queries are the points.
    """
    n, m = points.shape[2], queries.shape[1]
    row = np.empty(n, points.dtype)
    buffers = _buffers(n, points.dtype)
    for i in range(start, stop):
        b, q = i // m, queries[i // m, i % m]
        x, y, z = points[b, 0], points[b, 1], points[b, 2]  # unpacking points[b] would defeat vectorisation
        qx, qy, qz = q[0], q[1], q[2]
        for j in range(n):
            dx, dy, dz = x[j] - qx, y[j] - qy, z[j] - qz
            row[j] = dx * dx + dy * dy + dz * dz
        if own:
            row[i % m] = -1
        _select(row, buffers, out[i])


@kernel
def smallest_of_rows(rows, own, out, start, stop):
    """out[g, r] = the columns of the k smallest elements of rows[g, r], g * R + r from start to stop.

    rows (G, R, N) padded, out (G, R, k) int64. With own >= 0, column own + r is overwritten to come first.
    """
    step, n = rows.shape[1:]
    buffers = _buffers(n, rows.dtype)
    for i in range(start, stop):
        g, r = i // step, i % step
        if own >= 0:
            rows[g, r, own + r] = -np.inf
        _select(rows[g, r], buffers, out[g, r])
