"""Small pictures of point clouds, drawn on the CPU: visible points, lit by fitted planes.

Every shape is seen from the same place, three quarters from above with z up, and lit from the upper left.
The background is transparent, so that one picture serves a light and a dark page.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float, UInt8

from contrast3d.errors import DataError

CLAY = (0.62, 0.68, 0.78)
AZIMUTH, ELEVATION = math.radians(-58.0), math.radians(27.0)
LIGHT = np.array([-0.45, 0.62, 0.64], np.float32)  # from the upper left, in front; in view coordinates


@dataclass(frozen=True)
class Frame:
    """What a picture shows: `center` is in its middle, `radius` reaches its nearer edges (less a margin)."""

    center: tuple[float, float, float]
    radius: float


def camera() -> Float[np.ndarray, "3 3"]:
    """Rows right, up and towards the viewer of the one camera that every picture is taken with."""
    sa, ca, se, ce = math.sin(AZIMUTH), math.cos(AZIMUTH), math.sin(ELEVATION), math.cos(ELEVATION)
    return np.array([[-sa, ca, 0], [-se * ca, -se * sa, ce], [ce * ca, ce * sa, se]], np.float32)


def fit_frame(*clouds: Float[np.ndarray, "_ 3"]) -> Frame:
    """The smallest frame that shows all `clouds` whole."""
    seen = np.concatenate([c @ camera().T for c in clouds])
    low, high = seen.min(0), seen.max(0)
    center = (low + high) / 2 @ camera()
    return Frame(tuple(center.tolist()), float(max((high - low)[:2].max() / 2, 1e-6)))


def _pixel_spacing(count: int, size: int) -> float:
    """Pixels between neighbouring samples of a shape that fills a typical share of the picture."""
    return min(0.85 * size / math.sqrt(max(count, 1)), 0.05 * size)


def _project(
    points: Float[np.ndarray, "n 3"], size: int, frame: Frame, margin: float
) -> tuple[Float[np.ndarray, "m 3"], np.ndarray]:
    """Points in pixels (x right, y down, z towards the viewer), and which of them lie in the picture."""
    seen = (points - np.asarray(frame.center, np.float32)) @ camera().T * ((size / 2 - margin) / frame.radius)
    seen[:, :2] = size / 2 + seen[:, :2] * (1, -1)
    inside = ((seen[:, :2] >= 0) & (seen[:, :2] < size)).all(1)
    return seen[inside], inside


def _cells(seen: Float[np.ndarray, "n 3"], size: int) -> np.ndarray:
    """(N,) the pixel, counted row by row, that each point falls into."""
    return seen[:, 1].astype(np.int64) * size + seen[:, 0].astype(np.int64)


@lru_cache
def _blur(size: int, width: float) -> Float[np.ndarray, "h h"]:
    """The matrix that blurs an image of `size` lines with a Gaussian, where `_blur @ image` mixes its lines.

    One small matrix product does for all lines of all images what a filter does line by line.
    """
    lines = np.arange(size)
    weight = np.exp(-(((lines[:, None] - lines) / width) ** 2) / 2).astype(np.float32)
    return np.where(weight > 1e-4, weight, 0)  # tails would only make denormal numbers, which are slow


def _planes(
    seen: Float[np.ndarray, "n 3"], size: int, width: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The plane z = a x + b y + c fitted (least squares) to the points around each pixel: a, b and z there.

    Points weigh in by a Gaussian of `width` pixels. A fit, where a smoothed depth buffer would turn uneven
    sampling into bumps.
    """
    x, y, z = (seen - (size / 2, size / 2, 0)).T  # about the middle: squares stay small, float32 suffices
    cell = _cells(seen, size)
    moments = [np.ones_like(x), x, y, z, x * x, x * y, y * y, x * z, y * z]
    images = np.stack([np.bincount(cell, m, size * size).reshape(size, size) for m in moments], 1)
    blur = _blur(size, width)
    images = blur @ (images.astype(np.float32).reshape(-1, size) @ blur).reshape(size, -1)
    n, x, y, z, xx, xy, yy, xz, yz = images.reshape(size, 9, size).swapaxes(0, 1)
    share = 1 / np.maximum(n, 1e-6)
    x, y, z = x * share, y * share, z * share
    ridge = 0.1 * width**2  # two points make no plane: then a level one
    xx, yy, xy = xx * share - x * x + ridge, yy * share - y * y + ridge, xy * share - x * y
    xz, yz = xz * share - x * z, yz * share - y * z
    det = 1 / np.maximum(xx * yy - xy * xy, 1e-3)
    a, b = (xz * yy - yz * xy) * det, (yz * xx - xz * xy) * det
    middle = np.arange(size, dtype=np.float32) + 0.5 - size / 2
    return a, b, z + a * (middle - x) + b * (middle[:, None] - y)


def _front(seen: Float[np.ndarray, "n 3"], size: int, spacing: float) -> Float[np.ndarray, "m 3"]:
    """The points of the layer nearest to the viewer.

    First what stands far behind a neighbour goes, then twice what lies behind the plane through its
    surroundings: of an outer and an inner wall the outer one stays.
    """
    from scipy.ndimage import maximum_filter

    reach = math.ceil(1.2 * spacing)
    cell = _cells(seen, size)
    nearest = np.full(size * size, -np.inf)
    np.maximum.at(nearest, cell, seen[:, 2])
    nearest = maximum_filter(nearest.reshape(size, size), 2 * reach + 1, mode="nearest").ravel()
    slope = 1 / math.tan(ELEVATION)  # a level floor gains this much depth per pixel: it does not hide itself
    seen = seen[seen[:, 2] >= nearest[cell] - slope * (reach + 1)]
    for tolerance in (0.8 * spacing, 0.6 * spacing):
        _, _, depth = _planes(seen, size, 1.1 * spacing)
        seen = seen[seen[:, 2] >= depth.ravel()[_cells(seen, size)] - tolerance]
    return seen


def _light(seen: Float[np.ndarray, "n 3"], size: int, spacing: float) -> Float[np.ndarray, "h w"]:
    """Brightness of each pixel: Lambert on the fitted planes, darker in hollows and behind edges."""
    from scipy.ndimage import uniform_filter

    front = 2 * _front(seen / 2, (size + 1) // 2, spacing / 2)  # half the resolution decides as well
    a, b, depth = _planes(front, size, max(0.85 * spacing, 0.8))
    lambert = (-a * LIGHT[0] + b * LIGHT[1] + LIGHT[2]) / np.sqrt(a * a + b * b + 1)  # image y points down
    # Depth below its surroundings is a hollow or lies behind an edge: a cheap ambient occlusion.
    hollow = np.clip((uniform_filter(depth, size // 10) - depth) / (0.08 * size), -0.3, 1)
    return uniform_filter(np.clip(0.36 + 0.74 * np.clip(lambert, 0, 1) - 0.3 * hollow, 0.12, 1.2), 3)


def _coverage(seen: Float[np.ndarray, "n 3"], size: int, spacing: float) -> Float[np.ndarray, "h w"]:
    """Opacity: the points, grown until the gaps between them close, then shrunk back to the outline."""
    from scipy.ndimage import distance_transform_edt

    grow = 2.0 * spacing
    pad = math.ceil(grow) + 1
    gaps = np.ones(size * size, bool)
    gaps[_cells(seen, size)] = False
    gaps = np.pad(gaps.reshape(size, size), pad, constant_values=True)
    outline = distance_transform_edt(distance_transform_edt(gaps) <= grow)
    return np.clip(outline - 0.85 * grow + 0.6, 0, 1)[pad:-pad, pad:-pad]


def render(
    points: Float[np.ndarray, "n 3"], size: int = 96, color: tuple[float, float, float] = CLAY,
    frame: Frame | None = None,
) -> UInt8[np.ndarray, "h w 4"]:
    """Points (N, 3), z up -> picture (size, size, 4), straight alpha.

    `frame` None: the shape fills the picture. Points that are not finite, or outside the frame, are left out.
    """
    points = np.asarray(points, np.float32)
    points = points[np.isfinite(points).all(1)]
    if len(points) == 0:
        return np.zeros((size, size, 4), np.uint8)
    spacing = _pixel_spacing(len(points), size)
    seen, _ = _project(points, size, frame or fit_frame(points), margin=0.03 * size + spacing)
    if len(seen) == 0:
        return np.zeros((size, size, 4), np.uint8)
    light = _light(seen, size, spacing)[..., None]
    rgb = np.asarray(color) * light + 0.3 * np.clip(light - 0.85, 0, 1)  # highlights turn white, not garish
    image = np.concatenate([np.clip(rgb, 0, 1), _coverage(seen, size, spacing)[..., None]], -1)
    return np.rint(image * 255).astype(np.uint8)


def render_points(
    points: Float[np.ndarray, "n 3"], size: int = 200, colors: Float[np.ndarray, "n 3"] | None = None,
    frame: Frame | None = None,
) -> UInt8[np.ndarray, "h w 4"]:
    """Every point (N, 3) as a small ball, near over far, so that jitter and missing points stay visible.

    colors: (N, 3) in 0 to 1, one per point; None: clay.
    """
    points = np.asarray(points, np.float32)
    colors = np.broadcast_to(np.asarray(CLAY if colors is None else colors, np.float32), points.shape)
    finite = np.isfinite(points).all(1)
    fine, radius = 2 * size, max(0.011 * 2 * size, 2.0)
    image = np.zeros((fine * fine, 4), np.float32)
    if finite.any():
        frame = frame or fit_frame(points[finite])
        seen, inside = _project(points[finite], fine, frame, margin=0.03 * fine + radius)
        order = np.argsort(seen[:, 2], kind="stable")  # far to near: numpy keeps the last value written
        seen, colors = seen[order], colors[finite][inside][order]
        reach = math.ceil(radius)
        dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1][:, :, :, None].reshape(2, -1)
        dy, dx = (d[dx**2 + dy**2 <= radius**2] for d in (dy, dx))
        x, y = (np.clip(seen[:, i, None].astype(np.int64) + d, 0, fine - 1) for i, d in ((0, dx), (1, dy)))
        ball = 0.98 - 0.14 * (dx + dy) / radius
        fog = np.clip(0.95 + 0.3 * seen[:, 2:] / fine, 0.75, 1.1)
        image[(y * fine + x).ravel(), :3] = ((ball * fog)[..., None] * colors[:, None]).reshape(-1, 3)
        image[(y * fine + x).ravel(), 3] = 1
    image = np.clip(image, 0, 1).reshape(size, 2, size, 2, 4).mean((1, 3))
    image[..., :3] /= np.maximum(image[..., 3:], 1e-6)
    return np.rint(image * 255).astype(np.uint8)


@dataclass(frozen=True)
class Atlas:
    """Many thumbnails in one picture, so that a page carries each shape once and shows it many times.

    images: (S, H, W, 4) uint8.
    """

    images: UInt8[np.ndarray, "s h w 4"]

    @classmethod
    def of(cls, clouds: Float[np.ndarray, "s n 3"], size: int = 96) -> Atlas:
        """One thumbnail of every shape (S, N, 3)."""
        from threadpoolctl import threadpool_limits

        if len(clouds) == 0:
            raise DataError("thumbnails", "no shapes", "at least one")
        with threadpool_limits(1):  # the matrices are small: more threads would only wait for each other
            return cls(np.stack([render(points, size) for points in clouds]))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def columns(self) -> int:
        return math.ceil(math.sqrt(len(self)))

    @property
    def rows(self) -> int:
        return math.ceil(len(self) / self.columns)

    @cached_property
    def sheet(self) -> UInt8[np.ndarray, "h w 4"]:
        """All thumbnails row by row in one picture."""
        _, h, w, _ = self.images.shape
        sheet = np.zeros((self.rows * self.columns, h, w, 4), np.uint8)
        sheet[: len(self)] = self.images
        return sheet.reshape(self.rows, self.columns, h, w, 4).swapaxes(1, 2).reshape(self.rows * h, -1, 4)

    def position(self, row: int) -> tuple[float, float]:
        """CSS background-position of one thumbnail, in percent of the space that the sheet overhangs."""
        y, x = divmod(row, self.columns)
        return 100 * x / max(self.columns - 1, 1), 100 * y / max(self.rows - 1, 1)


def data_uri(image: UInt8[np.ndarray, "h w 4"], quality: int = 72) -> str:
    """A picture as a `data:` address (WebP), which a page can carry inside itself."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image, "RGBA").save(buffer, "WEBP", quality=quality, alpha_quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
