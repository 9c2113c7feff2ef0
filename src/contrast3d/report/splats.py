"""Pictures of scans and rooms: every point a disc as large as its surface needs, lit by the depth behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from contrast3d.report.thumbnails import camera as oblique

MOST_POINTS = 250_000
GREY = (0.66, 0.68, 0.71)
_RAMP = np.array([[0.31, 0.39, 0.55], [0.47, 0.60, 0.68], [0.72, 0.74, 0.67], [0.93, 0.84, 0.64]])


@dataclass(frozen=True)
class Camera:
    """Where a picture is taken from.

    rotation: (3, 3) rows right, up and towards the viewer. center: what is in the middle.
    scale: pixels per metre there. distance: of the eye from the centre in metres; infinite: parallel lines stay so.
    """

    rotation: Float[np.ndarray, "3 3"]
    center: Float[np.ndarray, "3"]
    scale: float
    width: int
    height: int
    distance: float = math.inf

    def see(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 4"]:
        """Points -> pixels x right and y down, metres towards the viewer, and pixels per metre; NaN behind the eye."""
        seen = (points - self.center) @ self.rotation.T
        left = np.ones(len(seen)) if math.isinf(self.distance) else 1 - seen[:, 2] / self.distance
        size = self.scale / np.where(left > 0.02, left, np.nan)
        return np.stack([self.width / 2 + seen[:, 0] * size, self.height / 2 - seen[:, 1] * size, seen[:, 2], size], 1)


def room_camera(points: Float[np.ndarray, "n 3"], width: int, height: int) -> Camera:
    """From above and aside, z up: rooms, and scenes in a frame of their own."""
    return _fitted(points, oblique().astype(float) @ np.eye(3), width, height, math.inf)


def scan_camera(
    points: Float[np.ndarray, "n 3"], width: int, height: int, tilt: float = 14.0, back: float = 1.15
) -> Camera:
    """From a little above the sensor, whose frame the points are in: x right, y down, z ahead.

    tilt: degrees about the middle of what it saw. back: how far from there, as a multiple of the sensor's distance.
    """
    s, c = math.sin(math.radians(tilt)), math.cos(math.radians(tilt))
    rotation = np.array([[1.0, 0, 0], [0, -c, s], [0, -s, -c]])
    known = points[np.isfinite(points).all(1)]
    distance = back * float(np.linalg.norm(np.median(known, 0))) if len(known) else 1.0
    return _fitted(points, rotation, width, height, max(distance, 1e-3))


def _fitted(points: np.ndarray, rotation: np.ndarray, width: int, height: int, distance: float) -> Camera:
    """All but the outermost points fill the picture."""
    known = np.asarray(points, float)[np.isfinite(points).all(1)]
    camera = Camera(rotation, np.median(known, 0) if len(known) else np.zeros(3), 1.0, width, height, distance)
    for _ in range(6):  # with an eye near by, the centre moves with what is in the middle
        seen = camera.see(known)
        seen = seen[np.isfinite(seen).all(1)]
        if not len(seen):
            break
        low, high = np.percentile(seen, (0.4, 99.6), axis=0)
        shift = ((low + high) / 2)[:2] - (width / 2, height / 2)
        shift = np.array([shift[0], -shift[1], 0]) / camera.scale
        extent = np.maximum((high - low)[:2], 1e-9 * camera.scale)
        scale = camera.scale * float(min(0.95 * width / extent[0], 0.95 * height / extent[1]))
        camera = Camera(rotation, camera.center + shift @ rotation, min(scale, 1e9), width, height, distance)
    return camera


def height_colors(points: Float[np.ndarray, "n 3"], up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n 3"]:
    """Quiet colours by height, for scans that have none: dark and cool below, light and warm above."""
    known = np.isfinite(points).all(1)
    height = np.asarray(points[known], float) @ up
    low, high = np.percentile(height, (2, 98)) if len(height) else (0.0, 1.0)
    place = np.zeros(len(points))
    place[known] = np.clip((height - low) / max(high - low, 1e-9), 0, 1) * (len(_RAMP) - 1)
    return np.stack([np.interp(place, np.arange(len(_RAMP)), _RAMP[:, i]) for i in range(3)], 1)


def open_room(points: Float[np.ndarray, "n 3"], cell: float = 0.1) -> np.ndarray:
    """(N,) which points of a room, z up, to draw: not its ceiling, nor the walls between the viewer and the inside."""
    known = np.isfinite(points).all(1)
    shown = known.copy()
    if known.sum() >= 100:
        shown[known] = _is_open(np.asarray(points[known], float), cell)
    return shown


def _is_open(points: Float[np.ndarray, "n 3"], cell: float) -> np.ndarray:
    towards = oblique()[2, :2].astype(float) / np.linalg.norm(oblique()[2, :2])
    flat = points[:, :2] @ np.array([towards, (-towards[1], towards[0])]).T  # ahead of the viewer's eye, and aside
    flat -= flat.min(0)
    cells = (flat / max(cell, flat.max() / 500)).astype(np.int64)
    floor, top = np.percentile(points[:, 2], (1, 99.5))
    keep = np.ones(len(points), bool)
    lid = points[:, 2] > top - max(0.35, 0.1 * (top - floor))
    count = lambda rows: len(np.unique(cells[rows], axis=0))  # noqa: E731
    if top - floor > 1.8 and count(lid) > 0.3 * count(keep):
        keep &= ~lid
    nearest = np.full(cells[:, 1].max() + 3, -1)  # of each column of cells, with one more at each side
    np.maximum.at(nearest, cells[:, 1] + 1, cells[:, 0])
    wall = np.minimum.reduce([nearest[cells[:, 1] + i] - (i != 1) for i in (0, 1, 2)])
    wall = np.where(wall < 0, nearest[cells[:, 1] + 1], wall)
    return keep & ~((cells[:, 0] >= wall - 1) & (points[:, 2] > floor + 0.25))


def typical_spacing(points: Float[np.ndarray, "n 3"], sample: int = 1500) -> float:
    """Metres between neighbouring points: the median over some points of the distance to their fourth neighbour."""
    from scipy.spatial import cKDTree

    if len(points) < 6:
        return 0.02
    rows = np.linspace(0, len(points) - 1, min(sample, len(points))).astype(int)
    return float(np.median(cKDTree(points).query(points[rows], 5)[0][:, 4]))


def draw(
    points: Float[np.ndarray, "n 3"], colors: Float[np.ndarray, "n 3"], camera: Camera, spacing: float | None = None,
) -> UInt8[np.ndarray, "h w 4"]:
    """Points (N, 3) in metres with colours in 0 to 1 -> picture (height, width, 4), straight alpha.

    Nearer points cover farther ones. spacing: metres between neighbours, so how large a disc has to be; None: measured.
    """
    fine = 2
    width, height = fine * camera.width, fine * camera.height
    image, depth = np.zeros((height * width, 3), np.float32), np.full(height * width, np.nan, np.float32)
    grain = 1.0
    points, colors = np.asarray(points, float), np.asarray(colors, np.float32)
    usable = np.isfinite(points).all(1)
    rows = np.flatnonzero(usable)[:: max(1, -(-int(usable.sum()) // MOST_POINTS))]
    if len(rows):
        spacing = typical_spacing(points[rows]) if spacing is None else spacing
        seen = camera.see(points[rows]) * (fine, fine, 1, fine)
        inside = ((seen[:, :2] >= 0) & (seen[:, :2] < (width, height))).all(1)
        seen, rows = seen[inside], rows[inside]
        order = np.argsort(seen[:, 2], kind="stable")  # far to near: what is written last stays
        seen, shown = seen[order], colors[rows[order]]
        radius = np.clip(np.rint(0.95 * spacing * seen[:, 3]), 1, 12).astype(int)
        grain = float(np.median(radius)) if len(radius) else grain
        for size in np.unique(radius):  # nearer discs are larger, so this too goes from far to near
            part = radius == size
            _stamp(image, depth, seen[part], shown[part], int(size), width)
    light = _light(depth.reshape(height, width), fine * camera.scale, grain)
    covered = np.isfinite(depth).astype(np.float32)
    canvas = np.concatenate([image * light.reshape(-1, 1) * covered[:, None], covered[:, None]], 1)
    canvas = canvas.reshape(camera.height, fine, camera.width, fine, 4).mean((1, 3))
    canvas[..., :3] /= np.maximum(canvas[..., 3:], 1e-6)
    return np.rint(255 * np.clip(canvas, 0, 1)).astype(np.uint8)


def _stamp(image, depth, seen, colors, radius: int, width: int) -> None:
    """A disc of `radius` pixels around each point."""
    dy, dx = np.mgrid[-radius : radius + 1, -radius : radius + 1].reshape(2, -1)
    dy, dx = (d[dx**2 + dy**2 <= radius**2 + 0.5] for d in (dy, dx))
    x = np.clip(seen[:, 0, None].astype(np.int64) + dx, 0, width - 1)
    y = np.clip(seen[:, 1, None].astype(np.int64) + dy, 0, len(depth) // width - 1)
    cell = (y * width + x).ravel()
    image[cell] = np.repeat(colors, len(dx), 0)
    depth[cell] = np.repeat(seen[:, 2], len(dx))


def _light(depth: np.ndarray, scale: float, grain: float) -> np.ndarray:
    """Brightness by the depth image (metres towards the viewer, NaN where nothing is): slopes, hollows, edges.

    grain: radius of a disc in pixels; depth is smoothed over it, so that surfaces show and not the discs.
    """
    from scipy.ndimage import gaussian_filter

    there = np.isfinite(depth)
    blur = max(1.5, 0.9 * grain)
    share = np.maximum(gaussian_filter(there.astype(np.float32), blur), 1e-3)
    z = np.where(there, gaussian_filter(np.where(there, depth * scale, 0).astype(np.float32), blur) / share, np.nan)
    gy, gx = np.gradient(np.where(there, z, 0))
    lambert = (-gx * -0.45 + gy * 0.62 + 0.64) / np.sqrt(gx * gx + gy * gy + 1)  # image y points down
    hollow = np.zeros_like(z)
    for reach in (round(grain) + 2, 3 * round(grain) + 3):
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):  # what lies below the line between two opposite neighbours
            sides = []
            for sign in (-1, 1):
                moved = np.roll(z, (sign * dy * reach, sign * dx * reach), (0, 1))
                sides.append(np.where(np.isfinite(moved), moved, z))
            hollow += np.clip((sides[0] + sides[1]) / 2 - z, 0, 1.5 * reach) / (8 * reach)
    bright = np.clip(0.72 + 0.32 * np.clip(lambert, -0.2, 1), 0.5, 1.06) * np.exp(-0.6 * hollow)
    return np.where(there, bright, 0)
