"""Annotation files of S3DIS: lines `x y z r g b`, a few of which hold a control byte and are no six numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrast3d.data.text_clouds import parse_table
from contrast3d.errors import DataError

COLUMNS = 6
TOLERATED = 0.01  # more bad lines than this share, and more than one, is a damaged file


def read_numbers(path: Path) -> tuple[Float[np.ndarray, "n 6"], int]:
    """(x y z r g b of every line that parses, how many do not), as PointContrast's preparation does.

    A DataError where the file cannot be read, has no such line, or more than one in a hundred is bad.
    """
    where = str(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(where, error.strerror or "cannot be read", "lines x y z r g b") from error
    try:
        table, bad = parse_table(text, where), 0
    except DataError:
        text, bad = _cleaned(text)
        table = parse_table(text, where)
    right = table.widths == COLUMNS
    rows = table.values[(table.starts[:-1][right, None] + np.arange(COLUMNS))]
    possible = np.isfinite(rows).all(1) & (rows[:, 3:] >= 0).all(1) & (rows[:, 3:] <= 255).all(1)
    bad += int((~right).sum() + (~possible).sum())
    rows = rows[possible]
    if not len(rows) or bad > max(1, TOLERATED * (len(rows) + bad)):
        fix = "restore this file from its source"
        raise DataError(where, f"{bad} bad lines beside {len(rows)} good ones", "lines x y z r g b", fix)
    return rows, bad


def _cleaned(text: bytes) -> tuple[bytes, int]:
    """The lines that are nothing but numbers, and how many others there are."""
    good, bad = [], 0
    for line in text.split(b"\n"):
        try:
            [float(word) for word in line.split()]
            good.append(line)
        except ValueError:
            bad += 1
    return b"\n".join(good), bad
