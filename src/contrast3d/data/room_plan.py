"""The shell of a room: floor plan, walls with their doors and windows, ceiling; and where a piece stands in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from contrast3d.data.room_fixtures import curtain
from contrast3d.data.room_seats import Rng
from contrast3d.data.room_shapes import Number, Piece, Range

SIZES = {  # width and depth in metres, from the smallest to the largest
    "living": ((3.2, 7.0), (3.0, 6.0)), "bedroom": ((2.8, 5.2), (2.7, 4.6)), "office": ((2.8, 8.0), (2.8, 6.0)),
    "bathroom": ((2.5, 4.0), (2.5, 3.2)), "kitchen": ((2.7, 6.0), (2.6, 4.8)),
}  # fmt: skip


@dataclass(frozen=True)
class Opening:
    """A hole in a wall: "door" or "window", from s0 to s1 along the wall and from z0 to z1."""

    kind: str
    s0: Number
    s1: Number
    z0: Number
    z1: Number


@dataclass
class Wall:
    """A wall from `start` on, `heading` the direction along it; the room is to its left."""

    start: np.ndarray
    heading: Number
    length: Number
    openings: list[Opening] = field(default_factory=list)

    def at(self, s: Number, inward: Number = 0.0) -> np.ndarray:
        """(2,) the place s along the wall and `inward` from it."""
        c, n = np.cos(self.heading), np.sin(self.heading)
        return self.start + (s * c - inward * n, s * n + inward * c)

    def free(self, s0: Number, s1: Number, z1: Number) -> bool:
        """Whether no opening lies behind a thing that reaches from s0 to s1 and up to z1."""
        return all(s1 <= o.s0 - 0.05 or s0 >= o.s1 + 0.05 or z1 < o.z0 for o in self.openings)


@dataclass
class Placed:
    """A piece in the room: its place, its heading (radians counter-clockwise from x), what it stands on.

    stands: "floor", "top" of another, "wall", or "shell" for what is no object but the room itself.
    """

    piece: Piece
    at: tuple[Number, Number, Number]
    heading: Number = 0.0
    stands: str = "floor"

    def world(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points of the piece in the frame of the room."""
        c, s = np.cos(self.heading), np.sin(self.heading)
        return points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + self.at

    @property
    def box(self) -> np.ndarray:
        """(7,) centre, half sizes, heading."""
        low, high = self.piece.low, self.piece.high
        return np.concatenate([self.world((low + high) / 2), (high - low) / 2, [self.heading]])


@dataclass
class Plan:
    """An empty room: a rectangle around the origin, of which a corner may be cut away.

    blocks: rows of centre x y, half sizes, heading: where nothing may stand.
    """

    kind: str
    size: Range
    height: Number
    outline: np.ndarray
    walls: list[Wall]
    blocks: list[tuple[float, float, float, float, float]]


def draw_plan(rng: Rng, kind: str) -> Plan:
    """A room of a kind: size, shape, height, doors and windows."""
    width, depth = (float(low + (high - low) * rng.beta(1.2, 2.2)) for low, high in SIZES[kind])
    if rng.random() < 0.5:
        width, depth = depth, width
    x, y = width / 2, depth / 2
    outline, blocks = [(-x, -y), (x, -y), (x, y), (-x, y)], []
    if min(width, depth) > 3.5 and rng.random() < 0.35:  # L-shaped: one corner away, whichever
        a, b = rng.uniform(0.25, 0.5) * width, rng.uniform(0.25, 0.5) * depth
        outline = [(-x, -y), (x, -y), (x, y - b), (x - a, y - b), (x - a, y), (-x, y)]
        blocks = [(x - a / 2, y - b / 2, a / 2, b / 2, 0.0)]
        sx, sy = rng.choice([-1, 1], 2)
        outline = [(sx * u, sy * v) for u, v in outline][:: 1 if sx == sy else -1]
        blocks = [(sx * u, sy * v, p, q, 0.0) for u, v, p, q, _ in blocks]
    corners = np.array(outline)
    edges = np.roll(corners, -1, 0) - corners
    walls = [
        Wall(c, float(np.arctan2(e[1], e[0])), float(np.hypot(*e))) for c, e in zip(corners, edges)
    ]
    plan = Plan(kind, (width, depth), float(rng.uniform(2.3, 3.1)), corners, walls, blocks)
    _doors(plan, rng)
    _windows(plan, rng)
    return plan


def _doors(plan: Plan, rng: Rng) -> None:
    for _ in range(1 + (rng.random() < (0.35 if plan.kind in ("living", "kitchen", "office") else 0.1))):
        wide, high = rng.uniform(0.72, 0.98), rng.uniform(1.95, 2.15)
        walls = [w for w in plan.walls if w.length > wide + 0.4]
        wall = walls[rng.integers(len(walls))]
        s = rng.uniform(0.15, wall.length - wide - 0.15)
        if wall.free(s - 0.1, s + wide + 0.1, plan.height):
            wall.openings.append(Opening("door", s, s + wide, 0.0, high))
            x, y = wall.at(s + wide / 2, 0.42)
            plan.blocks.append((x, y, wide / 2 + 0.05, 0.42, wall.heading))


def _windows(plan: Plan, rng: Rng) -> None:
    for wall in plan.walls:
        if wall.length < 1.4 or rng.random() < 0.5:
            continue
        for _ in range(rng.integers(1, 3) if wall.length > 3 else 1):
            wide = min(rng.uniform(0.6, 2.0), wall.length - 0.5)
            s, low = rng.uniform(0.2, wall.length - wide - 0.2), rng.uniform(0.7, 1.1) if rng.random() < 0.85 else 0.12
            high = min(plan.height - 0.15, rng.uniform(1.9, 2.4))
            if wall.free(s - 0.1, s + wide + 0.1, plan.height):
                wall.openings.append(Opening("window", s, s + wide, float(low), high))


def build_shell(plan: Plan, rng: Rng) -> list[Placed]:
    """Floor, walls and ceiling, and the doors, windows and curtains in them."""
    floor, ceiling = Piece("floor"), Piece("ceiling")
    for x0, x1, y0, y1 in _rectangles(plan):
        grid = np.array([[[x0, y0, 0], [x1, y0, 0]], [[x0, y1, 0], [x1, y1, 0]]])
        floor.sheet(grid, 0)
        ceiling.sheet(grid + (0, 0, plan.height), 0)
    if rng.random() < 0.15:
        for at in np.arange(-plan.size[0] / 2 + rng.uniform(0.3, 0.8), plan.size[0] / 2 - 0.2, rng.uniform(0.8, 1.5)):
            ceiling.box((at, at + 0.12), (-plan.size[1] / 2, plan.size[1] / 2), (plan.height - 0.15, plan.height), 1)
    placed = [Placed(floor, (0, 0, 0), stands="shell"), Placed(ceiling, (0, 0, 0), stands="shell")]
    board, accent = rng.random() < 0.5, rng.integers(-1, len(plan.walls))
    for i, wall in enumerate(plan.walls):
        placed.append(_built(_wall_piece(wall, plan.height, rng, board, 2 if i == accent else 0), wall, 0, 0, "shell"))
        for opening in wall.openings:
            middle = (opening.s0 + opening.s1) / 2
            piece = _door(opening, rng) if opening.kind == "door" else _window(opening, rng)
            placed.append(_built(piece, wall, middle, 0, "wall"))
            if opening.kind == "window" and rng.random() < 0.45:
                placed += _curtains(wall, opening, plan.height, rng)
    return placed


def _built(piece: Piece, wall: Wall, s: Number, z: Number, stands: str, inward: Number = 0.0) -> Placed:
    x, y = wall.at(s, inward)
    return Placed(piece, (x, y, z), wall.heading, stands)


def _rectangles(plan: Plan) -> list[tuple[float, float, float, float]]:
    """The floor as one rectangle, or as the two of an L."""
    x, y = plan.size[0] / 2, plan.size[1] / 2
    if len(plan.outline) == 4:
        return [(-x, x, -y, y)]
    cx, cy, hx, hy, _ = plan.blocks[0]
    rest = (cy + hy, y) if cy < 0 else (-y, cy - hy)
    beside = (cx + hx, x) if cx < 0 else (-x, cx - hx)
    return [(-x, x, *rest), (*beside, cy - hy, cy + hy)]


def _wall_piece(wall: Wall, height: Number, rng: Rng, board: bool, material: int) -> Piece:
    piece = Piece("wall")
    quad = lambda a, b, c, d: piece.sheet(np.array([[[a, 0, c], [b, 0, c]], [[a, 0, d], [b, 0, d]]]), material)  # noqa: E731
    at, tall, deep = 0.0, rng.uniform(0.05, 0.12), rng.uniform(0.06, 0.22)
    for o in sorted(wall.openings, key=lambda o: o.s0):
        quad(at, o.s0, 0, height)
        quad(o.s0, o.s1, o.z1, height)
        if board:
            piece.box((at, o.s0 if o.kind == "door" else o.s1), (0, 0.012), (0, tall), 1)
        if o.z0 > 0:
            quad(o.s0, o.s1, 0, o.z0)
        ring = np.array([(o.s0, o.z0), (o.s1, o.z0), (o.s1, o.z1), (o.s0, o.z1), (o.s0, o.z0)])
        piece.sheet(np.stack([np.insert(ring, 1, y, 1) for y in (0, -deep)]), material)
        at = o.s1
    quad(at, wall.length, 0, height)
    if board:
        piece.box((at, wall.length), (0, 0.012), (0, tall), 1)
    return piece


def _frame(piece: Piece, x: Number, z0: Number, z1: Number, y: Range, wide: Number, material: int) -> None:
    for a, b, c, d in ((-x, wide - x, z0, z1), (x - wide, x, z0, z1), (-x, x, z1 - wide, z1)):
        piece.box((a, b), y, (c, d), material)


def _door(opening: Opening, rng: Rng) -> Piece:
    """A leaf, shut or turned into the room, in a frame; some doorways stand empty."""
    piece = Piece("door")
    x, high = (opening.s1 - opening.s0) / 2, opening.z1
    rim = rng.uniform(0.04, 0.1)
    _frame(piece, x + rim / 2, 0, high + rim / 2, (-0.06, rng.uniform(0.01, 0.03)), rim, 1)
    leaf = Piece("door")
    wide = 2 * x - rim
    leaf.box((0, wide), (-0.04, 0.0), (0.01, high - rim / 2), 0)
    for z0, z1 in [[], [(0.25, 0.9), (1.1, high - 0.25)], [(0.2, high - 0.2)]][rng.integers(3)]:
        leaf.box((0.14, wide - 0.14), (-0.05, 0.01), (z0, z1), 0)
    leaf.box((wide - 0.17, wide - 0.05), (0.03, 0.05), (1.0, 1.03), 2)
    leaf.box((wide - 0.08, wide - 0.05), (-0.07, 0.05), (0.97, 1.06), 2)
    angle = 0.0 if rng.random() < 0.55 else rng.uniform(0.3, 1.75)
    if angle and rng.random() < 0.25:
        return piece
    c, s = np.cos(angle), np.sin(angle)
    turned = leaf.triangles @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + (-x + rim / 2, rng.uniform(-0.03, 0.0), 0)
    flip = rng.choice([-1, 1])  # hinges left or right
    for material in range(3):
        piece.mesh(turned[leaf.materials == material] * (flip, 1, 1), material)
    return piece


def _window(opening: Opening, rng: Rng) -> Piece:
    piece = Piece("window", glass={3})
    x, wide, y = (opening.s1 - opening.s0) / 2, rng.uniform(0.04, 0.08), -rng.uniform(0.02, 0.08)
    z0, z1 = opening.z0, opening.z1
    bars = (y - 0.05, y)
    _frame(piece, x, z0, z1, bars, wide, 0)
    piece.box((-x, x), bars, (z0, z0 + wide), 0)
    for at in np.linspace(-x, x, 2 + (0 if x < 0.45 else int(rng.integers(1, 3))))[1:-1]:
        piece.box((at - wide / 2, at + wide / 2), bars, (z0, z1), 0)
    if rng.random() < 0.35:
        z = z0 + (z1 - z0) * rng.uniform(0.35, 0.75)
        piece.box((-x, x), bars, (z - wide / 3, z + wide / 3), 0)
    if rng.random() < 0.7 and z0 > 0.3:
        piece.box((-x - 0.04, x + 0.04), (-0.1, rng.uniform(0.03, 0.16)), (z0 - 0.03, z0), 1)
    pane = np.array([[[-x, 0, z0], [x, 0, z0]], [[-x, 0, z1], [x, 0, z1]]]) + (0, y - 0.025, 0)
    blind = rng.random() < 0.25  # a blind before the pane, from above
    if blind:
        piece.box((-x + 0.02, x - 0.02), (y, y + 0.02), (z0 + (z1 - z0) * rng.uniform(0.1, 0.8), z1 - 0.02), 2)
    piece.sheet(pane, 3)
    return piece


def _curtains(wall: Wall, opening: Opening, height: Number, rng: Rng) -> list[Placed]:
    top = min(height - 0.03, opening.z1 + rng.uniform(0.05, 0.3))
    low = rng.choice([0.03, max(0.05, opening.z0 - 0.12)])
    drawn, out = rng.uniform(0.15, 0.55), []
    for side in (-1, 1):
        wide = (opening.s1 - opening.s0) * drawn + 0.1
        outer = opening.s0 - 0.12 if side < 0 else opening.s1 + 0.12
        middle = outer - side * wide / 2
        if wide / 2 < middle < wall.length - wide / 2 and not (side > 0 and rng.random() < 0.15):
            piece = curtain(rng, wide, top - low, rng.uniform(0.015, 0.04))
            out.append(_built(piece, wall, middle, low, "wall", rng.uniform(0.06, 0.1)))
    return out
