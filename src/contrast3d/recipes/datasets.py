"""The data set that a recipe names: one of the catalogue, or an array file or a folder of your own."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.recipes.table import suggestion

if TYPE_CHECKING:
    from contrast3d.data.catalog import DataSet
    from contrast3d.data.shapes import ShapeSet

FILES, FOLDER = "arrays", "folder"  # the catalogue's entries for what is yours, which recipes name by its path
SUFFIXES = (".npz", ".npy", ".h5", ".hdf5")


def is_file(dataset: str) -> bool:
    """Whether `dataset` is the path of an array file and no name."""
    return Path(dataset).suffix.lower() in SUFFIXES


def is_folder(dataset: str) -> bool:
    """Whether `dataset` is the path of a folder and no name. A name of the catalogue wins, unless written ./NAME."""
    from contrast3d.data import catalog

    if is_file(dataset) and not Path(dataset).is_dir():
        return False
    if any(separator in dataset for separator in ("/", os.sep)) or dataset in (".", ".."):
        return True
    try:
        return catalog.find(dataset).name in (FILES, FOLDER) and Path(dataset).is_dir()
    except ConfigError:
        return Path(dataset).exists()


def is_yours(dataset: str) -> bool:
    """Whether `dataset` is a path, of an array file or a folder."""
    return is_folder(dataset) or is_file(dataset)


def find(name: str) -> DataSet:
    """The entry of the catalogue; a ConfigError suggests the nearest name."""
    from contrast3d.data import catalog

    try:
        return catalog.find(name)
    except ConfigError:
        names = [d.name for d in (*catalog.DATASETS, *catalog.SCENES) if d.name not in (FILES, FOLDER)]
        raise ConfigError(
            f"no data set {name!r}{suggestion(name, names)}; there are: {', '.join(names)}, "
            f"your own files ending in {', '.join(SUFFIXES)}, and folders of meshes or clouds of points"
        ) from None


def widest_split(dataset: str) -> str:
    """"all" where the set has such a split, and "train" where it has not."""
    return "all" if is_yours(dataset) or "all" in find(dataset).splits else "train"


def is_whole(dataset: str) -> bool:
    """Whether the set comes in one piece, without a training split of its own."""
    return is_yours(dataset) or "train" not in find(dataset).splits


def whole_split(dataset: str) -> str:
    """Of a set in one piece, the widest split whose shapes all have labels, or all shapes where none has."""
    return "labelled" if not is_yours(dataset) and "labelled" in find(dataset).splits else "all"


def read(
    dataset: str, split: str, data_root: Path, num_points: int, options: dict[str, dict] | None = None
) -> ShapeSet:
    """A split of a set of the catalogue, or a whole file or folder. options: of the readers, by the name of the set."""
    known = None if is_yours(dataset) else find(dataset)
    if known and known.name in (FILES, FOLDER):
        what = "folder" if known.name == FOLDER else f"file, ending in {', '.join(SUFFIXES)}"
        raise ConfigError(f"dataset = {dataset!r}; expected the path of your {what}")
    if known and split not in known.splits:
        raise ConfigError(f"{known.name} has no {split} split, only {', '.join(known.splits)}")
    try:
        if known is None:
            kind = FILES if is_file(dataset) and not Path(dataset).is_dir() else FOLDER
            return load(dataset, num_points, **(options or {}).get(kind, {}))
        return known.read(split, data_root, num_points, **(options or {}).get(known.name, {}))
    except DataError as error:
        if "\n" in error.expected and known is not None:
            raise _nothing_found(error, known, data_root) from None
        fix = error.fix.replace("num_points", "shape_points")  # what recipes call the argument of the readers
        raise type(error)(error.where, error.found, error.expected, fix) from None


def load(
    path: str | Path, num_points: int | None = None, *, up: Literal["x", "y", "z"] = "z",
    labels_from: Literal["none", "folders"] = "none", workers: int | None = None, quiet: bool = False,
) -> ShapeSet:
    """A data set of your own: a folder of meshes and clouds of points, or an .npz, .npy or .h5 file of shapes.

    num_points: of each shape; of a folder 1,024 where not said, of a file all that it holds.
    up: the axis that points up in it; all sets of this library stand with z up.
    labels_from: "folders" makes classes of the sub-folders. workers: threads that read a folder.
    quiet: do not show how far the reading is.

    See `contrast3d.data.folder.load_folder` and `contrast3d.data.arrays.load_arrays`.
    """
    import torch

    from contrast3d.data.arrays import load_arrays
    from contrast3d.data.folder import load_folder
    from contrast3d.data.shape_files import check_options, turned

    if Path(path).is_dir() or not is_file(str(path)):
        return load_folder(path, 1024 if num_points is None else num_points, up=up, labels_from=labels_from,
                           workers=workers, quiet=quiet)
    check_options(2, up)
    if labels_from == "folders":
        raise ConfigError(f"labels_from = folders, but {path} is no folder: a file holds its own labels")
    shapes = load_arrays(path, num_points)
    return shapes if up == "z" else replace(shapes, points=torch.from_numpy(turned(shapes.points.numpy(), up)))


def _nothing_found(error: DataError, known: DataSet, data_root: Path) -> MissingDataError:
    """The readers' page of layouts in one line: what was looked for, and the command that explains it."""
    looked_for = re.findall(r"^  \w+: ([\w-]+/|\S+)", known.layout, re.M)
    return MissingDataError(
        error.where, error.found, f"{' or '.join(looked_for)} there or below",
        f"contrast3d data check {known.name} --data-root {data_root}",
    )
