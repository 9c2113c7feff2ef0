"""What furniture is built of: boxes, beams, turned parts, cushions and sheets, as triangles in the piece's own frame.

A piece stands on z = 0 around the origin, its front towards +y, metres.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np

Number = float | int
Range = tuple[Number, Number]
_CORNERS = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)], float)
_BOX = np.array(
    [[0, 2, 3], [0, 3, 1], [4, 5, 7], [4, 7, 6], [0, 1, 5], [0, 5, 4], [2, 6, 7], [2, 7, 3], [0, 4, 6], [0, 6, 2],
     [1, 3, 7], [1, 7, 5]]
)  # fmt: skip


@dataclass(frozen=True)
class Surface:
    """A level rectangle of a piece that things may stand on, and how high they may be."""

    x: Range
    y: Range
    z: Number
    room: Number = 0.6


@dataclass
class Piece:
    """A piece of furniture being built: its class, its triangles and the material of each, where things may stand.

    kind: class name. glass: materials that a depth sensor mostly looks through or is blinded by. shift: where the
    origin that the piece was built around is after `centred`.
    """

    kind: str
    surfaces: list[Surface] = field(default_factory=list)
    glass: set[int] = field(default_factory=set)
    shift: np.ndarray = field(default_factory=lambda: np.zeros(3))
    _triangles: list[np.ndarray] = field(default_factory=list)
    _materials: list[np.ndarray] = field(default_factory=list)
    _boxes: list[tuple[Number, ...]] = field(default_factory=list)

    def box(self, x: Range, y: Range, z: Range, material: int = 0) -> None:
        """An upright box between two corners."""
        self._boxes.append((*x, *y, *z, material))

    def ring(self, x: Range, y: Range, z: Range, hole: Range, material: int = 0) -> None:
        """A slab with a rectangular hole of a width and a depth around x = y = 0."""
        u, v = hole[0] / 2, hole[1] / 2
        for a, b in ((x[0], -u), (u, x[1])):
            self.box((a, b), y, z, material)
        for c, d in ((y[0], -v), (v, y[1])):
            self.box((-u, u), (c, d), z, material)

    def boxes(self, rows: np.ndarray) -> None:
        """Many boxes at once: rows of x0 x1 y0 y1 z0 z1 material."""
        self._boxes += [tuple(row) for row in rows]

    def beam(self, start, end, width: Number, material: int = 0, width_end: Number | None = None) -> None:
        """A square bar from point to point, tapered to width_end."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        along = (end - start) / max(1e-9, np.linalg.norm(end - start))
        side = np.cross(along, [0, 0, 1] if abs(along[2]) < 0.9 else [1, 0, 0])
        side /= np.linalg.norm(side)
        up = np.cross(side, along)
        ends = [(start, width / 2), (end, (width if width_end is None else width_end) / 2)]
        corners = [p + a * h * side + b * h * up for p, h in ends for b in (-1, 1) for a in (-1, 1)]
        self.mesh(np.array(corners)[_BOX], material)

    def turned(
        self, profile, material: int = 0, at: Range = (0, 0), sides: int = 10, stretch=(1.0, 1.0)
    ) -> None:
        """A profile of (radius, z) from bottom to top, turned about the vertical through `at`, stretched along x, y."""
        profile = np.asarray(profile, float)
        ring = _ring(sides) * stretch
        grid = np.empty((len(profile), sides + 1, 3))
        grid[..., :2] = profile[:, :1, None] * ring + at
        grid[..., 2] = profile[:, 1:]
        self.sheet(grid, material)

    def cushion(self, x: Range, y: Range, z: Range, material: int = 0, soft: Number = 0.4) -> None:
        """A box with rounded edges: soft = 0 is a box, 1 an ellipsoid."""
        ball = _ball(round(soft, 1))
        low, high = (np.array(v, float) for v in zip(x, y, z))
        self.mesh((low + high) / 2 + ball * (high - low) / 2, material)

    def sheet(self, grid: np.ndarray, material: int = 0) -> None:
        """A surface through a grid (A, B, 3) of points."""
        self.mesh(_cells(grid), material)

    def mesh(self, triangles: np.ndarray, material: int = 0) -> None:
        """Triangles (T, 3, 3) as they are."""
        self._triangles.append(triangles)
        self._materials.append(np.full(len(triangles), material, np.int64))

    def surface(self, x: Range, y: Range, z: Number, room: Number = 0.6) -> None:
        """Note a place where things may stand."""
        self.surfaces.append(Surface(x, y, z, room))

    @property
    def triangles(self) -> np.ndarray:
        """(T, 3, 3) float64."""
        self._settle()
        return self._triangles[0]

    @property
    def materials(self) -> np.ndarray:
        """(T,) the material of each triangle, numbers of the piece's own."""
        self._settle()
        return self._materials[0]

    @property
    def low(self) -> np.ndarray:
        """(3,) the lowest corner of its box."""
        return self.triangles.min((0, 1))

    @property
    def high(self) -> np.ndarray:
        """(3,) the highest corner of its box."""
        return self.triangles.max((0, 1))

    def centred(self, stand: bool = True) -> Piece:
        """The piece with its box around the origin and on the floor, or at the height at which it was built."""
        shift = -(self.low + self.high) / 2
        shift[2] = -self.low[2] if stand else 0
        self.shift = shift
        self._triangles = [self.triangles + shift]
        self.surfaces = [
            Surface((s.x[0] + shift[0], s.x[1] + shift[0]), (s.y[0] + shift[1], s.y[1] + shift[1]), s.z + shift[2],
                    s.room)
            for s in self.surfaces
        ]  # fmt: skip
        return self

    def _settle(self) -> None:
        """Boxes into triangles, all of them into one array."""
        if self._boxes:
            rows = np.array(self._boxes)
            low, high = rows[:, None, 0:6:2], rows[:, None, 1:6:2]
            self._triangles.append((low + _CORNERS * (high - low))[:, _BOX].reshape(-1, 3, 3))
            self._materials.append(np.repeat(rows[:, 6].astype(np.int64), 12))
            self._boxes = []
        if len(self._triangles) != 1:
            self._triangles = [np.concatenate(self._triangles)]
            self._materials = [np.concatenate(self._materials)]


@lru_cache
def _ring(sides: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def _cells(grid: np.ndarray) -> np.ndarray:
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    return np.stack([np.stack([a, b, c], 2), np.stack([a, c, d], 2)], 2).reshape(-1, 3, 3)


@lru_cache
def _ball(soft: Number, sides: int = 12, rings: int = 6) -> np.ndarray:
    """Triangles of a superellipsoid in [-1, 1]^3 (Barr 1981): exponents from 0, a box, to 1, a ball."""
    power = lambda v: np.sign(v) * np.abs(v) ** max(soft, 0.05)  # noqa: E731
    around = np.linspace(-np.pi, np.pi, sides + 1) + np.pi / sides
    up = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)[:, None]
    flat = power(np.cos(up)) * np.ones(sides + 1)
    grid = np.stack([flat * power(np.cos(around)), flat * power(np.sin(around)), power(np.sin(up)) + 0 * flat], -1)
    return _cells(grid / np.abs(grid).max((0, 1)))


def spread(length: Number, count: int, gap: Number = 0.0) -> list[Range]:
    """`count` equal intervals that fill [-length / 2, length / 2] but for gaps between them."""
    edges = np.linspace(-length / 2, length / 2, count + 1)
    return [(a + gap / 2, b - gap / 2) for a, b in pairwise(edges)]
