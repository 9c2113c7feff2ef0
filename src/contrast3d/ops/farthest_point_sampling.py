"""Farthest-point sampling: a subset that covers a cloud evenly."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.kernels import farthest_point_sampling as kernels
from contrast3d.ops.kernels import threads
from contrast3d.ops.kernels.fused import fused
from contrast3d.ops.kernels.inputs import check_finite
from contrast3d.ops.kernels.masks import padding
from contrast3d.ops.portable import is_portable


@torch.no_grad()
def farthest_point_sampling(
    points: Float[Tensor, "b n 3"], m: int, start: int | Int[Tensor, " b"] = 0
) -> Int[Tensor, "b {m}"]:
    """Indices (B, m) int64 of a greedy farthest-point sample (PointNet++, Qi et al. 2017, section 3.2).

    The first point is `start`, one index for all clouds or one per cloud; each further one is the point whose
    distance to those already chosen is largest, the lowest index among equals. No index is chosen twice, even
    where points coincide. A sample of m points begins with the sample of m - 1.

    Raises DataError where m is not in 1..N, the start is no index (a GPU is waited for where it is a tensor), or (CPU)
    a coordinate is not finite.
    """
    b, n, _ = points.shape
    if not 1 <= m <= n:
        found = f"m={m} points asked of clouds of {n} points"
        raise DataError("farthest_point_sampling", found, f"m from 1 to {n}")
    first = torch.as_tensor(start, device=points.device)
    if first.shape not in ((), (b,)) or first.is_floating_point():
        found = f"{first.dtype} of shape {tuple(first.shape)}"
        raise DataError("start", found, f"one whole number, or one per cloud: shape ({b},)")
    if not is_portable():
        _check_start(start, n)
    first = first.long().expand(b)
    points = points.detach().to(torch.promote_types(points.dtype, torch.float32))
    if is_portable():
        return _farthest_points_scanned(points, m, first)
    if points.device.type != "cpu":
        return _farthest_points_torch(points, m, first)
    check_finite("points", points.numpy())
    return _farthest_points_cpu(points, m, first)


def _check_start(start: int | Tensor, n: int) -> None:
    low, high = (start, start) if isinstance(start, int) else start.aminmax() if start.numel() else (0, 0)
    if low < 0 or high >= n:
        raise DataError("start", f"index {int(low if low < 0 else high)}", f"0 to {n - 1}")


def _farthest_points_cpu(points: Tensor, m: int, first: Tensor) -> Tensor:
    b, n, _ = points.shape
    columns = np.ascontiguousarray(points.numpy().transpose(0, 2, 1))
    nearest = np.full((b, n + padding(n)), -1, columns.dtype)
    nearest[:, :n] = np.inf
    keys = nearest.view(np.int64 if nearest.dtype == np.float64 else np.int32)
    out = torch.empty(b, m, dtype=torch.int64)
    threads.run(kernels.farthest_points, b, columns, nearest, keys, first.contiguous().numpy(), out.numpy())
    return out


def _farthest_points_torch(points: Tensor, m: int, first: Tensor) -> Tensor:
    """Any device: m steps over all clouds; on CUDA in one kernel."""
    b, n, _ = points.shape
    kernels = fused("farthest_point_sampling", points)
    if kernels and points.dtype == torch.float32 and n <= kernels.MOST_POINTS:
        return kernels.farthest_points(points, m, first)
    nearest = points.new_full((b, n), torch.inf)
    out = []
    chosen = first[:, None]
    for _ in range(m):
        out.append(chosen)
        nearest, chosen = _next_farthest(points, nearest, chosen)
    return torch.cat(out, 1)


def _farthest_points_scanned(points: Tensor, m: int, first: Tensor) -> Tensor:
    """The same as one `scan`, which a traced graph holds once instead of m times."""
    from torch._higher_order_ops.scan import scan

    def step(state: tuple[Tensor, Tensor], _: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        return _next_farthest(points, *state), state[1].clone()

    if not torch.compiler.is_compiling():  # outside of an export a scan would be compiled first
        return _farthest_points_torch(points, m, first)
    start = torch.full_like(points[..., 0], torch.inf), first[:, None].clone()
    return scan(step, start, torch.zeros(m, 1))[1][..., 0].T


def _next_farthest(points: Tensor, nearest: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) distances to the chosen points once `chosen` (B, 1) is one of them, and the point farthest from all."""
    centers = points.gather(1, chosen[..., None].expand(points.shape[0], 1, 3))
    nearest = torch.minimum(nearest, (points - centers).square().sum(-1)).scatter(1, chosen, -1.0)
    return nearest, nearest.argmax(1, keepdim=True)
