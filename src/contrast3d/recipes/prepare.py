"""Scans into scenes with pairs, one file each: what `contrast3d data prepare pairs` does."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contrast3d.data.fragment_files import GT, write_gt_log
from contrast3d.data.pairs import find_pairs
from contrast3d.data.recordings import Camera
from contrast3d.data.rgbd import DEPTH, Source, find_scans, read_scan
from contrast3d.data.scene_views import save_views
from contrast3d.downstream.results import write_json
from contrast3d.engine.run_dir import replacing
from contrast3d.errors import ConfigError, DataError
from contrast3d.recipes.prepare_options import PairsOptions
from contrast3d.recipes.scan_stamps import stamp
from contrast3d.recipes.scene_sources import MANIFEST, read_manifest, some_of
from contrast3d.tally import Tally

SKIPPED = "skipped.csv"
_HOW = ("every", "min_overlap", "voxel", "radius", "thin", "intrinsics")  # options that change what is written


@dataclass(frozen=True)
class Prepared:
    """How `prepare_pairs` ended: scenes written now, scenes found there, scenes of no use with the reason.

    scenes: by name, what prepared.json holds of each: layout, views, pairs, skipped, seconds. removed: files of former
    runs that are no more, with the reason. gone: those of former runs whose recordings are no more; the files are kept.
    """

    out: Path
    scenes: dict[str, dict]
    written: list[str]
    broken: dict[str, str]
    removed: dict[str, str]
    gone: list[str]
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

    OUT/prepared.json says how each was made: one that is there, made so from the same files, is not made again, and
    one that cannot be made any more is removed. Interrupted, at most the scene in hand is lost. OUT/skipped.csv lists
    frames, and whole scenes, of no use. on_scene: told each scene as it is written.

    Raises ConfigError where OUT has a scene of the same name made from elsewhere, DataError where no scene can be used.
    """
    began, source, out = time.monotonic(), Path(source), Path(options.out)
    if out.resolve() == source.resolve():
        raise ConfigError(f"-o {out} is where the scans are; expected another folder")
    scans = find_scans(source, out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"-o {out} is a file; expected a folder")
    scenes = read_manifest(out) or {}
    _check_names(scans, scenes, out)
    out.mkdir(parents=True, exist_ok=True)
    done: dict[str, dict] = {}
    written, broken, removed = [], {}, {}
    for number, scan in enumerate(scans, 1):
        how, known = _how(scan, options), scenes.get(scan.name)
        if not options.restart and known and known["how"] == how and (out / f"{scan.name}.npz").is_file():
            done[scan.name] = known
            continue
        try:
            done[scan.name] = {"how": how, **_prepare(scan, out, options, f"scene {number} of {len(scans)}")}
        except DataError as error:
            broken[scan.name] = str(error)
            if known:
                removed[scan.name] = "it cannot be made any more"
                _remove(scan.name, scenes, out)
            continue
        scenes[scan.name] = done[scan.name]
        written.append(scan.name)
        write_json(out / MANIFEST, scenes)
        on_scene(scan.name, done[scan.name])
    for name, other in _renamed(scenes, done).items():
        removed[name] = f"{other} is made of the same files"
        _remove(name, scenes, out)
    _list_skipped(out / SKIPPED, scenes, broken)
    if not done:
        name, why = next(iter(broken.items()))
        found = why if len(broken) == 1 else f"none of {len(broken)} scenes can be used; {name}: {why}"
        was = f"; removed from {out}, as they cannot be made any more: {some_of(list(removed))}" if removed else ""
        raise DataError(str(source), found + was)
    gone = [name for name in scenes if name not in done and not Path(scenes[name]["how"]["source"]).exists()]
    return Prepared(out, done, written, broken, removed, gone, time.monotonic() - began)


def _how(scan: Source, options: PairsOptions) -> dict:
    """What decides whether a scene is made again, as it is read back from the manifest."""
    how = {**{name: getattr(options, name) for name in _HOW}, **stamp(scan)}
    return {**how, "intrinsics": list(how["intrinsics"])}


def _check_names(scans: Sequence[Source], scenes: dict[str, dict], out: Path) -> None:
    """A ConfigError where a scan would take the place of a scene that was made from somewhere else."""
    taken = [scan for scan in scans if scan.name in scenes and (out / f"{scan.name}.npz").is_file()
             and Path(scenes[scan.name]["how"]["source"]).resolve() != scan.path.resolve()]
    if not taken:
        return
    first, more = taken[0], f" (and {len(taken) - 1:,} more)" if len(taken) > 1 else ""
    old, new = Path(scenes[first.name]["how"]["source"]), first.path.absolute()
    above = Path(os.path.commonpath([old, new]))
    both = ""
    if above != Path(above.anchor) and max(len(path.relative_to(above).parts) for path in (old, new)) <= DEPTH:
        both = f"or both at once: contrast3d data prepare pairs {above} -o {out}, "
    raise ConfigError(f"{out / first.name}.npz is made of {old}; {new} has the same name{more}. Try: another folder "
                      f"with -o, {both}or remove {first.name}.npz if it is of no more use")


def _renamed(scenes: dict[str, dict], done: dict[str, dict]) -> dict[str, str]:
    """Scenes that are there under another name too, by which a run on the folder above calls them: old name -> new."""
    by_source = {scene["how"]["source"]: name for name, scene in done.items()}
    return {name: by_source[scene["how"]["source"]] for name, scene in scenes.items()
            if name not in done and scene["how"]["source"] in by_source}


def _remove(name: str, scenes: dict[str, dict], out: Path) -> None:
    """First from the manifest: a file that it does not name is not read."""
    del scenes[name]
    write_json(out / MANIFEST, scenes)
    for path in (out / f"{name}.npz", out / f"{name}-evaluation" / GT):
        path.unlink(missing_ok=True)


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
    scene = replace(read.views, pairs=pairs, overlaps=overlaps, min_overlap=options.min_overlap)
    save_views(scene, out / f"{scan.name}.npz")
    if len(read.views.pairs) and not read.views.overlaps.any():  # those of a gt.log, for `evaluate registration`
        write_gt_log(read.views, out / f"{scan.name}-evaluation" / GT)
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
