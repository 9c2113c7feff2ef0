"""What goes wrong with real scans, in five severities each: the suite behind the robustness protocol.

Six families after ModelNet-C (Ren et al., ICML 2022) and RobustPointSet: noise, missing points all over, a missing
part, occlusion from one side, a plane of background behind the shape, a turn in space. Every corruption is a
`Transform`, drawn per sample from counter-based `Draws`: the same seed corrupts a shape alike in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from contrast3d.data.compose import Compose
from contrast3d.data.crops import Cutout, Dropper, PartialView, Resample
from contrast3d.data.draws import Draws
from contrast3d.data.segments import cloud_max, per_point
from contrast3d.data.shapes import ShapeSet
from contrast3d.data.transforms import Jitter, Normalize, RotateSmall, Transform, require
from contrast3d.errors import ConfigError
from contrast3d.types import Clouds

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class KeepRandom(Dropper):
    """Keep a share of the points, each as likely as any other."""

    share: float

    def __post_init__(self):
        require(0 < self.share <= 1, f"KeepRandom: share={self.share} is no positive fraction")

    def mask(self, clouds: Clouds, draws: Draws) -> torch.Tensor:
        keep = draws.points_uniform(clouds).flatten() < self.share
        keep[clouds.offsets[:-1]] = True  # no cloud is left empty
        return keep


@dataclass(frozen=True)
class BackgroundPlane:
    """Points of a cloud give way to a patch of plane beside it, as of the table or the wall a scan was cut from.

    share: of the points that move to the plane. The plane lies below the cloud (z is up) and is as wide as it.
    """

    share: float

    def __post_init__(self):
        require(0 <= self.share < 1, f"BackgroundPlane: share={self.share} is no fraction below 1")

    def __call__(self, clouds: Clouds, draws: Draws) -> Clouds:
        moved = draws.points_uniform(clouds).flatten() < self.share
        low = -per_point(clouds, cloud_max(clouds, -clouds.points[:, 2]))
        radius = per_point(clouds, cloud_max(clouds, clouds.points.norm(dim=1)))
        plane = draws.points_uniform(clouds, 3) * 2 - 1
        on_plane = torch.cat([plane[:, :2] * radius[:, None], low[:, None]], 1)
        return clouds.replace(points=torch.where(moved[:, None], on_plane, clouds.points))


# name: severity 1 ... 5 -> the transform; the last of each is about as bad as it gets in a real scan
FAMILIES: dict[str, Callable[[int], Transform]] = {
    "jitter": lambda s: Jitter(std=0.01 * s, clip=1.0),
    "dropout": lambda s: KeepRandom((0.75, 0.5, 0.25, 0.125, 0.0625)[s - 1]),
    "crop": lambda s: Cutout((0.1 * s, 0.1 * s)),
    "occlusion": lambda s: Compose((PartialView(), KeepRandom((1.0, 0.75, 0.5, 0.35, 0.25)[s - 1]))),
    "background": lambda s: BackgroundPlane(0.1 * s),
    "rotation": lambda s: RotateSmall(6.0 * s),
}


def corrupted(shapes: ShapeSet, family: str, severity: int, seed: int = 0) -> ShapeSet:
    """`shapes` under one corruption, with as many points as before (some repeat where some are gone), normalised again.

    Shapes keep their labels and names; part labels, which may not fit any more, are dropped.
    """
    if family not in FAMILIES or severity not in SEVERITIES:
        raise ConfigError(f"corruption {family!r} of severity {severity}; expected one of {', '.join(FAMILIES)}, "
                          "severity 1 to 5")
    transform = Compose((FAMILIES[family](severity), Resample(shapes.num_points), Normalize()))
    rows = torch.arange(len(shapes))
    points = [
        transform(shapes.clouds(part), Draws.of(seed, 0, part, severity)).dense for part in rows.split(256)
    ]
    return replace(shapes, points=_in_random_order(torch.cat(points), seed), point_labels=None,
                   title=f"{shapes.title}, {family} {severity}")


def _in_random_order(points: torch.Tensor, seed: int) -> torch.Tensor:
    """Repeated points lie side by side after resampling; readers that take parts of a cloud need them mixed."""
    order = torch.rand(points.shape[:2], generator=torch.Generator().manual_seed(seed)).argsort(1)
    return points.gather(1, order[..., None].expand_as(points))
