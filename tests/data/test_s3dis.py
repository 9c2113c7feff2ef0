"""S3DIS out of small rooms in each of its layouts, and out of the real crop."""

from __future__ import annotations

import numpy as np
import pytest
from ply_writer import colored, write_ply

from contrast3d.data import s3dis
from contrast3d.data.s3dis import CLASSES, POINT_CONTRAST, ROOMS, S3DIS, list_rooms, problems
from contrast3d.data.scene_loader import SceneLoader
from contrast3d.data.scenes import IGNORE
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.ops.voxels import voxelize


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / "cache"))


def lines(count, seed, decimals=3):
    random = np.random.default_rng(seed)
    xyz, rgb = random.random((count, 3)) * 2 + seed, random.integers(0, 256, (count, 3))
    text = "".join(
        " ".join(f"{v:.{decimals}f}" for v in p) + " " + " ".join(f"{v:.6f}" if decimals == 6 else str(v) for v in c)
        + "\n" for p, c in zip(xyz, rgb)
    )
    return text, xyz, rgb


@pytest.fixture
def raw(tmp_path):
    root = tmp_path / "raw"
    for area in (1, 3, 5):
        folder = root / "Stanford3dDataset_v1.2_Aligned_Version" / f"Area_{area}" / "office_1" / "Annotations"
        folder.mkdir(parents=True)
        for seed, name in enumerate(("Ceiling_1", "chair_1", "chair_2", "stairs_1")):
            (folder / f"{name}.txt").write_text(lines(40, seed + area, 6 if seed == 1 else 3)[0])
        (folder / "Icon\r").write_text("")
        (folder.parents[1] / ".DS_Store").write_bytes(b"\0")
        (folder.parent / "office_1.txt").write_text("never read")
    return root


def annotations(root, area):
    return next(root.glob(f"*/Area_{area}/office_1/Annotations"))


def test_the_classes():
    assert (len(CLASSES), len(POINT_CONTRAST), sum(ROOMS.values())) == (13, 14, 272)
    assert set(POINT_CONTRAST) - set(CLASSES) == {"stairs"}
    assert list(POINT_CONTRAST[1:]) == sorted(POINT_CONTRAST[1:])


def test_raw_rooms(raw):
    scenes = S3DIS("train", raw, quantize=None)
    assert (scenes.title, scenes.classes) == ("S3DIS train", CLASSES)
    assert [s.name for s in scenes.scenes] == ["Area_1/office_1", "Area_3/office_1"]
    room = scenes[0]
    parts = [lines(40, seed + 1) for seed in range(4)]
    np.testing.assert_allclose(room.points, np.concatenate([p[1] for p in parts]), atol=1e-3)
    assert np.array_equal(room.colors, np.concatenate([p[2] for p in parts]))
    chair = CLASSES.index("chair")
    assert room.labels.tolist() == [0] * 40 + [chair] * 80 + [IGNORE] * 40
    assert S3DIS("train", raw, quantize=None, stairs="clutter")[0].labels.tolist()[-40:] == [12] * 40


def test_splits(raw):
    names = lambda split: [s.name[5] for s in S3DIS(split, raw).scenes]  # noqa: E731
    assert names("test") == names(5) == ["5"]
    assert names("all") == ["1", "3", "5"]
    assert names((5, 3)) == ["3", "5"]
    assert S3DIS((5, 3), raw).title == "S3DIS areas 5, 3"
    with pytest.raises(MissingDataError, match="no rooms of S3DIS areas 2; expected areas 2 in one of"):
        S3DIS(2, raw)
    for wrong in ("val", 7, ()):
        with pytest.raises(ConfigError, match="S3DIS has the splits train, test, all and the areas 1 to 6"):
            S3DIS(wrong, raw)


def test_text_is_read_once(raw, monkeypatch):
    first = S3DIS("all", raw)
    monkeypatch.setattr(s3dis, "read_numbers", None)
    assert S3DIS("all", raw).hash == first.hash
    with pytest.raises(TypeError):
        S3DIS("all", raw, quantize=0.5)
    monkeypatch.undo()


def test_a_changed_file_is_read_again(raw):
    first = S3DIS("test", raw)
    file = annotations(raw, 5) / "chair_2.txt"
    file.write_text(lines(30, 9)[0])
    assert len(S3DIS("test", raw)[0].points) == len(first[0].points) - 10


def test_known_bad_lines_are_dropped_counted_and_told(raw):
    """The ceiling of Area_5/hallway_6 has a NUL in place of a space; other files hold other control bytes."""
    file = annotations(raw, 5) / "Ceiling_1.txt"
    good = lines(500, 1)[0].encode()
    bad = b"22.350 6.692 3.048 185\x00187 182\n19.302 -9.1\x160 1.785 1 2 3\n1 2 3 4 5\n1 2 3 4 5 256\n"
    file.write_bytes(good + bad + b"9.000 9.000 9.000 1 2 3")
    for _ in range(2):  # from the file, and from the cache
        with pytest.warns(UserWarning, match="lines that are no x y z r g b are left out: Area_5/office_1 4"):
            room = S3DIS("test", raw, quantize=None)[0]
        assert (room.labels == 0).sum() == 501
    assert room.points[500].tolist() == [9, 9, 9]
    file.write_bytes(good[:1000] + bad)
    with pytest.raises(DataError, match=r"Ceiling_1\.txt: 4 bad lines beside \d+ good ones"):
        S3DIS("test", raw)


def test_a_centimetre_holds_one_point_and_255_where_labels_disagree(raw):
    folder = annotations(raw, 1)
    board = "15.001 15.001 15.001 1 2 3\n15.002 15.002 15.002 4 5 6\n17.001 17.001 17.001 1 1 1\n"
    (folder / "board_1.txt").write_text(board)
    (folder / "wall_1.txt").write_text("17.002 17.002 17.002 9 9 9\n")
    room = S3DIS(1, raw)[0]
    assert len(voxelize(room.clouds(), 0.01).coords) == len(room.points)
    far = room.points[:, 0] > 14
    assert np.array_equal(room.points[far], np.float32([[15.001] * 3, [17.001] * 3]))
    assert room.colors[far].tolist() == [[1, 2, 3], [1, 1, 1]]
    assert room.labels[far].tolist() == [CLASSES.index("board"), IGNORE]


def test_prepared_layouts_and_their_orders_of_classes(tmp_path):
    vertices = colored(14) | {"label": np.arange(14, dtype="u1")}
    vertices["label"][3] = 255
    write_ply(tmp_path / "pc" / "Area_2" / "lobby_1.ply", vertices)
    room = S3DIS("train", tmp_path / "pc")[0]
    assert room.name == "Area_2/lobby_1"
    assert [CLASSES[i] if i < 13 else i for i in room.labels] == [
        "clutter", "beam", "board", 255, "ceiling", "chair", "column", "door", "floor", "sofa", 255, "table", "wall",
        "window",
    ]
    xyz = np.stack([vertices[a] for a in "xyz"], 1)
    assert np.array_equal(room.points, xyz)
    rows = np.c_[xyz, np.full((14, 3), 7), np.arange(14) % 13].astype(float)
    (tmp_path / "pn").mkdir()
    np.save(tmp_path / "pn" / "Area_6_copyRoom_1.npy", rows)
    room = S3DIS((6,), tmp_path / "pn", quantize=None)[0]
    assert sorted(S3DIS((6,), tmp_path / "pn")[0].labels) == sorted(room.labels)
    assert room.name == "Area_6/copyRoom_1"
    assert room.labels.tolist() == [*range(13), 0]
    assert (room.colors == 7).all()


def test_one_room_by_itself(tmp_path):
    path = tmp_path / "room.npz"
    arrays = {"xyz": np.eye(3, dtype=np.float32), "rgb": np.zeros((3, 3), np.uint8), "label": np.array([1, 0, 255])}
    np.savez(path, **arrays, names=np.array(["sofa", "wall"]))
    scenes = S3DIS("all", path)
    assert scenes[0].name == "room"
    assert scenes[0].labels.tolist() == [2, 9, IGNORE]
    with pytest.raises(MissingDataError, match="no rooms of S3DIS train"):
        S3DIS("train", path)
    np.savez(path, **arrays, names=np.array(["sofa", "dragon"]))
    with pytest.raises(DataError, match="the classes dragon"):
        S3DIS("all", path)
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="no names"):
        S3DIS("all", path)
    np.savez(path, **arrays | {"label": np.array([1, 0, 2])}, names=np.array(["sofa", "wall"]))
    with pytest.raises(DataError, match="the label 2; expected 0 to 1, or 255"):
        S3DIS("all", path)


def test_what_is_missing_or_odd_is_named(raw, tmp_path):
    with pytest.raises(MissingDataError, match="no such folder; expected one of these layouts there or below:\n  raw"):
        S3DIS("train", tmp_path / "gone")
    (tmp_path / "bare").mkdir()
    with pytest.raises(MissingDataError, match="no rooms"):
        S3DIS("train", tmp_path / "bare")
    with pytest.raises(ConfigError, match=r"stairs='ignore', quantize=0\.0; expected"):
        S3DIS("all", raw, quantize=0.0)
    (annotations(raw, 5) / "dragon_1.txt").write_text(lines(5, 0)[0])
    with pytest.raises(DataError, match=r"dragon_1\.txt: the class 'dragon'; expected one of ceiling"):
        S3DIS("test", raw)
    (raw / "Stanford3dDataset_v1.2_Aligned_Version" / "Area_5" / "hall_1").mkdir()
    with pytest.raises(DataError, match=r"hall_1: no Annotations"):
        S3DIS("test", raw)
    np.save(tmp_path / "bare" / "Area_1_a_1.npy", np.zeros((3, 6)))
    with pytest.raises(DataError, match=r"float64 \(3, 6\); expected finite numbers \(N, 7\)"):
        S3DIS("train", tmp_path / "bare")
    np.save(tmp_path / "bare" / "Area_1_a_1.npy", np.array([{}]))
    with pytest.raises(DataError, match="cannot be read"):
        S3DIS("train", tmp_path / "bare")


def test_a_broken_room_among_many_is_left_out(tmp_path):
    for i in range(101):
        write_ply(tmp_path / "Area_1" / f"office_{i}.ply", colored(5, i) | {"label": np.zeros(5, "u1")})
    (tmp_path / "Area_1" / "office_3.ply").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 of 101 files cannot be used and are left out:\n.*office_3\.ply"):
        assert len(S3DIS("train", tmp_path)) == 100
    assert problems(tmp_path)[0].startswith(f"{tmp_path}: 101 rooms in Area_1; expected 44 (source: ")
    assert len(problems(tmp_path)) == 6
    assert len(list_rooms(tmp_path)) == 101


@pytest.mark.shared
def test_the_real_crop(shared):
    scenes = S3DIS("all", shared / "data" / "s3dis" / "room_spt_demo.npz")
    room = scenes[0]
    counts = {CLASSES[c]: n for c, n in enumerate(np.bincount(room.labels, minlength=13)) if n}
    assert counts == {"floor": 23139, "wall": 911, "chair": 8700, "table": 8092, "clutter": 726}
    assert np.ptp(room.points, axis=0).max() < 5.1
    floor = room.points[room.labels == CLASSES.index("floor"), 2]
    assert np.median(floor) < 0.05
    batch = SceneLoader(scenes, "s3dis", 2, 0.05).batch(0, 0)
    assert 2 * 10_000 < len(batch.points) < 2 * 41_568
    assert batch.features.abs().max() <= 0.5
