"""Transforms of whole batches, `transform(clouds, draws) -> Clouds`: affine maps, noise, normalisation.

A transform is a frozen dataclass. It works on packed and dense batches, on any device, never in place, and
draws its parameters per sample from `Draws`. Affine maps act about the origin and accumulate in
`clouds.transform`; z (axis 2) is up. Transforms that drop points live in `crops.py`, those made of other
transforms in `compose.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.data.draws import Draws
from contrast3d.data.segments import (
    bounding_box_middle,
    cloud_max,
    cloud_mean,
    map_points,
    per_point,
    tracked,
)
from contrast3d.errors import ConfigError
from contrast3d.types import Clouds

Transform = Callable[[Clouds, Draws], Clouds]


def require(condition: bool, message: str) -> None:
    """A ConfigError unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def apply_affine(clouds: Clouds, matrices: Float[Tensor, "b 4 4"]) -> Clouds:
    """Map cloud b by matrices[b] (column vectors, last row 0 0 0 1) and accumulate it in `transform`."""
    done, maps = tracked(clouds).transform, matrices.to(clouds.points.dtype)
    points = map_points(clouds, clouds.points, maps[:, :3, :3]).add_(per_point(clouds, maps[:, :3, 3]))
    return clouds.replace(points=points, transform=matrices.to(done.dtype) @ done)


def homogeneous(
    linear: Float[Tensor, "b 3 3"], shift: Float[Tensor, "b 3"] | None = None
) -> Float[Tensor, "b 4 4"]:
    """Linear maps and shifts -> 4 x 4 matrices."""
    matrices = torch.zeros(len(linear), 4, 4, dtype=linear.dtype, device=linear.device)
    matrices[:, :3, :3] = linear
    if shift is not None:
        matrices[:, :3, 3] = shift
    matrices[:, 3, 3] = 1
    return matrices


def axis_rotation(axis: int, radians: Float[Tensor, "b"]) -> Float[Tensor, "b 3 3"]:
    """Right-handed rotations about a coordinate axis."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    cos, sin = radians.cos(), radians.sin()
    rotation = torch.zeros(len(radians), 3, 3, device=radians.device)
    rotation[:, axis, axis] = 1
    rotation[:, first, first], rotation[:, second, second] = cos, cos
    rotation[:, second, first], rotation[:, first, second] = sin, -sin
    return rotation


class Affine(ABC):
    """A transform whose maps do not depend on the points; `Compose` joins neighbours into one product."""

    @abstractmethod
    def matrices(self, draws: Draws) -> Float[Tensor, "b 4 4"]:
        """The B affine maps (column vectors, last row 0 0 0 1) of the samples of `draws`."""

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        return apply_affine(clouds, self.matrices(draws))


@dataclass(frozen=True)
class Shift(Affine):
    """Move by a vector uniform in [-limit, limit]^3."""

    limit: float = 0.1

    def matrices(self, draws: Draws) -> Float[Tensor, "b 4 4"]:
        shift = draws.uniform((3,), -self.limit, self.limit)
        return homogeneous(torch.eye(3, device=shift.device).expand(len(shift), 3, 3), shift)


@dataclass(frozen=True)
class Shear(Affine):
    """Identity plus off-diagonal entries uniform in [-limit, limit]."""

    limit: float = 0.2

    def matrices(self, draws: Draws) -> Float[Tensor, "b 4 4"]:
        shear = draws.uniform((3, 3), -self.limit, self.limit)
        shear.diagonal(dim1=1, dim2=2).fill_(1)
        return homogeneous(shear)


@dataclass(frozen=True)
class Rotate(Affine):
    """Turn about one axis by an angle uniform in +-max_degrees; axis 0, 1, 2, "x", "y", "z" or "up" (z)."""

    about: int | str = "up"
    max_degrees: float = 180.0

    def __post_init__(self):
        require(self.about in (0, 1, 2, "x", "y", "z", "up"), f"Rotate: about={self.about!r} is not an axis: "
                "use 0, 1, 2, 'x', 'y', 'z' or 'up'")

    def matrices(self, draws: Draws) -> Float[Tensor, "b 4 4"]:
        axis = {"x": 0, "y": 1, "z": 2, "up": 2}.get(self.about, self.about)
        limit = math.radians(self.max_degrees)
        return homogeneous(axis_rotation(axis, draws.uniform((), -limit, limit)))


@dataclass(frozen=True)
class RotateSmall(Affine):
    """Turn about x, then y, then z, each by an angle uniform in +-max_degrees."""

    max_degrees: float = 15.0

    def matrices(self, draws: Draws) -> Float[Tensor, "b 4 4"]:
        limit = math.radians(self.max_degrees)
        x, y, z = draws.uniform((3,), -limit, limit).unbind(1)
        return homogeneous(axis_rotation(2, z) @ axis_rotation(1, y) @ axis_rotation(0, x))


@dataclass(frozen=True)
class RotateSO3(Affine):
    """Turn by a rotation uniform over SO(3): a unit quaternion of four normals (Muller 1959)."""

    def matrices(self, draws: Draws) -> Float[Tensor, "b 4 4"]:
        w, x, y, z = torch.nn.functional.normalize(draws.normal((4,)), dim=1).unbind(1)
        rows = (
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        )
        return homogeneous(torch.stack(rows, 1).view(-1, 3, 3))


def _factors(draws: Draws, count: int, low: float, high: float, log: bool) -> Float[Tensor, "b c"]:
    if log:
        return draws.uniform((count,), math.log(low), math.log(high)).exp()
    return draws.uniform((count,), low, high)


@dataclass(frozen=True)
class Scale(Affine):
    """Scale by one factor in [low, high], log-uniform (as often by f as by 1 / f) or uniform."""

    low: float = 1 / 1.2
    high: float = 1.2
    log: bool = True

    def __post_init__(self):
        require(0 < self.low <= self.high, f"Scale: {self.low} ... {self.high} is no range of factors")

    def matrices(self, draws: Draws) -> Float[Tensor, "b 4 4"]:
        return homogeneous(torch.diag_embed(_factors(draws, 1, self.low, self.high, self.log).expand(-1, 3)))


@dataclass(frozen=True)
class ScaleAxes(Affine):
    """Scale each axis by its own factor in [low, high], log-uniform or uniform."""

    low: float = 2 / 3
    high: float = 3 / 2
    log: bool = True

    def __post_init__(self):
        require(0 < self.low <= self.high, f"ScaleAxes: {self.low} ... {self.high} is no range of factors")

    def matrices(self, draws: Draws) -> Float[Tensor, "b 4 4"]:
        return homogeneous(torch.diag_embed(_factors(draws, 3, self.low, self.high, self.log)))


@dataclass(frozen=True)
class Flip(Affine):
    """Mirror one axis with probability p."""

    axis: int = 1
    p: float = 0.5

    def __post_init__(self):
        require(self.axis in (0, 1, 2), f"Flip: axis {self.axis} is not 0, 1 or 2")

    def matrices(self, draws: Draws) -> Float[Tensor, "b 4 4"]:
        factors = torch.ones(len(draws), 3, device=draws.keys.device)
        factors[:, self.axis] -= 2 * (draws.uniform() < self.p)
        return homogeneous(torch.diag_embed(factors))


@dataclass(frozen=True)
class Jitter:
    """Add normal noise of deviation `std`, clipped to +-clip, to every coordinate."""

    std: float = 0.01
    clip: float | None = 0.05

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        noise = draws.points_normal(clouds, 3) * self.std
        if self.clip is not None:
            noise.clamp_(-self.clip, self.clip)
        return clouds.replace(points=clouds.points + noise.to(clouds.points.dtype))


@dataclass(frozen=True)
class UniformJitter:
    """Add noise uniform in [-limit, limit] to every coordinate."""

    limit: float = 0.05

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        noise = draws.points_uniform(clouds, 3).mul(2 * self.limit).sub_(self.limit)
        return clouds.replace(points=clouds.points + noise.to(clouds.points.dtype))


@dataclass(frozen=True)
class Normalize:
    """Centre each cloud and scale it into the unit sphere (its farthest point at distance 1).

    center: "mean" of the points, or the middle of the "bbox". A cloud of one place is only centred.
    """

    center: str = "mean"

    def __post_init__(self):
        require(self.center in ("mean", "bbox"), f"Normalize: center={self.center!r} is not 'mean' or 'bbox'")

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        mean = self.center == "mean"
        center = cloud_mean(clouds, clouds.points) if mean else bounding_box_middle(clouds)
        x, y, z = (clouds.points - per_point(clouds, center)).unbind(1)
        radius = cloud_max(clouds, x * x + y * y + z * z).sqrt()
        factor = torch.where(radius > 0, 1 / radius, 1)[:, None]
        return apply_affine(clouds, homogeneous(torch.diag_embed(factor.expand(-1, 3)), -center * factor))
