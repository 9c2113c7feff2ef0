"""Folders of shapes, good and broken, in every format that is read; written here byte by byte or by trimesh."""

from __future__ import annotations

import base64
import functools
import json
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

AXES = np.array([3.0, 2.0, 1.0])


def sphere(num_points: int = 400) -> np.ndarray:
    """Points on an ellipsoid of half axes 3, 2, 1."""
    rows = np.random.default_rng(0).normal(size=(num_points, 3))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) * AXES


def box():
    """A box of sides 3, 2, 1 that stands at (5, 6, 7), as a trimesh."""
    import trimesh

    mesh = trimesh.creation.box(AXES)
    mesh.apply_translation([5, 6, 7])
    return mesh.subdivide()


def write_meshes(folder: Path) -> list[str]:
    """The box in every mesh format; the names, sorted."""
    import trimesh

    folder.mkdir(parents=True, exist_ok=True)
    mesh = box()
    for suffix in ("obj", "stl", "ply", "off", "glb"):
        mesh.export(folder / f"binary.{suffix}")
    mesh.export(folder / "text.stl", file_type="stl_ascii")
    mesh.export(folder / "text.ply", encoding="ascii")
    scene = trimesh.Scene(mesh)
    for name, data in trimesh.exchange.gltf.export_gltf(scene).items():
        (folder / name).write_bytes(data)
    (folder / "big-endian.ply").write_bytes(ply(mesh.vertices, mesh.faces, ">"))
    (folder / "EMBEDDED.GLTF").write_text(json.dumps(gltf(mesh.vertices, mesh.faces)))
    (folder / "corners.obj").write_bytes(quads(mesh.bounds))
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".bin")


def write_clouds(folder: Path) -> list[str]:
    """The ellipsoid's points in every format for clouds but LAS; the names, sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    points = sphere()
    np.save(folder / "a.npy", np.hstack((points, points)).astype(np.float32))
    np.savez_compressed(folder / "a.npz", points=points, other=np.arange(3))
    np.savetxt(folder / "a.xyz", points)
    np.savetxt(folder / "a.txt", np.hstack((points, points)), delimiter=",")
    np.savetxt(folder / "a.csv", points[:, ::-1], delimiter=";", header="z;y;x", comments="")
    np.savetxt(folder / "a.pts", points, header=str(len(points)), comments="")
    (folder / "a.ply").write_bytes(ply(points))
    for kind in ("ascii", "binary", "binary_compressed"):
        (folder / f"{kind}.pcd").write_bytes(pcd(points, kind))
    return sorted(p.name for p in folder.iterdir())


def quads(bounds: np.ndarray) -> bytes:
    """A box of six quadrangles, its corners counted back from the last one, with all else that OBJ files hold."""
    corners = [[bounds[i >> a & 1][a] for a in range(3)] for i in range(8)]
    lines = ["# a box", "mtllib /dev/zero", "o box", *("v {} {} {} 1.0".format(*c) for c in corners), "vn 0 0 1"]
    for face in ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)):
        lines += ["usemtl none", "f " + " \\\n ".join(f"{i - 8}/1/-1" for i in face)]
    return "\r\n".join([*lines, "l 1 2", ""]).encode()


def ply(points: np.ndarray, faces: np.ndarray | None = None, order: str = "<") -> bytes:
    kind = "little" if order == "<" else "big"
    head = f"ply\nformat binary_{kind}_endian 1.0\ncomment none\nelement vertex {len(points)}\n"
    head += "property uchar red\nproperty float x\nproperty float y\nproperty float z\n"
    rows = np.zeros(len(points), [("red", "u1"), ("xyz", f"{order}f4", 3)])
    rows["xyz"] = points
    if faces is None:
        return (head + "end_header\n").encode() + rows.tobytes()
    head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nproperty uchar flag\nend_header\n"
    corners = np.zeros(len(faces), [("n", "u1"), ("i", f"{order}i4", 3), ("flag", "u1")])
    corners["n"], corners["i"] = 3, faces
    return head.encode() + rows.tobytes() + corners.tobytes()


def pcd(points: np.ndarray, kind: str, count: int | None = None) -> bytes:
    """With a row of NaN in front, as sensors write where they saw nothing."""
    rows = np.vstack((np.full((1, 3), np.nan), points)).astype("<f4")
    n = len(rows) if count is None else count
    head = ("# .PCD v.7\nVERSION .7\nFIELDS intensity x y z _\nSIZE 1 4 4 4 1\nTYPE U F F F U\nCOUNT 1 1 1 1 2\n"
            f"WIDTH {n}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {n}\nDATA {kind}\n").encode()
    if kind == "ascii":
        return head + "".join("7 {} {} {} 0 0\n".format(*row) for row in rows).encode()
    if kind == "binary":
        record = np.zeros(len(rows), [("i", "u1"), ("xyz", "<f4", 3), ("_", "u1", 2)])
        record["xyz"] = rows
        return head + record.tobytes()
    plain = bytes(len(rows)) + rows.T.tobytes() + bytes(2 * len(rows))
    packed = lzf(plain)
    return head + struct.pack("<II", len(packed), len(plain)) + packed


def lzf(plain: bytes) -> bytes:
    """LZF with literals, and back references where a byte repeats."""
    out, i = bytearray(), 0
    while i < len(plain):
        run = 1
        while i + run < len(plain) and run < 200 and plain[i + run] == plain[i]:
            run += 1
        out += bytes([0, plain[i]])
        if run > 3:  # a literal, then so many bytes again from one byte back
            length = run - 1 - 2
            out += bytes([length << 5, 0]) if length < 7 else bytes([7 << 5, length - 7, 0])
            i += run
        else:
            i += 1
    return bytes(out)


def gltf(points: np.ndarray, faces: np.ndarray, **changes) -> dict:
    """A document with its buffer inside. The mesh lies in half size, and a node scales it."""
    data = (points / 2).astype("<f4").tobytes() + faces.astype("<u4").tobytes()
    cut = 12 * len(points)
    document = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [1]}],
        "nodes": [{"mesh": 0, "scale": [2, 2, 2]}, {"children": [0]}, {"mesh": 7}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1},
                                   {"attributes": {"POSITION": 0}, "mode": 1}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": len(points), "type": "VEC3"},
                      {"bufferView": 1, "componentType": 5125, "count": faces.size, "type": "SCALAR"}],
        "bufferViews": [{"buffer": 0, "byteLength": cut},
                        {"buffer": 0, "byteOffset": cut, "byteLength": len(data) - cut}],
        "buffers": [{"byteLength": len(data),
                     "uri": "data:application/octet-stream;base64," + base64.b64encode(data).decode()}],
        "images": [{"uri": "/dev/zero"}],
    }
    return {**document, **changes}


def bomb(path: Path, declared: int = 10**11) -> None:
    """An .npz of a few bytes whose header declares a huge array."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({declared}, 3), }}"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("points.npy", npy)


def zeros(path: Path, num_bytes: int = 2**30 + 2**20) -> None:
    """An .npz that unpacks to a gigabyte of zeros out of a megabyte."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({num_bytes // 3}, 3), }}"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, \
            archive.open("points.npy", "w") as file:
        file.write(npy)
        for _ in range(num_bytes // 2**20):
            file.write(bytes(2**20))


def obj(vertices: str, faces: str = "f 1 2 3\n") -> Callable[[Path], object]:
    return lambda path: path.write_text(vertices + faces)


def _bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _accessor(**changes) -> Callable[[Path], object]:
    document = gltf(box().vertices, box().faces)
    document["accessors"][0].update(changes)
    return _bytes(json.dumps(document).encode())


def _document(**changes) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(gltf(box().vertices, box().faces, **changes)))


def _array(array: np.ndarray) -> Callable[[Path], object]:
    return lambda path: np.save(path, array)


TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
_HUGE = b"ply\nformat %s 1.0\nelement vertex 1000000000000\nproperty float x\nproperty float y\nproperty float z\n"

# file name: how to write it, and what must be said of it
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.obj": (_bytes(b""), "an empty file"),
    "nothing.xyz": (_bytes(b"# only a comment\n"), "no numbers"),
    "truncated.stl": (lambda p: p.write_bytes(box().export(file_type="stl")[:-30]), "bytes for 48 triangles"),
    "truncated.ply": (lambda p: p.write_bytes(ply(sphere())[:-5]), "bytes after the header"),
    "half faces.ply": (lambda p: p.write_bytes(ply(box().vertices, box().faces)[:-300]), "as it declares|an end"),
    "truncated.glb": (lambda p: p.write_bytes(box().export(file_type="glb")[:-30]), "a whole glTF 2.0 file"),
    "truncated.off": (lambda p: p.write_text(box().export(file_type="off")[:-90]), "lines after the header"),
    "truncated.npz": (lambda p: (np.savez(p, points=sphere()), p.write_bytes(p.read_bytes()[:-99])), "zip"),
    "truncated.npy": (lambda p: (np.save(p, sphere()), p.write_bytes(p.read_bytes()[:-9])), "could only read"),
    "truncated.pcd": (_bytes(pcd(sphere(), "binary")[:-4]), "as declared"),
    "packed.pcd": (_bytes(pcd(sphere(), "binary_compressed")[:-4]), "packed bytes"),
    "unpackable.pcd": (_bytes(pcd(sphere(9), "binary_compressed")[:-80] + b"\xff" * 80), "cannot be unpacked"),
    "huge.pcd": (_bytes(pcd(sphere(), "binary", 10**12)), "as declared"),
    "short.pts": (_bytes(b"5\n0 0 1\n0 1 0\n1 0 0\n"), "5 as the first line says"),
    "ragged.xyz": (_bytes(b"0 0 1\n0 1 0\n1 0\n"), "2 columns in row 3"),
    "flat.csv": (_bytes(b"0,0\n1,1\n"), "2 columns"),
    "words.txt": (_bytes(b"This is a read-me.\n"), "no number|numbers"),
    "nan.xyz": (_bytes(b"0 0 1\n0 1 nan\n1 0 0\n"), "1 of 3 points are NaN"),
    "nan.obj": (obj("v 0 0 nan\nv 1 0 0\nv 0 1 0\n"), "1 of 3 points are NaN"),
    "infinite.npy": (_array(np.array([[0, 0, np.inf], [1, 1, 1]])), "1 of 2 points are NaN or infinite"),
    "far.npy": (_array(np.array([[0, 0, -1.7e308], [1, 1, 1.7e308]])), "too far apart"),
    "line.obj": (obj("v 0 0 0\nv 1 1 1\nv 2 2 2\n"), "without area"),
    "point.obj": (obj("v 1 2 3\nv 1 2 3\nv 1 2 3\n"), "all coincide"),
    "same.xyz": (_bytes(b"1 2 3\n" * 9), "all coincide"),
    "one.xyz": (_bytes(b"1 2 3\n"), r"1 point\(s\)"),
    "no faces.obj": (obj(TRIANGLE, ""), "no faces"),
    "missing vertex.obj": (obj(TRIANGLE, "f 1 2 4\n"), "missing vertex"),
    "vertex zero.obj": (obj(TRIANGLE, "f 0 1 2\n"), "missing vertex"),
    "back too far.obj": (obj(TRIANGLE, "f -1 -2 -4\n"), "missing vertex"),
    "two corners.obj": (obj(TRIANGLE, "f 1 2\n"), "a face of 2 corners"),
    "half.obj": (obj(TRIANGLE, "f 1 2 2.5\n"), "index 2.5"),
    "stl.obj": (lambda p: p.write_bytes(box().export(file_type="stl")), "numbers|no vertices"),
    "obj.stl": (obj(TRIANGLE), "bytes that start with"),
    "ply.obj": (lambda p: p.write_bytes(ply(sphere())), "PLY, by its first bytes"),
    "zip.ply": (lambda p: np.savez(p.open("wb"), points=sphere()), "a zip archive, by its first bytes"),
    "lfs.glb": (_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), "git lfs pull"),
    "page.stl": (_bytes(b"<!DOCTYPE html><html></html>" * 9), "a web page"),
    "huge.ply": (_bytes(_HUGE % b"binary_little_endian" + b"end_header\n" + bytes(99)), "at least 12000000000000"),
    "huge text.ply": (_bytes(_HUGE % b"ascii" + b"end_header\n0 0 0\n"), "at least 2000000000000"),
    "odd.ply": (_bytes(b"ply\nformat ascii 1.0\nelement vertex -3\nend_header\n"), "negative"),
    "no x.ply": (_bytes(b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float a\nend_header\n1\n"), "x, y, z"),
    "bomb.npz": (bomb, "bytes declared"),
    "zeros.npz": (zeros, "bytes when unpacked"),
    "pickle.npy": (lambda p: np.save(p, np.array([{}, 1], object), allow_pickle=True), "object array"),
    "set.npy": (_array(np.zeros((4, 9, 3))), "one shape a file"),
    "texts.npy": (_array(np.array([["a", "b", "c"]] * 3)), "numbers"),
    "huge.gltf": (_accessor(count=10**12), "beyond its buffer"),
    "nowhere.gltf": (_accessor(bufferView=9), r"bufferViews\[9\]"),
    "zeros.gltf": (lambda p: p.write_text(json.dumps({"asset": {}, "nodes": [{"mesh": 0}], "meshes": [{"primitives": [
        {"attributes": {"POSITION": 0}}]}], "accessors": [{"count": 10**12, "componentType": 5126, "type": "VEC3"}],
    })), "sparse or empty"),
    "outside.gltf": (_document(buffers=[{"byteLength": 9, "uri": "../../secret.bin"}]), "in the folder of the file"),
    "network.gltf": (_document(buffers=[{"byteLength": 9, "uri": "https://example.org/a.bin"}]), "in the folder"),
    "lost buffer.gltf": (_document(buffers=[{"byteLength": 9, "uri": "gone.bin"}]), "no buffer 'gone.bin'"),
    "circle.gltf": (_document(nodes=[{"children": [1]}, {"children": [0]}]), "in two places"),
    "draco.gltf": (_document(extensionsRequired=["KHR_draco_mesh_compression"]), "without compression"),
    "list.gltf": (_bytes(b"[]"), "without an asset"),
    "deep.gltf": (_bytes(b"[" * 10**5), "glTF"),
    "loop.obj": (lambda p: p.symlink_to(p.name), "symbolic links"),
    "lost.obj": (lambda p: p.symlink_to("gone.obj"), "No such file"),
    "ünïcode 😀.obj": (_bytes(b"\x00\xff\xfe"), "no vertices"),
    "line\nbreak.obj": (_bytes(b"\x00"), "no vertices"),
}


@functools.cache
def originals() -> dict[str, bytes]:
    """Valid files of every kind, by name."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for write in (write_meshes, write_clouds):
            for name in write(Path(folder) / write.__name__):
                found[f"{write.__name__}-{name}"] = (Path(folder) / write.__name__ / name).read_bytes()
    return found


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, put in, cut out or doubled, mostly near the beginning, where headers are."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at = int(min(len(data) * rng.random() ** rng.integers(1, 5), max(0, len(data) - 1)))
        kind = rng.integers(6)
        if kind == 0:
            data[at : at + 1] = bytes([rng.integers(256)])
        elif kind == 1:
            data[at:at] = bytes(rng.integers(0, 256, rng.integers(1, 9), np.uint8))
        elif kind == 2:
            del data[at : at + int(rng.integers(1, 64))]
        elif kind == 3:
            data[at:at] = data[at : at + int(rng.integers(1, 64))]
        elif kind == 4:
            data[at : at + 1] = rng.choice([b"9999999999", b"-1", b"nan", b"1e400", b"\xff\xff\xff\xff", b"\n", b" "])
        else:
            del data[at:]
    return bytes(data)
