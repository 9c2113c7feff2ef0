"""Compare 64 array elements with a scalar at once; the answers are the bits of one integer.

Arrays are contiguous and hold WIDTH elements from `start` on; nothing checks that.

Numba has no vector type, and LLVM does not find this form in a loop, so intrinsics spell it out. They are
portable: LLVM turns them into the vector compares of every CPU that has them.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WIDTH = 64  # elements compared by one call


def padding(n: int) -> int:
    """How many elements a row of n needs behind it to be whole blocks of WIDTH."""
    return -n % WIDTH


def _comparison(predicate: str):
    @intrinsic
    def compare(typing_context, array, start, scalar):
        def codegen(context, builder, signature, arguments):
            array_type, start_type, _ = signature.args
            is_float = isinstance(array_type.dtype, types.Float)
            compare = builder.fcmp_ordered if is_float else builder.icmp_signed
            data = cgutils.create_struct_proxy(array_type)(context, builder, arguments[0]).data
            start = context.cast(builder, arguments[1], start_type, types.intp)
            element = context.get_data_type(array_type.dtype)
            vector = ir.VectorType(element, WIDTH)
            pointer = builder.bitcast(builder.gep(data, [start]), vector.as_pointer())
            values = builder.load(pointer, align=array_type.dtype.bitwidth // 8)
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), None)
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), arguments[2], ir.IntType(32)(0))
            spread = builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), lanes)
            return builder.bitcast(compare(predicate, values, spread), ir.IntType(WIDTH))

        return types.uint64(array, start, array.dtype), codegen

    return compare


at_most = _comparison("<=")  # at_most(array, start, x): bit l is array[start + l] <= x
below = _comparison("<")  # below(array, start, x): bit l is array[start + l] < x


@intrinsic
def count_bits(typing_context, bits):
    """How many bits of a uint64 are set."""

    def codegen(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.intp(types.uint64), codegen


@intrinsic
def lowest_bit(typing_context, bits):
    """The position of the lowest set bit of a uint64 that is not zero."""

    def codegen(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.intp(types.uint64), codegen
