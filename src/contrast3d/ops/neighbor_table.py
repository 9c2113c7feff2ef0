"""Kernel maps of devices other than the CPU, and convolution by them.

A table says for each row of the result which row meets it under each offset. Unlike pairs, it is found, and used,
without a look at how many there are, for which the processor would have to wait. On CUDA one Triton kernel gathers and
multiplies (`kernels/sparse_conv_triton.py`); elsewhere neighbours are gathered side by side, and one product makes all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from contrast3d.ops.kernels.fused import fused

BLOCK = 1 << 26  # gathered numbers held at a time by plain torch
SEARCHED = 1 << 24  # keys looked for at a time


@dataclass(frozen=True)
class NeighborTable:
    """rows: (K, num_out) int32, the row in that meets each row out under each offset, -1 where none does."""

    rows: Int[Tensor, "k u"]
    num_in: int

    def __len__(self) -> int:
        """The number of offsets."""
        return len(self.rows)

    @property
    def num_out(self) -> int:
        return self.rows.shape[1]

    @cached_property
    def transposed(self) -> NeighborTable:
        """The table of the transposed convolution: in and out exchanged, each pair under the same weight."""
        back = self.rows.new_full((len(self), self.num_in + 1), -1)  # what met none goes to a last column
        places = torch.where(self.rows < 0, self.num_in, self.rows).long()
        own = torch.arange(self.num_out, dtype=back.dtype, device=back.device)
        back.scatter_(1, places, own.expand(len(self), -1))
        return NeighborTable(back[:, :-1].contiguous(), self.num_out)

    @cached_property
    def _found(self) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        hit = self.rows >= 0
        return self.rows[hit], hit.nonzero()[:, 1].to(torch.int32), (0, *hit.sum(1).cumsum(0).tolist())

    @property
    def in_rows(self) -> Int[Tensor, "p"]:
        """As in KernelMap; found when first asked for."""
        return self._found[0]

    @property
    def out_rows(self) -> Int[Tensor, "p"]:
        """As in KernelMap; found when first asked for."""
        return self._found[1]

    @property
    def starts(self) -> tuple[int, ...]:
        """As in KernelMap; found when first asked for."""
        return self._found[2]


def search(
    in_keys: Int[Tensor, "m"], out_keys: Int[Tensor, "u"], shifts: Int[Tensor, "k"]
) -> NeighborTable:
    """Where each key out, moved by each shift, lies among the sorted keys in."""
    found = []
    for some in shifts.split(max(1, SEARCHED // len(out_keys))):
        wanted = out_keys + some[:, None]
        places = torch.searchsorted(in_keys, wanted).clamp_(max=len(in_keys) - 1)
        found.append(torch.where(in_keys[places] == wanted, places, -1).to(torch.int32))
    return NeighborTable(torch.cat(found), len(in_keys))


def products(
    features: Float[Tensor, "m c"], weight: Float[Tensor, "k c d"], table: NeighborTable, low: bool
) -> Float[Tensor, "u d"]:
    """out[u] = sum over k of features[rows[k, u]] @ weight[k]; low: products of bfloat16, sums of float32."""
    dtype = features.dtype
    if low:
        features, weight = features.bfloat16(), weight.bfloat16()
    if kernels := _fused(features, table, weight.shape[2]):
        return kernels.products(features, weight, table.rows)
    flat = weight.flatten(0, 1)
    return torch.cat([rows @ flat for rows in _side_by_side(features, table)]).to(dtype)


def weight_gradient(
    features: Float[Tensor, "m c"], grad: Float[Tensor, "u d"], table: NeighborTable, low: bool
) -> Float[Tensor, "k c d"]:
    """For each k the sum over u of features[rows[k, u]]^T grad[u], blocks in order; low as for `products`."""
    dtype = features.dtype
    if low:
        features, grad = features.bfloat16(), grad.bfloat16()
    if kernels := _fused(features, table, grad.shape[1]):
        return kernels.weight_gradient(features, grad, table.rows)
    out = features.new_zeros(len(table) * features.shape[1], grad.shape[1], dtype=dtype)
    start = 0
    for rows in _side_by_side(features, table):
        out += (rows.T @ grad[start : start + len(rows)]).to(dtype)
        start += len(rows)
    return out.view(len(table), features.shape[1], grad.shape[1])


def _side_by_side(features: Tensor, table: NeighborTable) -> Iterator[Float[Tensor, "_ kc"]]:
    """For blocks of rows out, the features (rows, K C) of all of their neighbours, zeros for those that are not."""
    features = pad(features, (0, 0, 0, 1))  # -1 is the last row, of zeros
    for rows in table.rows.split(max(1, BLOCK // max(1, len(table) * features.shape[1])), 1):
        yield features[rows.T.long()].flatten(1)


def _fused(features: Tensor, table: NeighborTable, width: int) -> ModuleType | None:
    """The CUDA kernels where they serve: float32 or bfloat16, and few enough numbers."""
    if features.dtype not in (torch.float32, torch.bfloat16):
        return None
    largest = max(features.numel(), table.rows.numel(), table.num_out * width)
    return fused("sparse_conv", features) if largest < 2**31 else None  # they count places in 32 bits
