"""Generated rooms as RGB-D recordings, a folder each: what `contrast3d data prepare rooms` does."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from contrast3d.data.room_camera import ABOUT, write_rgbd
from contrast3d.data.room_meshes import read_meshes
from contrast3d.data.rooms import make_room
from contrast3d.errors import ConfigError
from contrast3d.recipes.prepare_options import RoomsOptions
from contrast3d.tally import Tally

_HOW = ("frames", "width", "height")  # options that change what is written


@dataclass(frozen=True)
class PreparedRooms:
    """How `prepare_rooms` ended. written: the names of the rooms made now; known: how many were there."""

    out: Path
    written: list[str]
    known: int
    seconds: float


def prepare_rooms(options: RoomsOptions) -> PreparedRooms:
    """The first rooms of a split into OUT/NAME, each a recording as ScanNet exports its frames.

    A room that is there, made so, is kept; one that was made with other options is made again. Interrupted, at most
    the room in hand is lost. Raises ConfigError where a folder of the name of a room is not one that this has made,
    DataError where no mesh can be used.
    """
    began, out = time.monotonic(), Path(options.out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"-o {out} is a file; expected a folder")
    how = {name: getattr(options, name) for name in _HOW}
    how["meshes"] = str(options.meshes.resolve()) if options.meshes else ""
    names = [make_room(options.split, index).name for index in range(options.count)]  # meshes do not change them
    made = {name: _about(out / name) for name in names}
    due = [index for index, name in enumerate(names) if options.restart or made[name] != how]
    if due and options.meshes:
        read_meshes(options.meshes)
    with Tally(len(due), "rooms filmed", options.quiet) as tally:
        tally.update(0)
        for number, index in enumerate(due, 1):
            _film(options, index, out / names[index], how)
            tally.update(number)
    return PreparedRooms(out, [names[index] for index in due], options.count - len(due), time.monotonic() - began)


def _about(folder: Path) -> dict | None:
    """What a recording was made with; None where there is none yet, a ConfigError where it is someone else's."""
    with contextlib.suppress(OSError, ValueError):
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if isinstance(about, dict) and set(_HOW) <= set(about):
            return about
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder} is there, without an {ABOUT} of a generated room; expected nothing, or a room "
                          "that this command made. Try: another folder with -o")
    return None


def _film(options: RoomsOptions, index: int, folder: Path, how: dict) -> None:
    """Write one room beside its place; what is there goes when the new one is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".*{folder.name}.*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    new, old = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    room = make_room(options.split, index, meshes=options.meshes)
    write_rgbd(room, new, options.frames, width=options.width, height=options.height, about=how)
    if folder.exists():
        folder.replace(old)
    new.replace(folder)
    shutil.rmtree(old, ignore_errors=True)
