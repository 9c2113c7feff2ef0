"""Sweet Home 3D: 747 pieces of furniture, 481 of them in 16 classes, shipped inside the package.

Rebuilt bit for bit from Debian's `sweethome3d-furniture` by tools/build_sweethome3d.py. CC0 or CC BY 3.0 by
library; creators and terms: embedded/sweethome3d-ATTRIBUTION.txt.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch

from contrast3d.data import compact
from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import ConfigError, DataError

FOLDER = Path(__file__).parent / "embedded"
COLUMNS = ("name", "class", "library", "creator", "category", "description")
CLASSES = (
    "animal", "appliance", "bed", "cabinet_shelf", "chair", "door", "lamp", "person", "plant", "sanitary",
    "sofa", "table", "vehicle", "vessel", "wall_plug_switch", "window",
)  # fmt: skip


def SweetHome3D(split: str = "all") -> ShapeSet:
    """The embedded Sweet Home 3D furniture, "all" (747 shapes) or "labelled" (481): 1,024 points per shape.

    There is no train and test split; label -1 means that none of the 16 classes fits. Points are centred by
    their bounding box and scaled to the unit sphere, z up, on a grid of 1/512. `names` are the catalogue's
    ids, `descriptions` its English names. Raises ConfigError for an unknown split and DataError when the
    embedded files are broken.
    """
    if split not in ("all", "labelled"):
        raise ConfigError(f"split = {split!r}: SweetHome3D has all and labelled")
    shapes = _read(FOLDER)
    keep = torch.ones_like(shapes.labels) if split == "all" else shapes.labels >= 0
    return shapes.subset(keep.nonzero().flatten(), title=f"Sweet Home 3D {split}")


@lru_cache(maxsize=1)
def _read(folder: Path) -> ShapeSet:
    points, manifest = compact.read_set(folder, "sweethome3d", COLUMNS)
    index = {"": -1} | {name: i for i, name in enumerate(CLASSES)}
    unknown = set(manifest["class"]) - set(index)
    if unknown:
        path = str(folder / "sweethome3d.csv")
        raise DataError(path, f"unknown class {min(unknown)!r}", "one of " + ", ".join(CLASSES))
    return ShapeSet(
        torch.from_numpy(points),
        labels=torch.tensor([index[name] for name in manifest["class"]]),
        classes=CLASSES,
        names=manifest["name"],
        descriptions=manifest["description"],
        title="Sweet Home 3D",
    )
