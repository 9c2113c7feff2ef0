"""`Packing`: voxel coordinates as single numbers that keep their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.kernels import kernel_map as kernels
from contrast3d.ops.kernels.threads import run
from contrast3d.ops.portable import is_portable

WORTH = 1 << 15  # voxels whose packing takes longer than starting a thread


def has_kernels(tensor: Tensor) -> bool:
    """Whether the kernels serve this tensor: on the CPU, outside of `portable()`; plain torch does elsewhere."""
    return tensor.device.type == "cpu" and not is_portable()


@dataclass(frozen=True)
class Packing:
    """key = weights . ([cloud, x, y, z] - [0, *low]): rises with (cloud, x, y, z), and one offset is one number.

    low: (x, y, z) lowest coordinates that keys are made of. weights: of cloud, x, y and z; the last is 1.
    """

    low: tuple[int, int, int]
    weights: tuple[int, int, int, int]

    @classmethod
    def of(cls, coords: Int[Tensor, "m 4"], reach: int = 0) -> Packing:
        """Room for `coords`, at least one row, and for what is up to `reach` beyond them on each axis.

        Raises DataError where a coordinate would not fit into 32 bits, or the number of cells into 63.
        """
        lowest, highest = torch.stack(coords.aminmax(dim=0)).tolist()
        low, high = [c - reach for c in lowest[1:]], [c + reach for c in highest[1:]]
        if min(low) < -(2**31) or max(high) >= 2**31:
            raise DataError("coords", f"voxels from {min(low)} to {max(high)}, kernels included", "numbers of 32 bits",
                            "a larger voxel_size, or clouds moved to the origin")
        x, y, z = (b - a + 1 for a, b in zip(low, high))
        clouds = highest[0] + 1
        if clouds * x * y * z >= 2**63:
            raise DataError("coords", f"{clouds} clouds that extend over {x:,} x {y:,} x {z:,} voxels",
                            "fewer than 2^63 cells in all", "a larger voxel_size, or remove points that lie far off")
        return cls(tuple(low), (x * y * z, y * z, z, 1))

    def keys(self, coords: Int[Tensor, "m 4"], step: int = 1) -> Int[Tensor, "m"]:
        """(M,) int64; x, y, z are floored to multiples of `step` first, towards minus infinity."""
        if has_kernels(coords):
            keys = np.empty(len(coords), np.int64)
            run(kernels.keys_of, len(coords), coords.contiguous().numpy(), *self._arrays(), step, keys, least=WORTH)
            return torch.from_numpy(keys)
        low, weights = (torch.from_numpy(a).to(coords.device) for a in self._arrays())
        floored = torch.div(coords[:, 1:].long(), step, rounding_mode="floor") * step
        return coords[:, 0].long() * weights[0] + ((floored - low) * weights[1:]).sum(1)

    def coords(self, keys: Int[Tensor, "m"]) -> Int[Tensor, "m 4"]:
        """(M, 4) int32: what `keys` were made of."""
        if has_kernels(keys):
            coords = np.empty((len(keys), 4), np.int32)
            run(kernels.coords_of, len(keys), keys.numpy(), *self._arrays(), coords, least=WORTH)
            return torch.from_numpy(coords)
        columns, rest = [], keys
        for weight, low in zip(self.weights, (0, *self.low)):
            columns.append(torch.div(rest, weight, rounding_mode="floor") + low)
            rest = rest % weight
        return torch.stack(columns, 1).to(torch.int32)

    def shift(self, offsets: Int[Tensor, "k 3"]) -> Int[Tensor, "k"]:
        """(K,) what each offset (x, y, z) adds to a key."""
        return (offsets.long() * torch.tensor(self.weights[1:], device=offsets.device)).sum(1)

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.low, np.int64), np.array(self.weights, np.int64)
