"""PLY, text and binary: meshes where there are faces, clouds of points where there are none."""

from __future__ import annotations

import re
from typing import NamedTuple, no_type_check

import numba
import numpy as np

from contrast3d.data.mesh_files import Geometry, triangles, whole
from contrast3d.data.text_clouds import Table, parse_table
from contrast3d.errors import DataError

RESTORE = "restore this file from its source"
_MOST_HEADER = 2**16
_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}
_INDICES = ("vertex_indices", "vertex_index")


class Property(NamedTuple):
    """A number of each record, or, where `counts` is a type, a list of numbers after their count."""

    name: str
    type: str
    counts: str = ""


class Element(NamedTuple):
    """`count` records of these properties."""

    name: str
    count: int
    properties: list[Property]

    @property
    def least(self) -> int:
        """Bytes that a binary record takes at least."""
        return sum(np.dtype(p.counts or p.type).itemsize for p in self.properties)

    @property
    def has_lists(self) -> bool:
        return any(p.counts for p in self.properties)


def read_ply(data: bytes, where: str) -> Geometry:
    """A PLY: `vertex` with x, y, z and, of a mesh, `face` with vertex_indices; everything else is passed over."""
    end = re.search(rb"(?:^|\n|\r)end_header[ \t]*(\r\n|\n|\r)", data[:_MOST_HEADER])
    if not data.startswith(b"ply") or end is None:
        found = "no end_header" if data.startswith(b"ply") else f"a file that starts with {data[:16]!r}"
        raise DataError(where, found, "a PLY header")
    kind, elements = read_header(data[: end.start()].decode("ascii", "replace"), where)
    body = memoryview(data)[end.end() :]
    needed = sum(e.count * (2 if kind == "ascii" else e.least) for e in elements)
    if needed > len(body) + 1:  # a text may end without a line break
        raise DataError(where, f"{len(body)} bytes after the header", f"at least {needed} as it declares", RESTORE)
    read = _text_elements if kind == "ascii" else _binary_elements
    found = read(body, elements, "<" if kind == "binary_little_endian" else ">", where)
    if "vertex" not in found:
        raise DataError(where, "no vertices", "an element vertex with x, y, z")
    points = found["vertex"]
    if "face" not in found:
        return Geometry(points)
    return Geometry(points, triangles(found["face"], len(points), where))


def read_header(text: str, where: str) -> tuple[str, list[Element]]:
    """The format and the elements that a header announces; a DataError where it makes no sense."""
    kind, elements = "", []
    for line in text.splitlines()[1:]:
        words = line.split()
        try:
            if words[:1] == ["format"]:
                kind = words[1]
            elif words[:1] == ["element"]:
                elements.append(Element(words[1], int(words[2]), []))
            elif words[:2] == ["property", "list"]:
                elements[-1].properties.append(Property(words[4], _TYPES[words[3]], _TYPES[words[2]]))
            elif words[:1] == ["property"]:
                elements[-1].properties.append(Property(words[2], _TYPES[words[1]]))
        except (IndexError, KeyError, ValueError):
            raise DataError(where, f"{line[:60]!a} in the header", "what PLY headers hold") from None
    if kind not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise DataError(where, f"format {kind[:40]!a}", "ascii, binary_little_endian or binary_big_endian")
    if any(e.count < 0 for e in elements) or len({e.name for e in elements}) < len(elements):
        raise DataError(where, "a header with a negative or double element", "what PLY headers hold")
    for element in elements:
        _check(element, where)
    return kind, elements


def _check(element: Element, where: str) -> None:
    names = [p.name for p in element.properties]
    if len(set(names)) < len(names):
        raise DataError(where, f"a property of {element.name} twice", "each once")
    if element.name == "vertex" and (element.has_lists or not {"x", "y", "z"} <= set(names)):
        raise DataError(where, f"vertices with {', '.join(names)[:80]}", "numbers x, y, z of each")
    if element.name == "face" and element.count and not _listed(element):
        raise DataError(where, f"faces with {', '.join(names)[:80]}", "a list vertex_indices of each")
    if any(np.dtype(p.counts or "u1").kind == "f" for p in element.properties):
        raise DataError(where, f"lists of {element.name} whose length is no whole number", "what PLY headers hold")


def _listed(element: Element) -> list[int]:
    """Position of the property that holds a face's corners."""
    return [i for i, p in enumerate(element.properties) if p.counts and p.name in _INDICES]


def _text_elements(body: memoryview, elements: list[Element], order: str, where: str) -> dict:
    table, found, row = parse_table(bytes(body), where), {}, 0
    for element in elements:
        starts = table.starts[row : row + element.count + 1]
        if len(starts) < element.count + 1:
            expected = f"{element.count} lines of {element.name}"
            raise DataError(where, f"{len(starts) - 1} lines", expected, RESTORE)
        row += element.count
        if element.count == 0:
            continue
        if element.name == "vertex":
            names = [p.name for p in element.properties]
            if (np.diff(starts) != len(names)).any():
                raise DataError(where, "vertices of different lengths", f"{len(names)} numbers each", RESTORE)
            found["vertex"] = table.values[starts[:-1, None] + [names.index(axis) for axis in "xyz"]]
        elif element.name == "face":
            found["face"] = _text_faces(table, starts, element, where)
    return found


def _text_faces(table: Table, starts: np.ndarray, element: Element, where: str) -> Table:
    """Corners of the faces; the list of them has to come first, as it does wherever PLY is written as text."""
    if any(p.counts for p in element.properties[: _listed(element)[0]]):
        raise DataError(where, "faces with another list before their corners", "vertex_indices first")
    begin = starts[:-1] + _listed(element)[0]
    if (begin >= starts[1:]).any():
        raise DataError(where, "a face without corners", "a count and that many indices", RESTORE)
    counts = whole(table.values[begin], where)
    if (counts < 0).any() or (begin + 1 + counts > starts[1:]).any():
        raise DataError(where, "a face with missing corners", "a count and that many indices", RESTORE)
    ends = np.concatenate(([0], counts.cumsum()))
    take = np.arange(ends[-1]) + np.repeat(begin + 1 - ends[:-1], counts)
    return Table(whole(table.values[take], where), ends)


def _binary_elements(body: memoryview, elements: list[Element], order: str, where: str) -> dict:
    data, found, at = np.frombuffer(body, np.uint8), {}, 0
    wanted = {e.name for e in elements if e.name in ("vertex", "face") and e.count}
    for element in elements:
        if wanted <= set(found):
            break
        if not element.has_lists:
            record = np.dtype([(p.name, order + p.type) for p in element.properties])
            if at + element.count * record.itemsize > len(data):
                raise DataError(where, "an end within the numbers", f"{element.count} of {element.name}", RESTORE)
            if element.name in wanted:
                rows = np.frombuffer(body, record, element.count, at)
                found[element.name] = np.stack([rows[axis] for axis in "xyz"], 1).astype(np.float64)
            at += element.count * record.itemsize
            continue
        faces, at = _lists(data, at, element, order, where)
        if element.name in wanted:
            found[element.name] = faces
    return found


def _lists(data: np.ndarray, at: int, element: Element, order: str, where: str) -> tuple[Table | None, int]:
    """The corners of the faces (None of another element), and where the element ends."""
    chosen = (_listed(element) if element.name == "face" else []) or [-1]
    layout = np.array([
        (np.dtype(p.counts).itemsize if p.counts else 0, np.dtype(p.type).itemsize, i == chosen[0])
        for i, p in enumerate(element.properties)
    ], np.int64)
    offsets, counts, end = _walk(data, at, element.count, layout, order == "<")
    if end < 0:
        raise DataError(where, "an end within the numbers", f"{element.count} of {element.name}", RESTORE)
    if chosen == [-1]:
        return None, end
    kind = np.dtype(order + element.properties[chosen[0]].type)
    if counts.min(initial=3) < 3:
        raise DataError(where, f"a face of {counts.min()} corners", "at least three")
    ends = np.concatenate(([0], counts.cumsum()))
    values = np.empty(ends[-1], np.float64)
    for k in np.unique(counts):  # nearly always threes, sometimes fours too
        rows = counts == k
        raw = data[offsets[rows][:, None] + np.arange(k * kind.itemsize)]
        values[ends[:-1][rows][:, None] + np.arange(k)] = np.ascontiguousarray(raw).view(kind).reshape(-1, k)
    return Table(whole(values, where), ends), end


@numba.njit(nogil=True, cache=True)
@no_type_check
def _walk(data, at, count, layout, little):
    """Offset and length of the chosen list of each record, and the end of the last one (-1: beyond the data)."""
    offsets, counts = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for row in range(count):
        for p in range(len(layout)):
            size, items = layout[p, 0], 1
            if at + size > data.size:
                return offsets, counts, -1
            if size:
                items = 0
                for i in range(size):
                    items = items * 256 + data[at + (size - 1 - i if little else i)]
                at += size
            if items > data.size or at + items * layout[p, 1] > data.size:
                return offsets, counts, -1
            if layout[p, 2]:
                offsets[row], counts[row] = at, items
            at += items * layout[p, 1]
    return offsets, counts, at
