"""Matrices cut into panels of columns, and their products in vector registers.

A matrix (rows, D w) lies as (D, rows, w), where w columns fill a few registers; a weight (D w, C w) as (D, C, w, w)
tiles that fit the first cache. So a product of a block of rows streams through caches of any size, copying nothing.
Of bfloat16 a panel is (rows, w / 2) numbers of 32 bits, each two columns that lie w / 2 apart.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from contrast3d.ops.kernels.register_tile import (
    INT64,
    SUMS,
    _Emitter,
    _vector,
    gather_product,
    lanes,
    outer_product,
)
from contrast3d.ops.kernels.threads import kernel

ROWS = 6  # of one tile: with VECTORS all registers for sums
VECTORS = SUMS // ROWS
OUTER_ROWS = 4  # divides every panel


def panel_width(itemsize: int) -> int:
    """Columns w of a panel of numbers of so many bytes."""
    return VECTORS * lanes(itemsize)


HALF = panel_width(4) // 2


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


@intrinsic(prefer_literal=True)
@no_type_check  # numba pickles the function for its cache, which a type checker's wrapper does not survive
def exchange_tile(typing, factor, weight, w_start, values, v_start, grad, weight_grad, P):
    """grad.flat[v_start + j] += factor weight.flat[w_start + j] and weight_grad.flat[w_start + j] += factor
    values.flat[v_start + j], for the j of P vectors. As numba compiles the loop, each turn asks which arrays overlap.
    """
    vectors, number = P.literal_value, types.intp
    signature = types.void(factor, weight, number, values, number, grad, weight_grad, P)

    def codegen(context, builder, _, args):
        x, w, w_from, v, v_from, g, w_grad, _ = args
        arrays = {"w": (weight, w), "v": (values, v), "g": (grad, g), "w_grad": (weight_grad, w_grad)}
        emit, vector = _Emitter(context, builder, arrays), _vector(context, weight)
        size = emit.sizes["w"]
        x = emit.spread(x, vector)
        for to, at, source, start in (("g", v_from, "w", w_from), ("w_grad", w_from, "v", v_from)):
            into, out_of = emit.address(to, at), emit.address(source, start)
            for p in range(vectors):
                step = ir.Constant(INT64, p * vector.count * size)
                place = builder.add(into, step)
                y = emit.load(builder.add(out_of, step), vector, size)
                total = emit.multiply_add(x, y, emit.load(place, vector, size), vector)
                builder.store(total, builder.inttoptr(place, vector.as_pointer())).align = size
        return context.get_dummy_value()

    return signature, codegen


@kernel
def exchange(slots, factors, weight, values, grad, weight_grad):
    """grad[d, slots[c]] += factors[c] weight[d, c] and weight_grad[d, c] += factors[c] values[d, slots[c]]."""
    room, many, width = values.shape[1], weight.shape[1], weight.shape[2]
    for d in range(values.shape[0]):
        for c in range(many):
            at, slot = (d * many + c) * width, (d * room + slots[c]) * width
            exchange_tile(factors[c], weight, at, values, slot, grad, weight_grad, VECTORS)


@kernel
def to_pairs(values, pairs, count):
    """Panels of float32 rounded to bfloat16, ties to even, in pairs of columns w / 2 apart."""
    bits, words = values.view(np.uint32), pairs.view(np.uint32)
    for d in range(values.shape[0]):
        for q in range(count):
            for j in range(HALF):
                low, high = bits[d, q, j], bits[d, q, j + HALF]
                low = np.uint32(low + np.uint32(0x7FFF) + ((low >> np.uint32(16)) & np.uint32(1)))  # numba widens sums
                high = np.uint32(high + np.uint32(0x7FFF) + ((high >> np.uint32(16)) & np.uint32(1)))
                words[d, q, j] = (low >> np.uint32(16)) | (high & np.uint32(0xFFFF0000))
