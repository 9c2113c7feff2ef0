"""Parametric small things: books, cups, boxes, screens, plants, bins, bags; all of the class "clutter"."""

from __future__ import annotations

import numpy as np

from contrast3d.data.room_seats import Rng
from contrast3d.data.room_shapes import Number, Piece, Surface, spread

DESKTOP = ("screen", "screen", "keyboard", "cup", "books", "stack", "box", "laptop")
TABLETOP = ("cup", "cup", "bottle", "bowl", "vase", "stack", "box", "plant", "laptop")
KITCHEN = ("cup", "bottle", "bowl", "box", "bottle", "vase", "pan")
BATH = ("bottle", "cup", "bottle", "stack", "box")
GROUND = ("bin", "plant_tall", "bag", "crate", "ball", "shoes", "carton")


def thing(rng: Rng, kind: str) -> Piece:
    """One small thing of a kind named in the lists of this module."""
    piece = Piece("clutter")
    _MAKERS[kind](piece, rng)
    return piece.centred()


def row_of_books(rng: Rng, surface: Surface) -> Piece | None:
    """Books in a row along a board, as it stands in the frame of the board's piece; None where there is no room."""
    rows = _rows_of_books(rng, surface)
    if rows is None:
        return None
    piece = Piece("clutter")
    piece.boxes(rows)
    return piece


def _rows_of_books(rng: Rng, surface: Surface) -> np.ndarray | None:
    width, depth = surface.x[1] - surface.x[0], surface.y[1] - surface.y[0]
    tallest = min(surface.room, 0.36)
    if width < 0.12 or tallest < 0.14 or depth < 0.12:
        return None
    thick = rng.uniform(0.015, 0.055, 60)
    thick = thick[np.cumsum(thick) < width * rng.uniform(0.3, 1.0)]
    if len(thick) == 0:
        return None
    right = surface.x[0] + rng.uniform(0, width - thick.sum()) + np.cumsum(thick)
    tall = np.minimum(rng.uniform(0.15, 0.33, len(thick)), tallest)
    deep = np.minimum(rng.uniform(0.11, 0.24, len(thick)), depth - 0.03)
    front = surface.y[1] - rng.uniform(0.005, 0.03, len(thick)) if rng.random() < 0.5 else surface.y[0] + 0.01 + deep
    material = rng.integers(0, 6, len(thick))
    return np.stack([right - thick, right - 0.001, front - deep, front, 0 * tall, tall, material], 1)


def _screen(piece: Piece, rng: Rng) -> None:
    width = rng.uniform(0.42, 0.68)
    height, foot = width * 0.6, rng.uniform(0.06, 0.14)
    piece.box((-width / 2, width / 2), (-0.02, 0.02), (foot, foot + height), 0)
    piece.box((-0.03, 0.03), (-0.04, -0.015), (0.01, foot + height / 2), 1)
    piece.box((-0.12, 0.12), (-0.09, 0.09), (0, 0.015), 1)
    if rng.random() < 0.4:
        piece.glass.add(0)


def _keyboard(piece: Piece, rng: Rng) -> None:
    piece.box((-0.21, 0.21), (-0.07, 0.07), (0, rng.uniform(0.015, 0.03)), 0)
    piece.cushion((0.25, 0.31), (-0.05, 0.05), (0, 0.035), 1, 0.6)


def _laptop(piece: Piece, rng: Rng) -> None:
    lean = rng.uniform(0.03, 0.12)
    piece.box((-0.16, 0.16), (-0.11, 0.11), (0, 0.018), 0)
    corners = [[(x, -0.11 - lean * t, 0.018 + 0.21 * t) for x in (-0.16, 0.16)] for t in (0, 1)]
    piece.sheet(np.array(corners), 0)


def _cup(piece: Piece, rng: Rng) -> None:
    r, h = rng.uniform(0.03, 0.05), rng.uniform(0.07, 0.13)
    piece.turned([(0, 0.0), (r * 0.8, 0.0), (r, h), (r * 0.85, h), (r * 0.7, 0.01)], 0, sides=9)


def _bottle(piece: Piece, rng: Rng) -> None:
    r, h = rng.uniform(0.025, 0.05), rng.uniform(0.14, 0.32)
    piece.turned([(0, 0), (r, 0), (r, h * 0.6), (r * 0.4, h * 0.78), (r * 0.4, h), (0, h)], 0, sides=9)


def _bowl(piece: Piece, rng: Rng) -> None:
    r, h = rng.uniform(0.08, 0.16), rng.uniform(0.05, 0.1)
    piece.turned([(0, 0), (r * 0.4, 0), (r * 0.85, h * 0.5), (r, h), (r * 0.8, h * 0.5), (0, h * 0.15)], 0, sides=12)
    for _ in range(rng.integers(0, 4)):
        x, y, s = *rng.uniform(-0.4, 0.4, 2) * r, 0.035
        piece.cushion((x - s, x + s), (y - s, y + s), (h * 0.3, h * 0.3 + 2 * s), int(rng.integers(1, 4)), 1.0)


def _pan(piece: Piece, rng: Rng) -> None:
    r, h = rng.uniform(0.1, 0.15), rng.uniform(0.05, 0.18)
    piece.turned([(0, 0), (r, 0), (r, h), (r * 0.94, h), (r * 0.9, 0.01), (0, 0.01)], 0, sides=12)
    piece.beam((r, 0, h * 0.8), (r + 0.16, 0, h), 0.025, 1)


def _vase(piece: Piece, rng: Rng) -> None:
    h = rng.uniform(0.12, 0.32)
    radii = rng.uniform(0.03, 0.09, 4)
    piece.turned([(0, 0), *((r, h * t) for r, t in zip(radii, (0, 0.3, 0.7, 1)))], 0, sides=10)


def _stack(piece: Piece, rng: Rng) -> None:
    z, material = 0.0, int(rng.integers(0, 6))
    for _ in range(rng.integers(1, 7)):
        a, b, h = rng.uniform(0.07, 0.11), rng.uniform(0.1, 0.15), rng.uniform(0.01, 0.045)
        x, y = rng.normal(0, 0.008, 2)
        piece.box((x - a, x + a), (y - b, y + b), (z, z + h), material)
        z, material = z + h, int(rng.integers(0, 6))


def _books(piece: Piece, rng: Rng) -> None:
    rows = _rows_of_books(rng, Surface((-0.2, 0.2), (-0.1, 0.1), 0))
    if rows is None:
        _stack(piece, rng)
    else:
        piece.boxes(rows)


def _box(piece: Piece, rng: Rng, low: Number = 0.06, high: Number = 0.26) -> None:
    a, b, h = rng.uniform(low, high, 3)
    piece.box((-a / 2, a / 2), (-b / 2, b / 2), (0, h), 0)
    if rng.random() < 0.4:
        piece.box((-a / 2 - 0.005, a / 2 + 0.005), (-b / 2 - 0.005, b / 2 + 0.005), (h * 0.8, h + 0.004), 1)


def _carton(piece: Piece, rng: Rng) -> None:
    _box(piece, rng, 0.25, 0.55)


def _crate(piece: Piece, rng: Rng) -> None:
    a, b, h, t = *rng.uniform(0.14, 0.26, 2), rng.uniform(0.18, 0.4), 0.012
    for side in (-1, 1):
        piece.box((-a, a), (side * b - t / 2, side * b + t / 2), (0, h), 0)
        piece.box((side * a - t / 2, side * a + t / 2), (-b, b), (0, h), 0)
    piece.box((-a, a), (-b, b), (0, t), 0)
    if rng.random() < 0.5:
        piece.cushion((-a * 0.9, a * 0.9), (-b * 0.9, b * 0.9), (t, h * 0.9), 1, 0.6)


def _bin(piece: Piece, rng: Rng) -> None:
    r, h = rng.uniform(0.1, 0.18), rng.uniform(0.25, 0.5)
    profile = [(0, 0), (r * 0.8, 0), (r, h), (r * 0.95, h), (r * 0.75, 0.02), (0, 0.02)]
    piece.turned(profile, 0, sides=int(rng.choice([4, 12])))


def _leaves(piece: Piece, rng: Rng, base: Number, reach: Number, count: int) -> None:
    for angle in rng.uniform(0, 2 * np.pi, count):
        out, up, wide = rng.uniform(0.4, 1.0) * reach, rng.uniform(0.3, 1.3) * reach, rng.uniform(0.02, 0.05)
        ahead, side = np.array([np.cos(angle), np.sin(angle), 0]), np.array([-np.sin(angle), np.cos(angle), 0])
        spine = [(0, 0, 0), (0.5, 0.75, 1), (1, rng.uniform(0.5, 1.0), 0.1)]
        grid = [[ahead * out * t + (0, 0, base + up * z) + side * wide * w * s for s in (-1, 1)] for t, z, w in spine]
        piece.sheet(np.array(grid), 1)


def _plant(piece: Piece, rng: Rng, scale: Number = 1.0) -> None:
    r, h = rng.uniform(0.05, 0.09) * scale, rng.uniform(0.07, 0.13) * scale
    piece.turned([(0, 0), (r * 0.7, 0), (r, h), (0, h * 0.9)], 0, sides=10)
    _leaves(piece, rng, h * 0.9, rng.uniform(0.12, 0.2) * scale, int(rng.integers(7, 16)))


def _plant_tall(piece: Piece, rng: Rng) -> None:
    _plant(piece, rng, rng.uniform(1.8, 2.8))


def _bag(piece: Piece, rng: Rng) -> None:
    a, b, h = rng.uniform(0.13, 0.22), rng.uniform(0.07, 0.14), rng.uniform(0.25, 0.48)
    piece.cushion((-a, a), (-b, b), (0, h), 0, 0.6)
    piece.beam((-a * 0.5, 0, h * 0.95), (a * 0.5, 0, h + 0.06), 0.02, 1)


def _ball(piece: Piece, rng: Rng) -> None:
    r = rng.uniform(0.09, 0.3)
    piece.cushion((-r, r), (-r, r), (0, 2 * r), 0, 1.0)


def _shoes(piece: Piece, rng: Rng) -> None:
    for x in (-0.07, 0.07):
        y = rng.normal(0, 0.03)
        piece.cushion((x - 0.045, x + 0.045), (y - 0.14, y + 0.14), (0, 0.07), 0, 0.6)
        piece.cushion((x - 0.04, x + 0.04), (y - 0.14, y + 0.0), (0.03, 0.12), 0, 0.6)


def radiator(rng: Rng, width: Number) -> Piece:
    """A radiator of ribs under a window; it is clutter, too."""
    piece = Piece("clutter")
    height, count = rng.uniform(0.4, 0.6), int(width / rng.uniform(0.06, 0.12))
    for x in spread(width, count, 0.02):
        piece.box(x, (0.02, 0.1), (0.12, 0.12 + height), 0)
    piece.box((-width / 2, width / 2), (0.04, 0.08), (0.15, 0.1 + height), 0)
    return piece.centred()


_MAKERS = {
    "screen": _screen, "keyboard": _keyboard, "laptop": _laptop, "cup": _cup, "bottle": _bottle, "bowl": _bowl,
    "pan": _pan, "vase": _vase, "stack": _stack, "books": _books, "box": _box, "carton": _carton, "crate": _crate,
    "bin": _bin, "plant": _plant, "plant_tall": _plant_tall, "bag": _bag, "ball": _ball, "shoes": _shoes,
}  # fmt: skip
