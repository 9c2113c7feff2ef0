"""Read the LDraw parts library: headers, and parts as triangles (https://www.ldraw.org/article/218.html)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from contrast3d.data.ldraw40_parts import FAMILIES

MAX_DEPTH = 30
LICENCE = "0 !LICENSE Redistributable under CCAL version 2.0 : see CAreadme.txt"

_FAMILY_RULES = {  # of FAMILIES, by the description of a primitive in lower case; the first that matches
    "tube": r"\bstud\b.*\b(tube|underside)\b", "stud": r"\bstud\b", "hole": r"\bhole\b", "axle": r"\b(axle|pin)\b",
    "cylinder": r"\bcylinder\b", "torus": r"\b(torus|sphere)\b", "cone": r"\bcone\b", "disc": r"\b(disc|ring|chord)\b",
    "box": r"^(box|rectangle|triang)", "other": "",
}


@dataclass(frozen=True)
class Header:
    """The file's first line, its `!LDRAW_ORG` type, its author, and whether it is under CC BY 2.0."""

    description: str
    kind: str
    author: str
    is_cc_by: bool

    @property
    def is_shape(self) -> bool:
        """Not a sub-part, alias or file that was moved, not unfinished, and no part with print on it."""
        words = self.description.lower()
        return not (
            self.description.startswith(("~", "_", "=", "|"))
            or any(kind in self.kind for kind in ("Alias", "Physical_Colour", "Flexible_Section"))
            or any(word in words for word in ("pattern", "sticker", "print", "needs work"))
        )


class Library:
    """The folder with `parts/` and `p/`; sub-files are read once and kept."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._meshes: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @cached_property
    def _files(self) -> dict[str, Path]:
        """Lower-case name as the library writes it -> file. `parts/` shadows `p/`."""
        return {
            path.relative_to(self.folder / root).as_posix().lower(): path
            for root in ("p", "parts")
            for path in sorted((self.folder / root).rglob("*.dat"))
        }

    def shapes(self) -> list[str]:
        """File names of the parts that are shapes of their own; 3001p01.dat is 3001.dat with print on it."""
        names = sorted(path.name for path in (self.folder / "parts").glob("*.dat"))
        return [n for n in names if not re.match(r"u?\d+[a-z]?p\d", n) and self.header(n).is_shape]

    def read_files(self) -> list[str]:
        """The files that the meshes so far were made of, sub-parts and primitives among them."""
        return sorted(name for name in self._meshes if name in self._files)

    def lines(self, name: str) -> list[str]:
        path = self._files.get(name)
        return [] if path is None else path.read_text("utf-8", errors="replace").splitlines()

    def header(self, name: str) -> Header:
        lines = [" ".join(line.split()) for line in self.lines(name)]
        field = lambda key: next((x[len(key):].strip() for x in lines if x.startswith(key)), "")  # noqa: E731
        description = self.lines(name)[0][1:].strip()  # its double blanks align numbers: they belong to it
        return Header(description, field("0 !LDRAW_ORG"), field("0 Author:"), LICENCE in lines)

    def triangles(self, name: str) -> np.ndarray:
        """(T, 3, 3) float64 with z up (LDraw has -y up). Empty for a file that is not there."""
        mesh, _ = self._mesh(name, 0)
        return np.stack([mesh[..., 0], mesh[..., 2], -mesh[..., 1]], -1)

    def families(self, name: str) -> np.ndarray:
        """(T,) uint8, the family of each triangle: a row of FAMILIES, told by the outermost primitive it belongs to."""
        return self._mesh(name, 0)[1]

    def _mesh(self, name: str, depth: int) -> tuple[np.ndarray, np.ndarray]:
        key = name.replace("\\", "/").lower()
        if key not in self._meshes:
            if depth > MAX_DEPTH:
                raise SystemExit(f"{name}: sub-files nested deeper than {MAX_DEPTH}")
            mesh, families = self._parse(self.lines(key), depth)
            if self._is_primitive(key):
                families = np.full_like(families, FAMILIES.index(self._family(key)))
            self._meshes[key] = mesh, families
        return self._meshes[key]

    def _is_primitive(self, key: str) -> bool:
        return key in self._files and self._files[key].is_relative_to(self.folder / "p")

    def _family(self, key: str) -> str:
        words = self.lines(key)[0][1:].lower().split()
        if words[:2] == ["~moved", "to"]:
            return self._family(words[2].replace("\\", "/") + ".dat")
        description = re.sub(r"^(hi|lo)-res ", "", " ".join(words))
        return next(family for family, rule in _FAMILY_RULES.items() if re.search(rule, description))

    def _parse(self, lines: list[str], depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Line type 1 is a placed sub-file, 3 a triangle, 4 a quad; the others (0, 2, 5) have no area."""
        corners, placed, families = [], [], []
        for fields in map(str.split, lines):
            kind = fields[0] if fields else ""
            if kind == "1":
                placement = np.array(fields[2:14], float)
                mesh, own = self._mesh(" ".join(fields[14:]), depth + 1)
                placed.append(_transform(mesh, placement))
                families.append(own)
            elif kind == "3":
                corners.append(fields[2:11])
            elif kind == "4":
                a, b, c, d = (fields[i : i + 3] for i in (2, 5, 8, 11))
                corners += [a + b + c, a + c + d]
        own = np.array(corners, float).reshape(-1, 3, 3)
        plain = np.zeros(len(own), np.uint8)  # FAMILIES begins with it
        return np.concatenate([own, *placed]), np.concatenate([plain, *families])


def _transform(mesh: np.ndarray, placement: np.ndarray) -> np.ndarray:
    """placement: x y z, then the 3 x 3 matrix by rows. Sums are written out: they round alike everywhere."""
    x, y, z = mesh[..., 0], mesh[..., 1], mesh[..., 2]
    rows = placement[3:].reshape(3, 3)
    return np.stack([x * r[0] + y * r[1] + z * r[2] + t for r, t in zip(rows, placement[:3])], -1)
