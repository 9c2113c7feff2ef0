"""Matrices cut into panels of columns, and their products in vector registers.

A matrix (rows, D w) lies as (D, rows, w), where w columns fill a few registers; a weight (D w, C w) as (D, C, w, w)
tiles that fit the first cache. So a product of a block of rows streams through caches of any size, copying nothing.
Of bfloat16 a panel is (rows, w / 2) numbers of 32 bits, each two columns that lie w / 2 apart.
"""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.register_tile import SUMS, gather_product, lanes, outer_product
from contrast3d.ops.kernels.threads import kernel

ROWS = 6  # of one tile: with VECTORS all registers for sums
VECTORS = SUMS // ROWS
OUTER_ROWS = 4  # divides every panel


def panel_width(itemsize: int) -> int:
    """Columns w of a panel of numbers of so many bytes."""
    return VECTORS * lanes(itemsize)


@kernel
def add_product(features, weight, out, rows, count):
    """out[c, q] += sum over d of features[d, q] @ weight[d, c], for q < count rounded up to whole tiles.

    rows: 0, 1, 2 ... for all rows. int32 features and weight hold pairs of bfloat16.
    """
    depth, width = features.shape[2], out.shape[2]
    for c in range(out.shape[0]):
        for d in range(features.shape[0]):
            w = (d * out.shape[0] + c) * depth * width
            for q in range(0, count, ROWS):
                gather_product(features[d], rows, weight, w, out[c], rows, 0, q, depth, ROWS, VECTORS)


@kernel
def add_outer(left, right, count, out):
    """out (C, D, w, w) += left^T right over the rows q < count, in tiles: left in C panels, right in D."""
    width = right.shape[2]
    if count:
        for c in range(left.shape[0]):
            for d in range(right.shape[0]):
                for r in range(0, width, OUTER_ROWS):
                    at = ((c * right.shape[0] + d) * width + r) * width
                    outer_product(left[c], r, right[d], 0, count, out, at, OUTER_ROWS, VECTORS)


@kernel
def to_pairs(values, pairs, count):
    """Panels of float32 rounded to bfloat16, ties to even, in pairs of columns w / 2 apart."""
    half = pairs.shape[2]
    for d in range(values.shape[0]):
        for q in range(count):
            bits, to = values[d, q].view(np.uint32), pairs[d, q].view(np.uint32)
            for j in range(half):
                low, high = bits[j], bits[j + half]
                low = (low + np.uint32(0x7FFF) + ((low >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
                high = (high + np.uint32(0x7FFF) + ((high >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
                to[j] = low | high
