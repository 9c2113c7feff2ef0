"""Named augmentation pipelines: what the two views of a shape may differ in."""

from __future__ import annotations

from functools import partial as partial_of

from contrast3d.data.compose import Compose, OneOf
from contrast3d.data.crops import Crop, Cutout, PartialView, PointDropout, Resample
from contrast3d.data.transforms import (
    Flip,
    Jitter,
    Rotate,
    RotateSmall,
    RotateSO3,
    Scale,
    ScaleAxes,
    Shear,
    Shift,
    Transform,
    UniformJitter,
)
from contrast3d.errors import ConfigError


def preset(name: str, num_points: int) -> Compose:
    """The pipeline `name` that ends in clouds of `num_points` points; a ConfigError lists the names."""
    if name not in PRESETS:
        raise ConfigError(f"no augmentation preset {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name](num_points)


def report(num_points: int, replacement: bool = False) -> Compose:
    """Bernini 2022: jitter 0.05 uniform, flip of axis 1, shear 0.2, rotation 15 degrees about x, y, z."""
    return Compose((
        Resample(num_points, replacement), UniformJitter(0.05), Flip(1, 0.5), Shear(0.2), RotateSmall(15.0),
    ))


def objects(num_points: int, *rotations: Transform) -> Compose:
    """The default for aligned objects: a piece missing, fewer points, mild scale, shear, noise and shift.

    Points are resampled before the maps and not after them: the noise of a point is keyed by the point, so
    the result is the same, and the rest works on a dense batch.
    """
    return Compose((
        OneOf((Crop((0.7, 0.9)), Cutout((0.1, 0.3)))),
        PointDropout(0.3),
        Resample(num_points),
        *rotations,
        Scale(1 / 1.2, 1.2),
        Shear(0.1),
        Shift(0.03),
        Jitter(0.01),
    ))


def objects_strong(num_points: int) -> Compose:
    """`objects` with bigger pieces missing, each axis scaled on its own, mirrored and slightly tilted.

    For sets whose classes span many proportions: a plate of 1 x 4 studs and one of 2 x 8 are both plates.
    """
    return Compose((
        OneOf((Crop((0.55, 0.95)), Cutout((0.05, 0.4)))),
        Resample(num_points),
        ScaleAxes(1 / 1.4, 1.4),
        Flip(0, 0.5),
        Flip(1, 0.5),
        RotateSmall(10.0),
        Shear(0.1),
        Shift(0.03),
        Jitter(0.01),
    ))


def objects_rotate_up(num_points: int) -> Compose:
    """`objects` under any rotation about the up axis, for shapes whose heading means nothing."""
    return objects(num_points, Rotate("up"))


def objects_so3(num_points: int) -> Compose:
    """`objects` under any rotation, for shapes in arbitrary pose."""
    return objects(num_points, RotateSO3())


def partial(num_points: int) -> Compose:
    """Each view is what a camera sees from a random side, slightly scaled, moved and noisy."""
    return Compose((PartialView(), Resample(num_points), Scale(1 / 1.1, 1.1), Shift(0.03), Jitter(0.01)))


def scale_shift(num_points: int) -> Compose:
    """Point-MAE's: each axis scaled by 2/3 to 3/2, shifted by up to 0.2 (Pang et al. 2022, section 4.1)."""
    return Compose((Resample(num_points), ScaleAxes(2 / 3, 3 / 2, log=False), Shift(0.2)))


def rotate_up(num_points: int) -> Compose:
    """ReCon's: any rotation about the up axis, and nothing else."""
    return Compose((Resample(num_points), Rotate("up")))


def none(num_points: int) -> Compose:
    """Only a random subset of the points."""
    return Compose((Resample(num_points),))


PRESETS = {
    "objects": objects,
    "objects-strong": objects_strong,
    "objects-rotate-up": objects_rotate_up,
    "objects-so3": objects_so3,
    "partial": partial,
    "scale-shift": scale_shift,
    "rotate-up": rotate_up,
    "report": report,
    "report-replacement": partial_of(report, replacement=True),
    "none": none,
}
