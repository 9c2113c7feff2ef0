"""Every number of the vertices of a PLY, by name: colours and labels too, which `ply_files` passes over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contrast3d.data.ply_files import RESTORE, Element, read_header
from contrast3d.data.text_clouds import parse_table
from contrast3d.errors import DataError

_MOST_HEADER = 2**16


def read_vertices(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The properties `names` of the vertices, (N,) each, in the types that the file declares.

    The vertices have to come first, as in all files that hold colours and labels. A DataError says what is wrong.
    """
    where = str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(where, error.strerror or "cannot be read", "a PLY file") from error
    end = re.search(rb"(?:^|\n|\r)end_header[ \t]*(\r\n|\n|\r)", data[:_MOST_HEADER])
    if not data.startswith(b"ply") or end is None:
        found = "no end_header" if data.startswith(b"ply") else f"a file that starts with {data[:16]!r}"
        raise DataError(where, found, "a PLY header")
    kind, elements = read_header(data[: end.start()].decode("ascii", "replace"), where)
    if not elements or elements[0].name != "vertex":
        raise DataError(where, f"{elements[0].name if elements else 'nothing'} first", "vertices first")
    missing = set(names) - {p.name for p in elements[0].properties}
    if missing:
        raise DataError(where, f"vertices without {', '.join(sorted(missing))}", f"vertices with {', '.join(names)}")
    rows = (_text if kind == "ascii" else _binary)(data[end.end() :], elements[0], kind, where)
    return {name: np.ascontiguousarray(rows[name]).astype(rows[name].dtype.newbyteorder("=")) for name in names}


def _binary(body: bytes, vertex: Element, kind: str, where: str) -> np.ndarray:
    order = "<" if kind == "binary_little_endian" else ">"
    record = np.dtype([(p.name, order + p.type) for p in vertex.properties])
    if vertex.count * record.itemsize > len(body):
        held = len(body) // record.itemsize
        raise DataError(where, f"{held} vertices", f"{vertex.count} as it declares", RESTORE)
    return np.frombuffer(body, record, vertex.count)


def _text(body: bytes, vertex: Element, kind: str, where: str) -> np.ndarray:
    table = parse_table(body, where, vertex.count)
    width = len(vertex.properties)
    if len(table.widths) != vertex.count or (table.widths != width).any():
        found = f"{len(table.widths)} lines, or some of another width"
        raise DataError(where, found, f"{vertex.count} lines of {width} numbers", RESTORE)
    values = table.values.reshape(-1, width)
    rows = np.empty(vertex.count, [(p.name, p.type) for p in vertex.properties])
    for i, p in enumerate(vertex.properties):
        rows[p.name] = values[:, i]
    return rows
