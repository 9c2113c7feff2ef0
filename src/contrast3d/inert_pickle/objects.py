"""What a pickle's names and calls become: known containers, arrays and tensors as themselves, all else a `Stub`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

MOST_DIMENSIONS = 32
_PLAIN_DTYPE = re.compile(r"[<>|=]?(b1?|[iu][1248]|f[248]|c8|c16|[SUV][1-9]\d{0,8}|O8?)")


class Malformed(Exception):
    """What a pickle says contradicts itself; the reader of the file makes a DataError of it."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names, "torch.FloatStorage" say: a word, never looked up."""

    dotted: str


@dataclass(eq=False)
class Stub:
    """An object of a class that is not known here: what it was made of, and nothing that could act.

    args: of its constructor. state: its attributes. items, values: what was put into it as a dict or a list.
    """

    name: str
    args: tuple = ()
    state: object = None
    items: dict = field(default_factory=dict)
    values: list = field(default_factory=list)

    def __repr__(self) -> str:  # short: contents may be as deep as the file likes
        return f"<stub of {self.name}>"

    @property
    def fields(self) -> dict:
        """Its items and its attributes in one dict; of an EasyDict, which keeps both, the items win."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        return {k: v for part in (*parts, self.items) if isinstance(part, dict) for k, v in part.items()}


@dataclass(eq=False)
class Storage:
    """The numbers behind tensors: raw bytes (n,) uint8, and the type that their elements have."""

    raw: torch.Tensor
    dtype: torch.dtype


@dataclass(eq=False)
class Pending:
    """An array or an array type between the call that makes it and the state that fills it.

    keys: where the pickle remembered it, so that what it becomes can take its place.
    """

    value: object
    fill: Callable[[object, object], object]
    keys: list[int] = field(default_factory=list)


def key_of(value):
    """`value`, if it may be a key of a dict or a member of a set: hashing deep tuples could take forever."""
    flat = value if isinstance(value, tuple) and len(value) <= MOST_DIMENSIONS else (value,)
    if all(isinstance(v, str | bytes | int | float | complex | Name | Stub | torch.dtype | None) for v in flat):
        return value
    raise Malformed(f"a key of type {type(value).__name__}")


def new_dict(pairs) -> dict:
    """Pairs of a key and a value -> dict."""
    if isinstance(pairs, dict):
        return dict(pairs)
    if not isinstance(pairs, list | tuple) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        raise Malformed("a dict that is not made of pairs")
    return {key_of(k): v for k, v in pairs}


def call(function, args, named=None):
    """What calling `function` with `args` stands for."""
    if not isinstance(function, Name | Stub) or not isinstance(args, tuple):
        raise Malformed(f"a call of {type(function).__name__} with {type(args).__name__}")
    if isinstance(function, Stub):
        return Stub(function.name, args)
    module, _, last = function.dotted.rpartition(".")
    known = None if named else _KNOWN.get(f"{_MODULES.get(module, module)}.{last}")
    if known is not None:
        try:
            return known(*args)
        except (TypeError, AttributeError, ValueError, LookupError, RuntimeError, OverflowError) as error:
            line = str(error).partition("\n")[0]
            raise Malformed(f"{function.dotted} of what it does not take ({line})") from None
    return Stub(function.dotted, args, items=dict(named or {}))


def _reconstructed(cls, base, state):
    """copyreg's way of making an object: `base(state)` holds what a subclass of dict or list contains."""
    items, values = (state if isinstance(state, kind) else kind() for kind in (dict, list))
    return Stub(cls.dotted, items=dict(items), values=list(values))


def _encoded(text, encoding="utf-8"):
    if encoding.lower().replace("-", "") not in ("latin1", "utf8", "ascii"):
        raise Malformed(f"text in the encoding {encoding[:40]}")
    return text.encode(encoding)


def _bytes(*args):
    """bytes() and bytes(text, encoding); a number would ask for that many zeros, which no pickle needs."""
    if not args:
        return b""
    return _encoded(*args) if isinstance(args[0], str) else bytes(list(args[0]))


# numpy

def _array_type(value) -> np.dtype | None:
    value = value.value if isinstance(value, Pending) else value
    return value if isinstance(value, np.dtype) else None


def _dtype(code, *_):
    if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
        return Stub("numpy.dtype", (code, *_))
    return Pending(np.dtype(code), _ordered)


def _ordered(dtype: np.dtype, state) -> np.dtype:
    """The byte order is the second entry of an array type's state."""
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    return dtype.newbyteorder(order) if order in ("<", ">") else dtype


def _empty_array(cls, *_):
    return Pending(cls, _filled)


def _filled(cls, state):
    """(version, shape, dtype, is_fortran, data) -> the array."""
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        return Stub(getattr(cls, "dotted", "numpy.ndarray"), state=state)
    shape, dtype, fortran, data = state[-4:]
    return _array(data, dtype, shape, "F" if fortran else "C")


def _array(data, dtype, shape, order="C"):
    known = _array_type(dtype)
    if known is None:
        return Stub("numpy.ndarray", (shape, dtype, order, data))
    if not _are_sizes(shape):
        raise Malformed("an array of a shape that is none")
    count = math.prod(shape)
    if known.hasobject:
        if not isinstance(data, list) or len(data) != count:
            raise Malformed(f"an array of {count} objects with other contents")
        array = np.empty(count, object)
        array[:] = data
        return array.reshape(shape, order=order)
    data = data.encode("latin1") if isinstance(data, str) else data  # as Python 2 wrote bytes
    if not isinstance(data, bytes | bytearray) or len(data) != count * known.itemsize:
        raise Malformed(f"an array of {count} x {known.itemsize} bytes with other contents")
    return np.frombuffer(data, known).reshape(shape, order=order)


def _scalar(dtype, data=b""):
    known = _array_type(dtype)
    if known is None or known.hasobject:
        return data if known is not None else Stub("numpy.scalar", (dtype, data))
    return _array(data, dtype, ()).item()


# torch

_TORCH = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128, "Untyped": torch.uint8,
}
_BY_NAME = {
    f"torch.{name}": getattr(torch, name) for name in (
        "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float32", "float64", "float16", "bfloat16",
        "int64", "int32", "int16", "int8", "uint8", "bool", "complex64", "complex128")
}


def storage_type(name) -> torch.dtype:
    """The type of the elements in a storage of the class `name`, torch.cuda.HalfStorage say."""
    last = name.dotted.rpartition(".")[2] if isinstance(name, Name) else ""
    if last.removesuffix("Storage") not in _TORCH:
        raise Malformed(f"a storage of type {last or type(name).__name__}")
    return _TORCH[last.removesuffix("Storage")]


def _are_sizes(sizes) -> bool:
    return (isinstance(sizes, tuple) and len(sizes) <= MOST_DIMENSIONS
            and all(isinstance(s, int) and 0 <= s < 2**62 for s in sizes))


def _tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None):
    """A strided view of a storage, if all of it lies inside."""
    return _view(storage, storage.dtype, offset, size, stride) if not metadata else Stub("torch.Tensor", (metadata,))


def _tensor_of_type(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None):
    if dtype.dotted not in _BY_NAME or metadata:
        return Stub("torch.Tensor", (dtype, metadata))
    return _view(storage, _BY_NAME[dtype.dotted], offset, size, stride)


def _view(storage, dtype, offset, size, stride):
    if not isinstance(storage, Storage) or not _are_sizes((offset,)) or not _are_sizes(size) or not _are_sizes(stride):
        raise Malformed("a tensor whose storage, shape or strides are none")
    itemsize = torch.empty(0, dtype=dtype).element_size()
    held, count = storage.raw.numel() // itemsize, math.prod(size)
    if len(size) != len(stride) or (count and offset + sum((n - 1) * s for n, s in zip(size, stride)) >= held):
        raise Malformed(f"a tensor of shape {size}, strides {stride} from {offset} on, beyond its {held} elements")
    if count > max(held, 1 << 20):  # strides of zero make much out of little
        raise Malformed(f"a tensor of {count} elements over a storage of {held}")
    raw = storage.raw[: held * itemsize].view(dtype)
    return torch.as_strided(raw, size, stride, offset) if count else torch.empty(size, dtype=dtype)


_MODULES = {
    "__builtin__": "builtins", "copy_reg": "copyreg", "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric", "torch.nn.parameter": "torch",
}
_KNOWN: dict[str, Callable] = {
    "collections.OrderedDict": lambda pairs=(): new_dict(pairs),
    "collections.defaultdict": lambda factory=None, pairs=(): new_dict(pairs),
    "collections.Counter": lambda counts=(): new_dict(counts),
    "builtins.dict": lambda pairs=(): new_dict(pairs),
    "builtins.list": lambda values=(): list(_listed(values)),
    "builtins.tuple": lambda values=(): tuple(_listed(values)),
    "builtins.set": lambda values=(): {key_of(v) for v in _listed(values)},
    "builtins.frozenset": lambda values=(): frozenset(key_of(v) for v in _listed(values)),
    "builtins.complex": lambda real=0.0, imaginary=0.0: complex(float(real), float(imaginary)),
    "builtins.bytes": _bytes,
    "builtins.bytearray": lambda *args: bytearray(_bytes(*args)),
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructed,
    "copyreg.__newobj__": lambda cls, *args: call(cls, args),
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _array,
    "torch.Size": lambda sizes=(): tuple(_listed(sizes)),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch.Parameter": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": lambda function, cls, args, state: call(function, args),
}


def _listed(values):
    if not isinstance(values, list | tuple | set | frozenset):
        raise Malformed(f"a container made of {type(values).__name__}")
    return values
