"""CPU kernels of the mini-PointNet, backward. Layers are made anew, block by block; nothing of their size is stored.

A token's channel carries a gradient to the point that won it and to no other, so points that won none are left out of
the second half. What batch norm adds to all points is affine in the first layer, and is one product of its width.
"""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.panels import ROWS, add_outer, add_product, exchange, to_pairs
from contrast3d.ops.kernels.patch_embed import PIECES, first_layer, rectify
from contrast3d.ops.kernels.threads import kernel

BLOCK_ROWS = 192  # winning points of a block


@kernel
def rectify_back(grad, values, count):
    """grad = 0 where values are not above zero, in the first `count` rows."""
    for d in range(values.shape[0]):
        for q in range(count):
            to, row = grad[d, q], values[d, q]
            for j in range(values.shape[2]):
                to[j] = to[j] if row[j] > 0 else 0


@kernel
def add_affine(points, at, grad, count, sums):
    """sums[:3, d] += sum over q < count of points[at + q] grad[d, q]^T, and sums[3, d] += that of grad[d, q]."""
    for d in range(grad.shape[0]):
        first, second, third, alone = sums[0, d], sums[1, d], sums[2, d], sums[3, d]
        for q in range(count):
            x, y, z = points[at + q, 0], points[at + q, 1], points[at + q, 2]
            row = grad[d, q]
            for j in range(grad.shape[2]):
                first[j] += row[j] * x
                second[j] += row[j] * y
                third[j] += row[j] * z
                alone[j] += row[j]


def _token_kernel(low: bool):
    @kernel
    def tokens_backward(points, size, affine, chosen, offsets, middle, middle_back, last_weight, grad, arg, patch_grad,
                        point_grad, middle_sums, last_sums, start, stop):
        """Back through `tokens` to y, the rows before its relu, as far as batch norm's mean terms are left out.

        last_weight (H / w, C, w); middle_back: middle transposed, in tiles. grad, arg (V, C). patch_grad (V, H): sums
        of dL/dy over a patch; point_grad (V K, D w): dL/dy . middle; middle_sums (PIECES, H / w, D, w, w): dL/dy^T h in
        tiles; last_sums (PIECES, H / w, C, w): of last_weight. All are zero before.
        """
        patches, panels, width = len(chosen), affine.shape[1], affine.shape[2]
        many = max(1, BLOCK_ROWS // size)
        room = (many * size + ROWS - 1) // ROWS * ROWS
        rows = np.arange(room).astype(np.int32)
        h, pairs = np.zeros((panels, room, width), points.dtype), np.zeros((panels, room, width // 2), np.int32)
        y = np.zeros((offsets.shape[1] // width, room, width), points.dtype)
        back, y_pairs = np.zeros_like(y), np.zeros((y.shape[0], room, width // 2), np.int32)
        h_back = np.empty_like(h)
        winners, owner = np.empty((room, 3), points.dtype), np.empty(room, np.int64)
        slot_of, slots = np.empty(size, np.int32), np.empty((many, grad.shape[1]), np.int32)
        for piece in range(start, stop):
            last = patches * (piece + 1) // PIECES
            for v in range(patches * piece // PIECES, last, many):
                block = min(many, last - v)
                count = 0
                for i in range(block):
                    slot_of[:] = -1
                    for c in range(grad.shape[1]):
                        k = arg[v + i, c]
                        if slot_of[k] < 0:
                            slot_of[k] = count
                            winners[count] = points[chosen[v + i] * size + k]
                            owner[count] = (v + i) * size + k
                            for d in range(y.shape[0]):
                                y[d, count] = offsets[v + i, d * width : (d + 1) * width]
                            count += 1
                        slots[i, c] = slot_of[k]
                first_layer(winners, 0, affine, h, 0, count)
                if low:
                    to_pairs(h, pairs, count)
                    add_product(pairs, middle, y, rows, count)
                else:
                    add_product(h, middle, y, rows, count)
                rectify(y, count)
                back[:] = 0
                for i in range(block):
                    exchange(slots[i], grad[v + i], last_weight, y, back, last_sums[piece])
                rectify_back(back, y, count)
                for d in range(y.shape[0]):
                    for q in range(count):
                        patch_grad[owner[q] // size, d * width : (d + 1) * width] += back[d, q]
                add_outer(back, h, count, middle_sums[piece])
                h_back[:] = 0
                if low:
                    to_pairs(back, y_pairs, count)
                    add_product(y_pairs, middle_back, h_back, rows, count)
                else:
                    add_product(back, middle_back, h_back, rows, count)
                for d in range(panels):
                    for q in range(count):
                        point_grad[owner[q], d * width : (d + 1) * width] = h_back[d, q]

    return tokens_backward


def _gather_kernel(low: bool):
    @kernel
    def gather_backward(points, size, affine, offsets, middle, rank, point_grad, weight, grad, arg, weight_sums,
                        affine_sums, points_grad, start, stop):
        """Back through the maxima and the first layer h; dL/dh = offsets[patch] + middle . h + point_grad besides.

        offsets (P, D w); middle (D w, D w) in tiles; rank (P,): the patch's row of point_grad (V K, D w) over K, -1
        where it has none. weight (D, F, w); grad, arg (P, F). weight_sums (PIECES, D, F, w): of weight; affine_sums
        (PIECES, 4, D, w): sums of e x, e y, e z and e, with e = dL/d(before relu). points_grad (P K, 3) or no rows:
        e . affine[:3].
        """
        patches, panels, width = len(offsets), affine.shape[1], affine.shape[2]
        many = max(1, BLOCK_ROWS // size)
        room = (many * size + ROWS - 1) // ROWS * ROWS
        rows = np.arange(room).astype(np.int32)
        h, pairs = np.zeros((panels, room, width), points.dtype), np.zeros((panels, room, width // 2), np.int32)
        back = np.zeros_like(h)
        slots = np.empty(grad.shape[1], np.int32)
        for piece in range(start, stop):
            last, sums = patches * (piece + 1) // PIECES, affine_sums[piece]
            for p in range(patches * piece // PIECES, last, many):
                block = min(many, last - p)
                count = block * size
                first_layer(points, p * size, affine, h, 0, count)
                for d in range(panels):
                    for q in range(count):
                        i = p + q // size
                        back[d, q] = offsets[i, d * width : (d + 1) * width]
                        if rank[i] >= 0:
                            back[d, q] += point_grad[rank[i] * size + q % size, d * width : (d + 1) * width]
                if low:
                    to_pairs(h, pairs, count)
                    add_product(pairs, middle, back, rows, count)
                else:
                    add_product(h, middle, back, rows, count)
                for i in range(block):
                    for c in range(len(slots)):
                        slots[c] = arg[p + i, c] + i * size
                    exchange(slots, grad[p + i], weight, h, back, weight_sums[piece])
                rectify_back(back, h, count)
                add_affine(points, p * size, back, count, sums)
                if len(points_grad):
                    for q in range(count):
                        for axis in range(3):
                            total = points[0, 0] * 0
                            for d in range(panels):
                                for j in range(width):
                                    total += back[d, q, j] * affine[axis, d, j]
                            points_grad[p * size + q, axis] = total

    return gather_backward


TOKENS_BACKWARD = {low: _token_kernel(low) for low in (False, True)}
GATHER_BACKWARD = {low: _gather_kernel(low) for low in (False, True)}
