"""LDraw-40: 2,537 CAD parts of the LDraw library in 40 classes, shipped inside the package (CC BY 2.0).

Rebuilt bit for bit from Debian's `ldraw-parts` by tools/build_ldraw40.py. Authors and terms:
embedded/ldraw40-ATTRIBUTION.txt. LDraw is a trademark of the Estate of James Jessiman.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from contrast3d.data import compact
from contrast3d.data.arrays import read_npz, shape_set
from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import ConfigError, DataError, MissingDataError

FOLDER = Path(__file__).parent / "embedded"
POOL_FILE = "ldraw-pool.npz"
_NO_NUMBER = 10**12  # above every mould number
COLUMNS = ("name", "class", "split", "author", "description")
CLASSES = (
    "plate", "brick", "slope", "tile", "wedge", "technic_brick", "arch", "bracket", "panel", "support", "bar",
    "fence_ladder", "window", "door", "windscreen", "hinge", "wheel_rim", "tyre", "technic_beam",
    "technic_axle", "technic_gear", "technic_panel", "technic_connector", "technic_pneumatic", "train_track",
    "train_base", "boat_hull", "car_base", "container", "minifig_helmet", "minifig_hair", "minifig_hat",
    "minifig_neckwear", "minifig_head", "minifig_torso_arm", "blade_weapon", "tool", "horse_quadruped",
    "dragon_dinosaur", "flower_plant",
)  # fmt: skip


def LDraw40(split: str = "train") -> ShapeSet:
    """The embedded LDraw-40 set, "train" (1,756 shapes), "test" (781) or "all": 1,024 points per shape.

    Points are centred by their bounding box and scaled to the unit sphere, z up, on a grid of 1/512. `names`
    are the part files, `groups` the mould numbers: 3001a.dat and 3001b.dat are one mould, and no mould is in
    both splits. Raises ConfigError for an unknown split and DataError when the embedded files are broken.
    """
    if split not in ("train", "test", "all"):
        raise ConfigError(f"split = {split!r}: LDraw40 has train, test and all")
    shapes, is_train = _read(FOLDER)
    rows = {"train": is_train, "test": ~is_train, "all": torch.ones_like(is_train)}[split]
    return shapes.subset(rows.nonzero().flatten(), title=f"LDraw-40 {split}")


@lru_cache(maxsize=1)
def _read(folder: Path) -> tuple[ShapeSet, Bool[Tensor, " s"]]:
    """All shapes, and a mask of those to train on."""
    points, manifest = compact.read_set(folder, "ldraw40", COLUMNS)
    index = {name: i for i, name in enumerate(CLASSES)}
    unknown = set(manifest["class"]) - set(index) | set(manifest["split"]) - {"train", "test"}
    if unknown:
        raise DataError(str(folder / "ldraw40.csv"), f"unknown class or split {sorted(unknown)[0]!r}", "LDraw-40's own")
    shapes = ShapeSet(
        torch.from_numpy(points),
        labels=torch.tensor([index[name] for name in manifest["class"]]),
        classes=CLASSES,
        names=manifest["name"],
        groups=mould_groups(manifest["name"]),
        descriptions=manifest["description"],
        title="LDraw-40",
    )
    return shapes, torch.tensor([split == "train" for split in manifest["split"]])


def load_pool(path: str | Path) -> ShapeSet:
    """The unlabelled pool that `tools/build_ldraw40.py --pool PATH` writes: up to 5,835 LDraw parts.

    Like LDraw40, with descriptions and mould groups but no labels. Raises DataError unless the file is whole.
    """
    if not Path(path).is_file():
        raise MissingDataError(str(path), "no such file", "the pool of LDraw parts", _build(path))
    arrays = read_npz(path)
    missing = [key for key in ("points", "names", "descriptions") if key not in arrays]
    if missing:
        raise DataError(str(path), f"no array {missing[0]!r}", "points, names and descriptions", _build(path))
    shapes = shape_set({key: arrays[key] for key in ("points", "names")}, str(path), normalize=False)
    return ShapeSet(
        shapes.points,
        names=shapes.names,
        groups=mould_groups(shapes.names),
        descriptions=tuple(map(str, arrays["descriptions"].reshape(-1))),
        title="LDraw pool",
    )


def LDrawPool(root: str | Path) -> ShapeSet:
    """The parts of ROOT/ldraw-pool.npz that are not in LDraw-40: unlabelled shapes to pre-train on beside it.

    Parts of the same mould as a test shape are left out too, should the pool hold them.
    """
    pool, known = load_pool(Path(root) / POOL_FILE), set(LDraw40("all").names)
    moulds = {mould for mould in LDraw40("test").groups.tolist() if mould < _NO_NUMBER}
    rows = [
        i for i, (name, mould) in enumerate(zip(pool.names, pool.groups.tolist()))
        if name not in known and mould not in moulds
    ]
    return pool.subset(torch.tensor(rows, dtype=torch.long), title=pool.title)


def _build(path: str | Path) -> str:
    return f"python tools/build_ldraw40.py --pool {path}"


def mould_groups(names: Sequence[str]) -> Int[Tensor, " s"]:
    """(S,) the mould of each part file: the digits that its name begins with, negative after a u (u8015.dat).

    A name without digits is a group of its own.
    """
    groups = []
    for row, name in enumerate(names):
        match = re.match(r"(u?)(\d+)", name)
        number = int(match[2]) if match else _NO_NUMBER + row
        groups.append(-number if match is None or match[1] else number)
    return torch.tensor(groups)
