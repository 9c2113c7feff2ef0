"""A folder of meshes and point clouds is a data set: found, read in parallel through a cache on disk."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from contrast3d.data.folder_cache import Gathered, Options, gather
from contrast3d.data.folder_hints import hints
from contrast3d.data.shape_files import SUFFIXES, Up, check_options, read_shape, shown
from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.tally import Tally

__all__ = ["Found", "broken_files", "find_files", "load_folder", "look_through", "read_shape"]

LabelsFrom = Literal["none", "folders"]
_UNREAD = (  # suffixes of shapes that a user may miss
    ".3ds", ".3mf", ".abc", ".blend", ".dae", ".e57", ".fbx", ".h5", ".iges", ".igs", ".max", ".mb", ".step", ".stp",
    ".usd", ".usdz", ".wrl", ".x3d", ".gz", ".zip",
)


class Found(NamedTuple):
    """files: what can be tried, in order of their paths. ignored: how many others there are, by suffix."""

    files: list[Path]
    ignored: Counter


def find_files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Every file of a known suffix in these files and folders, sub-folders included, sorted within each.

    Hidden files and folders are skipped, links to folders followed once. A file named itself is taken whatever it is
    called. A MissingDataError where nothing is found, which counts what was ignored.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    return look_through([Path(p) for p in paths]).files


def look_through(paths: Sequence[Path]) -> Found:
    """`find_files`, and what was ignored."""
    files: list[Path] = []
    ignored: Counter = Counter()
    for path in paths:
        if path.is_dir():
            found = _below(path)
            files += found.files
            ignored += found.ignored
        elif os.path.lexists(path):
            files.append(path)
        else:
            raise MissingDataError(shown(path), "no such file or folder", "meshes or point clouds, or a folder of them")
    if not files:
        what = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in ignored.most_common(5))
        found = f"no mesh or cloud of points, only {what}" if ignored else "an empty folder"
        raise MissingDataError(", ".join(map(shown, paths[:3])), found, f"files ending in {', '.join(SUFFIXES)}")
    return Found(list(dict.fromkeys(files)), ignored)


def load_folder(
    path: str | Path, num_points: int, *, up: Up = "z", labels_from: LabelsFrom = "none", workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None, broken_list: str | Path | None = None,
    quiet: bool = False,
) -> ShapeSet:
    """Every mesh and cloud of points below a folder, as `read_shape` reads it; names are the paths below the folder.

    up: the axis of the files that points up; all of them are turned to z.
    labels_from: "folders" makes classes of the folders directly below `path`; files beside them have no label.
    workers: threads; the points do not depend on it.
    on_progress: called as on_progress(files done, files) in place of the progress bar; quiet: neither.
    broken_list: where the table (.csv) of the files that cannot be used goes; beside the cache where not said.

    What is read is kept in the cache: the next time it is mapped from there, only files that are new or have changed
    are read, and an interrupted reading goes on. The files that cannot be used are left out, counted in a warning, and
    listed with their reasons in the table; a DataError where none can be used.
    """
    root, found, gathered = _gathered(path, num_points, up, labels_from, workers, on_progress, quiet)
    files = found.files
    if unread := [f"{found.ignored[suffix]} {suffix}" for suffix in _UNREAD if found.ignored[suffix]]:
        warnings.warn(f"{shown(root)}: not read: {', '.join(unread)}; convert them to one of {', '.join(SUFFIXES)}",
                      stacklevel=2)
    if gathered.broken:
        _tell_broken(root, files, gathered, broken_list)
    elif gathered.place:
        with contextlib.suppress(OSError):  # the list of a former time
            (gathered.place / "broken.csv").unlink()
    usable = [files[i] for i in gathered.kept]
    for hint in hints(gathered.boxes, [f.suffix.lower() for f in usable], up):
        warnings.warn(f"{shown(root)}: {hint}", stacklevel=2)
    relative = [f.relative_to(root) for f in usable]
    labels, classes = (None, ()) if labels_from == "none" else _labels(relative, root)
    return ShapeSet(
        torch.from_numpy(gathered.points), labels, classes, tuple(shown(r.as_posix()) for r in relative),
        title=shown(root.resolve().name) or shown(root),
    )


def broken_files(path: str | Path, num_points: int = 1024) -> list[str]:
    """One line for each file below a folder that cannot be used; empty when all can."""
    try:
        _, found, gathered = _gathered(path, num_points, "z", "none", None, None, False)
    except DataError as error:
        return [str(error)]
    return [f"{shown(found.files[i])}: {reason}" for i, reason in gathered.broken]


def _gathered(path, num_points, up, labels_from, workers, on_progress, quiet) -> tuple[Path, Found, Gathered]:
    check_options(num_points, up)
    if labels_from not in ("none", "folders"):
        raise ConfigError(f"labels_from = {labels_from!r}; expected none or folders")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers = {workers}; expected at least 1")
    root = Path(path).absolute()
    if os.path.lexists(root) and not root.is_dir():
        raise DataError(shown(path), "a file", "a folder of meshes or clouds of points, or an .npz, .npy or .h5",
                        "the folder that it lies in")
    found = look_through([root])
    with Tally(len(found.files), "files read", quiet or on_progress is not None) as tally:
        tell = on_progress or (lambda done, total: tally.update(done))
        return root, found, gather(root, found.files, Options(num_points, up, 0), workers, tell)


def _labels(relative: Sequence[Path], root: Path) -> tuple[torch.Tensor, tuple[str, ...]]:
    """The folder directly below the root, numbered in order of the names; -1 for files that lie in none."""
    folders = [shown(r.parts[0]) if len(r.parts) > 1 else None for r in relative]
    classes = tuple(sorted({f for f in folders if f is not None}))
    if not classes:
        raise DataError(shown(root), "no sub-folders", "one sub-folder a class", "labels_from none")
    numbers = {name: i for i, name in enumerate(classes)}
    return torch.tensor([numbers.get(f, -1) for f in folders]), classes


def _tell_broken(root: Path, files: list[Path], gathered: Gathered, broken_list: str | Path | None) -> None:
    """Write the table of broken files, and warn of them, or raise where nothing else is left."""
    rows = [(shown(files[i].relative_to(root).as_posix()), reason) for i, reason in gathered.broken]
    found = f"{len(rows)} of {len(files)} files cannot be used"
    examples = "; ".join(f"{name}: {reason}" for name, reason in rows[:3])
    place = Path(broken_list) if broken_list else gathered.place and gathered.place / "broken.csv"
    try:
        why = "all of them and why: " + shown(_write_table(place, rows)) if place else "broken_list=FILE lists them all"
    except OSError as error:
        why = f"the list could not be written to {shown(place)} ({error.strerror})"
    if len(gathered.kept) == 0:
        fix = f"see {shown(place)}" if place else ""
        raise DataError(shown(root), f"{found} ({examples})", "at least one that can", fix)
    warnings.warn(f"{shown(root)}: {found} and are left out ({examples}); {why}", stacklevel=3)


def _write_table(place: Path, rows: list[tuple[str, str]]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", "reason"), *rows])
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=place.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
        file.write(text.getvalue())
    os.replace(file.name, place)
    return place


def _below(root: Path) -> Found:
    """The files below a folder. Each real folder is entered once, under its own name rather than a link's."""
    files: list[Path] = []
    ignored: Counter = Counter()
    waiting, links, entered = [root], [], set()
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop()
        try:
            state = folder.stat()
            if (state.st_dev, state.st_ino) in entered:
                continue
            entered.add((state.st_dev, state.st_ino))
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            raise DataError(shown(folder), error.strerror or "cannot be listed", "a readable folder") from None
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if path.is_dir():  # of an entry this raises where links go round
                (links if entry.is_symlink() else waiting).append(path)
            elif path.suffix.lower() in SUFFIXES:
                files.append(path)  # a link that leads nowhere too: reading it says so
            else:
                ignored[path.suffix.lower()] += 1
    return Found(sorted(files), ignored)
