"""Which Triton kernels serve a tensor: those of CUDA devices, where Triton is there and can compile."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from contrast3d.ops.portable import is_portable


def fused(name: str, tensor: Tensor) -> ModuleType | None:
    """The module `kernels/NAME_triton.py` on CUDA, outside of `portable()`; None where plain torch has to do."""
    return _module(name, tensor.device) if tensor.device.type == "cuda" and not is_portable() else None


@lru_cache
def _module(name: str, device: torch.device) -> ModuleType | None:
    """torch brings Triton along on Linux; it wants a C compiler, which not every machine has.

    What the module will need is compiled and run before it is trusted: not every GPU has room for its blocks.
    """
    try:
        module = importlib.import_module(f"contrast3d.ops.kernels.{name}_triton")
    except ImportError:
        return None
    try:
        module.try_out(device)
    except torch.OutOfMemoryError:
        raise  # says nothing about the kernels, and is not remembered
    except Exception as error:  # of many kinds, and none of them keeps torch from doing the work
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"no Triton kernels for {name} ({reason}); plain torch does it, more slowly", stacklevel=3)
        return None
    return module


def triton_kernel(function: Callable, do_not_specialize: tuple[str, ...] = ()) -> Callable:
    """triton.jit of the function itself, which a type checker's import hook may have wrapped.

    do_not_specialize: numbers that change often, for which nothing shall be compiled anew.
    """
    import triton

    return triton.jit(inspect.unwrap(function), do_not_specialize=do_not_specialize)
