"""k nearest neighbours in coordinate and feature space."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.kernels import knn as kernels
from contrast3d.ops.kernels import threads

TILE = 1 << 18  # elements of a CPU distance tile: 1 MB of float32, so that it is selected from while in cache
BLOCK = 1 << 26  # elements of a distance block on other devices: bounds the memory of large clouds


@torch.no_grad()
def knn(
    points: Float[Tensor, "b n c"], k: int, queries: Float[Tensor, "b m c"] | None = None
) -> Int[Tensor, "b m k"]:
    """Indices (B, M, K) int64 of the k points nearest to each query, nearest first, ties by lower index.

    points: (B, N, C) coordinates or features. queries: (B, M, C); None asks for the points' own neighbours,
    and then each point comes first in its own list, duplicates or not.

    Distances are Euclidean, computed in float32 (float64 for float64 input), also under autocast. Up to three
    axes they are sums of squared differences. Beyond that they are expanded, |y|^2 - 2 x.y after subtracting
    the cloud's mean, with an absolute error of about C * 1e-7 times the cloud's squared radius: neighbours
    whose squared distances differ by less may come in either order. Indices carry no gradient.

    Raises DataError where k is not in 1..N, shapes do not match, or (CPU) a value is not finite.
    """
    points, queries, own = _checked(points, k, queries)
    if points.device.type != "cpu":
        return _knn_torch(points, k, queries, own)
    if points.shape[-1] <= 3:
        return _knn_coordinates(points, k, queries, own)
    return _knn_features(points, k, queries, own)


def _checked(points: Tensor, k: int, queries: Tensor | None) -> tuple[Tensor, Tensor, bool]:
    """Validated (points, queries, own) in float32 or float64, centred on each cloud's mean."""
    if points.ndim != 3:
        raise DataError("points", f"shape {tuple(points.shape)}", "(B, N, C)")
    shape = tuple(points.shape)
    if not 1 <= k <= shape[1]:
        raise DataError("knn", f"k={k} neighbours asked of clouds of {shape[1]} points", f"k from 1 to {shape[1]}")
    own = queries is None
    if not own and (queries.ndim != 3 or queries.shape[::2] != points.shape[::2]):
        raise DataError("queries", f"shape {tuple(queries.shape)}", f"(B, M, C) to go with points {shape}")
    wide = torch.float64 if points.dtype == torch.float64 else torch.float32
    points = points.detach().to(wide)
    mean = points.mean(1, keepdim=True)
    points = points - mean
    queries = points if own else queries.detach().to(wide) - mean
    if points.device.type == "cpu":
        _check_finite(points, "points")
        _check_finite(queries, "queries")
    return points, queries, own


def _check_finite(values: Tensor, name: str) -> None:
    if not torch.isfinite(4 * values.square().sum(-1)).all():  # no distance exceeds 2 |x|^2 + 2 |y|^2
        raise DataError(name, "NaN, infinite or overflowing values", "finite coordinates")


def _knn_coordinates(points: Tensor, k: int, queries: Tensor, own: bool) -> Tensor:
    """CPU, C <= 3: distances and selection in one kernel, row by row."""
    b, m, c = queries.shape
    n = points.shape[1]
    columns = points.new_full((b, 3, _padded(n)), torch.inf)
    columns[:, :c, :n] = points.transpose(1, 2)
    columns[:, c:, :n] = 0
    rows = torch.nn.functional.pad(queries, (0, 3 - c)).contiguous()
    out = torch.empty(b * m, k, dtype=torch.int64)
    threads.run(kernels.nearest_points, b * m, columns.numpy(), rows.numpy(), own, out.numpy())
    return out.view(b, m, k)


def _knn_features(points: Tensor, k: int, queries: Tensor, own: bool) -> Tensor:
    """CPU, any C: matmul a tile of distances that fits the cache, select from it, next tile."""
    b, m, c = queries.shape
    n = points.shape[1]
    out = torch.empty(b, m, k, dtype=torch.int64)
    columns, norms = points.new_zeros(c, _padded(n)), points.new_full((_padded(n),), torch.inf)
    step = max(1, TILE // len(norms))
    for cloud, wanted, result in zip(points, queries, out):
        columns[:, :n] = cloud.T
        norms[:n] = cloud.square().sum(1)
        for start in range(0, m, step):
            tile = _relative_distances(columns, norms, wanted[start : start + step]).numpy()
            rows = result[start : start + step].numpy()
            threads.run(kernels.smallest_of_rows, len(rows), tile, start if own else -1, rows)
    return out


def _padded(n: int) -> int:
    """The length of the kernels' rows: whole vector blocks."""
    return -(-n // kernels.WIDTH) * kernels.WIDTH


def _relative_distances(columns: Tensor, norms: Tensor, rows: Tensor) -> Tensor:
    """|y|^2 - 2 x.y: the squared distance less |x|^2, which does not change the order within a row."""
    with torch.autocast(rows.device.type, enabled=False):
        return torch.addmm(norms, rows, columns, alpha=-2)


def _knn_torch(points: Tensor, k: int, queries: Tensor, own: bool) -> Tensor:
    """Any device, plain torch."""
    b, m, c = queries.shape
    n = points.shape[1]
    out = torch.empty(b, m, k, dtype=torch.int64, device=points.device)
    step = max(1, BLOCK // max(1, b * n))
    columns = points.transpose(1, 2)
    for start in range(0, m, step):
        rows = queries[:, start : start + step]
        if c <= 3:
            distances = sum((rows[..., i, None] - columns[:, None, i]).square() for i in range(c))
        else:
            with torch.autocast(points.device.type, enabled=False):
                distances = torch.baddbmm(columns.square().sum(1)[:, None], rows, columns, alpha=-2)
        if own:
            distances.diagonal(start, 1, 2).fill_(-torch.inf)
        # topk leaves the order of equals open, a stable sort does not
        out[:, start : start + step] = distances.sort(stable=True, dim=-1).indices[..., :k]
    return out
