"""The data set that a recipe names: one of the catalogue, or an array file of your own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.recipes.table import suggestion

if TYPE_CHECKING:
    from contrast3d.data.catalog import DataSet
    from contrast3d.data.shapes import ShapeSet

FILES = "arrays"  # the catalogue's entry for files, which recipes name by their paths
SUFFIXES = (".npz", ".npy", ".h5", ".hdf5")


def is_file(dataset: str) -> bool:
    """Whether `dataset` is the path of an array file and no name."""
    return Path(dataset).suffix.lower() in SUFFIXES


def find(name: str) -> DataSet:
    """The entry of the catalogue; a ConfigError suggests the nearest name."""
    from contrast3d.data import catalog

    try:
        return catalog.find(name)
    except ConfigError:
        names = [d.name for d in catalog.DATASETS if d.name != FILES]
        raise ConfigError(
            f"no data set {name!r}{suggestion(name, names)}; there are: {', '.join(names)}, "
            f"and your own files ending in {', '.join(SUFFIXES)}"
        ) from None


def widest_split(dataset: str) -> str:
    """"all" where the set has such a split, and "train" where it has not."""
    return "all" if is_file(dataset) or "all" in find(dataset).splits else "train"


def is_whole(dataset: str) -> bool:
    """Whether the set comes in one piece, without a training split of its own."""
    return is_file(dataset) or "train" not in find(dataset).splits


def whole_split(dataset: str) -> str:
    """Of a set in one piece, the widest split whose shapes all have labels, or all shapes where none has."""
    return "labelled" if not is_file(dataset) and "labelled" in find(dataset).splits else "all"


def read(
    dataset: str, split: str, data_root: Path, num_points: int, options: dict[str, dict] | None = None
) -> ShapeSet:
    """A split of a set of the catalogue, or a whole file. options: of the readers, by the name of the set."""
    from contrast3d.data.arrays import load_arrays

    known = None if is_file(dataset) else find(dataset)
    if known and known.name == FILES:
        raise ConfigError(f"dataset = {dataset!r}; expected the path of your file, ending in {', '.join(SUFFIXES)}")
    if known and split not in known.splits:
        raise ConfigError(f"{known.name} has no {split} split, only {', '.join(known.splits)}")
    try:
        if known is None:
            return load_arrays(dataset, num_points)
        return known.read(split, data_root, num_points, **(options or {}).get(known.name, {}))
    except DataError as error:
        if "\n" in error.expected and known is not None:
            raise _nothing_found(error, known, data_root) from None
        fix = error.fix.replace("num_points", "shape_points")  # what recipes call the argument of the readers
        raise type(error)(error.where, error.found, error.expected, fix) from None


def _nothing_found(error: DataError, known: DataSet, data_root: Path) -> MissingDataError:
    """The readers' page of layouts in one line: what was looked for, and the command that explains it."""
    looked_for = re.findall(r"^  \w+: ([\w-]+/|\S+)", known.layout, re.M)
    return MissingDataError(
        error.where, error.found, f"{' or '.join(looked_for)} there or below",
        f"contrast3d data check {known.name} --data-root {data_root}",
    )
