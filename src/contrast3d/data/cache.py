"""Arrays that were expensive to read, kept on disk under a key of everything they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

VERSION = 1  # to be raised when a reader makes something else of the same files


def cache_folder() -> Path:
    """$CONTRAST3D_CACHE, or contrast3d/ in the user's cache folder. Deleting it is always safe."""
    if chosen := os.environ.get("CONTRAST3D_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "contrast3d"


def fingerprint(paths: Iterable[Path]) -> str:
    """A digest over names, sizes and modification times; a missing file counts as such."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = path.stat()
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        except OSError:
            digest.update(f"{path}\0missing\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def cached(name: str, key: dict, build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of `build()`, from the cache when it holds them for this `key` (anything json can write).

    A damaged cache file is built again; a cache that cannot be written costs a warning, not the run.
    """
    text = json.dumps({**key, "version": VERSION}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = cache_folder() / f"{name}-{digest}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return {k: file[k] for k in file.files}
    except Exception:  # absent or damaged in any way: the source is what counts
        arrays = build()
    try:
        write_arrays(path, arrays)
    except OSError as error:
        warnings.warn(f"{path}: cannot be written ({error.strerror}); set CONTRAST3D_CACHE", stacklevel=2)
    return arrays


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz under a temporary name, moved into place when it is whole; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
