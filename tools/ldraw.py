"""Read the LDraw parts library: headers, and parts as triangles (https://www.ldraw.org/article/218.html)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

MAX_DEPTH = 30


@dataclass(frozen=True)
class Header:
    """description: the file's first line; category: `!CATEGORY` or the description's first word; author."""

    description: str
    category: str
    author: str


class Library:
    """The folder with `parts/` and `p/`; sub-files are read once and kept."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._meshes: dict[str, np.ndarray] = {}

    @cached_property
    def _files(self) -> dict[str, Path]:
        """Lower-case name as the library writes it -> file. `parts/` shadows `p/`."""
        return {
            path.relative_to(self.folder / root).as_posix().lower(): path
            for root in ("p", "parts")
            for path in sorted((self.folder / root).rglob("*.dat"))
        }

    def parts(self) -> list[str]:
        """File names of the parts themselves, without sub-parts and primitives."""
        return sorted(path.name for path in (self.folder / "parts").glob("*.dat"))

    def lines(self, name: str) -> list[str]:
        path = self._files.get(name.replace("\\", "/").lower())
        return [] if path is None else path.read_text("utf-8", errors="replace").splitlines()

    def header(self, name: str) -> Header:
        lines = self.lines(name)
        description = lines[0][1:].strip()
        category, author = (description.split() or [""])[0], ""
        for line in lines[1:]:
            if line.startswith("0 Author:"):
                author = " ".join(line[len("0 Author:"):].split())
            elif line.startswith("0 !CATEGORY"):
                category = line[len("0 !CATEGORY"):].strip()
        return Header(description, category, author)

    def triangles(self, name: str, depth: int = 0) -> np.ndarray:
        """(T, 3, 3) float64 with z up (LDraw has -y up). Empty for a file that is not there."""
        mesh = self._mesh(name, depth)
        return np.stack([mesh[..., 0], mesh[..., 2], -mesh[..., 1]], -1)

    def _mesh(self, name: str, depth: int) -> np.ndarray:
        key = name.replace("\\", "/").lower()
        if key not in self._meshes:
            if depth > MAX_DEPTH:
                raise SystemExit(f"{name}: sub-files nested deeper than {MAX_DEPTH}")
            self._meshes[key] = self._parse(self.lines(key), depth)
        return self._meshes[key]

    def _parse(self, lines: list[str], depth: int) -> np.ndarray:
        """Line type 1 is a placed sub-file, 3 a triangle, 4 a quad; the others (0, 2, 5) have no area."""
        corners, placed = [], []
        for fields in map(str.split, lines):
            kind = fields[0] if fields else ""
            if kind == "1":
                placement = np.array(fields[2:14], float)
                placed.append(_transform(self._mesh(" ".join(fields[14:]), depth + 1), placement))
            elif kind == "3":
                corners.append(fields[2:11])
            elif kind == "4":
                a, b, c, d = (fields[i : i + 3] for i in (2, 5, 8, 11))
                corners += [a + b + c, a + c + d]
        own = np.array(corners, float).reshape(-1, 3, 3)
        return np.concatenate([own, *placed])


def _transform(mesh: np.ndarray, placement: np.ndarray) -> np.ndarray:
    """placement: x y z, then the rows of the 3 x 3 matrix. Sums are written out: they round alike everywhere."""
    x, y, z = mesh[..., 0], mesh[..., 1], mesh[..., 2]
    rows = placement[3:].reshape(3, 3)
    return np.stack([x * r[0] + y * r[1] + z * r[2] + t for r, t in zip(rows, placement[:3])], -1)
