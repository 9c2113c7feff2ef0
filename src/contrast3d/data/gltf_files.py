"""glTF 2.0 (.gltf, .glb): the triangles of the scene with their nodes' transforms; no materials, no images.

Only the buffers are read, and only those inside the file or its folder; nothing is fetched.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float

from contrast3d.data.mesh_files import Geometry
from contrast3d.errors import DataError, UnreadableError

MOST_TRIANGLES = 2**24  # of all nodes together: they may show one mesh any number of times
_MOST_JSON = 2**26
_MOST_BUFFER = 2**30
_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC3": 3}
_COMPRESSED = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")


def read_gltf(data: bytes, where: str, path: Path) -> Geometry:
    """A glTF file; path: where it lies, for the buffers beside it."""
    text, chunk = _chunks(data, where) if data[:4] == b"glTF" else (data, b"")
    if len(text) > _MOST_JSON:
        raise DataError(where, f"{len(text)} bytes of JSON", f"at most {_MOST_JSON}", "save it as .glb")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(where, f"a file that starts with {data[:16]!r}", "glTF: JSON or a .glb") from None
    if not isinstance(document, dict) or "asset" not in document:
        raise DataError(where, "JSON without an asset", "glTF 2.0")
    for name in document.get("extensionsRequired", []):
        if name in _COMPRESSED:
            raise DataError(where, f"meshes compressed by {name}", "plain buffers", "export it without compression")
    return Document(document, chunk, where, path).geometry()


def _chunks(data: bytes, where: str) -> tuple[bytes, bytes]:
    """The JSON and the binary chunk of a .glb."""
    version, length = (int.from_bytes(data[i : i + 4], "little") for i in (4, 8))
    if version != 2 or length > len(data):
        found = f"version {version}, {length} bytes declared, {len(data)} there"
        raise DataError(where, found, "a whole glTF 2.0 file", "fetch or export it again")
    chunks, at = {}, 12
    while at + 8 <= length:
        size, kind = int.from_bytes(data[at : at + 4], "little"), data[at + 4 : at + 8]
        if at + 8 + size > length:
            raise DataError(where, f"a chunk of {size} bytes, {length - at - 8} left", "whole chunks")
        chunks.setdefault(kind, data[at + 8 : at + 8 + size])
        at += 8 + size
    if b"JSON" not in chunks:
        raise DataError(where, "no JSON chunk", "a .glb")
    return chunks[b"JSON"], chunks.get(b"BIN\0", b"")


class Document:
    """A parsed glTF file. What it refers to by number is looked up, and checked, when it is wanted."""

    def __init__(self, json: dict, chunk: bytes, where: str, path: Path):
        self.json, self.chunk, self.where, self.path = json, chunk, where, path
        self.files: dict[Path, bytes] = {}
        self.embedded: dict[int, bytes] = {}
        self.seen: dict[tuple[int, int], Geometry | None] = {}

    def wrong(self, found: str, expected: str = "glTF 2.0", fix: str = "") -> DataError:
        return DataError(self.where, found, expected, fix)

    def geometry(self) -> Geometry:
        """All triangles that the scene shows, in its coordinates."""
        points, faces, start, total = [], [], 0, 0
        for mesh, matrix in self.shown():
            primitives = self.item("meshes", mesh).get("primitives", [])
            for i, primitive in enumerate(primitives):
                part = self.primitive((mesh, i), primitive)
                if part is None:
                    continue
                total += max(len(part.faces), len(part.points) // 3)
                if total > MOST_TRIANGLES:
                    raise self.wrong(f"more than {MOST_TRIANGLES} triangles in the scene", "a smaller one")
                points.append(part.points @ matrix[:3, :3].T + matrix[:3, 3])
                faces.append(part.faces + start)
                start += len(part.points)
        if not faces:
            raise self.wrong("no triangles in the scene", "a mesh")
        return Geometry(np.concatenate(points), np.concatenate(faces))

    def shown(self) -> list[tuple[int, Float[np.ndarray, "4 4"]]]:
        """The meshes of the scene's nodes, each with its transform into the scene."""
        nodes = self.json.get("nodes", [])
        if self.json.get("scenes"):
            roots = self.item("scenes", self.json.get("scene", 0)).get("nodes", [])
        else:
            children = {c for node in nodes for c in node.get("children", [])}
            roots = [i for i in range(len(nodes)) if i not in children]
        found, visited = [], set()
        waiting = [(root, np.eye(4)) for root in reversed(roots)]
        while waiting:
            number, above = waiting.pop()
            if number in visited:  # a node has one parent: more would multiply, or never end
                raise self.wrong(f"node {number} in two places", "a tree of nodes")
            visited.add(number)
            node = self.item("nodes", number)
            matrix = above @ self.transform(node)
            if "mesh" in node:
                found.append((node["mesh"], matrix))
            waiting += [(child, matrix) for child in reversed(node.get("children", []))]
        return found

    def transform(self, node: dict) -> Float[np.ndarray, "4 4"]:
        """A node's own 4x4 matrix, from `matrix` or from translation, rotation (a quaternion) and scale."""
        if "matrix" in node:
            return np.array(node["matrix"], float).reshape(4, 4).T
        x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), float)
        matrix = np.eye(4)
        matrix[:3, :3] = np.array([
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]) * np.array(node.get("scale", (1, 1, 1)), float)
        matrix[:3, 3] = np.array(node.get("translation", (0, 0, 0)), float)
        return matrix

    def primitive(self, key: tuple[int, int], primitive: dict) -> Geometry | None:
        """Points and triangles of one piece of a mesh; None for points and lines."""
        if key in self.seen:
            return self.seen[key]
        mode, part = primitive.get("mode", 4), None
        if mode in (4, 5, 6):
            points = self.accessor(primitive["attributes"]["POSITION"], 3).astype(np.float64)
            order = np.arange(len(points))
            if "indices" in primitive:
                order = self.accessor(primitive["indices"], 1).reshape(-1).astype(np.int64)
            if len(order) and (order.max() >= len(points) or order.min() < 0):
                raise self.wrong("a face that refers to a missing vertex", f"one of {len(points)} vertices")
            part = Geometry(points, _faces(order, mode))
        self.seen[key] = part
        return part

    def accessor(self, number: int, width: int) -> np.ndarray:
        """(count, width) numbers, a view of a buffer; a DataError unless all of them lie within it."""
        accessor = self.item("accessors", number)
        if "sparse" in accessor or "bufferView" not in accessor:
            raise self.wrong(f"accessor {number} is sparse or empty", "one that lies in a buffer")
        if _WIDTHS.get(accessor.get("type")) != width or accessor.get("componentType") not in _COMPONENTS:
            raise self.wrong(f"accessor {number} of type {str(accessor.get('type'))[:20]!a}")
        view = self.item("bufferViews", accessor["bufferView"])
        dtype = np.dtype(_COMPONENTS[accessor["componentType"]])
        count, offset = self.number(accessor, "count"), self.number(accessor, "byteOffset", 0)
        stride = self.number(view, "byteStride", 0) or dtype.itemsize * width
        needed = offset + (count - 1) * stride + dtype.itemsize * width if count else 0
        data, start = self.buffer(self.number(view, "buffer")), self.number(view, "byteOffset", 0)
        if needed > self.number(view, "byteLength") or start + needed > len(data):
            raise self.wrong(f"accessor {number} reaches beyond its buffer ({count} items)", "a whole buffer",
                             "fetch or export it again")
        if count == 0:
            return np.zeros((0, width))
        values = np.ndarray((count, width), dtype, data, start + offset, (stride, dtype.itemsize))
        if accessor.get("normalized") and dtype.kind in "iu":  # KHR_mesh_quantization
            return np.maximum(values / np.iinfo(dtype).max, -1)
        return values

    def buffer(self, number: int) -> bytes:
        """The bytes of a buffer: the binary chunk, embedded as base64, or a file in the same folder or below."""
        uri = self.item("buffers", number).get("uri")
        if uri is None:
            return self.chunk
        if uri.startswith("data:"):
            if number not in self.embedded:
                self.embedded[number] = base64.b64decode(uri.partition(",")[2])
            return self.embedded[number]
        folder = self.path.parent.resolve()
        target = (folder / unquote(uri)).resolve()
        if "://" in uri or not target.is_relative_to(folder):
            raise self.wrong(f"a buffer at {uri[:60]!a}", "buffers in the folder of the file")
        if not target.is_file():
            raise UnreadableError(self.where, f"no buffer {uri[:60]!a} beside it", "that file", "copy it there")
        if target.stat().st_size > _MOST_BUFFER:
            raise self.wrong(f"a buffer of {target.stat().st_size} bytes", f"at most {_MOST_BUFFER}")
        if target not in self.files:
            self.files[target] = target.read_bytes()
        return self.files[target]

    def item(self, kind: str, number: int) -> dict:
        """Entry `number` of the top-level list `kind`."""
        items = self.json.get(kind, [])
        if type(number) is not int or not 0 <= number < len(items) or not isinstance(items[number], dict):
            raise self.wrong(f"a reference to {kind}[{str(number)[:20]}]", f"one of {len(items)}")
        return items[number]

    def number(self, owner: dict, name: str, default: int | None = None) -> int:
        """A whole number from 0 up."""
        value = owner.get(name, default)
        if type(value) is not int or value < 0:
            raise self.wrong(f"{name} is {str(value)[:20]!a}", "a whole number")
        return value


def _faces(order: np.ndarray, mode: int) -> np.ndarray:
    """Triangles out of a list of corners: 4 apart, 5 a strip, 6 a fan."""
    if mode == 4:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    if len(order) < 3:
        return np.zeros((0, 3), np.int64)
    first = order[:-2] if mode == 5 else np.full(len(order) - 2, order[0])
    return np.stack((first, order[1:-1], order[2:]), 1)  # winding does not matter to a surface's points
