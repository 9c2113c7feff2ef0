"""Labels of the points of an embedded data set, in a file beside them.

A file holds one line of JSON (format, version, S shapes, N points, the crc32 of what follows and that of the points'
file, which the labels belong to), then an xz stream of S x N bytes, the labels of each shape in the order of its sorted
Morton codes: neighbours on a surface mostly share a label, so little remains of them.
"""

from __future__ import annotations

import json
import lzma
import zlib
from pathlib import Path

import numpy as np

from contrast3d.data import compact
from contrast3d.errors import DataError, MissingDataError

_HEADER = {"format": "contrast3d point labels", "version": 1}
_MAX_HEADER = 1000
_FIX = "reinstall contrast3d; this file ships inside the package"
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]


def encode(codes: np.ndarray, labels: np.ndarray, points_file: bytes) -> bytes:
    """Morton codes (S, N) of any order, their labels (S, N) below 256, and the points' file -> the bytes of a file."""
    ordered = np.take_along_axis(labels.astype(np.uint8), np.argsort(codes, axis=1, kind="stable"), axis=1)
    body = lzma.compress(ordered.tobytes(), format=lzma.FORMAT_XZ, filters=_FILTERS)
    shapes, points = codes.shape
    crcs = {"crc32": zlib.crc32(body), "points_crc32": zlib.crc32(points_file)}
    return json.dumps({**_HEADER, "shapes": shapes, "points": points, **crcs}).encode() + b"\n" + body


def read_labels(path: Path, points_path: Path, classes: int) -> np.ndarray:
    """(S, N) int64 labels below `classes`, in the order in which `compact.read_points` gives the points.

    A DataError where the file is missing or broken, or belongs to other points.
    """
    if not path.is_file():
        raise MissingDataError(str(path), "no such file", "the labels of an embedded data set's points", _FIX)
    head, _, body = path.read_bytes().partition(b"\n")
    header = _parse_header(path, head)
    if zlib.crc32(body) != header["crc32"]:
        raise DataError(str(path), "damaged contents", "those that its first line's crc32 was made of", _FIX)
    if zlib.crc32(points_path.read_bytes()) != header["points_crc32"]:
        raise DataError(str(path), f"labels of other points than those of {points_path.name}", "labels of these", _FIX)
    shapes, points = header["shapes"], header["points"]
    try:
        labels = np.frombuffer(lzma.decompress(body, format=lzma.FORMAT_XZ), np.uint8).reshape(shapes, points)
    except (ValueError, lzma.LZMAError):
        raise DataError(str(path), f"{len(body)} bytes", f"labels of {shapes} x {points} points", _FIX) from None
    if labels.size and labels.max() >= classes:
        raise DataError(str(path), f"the label {labels.max()}", f"0 to {classes - 1}", _FIX)
    return np.take_along_axis(labels, compact.shuffled_positions(shapes, points), axis=1).astype(np.int64)


def _parse_header(path: Path, head: bytes) -> dict:
    try:
        header = json.loads(head[:_MAX_HEADER])
        numbers = [header[key] for key in ("shapes", "points", "crc32", "points_crc32")]
        known = all(type(number) is int and number >= 0 for number in numbers)
        known &= {key: header[key] for key in _HEADER} == _HEADER
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise DataError(str(path), f"first line {head[:60]!r}", "a contrast3d point labels header, version 1", _FIX)
    return header
