"""The four layouts in which ModelNet is handed around, each listed (cheap) and read (when wanted).

`list_*` names the files that a split should hold, `read_*` turns them into points. Classes are named, not
numbered: `modelnet40.py` numbers them within its family.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from contrast3d.data.arrays import check_labels, check_points, read_h5, read_npz
from contrast3d.data.cache import cached, fingerprint
from contrast3d.data.file_sets import judge_broken, read_each, read_list
from contrast3d.data.geometry import sample_surface
from contrast3d.data.off_meshes import read_off
from contrast3d.data.text_clouds import read_table
from contrast3d.errors import DataError, MissingDataError

CLASSES = (
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup",
    "curtain", "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp", "laptop",
    "mantel", "monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood", "sink", "sofa",
    "stairs", "stool", "table", "tent", "toilet", "tv_stand", "vase", "wardrobe", "xbox",
)


class Found(NamedTuple):
    """What a layout yields: (S, N, 3) raw points, and a name and a class for each shape."""

    points: Float[np.ndarray, "s n 3"]
    classes: list[str]
    names: list[str]


class Listed(NamedTuple):
    """One file of a split and the class of its shape."""

    path: Path
    name: str
    category: str


def detect(root: Path, prefix: str) -> dict[str, Path]:
    """The layouts present under `root` (itself, or one of the folders the releases unpack to), best first."""
    bases = [root, *(root / name for name in ("ModelNet", "modelnet", "ModelNet40", "modelnet40"))]

    def first(folders: Sequence[str], present) -> Path | None:
        candidates = [b / f if f else b for b in bases for f in (*folders, "")]
        return next((c for c in candidates if c.is_dir() and present(c)), None)

    numbered = prefix.removeprefix("modelnet")
    has = lambda *patterns: lambda c: any(next(c.glob(p), None) for p in patterns)  # noqa: E731
    lists = [f"{family}_{split}.txt" for family in (prefix, "modelnet40") for split in ("train", "test")]
    is_file = {suffix: root.suffix == suffix and root.is_file() for suffix in (".npz", ".dat")}
    found = {
        "hdf5": first(["modelnet40_ply_hdf5_2048"], has("*_files.txt", "ply_data_*.h5")),
        "txt": first(["modelnet40_normal_resampled"], has(*lists)),
        "off": first([f"ModelNet{numbered}", "ModelNet40"], has("*/train/*.off", "*/test/*.off")),
        "npz": root if is_file[".npz"] else first([], has("modelnet40_*.npz")),
        "dat": root if is_file[".dat"] else first(["modelnet40_normal_resampled"], has("modelnet*pts*.dat")),
    }
    return {layout: path for layout, path in found.items() if path is not None}


def hdf5_files(folder: Path, split: str) -> list[Path]:
    """The files that `<split>_files.txt` names; its lines may carry a path of the author's machine."""
    lines = read_list(folder / f"{split}_files.txt", "names of .h5 files, one a line")
    return [folder / re.split(r"[/\\]", line)[-1] for line in lines]


def read_hdf5(folder: Path, split: str, num_points: int) -> Found:
    """Points in stored order: the first `num_points` of 2,048, as in the authors' own loader."""
    shape_names = class_names(folder / "shape_names.txt")
    points, classes, names = [], [], []
    for path in hdf5_files(folder, split):
        part = read_hdf5_file(path, shape_names, num_points)
        points.append(part.points)
        classes += part.classes
        names += part.names
    return Found(np.concatenate(points), classes, names)


def read_hdf5_file(path: Path, shape_names: Sequence[str], num_points: int) -> Found:
    """The shapes of one .h5, whose labels count in `shape_names`."""
    arrays = read_h5(path, ("data", "label"))
    clouds = check_points(arrays["data"], str(path), arrays)
    labels = check_labels(arrays["label"], str(path), len(clouds), shape_names)
    if (labels < 0).any():
        raise DataError(str(path), "label -1", f"0 to {len(shape_names) - 1}")
    names = [f"{path.stem}/{i}" for i in range(len(clouds))]
    return Found(enough(clouds, num_points, path), [shape_names[i] for i in labels.tolist()], names)


def list_txt(folder: Path, split: str, prefix: str) -> list[Listed]:
    """One file per line of `<prefix>_<split>.txt`."""
    path = folder / f"{prefix}_{split}.txt"
    if not path.exists():
        path = folder / f"modelnet40_{split}.txt"
    names = folder / f"{path.stem.rpartition('_')[0]}_shape_names.txt"
    known = class_names(names)
    listed = []
    for name in read_list(path, "names like airplane_0001, one a line"):
        category = name.rpartition("_")[0]
        if not re.fullmatch(r"[\w.-]+", name):  # it becomes a path
            raise DataError(str(path), f"the name {name!r}", "names like airplane_0001, one a line")
        if category not in known:
            expected = f"one of {names.name}: {_preview(known)}"
            raise DataError(str(path), f"class {category!r} of {name!r}", expected)
        listed.append(Listed(folder / category / f"{name}.txt", name, category))
    return listed


def read_txt(listed: list[Listed], num_points: int, title: str) -> Found:
    """The first `num_points` of 10,000 lines `x,y,z,nx,ny,nz`, as in the authors' own loader."""

    def read(item: Listed) -> np.ndarray:
        rows = read_table(item.path, 6, num_points)
        if len(rows) < num_points:
            expected = f"at least {num_points} (10,000 in the release)"
            raise DataError(str(item.path), f"{len(rows)} lines", expected)
        return rows[:, :3].astype(np.float32)

    return _read_files(listed, read, title, {"layout": "txt", "num_points": num_points})


def list_off(folder: Path, split: str, wanted: Sequence[str]) -> list[Listed]:
    """Every `<class>/<split>/*.off`; all `wanted` classes have to be there, and none that nobody knows."""
    present = sorted(p.parent.name for p in folder.glob(f"*/{split}") if p.is_dir())
    if strange := [c for c in present if c not in CLASSES]:
        raise DataError(str(folder), f"a class folder {strange[0]!r}", f"one of {_preview(CLASSES)}")
    if absent := [c for c in wanted if c not in present]:
        found = f"no folder for {len(absent)} of {len(wanted)} classes ({_preview(absent)})"
        raise MissingDataError(str(folder), found, f"<class>/{split}/*.off")
    paths = [path for c in wanted for path in sorted((folder / c / split).glob("*.off"))]
    if not paths:
        raise MissingDataError(str(folder), "no .off files", f"<class>/{split}/*.off")
    return [Listed(path, path.stem, path.parent.parent.name) for path in paths]


def read_off_meshes(listed: list[Listed], num_points: int, title: str, seed: int) -> Found:
    """`num_points` drawn by area from each mesh; the draw depends on the mesh's name and the seed only."""

    def read(item: Listed) -> np.ndarray:
        vertices, faces = read_off(item.path)
        return sample_surface(vertices, faces, num_points, item.name, seed)

    return _read_files(listed, read, title, {"layout": "off", "num_points": num_points, "seed": seed})


def npz_file(path: Path, split: str) -> Path:
    """The .npz whose name says `split`: the file itself, or `modelnet40_<split>*.npz` in the folder."""
    candidates = sorted(path.glob("modelnet40_*.npz")) if path.is_dir() else [path]
    for candidate in candidates:
        if split in candidate.stem.split("_"):
            return candidate
    found = "only " + ", ".join(c.name for c in candidates)
    fix = "a layout that has this split"
    raise MissingDataError(str(path), found, f"modelnet40_{split}_<points>.npz", fix)


def read_compact(path: Path, num_points: int) -> Found:
    """An .npz with points (S, N, 3), label, name, classes: the first `num_points` of each shape."""
    arrays = read_npz(path)
    if missing := {"points", "label", "name", "classes"} - arrays.keys():
        raise DataError(str(path), f"keys {', '.join(arrays)}", f"also {', '.join(sorted(missing))}")
    points = check_points(arrays["points"], str(path), arrays)
    known = [str(c) for c in arrays["classes"].reshape(-1)]
    if strange := [c for c in known if c not in CLASSES]:
        raise DataError(str(path), f"class {strange[0]!r}", f"one of {_preview(CLASSES)}")
    labels = check_labels(arrays["label"], str(path), len(points), known)
    if (labels < 0).any() or arrays["name"].shape != (len(points),):
        raise DataError(str(path), "shapes without a label or a name", "one of each for every shape")
    classes = [known[i] for i in labels.tolist()]
    return Found(enough(points, num_points, path), classes, [str(n) for n in arrays["name"]])


def enough(points: np.ndarray, num_points: int, path: Path) -> np.ndarray:
    """The first `num_points` of each shape, or a DataError when there are fewer."""
    if points.shape[1] < num_points:
        fix = "a smaller num_points, or the txt or OFF layout"
        raise DataError(str(path), f"{points.shape[1]} points a shape", f"at least {num_points}", fix)
    return points[:, :num_points]


def class_names(path: Path) -> list[str]:
    """The lines of a shape_names.txt, each of them one of the 40."""
    names = read_list(path, "class names, one a line")
    if strange := [n for n in names if n not in CLASSES]:
        raise DataError(str(path), f"class {strange[0]!r}", f"one of {_preview(CLASSES)}")
    return names


def _preview(texts: Sequence[str]) -> str:
    return ", ".join(texts[:5]) + (" ..." if len(texts) > 5 else "")


def _read_files(listed: list[Listed], read, title: str, key: dict) -> Found:
    """Read all files through the cache; it remembers the broken ones too, which are told every time."""

    def build() -> dict[str, np.ndarray]:
        clouds, kept, broken = read_each(read, listed)
        points = np.stack(clouds) if clouds else np.empty((0, key["num_points"], 3), np.float32)
        return {"points": points, "kept": np.array(kept, np.int64), "broken": np.array(broken, str)}

    arrays = cached("modelnet", {**key, "files": fingerprint(item.path for item in listed)}, build)
    judge_broken(title, arrays["broken"].tolist(), len(listed))
    items = [listed[i] for i in arrays["kept"]]
    return Found(arrays["points"], [item.category for item in items], [item.name for item in items])
