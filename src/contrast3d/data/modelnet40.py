"""ModelNet40 and ModelNet10 (Wu et al., CVPR 2015) in every layout that is in use.

All layouts give the same frame: z up, as in the original meshes. The HDF5 and txt releases have y and z
exchanged (a reflection, not a rotation, of the meshes), and exchanging them again undoes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from contrast3d.data import modelnet_layouts as layouts
from contrast3d.data.geometry import Normalize, normalized
from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import ConfigError, DataError, MissingDataError

Layout = Literal["auto", "hdf5", "txt", "off", "npz"]
_SOURCE = {
    "hdf5": "PointNet (Qi et al. 2017), shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip",
    "txt": "PointNet++ (Qi et al. 2017), shapenet.cs.stanford.edu/media/modelnet40_normal_resampled.zip",
    "off": "Princeton ModelNet (Wu et al. 2015), modelnet.cs.princeton.edu",
    "npz": "your own np.savez(file, points=..., label=..., name=..., classes=...)",
}


@dataclass(frozen=True)
class Family:
    """One of the two sets: its title, its classes, the prefix of its lists, shapes in (train, test)."""

    title: str
    classes: tuple[str, ...]
    prefix: str
    counts: dict[str, int]


MODELNET40 = Family("ModelNet40", layouts.CLASSES, "modelnet40", {"train": 9843, "test": 2468})
MODELNET10 = Family(
    "ModelNet10",
    ("bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table", "toilet"),
    "modelnet10", {"train": 3991, "test": 908},
)


def layout_text(family: Family = MODELNET40) -> str:
    """How each layout looks on disk, and where it officially comes from."""
    number = family.title.removeprefix("ModelNet")
    looks = {
        "hdf5": "modelnet40_ply_hdf5_2048/{train_files.txt, test_files.txt, shape_names.txt, ply_data_*.h5}, "
                "data (n, 2048, 3) and label (n, 1) in each .h5",
        "txt": f"modelnet40_normal_resampled/{{modelnet{number}_train.txt, modelnet{number}_test.txt, "
               f"modelnet{number}_shape_names.txt, <class>/<class>_NNNN.txt}}, "
               "10,000 lines x,y,z,nx,ny,nz in each .txt",
        "off": f"ModelNet{number}/<class>/{{train,test}}/*.off, triangle meshes",
        "npz": "modelnet40_{train,test}_<points>.npz with points (n, N, 3), label, name, classes",
    }
    return "\n".join(f"  {layout}: {look}; from {_SOURCE[layout]}" for layout, look in looks.items())


def ModelNet40(
    split: str, root: str | Path, num_points: int = 1024, *, layout: Layout = "auto",
    normalize: Normalize = True, up: Literal["y", "z"] = "z", seed: int = 0,
) -> ShapeSet:
    """ModelNet40, "train" or "test", from whichever layout of `layout_text` lies under `root`.

    HDF5, txt and npz give the first `num_points` stored points, as the field's loaders do; meshes are
    sampled by area with `seed`.
    normalize: unit sphere centred by "mean" (True; as HDF5 and txt are stored) or "bbox".
    up: "y" gives the frame in which the HDF5 and txt releases are stored, which published networks expect.
    """
    return _load(MODELNET40, split, Path(root), num_points, layout, normalize, up, seed)


def ModelNet10(
    split: str, root: str | Path, num_points: int = 1024, *, layout: Layout = "auto",
    normalize: Normalize = True, up: Literal["y", "z"] = "z", seed: int = 0,
) -> ShapeSet:
    """ModelNet10, from its own files or as ten classes of any ModelNet40 layout: same shapes, same split."""
    return _load(MODELNET10, split, Path(root), num_points, layout, normalize, up, seed)


def _load(
    family: Family, split: str, root: Path, num_points: int, layout: str, normalize: Normalize, up: str,
    seed: int,
) -> ShapeSet:
    if split not in family.counts:
        raise ConfigError(f"{family.title} has the splits train and test, not {split!r}")
    if num_points < 2 or up not in ("y", "z"):
        raise ConfigError(f"num_points must be at least 2 and up 'y' or 'z', not {num_points} and {up!r}")
    title = f"{family.title} {split}"
    name, folder = _choose(family, root, split, layout)
    found = _read(family, name, folder, split, num_points, title, seed)
    keep = np.array([c in family.classes for c in found.classes], bool)
    if not keep.any():
        raise DataError(str(folder), f"no shape of the classes of {family.title}", f"a {name} layout of it")
    points = found.points[keep]
    if (name in ("hdf5", "txt")) != (up == "y"):
        points = points[:, :, [0, 2, 1]]
    rows = np.flatnonzero(keep)
    return ShapeSet(
        torch.from_numpy(normalized(points, normalize)),
        labels=torch.tensor([family.classes.index(found.classes[i]) for i in rows]),
        classes=family.classes, names=tuple(found.names[i] for i in rows), title=title,
    )


def _choose(family: Family, root: Path, split: str, layout: str) -> tuple[str, Path]:
    """The layout to read and its folder; an .npz comes last, because it may hold one split only."""
    present = layouts.detect(root, family.prefix)
    if layout != "auto":
        present = {k: v for k, v in present.items() if k == layout}
    readable = [name for name in ("hdf5", "txt", "off", "npz") if name in present]
    if readable:
        return readable[0], present[readable[0]]
    if "dat" in present:
        raise DataError(
            str(present["dat"]), "only a pickle of Point-MAE or ReCon; reading pickles can run any code",
            "a layout without pickle", "the modelnet40_normal_resampled txt files that it was made from",
        )
    wanted = f"no {family.title}" + f" as {layout}" * (layout != "auto")
    found = wanted if root.exists() else "no such folder"
    raise MissingDataError(str(root), found, f"one of these layouts there or below:\n{layout_text(family)}")


def _read(family: Family, layout: str, folder: Path, split: str, num_points: int, title: str, seed: int):
    if layout == "hdf5":
        return layouts.read_hdf5(folder, split, num_points)
    if layout == "npz":
        return layouts.read_compact(layouts.npz_file(folder, split), num_points)
    listed = _listed(family, layout, folder, split)
    if layout == "txt":
        return layouts.read_txt(listed, num_points, title)
    return layouts.read_off_meshes(listed, num_points, title, seed)


def _listed(family: Family, layout: str, folder: Path, split: str) -> list[layouts.Listed]:
    if layout == "off":
        return layouts.list_off(folder, split, family.classes)
    listed = layouts.list_txt(folder, split, family.prefix)
    return [item for item in listed if item.category in family.classes]


def problems(root: str | Path, family: Family = MODELNET40) -> list[str]:
    """What keeps the set under `root` from being whole, one line each; empty when nothing does."""
    try:
        layout, folder = _choose(family, Path(root), "train", "auto")
    except DataError as error:
        return [str(error)]
    lines = []
    for split, official in family.counts.items():
        try:
            count, missing = _count(family, layout, folder, split)
        except DataError as error:
            lines.append(str(error))
            continue
        lines += missing
        if (layout, split, family) == ("hdf5", "train", MODELNET40):
            official = 9840  # three shapes never made it into the HDF5 release
        if not missing and count != official:
            lines.append(f"{folder}: {count} {split} shapes in the {layout} layout; expected {official}")
    return [f"{line} (source: {_SOURCE[layout]})" for line in lines]


def _count(family: Family, layout: str, folder: Path, split: str) -> tuple[int, list[str]]:
    """How many shapes of a split are there, and a line for each file that should be."""
    if layout in ("txt", "off"):
        listed = _listed(family, layout, folder, split)
        look = "10,000 lines x,y,z,nx,ny,nz" if layout == "txt" else "a triangle mesh"
        missing = [item.path for item in listed if not item.path.is_file()]
        return len(listed) - len(missing), [f"{path}: missing; expected {look}" for path in missing]
    if layout == "npz":
        found = layouts.read_compact(layouts.npz_file(folder, split), 2)
        return sum(c in family.classes for c in found.classes), []
    names, count, lines = layouts.class_names(folder / "shape_names.txt"), 0, []
    for path in layouts.hdf5_files(folder, split):
        try:
            count += sum(c in family.classes for c in layouts.read_hdf5_file(path, names, 2).classes)
        except DataError as error:
            lines.append(str(error))
    return count, lines
