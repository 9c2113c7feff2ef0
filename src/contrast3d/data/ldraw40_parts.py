"""LDraw-40 with a label for each point: the family of the primitive that the point lies on.

The parts of the library are put together from primitives (studs, cylinders, Technic holes ...), so the labels are exact
and free. Rebuilt with the points by tools/build_ldraw40.py. Families say how a part is made, not what it is for: a
stand-in for ShapeNetPart that needs no download, not a replacement.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from contrast3d.data import ldraw40
from contrast3d.data.compact_labels import read_labels
from contrast3d.data.parts import PartScheme, scheme_of
from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import DataError

FAMILIES = (
    "plain", "box", "cylinder", "disc", "cone", "torus", "stud", "tube", "hole", "axle", "other",
)  # plain: polygons of no primitive. torus: spheres too. tube: under a brick. axle: pins too
UNSCORED = ("plain", "other")  # how a part happens to be drawn, not geometry: their points are left out


def LDraw40Parts(split: str = "train") -> ShapeSet:
    """`LDraw40(split)`, the same points in the same order, with `point_labels`: rows of FAMILIES."""
    shapes, labels = ldraw40.LDraw40(split), _labels(ldraw40.FOLDER)
    if len(labels) != len(ldraw40.LDraw40("all")):
        raise DataError("ldraw40.parts", f"labels of {len(labels)} shapes", f"{len(ldraw40.LDraw40('all'))}")
    rows = {name: row for row, name in enumerate(ldraw40.LDraw40("all").names)}
    own = labels[torch.tensor([rows[name] for name in shapes.names])]
    return replace(shapes, point_labels=own, title=f"LDraw-40 parts {split}")


@lru_cache(maxsize=1)
def ldraw40_scheme() -> PartScheme:
    """FAMILIES, and those that the shapes of each class have; all but UNSCORED are told apart."""
    return scheme_of(LDraw40Parts("all"), FAMILIES, UNSCORED)


@lru_cache(maxsize=1)
def _labels(folder: Path) -> Int[Tensor, "s n"]:
    return torch.from_numpy(read_labels(folder / "ldraw40.parts", folder / "ldraw40.points", len(FAMILIES)))
