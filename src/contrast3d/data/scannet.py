"""ScanNet v2 (Dai et al., CVPR 2017): scanned rooms, 20 benchmark classes, as released and as PointContrast has it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contrast3d.data.file_sets import judge_broken, read_each, read_list
from contrast3d.data.ply_vertices import read_vertices
from contrast3d.data.scenes import IGNORE, Scene, SceneSet
from contrast3d.errors import ConfigError, DataError, MissingDataError

NYU40 = {
    "wall": 1, "floor": 2, "cabinet": 3, "bed": 4, "chair": 5, "sofa": 6, "table": 7, "door": 8, "window": 9,
    "bookshelf": 10, "picture": 11, "counter": 12, "desk": 14, "curtain": 16, "refrigerator": 24, "shower curtain": 28,
    "toilet": 33, "sink": 34, "bathtub": 36, "otherfurniture": 39,
}
CLASSES = tuple(NYU40)
COUNTS = {"train": 1201, "val": 312, "test": 100}
MOST_NYU40 = 40
# Labels of the release that are no class; PointContrast's preparation sets them to 0 too.
KNOWN_BAD = {"scene0270_00": 50, "scene0270_02": 50, "scene0384_00": 149}
SOURCE = "www.scan-net.org (terms to sign); lists: github.com/ScanNet/ScanNet Tasks/Benchmark"
LAYOUT_TEXT = f"""\
  scans: scans/scene0000_00/scene0000_00_vh_clean_2.ply and ..._vh_clean_2.labels.ply, scans_test/... without labels
  ply: train/scene0000_00.ply ..., x y z red green blue label, as PointContrast prepares them
  either with the lists scannetv2_train.txt, scannetv2_val.txt, scannetv2_test.txt beside; from {SOURCE}"""
_SPLITS = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}
_LISTS = (".", "splits", "splits/scannet", "meta_data", "Tasks/Benchmark")
_COLORS = ("x", "y", "z", "red", "green", "blue")
_NAME = "lines like scene0000_00, or train/scene0000_00.ply"


def ScanNet(split: str, root: str | Path, *, lists: str | Path | None = None) -> SceneSet:
    """"train", "val", "test" (without labels) or "trainval": the vertices of the meshes, metres, z up, not aligned.

    lists: the folder of scannetv2_<split>.txt, where it is not `root` or one of the usual ones below.
    Everything but the 20 classes of the benchmark has the label 255. Labels have to be those of v2, nyu40 ids: a
    DataError for those of v1. Broken scans are left out, counted and listed.
    """
    root, title = Path(root), f"ScanNet {split}"
    names = [name for part in _parts(split) for name in list_scans(root, part, lists)]
    found, kept, broken = read_each(lambda name: read_scan(find_scan(root, name), name, split != "test"), names)
    judge_broken(title, broken, len(names))
    scenes = []
    for name, (points, colors, labels) in zip((names[i] for i in kept), found):
        _check_version(root, name, labels)
        scenes.append(Scene(name, points, colors, None if labels is None else benchmark_labels(labels)))
    return SceneSet(tuple(scenes), CLASSES, title)


def _parts(split: str) -> tuple[str, ...]:
    if split not in _SPLITS:
        raise ConfigError(f"ScanNet has the splits {', '.join(_SPLITS)}, not {split!r}")
    return _SPLITS[split]


def list_scans(root: Path, part: str, lists: str | Path | None = None) -> list[str]:
    """The names of the scans of "train", "val" or "test", from the first list that is there."""
    if not root.is_dir():
        raise MissingDataError(str(root), "no such folder", f"this layout:\n{LAYOUT_TEXT}")
    folders = [Path(lists)] if lists else [root / name for name in _LISTS]
    path = next((p for f in folders if (p := f / f"scannetv2_{part}.txt").is_file()), None)
    if path is None:
        raise MissingDataError(str(folders[0]), f"no scannetv2_{part}.txt", f"this layout:\n{LAYOUT_TEXT}")
    names = []
    for line in read_list(path, _NAME):
        match = re.fullmatch(r"(?:\w+/)?(scene\d{4}_\d{2})(?:\.ply)?", line)  # it becomes a path
        if match is None:
            raise DataError(str(path), f"the line {line[:60]!a}", _NAME)
        names.append(match[1])
    return names


def find_scan(root: Path, name: str) -> Path:
    """The mesh of a scan as released, or the prepared file of it."""
    places = [
        *(root / folder / name / f"{name}_vh_clean_2.ply" for folder in ("scans", "scans_test", ".")),
        *(root / folder / f"{name}.ply" for folder in ("train", "val", "test")),
    ]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise DataError(str(root), f"no scan {name}", f"{name}_vh_clean_2.ply or train/{name}.ply")
    return path


def read_scan(path: Path, name: str, labelled: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(points (N, 3) float32, colours (N, 3) uint8, labels (N,) as they are stored, or None) of one scan."""
    released = path.name.endswith("_vh_clean_2.ply")
    found = read_vertices(path, _COLORS if released or not labelled else (*_COLORS, "label"))
    points = np.stack([found[axis] for axis in "xyz"], 1).astype(np.float32)
    colors = np.stack([found[channel] for channel in _COLORS[3:]], 1)
    if not len(points) or colors.dtype != np.uint8 or not np.isfinite(points).all():
        raise DataError(str(path), f"{len(points)} vertices, colours of {colors.dtype}", "finite ones, uchar colours")
    if not labelled:
        return points, colors, None
    if released:
        beside = path.with_name(f"{name}_vh_clean_2.labels.ply")
        labels = read_vertices(beside, ("label",))["label"]
        if len(labels) != len(points):
            raise DataError(str(beside), f"{len(labels)} labels", f"one for each of the {len(points)} vertices")
    else:
        labels = found["label"]
    if labels.dtype.kind not in "iu":
        raise DataError(str(path), f"labels of {labels.dtype}", "whole numbers")
    labels = labels.astype(np.int64)
    if name in KNOWN_BAD:
        labels[labels == KNOWN_BAD[name]] = 0
    return points, colors, labels


def _check_version(root: Path, name: str, labels: np.ndarray | None) -> None:
    """v1 numbers its labels otherwise, up to 230: mixing them up would be silent for most classes."""
    if labels is not None and labels.size and not 0 <= labels.min() <= labels.max() <= MOST_NYU40:
        raise DataError(
            f"{root}: {name}", f"labels from {labels.min()} to {labels.max()}",
            f"nyu40 ids of ScanNet v2, 0 to {MOST_NYU40}; v1 numbers them otherwise", f"the labels of v2 from {SOURCE}",
        )


def benchmark_labels(nyu40: np.ndarray) -> np.ndarray:
    """(N,) nyu40 ids -> (N,) uint8, 0 to 19 in the order of CLASSES, 255 for everything else."""
    table = np.full(MOST_NYU40 + 1, IGNORE, np.uint8)
    table[list(NYU40.values())] = np.arange(len(NYU40))
    return table[nyu40]


def problems(root: str | Path, splits: Sequence[str] = ("train", "val")) -> list[str]:
    """What keeps the set under `root` from being whole, one line each; empty when nothing does."""
    lines = []
    for split in splits:
        try:
            names = list_scans(Path(root), split)
        except DataError as error:
            lines.append(str(error))
            continue
        for name in names:
            try:
                path = find_scan(Path(root), name)
                beside = path.with_name(f"{name}_vh_clean_2.labels.ply")
                if path.name.endswith("_vh_clean_2.ply") and split != "test" and not beside.is_file():
                    lines.append(f"{beside}: missing")
            except DataError as error:
                lines.append(str(error))
        if len(names) != COUNTS[split]:
            lines.append(f"{root}: {len(names)} {split} scans are listed; expected {COUNTS[split]}")
    return lines
