"""Furnished indoor rooms, generated: labelled scans for segmentation, and the geometry behind them.

A room is a function of (seed, split, index): the same on every machine, never stored, of no split but its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from contrast3d.data.room_colors import Paints, draw_paints, shade
from contrast3d.data.room_meshes import read_meshes, swapping
from contrast3d.data.room_mixes import KINDS, SHARES, furnish
from contrast3d.data.room_path import free_places
from contrast3d.data.room_plan import Placed, Plan, build_shell, draw_plan
from contrast3d.data.scenes import Scene, SceneSet
from contrast3d.errors import ConfigError
from contrast3d.ops.depth_image import sightings

CLASSES = (
    "floor", "wall", "ceiling", "door", "window", "curtain", "chair", "table", "desk", "bed", "sofa", "shelf",
    "cabinet", "counter", "lamp", "sink", "bathtub", "toilet", "picture", "clutter",
)  # fmt: skip
COUNTS = {"train": 200, "val": 40, "test": 60}
DENSITY = 1600.0  # points per square metre, 2.5 cm apart: about four in each voxel of 5 cm; 10,000 suit 2 cm
DENSEST = 100_000.0
Split = Literal["train", "val", "test"]
_LAYOUT, _PAINTS, _SCAN = range(3)  # what a stream of random numbers is for


@dataclass(frozen=True)
class Room:
    """One room as triangles.

    triangles: (T, 3, 3) float32, metres, z up, floor at 0. labels: (T,) uint8 into CLASSES. instances: (T,) int32
    object, -1 for floor, walls and ceiling. materials: (T,) int64 rows of `paints`. boxes: (K, 8) float64 of the
    objects: centre, half sizes, heading (radians counter-clockwise from x), class. placed: what stands where.
    """

    name: str
    plan: Plan
    triangles: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    materials: np.ndarray
    paints: Paints
    boxes: np.ndarray
    placed: list[Placed]
    key: tuple[int, int, int]

    @cached_property
    def normals(self) -> np.ndarray:
        """(T, 3) float32 unit normals, of either side; zero where a triangle has no area."""
        return self._cross / np.maximum(np.linalg.norm(self._cross, axis=1, keepdims=True), 1e-12)

    @cached_property
    def areas(self) -> np.ndarray:
        """(T,) square metres."""
        return np.linalg.norm(self._cross, axis=1) / 2

    @cached_property
    def _cross(self) -> np.ndarray:
        a, b, c = self.triangles.transpose(1, 0, 2)
        return np.cross(b - a, c - a)

    def stream(self, purpose: int) -> np.random.Generator:
        """Random numbers of this room for one purpose, the same at every call."""
        return np.random.default_rng([*self.key, purpose])


def Rooms(
    split: str, count: int | None = None, *, seed: int = 0, density: float = DENSITY, meshes: str | Path | None = None
) -> SceneSet:
    """Scans of `count` generated rooms of a split: "train" (200), "val" (40) or "test" (60 rooms).

    density: points per square metre of surface near a scanner; further away there are fewer. meshes: a folder of
    furniture meshes to mix in, see `room_meshes`. Rooms of other splits and seeds have nothing in common; the first
    rooms of a larger count are those of a smaller one. Raises ConfigError for an unknown split, a count below one,
    a density that is not in 1..100,000.
    """
    count = COUNTS.get(split, 1) if count is None else count
    if split not in COUNTS or count < 1 or not 1 <= density <= DENSEST:
        raise ConfigError(
            f"Rooms of split {split!r}, count {count}, density {density:g}: the splits are {', '.join(COUNTS)}, "
            f"at least one room, a density of 1 to {DENSEST:g} points per square metre"
        )
    scenes = tuple(scan(make_room(split, i, seed, meshes), density) for i in range(count))
    return SceneSet(scenes, CLASSES, f"Rooms {split}")


def make_room(split: str, index: int, seed: int = 0, meshes: str | Path | None = None) -> Room:
    """The room number `index` of a split, without a scan of it. Raises ConfigError for what there is not."""
    if split not in COUNTS or index < 0 or seed < 0:
        raise ConfigError(f"a room of split {split!r}, index {index}, seed {seed}: the splits are {', '.join(COUNTS)}")
    key = (seed, list(COUNTS).index(split), index)
    rng = np.random.default_rng([*key, _LAYOUT])
    plan = draw_plan(rng, KINDS[int(np.searchsorted(np.cumsum(SHARES), rng.random()).clip(max=len(KINDS) - 1))])
    swap = swapping(read_meshes(meshes), rng) if meshes is not None else lambda piece: piece
    placed = build_shell(plan, rng) + furnish(plan, rng, swap)
    return _assembled(f"{split}-{index:04d}-{plan.kind}", plan, placed, key)


def _assembled(name: str, plan: Plan, placed: list[Placed], key: tuple[int, int, int]) -> Room:
    triangles, labels, instances, materials, boxes, glass = [], [], [], [], [], []
    for item in placed:
        piece, label = item.piece, CLASSES.index(item.piece.kind)
        corners = item.world(piece.triangles)
        triangles.append(corners)
        labels.append(np.full(len(corners), label, np.uint8))
        is_object = item.stands != "shell"
        instances.append(np.full(len(corners), len(boxes) if is_object else -1, np.int32))
        materials.append(len(glass) + piece.materials)
        glass += [i in piece.glass for i in range(int(piece.materials.max()) + 1)]
        if is_object:
            boxes.append([*item.box, label])
    rng = np.random.default_rng([*key, _PAINTS])
    lamps = rng.uniform(-0.4, 0.4, (int(rng.integers(1, 4)), 3)) * [*plan.size, 0] + [0, 0, plan.height * 0.9]
    return Room(
        name, plan, np.concatenate(triangles).astype(np.float32), np.concatenate(labels), np.concatenate(instances),
        np.concatenate(materials), draw_paints(rng, np.array(glass), lamps), np.array(boxes).reshape(-1, 8), placed,
        key,
    )


def boxes(room: Room) -> np.ndarray:
    """(K, 8) float64: centre, half sizes, heading and class of each object; row k is the instance k of a scan."""
    return room.boxes


def scan(room: Room, density: float = DENSITY) -> Scene:
    """The room as a scanner on a few places sees it: hidden sides missing, holes, noise of some millimetres."""
    rng = room.stream(_SCAN)
    points, faces = _surface_points(room, density, rng)
    eyes = free_places(room.plan, room.placed, rng, int(rng.integers(3, 6)))
    seen = sightings(
        torch.from_numpy(points), torch.from_numpy(faces), torch.from_numpy(room.triangles), torch.from_numpy(eyes)
    ).numpy()
    keep = rng.random(len(points)) < np.minimum(1, 9 * seen)  # full density up to 3 m, frontal
    keep &= ~room.paints.glass[room.materials[faces]] | (rng.random(len(points)) < 0.15)
    for centre in points[rng.integers(0, len(points), int(rng.integers(2, 9)))]:  # holes where nothing came back
        near = np.square(points - centre).sum(1) < rng.uniform(0.1, 0.35) ** 2
        keep &= ~near | (rng.random(len(points)) < 0.05)
    points, faces = points[keep], faces[keep]
    colors = shade(room.paints, points, room.normals[faces], room.materials[faces], rng)
    points += rng.normal(0, rng.uniform(0.002, 0.006), points.shape).astype(np.float32)
    return Scene(room.name, points, colors, room.labels[faces], room.instances[faces])


def _surface_points(room: Room, density: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) spread evenly over all triangles, and the triangle of each (N,) int64.

    Within a triangle they follow the R2 sequence (Roberts 2018), whose points keep apart as random ones do not.
    """
    count = np.floor(room.areas * density + rng.random(len(room.areas))).astype(np.int64)
    faces = np.repeat(np.arange(len(count)), count)
    step = (np.arange(len(faces)) - np.repeat(np.cumsum(count) - count, count)).astype(np.float64)
    start = rng.random((2, len(count)))[:, faces]
    u, v = (start[0] + step * 0.7548776662466927) % 1, (start[1] + step * 0.5698402909980532) % 1
    over = u + v > 1
    u, v = np.where(over, 1 - u, u).astype(np.float32), np.where(over, 1 - v, v).astype(np.float32)
    a, b, c = room.triangles.transpose(1, 0, 2)
    return a[faces] + u[:, None] * (b - a)[faces] + v[:, None] * (c - a)[faces], faces
