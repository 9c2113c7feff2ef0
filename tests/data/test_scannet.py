"""ScanNet out of small scans in the released layout and in PointContrast's."""

from __future__ import annotations

import numpy as np
import pytest
from ply_writer import colored, write_ply

from contrast3d.data.scannet import CLASSES, KNOWN_BAD, NYU40, ScanNet, benchmark_labels, problems
from contrast3d.errors import ConfigError, DataError, MissingDataError

LISTS = {"train": ["scene0000_00", "scene0000_01"], "val": ["scene0011_00"], "test": ["scene0707_00"]}
STORED = np.array([0, 1, 2, 13, 14, 39, 40, 36, 28, 5] * 3)
EXPECTED = [255, 0, 1, 255, 12, 19, 255, 18, 15, 4] * 3


def write_released(root, name, labels=STORED, folder="scans"):
    vertices, where = colored(30, int(name[5:9]), alpha=True), root / folder / name
    write_ply(where / f"{name}_vh_clean_2.ply", vertices, np.zeros((5, 3), int))
    if labels is not None:
        grey = {c: np.zeros(len(labels), "u1") for c in ("red", "green", "blue", "alpha")}
        xyz = {axis: vertices[axis][: len(labels)] for axis in "xyz"}
        write_ply(where / f"{name}_vh_clean_2.labels.ply", xyz | grey | {"label": np.asarray(labels, "u2")})


def write_prepared(root, name, labels=STORED, folder="train"):
    vertices = colored(30, int(name[5:9])) | {"label": np.asarray(labels, "u1")}
    write_ply(root / folder / f"{name}.ply", vertices)


def write_lists(folder, lists=LISTS, line="{}"):
    folder.mkdir(parents=True, exist_ok=True)
    for part, names in lists.items():
        (folder / f"scannetv2_{part}.txt").write_text("\n".join(line.format(n) for n in names))


@pytest.fixture
def released(tmp_path):
    root = tmp_path / "released"
    write_lists(root)
    for name in LISTS["train"] + LISTS["val"]:
        write_released(root, name)
    write_released(root, "scene0707_00", None, "scans_test")
    return root


@pytest.fixture
def prepared(tmp_path):
    root = tmp_path / "prepared"
    write_lists(root / "splits" / "scannet", line="train/{}.ply")
    for name in LISTS["train"] + LISTS["val"]:
        write_prepared(root, name)
    write_prepared(root, "scene0707_00", np.zeros(30), "test")
    return root


def test_the_classes():
    assert len(CLASSES) == 20
    assert list(NYU40.values()) == sorted(NYU40.values())
    assert (CLASSES[0], CLASSES[12], CLASSES[19]) == ("wall", "desk", "otherfurniture")
    assert benchmark_labels(np.arange(41)).tolist().count(255) == 21


@pytest.mark.parametrize("layout", ["released", "prepared"])
def test_scans_colours_and_labels(layout, request):
    root = request.getfixturevalue(layout)
    train = ScanNet("train", root)
    assert (train.title, len(train), train.classes) == ("ScanNet train", 2, CLASSES)
    scene, vertices = train[1], colored(30, 0, alpha=layout == "released")
    assert scene.name == "scene0000_01"
    assert np.array_equal(scene.points, np.stack([vertices[a] for a in "xyz"], 1))
    assert np.array_equal(scene.colors, np.stack([vertices[c] for c in ("red", "green", "blue")], 1))
    assert scene.labels.tolist() == EXPECTED
    assert [s.name for s in ScanNet("trainval", root).scenes] == [s for p in ("train", "val") for s in LISTS[p]]
    test = ScanNet("test", root)[0]
    assert test.labels is None
    assert len(test.points) == 30


def test_both_layouts_hold_the_same(released, prepared):
    assert ScanNet("train", released).hash == ScanNet("train", prepared).hash


def test_lists_may_lie_elsewhere(released, tmp_path):
    write_lists(tmp_path / "elsewhere", {"train": ["scene0011_00"]})
    assert [s.name for s in ScanNet("train", released, lists=tmp_path / "elsewhere").scenes] == ["scene0011_00"]


@pytest.mark.parametrize(("name", "bad"), KNOWN_BAD.items())
def test_known_bad_labels_become_none(tmp_path, name, bad):
    write_lists(tmp_path, {"train": [name]})
    write_prepared(tmp_path, name, np.where(STORED == 13, bad, STORED))
    assert ScanNet("train", tmp_path)[0].labels.tolist() == EXPECTED


def test_labels_of_v1_are_told_apart(released):
    write_released(released, "scene0000_01", np.where(STORED == 39, 230, STORED))
    with pytest.raises(DataError, match=r"scene0000_01: labels from 0 to 230; expected nyu40 ids of ScanNet v2"):
        ScanNet("train", released)


def test_a_broken_scan_among_many_is_left_out(tmp_path):
    names = [f"scene{i:04d}_00" for i in range(120)]
    write_lists(tmp_path, {"train": names})
    for name in names:
        write_prepared(tmp_path, name)
    (tmp_path / "train" / f"{names[7]}.ply").write_bytes(b"ply\nformat ascii 1.0\n")
    with pytest.warns(UserWarning, match=r"1 of 120 files cannot be used and are left out:\n.*scene0007_00"):
        scenes = ScanNet("train", tmp_path)
    assert len(scenes) == 119
    (tmp_path / "train" / f"{names[8]}.ply").unlink()
    with pytest.raises(DataError, match="2 of 120 files cannot be used"):
        ScanNet("train", tmp_path)


def test_what_is_missing_or_odd_is_named(released, tmp_path):
    with pytest.raises(ConfigError, match="train, val, test, trainval, not 'dev'"):
        ScanNet("dev", released)
    with pytest.raises(MissingDataError, match="no such folder; expected this layout:\n  scans: scans/scene0000_00"):
        ScanNet("train", tmp_path / "gone")
    (tmp_path / "bare").mkdir()
    with pytest.raises(MissingDataError, match=r"no scannetv2_train\.txt"):
        ScanNet("train", tmp_path / "bare")
    write_released(released, "scene0011_00", STORED[:9])
    with pytest.raises(DataError, match="9 labels; expected one for each of the 30 vertices"):
        ScanNet("val", released)
    (released / "scannetv2_val.txt").write_text("../../etc/passwd\n")
    with pytest.raises(DataError, match=r"the line '\.\./\.\./etc/passwd'"):
        ScanNet("val", released)


def test_problems(released):
    lines = problems(released)
    assert lines == [f"{released}: 2 train scans are listed; expected 1201",
                     f"{released}: 1 val scans are listed; expected 312"]
    gone = released / "scans" / "scene0000_00" / "scene0000_00_vh_clean_2.labels.ply"
    gone.unlink()
    assert problems(released)[0] == f"{gone}: missing"
