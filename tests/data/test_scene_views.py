"""Scenes of views: written and read back the same, and everything that can be wrong with a file is one clear line."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
from toy_scenes import toy_scene

from contrast3d.data.pairs import with_pairs
from contrast3d.data.scene_views import SceneViews, leveled, load_views, save_views
from contrast3d.errors import DataError, MissingDataError

FIELDS = ("xyz_mm", "offsets", "poses", "frames", "pairs", "overlaps")
ARRAYS = {"offsets": "offset", "poses": "pose", "overlaps": "overlap"}  # field: what files call it


def write(path, pack=np.savez, **changes):
    """A good file with some arrays changed, or left out where None."""
    scene = toy_scene(points=20)
    arrays = {ARRAYS.get(field, field): getattr(scene, field) for field in FIELDS} | changes
    pack(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


# Views in memory.


def test_views_in_millimetres():
    rng = np.random.default_rng(0)
    views = [rng.uniform(-5, 5, (n, 3)) for n in (7, 0, 3)]
    scene = SceneViews.of(views, np.tile(np.eye(4), (3, 1, 1)), "mine")
    assert (len(scene), scene.name, scene.xyz_mm.dtype) == (3, "mine", np.int16)
    assert scene.offsets.tolist() == [0, 7, 7, 10]
    for v, points in enumerate(views):
        assert scene.points(v).dtype == np.float32
        assert scene.points(v).shape == points.shape
        np.testing.assert_allclose(scene.points(v), points, atol=0.00051)
    assert len(scene.pairs) == len(scene.overlaps) == len(scene.frames) == 0


def test_poses_lead_to_the_scene_and_from_view_to_view():
    scene = toy_scene(views=2, points=50)
    local = scene.points(0).astype(np.float64)
    rotation, translation = scene.poses[0, :3, :3], scene.poses[0, :3, 3]
    np.testing.assert_allclose(scene.world(0), np.array([rotation @ p + translation for p in local]), atol=1e-9)
    between = scene.relative(0, 1)
    there = local @ between[:3, :3].T + between[:3, 3]
    back = there @ scene.poses[1, :3, :3].T + scene.poses[1, :3, 3]
    np.testing.assert_allclose(back, scene.world(0), atol=1e-9)


@pytest.mark.parametrize("far", [32.767, -32.767])
def test_views_reach_32_metres(far):
    scene = SceneViews.of([np.array([[0, far, 0]])], np.eye(4)[None])
    assert scene.points(0)[0, 1] == np.float32(far)


@pytest.mark.parametrize("far", [32.769, -40.0, 1e9, np.inf, np.nan])
def test_views_beyond_are_refused(far):
    with pytest.raises(DataError, match=r"hall: a point .* m from its camera; expected views within 32 m, no NaN"):
        SceneViews.of([np.zeros((2, 3)), np.array([[0, far, 0]])], np.tile(np.eye(4), (2, 1, 1)), "hall")


def test_no_views_and_empty_views(tmp_path):
    for views in ([], [np.zeros((0, 3))] * 2):
        scene = SceneViews.of(views, np.tile(np.eye(4), (len(views), 1, 1)))
        again = load_views(save_views(scene, tmp_path / "none.npz"))
        assert len(again) == len(scene) == len(views)
        assert all(again.points(v).shape == again.world(v).shape == (0, 3) for v in range(len(views)))


def test_scenes_are_told_apart_by_identity():
    """Equality of arrays is no truth value: a scene is looked for among others."""
    one, other = toy_scene(), toy_scene()
    assert one in [other, one]
    assert one not in [other, toy_scene(1, points=3)]
    assert len({one, other}) == 2


# Files.


def test_round_trip(tmp_path):
    scene = toy_scene()
    again = load_views(save_views(scene, tmp_path / "deep" / "kitchen.npz"))
    assert again.name == "kitchen"
    for field in FIELDS:
        ours, theirs = getattr(again, field), getattr(scene, field)
        assert ours.dtype == theirs.dtype, field
        assert np.array_equal(ours, theirs), field


def test_from_which_overlap_on_pairs_were_searched_for(tmp_path):
    scene = dataclasses.replace(toy_scene(), min_overlap=0.7)
    again = load_views(save_views(scene, tmp_path / "a.npz"))
    assert again.min_overlap == leveled(again).min_overlap == 0.7
    assert with_pairs(again, min_overlap=0.4).min_overlap == 0.4
    assert load_views(save_views(toy_scene(), tmp_path / "a.npz")).min_overlap is None


def test_points_stay_on_disk_unless_they_are_packed(tmp_path):
    """And a scene goes on to be what it was when its file is replaced."""
    path = save_views(toy_scene(), tmp_path / "a.npz")
    scene, packed = load_views(path), load_views(write(tmp_path / "b.npz", np.savez_compressed))
    assert isinstance(scene.xyz_mm, np.memmap)
    assert not isinstance(packed.xyz_mm, np.memmap)
    save_views(toy_scene(1), path)
    assert np.array_equal(scene.points(2), toy_scene().points(2))
    assert not np.array_equal(load_views(path).points(2), scene.points(2))


def test_what_is_not_known_may_be_missing(tmp_path):
    scene = load_views(write(tmp_path / "a.npz", frames=None, pairs=None, overlap=None))
    assert scene.pairs.shape == scene.frames.shape == (0, 2)
    assert scene.overlaps.shape == (0,)
    assert scene.min_overlap is None  # files of before it was stored
    scene = load_views(write(tmp_path / "b.npz", overlap=None, extra=np.array(["a", "b"])))  # others' arrays are theirs
    assert scene.overlaps.tolist() == [0, 0]


def test_integers_and_floats_of_any_width(tmp_path):
    scene, whole = toy_scene(points=20), toy_scene(points=20)
    again = load_views(write(
        tmp_path / "a.npz", xyz_mm=scene.xyz_mm.astype(np.int32), offset=scene.offsets.astype(np.uint32),
        pose=scene.poses.astype(np.float32), frames=scene.frames.astype(np.int32), pairs=scene.pairs.astype(np.uint8)))
    assert np.array_equal(again.xyz_mm, whole.xyz_mm)
    assert again.xyz_mm.dtype == np.int16
    assert again.poses.dtype == np.float64
    assert again.pairs.dtype == again.offsets.dtype == again.frames.dtype == np.int64


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = save_views(toy_scene(), tmp_path / "a.npz")
    before = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o644

    def full(file, **arrays):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        save_views(toy_scene(1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.npz"]


def told(path) -> str:
    with pytest.raises(DataError) as error:
        load_views(path)
    said = str(error.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    return said


def test_a_missing_file(tmp_path):
    with pytest.raises(MissingDataError, match=r"nowhere\.npz: no such file; expected a \.npz with xyz_mm"):
        load_views(tmp_path / "nowhere.npz")
    with pytest.raises(MissingDataError):
        load_views(tmp_path)


POSE, POINTS = toy_scene(points=20).poses, toy_scene(points=20).xyz_mm
MALFORMED = {
    "no points": ({"xyz_mm": None}, "no array xyz_mm"),
    "no offsets": ({"offset": None}, "no array offset"),
    "no poses": ({"pose": None}, "no array pose"),
    "points of floats": ({"xyz_mm": POINTS.astype(np.float32)}, "xyz_mm of float32"),
    "points of unsigned": ({"xyz_mm": POINTS.astype(np.uint16)}, "xyz_mm of uint16"),
    "points in a plane": ({"xyz_mm": POINTS[:, :2]}, r"shape \(60, 2\)"),
    "points in a row": ({"xyz_mm": POINTS[0]}, r"shape \(3,\)"),
    "points beyond 32 m": ({"xyz_mm": POINTS.astype(np.int64) + 40_000}, "xyz_mm beyond int16"),
    "offsets of floats": ({"offset": np.arange(4) * 20.0}, "offset of float64"),
    "offsets too short": ({"offset": np.array([0, 20, 40])}, "offset does not cut"),
    "offsets too long": ({"offset": np.array([0, 20, 40, 61])}, "offset does not cut"),
    "offsets from 1": ({"offset": np.array([1, 20, 40, 60])}, "offset does not cut"),
    "offsets that fall": ({"offset": np.array([0, 40, 20, 60])}, "offset does not cut"),
    "offsets huge": ({"offset": np.array([0, 2**63, 40, 60], np.uint64)}, "offset does not cut"),
    "no offset at all": ({"offset": np.zeros(0, np.int64)}, "offset does not cut"),
    "offset a number": ({"offset": np.array(60)}, r"shape \(\)"),
    "poses too few": ({"pose": POSE[:2]}, "2 poses for 3 views"),
    "poses of 3 x 4": ({"pose": POSE[:, :3]}, r"shape \(3, 3, 4\)"),
    "poses of integers": ({"pose": np.tile(np.eye(4, dtype=int), (3, 1, 1))}, "pose of int64"),
    "a pose that was lost": ({"pose": np.where(np.arange(3)[:, None, None] == 1, -np.inf, POSE)}, "not finite"),
    "a pose of NaN": ({"pose": POSE * np.nan}, "not finite"),
    "a pose of zeros": ({"pose": POSE * 0}, "a pose that is no motion"),
    "a pose transposed": ({"pose": POSE.transpose(0, 2, 1)}, "a pose that is no motion"),
    "a pair beyond": ({"pairs": np.array([[0, 1], [1, 3]])}, "pairs name views that are not there"),
    "a pair below": ({"pairs": np.array([[0, 1], [-1, 1]])}, "pairs name views that are not there"),
    "pairs of floats": ({"pairs": np.array([[0.0, 1.0]])}, "pairs of float64"),
    "pairs of three": ({"pairs": np.zeros((2, 3), int)}, r"shape \(2, 3\)"),
    "overlaps too few": ({"overlap": np.ones(1)}, "overlap is of another length"),
    "overlaps of integers": ({"overlap": np.ones(2, int)}, "overlap of int64"),
    "a threshold of 2": ({"min_overlap": np.float64(2)}, "min_overlap of 2; expected a share from 0 to 1"),
    "a threshold of NaN": ({"min_overlap": np.float64("nan")}, "min_overlap of nan"),
    "several thresholds": ({"min_overlap": np.ones(2)}, r"min_overlap of float64 and shape \(2,\)"),
    "frames too few": ({"frames": np.zeros((2, 2), int)}, "frames of 2 views, of 3"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_one_clear_line(tmp_path, case):
    changes, words = MALFORMED[case]
    path = write(tmp_path / "scene.npz", **changes)
    with pytest.raises(DataError, match=words):
        load_views(path)
    assert "expected" in told(path)


def test_what_is_no_archive(tmp_path):
    path = tmp_path / "scene.npz"
    for content in (b"", b"some text", b"PK\x03\x04" + bytes(50)):
        path.write_bytes(content)
        assert "cannot be read" in told(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros((5, 3), np.int16))
    assert "a single array" in told(path)


def test_objects_are_refused(tmp_path):
    """They would be unpickled."""
    path = write(tmp_path / "scene.npz", pose=np.array([{"a": 1}, None, 3], object))
    assert "allow_pickle=False" in told(path)


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_a_damaged_archive(tmp_path, pack):
    """Cut short or with some bytes turned over, anywhere: read, or refused with a clear line."""
    path = write(tmp_path / "scene.npz", pack)
    good, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for i in range(300):
        broken = bytearray(good)
        for place in rng.integers(len(good), size=3):
            broken[place] = rng.integers(256)
        path.write_bytes(broken[: rng.integers(len(good))] if i % 3 == 0 else broken)
        try:
            load_views(path)
        except DataError as error:
            refused += str(error).startswith(str(path))
    assert refused > 200


@pytest.mark.shared
def test_the_fragments_of_3dmatch(shared):
    path = sorted((shared / "data" / "3dmatch").glob("*.npz"))[0]
    scene = load_views(path)
    assert len(scene) > 30
    assert len(scene.frames) == len(scene)
    assert all(len(scene.points(v)) > 1000 for v in range(len(scene)))
    assert dataclasses.replace(scene, name="x").name == "x"


def test_leveled_views_stand_upright_where_they_were():
    scene = toy_scene(0)
    level = leveled(scene)
    for view in range(len(scene)):
        np.testing.assert_allclose(level.world(view), scene.world(view), atol=2e-3)  # rounded to millimetres again
        np.testing.assert_allclose(level.poses[view, 2, :3], [0, 0, 1], atol=1e-12)
        np.testing.assert_allclose(level.poses[view, :3, 3], scene.poses[view, :3, 3])
    assert (level.pairs == scene.pairs).all()
