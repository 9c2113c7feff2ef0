"""Triangle meshes out of OBJ and STL files: vertices and faces alone, no materials, no other files.

The text of an OBJ is taken apart by a compiled kernel that releases the GIL, so that threads read a folder in parallel.
"""

from __future__ import annotations

import re
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int

from contrast3d.data.text_clouds import Table, parse_table
from contrast3d.errors import DataError


class Geometry(NamedTuple):
    """What a file holds: points (v, 3), finite numbers; faces (f, 3) of triangles, None for a cloud of points."""

    points: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"] | None = None


@numba.njit(nogil=True, cache=True)
@no_type_check
def _split_obj(text):
    """The numbers of the `v` lines, those of the `f` lines without what follows a slash, as two texts of lines,
    and how many vertices came before each face, which negative indices count from."""
    size = text.size
    vertices, faces = np.empty(size + 1, np.uint8), np.empty(size + 1, np.uint8)
    before = np.empty(size // 3 + 1, np.int64)
    v = f = num_vertices = num_faces = i = 0
    while i < size:
        while i < size and (text[i] == 32 or text[i] == 9):
            i += 1
        blank = i + 1 < size and (text[i + 1] == 32 or text[i + 1] == 9)
        is_vertex, is_face = blank and text[i] == 118, blank and text[i] == 102  # v, f
        full = slash = False
        i += is_vertex or is_face
        while i < size and text[i] != 10 and text[i] != 13:
            c = text[i]
            if c == 92 and i + 1 < size and (text[i + 1] == 10 or text[i + 1] == 13):  # \: the line goes on
                i += 3 if text[i + 1] == 13 and i + 2 < size and text[i + 2] == 10 else 2
                c = 32
            elif c == 35:  # '#': a comment
                while i < size and text[i] != 10 and text[i] != 13:
                    i += 1
                break
            else:
                i += 1
            slash = c == 47 or (slash and c != 32 and c != 9)
            full = full or (c != 32 and c != 9)
            if is_vertex:
                vertices[v] = c
                v += 1
            elif is_face and not slash:
                faces[f] = c
                f += 1
        i += 1
        if is_vertex:
            vertices[v] = 10
            v += 1
            num_vertices += full
        elif is_face:
            faces[f] = 10
            f += 1
            if full:
                before[num_faces] = num_vertices
                num_faces += 1
    return vertices[:v].copy(), faces[:f].copy(), before[:num_faces].copy()


def read_obj(data: bytes, where: str) -> Geometry:
    """An OBJ mesh; polygons are cut into fans, groups and objects are joined, materials and lines left out."""
    vertex_text, face_text, before = _split_obj(np.frombuffer(data, np.uint8))
    vertices = parse_table(vertex_text.tobytes(), f"{where} (vertices)")
    if len(vertices.widths) == 0:
        raise DataError(where, f"no vertices in a file that starts with {data[:16]!r}", "lines v x y z")
    if vertices.widths.min() < 3:
        raise DataError(where, "a vertex of fewer than 3 numbers", "lines v x y z")
    faces = parse_table(face_text.tobytes(), f"{where} (faces)")
    if len(faces.widths) == 0:
        raise DataError(where, "no faces", "lines f a b c", "a cloud of points as .ply or .xyz")
    if len(faces.widths) != len(before):
        raise DataError(where, "a face without corners", "lines f a b c")
    points = vertices.values[vertices.starts[:-1, None] + np.arange(3)]
    corners = whole(faces.values, where)
    counted = np.where(corners < 0, np.repeat(before, faces.widths), -1)  # from 1 up, or back from the last one
    return Geometry(points, triangles(Table(counted + corners, faces.starts), len(points), where))


def read_stl(data: bytes, where: str) -> Geometry:
    """An STL mesh, binary or text."""
    declared = int.from_bytes(data[80:84], "little") if len(data) >= 84 else 0
    is_text = data.lstrip()[:5].lower() == b"solid" and 84 + 50 * declared != len(data)
    corners = _stl_text(data, where) if is_text else _stl_binary(data, declared, where)
    return Geometry(corners, np.arange(len(corners)).reshape(-1, 3))


def _stl_binary(data: bytes, declared: int, where: str) -> np.ndarray:
    if declared == 0 or 84 + 50 * declared > len(data):
        start = f" that start with {data[:16]!r}" if data[:16].isascii() and data[:16].strip(b"\0 ") else ""
        found = f"{len(data)} bytes{start}"
        expected = f"{84 + 50 * declared} bytes for {declared} triangles" if len(data) >= 84 else "an STL mesh"
        raise DataError(where, found, expected if declared else "an STL mesh with triangles")
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    return np.frombuffer(data, record, declared, 84)["corners"].reshape(-1, 3).astype(np.float64)


def _stl_text(data: bytes, where: str) -> np.ndarray:
    lines = re.findall(rb"^[ \t]*vertex[ \t]([^\r\n]*)", data.replace(b"\r", b"\n"), re.M | re.I)
    table = parse_table(b"\n".join(lines), where)
    if b"endsolid" not in data[-1024:].lower():
        raise DataError(where, "no endsolid", "a whole text STL", "restore this file from its source")
    if len(table.widths) == 0 or len(table.widths) % 3 or (table.widths != 3).any():
        raise DataError(where, f"{len(table.widths)} corners of triangles", "three corners x y z of each")
    return table.values.reshape(-1, 3)


def whole(values: np.ndarray, where: str) -> Int[np.ndarray, "n"]:
    """Indices as int64; a DataError where one is no whole number, or none that an index can be."""
    with np.errstate(invalid="ignore"):
        good = np.isfinite(values) & (np.abs(values) < 2**40) & (values == np.floor(values))
    if not good.all():
        raise DataError(where, f"a face with the index {values[~good][0]:g}", "whole numbers")
    return values.astype(np.int64)


def triangles(polygons: Table, num_vertices: int, where: str) -> Int[np.ndarray, "f 3"]:
    """Polygons, one a row of vertex numbers from 0 up, cut into fans; in order of their number of corners."""
    if len(polygons.widths) == 0:
        raise DataError(where, "no faces", "triangles or polygons")
    if polygons.widths.min() < 3:
        raise DataError(where, f"a face of {polygons.widths.min()} corners", "at least three")
    if polygons.values.min() < 0 or polygons.values.max() >= num_vertices:
        raise DataError(where, "a face that refers to a missing vertex", f"one of {num_vertices} vertices")
    fans = []
    for k in np.unique(polygons.widths):
        polygon = polygons.values[polygons.starts[:-1][polygons.widths == k][:, None] + np.arange(k)]
        first = np.broadcast_to(polygon[:, :1], (len(polygon), k - 2))
        fans.append(np.stack((first, polygon[:, 1:-1], polygon[:, 2:]), -1).reshape(-1, 3))
    return np.concatenate(fans).astype(np.int64)
