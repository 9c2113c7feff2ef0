"""The file format of the embedded data sets: equally sampled shapes at about 2.4 bytes per point.

Each coordinate in [-1, 1] is one of 1024 grid levels; the three levels of a point interleave to a 30-bit
Morton code; the codes of a shape are sorted and become differences, because neighbours on a surface differ by
little. A file holds, one after the other,

    one line of JSON   format, version, S shapes, N points, bits per axis, and the crc32 of all that follows
    S x N uint16       the low halves of the differences, little-endian: noise, so they are stored as they are
    an xz stream       the high halves, as two planes of S x N bytes, lower byte first

A set of points has no order, so sorting loses nothing but an accident. Still, code that takes "the first 512
points" must not get one corner of the shape: reading shuffles each shape, always in the same way.
"""

from __future__ import annotations

import csv
import json
import lzma
import zlib
from pathlib import Path

import numpy as np

from contrast3d.errors import DataError, MissingDataError

BITS = 10
_HEADER = {"format": "contrast3d shapes", "version": 1}
_MAX_HEADER = 1000
_FIX = "reinstall contrast3d; this file ships inside the package"
_TOP = float(2**BITS - 1)
# Byte planes have no word structure, so literal and match positions need no alignment bits (lp, pb).
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 3, "lp": 0, "pb": 0}]


def quantise(points: np.ndarray) -> np.ndarray:
    """Coordinates in [-1, 1] of any shape -> grid levels 0 ... 1023 (uint32)."""
    return np.rint((points + 1) * (_TOP / 2)).astype(np.uint32)


def morton_codes(levels: np.ndarray) -> np.ndarray:
    """Grid levels (..., 3) -> (...) uint32: bit 3i + a of a code is bit i of axis a."""
    v = levels.astype(np.uint32)
    for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        v = (v | (v << shift)) & mask
    return v[..., 0] | (v[..., 1] << 1) | (v[..., 2] << 2)


def encode(codes: np.ndarray) -> bytes:
    """Morton codes (S, N) of any order -> the bytes of a file."""
    shapes, points = codes.shape
    steps = np.diff(np.sort(codes.astype(np.uint32), axis=1), axis=1, prepend=np.uint32(0))
    low, high = (steps & 0xFFFF).astype("<u2"), (steps >> 16).astype("<u2")
    planes = np.stack([high & 0xFF, high >> 8]).astype(np.uint8)
    packed = lzma.compress(planes.tobytes(), format=lzma.FORMAT_XZ, filters=_FILTERS)
    body = low.tobytes() + packed
    header = {**_HEADER, "shapes": shapes, "points": points, "bits": BITS, "crc32": zlib.crc32(body)}
    return json.dumps(header).encode() + b"\n" + body


def read_codes(path: Path) -> np.ndarray:
    """A file -> its sorted Morton codes (S, N) uint32; a DataError where the file is missing or broken."""
    if not path.is_file():
        raise MissingDataError(str(path), "no such file", "an embedded data set", _FIX)
    head, _, body = path.read_bytes().partition(b"\n")
    header = _parse_header(path, head)
    shapes, points = header["shapes"], header["points"]
    size = shapes * points
    if zlib.crc32(body) != header["crc32"]:
        raise DataError(str(path), "damaged contents", "those that its first line's crc32 was made of", _FIX)
    try:
        low = np.frombuffer(body, "<u2", size)
        packed = memoryview(body)[2 * size :]
        high = np.frombuffer(lzma.decompress(packed, format=lzma.FORMAT_XZ), np.uint8).reshape(2, size)
    except (ValueError, lzma.LZMAError):
        found, expected = f"{len(body)} bytes", f"{shapes} x {points} points in them"
        raise DataError(str(path), found, expected, _FIX) from None
    steps = low + (high[0].astype(np.uint32) << 16) + (high[1].astype(np.uint32) << 24)
    return np.cumsum(steps.reshape(shapes, points), axis=1, dtype=np.uint32)


def _parse_header(path: Path, head: bytes) -> dict:
    try:
        header = json.loads(head[:_MAX_HEADER])
        numbers = header["shapes"], header["points"], header["crc32"]
        known = all(type(number) is int and number >= 0 for number in numbers)
        known &= {key: header[key] for key in _HEADER} == _HEADER and header["bits"] == BITS
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise DataError(str(path), f"first line {head[:60]!r}", "a contrast3d shapes header, version 1", _FIX)
    return header


def read_manifest(path: Path, columns: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """A CSV file with these columns, one row per shape -> its columns by name."""
    if not path.is_file():
        raise MissingDataError(str(path), "no such file", "the manifest of an embedded data set", _FIX)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = list(csv.reader(file)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(str(path), str(error), "a CSV file in UTF-8", _FIX) from None
    if tuple(head) != columns or not rows or any(len(row) != len(columns) for row in rows):
        found = f"columns {', '.join(head)} and {len(rows)} rows"
        raise DataError(str(path), found, f"{', '.join(columns)} in every row", _FIX)
    return dict(zip(columns, zip(*rows)))


def read_set(
    folder: Path, stem: str, columns: tuple[str, ...]
) -> tuple[np.ndarray, dict[str, tuple[str, ...]]]:
    """The points (S, N, 3) of `stem`.points and the S rows of `stem`.csv; a DataError where they disagree."""
    manifest = read_manifest(folder / f"{stem}.csv", columns)
    points = read_points(folder / f"{stem}.points")
    rows = len(manifest[columns[0]])
    if rows != len(points):
        where, expected = str(folder / f"{stem}.csv"), f"one for each of {len(points)} shapes"
        raise DataError(where, f"{rows} rows", expected, _FIX)
    return points, manifest


def read_points(path: Path) -> np.ndarray:
    """A file -> (S, N, 3) float32 coordinates in [-1, 1], each shape in its own fixed random order."""
    return coordinates(_shuffled(read_codes(path)))


def coordinates(codes: np.ndarray) -> np.ndarray:
    """Morton codes (...) -> (..., 3) float32 in [-1, 1]."""
    low, high = _coordinate_tables()
    points = high.take(codes >> 15, axis=0)
    points += low.take(codes & 0x7FFF, axis=0)
    return points


def _shuffled(codes: np.ndarray) -> np.ndarray:
    """Each row in a fixed random order. Hash and code share one 64-bit word, so that a plain sort does the work."""
    words = _position_hashes(codes.size) | codes.reshape(-1)
    return np.sort(words.reshape(codes.shape), axis=1).astype(np.uint32)


def shuffled_positions(shapes: int, points: int) -> np.ndarray:
    """(S, N) int64: where in its sorted row each point of `read_points` was."""
    position = np.tile(np.arange(points, dtype=np.uint64), shapes)
    words = _position_hashes(shapes * points) | position
    return np.sort(words.reshape(shapes, points), axis=1).astype(np.uint32).astype(np.int64)


def _position_hashes(size: int) -> np.ndarray:
    """The fixed random order: hashes of the positions 1 ... size (splitmix64), the lower 32 bits being zero.

    Written out rather than drawn from numpy, whose generators may change their streams between versions.
    """
    z = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z & np.uint64(0xFFFFFFFF00000000)


def _coordinate_tables() -> tuple[np.ndarray, np.ndarray]:
    """What the low and the high 15 bits of a code add to its coordinates: two (32768, 3) float32 tables."""
    bit = np.arange(5)[:, None]
    bits = (np.arange(2**15)[:, None, None] >> (3 * bit + np.arange(3))) & 1  # (codes, bit, axis)
    levels = (bits << bit).sum(1)
    low = levels / (_TOP / 2)
    return low.astype(np.float32), (32 * low - 1).astype(np.float32)
