"""Parametric tables, desks, shelves, cabinets and counters: every call of a function draws another one."""

from __future__ import annotations

import numpy as np

from contrast3d.data.room_seats import Rng, legs
from contrast3d.data.room_shapes import Number, Piece, Range, spread


def _top(piece: Piece, rng: Rng, width: Number, depth: Number, height: Number, material: int = 0) -> float:
    """A board whose upper side is at `height`; its thickness."""
    thick = rng.uniform(0.018, 0.055)
    piece.box((-width / 2, width / 2), (-depth / 2, depth / 2), (height - thick, height), material)
    piece.surface((-width / 2, width / 2), (-depth / 2, depth / 2), height)
    return thick


def table(rng: Rng, kind: str = "dining") -> Piece:
    """A table: "dining", "coffee", "side" or "meeting"; rectangular, round or oval."""
    piece = Piece("table")
    width, depth, height = {
        "dining": lambda: (rng.uniform(0.8, 1.8), rng.uniform(0.7, 1.0), rng.uniform(0.69, 0.79)),
        "meeting": lambda: (rng.uniform(1.4, 2.6), rng.uniform(0.8, 1.2), rng.uniform(0.7, 0.78)),
        "coffee": lambda: (rng.uniform(0.6, 1.3), rng.uniform(0.4, 0.75), rng.uniform(0.28, 0.52)),
        "side": lambda: (rng.uniform(0.32, 0.6), rng.uniform(0.32, 0.55), rng.uniform(0.42, 0.7)),
    }[kind]()
    round_top = rng.random() < 0.25
    if round_top:
        depth = width = min(width, 1.3) if rng.random() < 0.6 else depth
        thick = rng.uniform(0.018, 0.05)
        profile = [(0, height - thick), (0.5, height - thick), (0.5, height), (0, height)]
        piece.turned(profile, 0, sides=20, stretch=(width, depth))
        piece.surface((-width * 0.33, width * 0.33), (-depth * 0.33, depth * 0.33), height)
    else:
        thick = _top(piece, rng, width, depth, height)
    share = 0.62 if round_top else rng.uniform(0.8, 1.0)
    style = str(rng.choice(["", "", "", "column", "trestle"])) if kind != "side" else str(rng.choice(["", "column"]))
    legs(piece, rng, width * share, depth * share, height - thick, 1, style)
    if not round_top and style == "" and rng.random() < 0.5:  # an apron under the board
        tall, x, y = rng.uniform(0.04, 0.11), width * share / 2 - 0.02, depth * share / 2 - 0.02
        for side in (-1, 1):
            piece.box((-x, x), (side * y - 0.01, side * y + 0.01), (height - thick - tall, height - thick), 1)
            piece.box((side * x - 0.01, side * x + 0.01), (-y, y), (height - thick - tall, height - thick), 1)
    if kind in ("coffee", "side") and rng.random() < 0.35:
        z = height * rng.uniform(0.2, 0.5)
        piece.box((-width * 0.4, width * 0.4), (-depth * 0.4, depth * 0.4), (z - 0.02, z), 0)
        piece.surface((-width * 0.35, width * 0.35), (-depth * 0.35, depth * 0.35), z, height - z - 0.05)
    return piece.centred()


def desk(rng: Rng) -> Piece:
    """A desk: a board on drawers, panels or legs, open towards the sitter, some with a hutch or a modesty panel."""
    piece = Piece("desk")
    width, depth, height = rng.uniform(1.0, 1.8), rng.uniform(0.5, 0.82), rng.uniform(0.69, 0.79)
    thick = _top(piece, rng, width, depth, height)
    under, inner = height - thick, depth * rng.uniform(0.85, 1.0)
    style = rng.choice(["one", "two", "panels", "legs"], p=[0.4, 0.15, 0.2, 0.25])
    block = rng.uniform(0.33, 0.48)
    sides = {"one": [int(rng.choice([-1, 1]))], "two": [-1, 1]}.get(style, [])
    for side in sides:
        edge = side * (width / 2 - 0.01)
        x = (min(edge, edge - side * block), max(edge, edge - side * block))
        z = (float(rng.choice([0.0, 0.08])), under)
        _fronts(piece, rng, x, (-inner / 2, inner / 2), z, str(rng.choice(["drawers", "doors"])))
    if style == "one":
        x = -sides[0] * (width / 2 - 0.03)
        if rng.random() < 0.5:
            piece.box((x - 0.015, x + 0.015), (-inner / 2, inner / 2), (0, under), 1)
        else:
            for y in (-inner / 2 + 0.03, inner / 2 - 0.03):
                piece.box((x - 0.025, x + 0.025), (y - 0.025, y + 0.025), (0, under), 1)
    if style in ("panels", "legs"):
        legs(piece, rng, width * 0.97, inner, under, 1, "panels" if style == "panels" else "")
        x = (-width * 0.3, width * 0.3) if rng.random() < 0.5 else (width * 0.05, width * 0.42)
        piece.box(x, (-inner * 0.4, inner * 0.45), (under - rng.uniform(0.07, 0.12), under), 1)
        _handle(piece, rng, x, inner * 0.45, (under - 0.07, under), 2, flat=True)
    if rng.random() < (0.3 if style == "legs" else 0.6):
        low = under - rng.uniform(0.25, 0.6)
        piece.box((-width / 2 + 0.03, width / 2 - 0.03), (-inner / 2 + 0.02, -inner / 2 + 0.04), (low, under), 1)
    if rng.random() < 0.2:
        z = (height, height + rng.uniform(0.4, 0.75))
        _rack(piece, rng, (-width / 2, width / 2), (-depth / 2, -depth / 2 + 0.24), z, 2)
    return piece.centred()


def _rack(piece: Piece, rng: Rng, x: Range, y: Range, z: Range, levels: int, open_sides: bool = False) -> None:
    """Boards between uprights; things may stand on each board."""
    thick = rng.uniform(0.014, 0.035)
    for side in x:
        at = np.clip(side, x[0] + thick / 2, x[1] - thick / 2)
        if open_sides:
            for end in (y[0] + thick / 2, y[1] - thick / 2):
                piece.box((at - thick / 2, at + thick / 2), (end - thick / 2, end + thick / 2), z, 1)
        else:
            piece.box((at - thick / 2, at + thick / 2), y, z, 1)
    heights = np.linspace(z[0] + rng.choice([thick, 0.08]), z[1], levels + 1)
    heights[1:-1] += rng.normal(0, 0.02, levels - 1)
    for i, level in enumerate(heights):
        piece.box(x, y, (level - thick, level), 0)
        room = heights[i + 1] - level - thick if i < levels else 0.4
        if room > 0.08:
            piece.surface((x[0] + thick, x[1] - thick), y, level, room - 0.02)


def shelf(rng: Rng) -> Piece:
    """An open shelf: boards and sides, or boards and posts; with or without a back, some divided into columns."""
    piece = Piece("shelf")
    width, depth, height = rng.uniform(0.4, 1.5), rng.uniform(0.22, 0.42), rng.uniform(0.75, 2.2)
    levels = max(2, round(height / rng.uniform(0.27, 0.42)))
    columns = 1 if width < 0.8 else int(rng.integers(1, 4))
    open_sides = rng.random() < 0.3
    for x in spread(width, columns):
        _rack(piece, rng, x, (-depth / 2, depth / 2), (0, height), levels, open_sides)
    if not open_sides and rng.random() < 0.6:
        piece.box((-width / 2, width / 2), (-depth / 2, -depth / 2 + 0.008), (0.02, height), 1)
    return piece.centred()


def _handle(piece: Piece, rng: Rng, x: Range, y: Number, z: Range, material: int, flat: bool) -> None:
    """A knob or a bar on a front that faces +y."""
    middle_x, middle_z = (x[0] + x[1]) / 2, (z[0] + z[1]) / 2
    if rng.random() < 0.4:
        piece.box((middle_x - 0.014, middle_x + 0.014), (y, y + 0.026), (middle_z - 0.014, middle_z + 0.014), material)
        return
    long, thin = rng.uniform(0.05, 0.1), 0.008
    a, b = (long, thin) if flat else (thin, long)
    piece.box((middle_x - a, middle_x + a), (y, y + 0.03), (middle_z - b, middle_z + b), material)


def _fronts(piece: Piece, rng: Rng, x: Range, y: Range, z: Range, style: str, handles: bool = True) -> None:
    """A closed body whose front is cut into drawers or doors by narrow gaps."""
    front = y[1] - 0.02
    piece.box(x, (y[0], front), z, 1)
    width, height = x[1] - x[0], z[1] - z[0]
    columns = max(1, round(width / rng.uniform(0.4, 0.6)))
    rows = max(1, round(height / rng.uniform(0.17, 0.3))) if style == "drawers" else 1
    middle = (x[0] + x[1]) / 2
    proud = rng.uniform(0.004, 0.02)
    for i, (a, b) in enumerate(spread(width, columns, 0.006)):
        for c, d in spread(height, rows, 0.006):
            cell_x, cell_z = (a + middle, b + middle), (c + (z[0] + z[1]) / 2, d + (z[0] + z[1]) / 2)
            piece.box(cell_x, (front, front + proud), cell_z, 0)
            if handles:
                edge = cell_x[1] - 0.08 if i % 2 == 0 else cell_x[0]  # doors open to alternate sides
                at = cell_x if style == "drawers" else (edge, edge + 0.08)
                _handle(piece, rng, at, front + proud, cell_z, 2, flat=style == "drawers")


def cabinet(rng: Rng, kind: str = "dresser") -> Piece:
    """A cabinet: "night", "dresser", "wardrobe", "low", "filing" or "wall"; doors or drawers, some with a niche."""
    piece = Piece("cabinet")
    width, depth, height = {
        "night": lambda: (rng.uniform(0.36, 0.6), rng.uniform(0.33, 0.45), rng.uniform(0.4, 0.65)),
        "dresser": lambda: (rng.uniform(0.7, 1.5), rng.uniform(0.38, 0.52), rng.uniform(0.7, 1.15)),
        "wardrobe": lambda: (rng.uniform(0.8, 2.0), rng.uniform(0.5, 0.65), rng.uniform(1.75, 2.25)),
        "low": lambda: (rng.uniform(1.1, 2.0), rng.uniform(0.35, 0.48), rng.uniform(0.36, 0.58)),
        "filing": lambda: (rng.uniform(0.38, 0.5), rng.uniform(0.45, 0.65), rng.uniform(0.65, 1.35)),
        "wall": lambda: (rng.uniform(0.6, 1.4), rng.uniform(0.28, 0.38), rng.uniform(0.5, 0.75)),
    }[kind]()
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    bottom = 0.0
    if kind != "wall" and rng.random() < 0.6:
        bottom = rng.uniform(0.05, 0.2)
        if rng.random() < 0.5:
            piece.box((x[0] + 0.03, x[1] - 0.03), (y[0], y[1] - 0.05), (0, bottom), 1)
        else:
            legs(piece, rng, width * 0.94, depth * 0.9, bottom, 2, str(rng.choice(["square", "round"])))
    drawers = kind == "filing" or rng.random() < (0.25 if height > 1.2 else 0.6)
    style = "drawers" if drawers else "doors"
    low, handles = bottom, rng.random() < 0.85
    if kind in ("night", "low", "dresser") and rng.random() < 0.4:  # an open niche below or above the fronts
        cut = bottom + (height - bottom) * rng.uniform(0.35, 0.6)
        if rng.random() < 0.5:
            _rack(piece, rng, x, (y[0], y[1] - 0.03), (bottom, cut), 1)
            low = cut
        else:
            _rack(piece, rng, x, (y[0], y[1] - 0.03), (cut, height), 1)
            height = cut
            piece.surfaces = piece.surfaces[:1]
    _fronts(piece, rng, x, y, (low, height - 0.001), style, handles)
    top = float(piece.high[2])
    if kind != "wall" and top < 1.3:
        lip = rng.uniform(0, 0.02)
        piece.box((x[0] - lip, x[1] + lip), (y[0], y[1] + lip), (top, top + 0.02), int(rng.integers(0, 2)))
        piece.surface(x, y, top + 0.02)
    return piece.centred()


def counter(rng: Rng, width: Number, basin: Range | None = None) -> Piece:
    """A kitchen counter: fronts on a plinth under a worktop, with a hole for a basin (width, depth) if asked for.

    The middle of the hole is at `shift` of the piece.
    """
    piece = Piece("counter")
    depth, height = rng.uniform(0.56, 0.64), rng.uniform(0.84, 0.95)
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    thick, plinth = rng.uniform(0.025, 0.05), rng.uniform(0.06, 0.14)
    piece.box(x, (y[0], y[1] - 0.08), (0, plinth), 1)
    body = height - thick if basin is None else height - 0.24
    if basin is None:
        _fronts(piece, rng, x, (y[0], y[1] - 0.01), (plinth, body), str(rng.choice(["doors", "drawers"])))
        piece.box(x, (y[0], y[1] + 0.01), (height - thick, height), 2)
        piece.surface(x, y, height, 0.4)
        return piece.centred()
    _fronts(piece, rng, x, (y[0], y[1] - 0.01), (plinth, body), "doors")
    piece.box(x, (y[1] - 0.03, y[1] - 0.015), (body, height - thick), 0)
    half_x = basin[0] / 2
    piece.ring(x, y, (height - thick, height), basin, 2)
    piece.surface((x[0], -half_x - 0.03), y, height, 0.4)
    piece.surface((half_x + 0.03, x[1]), y, height, 0.4)
    return piece.centred()
