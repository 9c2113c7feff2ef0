"""Parametric lamps, sanitary ware, curtains, pictures and the things that lie about."""

from __future__ import annotations

import numpy as np

from contrast3d.data.room_seats import Rng
from contrast3d.data.room_shapes import Number, Piece
from contrast3d.data.room_storage import _fronts

_BOWL = [(1.0, 1.0), (0.94, 1.0), (0.86, 0.55), (0.6, 0.12), (0.0, 0.0)]  # radius and height inside, rim to drain
_TUB = [(1.0, 1.0), (0.93, 0.5), (0.8, 0.08), (0.0, 0.0)]


def lamp(rng: Rng, kind: str = "floor") -> Piece:
    """A lamp: "floor", "table", or "pendant", which hangs from z = its own height."""
    piece = Piece("lamp")
    small = 0.6 if kind == "table" else 1.0
    radius, tall = rng.uniform(0.12, 0.26) * small, rng.uniform(0.15, 0.35) * small
    shade = {
        "drum": [(1, 0), (1, 1)], "cone": [(1, 0), (0.45, 1)], "bowl": [(1, 0), (0.9, 0.4), (0.5, 0.85), (0.05, 1)],
        "ball": [(0.05, 0), (0.7, 0.15), (1, 0.5), (0.7, 0.85), (0.05, 1)],
    }[str(rng.choice(["drum", "cone", "bowl", "ball"]))]
    if kind == "pendant":
        drop = rng.uniform(0.1, 0.9)
        piece.turned([(0.008, tall), (0.008, tall + drop)], 1, sides=5)
        piece.turned([(0.05, tall + drop - 0.03), (0.05, tall + drop)], 1, sides=8)
        base = 0.0
    else:
        base = rng.uniform(1.1, 1.6) if kind == "floor" else rng.uniform(0.14, 0.35)
        foot = rng.uniform(0.11, 0.18) if kind == "floor" else rng.uniform(0.05, 0.09)
        if kind == "floor" and rng.random() < 0.25:
            for angle in np.arange(3) * 2.09:
                end = np.array([np.cos(angle), np.sin(angle)]) * foot * 1.8
                piece.beam((*end, 0), (0, 0, base), 0.025, 1)
        else:
            piece.turned([(0, 0.001), (foot, 0.001), (foot, 0.025), (0.015, 0.04)], 1)
        waist = rng.uniform(0.012, 0.02) if kind == "floor" else rng.uniform(0.015, 0.07)
        piece.turned([(0.012, 0.03), (waist, base * 0.4), (0.012, base + tall * 0.5)], 1, sides=8)
    piece.turned([(r * radius, base + z * tall) for r, z in shade], 0, sides=12)
    return piece.centred()


def toilet(rng: Rng) -> Piece:
    """A toilet: bowl on a foot or on the wall, seat, lid open or closed, mostly a cistern."""
    piece = Piece("toilet")
    height, width, length = rng.uniform(0.36, 0.44), rng.uniform(0.34, 0.4), rng.uniform(0.44, 0.54)
    stretch = (width / 2, length / 2)
    start = 0.0 if rng.random() < 0.7 else 0.12
    foot = rng.uniform(0.5, 0.75)
    outside = [(foot, start), (foot * 0.9, height * 0.45), (0.95, height * 0.85), (1, height)]
    inside = [(0.95, height - 0.005), (0.7, height - 0.01), (0.45, height - 0.18), (0, height - 0.2)]
    for profile in (outside, inside):
        piece.turned(profile, 0, sides=14, stretch=stretch)
    piece.box((-width * 0.35, width * 0.35), (-length / 2 - 0.06, -length * 0.2), (start, height * 0.98), 0)
    closed = rng.random() < 0.5
    inner = 0.0 if closed else 0.65
    piece.turned(
        [(1.02, height), (1.02, height + 0.03), (inner, height + 0.03)] + ([] if closed else [(inner, height)]), 1,
        sides=14, stretch=stretch,
    )
    back = -length / 2
    if not closed:
        lid = (height + 0.02, height + length * 0.85)
        piece.cushion((-width / 2, width / 2), (back - 0.02, back + 0.02), lid, 1, 0.3)
    if rng.random() < 0.75:
        tank, top = rng.uniform(0.33, 0.44), height + rng.uniform(0.3, 0.42)
        piece.cushion((-tank / 2, tank / 2), (back - 0.2, back - 0.02), (height - 0.04, top), 0, 0.1)
    return piece.centred(stand=False)


def bathtub(rng: Rng) -> Piece:
    """A bathtub: built in with panels, or free-standing."""
    piece = Piece("bathtub")
    length, width, height = rng.uniform(1.4, 1.8), rng.uniform(0.66, 0.82), rng.uniform(0.46, 0.62)
    sides, rim = 20, rng.uniform(0.84, 0.92)
    squareness = rng.uniform(0.35, 0.7)
    if rng.random() < 0.3:
        profile = [(0.62, 0.0), (0.85, height * 0.5), (1, height), (rim, height)]
        piece.turned(profile, 0, sides=sides, stretch=(length / 2, width / 2))
        stretch, outline = (length / 2 * rim, width / 2 * rim), 1.0
    else:
        x, y = (-length / 2, length / 2), (-width / 2, width / 2)
        piece.ring(x, y, (0, height - 0.01), (length - 0.04, width - 0.04), 0)
        stretch, outline = (length / 2 * rim, width / 2 * rim), squareness
        around = np.linspace(0, 2 * np.pi, sides + 1)
        ring = _superellipse(around, outline) * stretch
        edge = np.stack([np.cos(around), np.sin(around)], 1)
        edge = edge / np.abs(edge).max(1, keepdims=True) * (length / 2, width / 2)
        piece.sheet(np.stack([np.c_[ring, 0 * around + height], np.c_[edge, 0 * around + height]]), 0)
    around = np.linspace(0, 2 * np.pi, sides + 1)
    ring = _superellipse(around, outline) * stretch
    deep = height - rng.uniform(0.06, 0.12)
    piece.sheet(np.stack([np.c_[ring * r, 0 * around + height - deep * (1 - z)] for r, z in _TUB]), 0)
    tap = length / 2 - 0.05
    piece.box((tap - 0.03, tap + 0.02), (-0.04, 0.04), (height, height + 0.12), 1)
    piece.beam((tap, 0, height + 0.1), (tap - 0.16, 0, height + 0.1), 0.03, 1)
    return piece.centred()


def _superellipse(around: np.ndarray, power: Number) -> np.ndarray:
    c, s = np.cos(around), np.sin(around)
    return np.stack([np.sign(c) * np.abs(c) ** power, np.sign(s) * np.abs(s) ** power], 1)


def basin(rng: Rng, width: Number, depth: Number, deep: Number = 0.16) -> Piece:
    """The bowl of a sink with its tap, to be let into a top at the height of its rim, z = `deep`."""
    piece = Piece("sink")
    stretch = (width / 2, depth / 2)
    around = np.linspace(0, 2 * np.pi, 17)
    ring = _superellipse(around, rng.uniform(0.3, 1.0)) * stretch
    piece.sheet(np.stack([np.c_[ring * r, 0 * around + z * deep] for r, z in _BOWL]), 0)
    piece.sheet(np.stack([np.c_[ring * r, 0 * around + deep + z] for r, z in [(1, 0.004), (1.06, 0.004)]]), 0)
    _tap(piece, rng, -depth / 2 + 0.02, deep)
    return piece


def _tap(piece: Piece, rng: Rng, y: Number, z: Number) -> None:
    high, reach = rng.uniform(0.1, 0.28), rng.uniform(0.1, 0.18)
    piece.turned([(0.022, z), (0.018, z + high)], 1, (0, y), sides=7)
    piece.beam((0, y, z + high - 0.015), (0, y + reach, z + high - rng.uniform(0.015, 0.04)), 0.028, 1)


def sink(rng: Rng) -> Piece:
    """A washbasin: on a pedestal, on the wall, or on a console."""
    piece = Piece("sink")
    width, depth, height = rng.uniform(0.42, 0.7), rng.uniform(0.36, 0.5), rng.uniform(0.78, 0.9)
    deep, outline = rng.uniform(0.12, 0.2), rng.uniform(0.25, 1.0)
    around = np.linspace(0, 2 * np.pi, 17)
    ring = _superellipse(around, outline) * (width / 2, depth / 2)
    outside = [(0.45, height - deep - 0.05), (0.9, height - deep * 0.5), (1, height), (0.88, height)]
    inside = [(0.88 * r, height - deep * (1 - z)) for r, z in _BOWL]
    piece.sheet(np.stack([np.c_[ring * r, 0 * around + z] for r, z in outside + inside]), 0)
    piece.box((-width * 0.3, width * 0.3), (-depth / 2 - 0.05, -depth * 0.35), (height - deep, height + 0.01), 0)
    _tap(piece, rng, -depth / 2, height)
    style = rng.choice(["pedestal", "wall", "console"])
    if style == "pedestal":
        piece.turned([(0.11, 0), (0.075, height * 0.5), (0.1, height - deep)], 0, (0, -depth * 0.15), sides=10)
    elif style == "console":
        for x in (-width * 0.42, width * 0.42):
            piece.box((x - 0.015, x + 0.015), (depth * 0.2, depth * 0.2 + 0.03), (0, height - deep * 0.5), 1)
    return piece.centred(stand=False)


def vanity(rng: Rng) -> tuple[Piece, Piece]:
    """A bathroom cabinet with a hole in its top, and the sink that belongs into the hole, at `shift` of the cabinet."""
    piece = Piece("cabinet")
    width, depth, height = rng.uniform(0.55, 1.2), rng.uniform(0.42, 0.52), rng.uniform(0.72, 0.88)
    hole, deep = (min(width * 0.75, 0.5), depth * 0.66), rng.uniform(0.1, 0.16)
    bottom = float(rng.choice([0.0, 0.12, 0.25]))
    _fronts(piece, rng, (-width / 2, width / 2), (-depth / 2, depth / 2), (bottom, height - deep - 0.02),
            str(rng.choice(["doors", "drawers"])))  # fmt: skip
    x, y = (-width / 2, width / 2), (-depth / 2, depth / 2)
    piece.ring(x, y, (height - deep - 0.02, height), hole, 0)
    if width > 0.8:
        piece.surface((x[0], -hole[0] / 2 - 0.02), y, height, 0.3)
    bowl = basin(rng, hole[0] * 0.97, hole[1] * 0.97, deep)
    return piece.centred(stand=False), bowl


def curtain(rng: Rng, width: Number, height: Number, ripple: Number = 0.03) -> Piece:
    """A curtain: a sheet in folds, gathered or not, from z = 0 up."""
    piece = Piece("curtain")
    steps = max(8, int(width / 0.035))
    x = np.linspace(-width / 2, width / 2, steps)
    wave = ripple * np.sin(x * 2 * np.pi / rng.uniform(0.1, 0.2) + rng.uniform(0, 6)) + rng.normal(0, 0.004, steps)
    rows = [[x * (1 - 0.06 * np.sin(np.pi * t)), wave * (0.6 + 0.4 * t), 0 * x + height * (1 - t)] for t in (0, 0.5, 1)]
    piece.sheet(np.array(rows).transpose(0, 2, 1), 0)
    return piece.centred()


def picture(rng: Rng, board: bool = False) -> Piece:
    """Something flat on a wall: a picture or a mirror in a frame, or a board."""
    piece = Piece("picture")
    low, high = ((1.0, 0.8), (2.0, 1.2)) if board else ((0.25, 0.25), (1.1, 0.9))
    width, height = rng.uniform(low, high)
    thick, rim = rng.uniform(0.012, 0.04), rng.uniform(0.0, 0.06)
    x, z = width / 2, height / 2
    piece.box((-x, x), (0, thick * (0.6 if rim > 0.01 else 1)), (-z, z), 0)
    if rim > 0.01:
        for a, b, c, d in ((-x, x, z - rim, z), (-x, x, -z, rim - z), (-x, rim - x, -z, z), (x - rim, x, -z, z)):
            piece.box((a, b), (0, thick), (c, d), 1)
    if not board and rng.random() < 0.2:
        piece.glass.add(0)
    return piece.centred()
