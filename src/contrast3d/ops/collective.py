"""Sums and concatenations over the processes of a DistributedDataParallel run, with their gradients.

Without an initialised process group every function is the identity of a world of one.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def world_sum_(values: Tensor) -> Tensor:
    """Sum over ranks, in place, without gradient."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


class _WorldSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return world_sum_(values.clone())

    @staticmethod
    def backward(ctx, grad):
        return world_sum_(grad.contiguous().clone())


def world_sum(values: Tensor) -> Tensor:
    """Sum over ranks; every rank receives the gradients of every rank's use of it."""
    return _WorldSum.apply(values) if world_size() > 1 else values


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows):
        ctx.count = len(rows)
        pieces = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(pieces, rows.contiguous())
        return torch.cat(pieces)

    @staticmethod
    def backward(ctx, grad):
        total = world_sum_(grad.contiguous().clone())
        return total[rank() * ctx.count : (rank() + 1) * ctx.count]


def gather_rows(rows: Tensor) -> Tensor:
    """(n, ...) on each of W ranks -> (W n, ...) on all, in rank order; n must be equal on every rank."""
    return _GatherRows.apply(rows) if world_size() > 1 else rows
