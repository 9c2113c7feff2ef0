"""CPU kernels of sparse convolution: products over the pairs of a kernel map, and their gradients.

A map is the pairs (in_rows[q], out_rows[q]) of its K offsets, one offset after the other; within an offset both rise.
Work goes by blocks of rows, so that what is read, multiplied and added to stays in cache. Each number of a result is
summed by one thread in one order: results do not depend on blocks or threads.
"""

from __future__ import annotations

import numpy as np

from contrast3d.ops.kernels.register_tile import PANELS, SUMS, gather_product, outer_product
from contrast3d.ops.kernels.threads import kernel

BLOCK_ROWS = 512  # with 96 channels a fifth of a megabyte
BLOCK_PAIRS = 128  # copied side by side at a time


@kernel
def block_bounds(rows, starts, block, bounds, start, stop):
    """bounds[i, b] = the first pair of offset i whose row is in block b or beyond; rows rise within an offset."""
    blocks = bounds.shape[1] - 1
    for i in range(start, stop):
        q, end = starts[i], starts[i + 1]
        for b in range(blocks):
            while q < end and rows[q] < b * block:
                q += 1
            bounds[i, b] = q
        bounds[i, blocks] = end


def _product_kernel(rows: int, vectors: int):
    """`products` in tiles of so many rows and vectors."""

    @kernel
    def products(features, in_rows, weight, out, out_rows, bounds, width, start, stop):
        """out[u] += features[in] @ weight[i] for the pairs (in, u) of every offset i.

        width: numbers in a tile's vectors; it divides the width of out. A unit of work, start : stop, is one block of u
        and one panel of so many columns, so that small maps with wide features keep several threads busy too.
        """
        depth, columns = weight.shape[1], weight.shape[2]
        panels = columns // width
        for unit in range(start, stop):
            b, c = unit // panels, unit % panels * width
            for i in range(weight.shape[0]):
                w, q, high = i * depth * columns + c, bounds[i, b], bounds[i, b + 1]
                while q + rows <= high:
                    gather_product(features, in_rows, weight, w, out, out_rows, c, q, depth, rows, vectors)
                    q += rows
                while q < high:
                    gather_product(features, in_rows, weight, w, out, out_rows, c, q, depth, 1, vectors)
                    q += 1

    return products


def _gradient_kernel(rows: int, vectors: int):
    """`gradients` in tiles of so many rows and vectors."""

    # One function: numba knows a kernel with another one in its closure in no second process, and compiles it anew.
    @kernel
    def gradients(features, in_rows, grad, out_rows, out, offsets, bounds, width, start, stop):
        """out[i] += features[in]^T grad[u] for the pairs (in, u) of the offsets i = offsets[start : stop].

        width: numbers in a tile's vectors; it divides the width of grad.
        """
        depth, columns = features.shape[1], grad.shape[1]
        left = np.empty((BLOCK_PAIRS, depth), features.dtype)
        right = np.empty((BLOCK_PAIRS, columns), grad.dtype)
        for b in range(bounds.shape[1] - 1):
            for unit in range(start, stop):
                i = offsets[unit]
                for q in range(bounds[i, b], bounds[i, b + 1], BLOCK_PAIRS):
                    count = min(BLOCK_PAIRS, bounds[i, b + 1] - q)
                    for t in range(count):
                        to, source = left[t], features[in_rows[q + t]]
                        for k in range(depth):
                            to[k] = source[k]
                        to, source = right[t], grad[out_rows[q + t]]
                        for k in range(columns):
                            to[k] = source[k]
                    for c in range(0, columns, width):
                        k, at = 0, i * depth * columns + c
                        while k + rows <= depth:
                            outer_product(left, k, right, c, count, out, at, rows, vectors)
                            k += rows
                            at += rows * columns
                        while k < depth:
                            outer_product(left, k, right, c, count, out, at, 1, vectors)
                            k += 1
                            at += columns

    return gradients


PRODUCTS = {p: _product_kernel(SUMS // p, p) for p in PANELS}
GRADIENTS = {p: _gradient_kernel(SUMS // p, p) for p in PANELS}
