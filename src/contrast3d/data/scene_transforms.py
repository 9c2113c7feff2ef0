"""Transforms of scenes, and the pipelines of PointContrast's segmentation (Xie et al. 2020; Choy et al. 2019).

Metres, z up. Colours are the first three columns of `Clouds.features`, colour / 255 - 0.5; transforms of colours leave
clouds without features as they are.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool3d

from contrast3d.data.compose import Compose
from contrast3d.data.crops import Dropper
from contrast3d.data.draws import Draws
from contrast3d.data.segments import bounding_box_middle, cloud_max, cloud_min, cloud_smallest, per_point
from contrast3d.data.transforms import (
    Affine,
    Scale,
    Transform,
    apply_affine,
    axis_rotation,
    homogeneous,
    require,
)
from contrast3d.errors import ConfigError
from contrast3d.types import Clouds


@dataclass(frozen=True)
class Center:
    """Move each scene so that its box is centred on x and y, and its lowest point lies at z = 0."""

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        shift = -bounding_box_middle(clouds)
        shift[:, 2] = -cloud_min(clouds, clouds.points[:, 2].contiguous())
        linear = torch.eye(3, dtype=shift.dtype, device=shift.device).expand(len(clouds), 3, 3)
        return apply_affine(clouds, homogeneous(linear, shift))


@dataclass(frozen=True)
class BoxCrop(Dropper):
    """Of scenes as large as `half` along any axis, keep the box that reaches `half` metres from a random centre.

    around: "middle", that of the scene's box, moved by up to `shift` of its extent along each axis; or "point", a
    random point of the scene. Where nothing lies in the box, the scene stays whole.
    """

    half: float = 4.0
    shift: tuple[float, float, float] = (0.2, 0.2, 0.05)
    around: str = "middle"

    def __post_init__(self):
        require(self.half > 0, f"BoxCrop: half={self.half} is no length")
        require(self.around in ("middle", "point"), f"BoxCrop: around={self.around!r} is not 'middle' or 'point'")

    def mask(self, clouds: Clouds, draws: Draws) -> Bool[Tensor, "n"]:
        middle = bounding_box_middle(clouds)
        size = 2 * torch.stack([
            cloud_max(clouds, axis.contiguous()) for axis in (clouds.points - per_point(clouds, middle)).unbind(1)
        ], 1)
        if self.around == "point":
            center = clouds.points.index_select(0, clouds.offsets[:-1] + draws.integers(clouds.lengths))
        else:
            center = middle + draws.uniform((3,), -1.0, 1.0) * size.new_tensor(self.shift) * size
        away = clouds.points - per_point(clouds, center)
        inside = ((away >= -self.half) & (away < self.half)).all(1)
        hits = torch.zeros(len(clouds), device=inside.device).index_add(0, clouds.batch_index, inside.float())
        whole = (size.amax(1) < self.half) | (hits == 0)
        return inside | per_point(clouds, whole)


@dataclass(frozen=True)
class Tilt(Affine):
    """Turn about x and y by up to +-tilt_degrees and about z by up to +-turn_degrees, in random order."""

    tilt_degrees: float = 180 / 64
    turn_degrees: float = 180.0

    def matrices(self, draws: Draws) -> Float[Tensor, "b 4 4"]:
        limits = [math.radians(d) for d in (self.tilt_degrees, self.tilt_degrees, self.turn_degrees)]
        angles = draws.uniform((3,), -1.0, 1.0)
        turns = torch.stack([axis_rotation(i, angles[:, i] * limit) for i, limit in enumerate(limits)], 1)
        order = draws.uniform((3,)).argsort(1)
        first, second, third = turns.gather(1, order[:, :, None, None].expand_as(turns)).unbind(1)
        return homogeneous(third @ second @ first)


@dataclass(frozen=True)
class Mirror(Affine):
    """With probability p, mirror each horizontal axis with probability a half."""

    p: float = 0.95

    def matrices(self, draws: Draws) -> Float[Tensor, "b 4 4"]:
        flipped = (draws.uniform((2,)) < 0.5) & (draws.uniform((1,)) < self.p)
        factors = torch.ones(len(draws), 3, device=flipped.device)
        factors[:, :2] -= 2.0 * flipped
        return homogeneous(torch.diag_embed(factors))


@dataclass(frozen=True)
class Elastic:
    """With probability p, bend each scene: smooth noise on a grid, interpolated at the points, times `magnitude`.

    granularity: metres between the nodes of the grid; its normal noise is smoothed twice by a box of three nodes along
    each axis. magnitude: metres.
    """

    granularity: float = 0.2
    magnitude: float = 0.4
    p: float = 0.95

    def __post_init__(self):
        require(self.granularity > 0, f"Elastic: granularity={self.granularity} is no length")

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        chosen, noise = draws.uniform() < self.p, draws.children(1)[0]
        points, bounds = clouds.points.clone(), clouds.offsets.tolist()
        for b in chosen.nonzero().flatten().tolist():
            rows = slice(bounds[b], bounds[b + 1])
            points[rows] += self._bent(points[rows], noise.take(slice(b, b + 1)))
        return clouds.replace(points=points)

    def _bent(self, points: Float[Tensor, "n 3"], draws: Draws) -> Float[Tensor, "n 3"]:
        if not len(points):
            return points
        places = (points - points.amin(0)) / self.granularity + 1  # one node of margin on either side
        nodes = [int(n) + 3 for n in places.amax(0).tolist()]
        grid = draws.normal((3, *nodes)).to(points.dtype)
        for _ in range(2):
            grid = avg_pool3d(grid, 3, stride=1, padding=1)  # of zeros beyond: three box filters, one per axis
        return self.magnitude * _interpolated(grid[0].flatten(1), places, nodes)


def _interpolated(values: Float[Tensor, "3 g"], places: Float[Tensor, "n 3"], nodes: list[int]) -> Float[Tensor, "n 3"]:
    """Trilinear: each point gets the values of the eight nodes around it, weighted by nearness."""
    low = places.floor()
    part, low = places - low, low.long()
    result = torch.zeros_like(places)
    for corner in itertools.product((0, 1), repeat=3):
        node = low + low.new_tensor(corner)
        weight = torch.where(low.new_tensor(corner) == 1, part, 1 - part).prod(1, keepdim=True)
        flat = (node[:, 0] * nodes[1] + node[:, 1]) * nodes[2] + node[:, 2]
        result += weight * values[:, flat].T
    return result


@dataclass(frozen=True)
class DropShare(Dropper):
    """With probability p, drop a share of the points of a scene, exactly as many."""

    share: float = 0.2
    p: float = 0.2

    def __post_init__(self):
        require(0 <= self.share < 1, f"DropShare: share={self.share} is no fraction below 1")

    def mask(self, clouds: Clouds, draws: Draws) -> Bool[Tensor, "n"]:
        share = self.share * (draws.uniform() < self.p)
        kept = (clouds.lengths * (1 - share)).round().long().clamp(min=1)
        order = draws.points_words(clouds)
        return order <= per_point(clouds, cloud_smallest(clouds, order, torch.minimum(kept, clouds.lengths)))


def _recolored(clouds: Clouds, colors: Float[Tensor, "n 3"]) -> Clouds:
    return clouds.replace(features=torch.cat((colors, clouds.features[:, 3:]), 1))


@dataclass(frozen=True)
class AutoContrast:
    """With probability p, blend each channel by a random share with itself stretched over the whole range."""

    p: float = 0.2

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        if clouds.features is None:
            return clouds
        blend = draws.uniform((1,)) * (draws.uniform((1,)) < self.p)
        colors = clouds.features[:, :3]
        channels = [channel.contiguous() for channel in colors.unbind(1)]
        low = torch.stack([cloud_min(clouds, channel) for channel in channels], 1)
        width = torch.stack([cloud_max(clouds, channel) for channel in channels], 1) - low
        factor = torch.where(width > 0, 1 / width, 1)
        shift = torch.where(width > 0, -low * factor - 0.5, 0)
        stretched = colors * per_point(clouds, factor) + per_point(clouds, shift)
        return _recolored(clouds, torch.lerp(colors, stretched, per_point(clouds, blend)))


@dataclass(frozen=True)
class ColorShift:
    """With probability p, add to each channel a number uniform in +-limit (1 is the whole range), clipped."""

    limit: float = 0.1
    p: float = 0.95

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        if clouds.features is None:
            return clouds
        shift = draws.uniform((3,), -self.limit, self.limit) * (draws.uniform((1,)) < self.p)
        return _recolored(clouds, (clouds.features[:, :3] + per_point(clouds, shift)).clamp(-0.5, 0.5))


@dataclass(frozen=True)
class ColorJitter:
    """With probability p, add normal noise of deviation `std` to each channel of each point, clipped."""

    std: float = 0.05
    p: float = 0.95

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        if clouds.features is None:
            return clouds
        std = per_point(clouds, self.std * (draws.uniform((1,)) < self.p))
        noise = draws.points_normal(clouds, 3) * std
        return _recolored(clouds, (clouds.features[:, :3] + noise).clamp(-0.5, 0.5))


@dataclass(frozen=True)
class ScenePipeline:
    """What happens to the points of a scene, and, when one point of each voxel is left, to those.

    As a transform, one after the other without voxels between them.
    """

    points: Transform
    voxels: Transform

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        first, second = draws.children(2)
        return self.voxels(self.points(clouds, first), second)


def _colors(shift: float, jitter: float) -> Compose:
    return Compose((DropShare(0.2, 0.2), AutoContrast(0.2), ColorShift(shift), ColorJitter(jitter)))


_SCALE = Scale(0.9, 1.1, log=False)
PIPELINES = {
    # mirrored before the voxels are cut instead of after: the same, and the phase of the grid stays ours
    "s3dis": ScenePipeline(
        Compose((Center(), BoxCrop(4.0, (0.2, 0.2, 0.05)), Tilt(180 / 32), _SCALE, Mirror())), _colors(0.05, 0.005),
    ),
    "scannet": ScenePipeline(
        Compose((Center(), Elastic(0.2, 0.4), Elastic(0.8, 1.6), Tilt(180 / 64), _SCALE, Mirror())),
        _colors(0.10, 0.05),
    ),
    # ours: ScanNet's without the bending, which takes longer than all the rest
    "rooms": ScenePipeline(Compose((Center(), Tilt(180 / 64), _SCALE, Mirror())), _colors(0.10, 0.05)),
    "none": ScenePipeline(Center(), Compose(())),
}


def scene_pipeline(name: str) -> ScenePipeline:
    """The pipeline `name`: "s3dis", "scannet", "rooms" or "none", which only centres; a ConfigError lists them."""
    if name not in PIPELINES:
        raise ConfigError(f"no scene pipeline {name!r}; there are: {', '.join(PIPELINES)}")
    return PIPELINES[name]
