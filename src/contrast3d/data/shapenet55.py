"""ShapeNet55 (Yu et al., ICCV 2021): ShapeNetCore as clouds of 8,192 points, on which Point-MAE and ReCon pre-train."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from contrast3d.data.arrays import check_points, read_npy
from contrast3d.data.cache import cached, fingerprint
from contrast3d.data.file_sets import judge_broken, read_each, read_list
from contrast3d.data.geometry import Normalize, choose_points, normalized
from contrast3d.data.shape_files import turned
from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import ConfigError, DataError, MissingDataError

SYNSETS = {
    "02691156": "airplane", "02747177": "trash bin", "02773838": "bag", "02801938": "basket", "02808440": "bathtub",
    "02818832": "bed", "02828884": "bench", "02843684": "birdhouse", "02871439": "bookshelf", "02876657": "bottle",
    "02880940": "bowl", "02924116": "bus", "02933112": "cabinet", "02942699": "camera", "02946921": "can",
    "02954340": "cap", "02958343": "car", "02992529": "cellphone", "03001627": "chair", "03046257": "clock",
    "03085013": "keyboard", "03207941": "dishwasher", "03211117": "display", "03261776": "earphone",
    "03325088": "faucet", "03337140": "file cabinet", "03467517": "guitar", "03513137": "helmet", "03593526": "jar",
    "03624134": "knife", "03636649": "lamp", "03642806": "laptop", "03691459": "loudspeaker", "03710193": "mailbox",
    "03759954": "microphone", "03761084": "microwave", "03790512": "motorbike", "03797390": "mug", "03928116": "piano",
    "03938244": "pillow", "03948459": "pistol", "03991062": "flowerpot", "04004475": "printer", "04074963": "remote",
    "04090263": "rifle", "04099429": "rocket", "04225987": "skateboard", "04256520": "sofa", "04330267": "stove",
    "04379243": "table", "04401088": "telephone", "04460130": "tower", "04468005": "train", "04530566": "watercraft",
    "04554684": "washer",
}
CLASSES = tuple(SYNSETS.values())
COUNTS = {"train": 41952, "test": 10518}
SOURCE = "PoinTr and Point-BERT (Yu et al. 2021), github.com/lulutang0608/Point-BERT DATASET.md; shapenet.org"
LAYOUT_TEXT = (
    "  npy: ShapeNet55-34/{ShapeNet-55/train.txt, ShapeNet-55/test.txt, shapenet_pc/<synset>-<id>.npy}, "
    f"lines <synset>-<id>.npy in the lists, (8192, 3) in each .npy; from {SOURCE}"
)
_SPLITS = {"train": ("train",), "test": ("test",), "all": ("train", "test")}
_LINES = "lines like 02691156-1a04e3eab45ca15dd86060f189eb133.npy"


class Listed(NamedTuple):
    """One file of a split and the class of its shape."""

    path: Path
    name: str
    label: int


def ShapeNet55(
    split: str, root: str | Path, num_points: int = 1024, *, normalize: Normalize = True, up: Literal["y", "z"] = "z",
    seed: int = 0,
) -> ShapeSet:
    """ShapeNet55, "train", "test" or "all"; labels are the 55 synsets of ShapeNetCore.

    num_points: drawn from the 8,192 of each shape without replacement, a function of its name and `seed`.
    normalize: unit sphere, centred by "mean" (True, as Point-MAE does) or "bbox".
    up: "z" turns the shapes as all sets of this library stand; "y" leaves them as they are stored.
    """
    if split not in _SPLITS:
        raise ConfigError(f"ShapeNet55 has the splits {', '.join(_SPLITS)}, not {split!r}")
    if num_points < 2 or up not in ("y", "z"):
        raise ConfigError(f"num_points must be at least 2 and up 'y' or 'z', not {num_points} and {up!r}")
    folder, title = _find(Path(root)), f"ShapeNet55 {split}"
    listed = [item for part in _SPLITS[split] for item in list_files(folder, part)]

    def read(item: Listed) -> np.ndarray:
        points = read_npy(item.path)["points"]
        if points.ndim != 2:
            raise DataError(str(item.path), f"an array of shape {points.shape}", "(8192, 3)")
        cloud = check_points(points[None], str(item.path), {"points": points})[0]
        return cloud[choose_points(len(cloud), num_points, item.name, seed)]

    def build() -> dict[str, np.ndarray]:
        clouds, kept, broken = read_each(read, listed)
        points = np.stack(clouds) if clouds else np.empty((0, num_points, 3), np.float32)
        return {"points": points, "kept": np.array(kept, np.int64), "broken": np.array(broken, str)}

    key = {"num_points": num_points, "seed": seed, "files": fingerprint(item.path for item in listed)}
    arrays = cached("shapenet55", key, build)
    judge_broken(title, arrays["broken"].tolist(), len(listed))
    items = [listed[i] for i in arrays["kept"]]
    points = normalized(arrays["points"], normalize)
    return ShapeSet(
        torch.from_numpy(turned(points, "y") if up == "z" else points), torch.tensor([item.label for item in items]),
        CLASSES, tuple(item.name for item in items), title=title,
    )


def _find(root: Path) -> Path:
    """The folder that holds ShapeNet-55 and shapenet_pc: `root` or one below it."""
    for folder in (root, *(root / f for f in ("ShapeNet55-34", "ShapeNet55", "data/ShapeNet55-34"))):
        if (folder / "ShapeNet-55").is_dir() or (folder / "shapenet_pc").is_dir():
            return folder
    found = "no ShapeNet55" if root.exists() else "no such folder"
    raise MissingDataError(str(root), found, f"this layout there or below:\n{LAYOUT_TEXT}")


def list_files(folder: Path, split: Literal["train", "test"]) -> list[Listed]:
    """The files that the list of a split names; a DataError for a list that cannot be right."""
    path, order = folder / "ShapeNet-55" / f"{split}.txt", list(SYNSETS)
    listed = []
    for line in read_list(path, _LINES):
        match = re.fullmatch(r"(\d{8})-([\w-]+)\.npy", line)  # it becomes a path
        if match is None or match[1] not in SYNSETS:
            raise DataError(str(path), f"the line {line[:60]!a}", _LINES)
        listed.append(Listed(folder / "shapenet_pc" / line, line.removesuffix(".npy"), order.index(match[1])))
    return listed


def problems(root: str | Path) -> list[str]:
    """What keeps the set under `root` from being whole, one line each; empty when nothing does."""
    try:
        folder = _find(Path(root))
    except DataError as error:
        return [str(error)]
    lines = []
    for split, official in COUNTS.items():
        try:
            listed = list_files(folder, split)
        except DataError as error:
            lines.append(str(error))
            continue
        lines += [f"{item.path}: missing; expected points (8192, 3)" for item in listed if not item.path.is_file()]
        if len(listed) != official:
            lines.append(f"{folder}: {len(listed)} {split} shapes are listed; expected {official}")
    return [f"{line} (source: {SOURCE})" for line in lines]
