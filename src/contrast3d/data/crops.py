"""Transforms that drop or repeat points: `Crop`, `Cutout`, `PointDropout`, `PartialView`, `Resample`.

They keep features, point labels and `indices` with their points, and leave every cloud at least one point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contrast3d.data.draws import Draws
from contrast3d.data.transforms import reduce_clouds, require, tracked
from contrast3d.types import Clouds


def keep_points(clouds: Clouds, keep: Bool[Tensor, "n"]) -> Clouds:
    """The points where `keep` is True, in their order; indices are filled in where they are missing."""
    counts = torch.cat((clouds.offsets.new_zeros(1), keep.cumsum(0)))
    return tracked(clouds).take_points(keep.nonzero().flatten(), counts[clouds.offsets])


def smallest(clouds: Clouds, values: Tensor, counts: Int[Tensor, "b"]) -> Tensor:
    """Loop: for cloud b, the counts[b]-th smallest (from 1) of its per-point values (sum N,) -> (B,)."""
    if clouds.is_dense:
        table = clouds.as_dense(values)
    else:
        lengths = clouds.lengths
        top = math.inf if values.is_floating_point() else torch.iinfo(values.dtype).max
        table = values.new_full((len(clouds), int(lengths.max())), top)
        table[torch.arange(table.shape[1], device=values.device) < lengths[:, None]] = values
    return _sorted_rows(table).gather(1, counts[:, None] - 1).flatten()


def _sorted_rows(table: Tensor) -> Tensor:
    if table.device.type == "cpu":  # numpy's vectorised sort of bare values is 30 times faster than torch's
        array = table.contiguous().clone().numpy()
        array.sort(axis=1)
        return torch.from_numpy(array)
    return table.sort(dim=1).values


def _distances_to_random_point(clouds: Clouds, draws: Draws) -> Float[Tensor, "n"]:
    """Squared distance of each point to one random point of its cloud."""
    centers = clouds.points.index_select(0, clouds.offsets[:-1] + draws.integers(clouds.lengths))
    return (clouds.points - centers.repeat_interleave(clouds.lengths, dim=0)).square_().sum(1)


@dataclass(frozen=True)
class Crop:
    """Keep the points nearest to a random one: a fraction of the cloud uniform in `keep`."""

    keep: tuple[float, float] = (0.7, 0.9)

    def __post_init__(self):
        require(0 <= self.keep[0] <= self.keep[1] <= 1, f"Crop: keep={self.keep} is no range of fractions")

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        distances = _distances_to_random_point(clouds, draws)
        counts = (draws.uniform((), *self.keep) * clouds.lengths).round().long().clamp(min=1)
        limits = smallest(clouds, distances, torch.minimum(counts, clouds.lengths))
        return keep_points(clouds, distances <= limits.repeat_interleave(clouds.lengths))


@dataclass(frozen=True)
class Cutout:
    """Remove the points nearest to a random one: a fraction of the cloud uniform in `remove`."""

    remove: tuple[float, float] = (0.1, 0.3)

    def __post_init__(self):
        require(0 <= self.remove[0] <= self.remove[1] <= 1,
                f"Cutout: remove={self.remove} is no range of fractions")

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        distances = _distances_to_random_point(clouds, draws)
        counts = (draws.uniform((), *self.remove) * clouds.lengths).round().long()
        limits = smallest(clouds, distances, torch.minimum(counts + 1, clouds.lengths))
        return keep_points(clouds, distances >= limits.repeat_interleave(clouds.lengths))


@dataclass(frozen=True)
class PointDropout:
    """Drop each point with a probability drawn per sample, uniform in [0, max_ratio] (PointNet++)."""

    max_ratio: float = 0.3

    def __post_init__(self):
        require(0 <= self.max_ratio <= 1, f"PointDropout: max_ratio={self.max_ratio} is no fraction")

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        ratios = draws.uniform((), 0.0, self.max_ratio).repeat_interleave(clouds.lengths)
        keep = draws.points_uniform(clouds).flatten() >= ratios
        keep[clouds.offsets[:-1] + draws.integers(clouds.lengths)] = True
        return keep_points(clouds, keep)


@dataclass(frozen=True)
class PartialView:
    """Keep what a camera sees that looks at the cloud from a random side.

    The camera stands on a sphere of `distance` radii around the middle of the bounding box, at an elevation
    (degrees, z up) within `elevation`, uniform over that part of the sphere. Hidden are the points that lie
    more than a cell's width behind the nearest point of their cell in a depth buffer. The buffer has
    sqrt(N) / 2 cells a side, `grid` at most: about four points to a cell, so that surfaces close up.
    """

    distance: float = 3.0
    elevation: tuple[float, float] = (-90.0, 90.0)
    grid: int = 64

    def __post_init__(self):
        require(self.distance > 1, f"PartialView: a camera at {self.distance} radii stands inside the cloud")
        low, high = self.elevation
        require(-90 <= low <= high <= 90,
                f"PartialView: elevation={self.elevation} is no range within -90 ... 90")

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        low, high = (reduce_clouds(clouds, clouds.points, how) for how in ("amin", "amax"))
        of_point = clouds.batch_index
        points = (clouds.points - ((low + high) / 2).index_select(0, of_point)).float()
        radius = reduce_clouds(clouds, points.square().sum(1), "amax").sqrt().clamp(min=1e-12)
        points /= radius.index_select(0, of_point)[:, None]
        frames = self._frames(draws).index_select(0, of_point)
        right, up, toward = (frames.view(-1, 3, 3) * points[:, None]).sum(-1).unbind(1)
        depth = self.distance - toward

        cells = (clouds.lengths.sqrt() / 2).clamp(1, self.grid).floor()
        half = 1 / math.sqrt(self.distance**2 - 1)  # tangent of the angle under which the unit sphere appears
        side = cells.index_select(0, of_point)
        column, row = (
            ((across / depth / half + 1) / 2 * side).long().clamp_(0, self.grid - 1) for across in (right, up)
        )
        cell = (of_point * self.grid + row) * self.grid + column
        nearest = depth.new_full((len(clouds) * self.grid**2,), math.inf)
        nearest.scatter_reduce_(0, cell, depth, "amin")
        return keep_points(clouds, depth <= nearest.index_select(0, cell) + 2 / side)

    def _frames(self, draws: Draws) -> Float[Tensor, "b 9"]:
        """Rows of each camera's axes: right, up, and from the cloud toward the camera."""
        azimuth = draws.uniform((), -math.pi, math.pi)
        low, high = (math.sin(math.radians(e)) for e in self.elevation)
        sin_e = draws.uniform((), low, high)
        cos_e, sin_a, cos_a = (1 - sin_e.square()).clamp(min=0).sqrt(), azimuth.sin(), azimuth.cos()
        return torch.stack((
            -sin_a, cos_a, torch.zeros_like(sin_a),
            -sin_e * cos_a, -sin_e * sin_a, cos_e,
            cos_e * cos_a, cos_e * sin_a, sin_e,
        ), 1)


@dataclass(frozen=True)
class Resample:
    """Bring every cloud to `num_points` points, a dense batch.

    A cloud of n points gives each of them num_points // n times, and a random num_points % n of them once
    more: a subset without replacement where there are enough points, every point at least once where there
    are not. Points keep their order. replacement=True draws each point independently, as PyG's FixedPoints.
    """

    num_points: int
    replacement: bool = False

    def __post_init__(self):
        require(self.num_points >= 1, f"Resample: num_points={self.num_points} is less than one")

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        if self.replacement:
            picks = draws.integers(clouds.lengths, (self.num_points,))
            rows = (clouds.offsets[:-1, None] + picks).flatten()
        elif bool((clouds.lengths == self.num_points).all()):
            return tracked(clouds)
        else:
            rows = self._balanced(clouds, draws)
        offsets = torch.arange(len(clouds) + 1, device=clouds.device) * self.num_points
        return tracked(clouds).take_points(rows, offsets)

    def _balanced(self, clouds: Clouds, draws: Draws) -> Int[Tensor, "m"]:
        lengths = clouds.lengths
        # Random values with the row in the low bits all differ: exactly `extra` of them are within the limit.
        order = (draws.points_uniform(clouds).flatten() * 2**24).long() << 32
        order += torch.arange(len(order), device=order.device)
        times, extra = self.num_points // lengths, self.num_points % lengths
        limits = smallest(clouds, order, extra.clamp(min=1)).masked_fill_(extra == 0, -1)
        copies = times.repeat_interleave(lengths) + (order <= limits.repeat_interleave(lengths))
        return torch.repeat_interleave(copies, output_size=len(clouds) * self.num_points)
