"""A folder of meshes in five formats, some of them broken in every way that files are; written byte by byte, quickly.

The good ones are convex hulls of the embedded shapes, in a sub-folder for each class.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from contrast3d.data.ldraw40 import LDraw40
from contrast3d.data.sweethome3d import SweetHome3D

FORMATS = ("obj", "ply", "stl", "off", "glb")
ODD_NAMES = ("{} copy", "Größe {}", "部品 {}", "{} (2)", "e\u0301tage {}")  # spaces and unicode, also decomposed
_HULL_POINTS = 48


def hulls() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Class, corners (v, 3) and triangles (f, 3) of the embedded shapes, one after the other."""
    from scipy.spatial import ConvexHull

    for shapes in (LDraw40("all"), SweetHome3D("all")):
        clouds = shapes.points[:, :_HULL_POINTS].double().numpy()
        for cloud, label in zip(clouds, shapes.labels.tolist()):
            hull = ConvexHull(cloud, qhull_options="QJ")
            corners, faces = np.unique(hull.simplices, return_inverse=True)
            yield shapes.classes[label] if label >= 0 else "other", cloud[corners], faces.reshape(-1, 3)


Pairs = list[tuple[str, str]]


def write_good(root: Path, count: int, copies: int = 10) -> tuple[list[str], Pairs, Pairs]:
    """`count` files below `root`: their paths there, and which are pairs of exact copies and of the same shape in
    another format; `copies` of each."""
    names, exact, near = [], [], []
    for number, (label, corners, faces) in zip(range(count - 2 * copies), hulls()):
        stem = f"part {number}" if number % 50 else ODD_NAMES[number // 50 % len(ODD_NAMES)].format(number)
        suffix = FORMATS[number % 5]
        names.append(f"{label}/{stem}.{suffix}")
        (root / label).mkdir(parents=True, exist_ok=True)
        data = WRITERS[suffix](corners, faces)
        (root / names[-1]).write_bytes(data)
        twin = number // 40  # of the first, the forty-first ..., there are two more: a copy, and another format
        if number % 40 == 0 and twin < copies:
            other = ("ply", "stl", "glb")[twin % 3]  # of float32: other points are drawn than from text
            for pairs, name, content in (
                (exact, f"copies/Kopie von {twin}.{suffix}", data),
                (near, f"copies/other format {twin}.{other}", WRITERS[other](corners, faces)),
            ):
                (root / "copies").mkdir(exist_ok=True)
                (root / name).write_bytes(content)
                pairs.append((names[-1], name))
    return names + [copy for _, copy in exact + near], exact, near


def obj(points: np.ndarray, faces: np.ndarray) -> bytes:
    lines = ["v {:.6f} {:.6f} {:.6f}".format(*p) for p in points.tolist()]
    return "\n".join([*lines, *("f {} {} {}".format(*f) for f in (faces + 1).tolist()), ""]).encode()


def off(points: np.ndarray, faces: np.ndarray) -> bytes:
    lines = ["{:.6f} {:.6f} {:.6f}".format(*p) for p in points.tolist()]
    lines += ["3 {} {} {}".format(*f) for f in faces.tolist()]
    return "\n".join([f"OFF\n{len(points)} {len(faces)} 0", *lines, ""]).encode()


def ply(points: np.ndarray, faces: np.ndarray) -> bytes:
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\nproperty float x\nproperty float y\n"
    head += f"property float z\nelement face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    corners = np.zeros(len(faces), [("n", "u1"), ("i", "<i4", 3)])
    corners["n"], corners["i"] = 3, faces
    return head.encode() + points.astype("<f4").tobytes() + corners.tobytes()


def text_ply(points: np.ndarray, faces: np.ndarray) -> bytes:
    head = ply(points, faces).partition(b"end_header\n")[0].replace(b"binary_little_endian", b"ascii")
    return head + b"end_header\n" + off(points, faces).split(b"\n", 2)[2]


def stl(points: np.ndarray, faces: np.ndarray) -> bytes:
    record = np.zeros(len(faces), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    record["corners"] = points[faces]
    return bytes(80) + struct.pack("<I", len(faces)) + record.tobytes()


def text_stl(points: np.ndarray, faces: np.ndarray) -> bytes:
    lines = ["solid a"]
    for triangle in points[faces].tolist():
        lines += ["facet normal 0 0 0", "outer loop", *("vertex {} {} {}".format(*p) for p in triangle), "endloop"]
    return "\n".join([*lines, "endsolid a", ""]).encode()


def glb(points: np.ndarray, faces: np.ndarray, **accessor) -> bytes:
    """accessor: what the first one declares in place of the truth."""
    data = points.astype("<f4").tobytes() + faces.astype("<u4").tobytes()
    cut = 12 * len(points)
    text = json.dumps({
        "asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": len(points), "type": "VEC3", **accessor},
                      {"bufferView": 1, "componentType": 5125, "count": faces.size, "type": "SCALAR"}],
        "bufferViews": [{"buffer": 0, "byteLength": cut},
                        {"buffer": 0, "byteOffset": cut, "byteLength": len(data) - cut}],
        "buffers": [{"byteLength": len(data)}],
    }).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


WRITERS: dict[str, Callable[[np.ndarray, np.ndarray], bytes]] = {
    "obj": obj, "ply": ply, "stl": stl, "off": off, "glb": glb,
}

_CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
_FACES = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])
_NAN = np.vstack((_CORNERS[:3], [[0, 0, np.nan]]))
_ENDLESS = np.vstack((_CORNERS[:3], [[0, 0, np.inf]]))
_FLAT = np.outer(np.arange(4.0), [1, 2, 3])  # all on one line
_SAME = np.zeros((4, 3))
_GOOD = {suffix: write(_CORNERS, _FACES) for suffix, write in WRITERS.items()}


def _zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.glb", data)
    return file.getvalue()


# name: the bytes, or where a link leads, and what must be said of it
BROKEN: dict[str, tuple[bytes | Path, str]] = {
    "truncated.obj": (_GOOD["obj"][:70], "fewer than 3 numbers"),
    "truncated.ply": (_GOOD["ply"][:-7], "an end within the numbers"),
    "truncated text.ply": (text_ply(_CORNERS, _FACES)[:-9], "3 lines; expected 4 lines of face"),
    "truncated.stl": (_GOOD["stl"][:-30], "284 bytes for 4 triangles"),
    "truncated text.stl": (text_stl(_CORNERS, _FACES)[:-90], "no endsolid"),
    "truncated.off": (_GOOD["off"][:-9], "lines after the header"),
    "truncated.glb": (_GOOD["glb"][:-30], "bytes declared"),
    "empty.obj": (b"", "an empty file"),
    "empty.ply": (b"", "an empty file"),
    "empty.stl": (b"", "an empty file"),
    "empty.off": (b"", "an empty file"),
    "empty.glb": (b"", "an empty file"),
    "nan.obj": (obj(_NAN, _FACES), "1 of 4 points are NaN"),
    "nan.ply": (ply(_NAN, _FACES), "1 of 4 points are NaN"),
    "nan.stl": (stl(_NAN, _FACES), "3 of 12 points are NaN"),
    "nan.off": (off(_NAN, _FACES), "NaN or infinite vertices"),
    "infinite.glb": (glb(_ENDLESS, _FACES), "1 of 4 points are NaN or infinite"),
    "zero area.obj": (obj(_FLAT, _FACES), "without area"),
    "zero area.ply": (ply(_FLAT, _FACES), "without area"),
    "zero area.stl": (stl(_CORNERS[[0, 1]], np.array([[0, 0, 1]])), "without area"),
    "ein Punkt.glb": (glb(_SAME, _FACES), "all coincide"),
    "一点.off": (b"OFF\n1 0 0\n0 0 0\n", "no faces"),
    "wrong suffix.obj": (_GOOD["ply"], "PLY, by its first bytes"),
    "wrong suffix.glb": (text_stl(_CORNERS, _FACES), "text STL, by its first bytes"),
    "text.stl": ("Größe: 3 x 2 Noppen\n".encode(), "an STL mesh"),
    "not found.ply": (b"<!DOCTYPE html><html>404</html>", "a web page"),
    "pointer.off": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    "bomb.glb": (b"glTF" + struct.pack("<II", 2, 2**32 - 1) + _GOOD["glb"][12:], "4294967295 bytes declared"),
    "bomb accessor.glb": (glb(_CORNERS, _FACES, count=2**40), "beyond its buffer"),
    "bomb.gz.glb": (gzip.compress(bytes(2**24)), "gzip, by its first bytes"),
    "bomb.zip.glb": (_zipped(bytes(2**24)), "a zip archive, by its first bytes"),
    "bomb.stl": (bytes(80) + struct.pack("<I", 2**31) + _GOOD["stl"][84:], "for 2147483648 triangles"),
    "bomb.ply": (_GOOD["ply"].replace(b"vertex 4", b"vertex 999999999999"), "at least"),
    "wrong counts.off": (_GOOD["off"].replace(b"4 4 0", b"4 9 0"), "lines after the header"),
    "loop a.off": (Path("loop b.off"), "symbolic links"),
    "loop b.off": (Path("loop a.off"), "symbolic links"),
    "dangling.stl": (Path("gone/nowhere.stl"), "No such file"),
    "out of range.obj": (_GOOD["obj"].replace(b"f 1 2 3", b"f 1 2 5"), "missing vertex"),
    "back too far.obj": (_GOOD["obj"].replace(b"f 1 2 3", b"f -1 -2 -5"), "missing vertex"),
    "zeile\numbruch 😀.obj": (b"\x00\xff\xfe" * 9, "no vertices"),
}


def write_broken(root: Path) -> dict[str, str]:
    """Forty broken files below `root`, spread over its folders: name below it -> what must be said of each.

    Beside them lies what must do no harm: folders that are called like files, links to the folder above.
    """
    folders = sorted(p.name for p in root.iterdir() if p.is_dir())[:7] + ["broken only"]
    written = {}
    for number, (name, (content, reason)) in enumerate(BROKEN.items()):
        if content and isinstance(content, Path):
            place = root / "links" / name
            place.parent.mkdir(exist_ok=True)
            place.symlink_to(content)
        else:
            place = root / folders[number % len(folders)] / name
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content)
        written[str(place.relative_to(root))] = reason
    if os.geteuid() != 0:  # who may read everything reads this, too
        (root / "links" / "unreadable.obj").write_bytes(_GOOD["obj"])
        (root / "links" / "unreadable.obj").chmod(0)
        written["links/unreadable.obj"] = "Permission denied"
        (root / "links" / "dangling.stl").unlink()
        del written["links/dangling.stl"]
    (root / "links" / "round").symlink_to(root)
    (root / "links" / "self").symlink_to("self")
    (root / "links" / "folder.obj").mkdir()
    return written
