"""Reductions of per-point values over a neighbour graph, without storing the (B, N, K, C) edges.

`index` (B, N, K) names the K neighbours j of each point i, as `ops.knn` returns them. CPU tensors run numba
kernels; on other devices the same sums loop over the K neighbours, never holding more than (B, N, C).
`neighbor_max` is differentiable; the others are the building blocks of `edge_conv` and `edge_mlp`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.gather import gather
from contrast3d.ops.kernels import edge as kernels
from contrast3d.ops.kernels.threads import run
from contrast3d.ops.portable import is_portable, may_look


def neighbor_max(values: Float[Tensor, "b n c"], index: Int[Tensor, "b m k"]) -> Float[Tensor, "b m c"]:
    """out[b, i] = max over j in index[b, i] of values[b, j]; ties give their gradient to the first j."""
    if is_portable():
        check_graph(values, index)
        return gather(values, index).amax(2)
    return _NeighborMax.apply(values, index)


class _NeighborMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, index):
        best, arg = max_with_arg(values, index)
        ctx.save_for_backward(arg)
        ctx.points = values.shape[1]
        return best

    @staticmethod
    def backward(ctx, grad):
        (arg,) = ctx.saved_tensors
        return scatter_by_arg(grad.contiguous(), arg, ctx.points), None


def check_graph(values: Tensor, index: Tensor, center: Tensor | None = None) -> None:
    """A DataError unless `index` is a (B, M, K >= 1) graph over `values` (B, N, C), and `center` is (B, M, C).

    The kernels trust the sizes: what does not fit would read foreign memory.
    """
    if index.ndim != 3 or index.shape[0] != values.shape[0] or index.shape[2] == 0:
        raise DataError("index", f"shape {tuple(index.shape)}", f"({values.shape[0]}, N, K) with K at least 1")
    if may_look(index) and index.numel() and (index.min() < 0 or index.max() >= values.shape[1]):
        raise DataError("index", f"entries up to {int(index.max())}", f"0 to {values.shape[1] - 1}")
    if center is not None and center.shape != (*index.shape[:2], values.shape[2]):
        raise DataError("center", f"shape {tuple(center.shape)}", f"{(*index.shape[:2], values.shape[2])}")


def max_with_arg(values: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """-> maxima (B, M, C) and the neighbour rows (B, M, C) int32 that attain them first."""
    check_graph(values, index)
    best = values.new_empty(*index.shape[:2], values.shape[2])
    arg = torch.empty(best.shape, dtype=torch.int32, device=values.device)
    if values.device.type == "cpu":
        run(kernels.neighbor_max, best.shape[0] * best.shape[1],
            _array(values), _array(index), best.numpy(), arg.numpy())
        return best, arg
    return _torch_max(values, index)


def max_with_sum(values: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """-> maxima, their rows (int32) and sums over the neighbours, each (B, M, C), in one pass."""
    check_graph(values, index)
    if values.device.type == "cpu":
        best = values.new_empty(*index.shape[:2], values.shape[2])
        total, arg = torch.empty_like(best), torch.empty(best.shape, dtype=torch.int32)
        run(kernels.neighbor_max_sum, best.shape[0] * best.shape[1],
            _array(values), _array(index), best.numpy(), arg.numpy(), total.numpy())
        return best, arg, total
    return *_torch_max(values, index), sum_over(values, index)


def sum_over(values: Tensor, index: Tensor) -> Tensor:
    """out[b, i] = sum over j in index[b, i] of values[b, j]."""
    check_graph(values, index)
    if values.device.type == "cpu":
        total = values.new_empty(*index.shape[:2], values.shape[2])
        run(kernels.neighbor_sum, total.shape[0] * total.shape[1], _array(values), _array(index), total.numpy())
        return total
    return sum(_pick(values, index[..., t]) for t in range(index.shape[2]))


def scatter_over(values: Tensor, index: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """The transpose of `sum_over`: out[b, j] = sum of values[b, i] over edges i -> j; and each j's in-degree."""
    b, _, c = values.shape
    total = values.new_zeros(b, points, c)
    degree = torch.zeros(b, points, dtype=torch.int32, device=values.device)
    if values.device.type == "cpu":
        run(kernels.scatter_sum, b, _array(values), _array(index), total.numpy(), degree.numpy())
        return total, degree
    ones = torch.ones_like(index[..., 0], dtype=torch.int32)
    for t in range(index.shape[2]):
        total.scatter_add_(1, index[..., t, None].expand(values.shape), values)
        degree.scatter_add_(1, index[..., t], ones)
    return total, degree


def scatter_by_arg(values: Tensor, arg: Tensor, points: int) -> Tensor:
    """The transpose of the maximum: out[b, arg[b, i, c], c] = sum of values[b, i, c]."""
    total = values.new_zeros(values.shape[0], points, values.shape[2])
    if values.device.type == "cpu":
        run(kernels.scatter_arg, len(total), _array(values), _array(arg), total.numpy())
        return total
    return total.scatter_add_(1, arg.long(), values)


def _torch_max(values: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    first = index[..., 0]
    best = _pick(values, first)
    arg = first[..., None].expand(best.shape).to(torch.int32)
    for t in range(1, index.shape[2]):
        candidate = _pick(values, index[..., t])
        better = candidate > best
        best = torch.where(better, candidate, best)
        arg = torch.where(better, index[..., t, None].to(torch.int32), arg)
    return best, arg


def _pick(values: Tensor, rows: Tensor) -> Tensor:
    return values.gather(1, rows[..., None].expand(*rows.shape, values.shape[2]))


def _array(tensor: Tensor):
    return tensor.detach().contiguous().numpy()
