"""Where scenes come from: generated rooms, or a folder that `contrast3d data prepare pairs` filled."""

from __future__ import annotations

import dataclasses
import hashlib
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


def scenes_of(
    dataset: str, data_root: Path, *, rooms: int, frames: int, split: str = "train", quiet: bool = False
) -> list[SceneViews]:
    """The views of all scenes, without pairs where none were looked for. rooms, frames: how many of generated ones."""
    if dataset == ROOMS:
        return _filmed(split, rooms, frames, quiet)
    if dataset == "3DMatch":
        return ThreeDMatch(data_root)
    return _prepared(data_root if dataset == "ScanNet" else Path(dataset))


def _prepared(folder: Path) -> list[SceneViews]:
    """The scenes that `data prepare pairs` wrote to a folder, by name; or one of its files."""
    files = sorted(p for p in folder.glob("*.npz") if not p.name.startswith("."))
    files = [folder] if folder.is_file() else files
    if not files:
        raise MissingDataError(str(folder), "no scenes" if folder.exists() else "no such folder", EXPECTED,
                               "contrast3d data prepare pairs SCANS -o FOLDER")
    found, _, broken = read_each(load_views, files)
    judge_broken(str(folder), broken, len(files))
    return found


def paired(scenes: Sequence[SceneViews], min_overlap: float, quiet: bool = False) -> list[SceneViews]:
    """The scenes with their pairs of views that overlap so much, looked for where none are stored."""
    found = []
    with Tally(len(scenes), "scenes searched for pairs", quiet) as tally:
        for i, scene in enumerate(scenes):
            found.append(_kept(scene, min_overlap) if len(scene.pairs) else with_pairs(scene, min_overlap=min_overlap))
            tally.update(i + 1)
    return found


def _kept(scene: SceneViews, min_overlap: float) -> SceneViews:
    """Without the stored pairs that overlap less; those whose overlap is not stored, 0, stay."""
    enough = (scene.overlaps >= min_overlap) | (scene.overlaps == 0)
    return dataclasses.replace(scene, pairs=scene.pairs[enough], overlaps=scene.overlaps[enough])


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
