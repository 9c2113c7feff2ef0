"""CPU kernels of attention between small sets: all that belongs to one head of one sample stays in the first caches.

q: (B, M, _, H, D) holds queries at [b, :, qi, h]; kv: (B, N, _, H, D) holds keys at ki and values at vi. Scores are to
the base of 2, and lie as (keys, queries): keys and values are then read in rows, and only the queries are transposed.
A unit of work, start : stop, is one head of one sample.
"""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.elementary import exp2, reciprocal, transpose_tile
from contrast3d.ops.kernels.register_tile import gather_product, lanes, outer_product
from contrast3d.ops.kernels.threads import kernel

LANES = lanes(4)
VECTORS = 4  # of a head
HEAD = VECTORS * LANES
ROWS, OUTER_ROWS = 6, 4  # of a tile; the latter divides the lanes
ZERO, ONE, LN2 = np.float32(0), np.float32(1), np.float32(np.log(2))


@kernel
def load(source, b, slot, h, factor, to):
    """to[j] = factor * source[b, j, slot, h]; the rows beyond are zero."""
    for j in range(source.shape[1]):
        x, y = source[b, j, slot, h], to[j]
        for c in range(HEAD):
            y[c] = x[c] * factor
    to[source.shape[1] :] = ZERO


@kernel
def store(source, factor, to, b, slot, h):
    """to[b, j, slot, h] = factor * source[j], as many rows as there are."""
    for j in range(to.shape[1]):
        x, y = source[j], to[b, j, slot, h]
        for c in range(HEAD):
            y[c] = x[c] * factor


@kernel
def dots(keys, queries, rows, across, out):
    """out (N, M) = keys (N, D) @ queries^T, of (M, D); across: room for these transposed. N, M: whole tiles."""
    many, depth = queries.shape
    for m in range(0, many, LANES):
        for c in range(0, depth, LANES):
            transpose_tile(queries, m * depth + c, depth, across, c * many + m, many, LANES)
    out[:] = ZERO
    m = 0
    while m + 2 * LANES <= many:
        for n in range(0, len(keys), ROWS):
            gather_product(keys, rows, across, m, out, rows, m, n, depth, ROWS, 2)
        m += 2 * LANES
    if m < many:
        for n in range(0, len(keys), ROWS):
            gather_product(keys, rows, across, m, out, rows, m, n, depth, ROWS, 1)


@kernel
def mix_queries(scores, queries, rows, count, out):
    """out (N, D) = scores (N, M) @ queries (M, D), the first `count` of M."""
    out[:] = ZERO
    for n in range(0, len(out), ROWS):
        gather_product(scores, rows, queries, 0, out, rows, 0, n, count, ROWS, VECTORS)


@kernel
def mix_keys(scores, keys, count, out):
    """out (M, D) = scores^T keys, of (N, M) and (N, D), the first `count` of N."""
    out[:] = ZERO
    for m in range(0, len(out), OUTER_ROWS):
        outer_product(scores, m, keys, 0, count, out, m * HEAD, OUTER_ROWS, VECTORS)


@kernel
def attend(q, qi, kv, ki, vi, factor, out, norms, start, stop):
    """out[b, m, 0, h] = sum_n softmax_n(s)[n] kv[b, n, vi, h], s_n = factor q[b, m, qi, h] . kv[b, n, ki, h].

    norms[b, h, m] = log2 sum_n 2^s_n, which `attend_back` makes the softmax of again.
    """
    heads, keys = q.shape[3], kv.shape[1]
    wide, tall = (q.shape[1] + LANES - 1) // LANES * LANES, (keys + ROWS - 1) // ROWS * ROWS
    rows = np.arange(tall, dtype=np.int32)
    of_m, across = np.empty((wide, HEAD), np.float32), np.empty((HEAD, wide), np.float32)
    of_n, scores = np.empty((tall, HEAD), np.float32), np.empty((tall, wide), np.float32)
    most, total = np.empty(wide, np.float32), np.empty(wide, np.float32)
    for unit in range(start, stop):
        b, h = unit // heads, unit % heads
        load(q, b, qi, h, factor, of_m)
        load(kv, b, ki, h, ONE, of_n)
        dots(of_n, of_m, rows, across, scores)
        most[:] = scores[0]
        for n in range(1, keys):
            s = scores[n]
            for m in range(wide):
                most[m] = most[m] if most[m] > s[m] else s[m]
        total[:] = ZERO
        for n in range(keys):
            s = scores[n]
            for m in range(wide):
                s[m] = exp2(s[m] - most[m])
                total[m] += s[m]
        load(kv, b, vi, h, ONE, of_n)
        mix_keys(scores, of_n, keys, of_m)
        norm = norms[b, h]
        for m in range(len(norm)):
            norm[m] = most[m] + np.log2(total[m])
            x, y, share = of_m[m], out[b, m, 0, h], reciprocal(total[m])
            for c in range(HEAD):
                y[c] = x[c] * share


@kernel
def attend_back(q, qi, kv, ki, vi, factor, out, norms, grad, of_q, of_kv, start, stop):
    """Gradients of `attend`, given that of out: of_q[b, m, qi, h], of_kv[b, n, ki, h] and of_kv[b, n, vi, h]."""
    heads, many, keys = q.shape[3], q.shape[1], kv.shape[1]
    wide, tall = (many + LANES - 1) // LANES * LANES, (keys + ROWS - 1) // ROWS * ROWS
    rows = np.arange(tall, dtype=np.int32)
    queries, grads = np.empty((wide, HEAD), np.float32), np.empty((wide, HEAD), np.float32)
    across, of_m = np.empty((HEAD, wide), np.float32), np.empty((wide, HEAD), np.float32)
    key_rows, of_n = np.empty((tall, HEAD), np.float32), np.empty((tall, HEAD), np.float32)
    shares, slopes = np.empty((tall, wide), np.float32), np.empty((tall, wide), np.float32)
    inner, norm = np.zeros(wide, np.float32), np.zeros(wide, np.float32)
    for unit in range(start, stop):
        b, h = unit // heads, unit % heads
        load(q, b, qi, h, factor, queries)
        load(grad, b, 0, h, ONE, grads)
        load(kv, b, ki, h, ONE, key_rows)
        load(kv, b, vi, h, ONE, of_n)
        dots(key_rows, queries, rows, across, shares)
        dots(of_n, grads, rows, across, slopes)
        norm[:many] = norms[b, h]
        for m in range(many):
            x, y, value = grads[m], out[b, m, 0, h], ZERO
            for c in range(HEAD):
                value += x[c] * y[c]
            inner[m] = value
        for n in range(keys):
            p, s = shares[n], slopes[n]
            for m in range(wide):
                p[m] = exp2(p[m] - norm[m])
                s[m] = p[m] * (s[m] - inner[m])
        mix_keys(slopes, key_rows, keys, of_m)
        store(of_m, factor * LN2, of_q, b, qi, h)
        mix_queries(slopes, queries, rows, many, of_n)
        store(of_n, LN2, of_kv, b, ki, h)
        mix_queries(shares, grads, rows, many, of_n)
        store(of_n, ONE, of_kv, b, vi, h)
