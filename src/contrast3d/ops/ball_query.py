"""Neighbours within a radius, as PointNet++ groups them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.kernels import ball_query as kernels
from contrast3d.ops.kernels import threads
from contrast3d.ops.kernels.inputs import check_finite, padded_columns

BLOCK = 1 << 26  # distances held at a time off the CPU


@torch.no_grad()
def ball_query(
    points: Float[Tensor, "b n 3"], queries: Float[Tensor, "b m 3"], radius: float, k: int
) -> Int[Tensor, "b m {k}"]:
    """Indices (B, M, K) int64 of the first k points, by index, nearer than `radius` to each query.

    The grouping of PointNet++ (Qi et al. 2017, section 3.2): not the nearest points, the first ones. Where
    fewer than k lie within the radius, the first found is repeated; k may exceed N. A query without any such
    point gets k times its nearest point, where the original leaves index 0, a point that may lie anywhere.

    Raises ConfigError where the radius or k is not positive, DataError where there are no points, batch sizes
    differ, or (CPU) a coordinate is not finite.
    """
    if not (radius > 0 and k > 0):
        raise ConfigError(f"ball_query: radius={radius}, k={k}; both must be positive")
    if points.shape[1] == 0 or len(points) != len(queries):
        found = f"points {tuple(points.shape)}, queries {tuple(queries.shape)}"
        raise DataError("ball_query", found, "(B, N, 3) and (B, M, 3) with N > 0")
    dtype = torch.promote_types(torch.promote_types(points.dtype, queries.dtype), torch.float32)
    points, queries = points.detach().to(dtype), queries.detach().to(dtype)
    if points.device.type != "cpu":
        return _ball_query_torch(points, queries, radius, k)
    check_finite("points", points.numpy())
    check_finite("queries", queries.numpy())
    return _ball_query_cpu(points, queries, radius, k)


def _ball_query_cpu(points: Tensor, queries: Tensor, radius: float, k: int) -> Tensor:
    b, m, _ = queries.shape
    columns, rows = padded_columns(points.numpy()), queries.contiguous().numpy()
    squared_radius = columns.dtype.type(radius * radius)
    out = torch.empty(b * m, k, dtype=torch.int64)
    threads.run(kernels.points_within, b * m, columns, rows, squared_radius, out.numpy())
    return out.view(b, m, k)


def _ball_query_torch(points: Tensor, queries: Tensor, radius: float, k: int) -> Tensor:
    """Any device, plain torch, memory bounded by BLOCK."""
    b, n, _ = points.shape
    order = torch.arange(n, device=points.device)
    out = []
    for some in queries.split(max(1, BLOCK // max(1, b * n)), 1):
        distances = sum((some[..., axis, None] - points[:, None, :, axis]).square() for axis in range(3))
        candidates = torch.where(distances < radius * radius, order, n)
        found = candidates.topk(min(k, n), largest=False, sorted=True).values
        first = found[..., :1]
        first = torch.where(first < n, first, distances.argmin(-1, keepdim=True))
        found = torch.where(found < n, found, first)
        out.append(torch.cat([found, first.expand(*first.shape[:2], k - found.shape[2])], -1))
    return torch.cat(out, 1)
