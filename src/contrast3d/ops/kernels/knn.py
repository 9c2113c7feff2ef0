"""CPU kernels of `ops.knn`: fill a row of distances, then select its k smallest.

The selection is what `topk` spends its time on, so it is built from loops that fill vector registers:

1. Deal the row into `groups` interleaved groups and take each group's minimum. The k-th smallest minimum is
   a bound: at least k elements lie at or below it, and with 1.5 k groups or more hardly any others do.
2. Collect the elements at or below the bound, in index order (about 31 of 1,024 for k = 20).
3. Rank every candidate by counting the smaller ones; its rank is its place in the result.

Nothing depends on the data but the number of candidates: shuffled, sorted and duplicated points cost the same.
"""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.threads import kernel

LANES = 32  # group minima are updated by whole vector registers
COUNTING_LIMIT = 128  # counting is quadratic: beyond this many values, sort


@kernel
def _group_minima(row, minima):
    """minima[g] = min(row[g::len(minima)]); len(minima) is a multiple of LANES."""
    minima[:] = np.inf
    whole = len(row) - len(row) % LANES
    base = 0
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            d = row[start + lane]
            m = minima[base + lane]
            minima[base + lane] = d if d < m else m
        base = base + LANES if base + LANES < len(minima) else 0
    for lane in range(len(row) - whole):
        minima[base + lane] = min(minima[base + lane], row[whole + lane])


@kernel
def _kth_smallest(values, k):
    """The k-th smallest value: the largest that has fewer than k smaller ones."""
    if len(values) > COUNTING_LIMIT:
        return np.sort(values)[k - 1]
    one, zero = values.dtype.type(1), values.dtype.type(0)
    result = values.dtype.type(-np.inf)
    for i in range(len(values)):
        smaller = zero  # a float, so that the count is as wide as what is compared
        for j in range(len(values)):
            smaller += one if values[j] < values[i] else zero
        if smaller < k and values[i] > result:
            result = values[i]
    return result


@kernel
def _collect(row, bound, k, values, indices):
    """Copy the elements at or below the bound, in order; of those equal to it the first k are enough."""
    count, equal = 0, 0
    for start in range(0, len(row), LANES):
        stop = min(start + LANES, len(row))
        smallest = row[start]
        for j in range(start, stop):
            smallest = row[j] if row[j] < smallest else smallest
        if smallest <= bound:
            for j in range(start, stop):
                if row[j] <= bound and (row[j] < bound or equal < k):
                    equal += row[j] == bound
                    values[count] = row[j]
                    indices[count] = j
                    count += 1
    return count


@kernel
def _place(values, indices, k, out):
    """Write the indices of the k smallest values, nearest first, ties in the order given."""
    if len(values) > COUNTING_LIMIT:
        order = np.argsort(values, kind="mergesort")
        for i in range(k):
            out[i] = indices[order[i]]
        return
    one, zero = values.dtype.type(1), values.dtype.type(0)
    for i in range(len(values)):
        rank = zero
        for j in range(i):
            rank += one if values[j] <= values[i] else zero
        for j in range(i + 1, len(values)):
            rank += one if values[j] < values[i] else zero
        if rank < k:
            out[int(rank)] = indices[i]


@kernel
def _select(row, minima, values, indices, out):
    """out[:] = the indices of the len(out) smallest elements of the row, smallest first, ties by lower index."""
    k = len(out)
    _group_minima(row, minima)
    count = _collect(row, _kth_smallest(minima, k), k, values, indices)
    _place(values[:count], indices[:count], k, out)


@kernel
def _groups(k):
    """How many groups the selection of k uses: at least 1.5 k, in whole LANES."""
    return (k + k // 2 + LANES) // LANES * LANES


@kernel
def nearest_points(points, queries, own, out, start, stop):
    """3-D: out[i] = the k nearest of points[b] to query i, i counting through all (B, M) queries.

    points (B, 3, N), queries (B, M, 3), out (B * M, k) int64. With `own`, query i is point i and comes first.
    """
    n, m, k = points.shape[2], queries.shape[1], out.shape[1]
    row = np.empty(n, points.dtype)
    values, indices = np.empty(n, points.dtype), np.empty(n, np.int64)
    minima = np.empty(_groups(k), points.dtype)
    for i in range(start, stop):
        x, y, z = points[i // m]
        qx, qy, qz = queries[i // m, i % m]
        for j in range(n):
            dx, dy, dz = x[j] - qx, y[j] - qy, z[j] - qz
            row[j] = dx * dx + dy * dy + dz * dz
        if own:
            row[i % m] = -1
        _select(row, minima, values, indices, out[i])


@kernel
def smallest_of_rows(rows, own, out, start, stop):
    """out[i] = the columns of the k smallest elements of rows[i]; with own >= 0, column own + i comes first.

    rows (R, N) is overwritten at those columns; out (R, k) int64.
    """
    n, k = rows.shape[1], out.shape[1]
    values, indices = np.empty(n, rows.dtype), np.empty(n, np.int64)
    minima = np.empty(_groups(k), rows.dtype)
    for i in range(start, stop):
        if own >= 0:
            rows[i, own + i] = -np.inf
        _select(rows[i], minima, values, indices, out[i])
