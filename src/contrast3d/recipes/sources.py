"""What `embed` takes: files, folders, data sets of the catalogue and array files, as shapes to be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from contrast3d.data.file_stamps import Stamps
from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.index.embedding import Item
from contrast3d.index.shards import Entry
from contrast3d.recipes import datasets


def items_of(
    paths: Sequence[str], num_points: int, *, up: str = "z", data_root: Path = Path("data")
) -> list[Item]:
    """The shapes at `paths`, each once; their files are read later, those of data sets and array files now.

    paths: files and folders of meshes or point clouds, array files of many shapes (.npz, .npy, .h5), and names that
        `contrast3d data list` knows, all splits of which are taken.
    up: the axis that files have up; sets and array files are taken as they are.

    Raises MissingDataError for a path that is not there, and DataError where nothing is found.
    """
    items: dict[str, Item] = {}
    for path in paths:
        for item in _items(path, num_points, up, data_root):
            items.setdefault(item.entry.name, item)
    if not items:
        raise DataError(", ".join(map(str, paths)), "no shapes", "files of meshes or point clouds")
    return list(items.values())


def _items(path: str, num_points: int, up: str, data_root: Path) -> list[Item]:
    place = Path(path)
    if not place.exists():
        return _of_the_catalogue(path, num_points, data_root)
    if place.is_file() and datasets.is_file(path):
        return _array_file(place, num_points, up)
    from contrast3d.data.folder import find_files

    return file_items(find_files([place]), num_points, up)


def file_items(paths: Sequence[Path], num_points: int, up: str) -> list[Item]:
    """Files of one shape each."""
    from contrast3d.data.folder import read_shape

    stamps = Stamps()
    return [Item(file_entry(path, stamps), partial(read_shape, path, num_points, up=up)) for path in paths]


def file_entry(path: Path, stamps: Stamps | None = None) -> Entry:
    """Name, size and time of a file; 0 for one that went away meanwhile, which reading it will tell.

    stamps: knows the buffers of many .gltf files.
    """
    return Entry(os.path.abspath(path), *(stamps or Stamps())(path))


def set_items(shapes: ShapeSet, prefix: str, mark: str = "/", stat: os.stat_result | None = None) -> list[Item]:
    """The shapes of a set in memory, named PREFIX, the mark, NAME."""
    size, mtime = (stat.st_size, stat.st_mtime_ns) if stat else (0, 0)
    points = shapes.points.numpy()
    names = shapes.names or tuple(map(str, range(len(shapes))))
    return [
        Item(Entry(f"{prefix}{mark}{name}", size, mtime), partial(points.__getitem__, row))
        for row, name in enumerate(names)
    ]


def _array_file(path: Path, num_points: int, up: str) -> list[Item]:
    """The shapes of an array file; of one with a single cloud (N, 3), that."""
    from contrast3d.data import arrays

    readers = {".npz": arrays.read_npz, ".npy": arrays.read_npy}
    content = readers.get(path.suffix.lower(), arrays.read_h5)(path)
    if all(values.ndim == 2 for key, values in content.items() if key in ("points", "data", "xyz")):
        return file_items([path], num_points, up)
    try:
        shapes = arrays.shape_set(content, str(path), num_points)
    except DataError as error:  # the number of points is the run's, and no argument here
        fix = "a run with a smaller shape_points" if "num_points" in error.fix else error.fix
        raise type(error)(error.where, error.found, error.expected, fix) from None
    return set_items(shapes, os.path.abspath(path), "#", path.stat())


def _of_the_catalogue(name: str, num_points: int, data_root: Path) -> list[Item]:
    if os.sep in name or Path(name).suffix:
        raise MissingDataError(name, "no such file or folder", "shapes to embed")
    try:
        known = datasets.find(name)
    except ConfigError as error:
        raise MissingDataError(name, "no such file or folder, and " + str(error)) from None
    splits = ("all",) if "all" in known.splits else [s for s in known.splits if s in ("train", "val", "test")]
    return [
        item for split in splits
        for item in set_items(datasets.read(known.name, split, data_root, num_points), f"{known.name}/{split}")
    ]
