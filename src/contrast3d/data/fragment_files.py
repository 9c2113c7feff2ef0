"""Fragments of 3DMatch as PREDATOR publishes them: cloud_bin_N.pth, a pickled array, and cloud_bin_N.info.txt.

Beside them may be gt.log, 3DMatch's own list of the pairs that are to be registered: `i j n`, of n fragments, then
4 x 4 numbers that take coordinates of fragment j to those of i, inv(pose_i) @ pose_j (getGtInfoLog.m of its toolbox).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from contrast3d.data.recordings import checked_pose
from contrast3d.data.scene_views import MILLIMETRES, SceneViews
from contrast3d.errors import ConfigError, DataError
from contrast3d.inert_pickle import read_pickled
from contrast3d.ops.depth_views import REACH

PATTERN = "cloud_bin_*.pth"
GT = "gt.log"
SAME_POSE = 0.01  # metres, and sines: lists repeat the poses to 8 digits, poses of some files have only 5
_INFO = "`scene sequence first last`, then 4 x 4 numbers, the pose, fragment to world"
_GT = "for each pair of fragments `i j n`, i below j below n, then 4 x 4 numbers, fragment j to fragment i"


class GtLog(NamedTuple):
    """A list of pairs: their numbers (P, 2) int64, i < j; (P, 4, 4) float64, which takes j to i; of how many fragments.
    """

    pairs: np.ndarray
    poses: np.ndarray
    fragments: int


def read_fragments(folder: Path, name: str) -> tuple[SceneViews, list[tuple[str, str]]]:
    """(the fragments by number, (file, why) of those of no use); a DataError where none can be used.

    Where there is a gt.log (see `find_gt_log`), `pairs` are those it lists, and `overlaps` 0, as it does not say them.
    """
    paths = [path for path in folder.glob(PATTERN) if _number(path).isdigit()]
    paths.sort(key=lambda path: int(_number(path)))
    clouds, poses, frames, numbers, skipped = [], [], [], [], []
    for path in paths:
        try:
            cloud, (pose, span) = _cloud(path), _info(path.with_suffix(".info.txt"))
        except DataError as error:
            skipped.append((path.name, str(error)))
            continue
        clouds.append(np.rint(cloud * MILLIMETRES).astype(np.int16))
        poses.append(pose)
        frames.append(span)
        numbers.append(int(_number(path)))
    if not clouds:
        why = f", the first because of {skipped[0][1]}" if skipped else ""
        raise DataError(str(folder), f"none of {len(paths)} fragments can be used{why}", "cloud_bin_0.pth ...")
    offsets = np.cumsum([0] + [len(cloud) for cloud in clouds]).astype(np.int64)
    views = SceneViews(np.concatenate(clouds), offsets, np.stack(poses), name, np.array(frames, np.int64))
    return _listed(views, folder, numbers, skipped), skipped


def find_gt_log(scene: Path) -> Path | None:
    """The gt.log of a scene; None where there is none.

    scene: a folder of fragments, with the list within; or NAME, or NAME.npz, with NAME-evaluation/gt.log beside it, as
    3DMatch publishes them, or NAME/gt.log, as PREDATOR does.
    """
    scene = scene.absolute()
    name = scene.stem if scene.suffix == ".npz" else scene.name
    places = (scene.with_name(name), scene.with_name(f"{name}-evaluation"))
    return next((place / GT for place in places if (place / GT).is_file()), None)


def read_gt_log(path: Path) -> GtLog:
    """Read a list of pairs; a DataError says what else the file is."""
    try:
        words = path.read_text(encoding="utf-8").split()
        numbers = np.array([float(word) for word in words])
    except OSError as error:
        raise DataError(str(path), error.strerror or "cannot be read", _GT) from None
    except ValueError:
        raise DataError(str(path), "something that is no number", _GT) from None
    if not len(numbers) or len(numbers) % 19:
        raise DataError(str(path), f"{len(numbers)} numbers, {len(numbers) % 19} too many for pairs of 3 + 16", _GT)
    rows = numbers.reshape(-1, 19)
    with np.errstate(invalid="ignore"):  # NaN becomes some number, and so differs from it
        heads, poses = rows[:, :3].astype(np.int64), rows[:, 3:].reshape(-1, 4, 4)
    i, j, count = heads.T
    odd = (heads != rows[:, :3]).any(1) | (i < 0) | (i >= j) | (j >= count) | (count != count[0])
    if odd.any():
        raise DataError(str(path), f"`{' '.join(f'{v:g}' for v in rows[odd][0, :3])}` of {count[0]} fragments", _GT)
    if len(np.unique(heads, axis=0)) < len(heads):
        raise DataError(str(path), "a pair that is listed twice", _GT)
    return GtLog(heads[:, :2], np.stack([checked_pose(pose, str(path)) for pose in poses]), int(count[0]))


def write_gt_log(scene: SceneViews, path: Path) -> Path:
    """Write the pairs of a scene, and their poses, as `read_gt_log` reads them."""
    lines = []
    for i, j in scene.pairs.tolist():
        lines.append(f"{i}\t {j}\t {len(scene)}\t")
        lines += ["\t ".join(f"{v:15.8e}" for v in row) + "\t" for row in scene.relative(j, i)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def with_gt_pairs(scene: SceneViews, folder: Path) -> SceneViews:
    """A scene of all its fragments with the pairs of the gt.log beside `folder`/NAME.npz; `overlaps` are then 0.

    A ConfigError where there is none, a DataError where it is of other fragments.
    """
    path = find_gt_log(folder / f"{scene.name}.npz")
    if path is None:
        beside = folder / f"{scene.name}-evaluation"
        raise ConfigError(f"{scene.name} has no list of pairs: {beside / GT} is not there; expected the one that "
                          f"3DMatch publishes. Try: its archive {beside.name}.zip, unpacked in {folder}, or pairs by "
                          "overlap")
    listed = read_gt_log(path)
    if listed.fragments != len(scene):
        raise DataError(str(path), f"pairs of {listed.fragments} fragments", f"of {len(scene)}, as {scene.name} has")
    return _with(scene, listed, range(len(scene)), path)


def _listed(views: SceneViews, folder: Path, numbers: Sequence[int], skipped: list[tuple[str, str]]) -> SceneViews:
    """The views with the pairs of their gt.log; what of it is of no use is added to `skipped`."""
    path = find_gt_log(folder)
    if path is None:
        return views
    try:
        listed = read_gt_log(path)
        known = np.isin(listed.pairs, numbers).all(1)
        kept = GtLog(listed.pairs[known], listed.poses[known], listed.fragments)
        found = _with(views, kept, numbers, path)
    except DataError as error:
        skipped.append((GT, str(error)))
        return views
    if not known.all():
        skipped.append((GT, f"{path}: {(~known).sum()} of {len(known)} pairs are of fragments that cannot be used"))
    return found


def _with(scene: SceneViews, listed: GtLog, numbers: Sequence[int], path: Path) -> SceneViews:
    """numbers: of the fragments that are the views, rising. A DataError where the list and the poses are at odds."""
    rows = np.searchsorted(np.asarray(numbers), listed.pairs).astype(np.int64)
    for (i, j), said, (a, b) in zip(listed.pairs.tolist(), listed.poses, rows.tolist()):
        apart = np.abs(scene.relative(b, a) - said).max()
        if apart > SAME_POSE:
            found = f"a pose of fragments {i} and {j} that is {apart:.2g} from that of their own poses in {scene.name}"
            raise DataError(str(path), found, f"the list of this scene, {_GT}")
    return replace(scene, pairs=rows, overlaps=np.zeros(len(rows), np.float32), min_overlap=None)


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
