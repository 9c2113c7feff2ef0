"""One file of a shape -> points: meshes are sampled by area, clouds of points drawn from. No materials, no pickles.

Every way in which a file can be wrong is one DataError, an UnreadableError where the file is not to blame. Sizes that
a file declares are compared with what is there before anything is allocated.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from contrast3d.data.geometry import choose_points, sample_surface, unit_sphere
from contrast3d.data.gltf_files import read_gltf
from contrast3d.data.mesh_files import Geometry, read_obj, read_stl
from contrast3d.data.off_meshes import read_off
from contrast3d.data.pcd_files import read_pcd
from contrast3d.data.ply_files import read_ply
from contrast3d.data.point_files import MOST_POINTS, read_las, read_npy, read_npz, read_text
from contrast3d.errors import ConfigError, DataError, UnreadableError

Up = Literal["x", "y", "z"]
MESHES = (".obj", ".ply", ".stl", ".off", ".glb", ".gltf")
CLOUDS = (".pcd", ".xyz", ".txt", ".pts", ".csv", ".npy", ".npz", ".las", ".laz")
SUFFIXES = (*MESHES, *CLOUDS)
MOST_BYTES = 2**30  # a shape larger than this is a scene, or a mistake
_LEAST_AREA = 1e-12  # of a mesh whose longest side is 1
_TURNS = {"z": ([0, 1, 2], [1, 1, 1]), "y": ([0, 2, 1], [1, -1, 1]), "x": ([1, 2, 0], [1, 1, 1])}  # rotations all
_STARTS = (  # first bytes, what they tell of, and the suffixes that go with it
    (rb"version https://git-lfs", "a Git LFS pointer", ()), (rb"ply\s", "PLY", (".ply",)), (rb"glTF", "GLB", (".glb",)),
    (rb"\s*OFF\b", "OFF", (".off",)), (rb"PK\x03\x04", "a zip archive", (".npz",)), (rb"\x93NUMPY", "NumPy", (".npy",)),
    (rb"LASF", "LAS", (".las", ".laz")), (rb"# \.PCD", "PCD", (".pcd",)), (rb"\s*solid\s", "text STL", (".stl",)),
    (rb"\x89HDF", "HDF5", ()), (rb"\x1f\x8b", "gzip", ()), (rb"7z\xbc\xaf", "7z", ()), (rb"Kaydara FBX", "FBX", ()),
    (rb"\s*<(?:!DOCTYPE|html)", "a web page", ()), (rb"\s*<\?xml", "XML", ()), (rb"\x89PNG", "a picture", ()),
)


class Measured(NamedTuple):
    """points: (n, 3), z up, centred, in the unit sphere. box: lowest and highest corner in the file's own frame."""

    points: Float[np.ndarray, "n 3"]
    box: Float[np.ndarray, "2 3"]


def read_shape(path: str | Path, num_points: int, *, up: Up = "z", seed: int = 0) -> Float[np.ndarray, "n 3"]:
    """One mesh or cloud of points -> (num_points, 3) float32, z up, centred, in the unit sphere.

    A mesh is sampled uniformly by area. Of a cloud a random part is drawn, without replacement; of one that has too
    few points every point comes once, and the rest again. The draw depends on the coordinates and `seed` alone.
    up: the axis of the file that points up; "y" and "x" are turned to z. A DataError says what is wrong with a file.
    """
    return measure_shape(path, num_points, up=up, seed=seed).points


def measure_shape(path: str | Path, num_points: int, *, up: Up = "z", seed: int = 0) -> Measured:
    """`read_shape`, and the size of the shape in its file."""
    check_options(num_points, up)
    where, geometry = shown(path), read_geometry(path)
    used = np.full(len(geometry.points), geometry.faces is None)  # a stray vertex of a mesh is no part of its surface
    if geometry.faces is not None:
        used[geometry.faces] = True
    corners = geometry.points[used]
    low, high = corners.min(0), corners.max(0)
    with np.errstate(over="ignore"):
        size = (high - low).max()
    if not 0 < size < np.inf:
        found = "points that all coincide" if size == 0 else "coordinates too far apart"
        raise DataError(where, found, "a shape with an extent")
    key = f"{zlib.crc32(np.ascontiguousarray(geometry.points)):08x}"  # the same again wherever the file lies
    scaled = (geometry.points - (low / 2 + high / 2)) / size  # in float64: float32 would blur what is far away
    if geometry.faces is None:
        points = scaled[choose_points(len(scaled), num_points, key, seed)]
    else:
        points = _on_surface(scaled, geometry.faces, num_points, key, seed, where)
    return Measured(unit_sphere(turned(points, up)[None])[0], np.stack((low, high)))


def read_geometry(path: str | Path) -> Geometry:
    """Points and triangles of a file in its own frame, all finite; a DataError for anything else."""
    path, where = Path(path), shown(path)
    try:
        _check_file(path, where)
        with np.errstate(invalid="ignore"):  # NaN of any kind is looked for below
            geometry = _read(path, where)
    except UnreadableError:
        raise
    except DataError as error:
        raise DataError(where, *_true_nature(path, error)) from None
    except MemoryError:
        raise UnreadableError(where, "too little memory to read it", "a smaller file, or a larger machine") from None
    except OSError as error:  # numpy raises some without a number, about what is in a file
        kind = DataError if error.errno is None else UnreadableError
        raise kind(where, error.strerror or "cannot be read", "a readable file") from None
    except Exception as error:  # whatever the decoder says, it is the file that is wrong
        found = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        raise DataError(where, *_true_nature(path, DataError(where, found, f"a whole {path.suffix} file"))) from None
    points = geometry.points
    if len(points) < 2:
        raise DataError(where, f"{len(points)} point(s)", "at least two")
    if len(points) > MOST_POINTS:
        raise DataError(where, f"{len(points)} points", f"at most {MOST_POINTS}", "thin it out")
    if not np.isfinite(points).all():
        found = f"{int((~np.isfinite(points)).any(1).sum())} of {len(points)} points are NaN or infinite"
        raise DataError(where, found, "finite coordinates")
    return Geometry(points.astype(np.float64), geometry.faces)


def turned(points: Float[np.ndarray, "*s 3"], up: Up) -> Float[np.ndarray, "*s 3"]:
    """Rotated so that the axis `up` becomes z."""
    order, signs = _TURNS[up]
    return points[..., order] * np.array(signs, points.dtype)


def check_options(num_points: int, up: str) -> None:
    """A ConfigError unless there are at least two points and up is an axis."""
    if num_points < 2 or up not in _TURNS:
        raise ConfigError(f"num_points must be at least 2 and up 'x', 'y' or 'z', not {num_points} and {up!r}")


def shown(path: str | Path) -> str:
    """A path in one printable line, whatever bytes its name holds."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in os.fspath(path))


def _check_file(path: Path, where: str) -> None:
    state = path.stat()
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(where, f"a file name ending in {path.suffix!a}", "one of " + ", ".join(SUFFIXES))
    if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
        raise DataError(where, "a folder" if stat.S_ISDIR(state.st_mode) else "no plain file", "a file")
    if state.st_size == 0:
        raise DataError(where, "an empty file", f"a whole {path.suffix} file")
    if state.st_size > MOST_BYTES and path.suffix.lower() not in (".las", ".laz"):
        raise DataError(where, f"{state.st_size} bytes", f"at most {MOST_BYTES} for one shape", "thin it out")


def _read(path: Path, where: str) -> Geometry:
    suffix = path.suffix.lower()
    if suffix == ".off":
        return Geometry(*read_off(path))
    if suffix == ".npy":
        return Geometry(read_npy(path, where))
    if suffix == ".npz":
        return Geometry(read_npz(path, where, MOST_BYTES))
    if suffix in (".las", ".laz"):
        return Geometry(read_las(path, where))
    data = path.read_bytes()
    if suffix in (".glb", ".gltf"):
        return read_gltf(data, where, path)
    if suffix in (".obj", ".stl", ".ply"):
        return {".obj": read_obj, ".stl": read_stl, ".ply": read_ply}[suffix](data, where)
    return Geometry(read_pcd(data, where) if suffix == ".pcd" else read_text(data, where))


def _on_surface(
    vertices: Float[np.ndarray, "v 3"], faces: np.ndarray, num_points: int, key: str, seed: int, where: str
) -> Float[np.ndarray, "n 3"]:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    if area < _LEAST_AREA:
        raise DataError(where, f"a mesh of {len(faces)} triangles without area", "triangles with an area")
    return sample_surface(vertices, faces, num_points, key, seed)


def _true_nature(path: Path, error: DataError) -> tuple[str, str, str]:
    """found, expected and fix of an error; where the first bytes tell of another format, that is what was found."""
    head = b""
    with contextlib.suppress(OSError):
        if path.is_file():  # a pipe would not open
            with open(path, "rb") as file:
                head = file.read(64)
    for start, kind, suffixes in _STARTS:
        if re.match(start, head) and path.suffix.lower() not in suffixes:
            fix = "git lfs pull" if "LFS" in kind else "give it the suffix of what it is, or remove it"
            return f"{kind}, by its first bytes", f"what {path.suffix} files hold", fix
    return error.found, error.expected, error.fix
