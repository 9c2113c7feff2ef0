"""Shards: the parts an index is written in. Three files each, written once, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from contrast3d.engine.run_dir import replacing
from contrast3d.errors import DataError

SHARD_ROWS = 8192  # at most: 16 MB of 512-wide vectors, which a kill may cost
KEPT_POINTS = 1024  # of each shape, for pictures: 6 kB
FIX = "embed again into another folder"


class Entry(NamedTuple):
    """One row of an index: the shape's name, and by which bytes it was known then.

    name: the absolute path of a file, or SET/SPLIT/NAME, FILE#NAME of shapes that come many to a file.
    size: bytes of the file; mtime: nanoseconds since 1970 of its last change. Both 0 where there is no file.
    """

    name: str
    size: int = 0
    mtime: int = 0


@dataclass(frozen=True)
class Shard:
    """Rows of an index: unit vectors (S, D) float32, points (S, P, 3) float16 for pictures, and entries."""

    vectors: Float[np.ndarray, "s d"]
    points: Float[np.ndarray, "s p 3"]
    entries: Sequence[Entry]

    def __len__(self) -> int:
        return len(self.entries)


def shard_files(folder: Path, number: int) -> tuple[Path, Path, Path]:
    """vectors-NNNNN.npy, points-NNNNN.npy and entries-NNNNN.jsonl, in the order in which they are written."""
    names = f"vectors-{number:05}.npy", f"points-{number:05}.npy", f"entries-{number:05}.jsonl"
    return tuple(folder / name for name in names)


def complete_shards(folder: Path) -> list[int]:
    """Numbers of the shards in a folder, in order. The entries are written last: where they are, all is."""
    numbers = (path.stem.removeprefix("entries-") for path in folder.glob("entries-*.jsonl"))
    return sorted(int(number) for number in numbers if number.isdigit())


def write_shard(folder: Path, number: int, shard: Shard) -> None:
    """Write the three files of a shard."""
    vectors, points, entries = shard_files(folder, number)
    for path, array, dtype in ((vectors, shard.vectors, np.float32), (points, shard.points, np.float16)):
        with replacing(path) as file:
            np.save(file, np.ascontiguousarray(array, dtype), allow_pickle=False)
    with replacing(entries) as file:
        file.write("".join(json.dumps(e._asdict()) + "\n" for e in shard.entries).encode())


def read_shard(folder: Path, number: int, width: int) -> Shard:
    """A shard whose arrays stay on disk (memory-mapped); a DataError where its files do not fit each other."""
    vectors, points, entries = shard_files(folder, number)
    listed = _entries(entries)
    return Shard(
        _mapped(vectors, (len(listed), width), np.float32), _mapped(points, (len(listed), None, 3), np.float16), listed
    )


def _entries(path: Path) -> list[Entry]:
    try:
        lines = path.read_text("utf-8").splitlines()
        return [Entry(**entry) for entry in json.loads(f"[{','.join(lines)}]")]  # at once: an index has many
    except OSError as error:
        raise DataError(str(path), error.strerror or "unreadable", "the names of a shard", FIX) from None
    except (ValueError, TypeError) as error:
        raise DataError(str(path), f"not the names of a shard ({error})", "one JSON object per line", FIX) from None


def _mapped(path: Path, shape: tuple[int | None, ...], dtype: type) -> np.ndarray:
    """The array of an .npy, on disk. Copy-on-write, because torch warns of arrays that it may not write."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(str(path), f"unreadable ({str(error)[:120]})", "a whole .npy of the index", FIX) from None
    fits = array.ndim == len(shape) and all(b in (a, None) for a, b in zip(array.shape, shape))
    if array.dtype != dtype or not fits:
        wanted = ", ".join("any" if b is None else str(b) for b in shape)
        raise DataError(str(path), f"{array.dtype} of shape {array.shape}", f"{np.dtype(dtype)} of ({wanted})", FIX)
    return array
