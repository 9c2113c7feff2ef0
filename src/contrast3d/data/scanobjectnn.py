"""ScanObjectNN (Uy et al., ICCV 2019): scanned objects of 15 classes, in the released HDF5 files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from contrast3d.data.arrays import check_labels, check_points, read_h5
from contrast3d.data.geometry import Normalize, normalized
from contrast3d.data.shape_files import turned
from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import ConfigError, DataError, MissingDataError

CLASSES = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow", "sink",
    "sofa", "toilet",
)
SOURCE = "Uy et al., ICCV 2019, hkust-vgd.github.io/scanobjectnn (h5_files.zip)"
# Papers' name of a variant: its folder, what follows `objectdataset` in its files, and its (train, test) shapes.
VARIANTS: dict[str, tuple[str, str, dict[str, int] | None]] = {
    "OBJ_ONLY": ("main_split_nobg", "", {"train": 2309, "test": 581}),
    "OBJ_BG": ("main_split", "", {"train": 2309, "test": 581}),
    "PB_T25": ("main_split", "_augmented25_norot", None),
    "PB_T25_R": ("main_split", "_augmented25rot", None),
    "PB_T50_R": ("main_split", "_augmentedrot", None),
    "PB_T50_RS": ("main_split", "_augmentedrot_scale75", {"train": 11416, "test": 2882}),
}
Variant = Literal["OBJ_ONLY", "OBJ_BG", "PB_T25", "PB_T25_R", "PB_T50_R", "PB_T50_RS"]
_FILES = {"train": "training", "test": "test"}
_KEYS = "data (n, 2048, 3) and label (n,)"


def layout_text(variant: str) -> str:
    """How the files of a variant lie, and where they officially come from."""
    folder, suffix, _ = VARIANTS[variant]
    return f"  hdf5: h5_files/{folder}/{{training,test}}_objectdataset{suffix}.h5, {_KEYS} in each; from {SOURCE}"


def ScanObjectNN(
    split: str, root: str | Path, num_points: int = 1024, variant: Variant = "PB_T50_RS", *, background: bool = True,
    normalize: Normalize = True, up: Literal["y", "z"] = "z",
) -> ShapeSet:
    """ScanObjectNN, "train" or "test": the first `num_points` of the 2,048 stored points, as the field's loaders do.

    variant: as papers call it: OBJ_ONLY (the object alone), OBJ_BG (with what is around it), PB_T50_RS (the hardest:
        five boxes around each object, moved by half their size, turned and scaled) and those in between.
    background: False reads the variant from main_split_nobg, without what is around the object.
    up: "z" turns the shapes as all sets of this library stand; "y" leaves them as they are stored (the authors' own
        code turns them about y).

    Copies of one object are not marked in the files: a validation split of PB variants has relatives on both sides.
    """
    if split not in _FILES:
        raise ConfigError(f"ScanObjectNN has the splits train and test, not {split!r}")
    if not 2 <= num_points <= 2048 or up not in ("y", "z"):
        raise ConfigError(f"num_points must be 2 to 2048 and up 'y' or 'z', not {num_points} and {up!r}")
    path = _path(Path(root), split, variant, background)
    if not path.is_file():
        raise MissingDataError(str(path), "no such file", f"this layout there or below:\n{layout_text(variant)}")
    points, labels = _read(path)
    if points.shape[1] < num_points:
        raise DataError(str(path), f"{points.shape[1]} points a shape", f"at least {num_points}")
    points = normalized(points[:, :num_points], normalize)
    return ShapeSet(
        torch.from_numpy(turned(points, "y") if up == "z" else points), labels, CLASSES,
        tuple(f"{path.stem}/{i}" for i in range(len(points))), title=f"ScanObjectNN {variant} {split}",
    )


def _path(root: Path, split: str, variant: str, background: bool = True) -> Path:
    """Where the file of a split is, or should be, at or below `root`."""
    if variant not in VARIANTS:
        raise ConfigError(f"ScanObjectNN has no variant {variant!r}; it has {', '.join(VARIANTS)}")
    folder, suffix, _ = VARIANTS[variant]
    place = Path(folder if background else "main_split_nobg") / f"{_FILES[split]}_objectdataset{suffix}.h5"
    bases = [root / f for f in ("", "h5_files", "ScanObjectNN", "ScanObjectNN/h5_files", "scanobjectnn")]
    candidates = [base / place for base in bases]
    if root.name == place.parent.name:
        candidates.append(root / place.name)
    return next((c for c in candidates if c.is_file()), candidates[0])


def _read(path: Path) -> tuple[np.ndarray, torch.Tensor]:
    arrays = read_h5(path, ("data", "label"))
    points = check_points(arrays["data"], str(path), arrays)
    labels = check_labels(arrays["label"], str(path), len(points), CLASSES)
    if (labels < 0).any():
        raise DataError(str(path), "label -1", f"0 to {len(CLASSES) - 1}")
    return points, labels


def problems(root: str | Path, variant: str = "PB_T50_RS") -> list[str]:
    """What keeps a variant under `root` from being whole, one line each; empty when nothing does."""
    lines, counts = [], VARIANTS[variant][2]
    paths = {split: _path(Path(root), split, variant) for split in _FILES}
    if not any(path.is_file() for path in paths.values()):
        missing = " and ".join(map(str, paths.values()))
        return [f"{missing}: missing; expected {_KEYS} (source: {SOURCE})"]
    for split, path in paths.items():
        if not path.is_file():
            lines.append(f"{path}: missing; expected {_KEYS}")
            continue
        try:
            points, _ = _read(path)
        except DataError as error:
            lines.append(str(error))
            continue
        if counts and len(points) != counts[split]:
            lines.append(f"{path}: {len(points)} shapes; expected {counts[split]}")
        if points.shape[1] != 2048:
            lines.append(f"{path}: {points.shape[1]} points a shape; expected 2048")
    return [f"{line} (source: {SOURCE})" for line in lines]
