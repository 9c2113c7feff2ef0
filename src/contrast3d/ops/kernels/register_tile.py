"""Products of a few gathered rows with a panel of weights, held in vector registers: the core of sparse convolution.

A compiler that is given the plain loops keeps sums in memory, which costs more than the arithmetic. So the two inner
loops below are written as LLVM code, which numba compiles for the processor at hand: R x P vectors of sums stay in
registers, a row is read where it lies and needs no gathered copy, and each result is added once to the row it belongs
to. The arithmetic of one element is the same for every R, so it does not matter which rows share a tile.
"""

from __future__ import annotations

from functools import cache
from typing import no_type_check

from llvmlite import binding, ir
from numba.core import types
from numba.extending import intrinsic

INT64, INT32 = ir.IntType(64), ir.IntType(32)


@cache
def _features() -> dict[str, bool]:
    return dict(binding.get_host_cpu_features())


def _vector_bytes() -> int:
    return 64 if _features().get("avx512f") else 32 if _features().get("avx2") else 16


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 pairs into float32 sums (AVX512-BF16)."""
    return bool(_features().get("avx512bf16") and _features().get("avx512f"))


def lanes(itemsize: int) -> int:
    """Numbers in one vector register."""
    return _vector_bytes() // itemsize


def _registers() -> int:
    """Vector registers left for sums, beside those that hold weights and an input."""
    return 12 if _vector_bytes() == 32 else 24


# Panels are as wide as divides the width: more vectors per input that is spread over a register.
PANELS = (6, 4, 3, 2, 1) if _registers() == 24 else (3, 2, 1)
SUMS = _registers()


def panel(vectors: int) -> int:
    """Vectors in a panel of columns, of `vectors` that all columns have."""
    return next(p for p in PANELS if vectors % p == 0)


class _Emitter:
    """Addresses and loads for one intrinsic; arrays are C-contiguous and indexed flat."""

    def __init__(self, context, builder, arrays: dict[str, tuple]):
        self.context, self.builder = context, builder
        self.arrays, self.bases, self.sizes = {}, {}, {}
        for name, (array_type, value) in arrays.items():
            self.arrays[name] = context.make_array(array_type)(context, builder, value=value)
            self.bases[name] = builder.ptrtoint(self.arrays[name].data, INT64)
            self.sizes[name] = context.get_abi_sizeof(context.get_data_type(array_type.dtype))

    def width(self, name: str):
        """The second axis of a two-dimensional array."""
        return self.builder.extract_value(self.arrays[name].shape, 1)

    def address(self, name: str, index, plus: int = 0):
        b = self.builder
        offset = b.mul(index, ir.Constant(INT64, self.sizes[name]))
        return b.add(b.add(self.bases[name], offset), ir.Constant(INT64, plus))

    def load(self, address, kind, align: int):
        value = self.builder.load(self.builder.inttoptr(address, kind.as_pointer()))
        value.align = align
        return value

    def row(self, name: str, q, r: int):
        """rows[q + r] as int64."""
        address = self.address(name, self.builder.add(q, ir.Constant(INT64, r)))
        return self.builder.sext(self.load(address, INT32, 4), INT64)

    def spread(self, scalar, vector):
        b, none = self.builder, ir.Constant(vector, ir.Undefined)
        first = b.insert_element(none, scalar, ir.Constant(INT32, 0))
        zeros = ir.Constant(ir.VectorType(INT32, vector.count), [0] * vector.count)
        return b.shuffle_vector(first, none, zeros)

    def add_to(self, address, vector, value, align: int):
        """memory[address] += value."""
        new = self.builder.fadd(self.load(address, vector, align), value)
        self.builder.store(new, self.builder.inttoptr(address, vector.as_pointer())).align = align

    def multiply_add(self, x, w, acc, vector):
        """acc + x * w; of int32 vectors, acc + the two products of the bfloat16 pairs they hold."""
        b = self.builder
        if x.type == vector:
            kind = "f64" if isinstance(vector.element, ir.DoubleType) else "f32"
            fma = self.function(f"llvm.fma.v{vector.count}{kind}", ir.FunctionType(vector, [vector] * 3))
            return b.call(fma, [x, w, acc])
        pairs = ir.VectorType(_BFloat(), 2 * vector.count)
        dot = self.function("llvm.x86.avx512bf16.dpbf16ps.512", ir.FunctionType(vector, [vector, pairs, pairs]))
        return b.call(dot, [acc, b.bitcast(x, pairs), b.bitcast(w, pairs)])

    def function(self, name: str, kind):
        found = self.builder.module.globals.get(name)
        return found or ir.Function(self.builder.module, kind, name)

    def loop(self, count, start: list, body):
        """values = start; for k in range(count): values = body(k, values). -> values. count is at least 1."""
        b = self.builder
        before, inside = b.block, b.append_basic_block("tile")
        b.branch(inside)
        b.position_at_end(inside)
        k = b.phi(INT64)
        k.add_incoming(ir.Constant(INT64, 0), before)
        values = [b.phi(value.type) for value in start]
        for phi, value in zip(values, start):
            phi.add_incoming(value, before)
        new = body(k, values)
        more = b.add(k, ir.Constant(INT64, 1))
        k.add_incoming(more, b.block)
        for phi, value in zip(values, new):
            phi.add_incoming(value, b.block)
        after = b.append_basic_block("summed")
        b.cbranch(b.icmp_signed("<", more, count), inside, after)
        b.position_at_end(after)
        return new


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self):
        return hash("bfloat")


def _vector(context, array_type) -> ir.VectorType:
    dtype = context.get_data_type(array_type.dtype)
    return ir.VectorType(dtype, lanes(8 if isinstance(dtype, ir.DoubleType) else 4))


@intrinsic(prefer_literal=True)
@no_type_check  # numba pickles the function for its cache, which a type checker's wrapper does not survive
def gather_product(typing, features, in_rows, weight, w_start, out, out_rows, o_start, q, depth, R, P):
    """out[out_rows[q + r], o_start + c] += sum_k features[in_rows[q + r], k] * weight.flat[w_start + k * C + c].

    For r < R and the columns c of P vectors; k < depth, the width of features; C is the width of out. Of int32
    features and weight each element holds two bfloat16, and both products count.
    """
    rows, vectors = R.literal_value, P.literal_value
    number = types.intp
    signature = types.void(features, in_rows, weight, number, out, out_rows, number, number, number, R, P)

    def codegen(context, builder, _, args):
        f, i, w, w_from, o, o_rows, o_from, at, count, *_rest = args
        emit = _Emitter(context, builder, {
            "f": (features, f), "in": (in_rows, i), "w": (weight, w), "o": (out, o), "out": (out_rows, o_rows)})
        vector = _vector(context, out)
        operand = ir.VectorType(context.get_data_type(features.dtype), vector.count)
        size = emit.sizes["o"]
        step, width = vector.count * size, emit.width("o")
        starts = [builder.mul(emit.row("in", at, r), emit.width("f")) for r in range(rows)]

        def body(k, sums):
            place = emit.address("w", builder.add(w_from, builder.mul(k, width)))
            weights = [
                emit.load(builder.add(place, ir.Constant(INT64, p * step)), operand, size) for p in range(vectors)]
            new = []
            for r in range(rows):
                x = emit.load(emit.address("f", builder.add(starts[r], k)), operand.element, size)
                x = emit.spread(x, operand)
                new += [emit.multiply_add(x, weights[p], sums[r * vectors + p], vector) for p in range(vectors)]
            return new

        zero = ir.Constant(vector, [0.0] * vector.count)
        sums = emit.loop(count, [zero] * (rows * vectors), body)
        for r in range(rows):
            place = emit.address("o", builder.add(builder.mul(emit.row("out", at, r), width), o_from))
            for p in range(vectors):
                emit.add_to(builder.add(place, ir.Constant(INT64, p * step)), vector, sums[r * vectors + p], size)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
@no_type_check  # numba pickles the function for its cache, which a type checker's wrapper does not survive
def outer_product(typing, left, k_start, right, c_start, count, out, o_start, R, P):
    """out.flat[o_start + r * C + c] += sum_t left[t, k_start + r] * right[t, c_start + c].

    For r < R and the columns c of P vectors; t < count, at least 1; C is the width of right.
    """
    rows, vectors = R.literal_value, P.literal_value
    number = types.intp
    signature = types.void(left, number, right, number, number, out, number, R, P)

    def codegen(context, builder, _, args):
        x, k_from, y, c_from, many, o, o_from, *_rest = args
        emit = _Emitter(context, builder, {"x": (left, x), "y": (right, y), "o": (out, o)})
        vector = _vector(context, out)
        size = emit.sizes["o"]
        step, width = vector.count * size, emit.width("y")

        def body(t, sums):
            column = emit.address("x", builder.add(builder.mul(t, emit.width("x")), k_from))
            row = emit.address("y", builder.add(builder.mul(t, width), c_from))
            values = [emit.load(builder.add(row, ir.Constant(INT64, p * step)), vector, size) for p in range(vectors)]
            new = []
            for r in range(rows):
                x_r = emit.load(builder.add(column, ir.Constant(INT64, r * size)), vector.element, size)
                x_r = emit.spread(x_r, vector)
                new += [emit.multiply_add(x_r, values[p], sums[r * vectors + p], vector) for p in range(vectors)]
            return new

        zero = ir.Constant(vector, [0.0] * vector.count)
        sums = emit.loop(many, [zero] * (rows * vectors), body)
        for r in range(rows):
            place = emit.address("o", builder.add(o_from, builder.mul(ir.Constant(INT64, r), width)))
            for p in range(vectors):
                emit.add_to(builder.add(place, ir.Constant(INT64, p * step)), vector, sums[r * vectors + p], size)
        return context.get_dummy_value()

    return signature, codegen
