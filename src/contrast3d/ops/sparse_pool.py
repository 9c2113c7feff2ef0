"""Pooling of voxel features: over the cells of a kernel, and over whole clouds."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.kernel_map import coarser, kernel_map
from contrast3d.types import Voxels

Reduce = Literal["max", "mean", "sum"]


def sparse_pool(voxels: Voxels, kernel_size: int = 2, stride: int = 2, reduce: Reduce = "max") -> Voxels:
    """The maximum, mean or sum over the voxels that are there under a kernel; absent ones count for nothing."""
    pairs = kernel_map(voxels, kernel_size, stride)
    values = voxels.features.index_select(0, pairs.in_rows.long())
    pooled = _reduce(values, pairs.out_rows.long(), pairs.num_out, reduce)
    if stride == 1:
        return voxels.replace(features=pooled)
    coords, offsets = coarser(voxels, stride)
    return Voxels(coords, pooled, offsets, voxels.stride * stride, maps=voxels.maps)


def global_pool(voxels: Voxels, reduce: Reduce = "max") -> Float[Tensor, "b c"]:
    """(B, C): over all voxels of each cloud; zeros for a cloud without any."""
    return _reduce(voxels.features, voxels.coords[:, 0].long(), len(voxels), reduce)


def _reduce(values: Tensor, rows: Tensor, count: int, reduce: str) -> Tensor:
    """out[r] = the reduction of values[q] over the q with rows[q] = r; of none, zeros."""
    if reduce not in ("max", "mean", "sum"):
        raise DataError("reduce", repr(reduce), "max, mean or sum")
    out = values.new_zeros(count, values.shape[1])
    if reduce == "max":
        index = rows[:, None].expand_as(values)
        return out.scatter_reduce(0, index, values, "amax", include_self=False)
    out = out.index_add(0, rows, values)
    if reduce == "sum":
        return out
    return out / torch.bincount(rows, minlength=count).clamp(min=1)[:, None]
