"""`SceneViews`: the partial views of one scene, their poses, and which of them overlap; one file per scene."""

from __future__ import annotations

import os
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from contrast3d.errors import DataError, MissingDataError

MILLIMETRES = 1000.0
_ARRAYS = {  # what a file holds: the kinds of its type, and its shape, -1 for any length
    "xyz_mm": ("i", (-1, 3)), "offset": ("iu", (-1,)), "pose": ("f", (-1, 4, 4)), "frames": ("iu", (-1, 2)),
    "pairs": ("iu", (-1, 2)), "overlap": ("f", (-1,)), "min_overlap": ("f", ()),
}
USUAL_OVERLAP = 0.3  # PointContrast's, from which on pairs are searched for unless something else is asked for
_OPTIONAL = {"frames", "pairs", "overlap", "min_overlap"}
# What zipfile, zlib and numpy raise on damaged bytes: a length out of the air wants more memory than there is.
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
EXPECTED = (
    "a .npz with xyz_mm (N, 3) int16, offset (V + 1) integers, pose (V, 4, 4) floats, and, if known, frames (V, 2), "
    "pairs (P, 2), overlap (P), min_overlap, a share"
)


@dataclass(frozen=True, eq=False)  # equal arrays are no single truth
class SceneViews:
    """V views of one scene: depth frames or fused fragments, each in its own frame, with its pose.

    xyz_mm: (sum N, 3) int16 view-local coordinates in millimetres, so that a view reaches 32 m.
    offsets: (V + 1,) int64; view v owns rows offsets[v] : offsets[v + 1].
    poses: (V, 4, 4) float64, view to world, metres.
    frames: (V, 2) int64 first and last frame that a view was made of.
    pairs: (P, 2) int64 views that overlap, first below second; empty where not yet searched for.
    overlaps: (P,) float32 share of a view that the other one sees too, the larger of the two directions.
    name: of the scene.
    min_overlap: share from which on pairs were searched for: those that overlap less are not listed; None, unknown.
    """

    xyz_mm: np.ndarray
    offsets: np.ndarray
    poses: np.ndarray
    name: str = "scene"
    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    pairs: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    overlaps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    min_overlap: float | None = None

    @classmethod
    def of(cls, views: Sequence[np.ndarray], poses: np.ndarray, name: str = "scene", **fields) -> SceneViews:
        """Views (N_v, 3) in metres, each in its own frame; a DataError where one reaches beyond 32 m."""
        offsets = np.cumsum([0] + [len(v) for v in views])
        points = np.concatenate(views) if len(views) else np.zeros((0, 3))
        rounded = np.rint(points * MILLIMETRES)
        if len(rounded) and not np.abs(rounded).max() <= np.iinfo(np.int16).max:
            raise DataError(name, f"a point {np.abs(points).max():.1f} m from its camera", "views within 32 m, no NaN")
        return cls(rounded.astype(np.int16), offsets.astype(np.int64), np.asarray(poses, np.float64), name, **fields)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def searched_from(self) -> float:
        """The overlap from which on all pairs are listed; infinite where none were looked for.

        Where it is unknown it was the usual one, or, where pairs that overlap less are listed, theirs.
        """
        if self.min_overlap is not None:
            return self.min_overlap
        if not len(self.pairs):
            return float("inf")
        least = float(self.overlaps[self.overlaps > 0].min(initial=USUAL_OVERLAP))
        return min(USUAL_OVERLAP, round(least, 6))  # float32 of 0.1 is more than 0.1

    def points(self, view: int) -> np.ndarray:
        """(N, 3) float32, metres, in the view's own frame."""
        rows = self.xyz_mm[self.offsets[view] : self.offsets[view + 1]]
        return rows.astype(np.float32) / np.float32(MILLIMETRES)

    def world(self, view: int) -> np.ndarray:
        """(N, 3) float64, metres, in the frame of the scene."""
        return self.points(view).astype(np.float64) @ self.poses[view, :3, :3].T + self.poses[view, :3, 3]

    def relative(self, first: int, second: int) -> np.ndarray:
        """(4, 4) float64: takes coordinates of the view `first` to those of `second`."""
        return np.linalg.inv(self.poses[second]) @ self.poses[first]


def leveled(scene: SceneViews) -> SceneViews:
    """The same views, each turned so that its z axis is the world's; its heading, which gravity does not tell, is 0."""
    views, poses = [], scene.poses.copy()
    for v, rotation in enumerate(scene.poses[:, :3, :3]):
        yaw = np.arctan2(rotation[1, 2], rotation[0, 2])  # of where the camera looks
        heading = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        views.append(scene.points(v) @ (heading.T @ rotation).T)
        poses[v, :3, :3] = heading
    return SceneViews.of(views, poses, scene.name, frames=scene.frames, pairs=scene.pairs, overlaps=scene.overlaps,
                         min_overlap=scene.min_overlap)


def save_views(scene: SceneViews, path: Path | str) -> Path:
    """Write a scene to one .npz, whole or not at all; not compressed, so that it can be read in place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {} if scene.min_overlap is None else {"min_overlap": np.float64(scene.min_overlap)}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(
                file, xyz_mm=scene.xyz_mm, offset=scene.offsets, pose=scene.poses, frames=scene.frames,
                pairs=scene.pairs, overlap=scene.overlaps, **known,
            )
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def load_views(path: Path | str) -> SceneViews:
    """Read what `save_views` wrote, or a scene of fused fragments in the same layout; a DataError says what is odd.

    Points of a file that is not compressed stay on disk until a view is asked for.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(str(path), "no such file", EXPECTED)
    arrays = _arrays(path)
    for name, (kinds, shape) in _ARRAYS.items():
        if name not in arrays:
            if name in _OPTIONAL:
                continue
            raise DataError(str(path), f"no array {name}", EXPECTED)
        array = arrays[name]
        fits = len(array.shape) == len(shape) and all(want in (-1, have) for want, have in zip(shape, array.shape))
        if array.dtype.kind not in kinds or not fits:
            raise DataError(str(path), f"{name} of {array.dtype} and shape {array.shape}", EXPECTED)
    offsets, poses = arrays["offset"].astype(np.int64), arrays["pose"].astype(np.float64)
    views = len(offsets) - 1
    if views < 0 or offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(arrays["xyz_mm"]):
        raise DataError(str(path), "offset does not cut xyz_mm into views", EXPECTED)
    if len(poses) != views or not np.isfinite(poses).all():
        raise DataError(str(path), f"{len(poses)} poses for {views} views, or one that is not finite", EXPECTED)
    singular = np.abs(np.linalg.det(poses[:, :3, :3])) < 0.1  # files of others hold rounded rotations
    if singular.any() or (np.abs(poses[:, 3] - [0, 0, 0, 1]) > 1e-3).any():
        raise DataError(str(path), "a pose that is no motion", "rotations, translations, and 0 0 0 1 below")
    kept = arrays["xyz_mm"]
    if kept.dtype != np.int16:
        kept = kept.astype(np.int16)
        if (kept != arrays["xyz_mm"]).any():
            raise DataError(str(path), "xyz_mm beyond int16", "views within 32 m")
    pairs = arrays.get("pairs", np.zeros((0, 2))).astype(np.int64)
    overlaps = arrays.get("overlap", np.zeros(len(pairs))).astype(np.float32)
    if len(overlaps) != len(pairs) or (len(pairs) and not (pairs.min() >= 0 and pairs.max() < views)):
        raise DataError(str(path), "pairs name views that are not there, or overlap is of another length", EXPECTED)
    frames = arrays.get("frames", np.zeros((0, 2))).astype(np.int64)
    if len(frames) not in (0, views):
        raise DataError(str(path), f"frames of {len(frames)} views, of {views}", EXPECTED)
    searched = float(arrays["min_overlap"]) if "min_overlap" in arrays else None
    if searched is not None and not 0 <= searched <= 1:
        raise DataError(str(path), f"min_overlap of {searched:g}", "a share from 0 to 1")
    return SceneViews(kept, offsets, poses, path.stem, frames, pairs, overlaps, searched)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """What a file holds of _ARRAYS."""
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with file:
            mapped = _mapped(path, file.zip, "xyz_mm.npy")
            names = [name for name in _ARRAYS if name in file.files]
            return {name: mapped if name == "xyz_mm" and mapped is not None else file[name] for name in names}
    except _UNREADABLE as error:
        raise DataError(str(path), f"cannot be read: {error}", EXPECTED) from None


def _mapped(path: Path, archive: zipfile.ZipFile, member: str) -> np.ndarray | None:
    """An array of an archive as a map of the file, so that scenes beyond memory can be used; None if it is packed."""
    if member not in archive.namelist() or archive.getinfo(member).compress_type != zipfile.ZIP_STORED:
        return None
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
        within = stream.tell()
    info = archive.getinfo(member)
    with path.open("rb") as file:  # the local header repeats the name, and its extra field has a length of its own
        file.seek(info.header_offset + 26)
        name, extra = np.frombuffer(file.read(4), "<u2").tolist()
    start, size = info.header_offset + 30 + name + extra + within, int(np.prod(shape)) * dtype.itemsize
    if fortran or dtype.hasobject or not size or within + size > info.file_size:
        return None  # np.load says what is wrong
    return np.memmap(path, dtype, "r", start, shape)
