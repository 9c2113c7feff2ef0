"""Per-cloud and per-point values of a batch: spread one to the other, reduce, select.

Each function has one answer for packed and dense batches; dense ones skip the bookkeeping. On the CPU numpy
does what it does several times faster than torch (sorting bare values, finding the true ones).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contrast3d.types import Clouds


def point_rows(clouds: Clouds) -> Int[Tensor, "n"]:
    """(sum N,) the row of each point in its untransformed cloud: `indices`, or else its row in this one."""
    if clouds.indices is not None:
        return clouds.indices
    return torch.arange(len(clouds.points), device=clouds.device) - per_point(clouds, clouds.offsets[:-1])


def tracked(clouds: Clouds) -> Clouds:
    """The same clouds with `indices` and `transform` filled in where they are missing."""
    transform = clouds.transform
    if transform is None:
        transform = torch.eye(4, device=clouds.device).expand(len(clouds), 4, 4)
    return clouds.replace(indices=point_rows(clouds), transform=transform)


def per_point(clouds: Clouds, values: Tensor) -> Tensor:
    """Loop: each point gets the value of its cloud, (B, ...) -> (sum N, ...)."""
    if clouds.is_dense:
        each = len(clouds.points) // len(clouds)
        return values[:, None].expand(-1, each, *values.shape[1:]).flatten(0, 1)
    return values.contiguous().repeat_interleave(clouds.lengths, dim=0, output_size=len(clouds.points))


def _slots(clouds: Clouds) -> Int[Tensor, "n"]:
    """Row of each point in a (B * longest) table."""
    starts = torch.arange(len(clouds), device=clouds.device) * clouds.lengths.max()
    points = torch.arange(len(clouds.points), device=clouds.device)
    return points + per_point(clouds, starts - clouds.offsets[:-1])


def padded(clouds: Clouds, values: Tensor, fill: float | int) -> Tensor:
    """Per-point values (sum N, ...) -> (B, longest, ...), shorter clouds filled up."""
    if clouds.is_dense:
        return clouds.as_dense(values)
    shape = (len(clouds), int(clouds.lengths.max()), *values.shape[1:])
    table = values.new_full(shape, fill)
    table.flatten(0, 1).index_copy_(0, _slots(clouds), values)
    return table


def map_points(
    clouds: Clouds, points: Float[Tensor, "n 3"], linear: Float[Tensor, "b 3 3"]
) -> Float[Tensor, "n 3"]:
    """Loop: points[p] = linear[cloud of p] @ points[p]."""
    mapped = torch.bmm(padded(clouds, points, 0.0), linear.mT).flatten(0, 1)
    return mapped if clouds.is_dense else mapped.index_select(0, _slots(clouds))


def cloud_min(clouds: Clouds, values: Float[Tensor, "n"]) -> Float[Tensor, "b"]:
    """Smallest value in each cloud."""
    return padded(clouds, values, math.inf).amin(1)


def cloud_max(clouds: Clouds, values: Float[Tensor, "n"]) -> Float[Tensor, "b"]:
    """Largest value in each cloud."""
    return padded(clouds, values, -math.inf).amax(1)


def cloud_mean(clouds: Clouds, values: Float[Tensor, "n *c"]) -> Float[Tensor, "b *c"]:
    """Mean of the values over each cloud."""
    lengths = clouds.lengths.view(-1, *[1] * (values.ndim - 1))
    return padded(clouds, values, 0.0).sum(1) / lengths


def bounding_box_middle(clouds: Clouds) -> Float[Tensor, "b 3"]:
    """(B, 3) the middle of each cloud's axis-aligned bounding box."""
    columns = [column.contiguous() for column in clouds.points.unbind(1)]
    return torch.stack([(cloud_min(clouds, c) + cloud_max(clouds, c)) / 2 for c in columns], 1)


def cloud_smallest(clouds: Clouds, values: Tensor, counts: Int[Tensor, "b"]) -> Tensor:
    """Loop: for cloud b, the counts[b]-th smallest (from 1) of its per-point values (sum N,) -> (B,)."""
    top = math.inf if values.is_floating_point() else torch.iinfo(values.dtype).max
    table = padded(clouds, values, top)
    if table.device.type == "cpu":
        ranked = torch.from_numpy(np.sort(table.numpy(), axis=1))
    else:
        ranked = table.sort(dim=1).values
    return ranked.gather(1, counts[:, None] - 1).flatten()


def keep_points(clouds: Clouds, keep: Bool[Tensor, "n"]) -> Clouds:
    """The points where `keep` is True, in their order, with everything that belongs to them."""
    counts = torch.cat((clouds.offsets.new_zeros(1), keep.cumsum(0)))
    on_cpu = keep.device.type == "cpu"
    rows = torch.from_numpy(np.flatnonzero(keep.numpy())) if on_cpu else keep.nonzero().flatten()
    return tracked(clouds).take_points(rows, counts[clouds.offsets])
