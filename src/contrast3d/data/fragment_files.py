"""Fragments of 3DMatch as PREDATOR publishes them: cloud_bin_N.pth, a pickled array, and cloud_bin_N.info.txt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from contrast3d.data.recordings import checked_pose
from contrast3d.data.scene_views import MILLIMETRES, SceneViews
from contrast3d.errors import DataError
from contrast3d.inert_pickle import read_pickled
from contrast3d.ops.depth_views import REACH

PATTERN = "cloud_bin_*.pth"
_INFO = "`scene sequence first last`, then 4 x 4 numbers, the pose, fragment to world"


def read_fragments(folder: Path, name: str) -> tuple[SceneViews, list[tuple[str, str]]]:
    """(the fragments by number, (file, why) of those of no use); a DataError where none can be used."""
    paths = [path for path in folder.glob(PATTERN) if _number(path).isdigit()]
    paths.sort(key=lambda path: int(_number(path)))
    clouds, poses, frames, skipped = [], [], [], []
    for path in paths:
        try:
            cloud, (pose, span) = _cloud(path), _info(path.with_suffix(".info.txt"))
        except DataError as error:
            skipped.append((path.name, str(error)))
            continue
        clouds.append(np.rint(cloud * MILLIMETRES).astype(np.int16))
        poses.append(pose)
        frames.append(span)
    if not clouds:
        why = f", the first because of {skipped[0][1]}" if skipped else ""
        raise DataError(str(folder), f"none of {len(paths)} fragments can be used{why}", "cloud_bin_0.pth ...")
    offsets = np.cumsum([0] + [len(cloud) for cloud in clouds]).astype(np.int64)
    views = SceneViews(np.concatenate(clouds), offsets, np.stack(poses), name, np.array(frames, np.int64))
    return views, skipped


def _number(path: Path) -> str:
    return path.stem.removeprefix("cloud_bin_")


def _cloud(path: Path) -> Float[np.ndarray, "n 3"]:
    """(N, 3) float64 metres, in the fragment's own frame."""
    content = read_pickled(path)
    cloud = content.numpy() if isinstance(content, torch.Tensor) else content
    if not isinstance(cloud, np.ndarray) or cloud.dtype.kind != "f" or cloud.ndim != 2 or cloud.shape[1] != 3:
        found = f"{cloud.dtype} of shape {cloud.shape}" if isinstance(cloud, np.ndarray) else type(content).__name__
        raise DataError(str(path), found, "an array (N, 3) of floats")
    if not len(cloud) or not np.abs(cloud).max() <= REACH:
        raise DataError(str(path), "no points, or some beyond 32 m or NaN", "an array (N, 3) of metres")
    return cloud.astype(np.float64)


def _info(path: Path) -> tuple[Float[np.ndarray, "4 4"], tuple[int, int]]:
    """(the pose, (first, last) frame)."""
    try:
        head, _, rest = path.read_text(encoding="utf-8").partition("\n")
        first, last = (int(word) for word in head.split()[-2:])
        numbers = np.array([float(word) for word in rest.split()])
    except OSError as error:
        raise DataError(str(path), error.strerror or "cannot be read", _INFO) from None
    except ValueError:
        raise DataError(str(path), "something else", _INFO) from None
    if numbers.size != 16:
        raise DataError(str(path), f"{numbers.size} numbers", _INFO)
    return checked_pose(numbers.reshape(4, 4), str(path)), (first, last)
