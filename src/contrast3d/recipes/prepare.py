"""Scans into scenes with pairs, one file each: what `contrast3d data prepare pairs` does."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from contrast3d.data.pairs import find_pairs
from contrast3d.data.recordings import Camera
from contrast3d.data.rgbd import Source, find_scans, read_scan
from contrast3d.data.scene_views import save_views
from contrast3d.downstream.results import write_json
from contrast3d.engine.run_dir import replacing
from contrast3d.errors import ConfigError, DataError
from contrast3d.recipes.prepare_options import PairsOptions
from contrast3d.tally import Tally

MANIFEST, SKIPPED = "prepared.json", "skipped.csv"
_HOW = ("every", "min_overlap", "voxel", "radius", "thin", "intrinsics")  # options that change what is written


@dataclass(frozen=True)
class Prepared:
    """How `prepare_pairs` ended: scenes written now, scenes found there, scenes of no use with the reason.

    scenes: by name, what prepared.json holds of each: layout, views, pairs, skipped, seconds.
    """

    out: Path
    scenes: dict[str, dict]
    written: list[str]
    broken: dict[str, str]
    seconds: float

    @property
    def known(self) -> int:
        return len(self.scenes) - len(self.written)

    @property
    def skipped(self) -> int:
        """Frames left out, in all scenes."""
        return sum(len(scene["skipped"]) for scene in self.scenes.values())


def prepare_pairs(
    source: Path | str, options: PairsOptions, on_scene: Callable[[str, dict], None] = lambda name, scene: None
) -> Prepared:
    """Every scene at `source` into OUT/NAME.npz, a `SceneViews` with its pairs.

    OUT/prepared.json says how each was made: one that is there, made so from the same files, is not made again.
    Interrupted, at most the scene in hand is lost. OUT/skipped.csv lists frames, and whole scenes, of no use.
    on_scene: told each scene as it is written.

    Raises DataError where no scene can be used.
    """
    began, source, out = time.monotonic(), Path(source), Path(options.out)
    if out.resolve() == source.resolve():
        raise ConfigError(f"-o {out} is where the scans are; expected another folder")
    scans = find_scans(source, out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"-o {out} is a file; expected a folder")
    out.mkdir(parents=True, exist_ok=True)
    scenes = _manifest(out / MANIFEST)
    done: dict[str, dict] = {}
    written, broken = [], {}
    for number, scan in enumerate(scans, 1):
        how = {**{name: getattr(options, name) for name in _HOW}, **_stamp(scan)}
        how["intrinsics"] = list(how["intrinsics"])  # as it is read back
        known = scenes.get(scan.name)
        if not options.restart and known and known["how"] == how and (out / f"{scan.name}.npz").is_file():
            done[scan.name] = known
            continue
        try:
            done[scan.name] = {"how": how, **_prepare(scan, out, options, f"scene {number} of {len(scans)}")}
        except DataError as error:
            broken[scan.name] = str(error)
            continue
        scenes[scan.name] = done[scan.name]
        written.append(scan.name)
        write_json(out / MANIFEST, scenes)
        on_scene(scan.name, done[scan.name])
    _list_skipped(out / SKIPPED, scenes, broken)
    if not done:
        name, why = next(iter(broken.items()))
        found = why if len(broken) == 1 else f"none of {len(broken)} scenes can be used; {name}: {why}"
        raise DataError(str(source), found)
    return Prepared(out, done, written, broken, time.monotonic() - began)


def _prepare(scan: Source, out: Path, options: PairsOptions, which: str) -> dict:
    """Make one scene and write it; what is remembered of it."""
    began = time.monotonic()
    camera = Camera(*options.intrinsics) if options.intrinsics else None
    note = f"of {scan.name}, {which}"
    with _progress(f"frames {note}", options.quiet) as show:
        read = read_scan(scan, options.every, options.thin, options.voxel, camera, out, show)
    with _progress(f"pairs {note}", options.quiet) as show:
        pairs, overlaps = find_pairs(
            read.views, options.min_overlap, options.voxel, options.radius, read.means, show
        )
    save_views(replace(read.views, pairs=pairs, overlaps=overlaps), out / f"{scan.name}.npz")
    return {"layout": scan.layout, "views": len(read.views), "points": len(read.views.xyz_mm), "pairs": len(pairs),
            "skipped": [list(line) for line in read.skipped], "seconds": round(time.monotonic() - began, 2)}


class _progress:
    """A tally whose total is known when it is first told."""

    def __init__(self, what: str, quiet: bool):
        self._tally = Tally(0, what, quiet)

    def __enter__(self) -> Callable[[int, int], None]:
        return self._show

    def _show(self, done: int, total: int) -> None:
        self._tally.total = total
        self._tally.update(done)

    def __exit__(self, *stop) -> None:
        self._tally.__exit__(*stop)


def _stamp(scan: Source) -> dict:
    """What changes when files of a scene do: the time of its file, or the latest of its folder and what is there."""
    places = [scan.path, *(scan.path.iterdir() if scan.path.is_dir() else ())]
    changed = max(place.stat().st_mtime_ns for place in places if place.exists())
    return {"source": str(scan.path.absolute()), "changed": changed}


def _manifest(path: Path) -> dict[str, dict]:
    """What OUT knows of its scenes; a file that is damaged is no loss, the scenes are made again."""
    try:
        scenes = json.loads(path.read_text(encoding="utf-8"))
        return {name: scene for name, scene in scenes.items() if {"how", "skipped", "views", "pairs"} <= set(scene)}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _list_skipped(path: Path, scenes: dict[str, dict], broken: dict[str, str]) -> None:
    """One line for each frame, or whole scene, that is of no use; no file where there is none."""
    lines = [(name, "", why) for name, why in broken.items()]
    lines += [(name, *line) for name, scene in sorted(scenes.items()) for line in scene["skipped"]]
    if not lines:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("scene", "frame", "why"), *lines])
    with replacing(path) as file:
        file.write(text.getvalue().encode())
