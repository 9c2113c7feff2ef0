"""OFF, the mesh format of ModelNet, including the headers its own release broke."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from contrast3d.data.text_clouds import Table, parse_table
from contrast3d.errors import DataError

_HEADER = re.compile(rb"\s*(?:#[^\n]*\s*)*OFF", re.IGNORECASE)


def read_off(path: str | Path) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """An OFF mesh -> vertices (v, 3) float64, triangles (f, 3) int64; polygons are cut into fans.

    Some files of ModelNet40 lack the line break after the magic word (`OFF123 456 0`); that is accepted.
    A DataError for anything that is not a whole OFF mesh with finite vertices.
    """
    where = str(path)
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise DataError(where, error.strerror or "cannot be read", "an OFF mesh") from error
    header = _HEADER.match(text)
    if header is None:
        raise DataError(where, f"a file that starts with {text[:12]!r}", "an OFF mesh (first word OFF)")
    table = parse_table(text[header.end() :], where)
    num_vertices, num_faces = _counts(table, where)
    lines = len(table.widths) - 1
    if lines < num_vertices + num_faces:
        expected = f"{num_vertices} vertices and {num_faces} faces"
        raise DataError(where, f"{lines} lines after the header", expected, "restore this file")
    return _vertices(table, num_vertices, where), _triangles(table, num_vertices, num_faces, where)


def _counts(table: Table, where: str) -> tuple[int, int]:
    head = table.values[: table.widths[0]] if len(table.widths) else np.empty(0)
    if len(head) not in (2, 3) or not _whole(head):
        raise DataError(where, "a header without counts", "vertices, faces, edges")
    return int(head[0]), int(head[1])


def _whole(values: np.ndarray) -> bool:
    return bool((np.isfinite(values) & (values >= 0) & (values < 2**40) & (values == np.floor(values))).all())


def _vertices(table: Table, count: int, where: str) -> Float[np.ndarray, "v 3"]:
    starts = table.starts[1 : count + 1]
    if count == 0 or table.widths[1 : count + 1].min() < 3:
        raise DataError(where, "no vertices" if count == 0 else "a vertex of fewer than 3 numbers", "x y z")
    vertices = table.values[starts[:, None] + np.arange(3)]
    if not np.isfinite(vertices).all():
        raise DataError(where, "NaN or infinite vertices", "finite coordinates")
    return vertices


def _triangles(table: Table, num_vertices: int, count: int, where: str) -> Int[np.ndarray, "f 3"]:
    starts, widths = (v[1 + num_vertices : 1 + num_vertices + count] for v in (table.starts, table.widths))
    corners = table.values[starts]
    if count == 0 or not _whole(corners) or (corners < 3).any() or (widths < corners + 1).any():
        found = "no faces" if count == 0 else "a face with missing corners"
        raise DataError(where, found, "3 a b c, or polygons")
    corners = corners.astype(np.int64)
    fans = []
    for k in np.unique(corners):  # ModelNet has triangles only: one round
        polygon = table.values[starts[corners == k][:, None] + 1 + np.arange(k)]
        fans += [polygon[:, [0, i, i + 1]] for i in range(1, k - 1)]
    triangles = np.concatenate(fans)
    if not _whole(triangles) or triangles.max() >= num_vertices:
        raise DataError(where, "a face that refers to a missing vertex", f"indices below {num_vertices}")
    return triangles.astype(np.int64)
