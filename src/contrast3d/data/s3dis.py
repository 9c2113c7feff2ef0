"""S3DIS (Armeni et al., CVPR 2016): 272 scanned rooms of six areas, 13 classes, in the layouts that are around.

Labels are numbered as PointNet's data have it, whichever layout they are read from; PointContrast's order is another.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from contrast3d.data.arrays import read_npz
from contrast3d.data.cache import cached, fingerprint
from contrast3d.data.file_sets import judge_broken, read_each
from contrast3d.data.ply_vertices import read_vertices
from contrast3d.data.s3dis_text import read_numbers
from contrast3d.data.scene_loader import thinned
from contrast3d.data.scenes import IGNORE, Scene, SceneSet
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.types import Clouds

CLASSES = (
    "ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase", "board",
    "clutter",
)
POINT_CONTRAST = (
    "clutter", "beam", "board", "bookcase", "ceiling", "chair", "column", "door", "floor", "sofa", "stairs", "table",
    "wall", "window",
)
STAIRS = len(CLASSES)  # until the caller has said what becomes of them
TEST_AREA = 5
ROOMS = {1: 44, 2: 40, 3: 23, 4: 49, 5: 68, 6: 48}
QUANTIZED = 0.01
SOURCE = "buildingparser.stanford.edu/dataset.html (Stanford, on request)"
LAYOUT_TEXT = f"""\
  raw: Stanford3dDataset_v1.2_Aligned_Version/Area_1/office_1/Annotations/chair_1.txt ..., lines x y z r g b; {SOURCE}
  ply: Area_1/office_1.ply ..., x y z red green blue label, as PointContrast prepares them
  npy: Area_1_office_1.npy ..., (N, 7) x y z r g b label, as PointNet prepares them
  npz: one file of a room, xyz (N, 3), rgb (N, 3), label (N,), names (L,)"""
_FOLDERS = (".", "Stanford3dDataset_v1.2_Aligned_Version", "S3DIS", "s3dis", "stanford_indoor3d")
_CODES = {name: i for i, name in enumerate((*CLASSES, "stairs"))}


class Room(NamedTuple):
    """Where one room lies; area 0 is unknown."""

    name: str
    area: int
    path: Path
    read: Callable[[Path], dict[str, np.ndarray]]


def S3DIS(
    split: str | int | Sequence[int], root: str | Path, *, stairs: Literal["ignore", "clutter"] = "ignore",
    quantize: float | None = QUANTIZED,
) -> SceneSet:
    """"train" (all areas but 5), "test" (Area 5), "all", or areas by number; metres, z up, where the rooms stand.

    stairs: they are no class; "ignore" gives them the label 255, as PointContrast does, "clutter" PointNet's.
    quantize: keep the first point of each voxel of so many metres, 255 where its points disagree; of the raw and the
        .npy layout, since PointContrast prepares its own like that with 1 cm. None keeps all points.

    Text is read once and cached. Lines that are no six numbers are left out, counted and warned of.
    """
    if stairs not in ("ignore", "clutter") or not (quantize is None or quantize > 0):
        given = f"stairs={stairs!r}, quantize={quantize!r}"
        raise ConfigError(f"S3DIS: {given}; expected 'ignore' or 'clutter', and metres or None")
    areas, title = _areas(split), f"S3DIS {_spoken(split)}"
    rooms = [room for room in list_rooms(Path(root), quantize) if split == "all" or room.area in areas]
    if not rooms:
        expected = f"areas {', '.join(map(str, areas))} in one of these layouts:\n{LAYOUT_TEXT}"
        raise MissingDataError(str(root), f"no rooms of {title}", expected)
    found, kept, broken = read_each(lambda room: _scene(room, stairs), rooms)
    judge_broken(title, broken, len(rooms))
    dropped = {rooms[i].name: count for i, (_, count) in zip(kept, found) if count}
    if dropped:
        listed = ", ".join(f"{name} {count}" for name, count in dropped.items())
        warnings.warn(f"{title}: lines that are no x y z r g b are left out: {listed}", UserWarning, stacklevel=2)
    return SceneSet(tuple(scene for scene, _ in found), CLASSES, title)


def _areas(split: str | int | Sequence[int]) -> tuple[int, ...]:
    named = {"train": tuple(a for a in ROOMS if a != TEST_AREA), "test": (TEST_AREA,), "all": tuple(ROOMS)}
    if isinstance(split, str):
        areas = named.get(split, ())
    else:
        areas = (split,) if isinstance(split, int) else tuple(split)
    if not areas or not set(areas) <= set(ROOMS):
        raise ConfigError(f"S3DIS has the splits train, test, all and the areas 1 to 6, not {split!r}")
    return areas


def _spoken(split: str | int | Sequence[int]) -> str:
    return split if isinstance(split, str) else "areas " + ", ".join(map(str, _areas(split)))


def list_rooms(root: Path, quantize: float | None = QUANTIZED) -> list[Room]:
    """The rooms under `root` in the first layout that is there; a MissingDataError shows all of them."""
    if root.is_file() and root.suffix == ".npz":
        return [Room(root.stem, 0, root, _read_npz)]
    for folder in (root / name for name in _FOLDERS):
        raw = [
            Room(f"Area_{n}/{path.name}", n, path, partial(_read_raw, quantize=quantize))
            for n in ROOMS for path in sorted((folder / f"Area_{n}").glob("*")) if path.is_dir()
        ]
        ply = [
            Room(f"Area_{n}/{path.stem}", n, path, _read_ply)
            for n in ROOMS for path in sorted((folder / f"Area_{n}").glob("*.ply"))
        ]
        npy = [
            Room(f"Area_{n}/{path.stem[7:]}", n, path, partial(_read_npy, quantize=quantize))
            for n in ROOMS for path in sorted(folder.glob(f"Area_{n}_*.npy"))
        ]
        if found := ply or npy or raw:
            return found
    found = "no rooms" if root.exists() else "no such folder"
    raise MissingDataError(str(root), found, f"one of these layouts there or below:\n{LAYOUT_TEXT}")


def _scene(room: Room, stairs: str) -> tuple[Scene, int]:
    """(the room, how many of its lines were left out)."""
    arrays = room.read(room.path)
    labels = arrays["labels"].copy()
    labels[labels == STAIRS] = IGNORE if stairs == "ignore" else CLASSES.index("clutter")
    if not len(labels):
        raise DataError(str(room.path), "no points", "a room")
    return Scene(room.name, arrays["points"], arrays["colors"], labels), int(arrays.get("dropped", 0))


def _read_raw(path: Path, quantize: float | None) -> dict[str, np.ndarray]:
    """One room of annotation files, cached."""
    files = sorted((path / "Annotations").glob("*.txt"))
    if not files:
        raise DataError(str(path), "no Annotations/*.txt", "one file for each object of the room")

    def build() -> dict[str, np.ndarray]:
        codes, parts, dropped = [], [], 0
        for file in files:
            numbers, bad = read_numbers(file)
            parts.append(numbers)
            codes.append(np.full(len(numbers), _code(file), np.uint8))
            dropped += bad
        return {**_quantized(np.concatenate(parts), np.concatenate(codes), quantize), "dropped": np.array(dropped)}

    return cached("s3dis-room", {"quantize": quantize, "files": fingerprint(files)}, build)


def _code(file: Path) -> int:
    """The class that the name of an annotation file, chair_12.txt, tells."""
    name = re.match(r"[A-Za-z]*", file.name)[0].lower()
    if name not in _CODES:
        raise DataError(str(file), f"the class {name!r}", f"one of {', '.join(_CODES)}", "rename the file")
    return _CODES[name]


def _read_npy(path: Path, quantize: float | None) -> dict[str, np.ndarray]:
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(str(path), f"cannot be read ({error})", "an array (N, 7) of numbers") from error
    if rows.ndim != 2 or rows.shape[1] != 7 or rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
        raise DataError(str(path), f"{rows.dtype} {rows.shape}", "finite numbers (N, 7): x y z r g b label")
    return _quantized(rows[:, :6], _classes(rows[:, 6], CLASSES, str(path)), quantize)


def _read_ply(path: Path) -> dict[str, np.ndarray]:
    found = read_vertices(path, ("x", "y", "z", "red", "green", "blue", "label"))
    rows = np.stack([found[name] for name in ("x", "y", "z", "red", "green", "blue")], 1)
    return _quantized(rows, _classes(found["label"], POINT_CONTRAST, str(path)), None)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = read_npz(path)
    missing = {"xyz", "rgb", "label", "names"} - set(arrays)
    if missing:
        raise DataError(str(path), f"no {', '.join(sorted(missing))}", "xyz (N, 3), rgb (N, 3), label (N,), names (L,)")
    rows = np.concatenate((arrays["xyz"], arrays["rgb"]), 1)
    return _quantized(rows, _classes(arrays["label"], tuple(map(str, arrays["names"])), str(path)), None)


def _classes(labels: np.ndarray, names: Sequence[str], where: str) -> np.ndarray:
    """Labels by their order of names -> by ours; 255 stays."""
    unknown = set(names) - set(_CODES)
    if unknown:
        raise DataError(where, f"the classes {', '.join(sorted(unknown))[:60]}", f"some of {', '.join(_CODES)}")
    table = np.array([_CODES[name] for name in names] + [IGNORE], np.uint8)
    odd = (labels != IGNORE) & ~((labels >= 0) & (labels < len(names)))
    if odd.any():
        raise DataError(where, f"the label {labels[odd][0]:g}", f"0 to {len(names) - 1}, or 255")
    return table[np.where(labels == IGNORE, len(names), labels).astype(np.int64)]


def _quantized(rows: np.ndarray, labels: np.ndarray, size: float | None) -> dict[str, np.ndarray]:
    """rows: (N, 6) x y z r g b. The first point of each voxel of `size` metres, 255 where labels disagree."""
    points, colors = rows[:, :3].astype(np.float32), np.rint(rows[:, 3:6]).clip(0, 255).astype(np.uint8)
    if size is None:
        return {"points": points, "colors": colors, "labels": labels}
    clouds = Clouds.from_list([torch.from_numpy(points)], point_labels=torch.from_numpy(labels).long())
    few, _ = thinned(clouds, size)
    kept = few.indices.numpy()
    return {"points": points[kept], "colors": colors[kept], "labels": few.point_labels.numpy().astype(np.uint8)}


def problems(root: str | Path) -> list[str]:
    """What keeps the set under `root` from being whole, one line each; empty when nothing does."""
    try:
        rooms = list_rooms(Path(root))
    except DataError as error:
        return [str(error)]
    counts = {area: sum(room.area == area for room in rooms) for area in ROOMS}
    return [
        f"{root}: {counts[area]} rooms in Area_{area}; expected {count} (source: {SOURCE})"
        for area, count in ROOMS.items() if counts[area] != count
    ]
