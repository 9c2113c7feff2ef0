"""Transforms that drop or repeat points: `Crop`, `Cutout`, `PointDropout`, `PartialView`, `Resample`.

They keep features, point labels and `indices` with their points, and leave every cloud at least one point.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool2d

from contrast3d.data.draws import Draws
from contrast3d.data.segments import (
    bounding_box_middle,
    cloud_max,
    cloud_smallest,
    keep_points,
    map_points,
    per_point,
    tracked,
)
from contrast3d.data.transforms import require
from contrast3d.types import Clouds


class Dropper(ABC):
    """A transform that drops points."""

    @abstractmethod
    def mask(self, clouds: Clouds, draws: Draws) -> Bool[Tensor, "n"]:
        """(sum N,) True for the points that stay, at least one of each cloud."""

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        return keep_points(clouds, self.mask(clouds, draws))


def _distances_to_random_point(clouds: Clouds, draws: Draws) -> Float[Tensor, "n"]:
    """Squared distance of each point to one random point of its cloud."""
    centers = clouds.points.index_select(0, clouds.offsets[:-1] + draws.integers(clouds.lengths))
    x, y, z = (p - per_point(clouds, c) for p, c in zip(clouds.points.unbind(1), centers.unbind(1)))
    return x * x + y * y + z * z


@dataclass(frozen=True)
class Crop(Dropper):
    """Keep the points nearest to a random one: a fraction of the cloud uniform in `keep`."""

    keep: tuple[float, float] = (0.7, 0.9)

    def __post_init__(self):
        require(0 <= self.keep[0] <= self.keep[1] <= 1, f"Crop: keep={self.keep} is no range of fractions")

    def mask(self, clouds: Clouds, draws: Draws) -> Bool[Tensor, "n"]:
        distances = _distances_to_random_point(clouds, draws)
        counts = (draws.uniform((), *self.keep) * clouds.lengths).round().long().clamp(min=1)
        limits = cloud_smallest(clouds, distances, torch.minimum(counts, clouds.lengths))
        return distances <= per_point(clouds, limits)


@dataclass(frozen=True)
class Cutout(Dropper):
    """Remove the points nearest to a random one: a fraction of the cloud uniform in `remove`."""

    remove: tuple[float, float] = (0.1, 0.3)

    def __post_init__(self):
        require(0 <= self.remove[0] <= self.remove[1] <= 1,
                f"Cutout: remove={self.remove} is no range of fractions")

    def mask(self, clouds: Clouds, draws: Draws) -> Bool[Tensor, "n"]:
        distances = _distances_to_random_point(clouds, draws)
        counts = (draws.uniform((), *self.remove) * clouds.lengths).round().long()
        limits = cloud_smallest(clouds, distances, torch.minimum(counts + 1, clouds.lengths))
        return distances >= per_point(clouds, limits)


@dataclass(frozen=True)
class PointDropout(Dropper):
    """Drop each point with a probability drawn per sample, uniform in [0, max_ratio] (PointNet++)."""

    max_ratio: float = 0.3

    def __post_init__(self):
        require(0 <= self.max_ratio <= 1, f"PointDropout: max_ratio={self.max_ratio} is no fraction")

    def mask(self, clouds: Clouds, draws: Draws) -> Bool[Tensor, "n"]:
        ratios = per_point(clouds, draws.uniform((), 0.0, self.max_ratio))
        keep = draws.points_uniform(clouds).flatten() >= ratios
        keep[clouds.offsets[:-1] + draws.integers(clouds.lengths)] = True
        return keep


@dataclass(frozen=True)
class PartialView(Dropper):
    """Keep what a camera sees that looks at the cloud from a random side.

    The camera stands on a sphere of `distance` radii around the middle of the bounding box, at an elevation
    (degrees, z up) within `elevation`, uniform over that part of the sphere. Hidden are the points that lie
    more than three cells' width behind the nearest point in their cell of a depth buffer or in the eight
    around it: sparse surfaces close up, and those seen at up to about 60 degrees stay whole. The buffer has
    sqrt(N) / 2 cells a side, `grid` at most; a few dozen points are too sparse to hide one another.
    """

    distance: float = 3.0
    elevation: tuple[float, float] = (-90.0, 90.0)
    grid: int = 64

    def __post_init__(self):
        require(self.distance > 1, f"PartialView: a camera at {self.distance} radii stands inside the cloud")
        low, high = self.elevation
        require(-90 <= low <= high <= 90,
                f"PartialView: elevation={self.elevation} is no range within -90 ... 90")

    def mask(self, clouds: Clouds, draws: Draws) -> Bool[Tensor, "n"]:
        points = (clouds.points - per_point(clouds, bounding_box_middle(clouds))).float()
        right, up, toward = map_points(clouds, points, self._axes(draws)).T.contiguous()
        radius = cloud_max(clouds, right * right + up * up + toward * toward).sqrt().clamp(min=1e-12)
        depth = self.distance - toward / per_point(clouds, radius)

        cells = (clouds.lengths.sqrt() / 2).clamp(1, self.grid).floor()
        half = 1 / math.sqrt(self.distance**2 - 1)  # tangent of half the angle that the unit sphere fills
        zoom = per_point(clouds, cells / (2 * half * radius)) / depth
        middle = per_point(clouds, cells / 2)
        side = int(cells.max()) + 1  # one to spare for points on the far edge
        column, row = ((across * zoom + middle).long().clamp_(0, side - 1) for across in (right, up))
        cell = (clouds.batch_index * side + row) * side + column
        nearest = depth.new_full((len(clouds) * side**2,), math.inf)
        nearest.scatter_reduce_(0, cell, depth, "amin")
        nearest = -max_pool2d(-nearest.view(-1, 1, side, side), 3, stride=1, padding=1)
        return depth <= nearest.flatten().index_select(0, cell) + per_point(clouds, 3 * 2 / cells)

    def _axes(self, draws: Draws) -> Float[Tensor, "b 3 3"]:
        """The axes of each camera as rows: right, up, and from the cloud toward the camera."""
        azimuth = draws.uniform((), -math.pi, math.pi)
        low, high = (math.sin(math.radians(e)) for e in self.elevation)
        sin_e = draws.uniform((), low, high)
        cos_e, sin_a, cos_a = (1 - sin_e.square()).clamp(min=0).sqrt(), azimuth.sin(), azimuth.cos()
        return torch.stack((
            -sin_a, cos_a, torch.zeros_like(sin_a),
            -sin_e * cos_a, -sin_e * sin_a, cos_e,
            cos_e * cos_a, cos_e * sin_a, sin_e,
        ), 1).view(-1, 3, 3)


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
        # Random words whose low half is the row all differ: exactly `extra` of them are within the limit.
        order = draws.points_words(clouds).bitwise_and_(-(1 << 32))
        order += torch.arange(len(order), device=order.device)
        times, extra = self.num_points // lengths, self.num_points % lengths
        limits = cloud_smallest(clouds, order, extra.clamp(min=1))
        limits.masked_fill_(extra == 0, torch.iinfo(limits.dtype).min)
        copies = per_point(clouds, times) + (order <= per_point(clouds, limits))
        return torch.repeat_interleave(copies, output_size=len(clouds) * self.num_points)
