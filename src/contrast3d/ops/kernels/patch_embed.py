"""CPU kernels of the mini-PointNet, forward: the maxima of its first half with their moments, and its tokens.

The P patches of K points each are cut into PIECES parts, whatever the number of threads; a part goes by blocks of
patches whose layers stay in cache. Layers lie in panels of columns (`panels`).
"""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.panels import ROWS, add_outer, add_product, to_pairs
from contrast3d.ops.kernels.threads import kernel

PIECES = 8
BLOCK_ROWS = 96  # points of a block: whole tiles of rows, and layers of width 512 of a fifth of a megabyte
FLUSH = 8  # blocks whose moments are summed in the precision of the points, before they are added in float64


@kernel
def first_layer(points, at, affine, out, to, count):
    """out[d, to + q] = relu(affine[3, d] + points[at + q] . affine[:3, d]) for q < count."""
    width = out.shape[2]
    for d in range(out.shape[0]):
        a, b, c, shift = affine[0, d], affine[1, d], affine[2, d], affine[3, d]
        for q in range(count):
            x, y, z = points[at + q, 0], points[at + q, 1], points[at + q, 2]
            row = out[d, to + q]
            for j in range(width):
                value = shift[j] + x * a[j] + y * b[j] + z * c[j]
                row[j] = 0 if value < 0 else value  # NaN stays


@kernel
def maxima(values, at, size, best, arg):
    """best[d w + j], arg = the largest of values[d, at : at + size, j], and which it is; the first of equals."""
    width = values.shape[2]
    for d in range(values.shape[0]):
        top, where = best[d * width : (d + 1) * width], arg[d * width : (d + 1) * width]
        top[:], where[:] = values[d, at], 0
        for k in range(1, size):
            row, k32 = values[d, at + k], np.int32(k)
            for j in range(width):
                better = row[j] > top[j]
                top[j] = row[j] if better else top[j]
                where[j] = k32 if better else where[j]


def _gather_kernel(low: bool):
    @kernel
    def gather_patches(points, size, affine, center, weight, best, arg, sums, moments, start, stop):
        """For each patch the maxima over its points of weight . h, h the first layer, and sums of h - center.

        points (P K, 3); affine (4, D, w); weight in tiles; best, arg (P, F). sums (P, D w) and the second moments about
        `center`, moments (PIECES, D, D, w, w) float64; both are left out where sums has no rows.
        """
        patches, panels, width = best.shape[0], affine.shape[1], affine.shape[2]
        many = max(1, BLOCK_ROWS // size)
        room = (many * size + ROWS - 1) // ROWS * ROWS
        rows = np.arange(room).astype(np.int32)
        h, pairs = np.zeros((panels, room, width), points.dtype), np.zeros((panels, room, width // 2), np.int32)
        f = np.empty((best.shape[1] // width, room, width), points.dtype)
        tiles = np.zeros(moments.shape[1:], points.dtype)
        for piece in range(start, stop):
            blocks, last = 0, patches * (piece + 1) // PIECES
            for p in range(patches * piece // PIECES, last, many):
                count = min(many, last - p)
                first_layer(points, p * size, affine, h, 0, count * size)
                f[:] = 0
                if low:
                    to_pairs(h, pairs, count * size)
                    add_product(pairs, weight, f, rows, count * size)
                else:
                    add_product(h, weight, f, rows, count * size)
                for i in range(count):
                    maxima(f, i * size, size, best[p + i], arg[p + i])
                if len(sums) == 0:
                    continue
                for d in range(panels):
                    for q in range(count * size):
                        total = sums[p + q // size, d * width : (d + 1) * width]
                        for j in range(width):
                            h[d, q, j] -= center[d, j]
                            total[j] += h[d, q, j]
                add_outer(h, h, count * size, tiles)
                blocks += 1
                if blocks % FLUSH == 0 or p + many >= last:
                    moments[piece] += tiles
                    tiles[:] = 0

    return gather_patches


def _token_kernel(low: bool):
    @kernel
    def tokens(points, size, affine, chosen, offsets, middle, last_weight, best, arg, start, stop):
        """best[v] = max over the points of patch chosen[v] of last_weight . relu(offsets[v] + middle . h).

        h is the first layer. offsets (V, H); middle, last_weight in tiles; best, arg (V, C).
        """
        patches, panels, width = len(chosen), affine.shape[1], affine.shape[2]
        many = max(1, BLOCK_ROWS // size)
        room = (many * size + ROWS - 1) // ROWS * ROWS
        rows = np.arange(room).astype(np.int32)
        h, pairs = np.zeros((panels, room, width), points.dtype), np.zeros((panels, room, width // 2), np.int32)
        y = np.zeros((offsets.shape[1] // width, room, width), points.dtype)
        y_pairs = np.zeros((y.shape[0], room, width // 2), np.int32)
        out = np.empty((best.shape[1] // width, room, width), points.dtype)
        for piece in range(start, stop):
            last = patches * (piece + 1) // PIECES
            for v in range(patches * piece // PIECES, last, many):
                count = min(many, last - v)
                for i in range(count):
                    first_layer(points, chosen[v + i] * size, affine, h, i * size, size)
                    for d in range(y.shape[0]):
                        y[d, i * size : (i + 1) * size] = offsets[v + i, d * width : (d + 1) * width]
                if low:
                    to_pairs(h, pairs, count * size)
                    add_product(pairs, middle, y, rows, count * size)
                else:
                    add_product(h, middle, y, rows, count * size)
                rectify(y, count * size)
                out[:] = 0
                if low:
                    to_pairs(y, y_pairs, count * size)
                    add_product(y_pairs, last_weight, out, rows, count * size)
                else:
                    add_product(y, last_weight, out, rows, count * size)
                for i in range(count):
                    maxima(out, i * size, size, best[v + i], arg[v + i])

    return tokens


@kernel
def rectify(values, count):
    """relu of the first `count` rows, in place."""
    for d in range(values.shape[0]):
        for q in range(count):
            row = values[d, q]
            for j in range(values.shape[2]):
                row[j] = 0 if row[j] < 0 else row[j]


GATHER = {low: _gather_kernel(low) for low in (False, True)}
TOKENS = {low: _token_kernel(low) for low in (False, True)}
