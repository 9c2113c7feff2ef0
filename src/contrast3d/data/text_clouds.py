"""Tables of numbers in text files, parsed by a compiled kernel that releases the GIL.

The text layouts of the field (ModelNet40, ShapeNetPart, S3DIS, OFF) are gigabytes of short decimals. One
thread parses over 100 MB a second, so that a pool of plain threads is all the parallelism needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int

from contrast3d.errors import DataError

RESTORE = "restore this file from its source"
_POWERS = 10.0 ** np.arange(23)  # exactly representable


class Table(NamedTuple):
    """Numbers of a text, line by line; empty lines and `#` comments are left out.

    values: all numbers in reading order; row i owns values[starts[i] : starts[i + 1]].
    """

    values: Float[np.ndarray, "v"]
    starts: Int[np.ndarray, "rows1"]

    @property
    def widths(self) -> Int[np.ndarray, "rows"]:
        return np.diff(self.starts)


@numba.njit(nogil=True, cache=True)
@no_type_check  # the tests' type checks would wrap it, and numba compiles plain functions only
def _parse(text, max_rows, powers):
    """Returns values, row starts, the first bad line (1-based, 0 = none) and the bad token's bounds."""
    size = text.size
    values = np.empty(size // 2 + 1)
    starts = np.zeros(min(size // 2 + 1, max_rows) + 1, np.int64)
    count, rows, line, i = 0, 0, 1, 0
    while i <= size and rows < max_rows:
        c = text[i] if i < size else 10
        if c == 35:  # '#': a comment up to the end of the line
            while i < size and text[i] != 10:
                i += 1
            continue
        if c == 10:
            if count > starts[rows]:
                rows += 1
                starts[rows] = count
            line += 1
            i += 1
            continue
        if c == 32 or c == 9 or c == 44 or c == 59 or c == 13:  # space, tab, comma, semicolon, return
            i += 1
            continue
        begin = i
        negative = c == 45
        if c == 45 or c == 43:
            i += 1
        mantissa, exponent, digits, significant, point = np.int64(0), 0, 0, 0, False
        while i < size:
            c = text[i]
            if 48 <= c <= 57:
                digits += 1
                if significant < 18:
                    mantissa = mantissa * 10 + (c - 48)
                    significant += mantissa > 0
                    exponent -= point
                else:
                    exponent += not point
            elif c == 46 and not point:
                point = True
            else:
                break
            i += 1
        good = digits > 0
        if good and i < size and (text[i] | 32) == 101:  # e, E
            i += 1
            minus = i < size and text[i] == 45
            if i < size and (text[i] == 45 or text[i] == 43):
                i += 1
            power, good = 0, False
            while i < size and 48 <= text[i] <= 57:
                power = min(power * 10 + (text[i] - 48), 9999)
                good = True
                i += 1
            exponent += -power if minus else power
        value = np.float64(mantissa)
        if mantissa == 0:
            value = 0.0
        elif 0 <= exponent <= 22:
            value *= powers[exponent]
        elif -22 <= exponent < 0:
            value /= powers[-exponent]
        else:
            value *= 10.0 ** np.float64(exponent)
        if not good and i + 3 <= size:
            a, b, c = text[i] | 32, text[i + 1] | 32, text[i + 2] | 32
            if a == 110 and b == 97 and c == 110:
                value, good, i = np.nan, True, i + 3
            elif a == 105 and b == 110 and c == 102:
                value, good, i = np.inf, True, i + 3
        end = i
        while end < size and text[end] > 32 and text[end] != 44 and text[end] != 59 and text[end] != 35:
            end += 1
        stray = end < size and text[end] < 32 and (text[end] < 9 or text[end] > 13)  # a control byte
        if not good or end > i or stray:
            return values[:count].copy(), starts[: rows + 1].copy(), line, begin, max(end, begin + 1)
        values[count] = -value if negative else value
        count += 1
    return values[: starts[rows]].copy(), starts[: rows + 1].copy(), 0, 0, 0


def parse_table(text: bytes, where: str, max_rows: int | None = None) -> Table:
    """Text -> Table. Numbers are separated by spaces, tabs, commas or semicolons; accurate to 1e-15 relative.

    A DataError names `where`, the line and the word that is no number.
    """
    rows = len(text) + 1 if max_rows is None else max_rows
    data = np.frombuffer(text, np.uint8)
    values, starts, line, begin, end = _parse(data, rows, _POWERS)
    if line:
        word = text[begin : min(end, begin + 24)].decode("ascii", "backslashreplace")
        raise DataError(where, f"{word!a} on line {line}", "numbers", RESTORE)
    return Table(values, starts)


def _head(path: Path, max_rows: int | None) -> Table:
    """The table in a file; with `max_rows`, only as much of the file is read as holds that many rows."""
    with open(path, "rb") as file:
        text = b""
        if max_rows is not None:
            text = file.read(max_rows * 128)
            head = parse_table(text[: text.rfind(b"\n") + 1], str(path), max_rows)
            if len(head.widths) == max_rows:
                return head
        return parse_table(text + file.read(), str(path), max_rows)


def read_table(path: str | Path, columns: int, max_rows: int | None = None) -> Float[np.ndarray, "n columns"]:
    """A text file of `columns` finite numbers a line -> (n, columns) float64; `max_rows` reads no further.

    A DataError where the file is missing, unreadable, empty, ragged, or holds NaN or infinity.
    """
    where = str(path)
    try:
        table = _head(Path(path), max_rows)
    except OSError as error:
        raise DataError(where, error.strerror or "cannot be read", "a readable text file") from error
    if len(table.widths) == 0:
        raise DataError(where, "no numbers", f"lines of {columns}", RESTORE)
    wrong = np.flatnonzero(table.widths != columns)
    if len(wrong):
        found = f"{table.widths[wrong[0]]} columns in row {wrong[0] + 1}"
        raise DataError(where, found, f"{columns} columns", RESTORE)
    rows = table.values.reshape(-1, columns)
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        found = f"NaN or infinity in row {bad[0] + 1} ({len(bad)} such rows)"
        raise DataError(where, found, "finite numbers", RESTORE)
    return rows
