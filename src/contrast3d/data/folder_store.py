"""What has been read of a folder of shapes, on disk: a row per file, found again by name, size and time.

    table.npz             every file that was read: its key, its box or what is wrong with it
    points-DIGEST.npy     (s, n, 3) float32, a row for each good file of the table, to be mapped
    part-DIGEST.npz       files read since, with their points: taken into the two above when all are there
    broken.csv            the broken ones, for people

The digest of the points is over the keys of their files, and the table names them: it is replaced in one step, so a
reader finds one state or the next. Several processes may read and write: whoever is last writes the same again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrast3d.data import cache

UNUSED_DAYS = 30  # after so long a folder's shapes are forgotten
_PREFIX = "folder-"


@dataclass(frozen=True)
class Part:
    """Some files. keys: one each. good: (f,) which of them hold a shape. reasons: (f - s,) texts of the others.

    boxes: (s, 2, 3) corners of the shapes in their files' frames. points: (s, n, 3), or None where they stay on disk.
    """

    keys: np.ndarray
    good: np.ndarray
    reasons: np.ndarray
    boxes: np.ndarray
    points: np.ndarray | None = None

    @cached_property
    def rows(self) -> np.ndarray:
        """(f,) of each file, its row among the shapes, or among the reasons."""
        return np.where(self.good, np.cumsum(self.good), np.cumsum(~self.good)) - 1

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file of a part holds."""
        arrays = {"keys": self.keys, "good": self.good, "reasons": self.reasons, "boxes": self.boxes}
        return arrays if self.points is None else {**arrays, "points": self.points}


class FolderStore:
    """The files of one folder's shapes, as they were read with the same options."""

    def __init__(self, *options: object):
        """options: all that the shapes depend on, but for the files themselves; the path of the folder first."""
        self.path = cache.cache_folder() / f"{_PREFIX}{digest(map(str, (*options, cache.VERSION)))}"

    def stamp(self) -> tuple[int, int] | None:
        """Changes when the table does; None where there is none."""
        try:
            state = self._table.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_ino

    def table(self) -> Part | None:
        """All files of the table, with their points mapped; None where there is no whole one.

        A damaged one is removed.
        """
        for _ in range(3):
            before = self.stamp()
            if before is None:
                return None
            try:
                with np.load(self._table, allow_pickle=False) as file:
                    arrays, place = _details(file), self.path / str(file["place"])
                points = np.load(place, mmap_mode="c", allow_pickle=False)  # writing to it changes no file
                if len(points) == len(arrays["boxes"]) == arrays["good"].sum():
                    with contextlib.suppress(OSError):
                        os.utime(self.path)  # it is in use
                    return Part(**arrays, points=points)
            except Exception:  # absent or damaged in any way: the files are what counts
                pass
            if self.stamp() == before:  # nobody has replaced it between the two files
                for path in (self._table, *self.path.glob("points-*.npy")):
                    path.unlink(missing_ok=True)
        return None

    def parts(self) -> dict[Path, Part]:
        """What lies in parts, without the points; damaged ones are removed."""
        found = {}
        for path in sorted(self.path.glob("part-*.npz")):
            try:
                with np.load(path, allow_pickle=False) as file:
                    found[path] = Part(**_details(file))
            except Exception:
                path.unlink(missing_ok=True)
        return found

    def part_path(self, keys: Sequence[str]) -> Path:
        """Where the part lies that is made by reading these files."""
        return self.path / f"part-{digest(keys)}.npz"

    def write_part(self, path: Path, part: Part) -> None:
        cache.write_arrays(path, part.arrays())

    def write(
        self, table: Part, points: Iterator[Float[np.ndarray, "_ n 3"]], num_points: int, used: list[Path]
    ) -> None:
        """The table and its points, given some at a time, in place of what there was and of the parts `used`."""
        place = self.path / f"points-{digest(table.keys[table.good].tolist())}.npy"
        if not place.exists():
            _write_points(place, (int(table.good.sum()), num_points, 3), points)
        cache.write_arrays(self._table, {**table.arrays(), "place": np.array(place.name)})
        for path in (*used, *(p for p in self.path.glob("points-*.npy") if p != place), *_left_behind(self.path)):
            with contextlib.suppress(OSError):  # open elsewhere, on Windows
                path.unlink()

    @property
    def _table(self) -> Path:
        return self.path / "table.npz"


class VanishedError(Exception):
    """A part that was there is gone or damaged."""


def points_of(path: Path) -> Float[np.ndarray, "s n 3"]:
    """The points of a part; a VanishedError where there are none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["points"]
    except Exception:
        path.unlink(missing_ok=True)
        raise VanishedError(path) from None


def prune(days: float = UNUSED_DAYS) -> None:
    """Remove from the cache the folders that nobody has used for so long, and nothing that was not written here."""
    for folder in cache.cache_folder().glob(f"{_PREFIX}{'[0-9a-f]' * 16}"):
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime > time.time() - days * 86400:
                continue
            for pattern in ("table.npz", "points*.npy", "part-*.npz", "shapes.npz", "broken.csv", "*.tmp"):
                for path in folder.glob(pattern):
                    path.unlink()
            folder.rmdir()


def digest(texts) -> str:
    """16 hexadecimal digits that tell sequences of texts from each other."""
    whole = hashlib.sha256()
    for text in texts:
        whole.update(text.encode("utf-8", "surrogateescape") + b"\0")
    return whole.hexdigest()[:16]


def _details(file) -> dict[str, np.ndarray]:
    return {name: file[name] for name in ("keys", "good", "reasons", "boxes")}


def _left_behind(folder: Path) -> list[Path]:
    """Temporary files of writers that were killed."""
    return [p for p in folder.glob("*.tmp") if p.stat().st_mtime < time.time() - 86400]


def _write_points(place: Path, shape: tuple[int, int, int], points: Iterator[Float[np.ndarray, "_ n 3"]]) -> None:
    """An .npy, written through: a full disk is an error here, where it would kill a process that maps it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".tmp", delete=False) as file:
        try:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for some in points:
                file.write(np.ascontiguousarray(some, "<f4").tobytes())
            file.close()
            os.replace(file.name, place)
        except BaseException:
            os.unlink(file.name)
            raise
