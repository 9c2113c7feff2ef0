"""Many files read at once; broken ones are skipped, counted and listed, never silently dropped."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from contrast3d.errors import DataError

TOLERATED = 0.01  # more broken files than this share means that the whole set is damaged


def read_each(
    read: Callable, items: Sequence, workers: int | None = None
) -> tuple[list, list[int], list[str]]:
    """`read(item)` for every item, in a pool of threads.

    Returns the results, the positions in `items` they belong to, and one line for each item whose reading
    raised a DataError. Reading is worth threads when it releases the GIL, as `text_clouds` does.
    """

    def attempt(item):
        try:
            return read(item)
        except DataError as error:
            return error

    with ThreadPoolExecutor(workers or min(16, os.cpu_count() or 1)) as pool:
        results = list(pool.map(attempt, items))
    kept = [i for i, r in enumerate(results) if not isinstance(r, DataError)]
    return [results[i] for i in kept], kept, [str(r) for r in results if isinstance(r, DataError)]


def judge_broken(title: str, broken: Sequence[str], total: int) -> None:
    """Warn about the broken files of a set, or raise a DataError when they are more than one in a hundred."""
    if not broken:
        return
    listed = "".join(f"\n  {line}" for line in broken[:20])
    more = f"\n  ... and {len(broken) - 20} more" if len(broken) > 20 else ""
    found = f"{len(broken)} of {total} files cannot be used"
    if len(broken) > TOLERATED * total:
        fix = "restore the set from its source"
        raise DataError(title, found + listed + more, "at most one in a hundred", fix)
    warnings.warn(f"{title}: {found} and are left out:{listed}{more}", UserWarning, stacklevel=3)


def read_list(path: Path, expected: str) -> list[str]:
    """The non-empty lines of a text file, stripped; a DataError when there are none or it is no text."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(str(path), "bytes that are no text", expected) from error
    except OSError as error:
        raise DataError(str(path), error.strerror or "cannot be read", expected) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(str(path), "an empty list", expected, "restore this file from its source")
    return lines
