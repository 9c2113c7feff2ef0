"""The shapes of many files as one memory-mapped array on disk, read in parallel and chunk by chunk.

A finished chunk stays when the reading is interrupted, and the next call goes on behind it. Several processes that
read the same folder, those of torchrun say, begin at different chunks and share what they have read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contrast3d.data import cache
from contrast3d.data.shape_files import Measured, measure_shape, shown
from contrast3d.errors import DataError

CHUNK = 256  # files: what a kill may cost, and what is in memory at a time
_MOST_WORKERS = 16

Part = dict[str, np.ndarray]


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


def gather(
    files: Sequence[Path], num_points: int, up: str, seed: int, workers: int | None, tell: Callable[[int, int], None]
) -> Gathered:
    """`measure_shape` of every file, from the cache as far as it holds them; tell(done, all) while it reads.

    Threads read: text is parsed, and surfaces sampled, by code that releases the GIL. The points are the same
    whatever their number.
    """
    place = _place(files, num_points, up, seed)
    if (known := _finished(place)) is not None:
        return known
    held: dict[int, Part] = {}  # chunks that could not be written
    for _ in range(3):  # another process may finish, and tidy up, while this one still reads
        with ThreadPoolExecutor(workers or min(_MOST_WORKERS, _processors())) as pool:
            try:
                _read_missing(files, (num_points, up, seed), place, held, pool, tell)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        known = _finished(place) or _joined(place, _chunks(files), held)
        if known is not None:
            return known
    raise DataError(shown(place), "chunks that vanish while they are read", "a cache left alone", "the same again")


def _place(files: Sequence[Path], num_points: int, up: str, seed: int) -> Path:
    beside = {b for f in files if f.suffix.lower() == ".gltf" for b in f.parent.glob("*.bin")}  # its buffers
    shut = [shown(f) for f in files if not os.access(f, os.R_OK)]  # neither shows in a file's time: what may be read,
    laspy = importlib.util.find_spec("laspy") is not None  # and what can be
    key = {"files": cache.fingerprint([*files, *sorted(beside)]), "num_points": num_points, "up": up, "seed": seed,
           "chunk": CHUNK, "version": cache.VERSION, "shut": shut, "laspy": laspy}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return cache.cache_folder() / f"folder-{digest}"


def _part(place: Path, number: int) -> Path:
    return place / f"part-{number:06d}.npz"


def _chunks(files: Sequence[Path]) -> int:
    return -(-len(files) // CHUNK)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_missing(
    files: Sequence[Path], options: tuple, place: Path, held: dict[int, Part], pool: ThreadPoolExecutor,
    tell: Callable[[int, int], None],
) -> None:
    """Read every chunk that is neither in the cache nor held. Each process of torchrun begins at another."""
    count, rank, world = _chunks(files), int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    first, done = rank * count // max(world, 1), 0
    for number in ((first + i) % count for i in range(count)):
        chunk = range(number * CHUNK, min((number + 1) * CHUNK, len(files)))
        if number not in held and not _part(place, number).exists():
            if (place / "shapes.npz").exists():
                return
            part = _read(files, chunk, options, pool, lambda n, before=done: tell(before + n, len(files)))
            try:
                cache.write_arrays(_part(place, number), part)
            except OSError as error:
                if not held:
                    _warn_unwritable(place, error)
                held[number] = part
        done += len(chunk)
        tell(done, len(files))


def _read(files: Sequence[Path], chunk: range, options: tuple, pool: ThreadPoolExecutor, tell) -> Part:
    num_points, up, seed = options

    def attempt(position: int) -> Measured | DataError:
        try:
            return measure_shape(files[position], num_points, up=up, seed=seed)
        except DataError as error:
            return error

    shapes, kept, broken, reasons = [], [], [], []
    for i, (position, result) in enumerate(zip(chunk, pool.map(attempt, chunk)), 1):
        if isinstance(result, DataError):
            broken.append(position)
            reasons.append(str(result).removeprefix(f"{result.where}: "))
        else:
            shapes.append(result)
            kept.append(position)
        tell(i)
    return {
        "points": np.array([s.points for s in shapes], np.float32).reshape(-1, num_points, 3),
        "boxes": np.array([s.box for s in shapes], np.float64).reshape(-1, 2, 3),
        "kept": np.array(kept, np.int64), "broken": np.array(broken, np.int64), "reasons": np.array(reasons, str),
    }


def _joined(place: Path, count: int, held: dict[int, Part]) -> Gathered | None:
    """One array of all chunks, on disk unless the disk refuses; None where a chunk cannot be read back."""
    details = [_load(place, i, held, ("boxes", "kept", "broken", "reasons")) for i in range(count)]
    if any(part is None for part in details):
        return None
    arrays = {key: np.concatenate([part[key] for part in details]) for key in details[0]}
    chunks = (_load(place, i, held, ("points",)) for i in range(count))
    if not held and len(arrays["kept"]):
        try:
            _write_points(place, len(arrays["kept"]), chunks)
            cache.write_arrays(place / "shapes.npz", arrays)
            for path in place.glob("part-*.npz"):
                path.unlink(missing_ok=True)
            return _finished(place)
        except LookupError:  # a chunk vanished between the two readings
            return None
        except OSError as error:
            _warn_unwritable(place, error)
    points = [_load(place, i, held, ("points",)) for i in range(count)]
    if any(part is None for part in points):
        return None
    return _gathered(np.concatenate([part["points"] for part in points]), arrays, None if held else place)


def _warn_unwritable(place: Path, error: OSError) -> None:
    found = f"cannot be written ({error.strerror}); the shapes are kept in memory, and read again next time"
    warnings.warn(f"{shown(place)}: {found}. Set CONTRAST3D_CACHE", stacklevel=5)


def _write_points(place: Path, count: int, chunks: Iterator[Part | None]) -> None:
    """points.npy, written through: a full disk is an error here, where it would kill a process that maps it."""
    with tempfile.NamedTemporaryFile(dir=place, suffix=".tmp", delete=False) as file:
        try:
            for i, part in enumerate(chunks):
                if part is None:
                    raise LookupError(i)
                if i == 0:
                    header = {"descr": "<f4", "fortran_order": False, "shape": (count, *part["points"].shape[1:])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(part["points"].tobytes())
            file.close()
            os.replace(file.name, place / "points.npy")
        except BaseException:
            os.unlink(file.name)
            raise


def _load(place: Path, number: int, held: dict[int, Part], keys: tuple[str, ...]) -> Part | None:
    """Some arrays of a chunk; None, and it is removed, where it is damaged."""
    if number in held:
        return held[number]
    try:
        with np.load(_part(place, number), allow_pickle=False) as file:
            return {key: file[key] for key in keys}
    except Exception:  # absent or damaged in any way: the files are what counts
        _part(place, number).unlink(missing_ok=True)
        return None


def _finished(place: Path) -> Gathered | None:
    """The whole array, when the cache has it; a damaged one is removed."""
    if not (place / "shapes.npz").exists():
        return None
    try:
        with np.load(place / "shapes.npz", allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("boxes", "kept", "broken", "reasons")}
        points = np.load(place / "points.npy", mmap_mode="c", allow_pickle=False)  # writing to it changes no file
        if len(points) != len(arrays["kept"]):
            raise ValueError("another number of shapes")
    except Exception:
        shutil.rmtree(place, ignore_errors=True)
        return None
    return _gathered(points, arrays, place)


def _gathered(points: np.ndarray, arrays: Part, place: Path | None) -> Gathered:
    broken = list(zip(arrays["broken"].tolist(), arrays["reasons"].tolist()))
    return Gathered(points, arrays["kept"], arrays["boxes"], broken, place)
