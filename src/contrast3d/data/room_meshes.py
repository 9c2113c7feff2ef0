"""Furniture meshes of the user's own, mixed into generated rooms.

A folder of .obj, .stl, .ply, .off or .glb files, y up, front towards +z: the class of each is told by a word in its
name or its sub-folder's (chair-12.obj, sofas/red.stl). Sweet Home 3D libraries (.sh3f, as in Debian's
sweethome3d-furniture) are read as they are, classes by the names of their catalogue.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from contrast3d.data.mesh_files import Geometry, read_obj
from contrast3d.data.room_seats import Rng
from contrast3d.data.room_shapes import Piece
from contrast3d.data.shape_files import MESHES, read_geometry, turned
from contrast3d.errors import DataError, MissingDataError

WORDS = {  # the first that a name contains decides; lamps are told apart, lest a desk lamp be a desk
    "lamp": None, "armchair": "sofa", "chair": "chair", "sofa": "sofa", "couch": "sofa", "desk": "desk",
    "table": "table", "bed": "bed", "bookcase": "shelf", "shelf": "shelf", "shelves": "shelf", "wardrobe": "cabinet",
    "dresser": "cabinet", "cabinet": "cabinet", "chest": "cabinet",
}
MOST_TRIANGLES = 20_000
SHARE = 0.5  # of the pieces of a class, where there are meshes of it
_CATALOGUE = "PluginFurnitureCatalog.properties"
_MOST_BYTES = 2**26
Library = dict[str, list[np.ndarray]]


def class_of(name: str) -> str | None:
    """The class that a name tells of, or None."""
    words = re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    return next((WORDS[key] for key in WORDS for word in words if word in (key, f"{key}s")), None)


@lru_cache(maxsize=4)
def read_meshes(folder: str | Path) -> Library:
    """Class -> meshes (T, 3, 3), z up, in units of their own. Files that are broken, large or of no class are skipped.

    folder: of meshes and libraries, or one library (.sh3f).

    Raises MissingDataError where there is no folder, DataError where none of its files is of use.
    """
    folder = Path(folder)
    words = ", ".join(word for word, kind in WORDS.items() if kind)
    expected = f"{', '.join(MESHES)} or .sh3f files with one of these words in the name: {words}"
    is_library = folder.suffix.lower() == ".sh3f" and folder.is_file()
    if not (is_library or folder.is_dir()):
        found = "a file" if folder.is_file() else "no such folder"
        raise MissingDataError(str(folder), found, f"a folder of {expected}; or one .sh3f file")
    library: Library = {}
    for path in [folder] if is_library else sorted(folder.rglob("*")):
        suffix = path.suffix.lower()
        if suffix == ".sh3f":
            found = _of_library(path)
        elif suffix in MESHES and (kind := class_of(path.stem) or class_of(path.parent.name)):
            found = [(kind, lambda path=path: read_geometry(path))]
        else:
            continue
        for kind, read in found:
            try:
                geometry = read()
            except (ValueError, OSError, zipfile.BadZipFile, zlib.error):  # DataErrors are ValueErrors
                continue
            if geometry.faces is not None and 0 < len(geometry.faces) <= MOST_TRIANGLES:
                points = turned(geometry.points, "y") * (-1, -1, 1)  # half a turn: fronts of pieces face +y
                library.setdefault(kind, []).append(points[geometry.faces])
    if not library:
        raise DataError(str(folder), "no mesh of a known class", expected)
    return library


def _of_library(path: Path) -> list[tuple[str, Callable]]:
    """(class, reader) of each model in a Sweet Home 3D library that has a class."""
    try:
        archive = zipfile.ZipFile(path)
        text = archive.read(_CATALOGUE).decode("latin-1")
    except (OSError, KeyError, zipfile.BadZipFile):
        return []
    fields: dict[str, dict[str, str]] = {}
    for key, number, value in re.findall(r"^\s*(name|model|modelRotation)#(\d+)\s*=\s*(.*?)\s*$", text, re.M):
        fields.setdefault(number, {})[key] = value
    found = []
    for entry in fields.values():
        kind, model = class_of(entry.get("name", "")), entry.get("model", "").lstrip("/")
        size = archive.NameToInfo[model].file_size if model in archive.NameToInfo else _MOST_BYTES + 1
        if kind and model.lower().endswith(".obj") and size <= _MOST_BYTES:
            rotation = entry.get("modelRotation", "1 0 0 0 1 0 0 0 1")
            found.append((kind, partial(_model, archive, model, rotation, f"{path}: {model}")))
    return found


def _model(archive: zipfile.ZipFile, model: str, rotation: str, where: str) -> Geometry:
    """A model of a library, turned by the matrix that its catalogue gives by rows."""
    geometry = read_obj(archive.read(model), where)
    return Geometry(geometry.points @ np.array(rotation.split(), float).reshape(3, 3).T, geometry.faces)


def swapping(library: Library, rng: Rng) -> Callable[[Piece], Piece]:
    """A function that replaces some pieces by a mesh of their class, as large as fits into the piece's own box."""

    def swap(piece: Piece) -> Piece:
        meshes = library.get(piece.kind)
        if not meshes or rng.random() > SHARE:
            return piece
        mesh = meshes[rng.integers(len(meshes))]
        low, high = mesh.min((0, 1)), mesh.max((0, 1))
        scale = ((piece.high - piece.low) / np.maximum(high - low, 1e-6 * (high - low).max())).min()
        other = Piece(piece.kind)
        other.mesh((mesh - (low + high) / 2) * scale, 0)
        return other.centred()

    return swap
