"""Clouds of points out of text, NumPy and LAS files, one cloud a file: x, y, z of every point as it is."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrast3d.data.arrays import check_header
from contrast3d.data.text_clouds import parse_table
from contrast3d.errors import DataError, UnreadableError

MOST_POINTS = 2**26
RESTORE = "restore this file from its source"
_KEYS = ("points", "data", "xyz", "pcd", "pc", "arr_0")


def read_text(data: bytes, where: str) -> Float[np.ndarray, "n 3"]:
    """Lines of x y z and anything numeric behind, separated by spaces, tabs, commas or semicolons.

    The first line may name the columns (x, y, z among them) or, as in .pts, count the points.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    first, _, rest = data.partition(b"\n")
    names = [w.strip('"/# ').lower() for w in re.split(r"[,;\s]+", first.decode("ascii", "replace").strip())]
    named = {"x", "y", "z"} <= set(names)
    table = parse_table(rest if named else data, where)
    declared = None
    if len(table.widths) > 1 and table.widths[0] == 1 and table.widths[1] > 1:
        declared = table.values[0]
        table = table._replace(values=table.values[1:], starts=table.starts[1:] - 1)
    if len(table.widths) == 0:
        raise DataError(where, "no numbers", "lines x y z", RESTORE)
    columns = table.widths[0]
    if columns < 3 or (table.widths != columns).any():
        row = int(np.flatnonzero((table.widths != columns) | (table.widths < 3))[0])
        raise DataError(where, f"{table.widths[row]} columns in row {row + 1}", f"{max(columns, 3)} columns", RESTORE)
    if declared is not None and declared != len(table.widths):
        raise DataError(where, f"{len(table.widths)} points", f"{declared:g} as the first line says", RESTORE)
    rows = table.values.reshape(-1, columns)
    if named and len(names) != columns:
        raise DataError(where, f"{len(names)} names for {columns} columns", "one name a column")
    return rows[:, [names.index(axis) for axis in "xyz"] if named else [0, 1, 2]]


def read_npy(path: Path, where: str) -> np.ndarray:
    """The array of an .npy, never unpickled: (n, 3) or wider."""
    with open(path, "rb") as file:
        check_header(file, path.stat().st_size, where)
        file.seek(0)
        return _columns(np.lib.format.read_array(file, allow_pickle=False), where)


def read_npz(path: Path, where: str, most_bytes: int) -> np.ndarray:
    """The points of an .npz, never unpickled; the array is called points, data, xyz, pcd or pc, or is the only one."""
    with zipfile.ZipFile(path) as archive:
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
        key = next((k for k in _KEYS if k in members), next(iter(members), "") if len(members) == 1 else "")
        if not key:
            raise DataError(where, f"keys {', '.join(members)[:80] or '(none)'}", "a key 'points' of shape (n, 3)")
        if members[key].file_size > most_bytes:
            raise DataError(where, f"{members[key].file_size} bytes when unpacked", f"at most {most_bytes}")
        with archive.open(members[key]) as file:
            check_header(file, members[key].file_size, where)
        with archive.open(members[key]) as file:
            return _columns(np.lib.format.read_array(file, allow_pickle=False), where)


def _columns(points: np.ndarray, where: str) -> np.ndarray:
    if points.dtype.kind not in "fiu":
        raise DataError(where, f"an array of type {points.dtype}", "numbers")
    if points.ndim == 3 and points.shape[2] >= 3:
        fix = "one shape a file; `contrast3d.load` of this file alone reads a whole set"
        raise DataError(where, f"an array of shape {points.shape}", "(points, 3)", fix)
    if points.ndim != 2 or points.shape[1] < 3:
        raise DataError(where, f"an array of shape {points.shape}", "(points, 3)")
    return points[:, :3]


def read_las(path: Path, where: str) -> Float[np.ndarray, "n 3"]:
    """The points of a .las or .laz file, in its own unit; a DataError without the extra `las`."""
    try:
        import laspy
    except ImportError:
        fix = "pip install 'contrast3d[las]'"
        raise UnreadableError(where, "a LAS file, but laspy is not installed", "laspy", fix) from None
    with laspy.open(path) as reader:
        count, size = reader.header.point_count, path.stat().st_size
        # A byte of a .laz holds at most a few points; an uncompressed file holds what it declares.
        least = count // 8 if path.suffix.lower() == ".laz" else count * reader.header.point_format.size
        if count > MOST_POINTS or least > size:
            raise DataError(where, f"{count} points declared in {size} bytes", f"at most {MOST_POINTS}, and all there")
        parts = [np.stack((c.x, c.y, c.z), 1) for c in reader.chunk_iterator(2**20)]
    points = np.concatenate(parts) if parts else np.empty((0, 3))
    if len(points) != count:
        raise DataError(where, f"{len(points)} points", f"{count} as declared", RESTORE)
    return points.astype(np.float64)
