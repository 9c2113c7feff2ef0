"""Attention between small sets of tokens, softmax(q k^T / sqrt(D)) v, forward and backward in one pass each.

It reads the outputs of layers where they lie, and writes gradients likewise: no heads are transposed or gradients
stacked. bfloat16 is widened and the result rounded: several times as fast as torch with small bfloat16 matrices.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from contrast3d.ops.kernels import attention as kernels
from contrast3d.ops.kernels.threads import run
from contrast3d.ops.packing import has_kernels

LARGEST = 512  # keys; beyond, scores outgrow the cache


def self_attention(qkv: Float[Tensor, "b n 3 h d"]) -> Float[Tensor, "b n h*d"]:
    """Tokens attend to each other; qkv: queries, keys and values of all heads, as one layer makes them."""
    if not _is_served(qkv, qkv):
        return _plain(*qkv.unbind(2))
    wide = qkv.float()
    return _Attention.apply(wide, wide, (0, 1, 2)).flatten(2).to(qkv.dtype)


def cross_attention(q: Float[Tensor, "b m h d"], kv: Float[Tensor, "b n 2 h d"]) -> Float[Tensor, "b m h*d"]:
    """Queries attend to tokens; kv: keys and values of all heads, as one layer makes them."""
    if not _is_served(q, kv):
        return _plain(q, *kv.unbind(2))
    return _Attention.apply(q.float().unsqueeze(2), kv.float(), (0, 0, 1)).flatten(2).to(q.dtype)


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2).flatten(2)


def _is_served(q: Tensor, kv: Tensor) -> bool:
    return (
        q.shape[-1] == kernels.HEAD and has_kernels(q) and has_kernels(kv) and q.numel() > 0
        and q.dtype == kv.dtype in (torch.float32, torch.bfloat16) and 0 < kv.shape[1] <= LARGEST
    )


class _Attention(torch.autograd.Function):
    """Queries and keys may be of one tensor: then its gradient is one tensor, that of q."""

    @staticmethod
    def forward(ctx, q, kv, slots):
        ctx.same = q is kv
        q = q.contiguous()
        kv = q if ctx.same else kv.contiguous()
        b, many, _, heads, size = q.shape
        out, norms = q.new_empty(b, many, 1, heads, size), q.new_empty(b, heads, many)
        run(kernels.attend, b * heads, *_arrays(q, kv, slots), out.numpy(), norms.numpy())
        ctx.save_for_backward(q, kv, out, norms)
        ctx.slots = slots
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, kv, out, norms = ctx.saved_tensors
        of_q = torch.empty_like(q)
        of_kv = of_q if ctx.same else torch.empty_like(kv)
        run(kernels.attend_back, q.shape[0] * q.shape[3], *_arrays(q, kv, ctx.slots), out.numpy(), norms.numpy(),
            grad.contiguous().numpy(), of_q.numpy(), of_kv.numpy())
        return of_q, None if ctx.same else of_kv, None


def _arrays(q: Tensor, kv: Tensor, slots: tuple[int, int, int]) -> tuple:
    """What both kernels begin with; scores are scaled for powers of 2."""
    of_q, of_k, of_v = slots
    factor = np.float32(1 / (math.log(2) * math.sqrt(q.shape[-1])))
    return q.detach().numpy(), of_q, kv.detach().numpy(), of_k, of_v, factor
