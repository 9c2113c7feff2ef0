"""Colours and labels of the vertices of a PLY."""

from __future__ import annotations

import numpy as np
import pytest
from ply_writer import colored, write_ply

from contrast3d.data.ply_vertices import read_vertices
from contrast3d.errors import DataError


@pytest.mark.parametrize("kind", ["little", "big", "ascii"])
def test_numbers_keep_their_names_and_types(tmp_path, kind):
    vertices = colored(20, alpha=True) | {"label": np.arange(20, dtype="u2") * 300}
    write_ply(tmp_path / "a.ply", vertices, None if kind == "ascii" else np.zeros((4, 3), int), kind)
    found = read_vertices(tmp_path / "a.ply", ("label", "red", "x"))
    assert list(found) == ["label", "red", "x"]
    assert [v.dtype.str.lstrip("<|=") for v in found.values()] == ["u2", "u1", "f4"]
    for name, values in found.items():
        assert np.array_equal(values, vertices[name])


def test_what_cannot_be_read(tmp_path):
    path = tmp_path / "a.ply"
    with pytest.raises(DataError, match="No such file"):
        read_vertices(path, "x")
    path.write_bytes(b"obj")
    with pytest.raises(DataError, match="a file that starts with b'obj'"):
        read_vertices(path, "x")
    path.write_bytes(b"ply\nformat ascii 1.0\n")
    with pytest.raises(DataError, match="no end_header"):
        read_vertices(path, "x")
    path.write_bytes(b"ply\nformat ascii 1.0\nelement face 0\nproperty list uchar int vertex_indices\nend_header\n")
    with pytest.raises(DataError, match="face first; expected vertices first"):
        read_vertices(path, "x")
    write_ply(path, colored(9))
    with pytest.raises(DataError, match="vertices without label"):
        read_vertices(path, ("x", "label"))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="8 vertices; expected 9 as it declares"):
        read_vertices(path, "x")
    write_ply(path, colored(9), kind="ascii")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="expected 9 lines of 6 numbers"):
        read_vertices(path, "x")
