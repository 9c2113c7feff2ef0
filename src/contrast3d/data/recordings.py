"""`Recording`: one sequence of depth images with the poses of their camera, whatever files it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16, Shaped, UInt16

from contrast3d.errors import DataError
from contrast3d.ops.depth_views import SATURATED, depth_view

FARTHEST = 1e6  # metres between camera and origin
ORTHONORMAL = 0.02  # by how much R^T R may differ from the identity; of published poses at most 4e-4


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: focal lengths and principal point in pixels; bx, by metres, ScanNet's depth offset."""

    fx: float
    fy: float
    cx: float
    cy: float
    bx: float = 0.0
    by: float = 0.0


@dataclass(frozen=True)
class Frame:
    """One depth image, read when asked for. Both functions raise a DataError where the frame is of no use.

    pose: () -> (4, 4) float64, camera to world, metres. depth: () -> (H, W) uint16, 0 or 65535 where unknown.
    """

    name: str
    number: int
    pose: Callable[[], np.ndarray]
    depth: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Recording:
    """Frames in order, their camera, and how many units of depth make a metre."""

    name: str
    path: Path
    layout: str
    camera: Camera
    units: float
    frames: tuple[Frame, ...]

    def every(self, step: int) -> list[Frame]:
        """The first frame, then each that is `step` numbers or more behind the last one taken.

        So frames that were exported 25 apart already are all taken at a step of 25.
        """
        taken: list[Frame] = []
        for frame in self.frames:
            if not taken or frame.number - taken[-1].number >= step:
                taken.append(frame)
        return taken


def view_of(
    depth: UInt16[np.ndarray, "h w"], pose: Float[np.ndarray, "4 4"], recording: Recording, thin: float, voxel: float
) -> tuple[Int16[np.ndarray, "n 3"], Float[np.ndarray, "m 3"]]:
    """`ops.depth_views.depth_view` of a frame; a DataError where camera and image do not go together."""
    camera, (height, width) = recording.camera, depth.shape
    if not (0 < camera.cx < width and 0 < camera.cy < height):
        found = f"a depth image of {width} x {height} and a camera centred at ({camera.cx:g}, {camera.cy:g})"
        raise DataError("intrinsics", found, "the intrinsics of the depth camera, at the resolution of its images")
    return depth_view(depth, astuple(camera), recording.units, pose, thin, voxel)


def moved(points: Float[np.ndarray, "n 3"], pose: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "n 3"]:
    """Points taken to another frame; written out, as BLAS would wake its threads for three columns."""
    x, y, z = points.T
    return np.stack([row[0] * x + row[1] * y + row[2] * z + row[3] for row in pose[:3]], 1)


def checked_pose(pose: Shaped[np.ndarray, "..."], where: str) -> Float[np.ndarray, "4 4"]:
    """The pose as float64; a DataError where it is lost (NaN, infinite) or no rigid motion."""
    if pose.shape != (4, 4):
        raise DataError(where, f"a pose of shape {pose.shape}", "4 x 4 numbers, camera to world")
    pose = pose.astype(np.float64)
    if not np.isfinite(pose).all():
        raise DataError(where, "the pose is lost (NaN or infinite)", "a tracked frame")
    turn = pose[:3, :3]
    rigid = np.abs(turn.T @ turn - np.eye(3)).max() <= ORTHONORMAL and np.linalg.det(turn) > 0 and pose[3, 3] == 1
    if not rigid or np.abs(pose[:3, 3]).max() > FARTHEST:
        raise DataError(where, "the pose is no rotation and translation", "4 x 4 numbers, camera to world")
    return pose


def read_numbers(path: Path, shapes: Sequence[tuple[int, int]], what: str) -> Float[np.ndarray, "h w"]:
    """A text file of numbers in one of the shapes; a DataError says what else it is."""
    expected = f"{' or '.join(f'{h} x {w}' for h, w in shapes)} numbers, {what}"
    try:
        words = path.read_bytes().split()
    except OSError as error:
        raise DataError(str(path), error.strerror or "cannot be read", expected) from None
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        raise DataError(str(path), "something that is no number", expected) from None
    for shape in shapes:
        if values.size == shape[0] * shape[1]:
            return values.reshape(shape)
    raise DataError(str(path), f"{values.size} numbers", expected)


def pose_file(path: Path) -> Float[np.ndarray, "4 4"]:
    """A pose from a text file of 16 numbers."""
    return checked_pose(read_numbers(path, [(4, 4)], "the pose, camera to world"), str(path))


def camera_file(path: Path) -> Camera:
    """Intrinsics from a text file of 3 x 3 or 4 x 4 numbers."""
    matrix = read_numbers(path, [(3, 3), (4, 4)], "the intrinsics of the depth camera")
    return checked_camera(matrix, str(path))


def checked_camera(matrix: Float[np.ndarray, "n n"], where: str) -> Camera:
    """The camera of a 3 x 3 or 4 x 4 intrinsic matrix; of the latter the last column moves points sideways."""
    offset = matrix[:2, 3] if len(matrix) == 4 else (0.0, 0.0)
    values = [float(v) for v in (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], *offset)]
    if not np.isfinite(values).all() or min(values[:2]) <= 0:
        raise DataError(where, f"focal lengths {values[0]:g} and {values[1]:g}", "positive numbers of pixels")
    return Camera(*values)


def depth_png(path: Path) -> UInt16[np.ndarray, "h w"]:
    """A 16-bit grey PNG as (H, W) uint16; a DataError where it is missing, truncated or something else."""
    from PIL import Image

    expected = "a 16-bit grey PNG of depths"
    try:
        with Image.open(path) as image:
            if image.mode not in ("I;16", "I;16B", "I"):
                raise DataError(str(path), f"an image of mode {image.mode}", expected)
            depth = np.asarray(image)
    except FileNotFoundError:
        raise DataError(str(path), "no such file", expected) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(str(path), f"cannot be read: {error}", expected) from None
    return depth.clip(0, SATURATED).astype(np.uint16)
