"""Your own array files (.npz, .npy, .h5) -> ShapeSet: points (S, N, 3) and, if there, label, name, classes.

Nothing is ever unpickled, and every way in which such a file can be wrong is one clear DataError.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from contrast3d.data.geometry import Normalize, choose_points, normalized
from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import DataError, MissingDataError

LAYOUT = "points (shapes, points, 3); optional: label (shapes,), name (shapes,), classes (labels,)"
_SPELLINGS = {
    "points": ("points", "data", "xyz"), "label": ("label", "labels"),
    "name": ("name", "names"), "classes": ("classes", "shape_names"),
}
_DEFLATE_LIMIT = 1100  # no honest array is compressed further: deflate cannot
_MOST_UNNAMED = 2**16  # classes without names; a larger number is an identifier, and no class


def load_arrays(
    path: str | Path, num_points: int | None = None, *, normalize: Normalize = True, seed: int = 0
) -> ShapeSet:
    """A ShapeSet from one array file; the suffix (.npz, .npy, .h5, .hdf5) says which reader.

    points (also called data or xyz): (S, N, 3) numbers.
    label (labels): (S,) or (S, 1) whole numbers, -1 = none. name (names): (S,) texts, unique.
    classes (shape_names): one text per label; without them the numbers are the names. A .npy holds the points alone.
    num_points: how many points to keep of each shape, in random order; None keeps all in theirs.
    normalize: unit sphere, centred by "mean" (True) or "bbox"; False leaves the points as they are.
    """
    path = Path(path)
    readers = {".npz": read_npz, ".npy": read_npy, ".h5": read_h5, ".hdf5": read_h5}
    if path.suffix.lower() not in readers:
        raise DataError(str(path), f"a file name ending in {path.suffix!r}", "one of " + ", ".join(readers))
    arrays = readers[path.suffix.lower()](path)
    return shape_set(arrays, str(path), num_points, normalize=normalize, seed=seed)


def load_npz(path: str | Path, num_points: int | None = None, **options) -> ShapeSet:
    """`load_arrays` for an .npz under any name."""
    return shape_set(read_npz(path), str(path), num_points, **options)


def load_npy(path: str | Path, num_points: int | None = None, **options) -> ShapeSet:
    """`load_arrays` for an .npy (points alone) under any name."""
    return shape_set(read_npy(path), str(path), num_points, **options)


def load_h5(path: str | Path, num_points: int | None = None, **options) -> ShapeSet:
    """`load_arrays` for an HDF5 file under any name."""
    return shape_set(read_h5(path), str(path), num_points, **options)


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Every array of an .npz. A DataError unless it is whole and free of pickles."""
    path = _existing(path, "an .npz archive")
    if not zipfile.is_zipfile(path):
        raise DataError(str(path), _beginning(path, b"PK", "a .npz cut short"), "an .npz archive (np.savez)")
    arrays: dict[str, np.ndarray] = {}
    key = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                key = member.filename.removesuffix(".npy")
                with archive.open(member) as file:
                    check_header(file, member.file_size, f"{path}[{key}]")
                with archive.open(member) as file:
                    arrays[key] = np.lib.format.read_array(file, allow_pickle=False)
    except DataError:
        raise
    except Exception as error:  # whatever the decoder says, it is the file that is wrong
        fix = "write it again (np.savez)"
        raise DataError(f"{path}[{key}]", _reason(error), "a whole .npz", fix) from error
    return arrays


def read_npy(path: str | Path) -> dict[str, np.ndarray]:
    """{"points": the array of an .npy}. A DataError unless it is whole and free of pickles."""
    path = _existing(path, "an .npy file")
    try:
        with open(path, "rb") as file:
            check_header(file, path.stat().st_size, str(path))
        with open(path, "rb") as file:
            return {"points": np.lib.format.read_array(file, allow_pickle=False)}
    except DataError:
        raise
    except Exception as error:  # whatever the decoder says, it is the file that is wrong
        raise DataError(str(path), _reason(error), "a whole .npy", "write it again (np.save)") from error


def read_h5(path: str | Path, keys: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The data sets `keys` (all when empty) at the top of an HDF5 file. A DataError if any cannot be read."""
    import h5py

    path = _existing(path, "an HDF5 file")
    arrays: dict[str, np.ndarray] = {}
    try:
        with h5py.File(path, "r") as file:
            present = [k for k in file if isinstance(file.get(k), h5py.Dataset)]
            for key in keys or present:
                if key not in present:
                    found = f"keys {', '.join(present) or '(none)'}"
                    raise DataError(str(path), found, f"a data set '{key}'")
                data = file[key]
                if data.nbytes > _DEFLATE_LIMIT * path.stat().st_size:
                    found = f"{data.nbytes} bytes declared"
                    raise DataError(f"{path}[{key}]", found, "no more than the file can hold")
                arrays[key] = data.asstr()[()] if h5py.check_string_dtype(data.dtype) else data[()]
    except DataError:
        raise
    except Exception as error:  # whatever the decoder says, it is the file that is wrong
        found = _beginning(path, b"\x89HDF", f"an HDF5 file that cannot be read ({_reason(error)})")
        raise DataError(str(path), found, "a whole HDF5 file", "fetch or write it again") from error
    return arrays


def shape_set(
    arrays: dict[str, np.ndarray], where: str, num_points: int | None = None, *,
    normalize: Normalize = True, seed: int = 0,
) -> ShapeSet:
    """Check what was read and make a ShapeSet of it; `where` names the file in messages."""
    points = check_points(_pick(arrays, "points"), where, arrays)
    names = _texts(_pick(arrays, "name"), f"{where}[name]", len(points))
    classes = _texts(_pick(arrays, "classes"), f"{where}[classes]", None)
    labels = check_labels(_pick(arrays, "label"), where, len(points), classes)
    if labels is not None and not classes:
        classes = [str(number) for number in range(int(labels.max()) + 1)]
    if num_points is not None and num_points > points.shape[1]:
        found = f"{points.shape[1]} points a shape"
        raise DataError(where, found, f"at least {num_points}", "a smaller num_points")
    if num_points is not None:
        keys = names or [f"#{i}" for i in range(len(points))]
        rows = np.stack([choose_points(points.shape[1], num_points, key, seed) for key in keys])
        points = np.take_along_axis(points, rows[:, :, None], 1)
    return ShapeSet(
        torch.from_numpy(normalized(points, normalize)), labels=labels, classes=tuple(classes),
        names=tuple(names), title=Path(where).stem,
    )


def check_points(points: np.ndarray | None, where: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(S, N, 3) float32 with S >= 1, N >= 2 and everything finite, or a DataError that says what is wrong."""
    if points is None:
        raise DataError(where, f"keys {', '.join(arrays) or '(none)'}", f"a key 'points' ({LAYOUT})")
    if points.dtype.kind not in "fiu":
        raise DataError(where, f"points of type {points.dtype}", "numbers")
    if points.ndim != 3 or points.shape[2] != 3:
        fix = {
            points.ndim == 2 and points.shape[-1] == 3: "points[None] for a single shape",
            points.ndim == 3 and points.shape[-1] > 3: "points[..., :3] to leave out normals or colours",
        }.get(True, "")
        raise DataError(where, f"points of shape {points.shape}", "(shapes, points, 3)", fix)
    if points.shape[0] == 0:
        raise DataError(where, f"no shapes (points of shape {points.shape})", "at least one")
    if points.shape[1] < 2:
        raise DataError(where, f"clouds of {points.shape[1]} point(s)", "at least two points a cloud")
    with np.errstate(over="ignore"):
        points = points.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(points).all((1, 2)))
    if len(bad):
        rows = ", ".join(map(str, bad[:10])) + (" ..." if len(bad) > 10 else "")
        found = f"NaN or infinite points in {len(bad)} of {len(points)} shapes (rows {rows})"
        raise DataError(where, found, "finite coordinates", "remove or re-export these shapes")
    return points


def check_labels(
    labels: np.ndarray | None, where: str, count: int, classes: Sequence[str] = ()
) -> torch.Tensor | None:
    """(S,) int64 labels, from -1 up and within `classes` where these are known, or a DataError."""
    if labels is None:
        return None
    if labels.shape not in ((count,), (count, 1)):
        raise DataError(where, f"label of shape {labels.shape}", f"({count},), one a shape")
    flat = labels.reshape(-1)
    if flat.dtype.kind not in "fiu" or not np.isfinite(flat).all() or (flat != np.floor(flat)).any():
        raise DataError(where, f"label of type {flat.dtype} that are no class numbers", "whole numbers")
    top = len(classes) if len(classes) else _MOST_UNNAMED
    bad = flat[(flat < -1) | (flat >= top)]
    if len(bad):
        raise DataError(where, f"label {bad[0]}", f"-1 (none) to {top - 1}")
    return torch.from_numpy(flat.astype(np.int64))


def _pick(arrays: dict[str, np.ndarray], meaning: str) -> np.ndarray | None:
    return next((arrays[key] for key in _SPELLINGS[meaning] if key in arrays), None)


def _texts(values: np.ndarray | None, where: str, count: int | None) -> list[str]:
    if values is None:
        return []
    if values.ndim != 1 or values.dtype.kind not in "USTO" or (count is not None and len(values) != count):
        expected = "texts in one dimension" if count is None else f"{count} texts, one a shape"
        raise DataError(where, f"{values.dtype} of shape {values.shape}", expected)
    texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]
    if len(set(texts)) < len(texts):
        raise DataError(where, f"the same text twice ({_first_repeated(texts)!r})", "unique texts")
    return texts


def _first_repeated(texts: list[str]) -> str:
    seen: set[str] = set()
    return next(t for t in texts if t in seen or seen.add(t))


def _existing(path: str | Path, what: str) -> Path:
    path = Path(path)
    if path.is_dir():
        raise DataError(str(path), "a folder", what)
    if not path.exists():
        raise MissingDataError(str(path), "no such file", what)
    if path.stat().st_size == 0:
        raise DataError(str(path), "an empty file", what)
    return path


def _beginning(path: Path, magic: bytes, when_right: str) -> str:
    with open(path, "rb") as file:
        head = file.read(8)
    return when_right if head.startswith(magic) else f"a file that starts with {head!r}"


def check_header(file, size: int, where: str) -> None:
    """Refuse object arrays (they are pickles) and arrays larger than the file that is said to hold them."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        fix = "save numbers and texts as plain arrays (np.asarray(names, dtype=str))"
        raise DataError(where, "an object array, which only pickle can read", "plain arrays", fix)
    needed = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
    if needed > size:
        found = f"{needed} bytes declared, {size} there"
        raise DataError(where, found, "a whole array", "write the file again")


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__
