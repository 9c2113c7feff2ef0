"""Where a person with a camera can stand in a room, and a smooth walk with a wandering gaze."""

from __future__ import annotations

import numpy as np

from contrast3d.data.room_plan import Placed, Plan
from contrast3d.data.room_seats import Rng
from contrast3d.data.room_shapes import Number

_WALL = 0.25  # metres that a camera keeps from walls and from tall furniture
_LOW = 0.9  # what is lower is looked over


def free_places(plan: Plan, placed: list[Placed], rng: Rng, count: int) -> np.ndarray:
    """(count, 3) float32 places for a camera, neither in furniture nor beyond a wall, far from each other."""
    grid = _grid(plan, placed)
    chosen = [grid[rng.integers(len(grid))]]
    while len(chosen) < count:  # far from those there are, but not always farthest
        distance = np.min([np.square(grid - c).sum(1) for c in chosen], 0)
        chosen.append(grid[np.argsort(distance)[int(rng.uniform(0.6, 1.0) * (len(grid) - 1))]])
    heights = rng.uniform(1.1, 1.75, count)
    return np.c_[np.array(chosen), heights].astype(np.float32)


def is_free(plan: Plan, placed: list[Placed], places: np.ndarray, margin: Number = _WALL) -> np.ndarray:
    """(N,) whether a camera may be at each of the places (N, 2)."""
    x, y = np.abs(places).T
    free = (x < plan.size[0] / 2 - margin) & (y < plan.size[1] / 2 - margin)
    rows = [p.box for p in placed if p.stands == "floor" and p.piece.high[2] > _LOW]
    rows += [np.array([b[0], b[1], 0, b[2], b[3], 0, b[4]]) for b in plan.blocks[: 1 if len(plan.outline) > 4 else 0]]
    for cx, cy, _, hx, hy, _, heading in rows:
        c, s = np.cos(heading), np.sin(heading)
        dx, dy = places[:, 0] - cx, places[:, 1] - cy
        free &= (np.abs(dx * c + dy * s) > hx + margin) | (np.abs(dy * c - dx * s) > hy + margin)
    return free


def _grid(plan: Plan, placed: list[Placed]) -> np.ndarray:
    """(G, 2) free places 15 cm apart; where a room is full, those nearest to being free."""
    x, y = (np.arange(-s / 2 + 0.08, s / 2, 0.15) for s in plan.size)
    places = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    for margin in (_WALL, 0.1, 0.0, -0.3):
        free = is_free(plan, placed, places, margin)
        if free.any():
            return places[free]
    return np.zeros((1, 2))


def walk(plan: Plan, placed: list[Placed], rng: Rng, count: int) -> np.ndarray:
    """(count, 4, 4) float64 camera-to-world poses, x right, y down, z ahead: once round, looking across the room."""
    t = np.arange(count) / count
    angle = 2 * np.pi * (rng.choice([-1, 1]) * t + rng.random())
    places = _loop(plan, placed, rng, angle)
    yaw = angle + np.pi + rng.normal(0, 0.4) + 0.7 * np.sin(2 * np.pi * (rng.integers(2, 4) * t + rng.random()))
    pitch = np.radians(rng.uniform(-30, -14) + 16 * np.sin(2 * np.pi * (3 * t + rng.random())))
    roll = np.radians(3) * np.sin(2 * np.pi * (5 * t + rng.random()))
    return np.stack([_pose(*values) for values in zip(places, yaw, pitch, roll)])


def _loop(plan: Plan, placed: list[Placed], rng: Rng, angle: np.ndarray) -> np.ndarray:
    """(N, 3) a closed smooth curve around the middle of what is free; ever smaller until no furniture is in its way."""
    grid = _grid(plan, placed)
    height = rng.uniform(1.25, 1.6) + 0.12 * np.sin(2 * angle + rng.uniform(0, 6))
    for shrink in np.linspace(1, 0, 60):
        bend = 1 + 0.15 * np.sin(2 * angle[:, None] + rng.uniform(0, 6, 2))
        reach = rng.uniform(0.6, 1.0, 2) * (np.array(plan.size) / 2 - 0.3) * shrink
        home = grid[rng.integers(len(grid))]
        home = home + shrink * (grid.mean(0) - home)
        path = home + bend * reach * np.stack([np.cos(angle), np.sin(angle)], 1)
        if is_free(plan, placed, path, 0.15).all():
            break
    return np.c_[path, height]


def _pose(place: np.ndarray, yaw: Number, pitch: Number, roll: Number) -> np.ndarray:
    ahead = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0])
    down = np.cross(ahead, right)
    c, s = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([c * right + s * down, c * down - s * right, ahead], 1)
    pose[:3, 3] = place
    return pose
