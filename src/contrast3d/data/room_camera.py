"""A simulated depth camera that is carried through a generated room: partial views, or an RGB-D recording on disk."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from contrast3d.data.room_colors import shade
from contrast3d.data.room_path import walk
from contrast3d.data.room_seats import Rng
from contrast3d.data.rooms import Room
from contrast3d.data.scene_views import MILLIMETRES, SceneViews
from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.depth_image import depth_images

ABOUT = "about.json"  # in the folder of a recording: what it was made with
NUMBERING = 25  # file numbers are this far apart: a reader that takes every 25th frame takes all of them
_FOCAL = 577.87 / 640  # of the width: ScanNet's sensor
_DISPARITY = 8 * 585 * 0.075  # Kinect: eighths of a pixel at a depth of one metre
_NEAREST, _FARTHEST = 0.35, 6.0  # metres
_WALK, _NOISE = 10, 11  # streams of random numbers beside those of `rooms`


@dataclass(frozen=True)
class Frames:
    """A walk of V frames. depth_mm: (V, H, W) uint16, 0 for none. faces: (V, H, W) int32 triangle, -1 for none.

    poses: (V, 4, 4) float64 camera to world. intrinsics: (3, 3) float64, pixels.
    """

    depth_mm: np.ndarray
    faces: np.ndarray
    poses: np.ndarray
    intrinsics: np.ndarray

    def points(self, view: int) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) float64 metres in the camera's frame, and the pixel (N,) of each, row by row."""
        depth = self.depth_mm[view].ravel()
        pixels = np.flatnonzero(depth)
        z, width = depth[pixels] / MILLIMETRES, self.depth_mm.shape[2]
        k = self.intrinsics
        x, y = (pixels % width - k[0, 2]) / k[0, 0] * z, (pixels // width - k[1, 2]) / k[1, 1] * z
        return np.stack([x, y, z], 1), pixels


def film(room: Room, num_frames: int = 30, *, width: int = 160, height: int = 120, noise: bool = True) -> Frames:
    """Depth frames along a smooth walk through the room, a function of the room and the arguments.

    noise: that of a structured-light sensor: it grows with the square of the distance (Nguyen et al. 2012), depth comes
    in steps of disparity, and nothing comes back at edges, grazing angles, from glass and from beyond 6 m.
    Raises ConfigError for fewer than one frame or images smaller than 2 x 2.
    """
    if num_frames < 1 or width < 2 or height < 2:
        raise ConfigError(f"{num_frames} frames of {width} x {height}: at least one frame of 2 x 2 pixels")
    focal = _FOCAL * width
    intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    poses = walk(room.plan, room.placed, room.stream(_WALK), num_frames)
    depth, faces = depth_images(
        torch.from_numpy(room.triangles), torch.from_numpy(poses), torch.from_numpy(intrinsics), (height, width)
    )
    depth, faces, rng = depth.numpy(), faces.numpy(), room.stream(_NOISE)
    for view in range(num_frames if noise else 0):
        depth[view] = _sensed(room, depth[view], faces[view], poses[view], intrinsics, rng)
    millimetres = np.rint(depth * MILLIMETRES).astype(np.uint16)
    return Frames(millimetres, np.where(millimetres > 0, faces, -1), poses, intrinsics)


def _sensed(
    room: Room, depth: np.ndarray, faces: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray, rng: Rng
) -> np.ndarray:
    """(H, W) metres as a sensor would measure them."""
    height, width = depth.shape
    ray_x = (np.arange(width) - intrinsics[0, 2]) / intrinsics[0, 0]
    ray_y = (np.arange(height)[:, None] - intrinsics[1, 2]) / intrinsics[1, 1]
    normals = (room.normals @ pose[:3, :3].astype(np.float32))[faces]
    length = np.sqrt(1 + ray_x**2 + ray_y**2)
    facing = np.abs(normals[..., 0] * ray_x + normals[..., 1] * ray_y + normals[..., 2]) / length
    lost = rng.random(depth.shape) > facing / 0.25  # of what is seen at less than 15 degrees, ever more
    lost |= room.paints.glass[room.materials[faces]] & (rng.random(depth.shape) < 0.9)
    lost |= _edges(depth) & (rng.random(depth.shape) < 0.7)
    lost |= (depth < _NEAREST) | (depth > _FARTHEST)
    sigma = 0.0012 + 0.0019 * (depth - 0.4) ** 2
    noisy = np.maximum(depth + sigma * rng.standard_normal(depth.shape, np.float32), 0.1)
    return np.where(lost, 0, _DISPARITY / np.rint(_DISPARITY / noisy))


def _edges(depth: np.ndarray) -> np.ndarray:
    """Where the depth jumps against the pixel to the left, right, above or below: nearly always between two things."""
    edges = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        jump = np.abs(np.diff(depth, axis=axis)) > 0.03 + 0.03 * np.minimum(*_pairs(depth, axis))
        first, second = _pairs(edges, axis)
        first |= jump
        second |= jump
    return edges


def _pairs(image: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    return (image[:-1], image[1:]) if axis == 0 else (image[:, :-1], image[:, 1:])


def room_views(
    room: Room, num_frames: int = 30, *, width: int = 160, height: int = 120, noise: bool = True
) -> SceneViews:
    """The walk of `film` as partial views of the scene, not yet searched for pairs."""
    frames = film(room, num_frames, width=width, height=height, noise=noise)
    numbers = np.arange(num_frames)
    views = [frames.points(i)[0] for i in range(num_frames)]
    return SceneViews.of(views, frames.poses, room.name, frames=np.stack([numbers, numbers], 1))


def write_rgbd(
    room: Room, folder: Path | str, num_frames: int = 30, *, width: int = 160, height: int = 120, noise: bool = True,
    about: dict | None = None,
) -> Path:
    """Write the walk of `film` as ScanNet exports a recording, whole or not at all; the folder must be new or empty.

    depth/<i>.png (uint16 millimetres), color/<i>.jpg, pose/<i>.txt (camera to world), intrinsic/*.txt; i = 0, 25, 50.
    about: what the file about.json there is to say. Raises DataError where the folder holds something already.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(str(folder), "something is there already", "a new or an empty folder")
    frames = film(room, num_frames, width=width, height=height, noise=noise)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    try:
        _write(room, frames, part)
        if about is not None:
            (part / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        part.chmod(0o755)
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def _write(room: Room, frames: Frames, folder: Path) -> None:
    from PIL import Image

    for name in ("depth", "color", "pose", "intrinsic"):
        (folder / name).mkdir()
    camera = np.eye(4)
    camera[:3, :3] = frames.intrinsics
    for name in ("depth", "color"):
        _write_matrix(folder / "intrinsic" / f"intrinsic_{name}.txt", camera)
        _write_matrix(folder / "intrinsic" / f"extrinsic_{name}.txt", np.eye(4))
    for view, depth in enumerate(frames.depth_mm):
        number = NUMBERING * view
        Image.fromarray(depth).save(folder / "depth" / f"{number}.png")
        Image.fromarray(_color(room, frames, view)).save(folder / "color" / f"{number}.jpg", quality=92)
        _write_matrix(folder / "pose" / f"{number}.txt", frames.poses[view])


def _write_matrix(path: Path, matrix: np.ndarray) -> None:
    path.write_text("".join(" ".join(f"{v:.9f}" for v in row) + "\n" for row in matrix), encoding="ascii")


def _color(room: Room, frames: Frames, view: int) -> np.ndarray:
    """(H, W, 3) uint8 colours of what was measured; black where nothing was."""
    points, pixels = frames.points(view)
    pose, faces = frames.poses[view], frames.faces[view].ravel()[pixels]
    world = points @ pose[:3, :3].T + pose[:3, 3]
    image = np.zeros((*frames.depth_mm.shape[1:], 3), np.uint8)
    rng = room.stream(_NOISE + 1 + view)
    image.reshape(-1, 3)[pixels] = shade(room.paints, world, room.normals[faces], room.materials[faces], rng)
    return image
