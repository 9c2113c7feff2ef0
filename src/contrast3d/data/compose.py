"""Transforms made of transforms: `Compose`, `OneOf`, `RandomApply`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from contrast3d.data.crops import Dropper
from contrast3d.data.draws import Draws
from contrast3d.data.segments import keep_points, per_point, tracked
from contrast3d.data.transforms import Affine, Transform, apply_affine, require
from contrast3d.types import Clouds


@dataclass(frozen=True)
class Compose:
    """One transform after the other; neighbouring affine maps are joined and touch the points once.

    Each part draws from a stream of its own: what one consumes does not shift the draws of the next.
    """

    transforms: tuple[Transform, ...] | list[Transform]

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        pending = None
        for transform, own in zip(self.transforms, draws.children(len(self.transforms))):
            if isinstance(transform, Affine):
                matrices = transform.matrices(own)
                pending = matrices if pending is None else matrices @ pending
                continue
            if pending is not None:
                clouds, pending = apply_affine(clouds, pending), None
            clouds = transform(clouds, own)
        return clouds if pending is None else apply_affine(clouds, pending)


@dataclass(frozen=True)
class OneOf:
    """Each sample goes through one of the transforms, drawn by `weights` (equal ones when None).

    A None among the transforms leaves the sample as it is. Where all of them only drop points, masks of the
    whole batch are cheaper than taking it apart and joining it again.
    """

    transforms: tuple[Transform | None, ...] | list[Transform | None]
    weights: tuple[float, ...] | None = None

    def __post_init__(self):
        count = len(self.transforms)
        weights = self.weights or (1.0,) * count
        require(count > 0, "OneOf: no transforms to choose from")
        require(len(weights) == count, f"OneOf: {len(weights)} weights for {count} transforms")
        require(min(weights) >= 0 and sum(weights) > 0, f"OneOf: weights {weights} are no probabilities")

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        chosen = draws.choice(tuple(self.weights or (1.0,) * len(self.transforms)))
        options = list(zip(self.transforms, draws.children(len(self.transforms))))
        if all(isinstance(transform, Dropper) for transform in self.transforms):
            masks = torch.stack([transform.mask(clouds, own) for transform, own in options])
            return keep_points(clouds, masks.gather(0, per_point(clouds, chosen)[None])[0])
        clouds = tracked(clouds)  # or only some of the parts would carry indices and transforms
        parts, order = [], []
        for option, (transform, own) in enumerate(options):
            rows = (chosen == option).nonzero().flatten()
            if len(rows):
                part = _take_clouds(clouds, rows)
                parts.append(part if transform is None else transform(part, own.take(rows)))
                order.append(rows)
        return _take_clouds(_joined(parts), torch.cat(order).argsort())


@dataclass(frozen=True)
class RandomApply:
    """Apply a transform to each sample with probability p."""

    transform: Transform
    p: float = 0.5

    def __post_init__(self):
        require(0 <= self.p <= 1, f"RandomApply: p={self.p} is no probability")

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        return OneOf((self.transform, None), (self.p, 1 - self.p))(clouds, draws)


_PER_POINT = ("points", "features", "point_labels", "indices")
_PER_CLOUD = ("labels", "ids", "transform")


def _take_clouds(clouds: Clouds, rows: Int[Tensor, "m"]) -> Clouds:
    """The clouds `rows`, in that order."""
    lengths = clouds.lengths[rows]
    offsets = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))
    shift = (clouds.offsets[rows] - offsets[:-1]).repeat_interleave(lengths)
    point_rows = shift.add_(torch.arange(len(shift), device=shift.device))
    fields = {name: getattr(clouds, name) for name in (*_PER_POINT, *_PER_CLOUD)}
    picked = {
        name: value.index_select(0, point_rows if name in _PER_POINT else rows)
        for name, value in fields.items() if value is not None
    }
    return Clouds(offsets=offsets, **picked)


def _joined(parts: list[Clouds]) -> Clouds:
    """Batches one after the other as one batch, with the fields that all of them have."""
    lengths = torch.cat([part.lengths for part in parts])
    offsets = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))
    columns = {name: [getattr(part, name) for part in parts] for name in (*_PER_POINT, *_PER_CLOUD)}
    return Clouds(offsets=offsets, **{
        name: torch.cat(values) for name, values in columns.items() if all(v is not None for v in values)
    })
