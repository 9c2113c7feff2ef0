"""Parametric chairs, sofas and beds: every call of a function draws another one."""

from __future__ import annotations

import numpy as np

from contrast3d.data.room_shapes import Number, Piece, spread

Rng = np.random.Generator


def legs(piece: Piece, rng: Rng, width: Number, depth: Number, height: Number, material: int, style: str = "") -> None:
    """Something that carries a rectangle at `height`: four legs of some kind, panels, runners, a column, a trestle."""
    style = style or rng.choice(["square", "round", "splayed", "panels", "runners"], p=[0.35, 0.25, 0.2, 0.1, 0.1])
    thick = rng.uniform(0.025, 0.07) if height > 0.3 else rng.uniform(0.025, 0.05)
    x, y = width / 2 - thick / 2, depth / 2 - thick / 2
    corners = [(sx * x, sy * y) for sx in (-1, 1) for sy in (-1, 1)]
    if style == "square":
        for cx, cy in corners:
            piece.box((cx - thick / 2, cx + thick / 2), (cy - thick / 2, cy + thick / 2), (0, height), material)
    elif style == "round":
        foot = thick * rng.uniform(0.25, 0.5)
        for corner in corners:
            piece.turned([(foot, 0), (thick / 2, height)], material, corner, sides=7)
    elif style == "splayed":
        inset = rng.uniform(0.6, 0.85)
        for cx, cy in corners:
            piece.beam((cx, cy, 0), (cx * inset, cy * inset, height), thick * 0.6, material, thick)
    elif style == "panels":
        for side in (-1, 1):
            piece.box((side * x - thick / 4, side * x + thick / 4), (-y, y), (0, height), material)
    elif style == "runners":
        for side in (-1, 1):
            wide = (side * x - thick / 3, side * x + thick / 3)
            piece.box(wide, (-y, y), (0, thick * 0.6), material)
            for end in (-y, y):
                piece.box(wide, (end - thick / 3, end + thick / 3), (0, height), material)
    elif style == "column":
        foot = min(width, depth) * rng.uniform(0.25, 0.42)
        radius = rng.uniform(0.03, 0.09)
        piece.turned([(0, 0.001), (foot, 0.001), (foot, 0.02), (radius, 0.06), (radius, height)], material, sides=12)
    elif style == "trestle":
        for side in (-1, 1):
            for end in (-1, 1):
                piece.beam((side * x * 0.85, end * y * 0.9, 0), (side * x * 0.85, 0, height), thick, material)
        piece.beam((-x * 0.85, 0, height * 0.4), (x * 0.85, 0, height * 0.4), thick * 0.8, material)


def star(piece: Piece, rng: Rng, height: Number, material: int) -> None:
    """The base of an office chair: five arms on castors and a column."""
    reach, turn = rng.uniform(0.25, 0.32), rng.uniform(0, 1.2)
    for angle in turn + np.arange(5) * 2 * np.pi / 5:
        end = np.array([np.cos(angle), np.sin(angle)]) * reach
        piece.beam((0, 0, 0.09), (*end, 0.06), 0.045, material, 0.03)
        piece.turned([(0.022, 0.0), (0.025, 0.05)], material, tuple(end), sides=6)
    piece.turned([(0.03, 0.07), (0.03, height * 0.6), (0.02, height)], material, sides=8)


def chair(rng: Rng, office: bool = False) -> Piece:
    """A chair: seat, back of some style, legs or a star base, often arms."""
    piece = Piece("chair")
    width, depth, height = rng.uniform(0.38, 0.52), rng.uniform(0.38, 0.5), rng.uniform(0.41, 0.5)
    thick = rng.uniform(0.02, 0.1)
    if office:
        star(piece, rng, height - thick, 1)
    else:
        legs(piece, rng, width, depth, height - thick, 1)
    if office or rng.random() < 0.4:
        piece.cushion((-width / 2, width / 2), (-depth / 2, depth / 2), (height - max(thick, 0.05), height), 0, 0.3)
    else:
        piece.box((-width / 2, width / 2), (-depth / 2, depth / 2), (height - thick, height), 0)
    top = height + rng.uniform(0.3, 0.62)
    _chair_back(piece, rng, width, depth, height, top, office)
    if rng.random() < (0.6 if office else 0.25):
        rest = height + rng.uniform(0.17, 0.25)
        for side in (-1, 1):
            x = side * (width / 2 + 0.02)
            piece.box((x - 0.025, x + 0.025), (-depth / 2, depth * rng.uniform(0.1, 0.4)), (rest - 0.03, rest), 1)
            piece.beam((x, depth * 0.05, height - 0.05), (x, depth * 0.05, rest), 0.03, 1)
    return piece.centred()


def _chair_back(
    piece: Piece, rng: Rng, width: Number, depth: Number, height: Number, top: Number, office: bool
) -> None:
    lean, y = rng.uniform(0.0, 0.14), -depth / 2 + 0.02
    style = rng.choice(["panel", "cushion"] if office else ["panel", "slats", "spindles", "cushion", "frame"])
    start = height + (rng.uniform(0.02, 0.15) if style in ("panel", "cushion", "frame") else 0)
    if style in ("panel", "cushion"):
        thick = rng.uniform(0.02, 0.035) if style == "panel" else rng.uniform(0.05, 0.1)
        bend = rng.uniform(0, 0.06) if style == "panel" else 0
        across = np.linspace(-1, 1, 5)
        row = np.stack([across * width / 2, bend * across**2, 0 * across], 1)
        for offset in (0, -thick):
            piece.sheet(np.stack([row + (0, y + offset, start), row + (0, y - lean + offset, top)]), 0)
        if style == "cushion":
            deep = (y - lean * 0.6 - thick, y - lean * 0.3 + 0.02)
            piece.cushion((-width / 2, width / 2), deep, (start, top), 0, 0.3)
        piece.beam((0, y - 0.01, height - 0.04), (0, y - lean / 2 - 0.01, (start + top) / 2), 0.05, 1)
        return
    for side in (-1, 1):
        x = side * (width / 2 - 0.02)
        piece.beam((x, y, height - 0.02), (x, y - lean, top), 0.035, 1)
    if style == "spindles":
        for x in np.linspace(-width / 2 + 0.07, width / 2 - 0.07, rng.integers(3, 8)):
            piece.beam((x, y, height), (x, y - lean, top - 0.04), 0.016, 1)
        rails = [top - 0.03]
    else:
        rails = np.linspace(top - 0.04, height + 0.12, rng.integers(2, 5) if style == "slats" else 2)
    tall = rng.uniform(0.03, 0.08)
    for z in rails:
        at = y - lean * (z - height) / (top - height)
        piece.box((-width / 2, width / 2), (at - 0.014, at + 0.014), (z - tall / 2, z + tall / 2), 1)


def sofa(rng: Rng, seats: int = 0) -> Piece:
    """A sofa of one to three seats: a box, a back, mostly arms, cushions; some with a longer corner seat."""
    piece = Piece("sofa")
    seats = seats or int(rng.integers(2, 4))
    seat, depth, height = rng.uniform(0.52, 0.72), rng.uniform(0.75, 0.98), rng.uniform(0.36, 0.47)
    width, foot = seats * seat, rng.uniform(0.0, 0.16)
    back, arm = rng.uniform(0.14, 0.26), rng.uniform(0.08, 0.24) * (rng.random() < 0.85)
    top, rest = height + rng.uniform(0.28, 0.5), height + rng.uniform(0.1, 0.25)
    soft = rng.uniform(0.05, 0.4)
    total = width + 2 * arm
    if foot > 0.04:
        legs(piece, rng, total * 0.95, depth * 0.9, foot, 2, "square")
    bottom = height - rng.uniform(0.1, 0.18)
    piece.box((-total / 2, total / 2), (-depth / 2, depth / 2), (foot if foot > 0.04 else 0, bottom), 0)
    piece.cushion((-total / 2, total / 2), (-depth / 2, -depth / 2 + back), (bottom - 0.05, top), 0, soft)
    if arm:
        for side in (-1, 1):
            edges = sorted((side * total / 2, side * (total / 2 - arm)))
            piece.cushion(tuple(edges), (-depth / 2, depth / 2), (bottom - 0.05, rest), 0, soft)
    longer = rng.random() < 0.3 and seats > 1
    for i, x in enumerate(spread(width, seats, 0.01)):
        front = depth / 2 + (rng.uniform(0.4, 0.7) if longer and i == 0 else 0)
        if front > depth / 2:
            piece.box(x, (depth / 2 - 0.02, front), (foot, bottom), 0)
        piece.cushion(x, (-depth / 2 + back * 0.9, front), (bottom - 0.01, height), 1, 0.2)
        if rng.random() < 0.7:
            piece.cushion(x, (-depth / 2 + back * 0.7, -depth / 2 + back + 0.12), (height - 0.02, top - 0.03), 1, 0.35)
    for _ in range(rng.integers(0, 4)):
        _pillow(piece, rng, rng.uniform(-width / 2 + 0.2, width / 2 - 0.2), -depth / 2 + back + 0.2, height)
    return piece.centred()


def _pillow(piece: Piece, rng: Rng, x: Number, y: Number, z: Number, flat: bool = False) -> None:
    a, b, c = rng.uniform(0.15, 0.25), rng.uniform(0.05, 0.08), rng.uniform(0.3, 0.42)
    if flat:
        b, c = rng.uniform(0.15, 0.22), rng.uniform(0.09, 0.16)
    piece.cushion((x - a, x + a), (y - b, y + b), (z - 0.02, z + c), int(rng.integers(2, 5)), 0.6)


def bed(rng: Rng) -> Piece:
    """A single or double bed: frame or box, headboard of some style, mattress, pillows, a blanket that hangs over."""
    piece = Piece("bed")
    double = rng.random() < 0.55
    width, length = (rng.uniform(1.35, 1.9) if double else rng.uniform(0.8, 1.15)), rng.uniform(1.85, 2.1)
    under, thick = rng.uniform(0.15, 0.35), rng.uniform(0.12, 0.28)
    x, y = (-width / 2, width / 2), (-length / 2, length / 2)
    if rng.random() < 0.5:
        legs(piece, rng, width, length, under, 1, str(rng.choice(["square", "round"])))
        piece.box(x, y, (under - 0.1, under), 1)
    else:
        piece.box(x, y, (0, under), int(rng.integers(0, 2)))
    top = under + thick
    piece.cushion((x[0] + 0.02, x[1] - 0.02), (y[0] + 0.02, y[1] - 0.02), (under - 0.01, top), 0, 0.1)
    _boards(piece, rng, width, length, top)
    for at in ([-width / 4, width / 4] if double else [0]):
        if rng.random() < 0.85:
            _pillow(piece, rng, at + rng.normal(0, 0.04), y[0] + 0.28, top, flat=True)
    if rng.random() < 0.8:  # from the foot up to somewhere, down over the sides
        start, drop, lift = y[0] + rng.uniform(0.45, 1.2), rng.uniform(0.05, thick + 0.1), rng.uniform(0.015, 0.06)
        across = np.array([x[0] - 0.015, x[0] - 0.01, x[0] + 0.1, 0, x[1] - 0.1, x[1] + 0.01, x[1] + 0.015])
        level = top + lift * np.array([0, 0.5, 1, 1, 1, 0.5, 0]) - np.array([drop, 0, 0, 0, 0, 0, drop])
        along = np.linspace(start, y[1] + 0.01, 7)
        grid = np.stack([np.broadcast_to(across, (7, 7)), along[:, None] + 0 * across, level + 0 * along[:, None]], -1)
        grid[..., 2] += rng.normal(0, 0.008, (7, 7)) * np.array([0, 0, 1, 1, 1, 0, 0])
        piece.sheet(grid, int(rng.integers(2, 5)))
    return piece.centred()


def _boards(piece: Piece, rng: Rng, width: Number, length: Number, top: Number) -> None:
    style, high = rng.choice(["none", "panel", "slats", "cushion"]), top + rng.uniform(0.15, 0.65)
    y = -length / 2
    if style == "panel":
        piece.box((-width / 2 - 0.02, width / 2 + 0.02), (y - 0.05, y), (0, high), 1)
    elif style == "cushion":
        wide = (-width / 2 - 0.03, width / 2 + 0.03)
        piece.cushion(wide, (y - 0.1, y + 0.02), (0, high), int(rng.integers(0, 3)), 0.2)
    elif style == "slats":
        for x in np.linspace(-width / 2, width / 2, rng.integers(4, 10)):
            piece.box((x - 0.02, x + 0.02), (y - 0.04, y), (0, high), 1)
        piece.box((-width / 2 - 0.02, width / 2 + 0.02), (y - 0.05, y + 0.01), (high - 0.06, high), 1)
    if style != "none" and rng.random() < 0.35:
        piece.box((-width / 2, width / 2), (-y, -y + 0.04), (0, top + rng.uniform(-0.05, 0.2)), 1)
