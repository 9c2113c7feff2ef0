"""Where neighbours lie as their center sees them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.gather import gather
from contrast3d.ops.kernels import offsets as kernels
from contrast3d.ops.kernels import threads
from contrast3d.ops.portable import is_portable


def offsets(
    points: Float[Tensor, "b n c"], index: Int[Tensor, "b g k"], centers: Float[Tensor, "b g c"]
) -> Float[Tensor, "b g k c"]:
    """out[b, g, j] = points[b, index[b, g, j]] - centers[b, g]; differentiable in points and centers.

    Without gradients on the CPU one pass does it, elsewhere `gather` and a subtraction; to the same bits.

    Raises DataError where an index is out of range (a CUDA device asserts) or no whole number.
    """
    plain = points.device.type != "cpu" or is_portable() or points.dtype not in (torch.float32, torch.float64)
    learnt = torch.is_grad_enabled() and (points.requires_grad or centers.requires_grad)
    if plain or learnt or centers.dtype != points.dtype or index.dtype != torch.int64:
        return gather(points, index) - centers[:, :, None]
    out = points.new_empty(*index.shape, points.shape[2])
    arrays = (t.detach().contiguous().numpy() for t in (points, index, centers))
    try:
        threads.run(kernels.offsets, index.shape[0] * index.shape[1], *arrays, out.numpy())
    except IndexError:
        raise DataError("index", f"indices from {int(index.min())} to {int(index.max())}",
                        f"0 to {points.shape[1] - 1}") from None
    return out
