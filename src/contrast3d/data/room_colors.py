"""Colours of a room that do not tell its classes: every surface draws from the same paints, patterns and light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from contrast3d.data.room_seats import Rng

_PLAIN, _STRIPES, _TILES, _BLOTCHES, _PLANKS = range(5)


@dataclass(frozen=True)
class Paints:
    """M materials: two colours each, a pattern that mixes them, its scale (metres), direction and phase; glass or not.

    lamps: (L, 3) places of light. tint: (3,) colour of all light.
    """

    first: np.ndarray
    second: np.ndarray
    pattern: np.ndarray
    scale: np.ndarray
    direction: np.ndarray
    phase: np.ndarray
    glass: np.ndarray
    lamps: np.ndarray
    tint: np.ndarray
    ambient: float


def draw_paints(rng: Rng, glass: np.ndarray, lamps: np.ndarray) -> Paints:
    """Materials for a room, all by the same chances, be they of a wall or of a chair. glass: (M,) bool."""
    count = len(glass)
    first = _colors(rng, count)
    other = _colors(rng, count)
    contrast = rng.uniform(0, 1, (count, 1)) ** 2
    second = np.where(rng.random((count, 1)) < 0.7, first * (1 - 0.5 * contrast), first + contrast * (other - first))
    pattern = rng.choice(5, count, p=[0.4, 0.12, 0.1, 0.18, 0.2])
    direction = rng.normal(size=(count, 3))
    straight = rng.random(count) < 0.75
    direction[straight] = np.eye(3)[rng.integers(0, 3, int(straight.sum()))]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    scale = np.exp(rng.uniform(np.log(0.03), np.log(0.5), count))
    tint = 1 + rng.normal(0, 0.05, 3) + rng.normal(0, 0.06) * np.array([1, 0, -1])
    return Paints(
        first, second, pattern, scale, direction, rng.uniform(0, 1, (count, 3)), glass, lamps,
        tint * rng.uniform(0.8, 1.15), float(rng.uniform(0.35, 0.7)),
    )  # fmt: skip


def _colors(rng: Rng, count: int) -> np.ndarray:
    """(count, 3) in 0..1: whites and greys, wood, muted, vivid and dark tones."""
    family = rng.choice(5, count, p=[0.36, 0.24, 0.22, 0.09, 0.09])
    low = np.array([[0, 0, 0.45], [0.05, 0.25, 0.3], [0, 0.1, 0.35], [0, 0.4, 0.4], [0, 0, 0.06]])[family]
    high = np.array([[1, 0.1, 1.0], [0.11, 0.65, 0.85], [1, 0.35, 0.85], [1, 0.8, 0.9], [1, 0.4, 0.3]])[family]
    hue, saturation, value = (low + (high - low) * rng.random((count, 3))).T
    wheel = np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return value[:, None] * (1 - saturation[:, None] * (1 - wheel.clip(0, 1)))


def shade(paints: Paints, points: np.ndarray, normals: np.ndarray, materials: np.ndarray, rng: Rng) -> np.ndarray:
    """(N, 3) uint8: the colour of each point (N, 3) on a surface with a normal (N, 3) and a material (N,)."""
    amount = _patterns(paints, points, materials)[:, None]
    color = paints.first[materials]
    color += amount * (paints.second - paints.first)[materials]
    light = np.full(len(points), paints.ambient, np.float32)
    for lamp in paints.lamps:
        ray = lamp - points
        square = np.einsum("nc,nc->n", ray, ray)
        light += np.abs(np.einsum("nc,nc->n", ray, normals)) / np.sqrt(square) * (0.9 / (1 + square / 6))
    color *= light[:, None] * paints.tint
    color += rng.normal(0, 0.02, len(points))[:, None]
    return (color.clip(0, 1) * 255).astype(np.uint8)


def _patterns(paints: Paints, points: np.ndarray, materials: np.ndarray) -> np.ndarray:
    """(N,) in 0..1: how much of the second colour each point has."""
    order = np.argsort(paints.pattern[materials], kind="stable")
    bounds = np.searchsorted(paints.pattern[materials][order], np.arange(6))
    amount = np.zeros(len(points))
    for pattern in range(1, 5):
        rows = order[bounds[pattern] : bounds[pattern + 1]]
        m = materials[rows]
        p = points[rows] / paints.scale[m, None] + paints.phase[m]
        if pattern == _STRIPES:
            amount[rows] = np.einsum("nc,nc->n", p, paints.direction[m]) % 1 < 0.5
        elif pattern == _TILES:
            amount[rows] = np.floor(p).sum(1) % 2
        elif pattern == _BLOTCHES:
            amount[rows] = 0.5 + 0.5 * np.sin(3 * p[:, 0] + 2 * np.sin(2 * p[:, 1])) * np.sin(3 * p[:, 2] + 2 * p[:, 1])
        else:  # each plank another tone
            plank = np.floor(np.einsum("nc,nc->n", p, paints.direction[m]))
            amount[rows] = (np.sin(plank * 12.9898 + paints.phase[m, 0] * 78.233) * 43758.5453) % 1
    return amount
