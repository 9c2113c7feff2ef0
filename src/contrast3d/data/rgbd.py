"""RGB-D scans as `SceneViews`: every 25th depth image back-projected, thinned, with its pose; lost frames listed."""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from contrast3d.data import rgbd_layouts as layouts
from contrast3d.data.file_sets import read_each
from contrast3d.data.fragment_files import PATTERN, read_fragments
from contrast3d.data.recordings import Camera, Frame, Recording, view_of
from contrast3d.data.scene_views import SceneViews, load_views
from contrast3d.data.sens_files import sens_recording
from contrast3d.errors import ConfigError, DataError, MissingDataError

DEPTH = 3  # folders below the one named: chess/seq-01, scans/scene0000_00
BATCH = 16  # frames read between two looks at the progress: what Ctrl-C waits for
EXPECTED = (
    "ScanNet frames (depth/0.png, pose/0.txt, intrinsic/intrinsic_depth.txt), ScanNet .sens files, 7-Scenes "
    "(frame-000000.depth.png, frame-000000.pose.txt), TUM RGB-D (depth.txt, groundtruth.txt), fragments of 3DMatch "
    "(cloud_bin_0.pth, cloud_bin_0.info.txt, or .npz with xyz_mm, offset, pose), or folders of these"
)


@dataclass(frozen=True)
class Source:
    """A scene that was found: its name, unique among those found together, where it is, and in which layout."""

    name: str
    path: Path
    layout: str


@dataclass(frozen=True)
class Scan:
    """A scene that was read.

    views: the frames that can be used. means: of each view (M, 3) float32, the mean of its points in each voxel, in
    the frame of the scene and at full resolution; None for fragments, whose own points are all there is.
    skipped: (frame, why) of the others. total: frames looked at.
    """

    views: SceneViews
    means: list[np.ndarray] | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    total: int = 0


def find_scans(source: Path | str, ignored: Path | None = None) -> list[Source]:
    """All scenes in a file, a folder or the folders in it, by path; a DataError where there are none.

    ignored: a folder not to look into, the one that scenes are written to.
    """
    source = Path(source)
    if not source.exists():
        raise MissingDataError(str(source), "no such file or folder", EXPECTED)
    names: Counter[str] = Counter()
    found = []
    for path, layout in _walk(source, DEPTH, ignored and ignored.resolve()):
        inside = path.relative_to(source).parts
        parts = (*inside[:-1], path.stem if path.is_file() else path.name) if inside else (_own_name(path),)
        if parts[-1:] == parts[-2:-1]:
            parts = parts[:-1]  # ScanNet's scene0000_00/scene0000_00.sens
        name = "-".join(parts)
        names[name] += 1
        found.append(Source(name if names[name] == 1 else f"{name}-{names[name]}", path, layout))
    if not found:
        empty = source.is_dir() and not any(source.iterdir())
        raise DataError(str(source), "an empty folder" if empty else "no scan in a known layout", EXPECTED)
    return found


def _own_name(path: Path) -> str:
    return path.stem if path.is_file() else path.absolute().name or "scene"


def _walk(path: Path, depth: int, ignored: Path | None) -> Iterator[tuple[Path, str]]:
    """(path, layout) of every scene at or below `path`; nothing is looked for inside of a folder that is a scene."""
    if path.is_file():
        if path.suffix.lower() == ".sens":
            yield path, "ScanNet .sens"
        elif path.suffix == ".npz" and _is_fragments(path):
            yield path, "fragments"
        return
    layout = _layout(path)
    if layout:
        yield path, layout
    elif depth >= 0:
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            below = Path(entry.path)
            wanted = not entry.name.startswith(".") and (depth > 0 or entry.is_file())
            if wanted and (ignored is None or below.resolve() != ignored):
                yield from _walk(below, depth - 1, ignored)


def _layout(folder: Path) -> str | None:
    if (folder / "depth").is_dir() and (folder / "pose").is_dir():
        return "ScanNet frames"
    if (folder / "depth.txt").is_file() and (folder / "groundtruth.txt").is_file():
        return "TUM RGB-D"
    if next(folder.glob("frame-*.depth.png"), None):
        return "7-Scenes"
    return "3DMatch fragments" if next(folder.glob(PATTERN), None) else None


def _is_fragments(path: Path) -> bool:
    """A look at the names in the archive: other .npz files are none of ours."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {"xyz_mm", "offset", "pose"} <= set(file.files)
    except Exception:
        return False


def open_recording(source: Source, camera: Camera | None = None) -> Recording:
    """The frames of a scene that is a recording; their images are read later."""
    if source.layout == "ScanNet .sens":
        recording = sens_recording(source.path)
        return recording if camera is None else replace(recording, camera=camera)
    readers = {"ScanNet frames": layouts.scannet_frames, "7-Scenes": layouts.seven_scenes, "TUM RGB-D": layouts.tum}
    return readers[source.layout](source.path, camera)


def read_rgbd(path: Path | str, every: int = 25, thin: float = 0.01, camera: Camera | None = None) -> SceneViews:
    """One scene, in any layout that `find_scans` knows. Frames that cannot be used are left out and warned of.

    every: at least so many frames from one to the next. thin: metres; of a view, the first point in each voxel of
    that size is kept, all at 0. camera: instead of the one that the files name.

    Raises DataError where `path` holds no scene, several, or no frame that can be used.
    """
    sources = find_scans(path)
    if len(sources) > 1:
        raise DataError(str(path), f"{len(sources)} scenes, {sources[0].path} the first", "one",
                        "find_scans, and read_scan for each")
    scan = read_scan(sources[0], every, thin, camera=camera)
    if scan.skipped:
        listed = "".join(f"\n  {name}: {why}" for name, why in scan.skipped[:20])
        more = f"\n  ... and {len(scan.skipped) - 20} more" if len(scan.skipped) > 20 else ""
        warnings.warn(f"{path}: {len(scan.skipped)} of {scan.total} frames cannot be used and are left out:"
                      f"{listed}{more}", UserWarning, stacklevel=2)
    return scan.views


def read_scan(
    source: Source, every: int = 25, thin: float = 0.01, voxel: float = 0.05, camera: Camera | None = None,
    spool: Path | None = None, on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scan:
    """Read one scene; see `read_rgbd`. Of fragments all views are taken as they are.

    voxel: metres, of `Scan.means`. spool: a folder for what has been read, so that long scans need no memory for it.
    on_progress: told (frames done, of how many).
    """
    if every < 1 or not thin >= 0 or not voxel > 0:
        raise ConfigError(f"every = {every}, thin = {thin}, voxel = {voxel}; expected 1 or more, 0 or more, above 0")
    if source.layout == "fragments":
        views = load_views(source.path)
        if not len(views):
            raise DataError(str(source.path), "no views", "one or more")
        return Scan(views, total=len(views))
    if source.layout == "3DMatch fragments":
        views, broken = read_fragments(source.path, source.name)
        return Scan(views, None, broken, len(views) + len(broken))
    recording = open_recording(source, camera)
    frames = recording.every(every)
    shape = _usual_shape(frames)
    read = partial(_view, recording, thin, voxel, shape)
    spooled, offsets, poses, numbers, means, skipped = _Spool(spool), [0], [], [], [], []
    for start in range(0, len(frames), BATCH):
        batch = frames[start : start + BATCH]
        results, _, _ = read_each(partial(_attempt, read), batch, torch.get_num_threads())
        for frame, result in zip(batch, results):
            if isinstance(result, str):
                skipped.append((frame.name, result))
                continue
            xyz_mm, pose, mean = result
            spooled.append(xyz_mm)
            offsets.append(offsets[-1] + len(xyz_mm))
            poses.append(pose)
            numbers.append((frame.number, frame.number))
            means.append(mean)
        on_progress(len(poses) + len(skipped), len(frames))
    if not poses:
        why = f", the first because of {skipped[0][1]}" if skipped else ""
        raise DataError(str(source.path), f"none of {len(frames)} frames can be used{why}", "depth images with poses")
    views = SceneViews(spooled.array(), np.array(offsets, np.int64), np.stack(poses), source.name,
                       np.array(numbers, np.int64))
    return Scan(views, means, skipped, len(frames))


def _attempt(read: Callable, frame: Frame):
    """What is wrong with a frame as a result, to be listed with it."""
    try:
        return read(frame)
    except DataError as error:
        return str(error)


def _usual_shape(frames: list[Frame]) -> tuple[int, ...] | None:
    """The shape that most of some depth images have: one that differs belongs to another camera."""
    shapes: Counter[tuple[int, ...]] = Counter()
    for frame in frames[:: max(1, len(frames) // 5)]:
        try:
            shapes[frame.depth().shape] += 1
        except DataError:
            continue
    return shapes.most_common(1)[0][0] if shapes else None


def _view(recording: Recording, thin: float, voxel: float, shape: tuple[int, ...] | None, frame: Frame):
    """(xyz_mm, pose, means) of one frame; a DataError where it is of no use."""
    pose = frame.pose()
    depth = frame.depth()
    if shape is not None and depth.shape != shape:
        size, usual = (" x ".join(str(n) for n in reversed(s)) for s in (depth.shape, shape))
        raise DataError(frame.name, f"{size} pixels", f"{usual} as most frames have")
    xyz_mm, means = view_of(depth, pose, recording, thin, voxel)
    if not len(xyz_mm):
        raise DataError(frame.name, "no depth anywhere", "pixels above 0")
    return xyz_mm, pose, means.astype(np.float32)


class _Spool:
    """Rows of int16, in memory or in a file without a name."""

    def __init__(self, folder: Path | None):
        self._file = io.BytesIO() if folder is None else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def append(self, rows: np.ndarray) -> None:
        self._file.write(rows.tobytes())

    def array(self) -> np.ndarray:
        """(N, 3), read-only where it lies in a file."""
        self._file.flush()
        if isinstance(self._file, io.BytesIO):
            return np.frombuffer(self._file.getbuffer(), np.int16).reshape(-1, 3)
        return np.memmap(self._file, np.int16, "r").reshape(-1, 3)
