"""Rows of a batch by index."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.portable import may_look


def gather(values: Float[Tensor, "b n c"], index: Int[Tensor, " b *m"]) -> Float[Tensor, "b *m c"]:
    """out[b, i, j] = values[b, index[b, i, j]]; differentiable in the values.

    values: (B, N, C). index: (B, M) or (B, M, K), from 0 to N - 1. Returns (B, M, C) or (B, M, K, C).

    Raises DataError where the batch sizes differ, the indices are no whole numbers or (CPU; a CUDA device
    asserts) one is out of range.
    """
    b, n, c = values.shape
    if index.is_floating_point():
        raise DataError("index", f"{index.dtype} numbers", "whole ones", "index.long()")
    if index.shape[0] != b:
        raise DataError("index", f"a batch of {index.shape[0]}", f"{b} like the values")
    if may_look(index) and index.numel():
        low, high = (int(bound) for bound in index.aminmax())
        if low < 0 or high >= n:
            raise DataError("index", f"indices from {low} to {high}", f"0 to {n - 1}")
    first = torch.arange(b, device=index.device).view(b, *[1] * (index.ndim - 1)) * n
    rows = (index + first).reshape(-1)
    return values.reshape(b * n, c).index_select(0, rows).view(*index.shape, c)
