"""What stands in a living room, a bedroom, an office, a bathroom, a kitchen: the mixes of furniture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from contrast3d.data import room_clutter as clutter
from contrast3d.data.room_fixtures import basin, bathtub, curtain, lamp, picture, sink, toilet, vanity
from contrast3d.data.room_placement import Furnishing
from contrast3d.data.room_plan import Placed, Plan
from contrast3d.data.room_seats import Rng, bed, chair, sofa
from contrast3d.data.room_shapes import Number, Piece
from contrast3d.data.room_storage import cabinet, counter, desk, shelf, table

KINDS = ("living", "bedroom", "office", "bathroom", "kitchen")
SHARES = (0.24, 0.22, 0.2, 0.17, 0.17)
Swap = Callable[[Piece], Piece]


def furnish(plan: Plan, rng: Rng, swap: Swap = lambda piece: piece) -> list[Placed]:
    """The furniture of a room. swap: may replace a piece by another of its kind, a mesh of the user's say."""
    f = _Room(plan, rng, swap)
    mixes = {"living": _living, "bedroom": _bedroom, "office": _office, "bathroom": _bathroom, "kitchen": _kitchen}
    mixes[plan.kind](f)
    for _ in range(rng.integers(1, 6)):  # whatever else there is room for, expected here or not
        f.wall(_ANY[rng.integers(len(_ANY))](rng))
    _anywhere(f)
    return f.placed


class _Room(Furnishing):
    """`Furnishing` with the shorthands of this file: pieces pass through `swap`, things lie on what is placed."""

    def __init__(self, plan: Plan, rng: Rng, swap: Swap):
        super().__init__(plan, rng)
        self.swap = swap

    def chance(self, share: Number) -> bool:
        return self.rng.random() < share

    def wall(self, piece: Piece, **where) -> Placed | None:
        return self.against_wall(self.swap(piece), **where)

    def things(self, other: Placed | None, kinds: tuple[str, ...], most: int) -> None:
        """Up to `most` small things on the surfaces of another."""
        if other is not None and other.piece.surfaces:
            count = self.rng.integers(0, most + 1)
            self.on_top(other, [clutter.thing(self.rng, kinds[i]) for i in self.rng.integers(0, len(kinds), count)])

    def books(self, other: Placed | None) -> None:
        """Rows of books and things on the boards of a shelf."""
        if other is None:
            return
        full = self.rng.uniform(0.1, 1.0)
        for surface in other.piece.surfaces:
            row = clutter.row_of_books(self.rng, surface) if self.rng.random() < full * 0.8 else None
            if row is not None:
                self.fix(row, other, [0, 0, surface.z])
            elif self.rng.random() < full:
                kinds = clutter.TABLETOP
                picks = [clutter.thing(self.rng, kinds[i]) for i in self.rng.integers(0, len(kinds), 2)]
                self.on_top(other, picks, surface)


def _seats(f: _Room, other: Placed | None, most: int, office: bool = False) -> None:
    """Up to `most` chairs of one design, mostly, around a table."""
    if other is None:
        return
    first = f.swap(chair(f.rng, office))
    others = [f.swap(chair(f.rng, office)) if f.chance(0.15) else first for _ in range(f.rng.integers(1, most))]
    f.around(other, [first, *others])


def _living(f: _Room) -> None:
    rng = f.rng
    main = f.wall(sofa(rng))
    if main:
        if f.chance(0.8):
            low = f.in_front(main, table(rng, "coffee"), rng.uniform(0.25, 0.5), facing=False)
            f.things(low, clutter.TABLETOP, 3)
            if low and f.chance(0.5):
                f.in_front(low, f.swap(sofa(rng, 1)), rng.uniform(0.35, 0.7))
        for side in (-1, 1):
            if f.chance(0.4):
                small = f.at_side(main, table(rng, "side") if f.chance(0.6) else cabinet(rng, "night"), side)
                f.things(small, ("cup", "vase", "stack"), 2)
                if small and f.chance(0.5):
                    f.on_top(small, [lamp(rng, "table")])
    if f.chance(0.5):
        f.wall(sofa(rng, int(rng.integers(1, 3))))
    board = f.wall(cabinet(rng, "low"))
    if board and f.chance(0.7):
        f.on_top(board, [clutter.thing(rng, "screen")], straight=True)
    f.things(board, clutter.TABLETOP, 3)
    if max(f.plan.size) > 3.6 and f.chance(0.7):
        eating = f.anywhere(f.swap(table(rng)), 0.4)
        _seats(f, eating, 6)
        f.things(eating, clutter.TABLETOP, 4)
    for _ in range(rng.integers(0, 3)):
        f.books(f.wall(shelf(rng)))
    if f.chance(0.4):
        f.things(f.wall(cabinet(rng)), clutter.TABLETOP, 3)
    if f.chance(0.25):
        _workplace(f)
    if f.chance(0.7):
        f.wall(lamp(rng), corner=True)


def _bedroom(f: _Room) -> None:
    rng = f.rng
    main = f.wall(bed(rng))
    for side in (-1, 1):
        if main and f.chance(0.65):
            small = f.at_side(main, f.swap(cabinet(rng, "night")) if f.chance(0.7) else table(rng, "side"), side)
            if small and f.chance(0.55):
                f.on_top(small, [lamp(rng, "table")])
            f.things(small, ("cup", "stack", "bottle", "books"), 2)
    if f.chance(0.2):
        f.wall(bed(rng))
    if f.chance(0.85):
        f.wall(cabinet(rng, "wardrobe"))
    if f.chance(0.6):
        f.things(f.wall(cabinet(rng)), clutter.TABLETOP, 4)
    if f.chance(0.4):
        _workplace(f)
    if f.chance(0.4):
        f.books(f.wall(shelf(rng)))
    if f.chance(0.4):
        f.wall(chair(rng) if f.chance(0.6) else sofa(rng, 1), corner=True)
    if f.chance(0.3):
        f.wall(lamp(rng), corner=True)


def _workplace(f: _Room, at: Placed | None = None) -> None:
    """A desk at a wall, or back to back with another, its chair and what lies on it."""
    rng = f.rng
    piece = f.swap(desk(rng))
    if at is not None:
        size = piece.high - piece.low
        placed = f.beside(at, piece, 0.0, (at.piece.low - at.piece.high)[1] / 2 - size[1] / 2 - 0.03, np.pi)
    else:
        placed = f.wall(piece) if f.chance(0.85) else f.anywhere(piece)
    if placed is None:
        return
    if f.chance(0.9):
        f.in_front(placed, f.swap(chair(rng, f.chance(0.65))), abs(rng.normal(0.03, 0.12)) + 0.015, rng.normal(0, 0.1))
    if placed.piece.surfaces:
        kinds = [kind for kind, share in (("screen", 0.7), ("keyboard", 0.6)) if f.chance(share)]
        f.on_top(placed, [clutter.thing(rng, kind) for kind in kinds], placed.piece.surfaces[0], straight=True)
    f.things(placed, clutter.DESKTOP, 5)
    if f.chance(0.25):
        f.on_top(placed, [lamp(rng, "table")], *placed.piece.surfaces[:1])


def _office(f: _Room) -> None:
    rng = f.rng
    area = f.plan.size[0] * f.plan.size[1]
    if area > 20 and f.chance(0.5):
        meeting = f.anywhere(f.swap(table(rng, "meeting")), 0.6)
        _seats(f, meeting, 6, office=f.chance(0.5))
        f.things(meeting, ("laptop", "cup", "stack", "bottle"), 5)
    for _ in range(max(1, min(6, int(area / rng.uniform(4, 8))))):
        _workplace(f)
    if area > 16 and f.chance(0.4):
        island = f.anywhere(f.swap(desk(rng)), 0.5)
        if island:
            f.in_front(island, f.swap(chair(rng, True)), 0.08)
            f.things(island, clutter.DESKTOP, 4)
            _workplace(f, island)
    for _ in range(rng.integers(0, 4)):
        f.books(f.wall(shelf(rng)))
    for _ in range(rng.integers(0, 3)):
        f.things(f.wall(cabinet(rng, "filing" if f.chance(0.6) else "wardrobe")), clutter.DESKTOP, 3)
    if f.chance(0.25):
        f.wall(sofa(rng))
    if f.chance(0.5):
        f.hang(picture(rng, board=True), rng.uniform(0.8, 1.1))


def _bathroom(f: _Room) -> None:
    rng = f.rng
    if f.chance(0.8):
        tub = f.wall(bathtub(rng), corner=True)
        if tub and f.chance(0.45):
            size = tub.piece.high - tub.piece.low
            length = size[0] * rng.uniform(0.3, 0.9)
            piece = curtain(rng, length, rng.uniform(1.4, 1.7), 0.02)
            f.fix(piece, tub, [(length - size[0]) / 2 * 0.95, size[1] / 2 - 0.05 - piece.high[1], 0.25]).stands = "wall"
    f.wall(toilet(rng))
    for _ in range(1 + (rng.random() < 0.2)):
        if f.chance(0.5):
            body, bowl = vanity(rng)
            placed = f.wall(body)
            if placed:
                f.fix(bowl, placed, [*body.shift[:2], body.high[2] - bowl.high[2] + _tap_height(bowl) + 0.003])
        else:
            placed = f.wall(sink(rng))
        if placed:
            f.things(placed, clutter.BATH, 2)
            wall = min(f.plan.walls, key=lambda w: abs(_inward(w, placed)))
            f.hang(picture(rng), 1.2, wall, float(np.dot(placed.at[:2] - wall.start, wall.at(1) - wall.start)))
    for _ in range(rng.integers(0, 3)):
        f.things(f.wall(cabinet(rng, str(rng.choice(["night", "filing", "dresser"])))), clutter.BATH, 3)
    if f.chance(0.35):
        f.books(f.wall(shelf(rng)))
    if f.chance(0.25):
        f.wall(chair(rng))


def _tap_height(bowl: Piece) -> float:
    """How far the tap rises over the rim of a basin."""
    return float(bowl.high[2] - bowl.triangles[bowl.materials == 0][..., 2].max())


def _inward(wall, placed: Placed) -> float:
    return float(np.cross(np.append(wall.at(1) - wall.start, 0), np.append(placed.at[:2] - wall.start, 0))[2])


def _kitchen(f: _Room) -> None:
    rng = f.rng
    for part in range(1 + (rng.random() < 0.5)):
        width = rng.uniform(1.0, 3.2)
        hole = None
        if part == 0 and f.chance(0.9):
            hole = rng.uniform(0.4, min(0.8, width - 0.3)), rng.uniform(0.34, 0.42)
        body = counter(rng, width, hole)
        placed = f.wall(body, corner=True)
        if placed is None:
            continue
        if hole:
            bowl = basin(rng, hole[0] * 0.98, hole[1] * 0.98)
            rim = bowl.high[2] - _tap_height(bowl)
            f.fix(bowl, placed, [body.shift[0], body.shift[1], body.surfaces[0].z - rim + 0.004])
        f.things(placed, clutter.KITCHEN, 6)
        wall = min(f.plan.walls, key=lambda w: abs(_inward(w, placed)))
        middle = float(np.dot(placed.at[:2] - wall.start, wall.at(1) - wall.start))
        for offset in (-width / 3, width / 3):
            if f.chance(0.6):
                f.hang(cabinet(rng, "wall"), rng.uniform(1.35, 1.5), wall, middle + offset)
    for _ in range(rng.integers(0, 3)):
        f.wall(cabinet(rng, str(rng.choice(["wardrobe", "filing", "dresser"]))), corner=True)
    if f.chance(0.85):
        eating = f.anywhere(f.swap(table(rng)), 0.3) if f.chance(0.7) else f.wall(table(rng))
        _seats(f, eating, 5)
        f.things(eating, clutter.TABLETOP, 5)
    if f.chance(0.45):
        f.books(f.wall(shelf(rng)))


_ANY = (
    desk, shelf, shelf, chair, chair, sofa, cabinet, sink, lambda rng: table(rng), lambda rng: table(rng, "side"),
    lambda rng: table(rng, "coffee"), lambda rng: cabinet(rng, "filing"), lambda rng: lamp(rng),
)


def _anywhere(f: _Room) -> None:
    """What any room may hold: things on the floor, pictures, pendants, radiators."""
    rng, plan = f.rng, f.plan
    for i in rng.integers(0, len(clutter.GROUND), rng.integers(0, 6)):
        piece = clutter.thing(rng, clutter.GROUND[i])
        _ = f.wall(piece) if f.chance(0.6) else f.anywhere(piece, straight=False)
    for _ in range(rng.integers(0, 4)):
        f.hang(picture(rng), rng.uniform(1.1, 1.6))
    for _ in range(rng.integers(0, 3)):
        piece = lamp(rng, "pendant")
        tables = [p for p in f.placed if p.piece.kind == "table" and p.stands == "floor"]
        over = tables[0].at[:2] if tables and f.chance(0.5) else rng.uniform(-0.3, 0.3, 2) * plan.size
        inside = not any(abs(over[0] - b[0]) < b[2] and abs(over[1] - b[1]) < b[3] for b in plan.blocks[:1])
        if inside:
            f.placed.append(Placed(piece, (float(over[0]), float(over[1]), plan.height - piece.high[2]), 0.0, "wall"))
    for wall in plan.walls:
        for opening in wall.openings:
            if opening.kind == "window" and opening.z0 > 0.6 and f.chance(0.4):
                piece = clutter.radiator(rng, min(1.4, opening.s1 - opening.s0))
                f.put(piece, *wall.at((opening.s0 + opening.s1) / 2, piece.high[1] + 0.02), wall.heading)
