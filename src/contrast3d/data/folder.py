"""A folder of meshes and point clouds is a data set: found, read in parallel through a cache on disk."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from contrast3d.data.shape_files import SUFFIXES, read_shape, shown
from contrast3d.errors import DataError, MissingDataError

__all__ = ["Found", "find_files", "look_through", "read_shape"]


class Found(NamedTuple):
    """files: what can be tried, in order of their paths. ignored: how many others there are, by suffix."""

    files: list[Path]
    ignored: Counter


def find_files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Every file of a known suffix in these files and folders, sub-folders included, sorted within each.

    Hidden files and folders are skipped, links to folders followed once. A file named itself is taken whatever it is
    called. A MissingDataError where nothing is found, which counts what was ignored.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    return look_through([Path(p) for p in paths]).files


def look_through(paths: Sequence[Path]) -> Found:
    """`find_files`, and what was ignored."""
    files: list[Path] = []
    ignored: Counter = Counter()
    for path in paths:
        if path.is_dir():
            found = _below(path)
            files += found.files
            ignored += found.ignored
        elif os.path.lexists(path):
            files.append(path)
        else:
            raise MissingDataError(shown(path), "no such file or folder", "meshes or point clouds, or a folder of them")
    if not files:
        what = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in ignored.most_common(5))
        found = f"no mesh or cloud of points, only {what}" if ignored else "an empty folder"
        raise MissingDataError(", ".join(map(shown, paths[:3])), found, f"files ending in {', '.join(SUFFIXES)}")
    return Found(list(dict.fromkeys(files)), ignored)


def _below(root: Path) -> Found:
    """The files below a folder. Each real folder is entered once, under its own name rather than a link's."""
    files: list[Path] = []
    ignored: Counter = Counter()
    waiting, links, entered = [root], [], set()
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop()
        try:
            state = folder.stat()
            if (state.st_dev, state.st_ino) in entered:
                continue
            entered.add((state.st_dev, state.st_ino))
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            raise DataError(shown(folder), error.strerror or "cannot be listed", "a readable folder") from None
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else waiting).append(path)
            elif path.suffix.lower() in SUFFIXES:
                files.append(path)  # a link that leads nowhere too: reading it says so
            else:
                ignored[path.suffix.lower()] += 1
    return Found(sorted(files), ignored)
