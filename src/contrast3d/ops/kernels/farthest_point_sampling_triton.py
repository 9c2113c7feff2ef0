"""Farthest-point sampling on CUDA: a program for each cloud, its points in registers, not many launches a point."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from contrast3d.ops.kernels.fused import triton_kernel

MOST_POINTS = 1 << 14  # of a cloud that fits one multiprocessor


@triton_kernel
def _farthest_points(points, first, out, n, m, BLOCK: tl.constexpr):
    """out[b, j]: the chosen point, then the one farthest from all chosen, the lowest index among equals."""
    cloud = points + tl.program_id(0).to(tl.int64) * n * 3
    i = tl.arange(0, BLOCK)
    x = tl.load(cloud + i * 3, mask=i < n, other=0.0)
    y = tl.load(cloud + i * 3 + 1, mask=i < n, other=0.0)
    z = tl.load(cloud + i * 3 + 2, mask=i < n, other=0.0)
    nearest = tl.where(i < n, float("inf"), -1.0)
    chosen = tl.load(first + tl.program_id(0)).to(tl.int32)
    for j in range(m):
        tl.store(out + tl.program_id(0).to(tl.int64) * m + j, chosen.to(tl.int64))
        dx = x - tl.load(cloud + chosen * 3)
        dy = y - tl.load(cloud + chosen * 3 + 1)
        dz = z - tl.load(cloud + chosen * 3 + 2)
        nearest = tl.where(i == chosen, -1.0, tl.minimum(nearest, dx * dx + dy * dy + dz * dz))
        chosen = tl.argmax(nearest, 0).to(tl.int32)


def farthest_points(points: Tensor, m: int, first: Tensor) -> Tensor:
    """(B, m) int64 of points (B, N, 3) float32, N at most MOST_POINTS, and first (B,) int64."""
    b, n, _ = points.shape
    out = torch.empty(b, m, dtype=torch.int64, device=points.device)
    block = triton.next_power_of_2(n)
    if b:
        with torch.cuda.device(points.device):
            _farthest_points[(b,)](points.contiguous(), first.contiguous(), out, n, m, BLOCK=block,
                                   num_warps=max(1, min(16, block // 128)))
    return out


def try_out(device: torch.device) -> None:
    """Raises what Triton raises where it cannot compile or run: the largest cloud."""
    points = torch.zeros(1, MOST_POINTS, 3, device=device)
    farthest_points(points, 2, torch.zeros(1, dtype=torch.int64, device=device)).tolist()
