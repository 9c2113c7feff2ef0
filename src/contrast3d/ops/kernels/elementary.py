"""What loops over float32 need to become vector instructions: 2^x, 1 / x, and transposed tiles.

Numba's own exponential is a call per number, and its division looks for zeros: either keeps a loop from vectors.
"""

from __future__ import annotations

from typing import no_type_check

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

FLOAT, INT = ir.FloatType(), ir.IntType(32)
# 2^x on [0, 1]: least squares at Chebyshev nodes, highest power first; relative error 3e-9.
POWERS = (2.1877505e-4, 1.23878215e-3, 9.68458045e-3, 5.548042633e-2, 0.2402305021, 0.6931469287, 1.0)


def _call(builder, name: str, *values):
    kind = ir.FunctionType(FLOAT, [FLOAT] * len(values))
    return builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), values)


@intrinsic
@no_type_check  # numba pickles the function for its cache, which a type checker's wrapper does not survive
def exp2(typing, x):
    """2^x of a float32 up to 127, relative error 2e-7; below -126 it is 2^-126. NaN stays NaN."""

    def codegen(context, builder, signature, args):
        low = ir.Constant(FLOAT, -126.0)
        x = builder.select(builder.fcmp_ordered("<", args[0], low), low, args[0])
        whole = _call(builder, "llvm.floor.f32", x)
        part = builder.fsub(x, whole)
        value = ir.Constant(FLOAT, POWERS[0])
        for power in POWERS[1:]:
            value = _call(builder, "llvm.fma.f32", value, part, ir.Constant(FLOAT, power))
        bits = builder.shl(builder.add(builder.fptosi(whole, INT), INT(127)), INT(23))
        return builder.fmul(value, builder.bitcast(bits, FLOAT))

    return types.float32(types.float32), codegen


@intrinsic
@no_type_check
def reciprocal(typing, x):
    """1 / x of a float32; of zero it is infinite."""

    def codegen(context, builder, signature, args):
        return builder.fdiv(ir.Constant(FLOAT, 1.0), args[0])

    return types.float32(types.float32), codegen


@intrinsic(prefer_literal=True)
@no_type_check  # numba pickles the function for its cache, which a type checker's wrapper does not survive
def transpose_tile(typing, source, s_start, s_width, to, t_start, t_width, L):
    """to.flat[t_start + c * t_width + r] = source.flat[s_start + r * s_width + c] for r, c < L, a power of two.

    In registers: of rows i and i + s the blocks of s numbers are swapped crosswise, for s = L / 2 down to 1.
    """
    size = L.literal_value
    number = types.intp
    signature = types.void(source, number, number, to, number, number, L)

    def codegen(context, builder, _, args):
        x, x_from, x_width, y, y_from, y_width, *_rest = args
        vector = ir.VectorType(FLOAT, size)
        start = [context.make_array(kind)(context, builder, value=value).data
                 for kind, value in ((source, x), (to, y))]

        def place(i, at, width, r):
            offset = builder.add(at, builder.mul(width, ir.Constant(width.type, r)))
            return builder.bitcast(builder.gep(start[i], [offset]), vector.as_pointer())

        rows = [builder.load(place(0, x_from, x_width, r), align=4) for r in range(size)]
        step = size // 2
        while step:
            first = [lane if not lane & step else size + lane - step for lane in range(size)]
            second = [lane + step if not lane & step else size + lane for lane in range(size)]
            for i in (i for i in range(size) if not i & step):
                pair = rows[i], rows[i + step]
                rows[i], rows[i + step] = (
                    builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(INT, size), lanes))
                    for lanes in (first, second))
            step //= 2
        for c, row in enumerate(rows):
            builder.store(row, place(1, y_from, y_width, c), align=4)
        return context.get_dummy_value()

    return signature, codegen
