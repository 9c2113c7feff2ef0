"""Read Sweet Home 3D furniture libraries: .sh3f is a zip of a catalogue (Java properties) and OBJ models."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

CATALOGUE = "PluginFurnitureCatalog.properties"
IDENTITY = "1 0 0 0 1 0 0 0 1"


@dataclass(frozen=True)
class Item:
    """One piece of furniture of a catalogue: an OBJ file of the library, and its rotation matrix by rows."""

    name: str
    category: str
    creator: str
    model: str
    rotation: tuple[float, ...]


class FurnitureLibrary:
    """One .sh3f file."""

    def __init__(self, path: Path):
        self._archive = zipfile.ZipFile(path)

    def items(self) -> dict[str, Item]:
        """Catalogue id -> item, in the catalogue's order."""
        entries: dict[int, dict[str, str]] = {}
        for line in self._archive.read(CATALOGUE).decode("latin-1").splitlines():
            match = re.match(r"\s*(id|name|category|creator|model|modelRotation)#(\d+)\s*=\s*(.*?)\s*$", line)
            if match:
                entries.setdefault(int(match[2]), {})[match[1]] = _unescape(match[3])
        return {
            e["id"]: Item(
                e["name"], e["category"], e.get("creator", ""), e["model"].lstrip("/"),
                tuple(map(float, e.get("modelRotation", IDENTITY).split())),
            )
            for _, e in sorted(entries.items())
        }

    def triangles(self, item: Item) -> np.ndarray:
        """(T, 3, 3) float64 with z up (the models have y up); polygons become fans."""
        vertices, faces = [], []
        for line in self._archive.read(item.model).decode("latin-1").replace("\\\n", " ").splitlines():
            kind, *fields = line.split() or [""]
            if kind == "v":
                vertices.append(fields[:3])
            elif kind == "f":
                corners = [_vertex(field, len(vertices)) for field in fields]
                faces += [(corners[0], b, c) for b, c in pairwise(corners[1:])]
        x, y, z = _rotate(np.array(vertices, float), item.rotation)
        return np.stack([x, -z, y], -1)[np.array(faces)]


def _rotate(vertices: np.ndarray, rotation: tuple[float, ...]) -> list[np.ndarray]:
    """Rotated x, y, z; sums are written out so that they round alike everywhere."""
    x, y, z = vertices.T
    return [x * a + y * b + z * c for a, b, c in zip(*[iter(rotation)] * 3)]


def _vertex(field: str, count: int) -> int:
    """`v/vt/vn` -> row of the vertex; negative numbers count back from the last one so far."""
    number = int(field.split("/")[0])
    return number - 1 if number > 0 else count + number


def _unescape(text: str) -> str:
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text).replace("\\", "")
