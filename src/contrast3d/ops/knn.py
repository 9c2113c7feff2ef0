"""k nearest neighbours in coordinate and feature space."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from contrast3d.errors import DataError
from contrast3d.ops.kernels import knn as kernels
from contrast3d.ops.kernels import threads
from contrast3d.ops.kernels.inputs import check_finite, padded_columns
from contrast3d.ops.kernels.masks import padding
from contrast3d.ops.portable import is_portable, may_look

TILE = 1 << 22  # distances per matmul on CPU: bounded memory, yet few switches between teams of threads
BLOCK = 1 << 26  # distances held at a time on other devices


@torch.no_grad()
def knn(
    points: Float[Tensor, "b n c"], k: int, queries: Float[Tensor, "b m c"] | None = None
) -> Int[Tensor, "b m k"]:
    """Indices (B, M, K) int64 of the k points nearest to each query, nearest first.

    points: (B, N, C) coordinates or features. queries: (B, M, C); None asks for the points' own neighbours,
    and then each point comes first in its own list, duplicates or not. Equally near points come by lower
    index on CPU and in the order of `torch.topk` elsewhere. Indices carry no gradient.

    Distances are Euclidean, in float32 (float64 for float64 input), also under autocast. Up to three axes
    they are sums of squared differences. Beyond that they are expanded, |y|^2 - 2 x.y after subtracting the
    cloud's mean: neighbours whose squared distances differ by less than rounding, about C * 1e-7 times the
    cloud's squared radius, may come in either order.

    Raises DataError where k is not in 1..N, shapes do not match, or (CPU) a value is not finite.
    """
    points, queries, own = _prepared(points, k, queries)
    with torch.autocast(points.device.type, enabled=False):
        if is_portable():
            return _knn_traced(points, k, queries, own)
        if points.device.type != "cpu":
            return _knn_torch(points, k, queries, own)
        if points.shape[-1] <= 3:
            return _knn_coordinates(points, k, queries, own)
        return _knn_features(points, k, queries, own)


def _prepared(points: Tensor, k: int, queries: Tensor | None) -> tuple[Tensor, Tensor, bool]:
    """(points, queries, own): checked, in float32 or float64."""
    shape = tuple(points.shape)
    if points.ndim != 3:
        raise DataError("points", f"shape {shape}", "(B, N, C)")
    n = shape[1]
    if not 1 <= k <= n:
        raise DataError("knn", f"k={k} neighbours asked of clouds of {n} points", f"k from 1 to {n}")
    own = queries is None
    if not own and (queries.ndim != 3 or queries.shape[::2] != points.shape[::2]):
        raise DataError("queries", f"shape {tuple(queries.shape)}", f"(B, M, C) to go with points {shape}")
    dtype = torch.promote_types(points.dtype, torch.float32)
    points = points.detach().to(dtype)
    queries = points if own else queries.detach().to(dtype)
    if may_look(points):
        check_finite("points", points.numpy())
        check_finite("queries", queries.numpy())
    return points, queries, own


def _knn_coordinates(points: Tensor, k: int, queries: Tensor, own: bool) -> Tensor:
    """CPU, C <= 3: distances and selection in one kernel, row by row."""
    b, m, c = queries.shape
    rows = np.zeros((b, m, 3), queries.numpy().dtype)
    rows[..., :c] = queries.numpy()
    out = torch.empty(b * m, k, dtype=torch.int64)
    threads.run(kernels.nearest_points, b * m, padded_columns(points.numpy()), rows, own, out.numpy())
    return out.view(b, m, k)


def _knn_features(points: Tensor, k: int, queries: Tensor, own: bool) -> Tensor:
    """CPU, any C: a matmul for the distances of some rows, select from them, next rows."""
    b, m, _ = queries.shape
    rows, columns = _expanded(points, queries, padding(points.shape[1]))
    out = torch.empty(b, m, k, dtype=torch.int64)
    width = columns.shape[2]
    step = max(1, min(m, TILE // width))
    group = max(1, min(b, TILE // (step * width)))
    tile = points.new_empty(group * step * width)  # reused: fresh pages cost as much as the matmul
    for some_rows, some_columns, result in zip(rows.split(group), columns.split(group), out.split(group)):
        for start in range(0, m, step):
            wanted, nearest = some_rows[:, start : start + step], result[:, start : start + step]
            clouds, count, _ = wanted.shape
            distances = tile[: clouds * count * width].view(clouds, count, width)
            torch.bmm(wanted, some_columns, out=distances)
            first = start if own else -1
            threads.run(kernels.smallest_of_rows, clouds * count, distances.numpy(), first, nearest.numpy())
    return out


def _knn_torch(points: Tensor, k: int, queries: Tensor, own: bool) -> Tensor:
    """Any device, plain torch, memory bounded by BLOCK."""
    b, m, c = queries.shape
    rows, columns = (queries, points.transpose(1, 2)) if c <= 3 else _expanded(points, queries)
    step = max(1, BLOCK // max(1, b * points.shape[1]))
    out = []
    for start in range(0, max(m, 1), step):
        some = rows[:, start : start + step]
        if c <= 3:
            distances = sum((some[..., axis, None] - columns[:, None, axis]).square() for axis in range(c))
        else:
            distances = torch.bmm(some, columns)
        if own:
            distances.diagonal(start, 1, 2).fill_(-torch.inf)
        out.append(distances.topk(k, largest=False).indices)
    return torch.cat(out, 1)


def _knn_traced(points: Tensor, k: int, queries: Tensor, own: bool) -> Tensor:
    """Any device, in one piece and without writing in place."""
    rows, columns = (queries, points.transpose(1, 2)) if points.shape[-1] <= 3 else _expanded(points, queries)
    if points.shape[-1] <= 3:
        distances = sum((rows[..., axis, None] - columns[:, None, axis]).square() for axis in range(points.shape[-1]))
    else:
        distances = torch.bmm(rows, columns)
    if own:
        itself = torch.eye(points.shape[1], dtype=torch.bool, device=points.device)
        distances = distances.masked_fill(itself, -torch.inf)
    return distances.topk(k, largest=False).indices


def _expanded(points: Tensor, queries: Tensor, extra: int = 0) -> tuple[Tensor, Tensor]:
    """Factors (B, M, C + 1), (B, C + 1, N + extra) whose product is |y|^2 - 2 x.y, and infinite behind N.

    The squared distance less |x|^2, which does not change the order within a row. Both are first taken relative
    to the mean of the points, to lose as few digits as possible.
    """
    mean = points.mean(1, keepdim=True)
    points, queries = points - mean, queries - mean
    rows = torch.cat([-2 * queries, torch.ones_like(queries[..., :1])], -1)
    norms = pad(points.square().sum(-1), (0, extra), value=torch.inf)
    columns = torch.cat([pad(points.transpose(1, 2), (0, extra)), norms[:, None]], 1)
    return rows, columns
