"""All pairs of points of two clouds that lie within a radius: the correspondences of two registered views."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import ConfigError
from contrast3d.ops.kernels import radius_matches as kernels
from contrast3d.ops.kernels import threads
from contrast3d.ops.kernels.inputs import check_finite

BLOCK = 1 << 25  # distances held at a time off the CPU


@torch.no_grad()
def radius_matches(
    first: Float[Tensor, "n 3"], second: Float[Tensor, "m 3"], radius: float
) -> Int[Tensor, "p 2"]:
    """All (i, j) int64 with |first[i] - second[j]| <= radius, by i, then by j; exact, many to many.

    Distances are in float64 (float32 on Apple GPUs). On CPU the second cloud is sorted into columns, so that only
    near points are looked at; other devices compare all with all, in blocks.

    Raises ConfigError where the radius is not positive, DataError where (CPU) a coordinate is not finite.
    """
    return correspondences(first, second, None, radius)


@torch.no_grad()
def correspondences(
    first: Float[Tensor, "n 3"], second: Float[Tensor, "m 3"], transform: Float[Tensor, "4 4"] | None, radius: float
) -> Int[Tensor, "p 2"]:
    """`radius_matches` of the first view, taken into the frame of the second one by `transform`, and the second.

    transform: (4, 4) for column vectors, first to second; None where both stand in one frame. PointContrast
    (Xie et al. 2020) takes T2 T1^-1 and 1.5 voxels, on one representative point per voxel.
    """
    if not (radius > 0 and np.isfinite(radius)):
        raise ConfigError(f"radius = {radius}; expected a positive number")
    dtype = torch.float32 if first.device.type == "mps" else torch.float64
    first, second = first.detach().to(dtype), second.detach().to(dtype)
    if transform is not None:
        transform = transform.to(first)
        # Written out: a product of three columns is no work for BLAS and its threads.
        first = sum(first[:, axis, None] * transform[:3, axis] for axis in range(3)) + transform[:3, 3]
    if first.device.type != "cpu":
        return _matches_torch(first, second, radius)
    check_finite("first", first.numpy())
    check_finite("second", second.numpy())
    return torch.from_numpy(_matches_cpu(first.contiguous().numpy(), second.contiguous().numpy(), float(radius)))


def _matches_cpu(first: np.ndarray, second: np.ndarray, radius: float) -> np.ndarray:
    """Count the matches of each point, then write them where they belong: no list has to grow."""
    if not len(first) or not len(second):
        return np.empty((0, 2), np.int64)
    columns = kernels.columns_of(second, radius)
    counts = np.empty(len(first), np.int64)
    threads.run(kernels.count_matches, len(first), first, radius, columns, counts)
    ends = counts.cumsum()
    out = np.empty((ends[-1], 2), np.int64)
    threads.run(kernels.fill_matches, len(first), first, radius, columns, ends, out)
    return out


def _matches_torch(first: Tensor, second: Tensor, radius: float) -> Tensor:
    """Any device, plain torch, memory bounded by BLOCK."""
    out = [torch.empty(0, 2, dtype=torch.int64, device=first.device)]
    step = max(1, BLOCK // max(1, len(second)))
    for start in range(0, len(first), step):
        some = first[start : start + step]
        distances = sum((some[:, axis, None] - second[:, axis]).square() for axis in range(3))
        found = (distances <= radius * radius).nonzero()
        found[:, 0] += start
        out.append(found)
    return torch.cat(out)
