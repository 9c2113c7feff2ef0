"""The Chamfer distance between sets of points, from nearest points alone: no table of all distances is kept."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from contrast3d.errors import DataError
from contrast3d.ops.gather import gather
from contrast3d.ops.kernels import chamfer as kernels
from contrast3d.ops.kernels.threads import run
from contrast3d.ops.portable import is_portable

BLOCK = 1 << 25  # distances held at a time off the CPU


def chamfer(
    first: Float[Tensor, "b n 3"], second: Float[Tensor, "b m 3"], root: bool = False
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(mean over b, i of min over j of |first[b,i] - second[b,j]|^2, the same the other way); root: of | |, not | |^2.

    Both sets get exact gradients: each point from its own nearest, and from all whose nearest it is. Of equally near
    points the first counts; a distance of zero has a gradient of zero, under the root too. Distances are in float32
    (float64 for float64 sets), also under autocast, and memory is O(B (N + M)). On CPU the result does not depend on
    the number of threads. No sets at all give zeros. Values that are not finite give a result that is not.

    Raises DataError where a set is empty or the sets do not go together.
    """
    shapes = tuple(first.shape), tuple(second.shape)
    if first.ndim != 3 or second.ndim != 3 or len(first) != len(second) or 0 in (first.shape[1], second.shape[1]):
        raise DataError("chamfer", f"sets {shapes[0]} and {shapes[1]}", "(B, N, 3) and (B, M, 3), no empty sets")
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    first, second = first.to(dtype), second.to(dtype)
    if not len(first):
        return first.sum(), second.sum()
    with torch.autocast(first.device.type, enabled=False):
        if first.device.type == "cpu" and not is_portable():
            return _Chamfer.apply(first, second, root)
        return _one_way(first, second, root), _one_way(second, first, root)


class _Chamfer(torch.autograd.Function):
    """CPU. Sums are taken by numpy: torch would cut them into as many parts as it has threads."""

    @staticmethod
    def forward(ctx, first, second, root):
        sets = tuple(s.detach().contiguous() for s in (first, second))
        found = _nearest(*sets), _nearest(*sets[::-1])
        ctx.save_for_backward(*sets, *found[0], *found[1])
        ctx.root = root
        means = (np.mean(np.sqrt(s.numpy()) if root else s.numpy(), dtype=np.float64) for s, _ in found)
        return tuple(first.new_tensor(mean) for mean in means)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        first, second, squared, index, squared_back, index_back = (t.numpy() for t in ctx.saved_tensors)
        scales = np.array([g.item() / s.size for g, s in zip(grads, (squared, squared_back))], first.dtype)
        out = np.zeros_like(first), np.zeros_like(second)
        run(kernels.gradients, len(first), first, second, (squared, squared_back), (index, index_back), scales,
            ctx.root, *out)
        return *map(torch.from_numpy, out), None


def _nearest(queries: Float[Tensor, "b n 3"], points: Float[Tensor, "b m 3"]) -> tuple[Tensor, Tensor]:
    """Squared distance (B, N) and row (B, N) int32 of the point nearest to each query."""
    b, n, _ = queries.shape
    rows = points.numpy()
    if points.shape[1] < kernels.STEP:  # copies of the last point are never nearer than it
        rows = np.pad(rows, ((0, 0), (0, kernels.STEP - points.shape[1]), (0, 0)), "edge")
    squared, index = queries.new_empty(b, n), torch.empty(b, n, dtype=torch.int32)
    blocks = b * -(-n // kernels.BLOCK)
    run(kernels.nearest, blocks, queries.numpy(), rows, squared.numpy(), index.numpy())
    return squared, index


def _one_way(queries: Float[Tensor, "b n 3"], points: Float[Tensor, "b m 3"], root: bool) -> Float[Tensor, ""]:
    """Any device, plain torch: the nearest without gradient, then the distances to them with one."""
    squared = (queries - gather(points, _nearest_torch(queries, points))).square().sum(-1)
    if not root:
        return squared.mean()
    apart = squared > 0  # the root has no finite gradient at zero
    return torch.where(apart, torch.where(apart, squared, 1).sqrt(), squared).mean()


@torch.no_grad()
def _nearest_torch(queries: Float[Tensor, "b n 3"], points: Float[Tensor, "b m 3"]) -> Int[Tensor, "b n"]:
    """Memory bounded by BLOCK."""
    step = max(1, BLOCK // (len(queries) * points.shape[1]))
    out = []
    for some in queries.split(step, 1):
        squared = sum((some[..., axis, None] - points[:, None, :, axis]).square() for axis in range(3))
        out.append(squared.argmin(-1))
    return torch.cat(out, 1)
