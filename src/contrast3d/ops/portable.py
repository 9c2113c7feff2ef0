"""Which path operations take: the kernels, or plain torch that other programs can run.

A kernel is invisible to `torch.export`. Inside `portable()` the operations of a network in evaluation mode are
written out in plain torch, on whatever device, without a look at the values: so they can be traced and exported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_portable: ContextVar[bool] = ContextVar("portable", default=False)


@contextmanager
def portable() -> Iterator[None]:
    """Plain torch inside. It stores all edges of a graph at once, so it costs memory that the kernels do not."""
    former = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(former)


def is_portable() -> bool:
    """Whether this code runs inside `portable()`."""
    return _portable.get()


def may_look(tensor: Tensor) -> bool:
    """Whether values can be checked: on the CPU, where no answer has to be waited for, and outside of `portable()`."""
    return tensor.device.type == "cpu" and not _portable.get()
