"""The shapes of many files as one memory-mapped array on disk; only what is new or has changed is read.

Files are read in parallel and chunk by chunk: a finished chunk stays when the reading is interrupted, and the next call
goes on behind it. Several processes that read the same folder, those of torchrun say, begin at different chunks and
share what they have read.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from contrast3d.data.file_stamps import Stamps
from contrast3d.data.folder_store import FolderStore, Part, VanishedError, digest, points_of, prune
from contrast3d.data.shape_files import Measured, measure_shape, shown
from contrast3d.errors import DataError, UnreadableError

CHUNK = 256  # files: what a kill may cost, and what is in memory at a time
_MOST_WORKERS = 16
_ATTEMPTS = 10  # as often another process may finish, and tidy up, while this one still reads

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Gathered:
    """What came of the files.

    points: (s, n, 3) float32, mapped from disk where it could be written. kept: (s,) positions in the list of files.
    boxes: (s, 2, 3) corners in the files' own frames. broken: (position, reason) of each file that cannot be used.
    place: the folder in the cache, None where it cannot be written.
    """

    points: np.ndarray
    kept: np.ndarray
    boxes: np.ndarray
    broken: list[tuple[int, str]]
    place: Path | None


class Options(NamedTuple):
    """Of `measure_shape`."""

    num_points: int
    up: str
    seed: int


class Source(NamedTuple):
    """A part that is known, and the file that its points must be fetched from, None where they are at hand."""

    part: Part
    path: Path | None = None


def gather(
    root: Path, files: Sequence[Path], options: Options, workers: int | None, tell: Tell
) -> Gathered:
    """`measure_shape` of every file below `root`, from the cache as far as it holds them; tell(done, all) meanwhile.

    Threads read: text is parsed, and surfaces sampled, by code that releases the GIL. The points are the same
    whatever their number. What stands in the way of a file but is not its fault is not remembered.
    """
    store, keys = FolderStore(os.path.realpath(root), *options), _keys(root, files)
    reading = _Reading(files, keys, options, store, workers or min(_MOST_WORKERS, _processors()), tell)
    for _ in range(_ATTEMPTS):
        stamp = store.stamp()
        sources = _sources(store, reading.held)
        where = {key: (i, j) for i, source in enumerate(sources) for j, key in enumerate(source.part.keys.tolist())}
        missing = [i for i, key in enumerate(keys) if key not in where and key not in reading.refused]
        if missing:
            reading.read(missing, stamp)
        elif (gathered := _joined(store, keys, sources, where, reading)) is not None:
            prune()
            return gathered
    raise DataError(shown(store.path), "files that vanish while they are read", "a cache left alone", "the same again")


def _keys(root: Path, files: Sequence[Path]) -> list[str]:
    """What a file's shape is found by: a digest of its path below the root, its size and its time of change."""
    stamps = Stamps()
    return [digest((os.fspath(file.relative_to(root)), *map(str, stamps(file)))) for file in files]


def _sources(store: FolderStore, held: list[Part]) -> list[Source]:
    """All that has been read, the table of a former call first."""
    table = store.table()
    parts = [Source(part, path) for path, part in store.parts().items()]
    return [*([Source(table)] if table else []), *parts, *map(Source, held)]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Reading:
    """Reads files into parts. held: those that could not be written. refused: key -> why the file could not be read,
    through no fault of its own."""

    def __init__(
        self, files: Sequence[Path], keys: list[str], options: Options, store: FolderStore, workers: int, tell: Tell
    ):
        self.files, self.keys, self.options, self.store, self.workers, self.tell = (
            files, keys, options, store, workers, tell)
        self.held: list[Part] = []
        self.refused: dict[str, str] = {}

    def read(self, missing: list[int], stamp: object) -> None:
        """Read the files at these positions, each process of torchrun beginning at another chunk.

        stamp: of the table that the files are missing from; this ends early when another process has written a new one.
        """
        chunks = [list(chunk) for _, chunk in groupby(missing, lambda position: position // CHUNK)]
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        first, done = rank * len(chunks) // max(world, 1), len(self.files) - len(missing)
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for chunk in chunks[first:] + chunks[:first]:
                    path = self.store.part_path([self.keys[i] for i in chunk])
                    if not path.exists():
                        if self.store.stamp() != stamp:
                            return
                        self._keep(path, self._part(chunk, pool, done))
                    done += len(chunk)
                    self.tell(done, len(self.files))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _part(self, chunk: list[int], pool: ThreadPoolExecutor, done: int) -> Part:
        keys, shapes, good, reasons = [], [], [], []
        for i, (position, result) in enumerate(zip(chunk, pool.map(self._attempt, chunk)), 1):
            if isinstance(result, UnreadableError):
                self.refused[self.keys[position]] = _reason(result)
            else:
                keys.append(self.keys[position])
                good.append(isinstance(result, Measured))
                (shapes if good[-1] else reasons).append(result)
            self.tell(done + i, len(self.files))
        return Part(
            np.array(keys, str), np.array(good, bool), np.array([_reason(r) for r in reasons], str),
            np.array([s.box for s in shapes], np.float64).reshape(-1, 2, 3),
            np.array([s.points for s in shapes], np.float32).reshape(-1, self.options.num_points, 3),
        )

    def _attempt(self, position: int) -> Measured | DataError:
        num_points, up, seed = self.options
        try:
            return measure_shape(self.files[position], num_points, up=up, seed=seed)
        except DataError as error:
            return error

    def _keep(self, path: Path, part: Part) -> None:
        if len(part.keys) == 0:
            return
        try:
            self.store.write_part(path, part)
        except OSError as error:
            if not self.held:
                _warn_unwritable(self.store, error)
            self.held.append(part)


def _reason(error: DataError) -> str:
    return str(error).removeprefix(f"{error.where}: ")


def _joined(
    store: FolderStore, keys: list[str], sources: list[Source], where: dict[str, tuple[int, int]], reading: _Reading
) -> Gathered | None:
    """All files in order, written as the new table where it is not the old one; None where a part has vanished."""
    found = [where[key] for key in keys if key in where]
    good = np.array([sources[i].part.good[j] for i, j in found], bool)
    picks = [(i, int(sources[i].part.rows[j])) for i, j in found]
    shapes = [pick for pick, is_good in zip(picks, good) if is_good]
    table = Part(
        np.array([key for key in keys if key in where], str), good,
        np.array([sources[i].part.reasons[row] for (i, row), is_good in zip(picks, good) if not is_good], str),
        np.array([sources[i].part.boxes[row] for i, row in shapes], np.float64).reshape(-1, 2, 3),
    )
    num_points, place = reading.options.num_points, store.path
    try:
        if reading.held:
            return _gathered(_in_memory(sources, shapes, num_points), table, keys, reading.refused, None)
        try:
            used = [source.path for source in sources if source.path]
            if used or not sources or not np.array_equal(sources[0].part.keys, table.keys):
                store.write(table, _pieces(sources, shapes), num_points, used)
            written = store.table()
            if written is None or not np.array_equal(written.keys, table.keys):
                return None  # another process has seen other files
            points = written.points
        except OSError as error:
            _warn_unwritable(store, error)
            points = _in_memory(sources, shapes, num_points)
    except VanishedError:
        return None
    return _gathered(points, table, keys, reading.refused, place)


def _gathered(
    points: np.ndarray, table: Part, keys: list[str], refused: dict[str, str], place: Path | None
) -> Gathered:
    position = {key: i for i, key in enumerate(keys)}
    positions = np.array([position[key] for key in table.keys.tolist()], np.int64)
    broken = list(zip(positions[~table.good].tolist(), table.reasons.tolist()))
    broken += [(position[key], reason) for key, reason in refused.items()]
    return Gathered(points, positions[table.good], table.boxes, sorted(broken), place)


def _pieces(sources: list[Source], shapes: list[tuple[int, int]]) -> Iterator[Float[np.ndarray, "_ n 3"]]:
    """The points of shapes (source, row), some at a time."""
    held: tuple[int | None, np.ndarray | None] = None, None  # the part opened last: runs of the table lie between
    for i, run in groupby(shapes, lambda shape: shape[0]):
        points = sources[i].part.points
        if points is None and held[0] != i:
            held = i, points_of(sources[i].path)
        points = held[1] if points is None else points
        rows = [row for _, row in run]
        for start in range(0, len(rows), CHUNK):
            yield points[rows[start : start + CHUNK]]


def _in_memory(sources: list[Source], shapes: list[tuple[int, int]], num_points: int) -> np.ndarray:
    return np.concatenate([np.empty((0, num_points, 3), np.float32), *_pieces(sources, shapes)])


def _warn_unwritable(store: FolderStore, error: OSError) -> None:
    found = f"cannot be written ({error.strerror}); the shapes are kept in memory, and read again next time"
    warnings.warn(f"{shown(store.path)}: {found}. Set CONTRAST3D_CACHE", stacklevel=5)
