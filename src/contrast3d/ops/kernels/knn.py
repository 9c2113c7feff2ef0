"""CPU kernels of `ops.knn`: fill a row of distances, then select its k smallest.

The selection is what `topk` spends its time on, so it is made of steps that fill vector registers:

1. Fold the row in half, keeping the smaller of each pair, until 1.5 k to 3 k minima of disjoint groups remain.
   The k-th smallest minimum is a bound: at least k elements lie at or below it, and hardly any others do.
2. Collect the elements at or below the bound, in index order (about 31 of 1,024 for k = 20).
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
def _collect(row, bound, values, indices):
    """Copy the elements at or below the bound, in order; return their number."""
    count = 0
    for start in range(0, len(row), WIDTH):
        bits = at_most(row, start, bound)
        while bits:
            j = start + lowest_bit(bits)
            bits &= bits - np.uint64(1)
            values[count] = row[j]
            indices[count] = j
            count += 1
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
    """out[:] = the indices of the len(out) smallest elements of the row, smallest first, ties by lower index."""
    values, indices, taken = buffers
    bound = _kth_smallest(_fold(row, values, len(out)), len(out))
    count = _collect(row, bound, values, indices)
    _place(values, indices, count, taken, out)


@kernel
def nearest_points(points, queries, own, out, start, stop):
    """3-D: out[i] = the k nearest of points[b] to query i, i counting through all (B, M) queries.

    points (B, 3, N) padded, queries (B, M, 3), out (B * M, k) int64. With `own`, query i is point i and first.
    """
    n, m = points.shape[2], queries.shape[1]
    row = np.empty(n, points.dtype)
    buffers = _buffers(n, points.dtype)
    for i in range(start, stop):
        x, y, z = points[i // m]
        qx, qy, qz = queries[i // m, i % m]
        for j in range(n):
            dx, dy, dz = x[j] - qx, y[j] - qy, z[j] - qz
            row[j] = dx * dx + dy * dy + dz * dz
        if own:
            row[i % m] = -1
        _select(row, buffers, out[i])


@kernel
def smallest_of_rows(rows, own, out, start, stop):
    """out[i] = the columns of the k smallest elements of rows[i]; with own >= 0, column own + i comes first.

    rows (R, N) padded, overwritten at those columns; out (R, k) int64.
    """
    buffers = _buffers(rows.shape[1], rows.dtype)
    for i in range(start, stop):
        if own >= 0:
            rows[i, own + i] = -np.inf
        _select(rows[i], buffers, out[i])
