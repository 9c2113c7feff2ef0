"""Point clouds into sparse voxels: one voxel per occupied cell, sorted, the first point standing for it."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.kernels import kernel_map as kernels
from contrast3d.ops.packing import Packing, has_kernels
from contrast3d.types import Clouds, Voxels

LIMIT = 2**31 - 2**16  # cells from the origin, so that kernels can reach beyond without leaving int32


def voxelize(clouds: Clouds, voxel_size: float, shift: Int[Tensor, "b 3"] | None = None) -> Voxels:
    """Cells floor(point / voxel_size) + shift, of which each holds the first point that fell into it.

    shift: whole cells to move each cloud by, which changes how coarser levels cut it.
    The features are those of the first points; a column of ones where the clouds have none. `first` and `inverse`
    lead from voxels to points and back. Rows are sorted by (cloud, x, y, z): what is near in space is near in memory.

    Raises DataError where a point is not finite or further than 2^31 cells from the origin.
    """
    if not voxel_size > 0:
        raise DataError("voxel_size", f"{voxel_size}", "a positive length")
    cells = torch.floor(clouds.points.detach() / voxel_size)
    if len(cells) and not bool(cells.abs().max() < LIMIT):
        raise DataError("points", f"NaN, infinite, or beyond {LIMIT} voxels of {voxel_size:g}", "coordinates in metres",
                        "a larger voxel_size, or clouds moved to the origin")
    cells = cells.long()
    if shift is not None:
        cells += torch.repeat_interleave(shift.to(cells), clouds.lengths, dim=0, output_size=len(cells))
    coords = torch.cat([clouds.batch_index[:, None], cells], 1)
    rows, first, inverse = distinct(coords)
    features = clouds.features
    features = clouds.points.new_ones(len(first), 1) if features is None else features.index_select(0, first)
    return Voxels(rows, features, _offsets(rows, len(clouds)), 1, first, inverse)


def from_coords(coords: Int[Tensor, "m 4"], features: Tensor, clouds: int | None = None) -> tuple[Voxels, Tensor]:
    """Voxels of coordinates [cloud, x, y, z] in any order -> (voxels, order): row m of them was given at order[m].

    clouds: how many there are; by default as many as the coordinates name. A DataError where two rows are the same.
    """
    if coords.ndim != 2 or coords.shape[1] != 4 or len(coords) != len(features):
        raise DataError("coords", f"shape {tuple(coords.shape)} for {len(features)} features", "(M, 4), a row for each")
    if coords.is_floating_point():
        raise DataError("coords", f"{coords.dtype}", "whole numbers", "torch.floor(points / voxel_size).long()")
    if len(coords) and int(coords[:, 0].min()) < 0:
        raise DataError("coords", f"cloud {int(coords[:, 0].min())}", "clouds counted from 0 in the first column")
    named = int(coords[:, 0].max()) + 1 if len(coords) else 0
    if clouds is not None and named > clouds:
        raise DataError("coords", f"cloud {named - 1}", f"clouds below {clouds}")
    rows, first, _ = distinct(coords.long())
    if len(rows) < len(coords):
        raise DataError("coords", f"{len(coords) - len(rows)} rows that repeat another", "distinct voxels",
                        "voxelize(clouds)")
    return Voxels(rows, features[first], _offsets(rows, named if clouds is None else clouds)), first


@torch.no_grad()
def voxel_labels(labels: Int[Tensor, "n"], voxels: Voxels, ignore: int = 255) -> Int[Tensor, "m"]:
    """(M,) the label that all points of a voxel agree on; `ignore` where they do not."""
    of_first = labels.index_select(0, voxels.first)
    differing = labels != of_first.index_select(0, voxels.inverse)
    conflict = torch.zeros(len(of_first), dtype=torch.bool, device=labels.device)
    conflict[voxels.inverse[differing]] = True
    return of_first.masked_fill(conflict, ignore)


def distinct(coords: Int[Tensor, "n 4"]) -> tuple[Int[Tensor, "m 4"], Int[Tensor, "m"], Int[Tensor, "n"]]:
    """The distinct rows (M, 4) int32, sorted; the first row (M,) equal to each; and which of them each row is (N,)."""
    if not len(coords):
        none = torch.zeros(0, dtype=torch.long, device=coords.device)
        return coords.to(torch.int32), none, none
    keys = Packing.of(coords).keys(coords)
    if has_kernels(coords):
        array = keys.numpy()
        first, inverse = np.empty(len(array), np.int64), np.empty(len(array), np.int64)
        count = kernels.runs(array, np.argsort(array), first, inverse, 0, len(array))
        first, inverse = torch.from_numpy(first[:count].copy()), torch.from_numpy(inverse)
    else:
        found, inverse = torch.unique(keys, return_inverse=True)
        first = torch.full_like(found, len(keys))
        first.scatter_reduce_(0, inverse, torch.arange(len(keys), device=keys.device), "amin")
    return coords.index_select(0, first).to(torch.int32), first, inverse


def _offsets(rows: Tensor, clouds: int) -> Tensor:
    return torch.searchsorted(rows[:, 0].contiguous(), torch.arange(clouds + 1, dtype=torch.int32, device=rows.device))
