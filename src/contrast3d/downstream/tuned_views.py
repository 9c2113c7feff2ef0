"""The views that networks are fine-tuned on: how points are drawn, and what is done to them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from contrast3d.data.compose import Compose
from contrast3d.data.draws import Draws
from contrast3d.data.presets import preset
from contrast3d.data.segments import tracked
from contrast3d.data.shapes import ShapeSet
from contrast3d.data.transforms import Affine, Rotate, ScaleAxes, Shift, Transform, require
from contrast3d.ops.farthest_point_sampling import farthest_point_sampling
from contrast3d.types import Clouds

_SCALE = ScaleAxes(2 / 3, 3 / 2, log=False)
AUGMENTATIONS: dict[str, tuple[Affine, ...]] = {  # the presets of the released fine-tuning scripts, less their points
    "scale-shift": (_SCALE, Shift(0.2)), "rotate-up": (Rotate("up"),), "none": (),
}
VOTED = {"scale-shift": (_SCALE,), "rotate-up": (Rotate("up"),)}  # what the passes of a vote differ in, beside points


@dataclass(frozen=True)
class FarthestSubset:
    """`num_points` random ones of the `pool` points that lie farthest apart; all clouds take the same of their order.

    So do the released scripts of Point-MAE (Pang et al., ECCV 2022) and ReCon: 1,024 of 1,200, 2,048 of 2,400. A cloud
    that has no points to spare is shuffled, which changes where the sampling of patches starts. Takes dense clouds.
    """

    num_points: int
    pool: int = 0  # 0: 75 / 64 of num_points, as in these scripts

    def __post_init__(self):
        require(self.num_points >= 1 and self.pool >= 0, f"FarthestSubset: {self.num_points} of {self.pool} points")

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        points = clouds.dense
        n = points.shape[1]
        if n <= self.num_points:
            rows = draws.uniform((n,)).argsort(1)
        else:
            pool = min(n, max(self.num_points, self.pool or self.num_points * 75 // 64))
            farthest = farthest_point_sampling(points, pool, draws.integers(n))
            rows = farthest[:, draws.shared().uniform((pool,))[0].argsort()[: self.num_points]]
        return _with_points(clouds, rows)


def released_views(augmentation: str, num_points: int) -> Transform:
    """The preset of this name; those of the released scripts draw their points as these do."""
    if augmentation not in AUGMENTATIONS:
        return preset(augmentation, num_points)
    return Compose((FarthestSubset(num_points), *AUGMENTATIONS[augmentation]))


def voting_views(augmentation: Transform | str | None, num_points: int) -> Transform:
    """What one pass of a vote sees: other points each time, scaled or turned where the training was."""
    varied = VOTED.get(augmentation, ()) if isinstance(augmentation, str) else ()
    return Compose((FarthestSubset(num_points), *varied))


def farthest(shapes: ShapeSet, num_points: int, block: int = 256) -> ShapeSet:
    """The shapes with their farthest points, from the first on; themselves where there are none to spare."""
    if shapes.num_points <= num_points:
        return shapes
    kept = [p.gather(1, farthest_point_sampling(p, num_points)[..., None].expand(-1, -1, 3))
            for p in shapes.points.split(block)]
    return dataclasses.replace(shapes, points=torch.cat(kept), point_labels=None)


def _with_points(clouds: Clouds, rows: Tensor) -> Clouds:
    """(B, M) rows of each cloud, in their order."""
    b, m = rows.shape
    offsets = torch.arange(b + 1, device=rows.device) * m
    return tracked(clouds).take_points((rows + clouds.offsets[:-1, None]).flatten(), offsets)
