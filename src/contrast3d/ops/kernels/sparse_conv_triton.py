"""Sparse convolution on CUDA: gather and product in one kernel, nothing of the size of the neighbourhoods is stored.

Places in tensors are counted in 32 bits. Sums are of float32 and in one order, whatever runs beside. Products of
float32 are made on the matrix units in three parts, which keep all of its digits; in one part (TF32) where
torch.backends.cuda.matmul.allow_tf32 says so for matmul.
Sizes of blocks are what was fastest on an H100 for layers of SR-UNet34.
"""

from __future__ import annotations

from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from contrast3d.ops.kernels.fused import triton_kernel

STEP = 32  # channels in that are multiplied at a time
FEW = 8192  # rows out below which smaller blocks keep more of the device busy
PROGRAMS = 2112  # of a gradient: sixteen for each of 132 multiprocessors


@partial(triton_kernel, do_not_specialize=("num_out", "slots"))
def _products(features, weight, table, out, num_out, channels, width, slots,
              ROWS: tl.constexpr, STEP: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr):
    """out[u, d] = sum over k, c of features[table[k, u], c] * weight[k, c, d], for a block of u and of d."""
    u = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros((ROWS, WIDTH), tl.float32)
    steps = tl.cdiv(channels, STEP)
    for i in range(slots * steps):  # one loop, so that loads run ahead of products
        k = i // steps
        c = i % steps * STEP + tl.arange(0, STEP)
        row = tl.load(table + k * num_out + u, mask=u < num_out, other=-1)
        a = tl.load(features + (row * channels)[:, None] + c[None, :],
                    mask=(row >= 0)[:, None] & (c < channels)[None, :], other=0.0)
        b = tl.load(weight + (k * channels + c)[:, None] * width + d[None, :],
                    mask=(c < channels)[:, None] & (d < width)[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    tl.store(out + u[:, None] * width + d[None, :], total, mask=(u < num_out)[:, None] & (d < width)[None, :])


@partial(triton_kernel, do_not_specialize=("num_out", "slots", "part"))
def _weight_gradient(features, grad, table, out, num_out, channels, width, slots, part,
                     ROWS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr):
    """out[s, k, c, d] = sum over the u of part s of features[table[k, u], c] * grad[u, d], for blocks of c and d."""
    k, s = tl.program_id(0), tl.program_id(2)
    widths = tl.cdiv(width, WIDTH)
    c = tl.program_id(1) // widths * DEPTH + tl.arange(0, DEPTH)
    d = tl.program_id(1) % widths * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros((DEPTH, WIDTH), tl.float32)
    for first in range(s * part, min((s + 1) * part, num_out), ROWS):
        u = first + tl.arange(0, ROWS)
        row = tl.load(table + k * num_out + u, mask=u < num_out, other=-1)
        if tl.max(row, 0) >= 0:
            there = (row >= 0)[:, None]
            a = tl.load(features + (row * channels)[:, None] + c[None, :],
                        mask=there & (c < channels)[None, :], other=0.0)
            b = tl.load(grad + (u * width)[:, None] + d[None, :], mask=there & (d < width)[None, :], other=0.0)
            total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION)
    where = ((s * slots + k) * channels + c)[:, None] * width + d[None, :]
    tl.store(out + where, total, mask=(c < channels)[:, None] & (d < width)[None, :])


def products(features: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    """(U, D) float32 of features (M, C) and weight (K, C, D), both float32 or bfloat16, and table (K, U) int32."""
    (slots, channels, width), num_out = weight.shape, table.shape[1]
    out = torch.empty(num_out, width, device=features.device)
    if not out.numel():
        return out
    few, low = num_out < FEW, features.dtype == torch.bfloat16
    rows, columns = 64 if few else 128, _block(width, (64 if few else 128) if low else 32)
    with torch.cuda.device(features.device):
        _products[triton.cdiv(num_out, rows), triton.cdiv(width, columns)](
            features.contiguous(), weight.contiguous(), table, out, num_out, channels, width, slots,
            ROWS=rows, STEP=_block(channels, STEP), WIDTH=columns, PRECISION=_precision(features), num_stages=2)
    return out


def weight_gradient(features: Tensor, grad: Tensor, table: Tensor) -> Tensor:
    """(K, C, D) float32 of features (M, C), grad (U, D), both float32 or bfloat16, and table (K, U) int32."""
    channels, width, (slots, num_out) = features.shape[1], grad.shape[1], table.shape
    if not num_out or not channels or not width:
        return features.new_zeros(slots, channels, width, dtype=torch.float32)
    low = features.dtype == torch.bfloat16
    rows, depth, columns = 32 if low else 64, _block(channels, 64), _block(width, 64 if low else 32)
    tiles = triton.cdiv(channels, depth) * triton.cdiv(width, columns)
    parts = max(1, min(PROGRAMS // (slots * tiles), num_out // (4 * rows)))
    part = triton.cdiv(triton.cdiv(num_out, parts), rows) * rows
    out = torch.empty(parts, slots, channels, width, device=features.device)
    with torch.cuda.device(features.device):
        _weight_gradient[slots, tiles, parts](
            features.contiguous(), grad.contiguous(), table, out, num_out, channels, width, slots, part,
            ROWS=rows, DEPTH=depth, WIDTH=columns, PRECISION=_precision(features))
    return out.sum(0) if parts > 1 else out[0]


def try_out(device: torch.device) -> None:
    """Raises what Triton raises where it cannot compile or run: both kernels, both types, the largest blocks."""
    table = torch.zeros(1, FEW, dtype=torch.int32, device=device)
    for dtype in (torch.float32, torch.bfloat16):
        features = torch.zeros(FEW, 128, dtype=dtype, device=device)
        products(features, features[None, :128], table)
        weight_gradient(features, features, table).sum().item()


def _block(size: int, most: int) -> int:
    """The power of two that holds `size`, from 16, which matrix units begin with, to `most`."""
    return max(16, min(most, triton.next_power_of_2(size)))


def _precision(features: Tensor) -> str:
    return "tf32" if features.dtype == torch.bfloat16 or torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
