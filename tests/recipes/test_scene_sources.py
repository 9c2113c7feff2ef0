"""Scenes as recipes read them: which files of a folder count; stored pairs never restrict who asks for more."""

import shutil
import warnings

import numpy as np
import pytest
import rgbd_folders as folders

from contrast3d.data.scene_views import load_views
from contrast3d.downstream.fragments import overlapping
from contrast3d.errors import MissingDataError
from contrast3d.recipes import scene_sources as sources
from contrast3d.recipes.prepare import prepare_pairs
from contrast3d.recipes.prepare_options import PairsOptions
from contrast3d.recipes.scene_contrast import SceneRecipe


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder prepared with pairs of 30 %, folder prepared with pairs of 70 %), of the same two recordings."""
    root = tmp_path_factory.mktemp("made")
    for name in ("kitchen", "office"):
        folders.write_scannet(root / "scans" / name, count=8)
    for least in (0.3, 0.7):
        prepare_pairs(root / "scans", PairsOptions(root / f"{least}", every=1, min_overlap=least, quiet=True))
    return root / "0.3", root / "0.7"


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "pairs")


def read(folder):
    return sources.scenes_of(str(folder), folder, rooms=0, frames=0)


# Which files are read.


def test_files_that_the_manifest_does_not_name_are_told_and_not_read(folder):
    shutil.copy(folder / "office.npz", folder / "stale.npz")
    with pytest.warns(UserWarning, match=r"prepared\.json does not name stale\.npz, not read. Try: contrast3d data"):
        assert [scene.name for scene in read(folder)] == ["kitchen", "office"]
    assert [scene.name for scene in read(folder / "stale.npz")] == ["stale"]  # asked for by its own name


def test_files_that_only_the_manifest_names_are_told(folder):
    (folder / "office.npz").unlink()
    with pytest.warns(UserWarning, match=r"prepared\.json names office\.npz, not there"):
        assert [scene.name for scene in read(folder)] == ["kitchen"]


@pytest.mark.parametrize("text", [None, "{ broken", "[1]"])
def test_without_a_manifest_all_files_are_read(folder, text):
    (folder / "prepared.json").unlink()
    if text:
        (folder / "prepared.json").write_text(text)
    shutil.copy(folder / "office.npz", folder / "other.npz")
    with warnings.catch_warnings(action="error"):
        assert [scene.name for scene in read(folder)] == ["kitchen", "office", "other"]


def test_nothing_that_the_manifest_names_is_no_scenes(folder):
    (folder / "prepared.json").write_text("{}")
    with pytest.warns(UserWarning, match="does not name"), pytest.raises(MissingDataError, match="no scenes"):
        read(folder)


def test_many_names_are_cut_short():
    assert sources.some_of(["a"]) == "a"
    assert sources.some_of(list("abcdefg")) == "a, b, c, d, e and 2 more"


# Pairs that were searched for from a higher overlap than is asked for.


def test_fewer_stored_pairs_than_asked_for_are_searched_for_again(made):
    every, few = made
    wanted = [scene.pairs.tolist() for scene in read(every)]
    assert all(len(load_views(few / f"{name}.npz").pairs) < len(wanted[0]) for name in ("kitchen", "office"))
    with pytest.warns(UserWarning, match=r"kitchen, office: prepared with pairs that overlap by 70% or more, and 30%"):
        assert [scene.pairs.tolist() for scene in sources.paired(read(few), 0.3, True)] == wanted
    for stored, asked in ((every, 0.3), (few, 0.7), (few, 0.8)):  # these have all that is asked for
        with warnings.catch_warnings(action="error"):
            kept = sources.paired(read(stored), asked, True)
        scene = load_views(stored / "kitchen.npz")
        assert kept[0].pairs.tolist() == scene.pairs[scene.overlaps >= asked].tolist()
        assert kept[0].min_overlap == asked


def test_what_is_stored_is_not_searched_for_again(made, monkeypatch):
    """Not even where no views overlap so much."""
    def fail(*arguments):
        raise AssertionError

    monkeypatch.setattr(sources, "with_pairs", fail)
    assert sum(len(scene.pairs) for scene in sources.paired(read(made[1]), 0.7, True)) > 0
    assert [len(scene.pairs) for scene in sources.paired(sources.paired(read(made[1]), 1.0, True), 1.0, True)] == [0, 0]


@pytest.mark.parametrize("upright", [False, True])
def test_registration_is_not_restricted_either(made, upright):
    for dataset, root in ((str(made[1]), made[1]), ("ScanNet", made[1]), ("3DMatch", made[1])):
        few = sources.as_trained(sources.scenes_of(dataset, root, rooms=0, frames=0), upright)
        every = sources.as_trained(read(made[0]), upright)
        for a, b in zip(few, every):
            found = set(map(tuple, overlapping(a, 0.3, consecutive=True).tolist()))
            assert set(map(tuple, b.pairs.tolist())) <= found  # rounded once more, a levelled pair may just reach it
            assert upright or len(found) == len(b.pairs)


def test_a_file_that_does_not_say_was_searched_from_the_usual_overlap(folder):
    """Or, where it has pairs that overlap less, from those."""
    scene = load_views(folder / "kitchen.npz")  # not the one that is overwritten, as its points stay on disk
    (folder / "prepared.json").unlink()
    (folder / "kitchen.npz").rename(folder / "kitchen")
    arrays = {"xyz_mm": scene.xyz_mm, "offset": scene.offsets, "pose": scene.poses}
    np.savez(folder / "office.npz", **arrays, pairs=scene.pairs[:2], overlap=scene.overlaps[:2])
    with warnings.catch_warnings(action="error"):
        assert len(sources.paired(read(folder), 0.3, True)[0].pairs) == 2
    with pytest.warns(UserWarning, match="overlap by 30% or more, and 20% is asked for"):
        assert len(sources.paired(read(folder), 0.2, True)[0].pairs) >= len(scene.pairs)
    np.savez(folder / "office.npz", **arrays, pairs=scene.pairs[:2], overlap=np.array([0.1, 0.6], np.float32))
    assert len(sources.paired(read(folder), 0.1, True)[0].pairs) == 2


def test_a_recipe_trains_on_all_pairs_that_it_asks_for(made, tmp_path):
    recipe = SceneRecipe(dataset=str(made[1]), test_scenes=("office",), min_overlap=0.3)
    with pytest.warns(UserWarning, match="kitchen: prepared with pairs"):
        (kitchen,) = recipe.scenes("train", tmp_path, True)
    assert kitchen.pairs.tolist() == load_views(made[0] / "kitchen.npz").pairs.tolist()
