"""PCD, the point clouds of the Point Cloud Library: text, binary and compressed binary."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float

from contrast3d.data.text_clouds import parse_table
from contrast3d.errors import DataError

RESTORE = "restore this file from its source"
_MOST_HEADER = 2**14
_LZF_LIMIT = 90  # a back reference of three bytes makes 264 at most


def read_pcd(data: bytes, where: str) -> Float[np.ndarray, "n 3"]:
    """x, y, z of the points. Those that are NaN are left out: PCD writes so where a sensor saw nothing."""
    header, start = _header(data, where)
    names, count = header["FIELDS"], header["POINTS"]
    kind = header["DATA"]
    if not {"x", "y", "z"} <= set(names):
        raise DataError(where, f"fields {', '.join(names)[:80]}", "x, y, z among them")
    if kind == "ascii":
        points = _text(data[start:], header, where)
    elif kind == "binary":
        size = _record(header).itemsize
        if count * size > len(data) - start:
            raise DataError(where, f"{len(data) - start} bytes of points", f"{count * size} as declared", RESTORE)
        rows = np.frombuffer(data, _record(header), count, start)
        points = np.stack([rows[f"{axis}@{names.index(axis)}"][:, 0] for axis in "xyz"], 1)
    elif kind == "binary_compressed":
        points = _columns(_decompressed(data, start, header, where), header)
    else:
        raise DataError(where, f"DATA {kind[:30]!a}", "ascii, binary or binary_compressed")
    points = points.astype(np.float64)
    return points[~np.isnan(points).any(1)]


def _header(data: bytes, where: str) -> tuple[dict, int]:
    """FIELDS, TYPE, SIZE, COUNT, POINTS and DATA, and where the points begin."""
    header, at = {}, 0
    while "DATA" not in header:
        end = data.find(b"\n", at, _MOST_HEADER)
        if end < 0:
            found = f"a file that starts with {data[:16]!r}" if at == 0 else "a header without DATA"
            raise DataError(where, found, "a PCD header")
        words = data[at:end].decode("ascii", "replace").split()
        at = end + 1
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
    fields = header.get("FIELDS", [])
    try:
        header["SIZE"], width, height = ([int(w) for w in header.get(k, [])] for k in ("SIZE", "WIDTH", "HEIGHT"))
        header["COUNT"] = [int(w) for w in header.get("COUNT", ["1"] * len(fields))]
        declared = int(header["POINTS"][0]) if "POINTS" in header else width[0] * height[0]
    except (ValueError, IndexError):
        raise DataError(where, "a header without whole numbers", "SIZE, COUNT and POINTS") from None
    types = header.get("TYPE", [])
    lengths = {len(fields), len(header["SIZE"]), len(types), len(header["COUNT"])}
    kinds = {"F": (4, 8), "I": (1, 2, 4, 8), "U": (1, 2, 4, 8)}
    known = all(size in kinds.get(kind, ()) for kind, size in zip(types, header["SIZE"]))
    if len(lengths) > 1 or not known or declared < 0 or any(not 0 < c < 2**16 for c in header["COUNT"]):
        raise DataError(where, "FIELDS, SIZE, TYPE and COUNT that do not fit together", "a PCD header")
    if not header["DATA"]:
        raise DataError(where, "DATA without its kind", "ascii, binary or binary_compressed")
    return {**header, "POINTS": declared, "DATA": header["DATA"][0].lower()}, at


def _types(header: dict) -> list[np.dtype]:
    return [np.dtype(f"<{kind.lower()}{size}") for kind, size in zip(header["TYPE"], header["SIZE"])]


def _record(header: dict) -> np.dtype:
    names = [f"{name}@{i}" for i, name in enumerate(header["FIELDS"])]  # padding fields may share the name _
    return np.dtype([(n, t, (c,)) for n, t, c in zip(names, _types(header), header["COUNT"])])


def _text(text: bytes, header: dict, where: str) -> np.ndarray:
    table, columns = parse_table(text, where), sum(header["COUNT"])
    if len(table.widths) != header["POINTS"] or (table.widths != columns).any():
        expected = f"{header['POINTS']} lines of {columns} numbers"
        raise DataError(where, f"{len(table.widths)} lines", expected, RESTORE)
    starts = np.cumsum([0, *header["COUNT"]])
    rows = table.values.reshape(-1, columns)
    return rows[:, [starts[header["FIELDS"].index(axis)] for axis in "xyz"]]


def _columns(data: np.ndarray, header: dict) -> np.ndarray:
    """Field after field, each for all points, as the compressed kind lies."""
    at, found, points = 0, {}, header["POINTS"]
    for name, kind, count in zip(header["FIELDS"], _types(header), header["COUNT"]):
        if name in "xyz":
            found.setdefault(name, np.frombuffer(data, kind, points * count, at)[::count])
        at += points * count * kind.itemsize
    return np.stack([found[axis] for axis in "xyz"], 1)


def _decompressed(data: bytes, start: int, header: dict, where: str) -> np.ndarray:
    packed, size = (int.from_bytes(data[i : i + 4], "little") for i in (start, start + 4))
    needed = header["POINTS"] * _record(header).itemsize
    if packed > len(data) - start - 8 or size != needed or size > _LZF_LIMIT * packed:
        found = f"{packed} packed bytes for {size}, {len(data) - start - 8} there"
        raise DataError(where, found, f"a whole file of {needed} bytes of points", RESTORE)
    out = np.empty(size, np.uint8)
    if _lzf(np.frombuffer(data, np.uint8, packed, start + 8), out) != size:
        raise DataError(where, "points that cannot be unpacked", "LZF data", RESTORE)
    return out


@numba.njit(nogil=True, cache=True)
@no_type_check
def _lzf(packed, out):
    """Unpack LZF data; returns how many bytes came out, -1 where it is none."""
    i = o = 0
    while i < packed.size:
        control = np.int64(packed[i])
        i += 1
        if control < 32:  # so many bytes as they are, and one
            if i + control + 1 > packed.size or o + control + 1 > out.size:
                return -1
            for _ in range(control + 1):
                out[o] = packed[i]
                i += 1
                o += 1
            continue
        length = control >> 5
        if length == 7:
            if i >= packed.size:
                return -1
            length += np.int64(packed[i])
            i += 1
        if i >= packed.size:
            return -1
        source = o - ((control & 31) << 8) - np.int64(packed[i]) - 1
        i += 1
        if source < 0 or o + length + 2 > out.size:
            return -1
        for _ in range(length + 2):
            out[o] = out[source]
            o += 1
            source += 1
    return o
