"""Folders of depth images as ScanNet, 7-Scenes and TUM RGB-D lay them out, each as a `Recording`."""

from __future__ import annotations

import re
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from contrast3d.data.recordings import Camera, Frame, Recording, camera_file, checked_pose, depth_png, pose_file
from contrast3d.errors import DataError, MissingDataError

MILLIMETRES, TUM_UNITS = 1000.0, 5000.0
ASSOCIATED_S = 0.02  # TUM's own tools take a pose that is at most so far from the image
KINECT = Camera(585.0, 585.0, 320.0, 240.0)  # what the authors of 7-Scenes give for all of its scenes
# Of the colour images, which the depth images of TUM RGB-D are registered to; by sub-data set.
TUM_CAMERAS = {
    "freiburg1": Camera(517.3, 516.5, 318.6, 255.3), "freiburg2": Camera(520.9, 521.0, 325.1, 249.7),
    "freiburg3": Camera(535.4, 539.2, 320.1, 247.6),
}
TUM_DEFAULT = Camera(525.0, 525.0, 319.5, 239.5)


def scannet_frames(folder: Path, camera: Camera | None) -> Recording:
    """Exported frames: depth/N.png in millimetres, pose/N.txt, intrinsic/intrinsic_depth.txt."""
    paths = [path for path in (folder / "depth").iterdir() if path.suffix.lower() == ".png" and path.stem.isdigit()]
    paths.sort(key=lambda path: int(path.stem))
    if not paths:
        raise DataError(str(folder / "depth"), "no depth images", "0.png, 25.png ...")
    places = [folder / place / "intrinsic_depth.txt" for place in ("intrinsic", "intrinsics", "pose", "")]
    found = next((place for place in places if place.is_file()), None)
    if camera is None and found is None:
        raise MissingDataError(str(places[0]), "no such file", "4 x 4 numbers, the intrinsics of the depth camera",
                               "--intrinsics FX FY CX CY")
    frames = tuple(
        Frame(path.name, int(path.stem), partial(pose_file, folder / "pose" / f"{path.stem}.txt"),
              partial(depth_png, path)) for path in paths
    )
    return Recording(folder.name, folder, "ScanNet frames", camera or camera_file(found), MILLIMETRES, frames)


def seven_scenes(folder: Path, camera: Camera | None) -> Recording:
    """frame-NNNNNN.depth.png in millimetres with frame-NNNNNN.pose.txt; camera-intrinsics.txt here or one folder up."""
    if camera is None:
        places = [place / "camera-intrinsics.txt" for place in (folder, folder.absolute().parent)]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            warnings.warn(f"{folder}: no camera-intrinsics.txt; taking the Kinect of 7-Scenes, focal length 585, "
                          "centre (320, 240)", UserWarning, stacklevel=2)
        camera = camera_file(found) if found else KINECT
    frames = []
    for path in sorted(folder.glob("frame-*.depth.png")):
        stem = path.name.removesuffix(".depth.png")
        digits = stem.removeprefix("frame-")
        if digits.isdigit():
            pose = partial(pose_file, folder / f"{stem}.pose.txt")
            frames.append(Frame(path.name, int(digits), pose, partial(depth_png, path)))
    return Recording(folder.name, folder, "7-Scenes", camera, MILLIMETRES, tuple(frames))


def tum(folder: Path, camera: Camera | None) -> Recording:
    """depth.txt lists times and images, groundtruth.txt times and poses; 5000 units of depth are a metre.

    An image gets the pose nearest in time. The frames are numbered as depth.txt lists them.
    """
    images = _timed_lines(folder / "depth.txt", 2, "time file")
    poses = _timed_lines(folder / "groundtruth.txt", 8, "time tx ty tz qx qy qz qw")
    if camera is None:
        hit = re.search("freiburg[123]", str(folder.absolute()))
        camera = TUM_CAMERAS[hit[0]] if hit else TUM_DEFAULT
        if not hit:
            warnings.warn(f"{folder}: no freiburg1, 2 or 3 in its name; taking the default camera of TUM RGB-D, "
                          "focal length 525, centre (319.5, 239.5); else --intrinsics FX FY CX CY", UserWarning,
                          stacklevel=2)
    poses.sort(key=lambda line: line[0])
    times = np.array([time for time, _ in poses])
    frames = tuple(
        Frame(words[0], number, partial(_pose_at, time, times, poses, folder / words[0]),
              partial(depth_png, folder / words[0])) for number, (time, words) in enumerate(images)
    )
    return Recording(folder.name, folder, "TUM RGB-D", camera, TUM_UNITS, frames)


def _timed_lines(path: Path, least: int, columns: str) -> list[tuple[float, list[str]]]:
    """(time, other words) of every line that is no comment."""
    lines = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(path), f"cannot be read: {error}", f"lines of {columns}") from None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            lines.append((float(words[0]), words[1:]))
        except ValueError:
            words = []
        if len(words) < least:
            raise DataError(f"{path} line {number}", line[:80], columns)
    if not lines:
        raise DataError(str(path), "nothing listed", f"lines of {columns}")
    return lines


def _pose_at(time: float, times: np.ndarray, poses: list[tuple[float, list[str]]], where: Path
             ) -> Float[np.ndarray, "4 4"]:
    after = int(np.searchsorted(times, time))
    nearest = min(range(max(after - 1, 0), min(after + 1, len(times))), key=lambda i: abs(times[i] - time))
    if not abs(times[nearest] - time) <= ASSOCIATED_S:
        raise DataError(str(where), f"no pose within {ASSOCIATED_S} s", "a tracked frame")
    try:
        tx, ty, tz, *quaternion = (float(word) for word in poses[nearest][1][:7])
    except ValueError:
        raise DataError(str(where), "its pose is no row of numbers", "time tx ty tz qx qy qz qw") from None
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation(*quaternion), (tx, ty, tz)
    return checked_pose(pose, str(where))


def rotation(x: float, y: float, z: float, w: float) -> Float[np.ndarray, "3 3"]:
    """The rotation of a quaternion of any length, w last; all NaN for (0, 0, 0, 0)."""
    length = np.sqrt(x * x + y * y + z * z + w * w)
    if not length > 0:
        return np.full((3, 3), np.nan)
    x, y, z, w = x / length, y / length, z / length, w / length
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])
