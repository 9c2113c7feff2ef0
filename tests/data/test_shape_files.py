"""Reading one file of one shape: every format, every way to be broken, and bytes at random."""

from __future__ import annotations

import json
import os
import re
import sys
import tracemalloc

import numpy as np
import pytest
import shape_folder as made
from hypothesis import given, settings
from hypothesis import strategies as st

from contrast3d.data.shape_files import MESHES, SUFFIXES, read_geometry, read_shape, shown
from contrast3d.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    return folder, made.write_meshes(folder)


@pytest.fixture(scope="module")
def clouds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clouds")
    return folder, made.write_clouds(folder)


def test_every_mesh_format_gives_the_box(meshes):
    folder, names = meshes
    assert {os.path.splitext(n)[1].lower() for n in names} == set(MESHES)
    for name in names:
        points, faces = read_geometry(folder / name)
        corners = points[faces]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
        np.testing.assert_allclose(area.sum(), 2 * (3 * 2 + 2 * 1 + 3 * 1), rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(points.min(0), [3.5, 5, 6.5], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(points.max(0), [6.5, 7, 7.5], rtol=1e-5, err_msg=name)


def test_every_cloud_format_gives_the_points(clouds):
    folder, names = clouds
    missing = set(SUFFIXES) - {os.path.splitext(n)[1] for n in names} - set(MESHES)
    assert missing == {".las", ".laz"}
    for name in names:
        points, faces = read_geometry(folder / name)
        assert faces is None
        np.testing.assert_allclose(points, made.sphere(), atol=1e-6, err_msg=name)


def test_las(tmp_path, monkeypatch):
    (tmp_path / "a.las").write_bytes(b"LASF" + bytes(400))
    monkeypatch.setitem(sys.modules, "laspy", None)
    with pytest.raises(DataError, match=r"laspy is not installed.*pip install 'contrast3d\[las\]'"):
        read_shape(tmp_path / "a.las", 8)
    monkeypatch.delitem(sys.modules, "laspy")
    laspy = pytest.importorskip("laspy", reason="laspy is not installed (the extra las)")
    with pytest.raises(DataError):
        read_shape(tmp_path / "a.las", 8)
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = [1e-3] * 3, [500_000, 5_000_000, 0]
    las = laspy.LasData(header)
    las.x, las.y, las.z = (made.sphere() + [500_000, 5_000_000, 0]).T
    for name in ("b.las", "b.laz"):
        try:
            las.write(tmp_path / name)
        except laspy.errors.LaspyException:  # no backend for .laz
            continue
        np.testing.assert_allclose(read_geometry(tmp_path / name).points - header.offsets, made.sphere(), atol=1e-3)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-2000])
        with pytest.raises(DataError):
            read_shape(tmp_path / name, 8)


@pytest.mark.parametrize("name", made.BROKEN)
def test_broken_files_are_one_line_that_says_why(name, tmp_path):
    write, reason = made.BROKEN[name]
    write(tmp_path / name)
    tracemalloc.start()
    with pytest.raises(DataError) as error:
        read_shape(tmp_path / name, 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert re.search(reason, str(error.value)), str(error.value)
    assert str(error.value).startswith(shown(tmp_path / name))
    assert "\n" not in str(error.value)
    assert peak < 64e6


def test_what_is_no_plain_file(tmp_path):
    (tmp_path / "folder.obj").mkdir()
    os.mkfifo(tmp_path / "pipe.obj")
    (tmp_path / "a.mat").write_bytes(b"x")
    for name, reason in (("folder.obj", "a folder"), ("pipe.obj", "no plain file"), ("gone.obj", "No such file"),
                         ("a.mat", "a file name ending in '.mat'; expected one of .obj")):
        with pytest.raises(DataError, match=reason):
            read_shape(tmp_path / name, 8)
    with pytest.raises(ConfigError, match="at least 2"):
        read_shape(tmp_path / "a.mat", 1)


def test_points_are_centred_in_the_unit_sphere_and_the_same_again(meshes, tmp_path):
    folder, _ = meshes
    points = read_shape(folder / "binary.stl", 2000)
    assert points.shape == (2000, 3)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1).max(), 1, atol=1e-6)
    elsewhere = tmp_path / "another name.STL"
    elsewhere.write_bytes((folder / "binary.stl").read_bytes())
    assert (read_shape(elsewhere, 2000) == points).all()
    assert (read_shape(elsewhere, 2000, seed=1) != points).any()


def test_meshes_are_sampled_by_area(tmp_path):
    triangles = "v 0 0 0\nv 3 0 0\nv 0 3 0\nv 9 0 0\nv 10 0 0\nv 9 1 0\n"  # nine to one
    made.obj(triangles, "f 1 2 3\nf 4 5 6\n")(tmp_path / "a.obj")
    x = read_shape(tmp_path / "a.obj", 20_000)[:, 0]
    gap = np.sort(x)[np.argmax(np.diff(np.sort(x)))]
    assert abs((x <= gap).mean() - 0.9) < 0.01


def test_far_and_tiny_shapes_keep_their_form(tmp_path):
    for name, scale, shift in (("a", 1.0, 0.0), ("far", 1.0, 5e6), ("tiny", 1e-30, 0.0), ("huge", 1e30, 0.0)):
        np.save(tmp_path / f"{name}.npy", made.sphere() * scale + shift)
    for name, close in (("far", 1e-6), ("tiny", 1e-6), ("huge", 1e-6)):
        got = np.sort(read_shape(tmp_path / f"{name}.npy", 400), 0)
        np.testing.assert_allclose(got, np.sort(read_shape(tmp_path / "a.npy", 400), 0), atol=close)


def test_a_stray_vertex_is_no_part_of_a_mesh(tmp_path):
    made.obj("v 0 0 0\nv 1 0 0\nv 0 1 0\n")(tmp_path / "a.obj")
    made.obj("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 1e300 0 0\n")(tmp_path / "b.obj")
    for name in "ab":
        assert 0.5 < np.ptp(read_shape(tmp_path / f"{name}.obj", 500), axis=0)[:2].min() < 2


def test_too_few_points_come_once_and_again(tmp_path):
    np.save(tmp_path / "a.npy", made.sphere(10))
    points = read_shape(tmp_path / "a.npy", 25)
    assert len(np.unique(points[:10], axis=0)) == len(np.unique(points, axis=0)) == 10
    assert len(np.unique(read_shape(tmp_path / "a.npy", 6), axis=0)) == 6


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_up_is_turned_to_z(up, tmp_path):
    """A cone of points: its tip is where up points, whichever axis that is, and turning mirrors nothing."""
    stored = np.random.default_rng(0).random((500, 3))  # different in every direction
    axis = "xyz".index(up)
    stored[:, axis] *= 5
    np.save(tmp_path / "a.npy", stored)
    plain, points = read_shape(tmp_path / "a.npy", 500), read_shape(tmp_path / "a.npy", 500, up=up)
    assert np.argmax(np.ptp(points, axis=0)) == 2
    np.testing.assert_allclose(points[:, 2], plain[:, axis], atol=1e-6)
    turn = np.linalg.lstsq(plain.astype(float), points.astype(float), rcond=None)[0]
    np.testing.assert_allclose(np.linalg.det(turn), 1, atol=1e-4)


def test_gltf_scenes(tmp_path):
    mesh = made.box()
    document = made.gltf(mesh.vertices, mesh.faces)
    quarter = [0, 0, np.sqrt(0.5), np.sqrt(0.5)]  # about z
    document["nodes"] = [
        {"mesh": 0, "scale": [2, 2, 2]}, {"children": [0], "rotation": quarter, "translation": [10, 0, 0]},
        {"mesh": 0, "matrix": [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 9, 1]},
    ]
    document["scenes"] = [{"nodes": [1, 2]}]
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    points, faces = read_geometry(tmp_path / "a.gltf")
    v = np.asarray(mesh.vertices)
    both = np.vstack((np.stack((10 - v[:, 1], v[:, 0], v[:, 2]), 1), v + [0, 0, 9]))
    np.testing.assert_allclose(points, both, atol=1e-5)
    assert len(faces) == 2 * len(mesh.faces)
    del document["scenes"]
    (tmp_path / "b.gltf").write_text(json.dumps(document))
    assert len(read_geometry(tmp_path / "b.gltf").points) == len(points)


def test_gltf_does_not_multiply_without_end(tmp_path, monkeypatch):
    document = made.gltf(made.box().vertices, made.box().faces)
    document["nodes"] = [{"mesh": 0}] * 1000
    document["scenes"] = [{"nodes": list(range(1000))}]
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    monkeypatch.setattr("contrast3d.data.gltf_files.MOST_TRIANGLES", 10_000)
    with pytest.raises(DataError, match="more than 10000 triangles"):
        read_shape(tmp_path / "a.gltf", 8)


def test_buffers_of_linked_folders_stay_inside(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(999))
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "secret.bin")
    document = made.gltf(made.box().vertices, made.box().faces, buffers=[{"byteLength": 999, "uri": "link.bin"}])
    (tmp_path / "in" / "a.gltf").write_text(json.dumps(document))
    with pytest.raises(DataError, match="in the folder of the file"):
        read_shape(tmp_path / "in" / "a.gltf", 8)


def test_polygons(tmp_path):
    made.obj("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv -1 0.5 0\n", "f 1 2 3 4 5\nf 1 2 3 4\nf 1/2 2/2 3/2\n")(
        tmp_path / "a.obj")
    assert sorted(map(tuple, read_geometry(tmp_path / "a.obj").faces.tolist())) == sorted(
        [(0, 1, 2), (0, 1, 2), (0, 1, 2), (0, 2, 3), (0, 2, 3), (0, 3, 4)])


def check_one(path, data: bytes) -> None:
    """Either points as promised, or one line."""
    path.write_bytes(data)
    try:
        points, said = read_shape(path, 16), ""
    except DataError as error:
        points, said = np.zeros((16, 3)), str(error)
    assert "\n" not in said
    assert points.shape == (16, 3)
    assert np.isfinite(points).all()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(made.originals())), st.integers(0, 2**32))
def test_mutated_files_are_points_or_one_line(tmp_path_factory, name, seed):
    path = tmp_path_factory.getbasetemp() / f"mutated{os.path.splitext(name)[1]}"
    with np.errstate(all="raise", under="ignore"):
        check_one(path, made.mutated(made.originals()[name], np.random.default_rng(seed)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from([s for s in SUFFIXES if s not in (".las", ".laz")]), st.binary(max_size=200))
def test_any_bytes_are_points_or_one_line(tmp_path_factory, suffix, data):
    check_one(tmp_path_factory.getbasetemp() / f"any{suffix}", data)
