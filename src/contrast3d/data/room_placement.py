"""Pieces find their places: against walls, around tables, on top of each other; no two on the same floor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from contrast3d.data.room_plan import Placed, Plan, Wall
from contrast3d.data.room_seats import Rng
from contrast3d.data.room_shapes import Number, Piece, Surface

_GAP = 0.012  # metres between two footprints
_TRIES = 14


class Furnishing:
    """A room that is being furnished. Every method returns what it placed, or None where there was no room."""

    def __init__(self, plan: Plan, rng: Rng):
        self.plan, self.rng = plan, rng
        self.placed: list[Placed] = []
        self._blocks = np.array(plan.blocks, float).reshape(-1, 5)

    def put(self, piece: Piece, x: Number, y: Number, heading: Number) -> Placed | None:
        """Stand a piece on the floor, exactly there."""
        low, high = piece.low, piece.high
        half = (high - low)[:2] / 2
        rectangle = np.array([x, y, *half, heading])
        if not self._clear(rectangle):
            return None
        self._blocks = np.concatenate([self._blocks, rectangle[None]])
        self.placed.append(Placed(piece, (float(x), float(y), 0.0), float(heading)))
        return self.placed[-1]

    def against_wall(self, piece: Piece, wall: Wall | None = None, corner: bool = False) -> Placed | None:
        """Stand a piece with its back to a wall, in a corner if asked for; nothing high before an opening."""
        size = piece.high - piece.low
        lengths = np.array([max(0.0, w.length - size[0]) for w in self.plan.walls])
        if lengths.sum() == 0:
            return None
        for _ in range(_TRIES):
            where = wall or self.plan.walls[_weighted(self.rng, lengths)]
            room = where.length - size[0] - 0.04
            if room < 0:
                continue
            share = float(self.rng.random() < 0.5) if corner or self.rng.random() < 0.3 else self.rng.random()
            s = 0.02 + size[0] / 2 + room * share
            if not where.free(s - size[0] / 2, s + size[0] / 2, piece.high[2]):
                continue
            inward = size[1] / 2 + (0.015 + 0.05 * self.rng.random() ** 2)
            tilt = self.rng.normal(0, 0.01) if inward > size[1] / 2 + 0.03 else 0.0
            found = self.put(piece, *where.at(s, inward), where.heading + tilt)
            if found:
                return found
        return None

    def anywhere(self, piece: Piece, middle: Number = 0.0, straight: bool = True) -> Placed | None:
        """Stand a piece somewhere: the larger `middle`, up to 1, the nearer to the middle of the room."""
        half = np.array(self.plan.size) / 2
        for _ in range(_TRIES):
            x, y = self.rng.uniform(-1, 1, 2) * half * (1 - 0.8 * middle)
            heading = self.rng.integers(4) * np.pi / 2 + self.rng.normal(0, 0.04)
            found = self.put(piece, x, y, heading if straight else self.rng.uniform(-np.pi, np.pi))
            if found:
                return found
        return None

    def beside(self, other: Placed, piece: Piece, x: Number, y: Number, turn: Number = 0.0) -> Placed | None:
        """Stand a piece at (x, y) in the frame of another, turned by `turn` against it."""
        at = other.world(np.array([x, y, 0.0]))
        return self.put(piece, at[0], at[1], other.heading + turn)

    def at_side(self, other: Placed, piece: Piece, side: int) -> Placed | None:
        """Stand a piece to the left (-1) or right (1) of another, their backs in line."""
        own, its = piece.high - piece.low, other.piece.high - other.piece.low
        x = side * (its[0] / 2 + own[0] / 2 + self.rng.uniform(0.02, 0.12))
        return self.beside(other, piece, x, (own[1] - its[1]) / 2 + 0.01)

    def in_front(self, other: Placed, piece: Piece, gap: Number, x: Number = 0.0, facing: bool = True) -> Placed | None:
        """Stand a piece before the front of another, turned to it or like it."""
        own, its = piece.high - piece.low, other.piece.high - other.piece.low
        turn = (np.pi if facing else 0) + self.rng.normal(0, 0.12 if facing else 0.02)
        half = own[1] / 2 + (own[0] / 2 * abs(np.sin(turn)) if facing else 0)
        return self.beside(other, piece, x, its[1] / 2 + half + gap, turn)

    def around(self, table: Placed, pieces: list[Piece]) -> None:
        """Chairs at the four sides of a table, turned to it, some pulled out or turned away."""
        size = table.piece.high - table.piece.low
        seats = [(side, x) for side in (0, 1) for x in ([0.0] if size[0] < 1.15 else [-size[0] / 4, size[0] / 4])]
        seats += [(side, 0.0) for side in (2, 3) if size[1] > 0.6]
        order = self.rng.permutation(len(seats))
        for piece, i in zip(pieces, order):
            side, x = seats[i]
            turn = self.rng.normal(0, 0.12)
            own = piece.high - piece.low
            reach = own[1] / 2 + abs(np.sin(turn)) * own[0] / 2 + 0.02 + abs(self.rng.normal(0, 0.12))
            out = size[1] / 2 + reach if side < 2 else size[0] / 2 + reach
            angle = (0, np.pi, -np.pi / 2, np.pi / 2)[side]
            c, s = np.cos(angle), np.sin(angle)  # from where the chair looks along +y at the table, at (x, -out)
            self.beside(table, piece, c * x + s * out, s * x - c * out, angle + turn)

    def fix(self, piece: Piece, other: Placed, at: Sequence[Number], turn: Number = 0.0) -> Placed:
        """Put a piece at a place in the frame of another, whatever is there."""
        placed = Placed(piece, tuple(other.world(np.asarray(at, float))), other.heading + turn, "top")
        self.placed.append(placed)
        return placed

    def on_top(
        self, other: Placed, pieces: list[Piece], surface: Surface | None = None, straight: bool = False
    ) -> None:
        """Put small pieces on the surfaces of another, apart from each other; what does not fit is left away."""
        surfaces = [surface] if surface else other.piece.surfaces
        taken: list[tuple[int, np.ndarray, float]] = []
        for piece in pieces:
            low, high = piece.low, piece.high
            reach = float(np.hypot(*(high - low)[:2])) / 2
            if not surfaces:
                return
            i = int(self.rng.integers(len(surfaces)))
            x, y = surfaces[i].x, surfaces[i].y
            margin = (high - low)[:2] / 2 if straight else np.array([reach, reach])
            room = np.array([x[1] - x[0], y[1] - y[0]]) / 2 - margin - 0.005
            if (room < 0).any() or high[2] - low[2] > surfaces[i].room:
                continue
            for _ in range(4):
                at = np.array([sum(x) / 2, sum(y) / 2]) + self.rng.uniform(-1, 1, 2) * room
                if all(j != i or np.hypot(*(at - p)) > reach + r for j, p, r in taken):
                    taken.append((i, at, reach))
                    turn = self.rng.normal(0, 0.1) if straight else self.rng.uniform(-np.pi, np.pi)
                    self.fix(piece, other, [*at, surfaces[i].z], turn)
                    break

    def hang(self, piece: Piece, low: Number, wall: Wall | None = None, s: Number | None = None) -> Placed | None:
        """Hang a piece on a wall, its lower edge at `low`; not over an opening, nor where something stands or hangs."""
        size = piece.high - piece.low
        for _ in range(_TRIES):
            where = wall or self.plan.walls[self.rng.integers(len(self.plan.walls))]
            room = where.length - size[0] - 0.1
            if room < 0 or low + size[2] > self.plan.height - 0.05:
                continue
            at = size[0] / 2 + 0.05 + room * self.rng.random() if s is None else s
            if not where.free(at - size[0] / 2, at + size[0] / 2, np.inf):
                continue
            x, y = where.at(at, size[1] / 2 + 0.004)
            placed = Placed(piece, (x, y, low), where.heading, "wall")
            if not any(_boxes_touch(placed.box, p.box) for p in self.placed if np.hypot(p.at[0] - x, p.at[1] - y) < 3):
                self.placed.append(placed)
                return placed
        return None

    def _clear(self, rectangle: np.ndarray) -> bool:
        x, y, half_x, half_y, heading = rectangle
        c, s = abs(np.cos(heading)), abs(np.sin(heading))
        reach = c * half_x + s * half_y, s * half_x + c * half_y
        if abs(x) + reach[0] > self.plan.size[0] / 2 - 0.005 or abs(y) + reach[1] > self.plan.size[1] / 2 - 0.005:
            return False
        return not rectangles_touch(rectangle, self._blocks, _GAP).any()


def rectangles_touch(one: np.ndarray, others: np.ndarray, gap: Number = 0.0) -> np.ndarray:
    """(N,) whether a rectangle (centre x y, half sizes, heading) comes nearer than `gap` to each of others (N, 5).

    No axis of the two separates them (the separating axis theorem).
    """
    dx, dy = others[:, 0] - one[0], others[:, 1] - one[1]
    c, s = np.cos(one[4]), np.sin(one[4])
    co, so = np.cos(others[:, 4]), np.sin(others[:, 4])
    cos, sin = np.abs(c * co + s * so), np.abs(s * co - c * so)
    apart = np.abs(dx * c + dy * s) > one[2] + others[:, 2] * cos + others[:, 3] * sin + gap
    apart |= np.abs(dy * c - dx * s) > one[3] + others[:, 2] * sin + others[:, 3] * cos + gap
    apart |= np.abs(dx * co + dy * so) > others[:, 2] + one[2] * cos + one[3] * sin + gap
    apart |= np.abs(dy * co - dx * so) > others[:, 3] + one[2] * sin + one[3] * cos + gap
    return ~apart


def _boxes_touch(one: np.ndarray, other: np.ndarray) -> bool:
    if abs(one[2] - other[2]) > one[5] + other[5] + 0.02:
        return False
    pick = [0, 1, 3, 4, 6]
    return bool(rectangles_touch(one[pick], other[None, pick], 0.02)[0])


def _weighted(rng: Rng, weights: np.ndarray) -> int:
    row = np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), side="right")
    return int(row.clip(max=len(weights) - 1))
