"""Where scenes come from: generated rooms, or a folder that `contrast3d data prepare pairs` filled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

from contrast3d.data.file_sets import judge_broken, read_each
from contrast3d.data.pairs import with_pairs
from contrast3d.data.room_camera import room_views
from contrast3d.data.rooms import make_room
from contrast3d.data.scene_views import SceneViews, leveled, load_views
from contrast3d.data.three_d_match import ThreeDMatch
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.tally import Tally

ROOMS = "Rooms"
HASHED = 4096  # points of each scene that its hash is of
EXPECTED = "scenes, one .npz each; as --dataset also Rooms, 3DMatch or ScanNet"
MANIFEST = "prepared.json"  # what `data prepare pairs` knows of the scenes of its folder
PREPARE = "contrast3d data prepare pairs SCANS -o FOLDER"


def scenes_of(
    dataset: str, data_root: Path, *, rooms: int, frames: int, split: str = "train", quiet: bool = False
) -> list[SceneViews]:
    """The views of all scenes, without pairs where none were looked for. rooms, frames: how many of generated ones.

    Pairs are as they are stored: whoever asks for less overlap than `SceneViews.min_overlap` searches again, as
    `paired` does for training and `fragments.overlapping` for registration.
    """
    if dataset == ROOMS:
        return _filmed(split, rooms, frames, quiet)
    if dataset == "3DMatch":
        return ThreeDMatch(data_root)
    return _prepared(data_root if dataset == "ScanNet" else Path(dataset))


def _prepared(folder: Path) -> list[SceneViews]:
    """The scenes that `data prepare pairs` wrote to a folder, by name; or one of its files."""
    files = [folder] if folder.is_file() else _listed(folder)
    if not files:
        found = "no scenes" if folder.exists() else "no such folder"
        raise MissingDataError(str(folder), found, EXPECTED, PREPARE)
    found, _, broken = read_each(load_views, files)
    judge_broken(str(folder), broken, len(files))
    return found


def _listed(folder: Path) -> list[Path]:
    """The files of a folder that its manifest names; a warning tells of others. All of them, where it has none."""
    files = sorted(p for p in folder.glob("*.npz") if not p.name.startswith("."))
    known = read_manifest(folder)
    if known is None:
        return files
    others = [path.name for path in files if path.stem not in known]
    missing = sorted(f"{name}.npz" for name in known.keys() - {path.stem for path in files})
    if others:
        warnings.warn(f"{folder}: {MANIFEST} does not name {some_of(others)}, not read. Try: {PREPARE}, or another "
                      "folder for scenes that it did not make", UserWarning, stacklevel=2)
    if missing:
        warnings.warn(f"{folder}: {MANIFEST} names {some_of(missing)}, not there. Try: {PREPARE}, to make them again",
                      UserWarning, stacklevel=2)
    return [path for path in files if path.stem in known]


def read_manifest(folder: Path) -> dict[str, dict] | None:
    """By name, what `data prepare pairs` remembers of the scenes of a folder; None where it is missing or damaged."""
    try:
        scenes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = {"how", "skipped", "views", "pairs"}
        return {name: scene for name, scene in scenes.items() if whole <= set(scene) and "source" in scene["how"]}
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def some_of(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def paired(scenes: Sequence[SceneViews], min_overlap: float, quiet: bool = False) -> list[SceneViews]:
    """The scenes with their pairs of views that overlap so much, looked for where none are stored, or too few."""
    few = [scene for scene in scenes if len(scene.pairs) and scene.searched_from > min_overlap]
    if few:
        warnings.warn(f"{some_of([scene.name for scene in few])}: prepared with pairs that overlap by "
                      f"{few[0].searched_from:.0%} or more, and {min_overlap:.0%} is asked for: searched again, for "
                      f"this run. To store the pairs: {PREPARE} --min-overlap {min_overlap:g}",
                      UserWarning, stacklevel=2)
    found = []
    with Tally(len(scenes), "scenes searched for pairs", quiet) as tally:
        for i, scene in enumerate(scenes):
            enough = scene.searched_from <= min_overlap
            found.append(_kept(scene, min_overlap) if enough else with_pairs(scene, min_overlap))
            tally.update(i + 1)
    return found


def _kept(scene: SceneViews, min_overlap: float) -> SceneViews:
    """Without the stored pairs that overlap less; those whose overlap is not stored, 0, stay."""
    enough = (scene.overlaps >= min_overlap) | (scene.overlaps == 0)
    return dataclasses.replace(scene, pairs=scene.pairs[enough], overlaps=scene.overlaps[enough],
                               min_overlap=min_overlap)


def named(scenes: Sequence[SceneViews], names: Sequence[str]) -> list[SceneViews]:
    """The scenes whose names begin with, or contain, one of `names`; a ConfigError for a name that none has."""
    missing = [name for name in names if not any(name in scene.name for scene in scenes)]
    if missing:
        raise ConfigError(f"no scene called {', '.join(missing)}; there are {', '.join(s.name for s in scenes)}")
    return [s for s in scenes if any(name in s.name for name in names)]


def split_scenes(
    scenes: Sequence[SceneViews], held_out: Sequence[str]
) -> tuple[list[SceneViews], list[SceneViews]]:
    """(scenes to train on, scenes to test on): those that `held_out` names."""
    test = named(scenes, held_out)
    train = [s for s in scenes if s not in test]
    if not train:
        raise DataError("test_scenes", "all scenes are held out", "at least one to train on")
    return train, test


def as_trained(scenes: Sequence[SceneViews], upright: bool) -> list[SceneViews]:
    """The views as a network sees them that was trained on upright ones, or as the camera held them."""
    return [leveled(scene) if upright else scene for scene in scenes]


def hash_of(scenes: Sequence[SceneViews]) -> str:
    """Twelve hex digits over poses, pairs and some of the points: a run only resumes on the same data."""
    digest = hashlib.sha256()
    for scene in scenes:
        some = scene.xyz_mm[:: max(1, len(scene.xyz_mm) // HASHED)]  # scenes may lie on disk, and be many
        for array in (some, scene.offsets, scene.poses, scene.pairs):
            digest.update(array.tobytes())
    return digest.hexdigest()[:12]


def _filmed(split: str, rooms: int, frames: int, quiet: bool) -> list[SceneViews]:
    found = []
    with Tally(rooms, "rooms filmed", quiet) as tally:
        for i in range(rooms):
            found.append(room_views(make_room(split, i), frames))
            tally.update(i + 1)
    return found
