"""Kernel maps: which voxel meets which under each weight of a sparse convolution, found once per set of coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.kernels import kernel_map as kernels
from contrast3d.ops.kernels.sparse_conv import BLOCK_ROWS, block_bounds
from contrast3d.ops.kernels.threads import run
from contrast3d.ops.neighbor_table import NeighborTable, search
from contrast3d.ops.packing import WORTH, Packing, has_kernels
from contrast3d.types import Voxels


@dataclass(frozen=True)
class KernelMap:
    """The pairs (in, out) of each of K offsets: coordinate of out + offset = coordinate of in.

    in_rows, out_rows: (P,) int32, one offset after the other; within an offset both rise.
    starts: K + 1 numbers; offset i owns the pairs starts[i] : starts[i + 1].
    num_in, num_out: rows of the two coordinate sets.
    """

    in_rows: Int[Tensor, "p"]
    out_rows: Int[Tensor, "p"]
    starts: tuple[int, ...]
    num_in: int
    num_out: int

    def __len__(self) -> int:
        """The number of offsets."""
        return len(self.starts) - 1

    @cached_property
    def transposed(self) -> KernelMap:
        """The map of the transposed convolution: in and out exchanged, each pair under the same weight."""
        return KernelMap(self.out_rows, self.in_rows, self.starts, self.num_out, self.num_in)

    @cached_property
    def bounds(self) -> np.ndarray:
        """(K, blocks + 1) int64: where each block of rows of out begins among the pairs of each offset."""
        bounds = np.empty((len(self), -(-self.num_out // BLOCK_ROWS) + 1), np.int64)
        run(block_bounds, len(self), self.out_rows.numpy(), np.array(self.starts), BLOCK_ROWS, bounds, threads=1)
        return bounds


def kernel_map(
    voxels: Voxels, kernel_size: int, stride: int = 1, dilation: int = 1
) -> KernelMap | NeighborTable:
    """The map from `voxels` to themselves (stride 1) or to the coarser set that they fill; made once, then remembered.

    Pairs on the CPU, a table of neighbours on other devices.

    Coarser coordinates are floor(c / (stride t)) * stride t of the voxels at stride t, also of negative ones.
    Offsets are in steps of dilation * t; odd kernels are centred, even ones begin at 0; x runs fastest.
    """
    for name, value in (("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)):
        if value < 1:
            raise DataError(name, f"{value}", "1 or more")
    key = (voxels.stride, kernel_size, stride, dilation, has_kernels(voxels.coords))
    if key not in voxels.maps:
        voxels.maps[key] = _make(voxels, kernel_size, stride, dilation)
    return voxels.maps[key]


@torch.no_grad()
def coarser(voxels: Voxels, stride: int) -> tuple[Int[Tensor, "m 4"], Int[Tensor, "b1"]]:
    """Coordinates and offsets of the voxels of `stride` times the size that hold these; remembered."""
    _remember(voxels)
    wanted = voxels.stride * stride
    if ("coords", wanted) not in voxels.maps:
        voxels.maps["coords", wanted] = _coarsen(voxels.coords, wanted, len(voxels))
    return voxels.maps["coords", wanted]


def finer(voxels: Voxels, stride: int) -> tuple[Int[Tensor, "m 4"], Int[Tensor, "b1"]]:
    """Coordinates and offsets of the remembered set that these voxels were made from by a stride."""
    if stride < 1:
        raise DataError("stride", f"{stride}", "1 or more")
    _remember(voxels)
    wanted, rest = divmod(voxels.stride, stride)
    if rest or ("coords", wanted) not in voxels.maps:
        have = sorted(key[1] for key in voxels.maps if key[0] == "coords")
        raise DataError("transposed convolution", f"no coordinates at stride {voxels.stride / stride:g}",
                        f"voxels that came from there by a strided convolution; there are strides {have}")
    return voxels.maps["coords", wanted]


def _remember(voxels: Voxels) -> None:
    voxels.maps.setdefault(("coords", voxels.stride), (voxels.coords, voxels.offsets))


def offsets_of(kernel_size: int, step: int = 1) -> Int[Tensor, "k 3"]:
    """(K^3, 3) offsets (x, y, z) in the order of the weights: x fastest; centred for odd sizes, from 0 for even."""
    start = -(kernel_size // 2) if kernel_size % 2 else 0
    z, y, x = torch.meshgrid(*[torch.arange(start, start + kernel_size)] * 3, indexing="ij")
    return torch.stack([x, y, z], -1).view(-1, 3) * step


def _coarsen(coords: Tensor, step: int, clouds: int) -> tuple[Tensor, Tensor]:
    if not len(coords):
        return coords, torch.zeros(clouds + 1, dtype=torch.long, device=coords.device)
    packing = Packing.of(coords, reach=step)
    keys = packing.keys(coords, step)
    if has_kernels(keys):
        keys = np.sort(keys.numpy())
        keys = torch.from_numpy(keys[np.append(True, keys[1:] != keys[:-1])])
    else:
        keys = torch.unique(keys)
    first = torch.arange(clouds + 1, device=keys.device) * packing.weights[0]
    return packing.coords(keys), torch.searchsorted(keys, first)


@torch.no_grad()
def _make(voxels: Voxels, kernel_size: int, stride: int, dilation: int) -> KernelMap | NeighborTable:
    _remember(voxels)
    ins, outs = voxels.coords, coarser(voxels, stride)[0]
    offsets = offsets_of(kernel_size, voxels.stride * dilation)
    if not len(ins):
        none = torch.zeros(0, dtype=torch.int32, device=ins.device)
        if not has_kernels(ins):
            return NeighborTable(none.view(len(offsets), 0), 0)
        return KernelMap(none, none, (0,) * (len(offsets) + 1), 0, 0)
    packing = Packing.of(ins, reach=int(offsets.abs().max()) + voxels.stride * stride)
    in_keys = packing.keys(ins)
    out_keys = in_keys if outs is ins else packing.keys(outs)
    if not has_kernels(ins):
        return search(in_keys, out_keys, packing.shift(offsets.to(ins.device)))
    # Of a centred kernel on one set the second half of the offsets are the pairs of the first half, exchanged.
    half = len(offsets) // 2 if outs is ins and kernel_size % 2 else len(offsets)
    found = _merge(in_keys, out_keys, packing.shift(offsets[:half]))
    if half < len(offsets):
        own = torch.arange(len(ins), dtype=torch.int32)
        found += [(own, own), *((b, a) for a, b in reversed(found))]
    starts = np.cumsum([0] + [len(a) for a, _ in found])
    rows = (torch.cat(side) for side in zip(*found))
    return KernelMap(*rows, tuple(starts.tolist()), len(ins), len(outs))


def _merge(in_keys: Tensor, out_keys: Tensor, shifts: Tensor) -> list[tuple[Tensor, Tensor]]:
    room = (len(shifts), len(out_keys))
    in_rows, out_rows, counts = np.empty(room, np.int32), np.empty(room, np.int32), np.zeros(len(shifts), np.int64)
    run(kernels.merge, len(shifts), in_keys.numpy(), out_keys.numpy(), shifts.numpy(), in_rows, out_rows, counts,
        least=max(1, WORTH // len(out_keys)))
    sides = (torch.from_numpy(in_rows), torch.from_numpy(out_rows))
    return [tuple(side[i, :n] for side in sides) for i, n in enumerate(counts.tolist())]
