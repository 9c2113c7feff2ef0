"""ShapeNetPart (Yi et al., SIGGRAPH Asia 2016): 16 categories, 50 part labels, both released layouts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from contrast3d.data.arrays import check_labels, check_points, read_h5
from contrast3d.data.cache import cached, fingerprint
from contrast3d.data.file_sets import judge_broken, read_each, read_list
from contrast3d.data.geometry import Normalize, choose_points, normalized
from contrast3d.data.shapes import ShapeSet
from contrast3d.data.text_clouds import read_table
from contrast3d.errors import ConfigError, DataError, MissingDataError

PARTS = {  # category: its part labels
    "Airplane": range(0, 4), "Bag": range(4, 6), "Cap": range(6, 8), "Car": range(8, 12),
    "Chair": range(12, 16), "Earphone": range(16, 19), "Guitar": range(19, 22), "Knife": range(22, 24),
    "Lamp": range(24, 28), "Laptop": range(28, 30), "Motorbike": range(30, 36), "Mug": range(36, 38),
    "Pistol": range(38, 41), "Rocket": range(41, 44), "Skateboard": range(44, 47), "Table": range(47, 50),
}
CATEGORIES = tuple(PARTS)
REPORT_CATEGORIES = (  # the ten of the SimCLR report (Bernini 2022)
    "Airplane", "Car", "Chair", "Guitar", "Knife", "Lamp", "Laptop", "Motorbike", "Pistol", "Table",
)
COUNTS = {"train": 12137, "val": 1870, "test": 2874}  # shapes in the txt release
LAYOUT_TEXT = """\
  txt: shapenetcore_partanno_segmentation_benchmark_v0_normal/{synsetoffset2category.txt,
       train_test_split/shuffled_{train,val,test}_file_list.json, <synset>/<id>.txt},
       lines x y z nx ny nz part; from PointNet++ (Qi et al. 2017),
       shapenet.cs.stanford.edu/media/shapenetcore_partanno_segmentation_benchmark_v0_normal.zip
  hdf5: hdf5_data/{all_object_categories.txt, {train,val,test}_hdf5_file_list.txt, ply_data_*.h5},
       data (n, 2048, 3), label (n, 1) and pid (n, 2048) in each .h5; from PointNet (Qi et al. 2017),
       shapenet.cs.stanford.edu/media/shapenet_part_seg_hdf5_data.zip"""

_TXT_FOLDER = "shapenetcore_partanno_segmentation_benchmark_v0_normal"
_SPLITS = {"train": ("train",), "val": ("val",), "test": ("test",), "trainval": ("train", "val")}


class Listed(NamedTuple):
    """One txt file of a split and the category of its shape."""

    path: Path
    name: str
    category: str


def ShapeNetPart(
    split: str, root: str | Path, num_points: int = 1024, categories: Sequence[str] | None = None, *,
    layout: Literal["auto", "txt", "hdf5"] = "auto", normalize: Normalize = True, replacement: bool = False,
    up: Literal["y", "z"] = "z", seed: int = 0,
) -> ShapeSet:
    """ShapeNetPart, "train", "val", "test" or "trainval"; labels are categories, point_labels the 50 parts.

    categories: a subset of CATEGORIES, e.g. REPORT_CATEGORIES; labels count within it, alphabetically.
    num_points: drawn per shape (of about 2,500; 2,048 in hdf5), a function of its name and `seed`, without
        replacement; where a shape has fewer, every point once and the rest again. `replacement=True` draws as
        the report did (PyG's FixedPoints).
    normalize: unit sphere centred by "mean" (True) or "bbox"; False leaves the release's own scale.
    up: "z" turns the shapes as all sets of this library stand; "y" leaves them as they are stored.
    """
    chosen = _categories(categories)
    if split not in _SPLITS:
        raise ConfigError(f"ShapeNetPart has the splits {', '.join(_SPLITS)}, not {split!r}")
    if num_points < 2 or up not in ("y", "z"):
        raise ConfigError(f"num_points must be at least 2 and up 'y' or 'z', not {num_points} and {up!r}")
    name, folder = _choose(Path(root), layout)
    title = f"ShapeNetPart {split}"
    draw = {"num_points": num_points, "seed": seed, "replacement": replacement}
    read = {"txt": _read_txt, "hdf5": _read_hdf5}[name]
    points, parts, labels, names = read(folder, split, chosen, draw, title)
    if len(points) == 0:
        raise DataError(str(folder), f"no {split} shape of {', '.join(chosen)}", "at least one")
    points = normalized(points, normalize)
    if up == "z":
        points = points[:, :, [0, 2, 1]] * np.array([1, -1, 1], np.float32)  # x, y, z -> x, -z, y: a rotation
    return ShapeSet(
        torch.from_numpy(np.ascontiguousarray(points)), labels=torch.tensor(labels), classes=chosen,
        names=tuple(names), point_labels=torch.from_numpy(parts), title=title,
    )


def _categories(wanted: Sequence[str] | None) -> tuple[str, ...]:
    wanted = CATEGORIES if wanted is None else tuple(wanted)
    if strange := [c for c in wanted if c not in CATEGORIES]:
        raise ConfigError(f"ShapeNetPart has no category {strange[0]!r}; it has {', '.join(CATEGORIES)}")
    if not wanted:
        raise ConfigError("categories is empty; leave it out for all sixteen")
    return tuple(c for c in CATEGORIES if c in wanted)


def _choose(root: Path, layout: str) -> tuple[str, Path]:
    """The layout to read and its folder: `root` or the folder the release unpacks to below it."""
    markers = {
        "txt": ((_TXT_FOLDER,), ("synsetoffset2category.txt", "train_test_split")),
        "hdf5": (("hdf5_data", "shapenet_part_seg_hdf5_data", "shapenet_part_seg_hdf5_data/hdf5_data"),
                 ("train_hdf5_file_list.txt", "all_object_categories.txt", "ply_data_*.h5")),
    }
    for name, (folders, marks) in markers.items():
        for folder in (root, *(root / f for f in folders)):
            if layout in ("auto", name) and any(next(folder.glob(mark), None) for mark in marks):
                return name, folder
    wanted = "no ShapeNetPart" + f" as {layout}" * (layout != "auto")
    found = wanted if root.exists() else "no such folder"
    raise MissingDataError(str(root), found, f"one of these layouts there or below:\n{LAYOUT_TEXT}")


def list_txt(folder: Path, split: str) -> list[Listed]:
    """The files that the split lists name, of all categories; a DataError for lists that cannot be right."""
    synsets = {}
    path = folder / "synsetoffset2category.txt"
    for line in read_list(path, "lines like 'Airplane<tab>02691156'"):
        words = line.split()
        if len(words) != 2 or words[0] not in CATEGORIES:
            expected = f"a category ({', '.join(CATEGORIES)}) and its synset"
            raise DataError(str(path), f"the line {line!r}", expected)
        synsets[words[1]] = words[0]
    listed = []
    for part in _SPLITS[split]:
        path = folder / "train_test_split" / f"shuffled_{part}_file_list.json"
        for entry in _json_list(path):
            match = re.fullmatch(r"[^/]+/(\w+)/([\w.-]+)", entry)
            if match is None or match[1] not in synsets:
                expected = "shape_data/<synset>/<id> with a synset of synsetoffset2category.txt"
                raise DataError(str(path), f"the entry {entry!r}", expected)
            synset, identity = match.groups()
            name = f"{synset}/{identity}"
            listed.append(Listed(folder / synset / f"{identity}.txt", name, synsets[synset]))
    return listed


def _json_list(path: Path) -> list[str]:
    try:
        entries = json.loads(path.read_bytes())
    except OSError as error:
        found = error.strerror or "cannot be read"
        raise MissingDataError(str(path), found, "a json list of shape_data/<synset>/<id>") from error
    except (ValueError, RecursionError) as error:
        raise DataError(str(path), f"no json ({error})", "a list of shape_data/<synset>/<id>") from error
    if not isinstance(entries, list) or not entries or not all(isinstance(e, str) for e in entries):
        raise DataError(str(path), "json that is no list of texts", "a list of shape_data/<synset>/<id>")
    return entries


def _read_txt(folder: Path, split: str, chosen: tuple[str, ...], draw: dict, title: str):
    listed = [item for item in list_txt(folder, split) if item.category in chosen]

    def read(item: Listed) -> tuple[np.ndarray, np.ndarray]:
        rows = read_table(item.path, 7)
        parts = rows[:, 6].astype(np.int64)
        _check_parts(parts, item.category, str(item.path))
        pick = choose_points(len(rows), key=item.name, **draw)
        return rows[pick, :3].astype(np.float32), parts[pick]

    def build() -> dict[str, np.ndarray]:
        clouds, kept, broken = read_each(read, listed)
        shape = (len(clouds), draw["num_points"])
        return {
            "points": np.array([c for c, _ in clouds], np.float32).reshape(*shape, 3),
            "parts": np.array([p for _, p in clouds], np.uint8).reshape(shape),
            "kept": np.array(kept, np.int64), "broken": np.array(broken, str),
        }

    arrays = cached("shapenetpart", {**draw, "files": fingerprint(item.path for item in listed)}, build)
    judge_broken(title, arrays["broken"].tolist(), len(listed))
    items = [listed[i] for i in arrays["kept"]]
    labels = [chosen.index(item.category) for item in items]
    return arrays["points"], arrays["parts"].astype(np.int64), labels, [item.name for item in items]


def _check_parts(parts: np.ndarray, category: str, where: str) -> None:
    allowed = PARTS[category]
    wrong = parts[(parts < allowed.start) | (parts >= allowed.stop)]
    if len(wrong):
        raise DataError(where, f"part {wrong[0]} in a {category}", f"{allowed.start} to {allowed.stop - 1}")


def hdf5_files(folder: Path, split: str) -> list[Path]:
    """The files of a split: those its list names, or `ply_data_<split>*.h5` where the release has no list."""
    files = []
    for part in _SPLITS[split]:
        path = folder / f"{part}_hdf5_file_list.txt"
        if path.exists():
            lines = read_list(path, "names of .h5 files, one a line")
            files += [folder / re.split(r"[/\\]", line)[-1] for line in lines]
        else:
            files += sorted(folder.glob(f"ply_data_{part}*.h5"))
    if not files:
        expected = f"{split}_hdf5_file_list.txt or ply_data_{split}*.h5"
        raise MissingDataError(str(folder), f"no {split} files", expected)
    return files


def _read_hdf5(folder: Path, split: str, chosen: tuple[str, ...], draw: dict, title: str):
    order = _hdf5_categories(folder)
    points, parts, labels, names = [], [], [], []
    for path in hdf5_files(folder, split):
        arrays = read_h5(path, ("data", "label", "pid"))
        clouds = check_points(arrays["data"], str(path), arrays)
        category = check_labels(arrays["label"], str(path), len(clouds), order)
        if arrays["pid"].shape != clouds.shape[:2] or arrays["pid"].dtype.kind not in "fiu":
            found = f"pid of {arrays['pid'].dtype} and shape {arrays['pid'].shape}"
            raise DataError(str(path), found, f"numbers of shape {clouds.shape[:2]}, a part for each point")
        for i, number in enumerate(category.tolist()):
            if order[number] not in chosen:
                continue
            name = f"{path.stem}/{i}"
            _check_parts(arrays["pid"][i], order[number], f"{path}, shape {i}")
            pick = choose_points(clouds.shape[1], key=name, **draw)
            points.append(clouds[i, pick])
            parts.append(arrays["pid"][i, pick].astype(np.int64))
            labels.append(chosen.index(order[number]))
            names.append(name)
    return np.array(points), np.array(parts), labels, names


def _hdf5_categories(folder: Path) -> list[str]:
    path = folder / "all_object_categories.txt"
    names = [line.split()[0] for line in read_list(path, "lines like 'Airplane<tab>02691156'")]
    if strange := [n for n in names if n not in CATEGORIES]:
        raise DataError(str(path), f"category {strange[0]!r}", f"one of {', '.join(CATEGORIES)}")
    return names


def problems(root: str | Path) -> list[str]:
    """What keeps the set under `root` from being whole, one line each; empty when nothing does."""
    try:
        layout, folder = _choose(Path(root), "auto")
    except DataError as error:
        return [str(error)]
    lines = []
    for split, official in COUNTS.items():
        try:
            if layout == "txt":
                listed = list_txt(folder, split)
                missing = [item.path for item in listed if not item.path.is_file()]
                lines += [f"{path}: missing; expected lines x y z nx ny nz part" for path in missing]
                if len(listed) != official:
                    found = f"{len(listed)} {split} shapes are listed"
                    lines.append(f"{folder}: {found}; expected {official}")
            else:
                for path in hdf5_files(folder, split):
                    read_h5(path, ("data", "label", "pid"))
        except DataError as error:
            lines.append(str(error))
    return lines
