"""A folder of meshes and clouds of points as a data set: what is found, kept, left out, and read only once."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import shape_folder as made
import torch

from contrast3d.data import folder_cache
from contrast3d.data.folder import broken_files, find_files, load_folder
from contrast3d.data.shape_files import read_shape, shown
from contrast3d.errors import ConfigError, DataError, MissingDataError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / "cache"))
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def good(tmp_path):
    """Twelve clouds in two sub-folders, and one beside them."""
    for i in range(12):
        place = tmp_path / "set" / ("chair" if i % 3 else "a table")
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{i:02}.npy", np.random.default_rng(i).random((30, 3)))
    np.save(tmp_path / "set" / "loose.npy", made.sphere(30))
    return tmp_path / "set"


def test_find_files(tmp_path):
    for name in ("b.obj", "a.STL", "notes.md", "x.png", ".hidden.obj", "sub/c.xyz", ".git/d.obj", "sub/deep/e.ply"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "loops").mkdir()
    (tmp_path / "loops" / "up").symlink_to(tmp_path)  # round and round
    (tmp_path / "loops" / "self").symlink_to("self")
    (tmp_path / "another name").symlink_to(tmp_path / "sub")
    (tmp_path / "lost.obj").symlink_to("nowhere.obj")
    names = [str(p.relative_to(tmp_path)) for p in find_files(tmp_path)]
    assert names == ["a.STL", "b.obj", "lost.obj", "sub/c.xyz", "sub/deep/e.ply"]
    assert find_files([tmp_path / "notes.md", tmp_path / "sub"]) == [
        tmp_path / "notes.md", tmp_path / "sub/c.xyz", tmp_path / "sub/deep/e.ply"]
    assert len(find_files([tmp_path, tmp_path / "b.obj"])) == len(names)  # each once


def test_links_to_folders_elsewhere_are_followed(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.obj").write_bytes(b"x")
    (tmp_path / "set" / "link").symlink_to(tmp_path / "elsewhere")
    assert find_files(tmp_path / "set") == [tmp_path / "set" / "link" / "a.obj"]


def test_nothing_found_is_told(tmp_path):
    with pytest.raises(MissingDataError, match="an empty folder; expected files ending in"):
        find_files(tmp_path)
    (tmp_path / "a.md").write_bytes(b"x")
    (tmp_path / "b.md").write_bytes(b"x")
    with pytest.raises(MissingDataError, match=r"no mesh or cloud of points, only 2 \.md"):
        load_folder(tmp_path, 8)
    with pytest.raises(MissingDataError, match="no such file or folder"):
        load_folder(tmp_path / "gone", 8)
    with pytest.raises(DataError, match=r"a\.md: a file; expected a folder .* Try: the folder that it lies in"):
        load_folder(tmp_path / "a.md", 8)
    with pytest.raises(ConfigError, match="num_points must be at least 2"):
        load_folder(tmp_path, 1)
    with pytest.raises(ConfigError, match="workers = 0"):
        load_folder(tmp_path, 8, workers=0)


def test_everything_good_is_there_and_everything_broken_is_listed(tmp_path):
    folder = tmp_path / "mixed ünï"
    names = [f"meshes/{n}" for n in made.write_meshes(folder / "meshes")]
    names += [f"clouds/{n}" for n in made.write_clouds(folder / "clouds")]
    (folder / "broken").mkdir()
    written = {n: v for n, v in made.BROKEN.items() if n != "zeros.npz"}  # slow to write
    for name, (write, _) in written.items():
        write(folder / "broken" / name)
    (folder / "notes.md").write_bytes(b"ignored")
    table = tmp_path / "reports" / "broken.csv"
    with pytest.warns(UserWarning, match="cannot be used") as told:
        shapes = load_folder(folder, 64, broken_list=table)
    assert sorted(shapes.names) == sorted(names)
    assert shapes.title == "mixed ünï"
    (message,) = [str(w.message) for w in told if "cannot be used" in str(w.message)]
    assert f"{len(written)} of {len(names) + len(written)} files cannot be used" in message
    assert str(table) in message
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    listed = {row["file"]: row["reason"] for row in rows}
    assert listed.keys() == {shown(f"broken/{n}") for n in written}
    for name, (_, reason) in written.items():
        assert re.search(reason, listed[shown(f"broken/{name}")]), name
    for row, name in enumerate(shapes.names):
        assert (shapes.points[row].numpy() == read_shape(folder / name, 64)).all()


def test_all_broken_is_an_error_and_says_where_the_list_is(tmp_path):
    (tmp_path / "set").mkdir()
    for i in range(5):
        (tmp_path / "set" / f"{i}.obj").write_bytes(b"")
    for _ in range(2):  # the second time out of the cache
        with pytest.raises(DataError, match=r"5 of 5 files cannot be used \(0.obj: an empty file.*see .*csv") as error:
            load_folder(tmp_path / "set", 8)
    assert len(Path(error.value.fix.removeprefix("see ")).read_text().splitlines()) == 6
    assert len(broken_files(tmp_path / "set")) == 5


def test_files_of_shapes_that_are_not_read_are_told(good):
    for name in ("a.fbx", "chair/b.FBX", "c.step", "notes.md"):
        (good / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"not read: 2 \.fbx, 1 \.step; convert them to one of \.obj"):
        assert len(load_folder(good, 16)) == 13


def test_names_labels_and_classes(good):
    shapes = load_folder(good, 16, labels_from="folders")
    assert shapes.classes == ("a table", "chair")
    assert shapes.names[0] == "a table/00.npy"
    assert shapes.names[-1] == "loose.npy"
    assert shapes.labels.tolist() == [0] * 4 + [1] * 8 + [-1]
    assert load_folder(good, 16).labels is None
    with pytest.raises(DataError, match="no sub-folders; expected one sub-folder a class"):
        load_folder(good / "chair", 16, labels_from="folders")


def test_up(good):
    plain, turned = load_folder(good, 16), load_folder(good, 16, up="y")
    x, y, z = plain.points.unbind(-1)
    torch.testing.assert_close(turned.points, torch.stack((x, -z, y), -1), atol=1e-5, rtol=0)


def test_the_same_points_at_every_number_of_workers_and_ranks(good, monkeypatch, tmp_path):
    monkeypatch.setattr(folder_cache, "CHUNK", 3)
    hashes = set()
    for workers, rank in ((1, "0"), (2, "0"), (7, "0"), (1, "1")):
        monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / f"cache{workers}{rank}"))
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        hashes.add(load_folder(good, 16, workers=workers).hash)
    assert len(hashes) == 1


@pytest.fixture
def reads(monkeypatch):
    """The names of the files as they are read."""
    names: list[str] = []

    def measured(path, *args, **options):
        names.append(path.name)
        return real(path, *args, **options)

    real = folder_cache.measure_shape
    monkeypatch.setattr(folder_cache, "measure_shape", measured)
    monkeypatch.setattr(folder_cache, "CHUNK", 4)
    return names


def test_read_once(good, reads):
    first = load_folder(good, 16)
    assert len(reads) == 13
    again = load_folder(good, 16, labels_from="folders", workers=3)
    assert len(reads) == 13
    assert (again.points == first.points).all()


def test_only_what_is_new_or_has_changed_is_read(good, reads, tmp_path):
    before = load_folder(good, 16)
    reads.clear()
    np.save(good / "loose.npy", made.sphere(29))
    np.save(good / "chair" / "01b.npy", made.sphere(31))
    (good / "chair" / "02.npy").unlink()
    (good / "broken.obj").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 of 14 files .*\(broken.obj: an empty file"):
        after = load_folder(good, 16)
    assert sorted(reads) == ["01b.npy", "broken.obj", "loose.npy"]
    for row, name in enumerate(after.names):
        assert (after.points[row].numpy() == read_shape(good / name, 16)).all(), name
    assert len(before) == 13  # still mapped, though its file is gone
    assert before.points.abs().amax((1, 2)).min() > 0.5
    (place,) = (tmp_path / "cache").iterdir()
    assert sorted(p.suffix for p in place.iterdir()) == [".csv", ".npy", ".npz"]  # nothing of the former
    reads.clear()
    with pytest.warns(UserWarning, match="1 of 14"):
        load_folder(good, 16)
    assert reads == []


def test_a_buffer_that_changes_is_a_change(good, reads):
    for name in ("a", "b"):
        document = made.gltf(made.box().vertices, made.box().faces)
        data = base64.b64decode(document["buffers"][0].pop("uri").partition(",")[2])
        document["buffers"][0]["uri"] = f"{name}.bin"
        (good / f"{name}.gltf").write_text(json.dumps(document))
        if name == "a":
            (good / "a.bin").write_bytes(data)
    with pytest.warns(UserWarning, match=r"1 of 15 files .*b\.gltf: no buffer 'b.bin' beside it"):
        load_folder(good, 16)
    reads.clear()
    (good / "b.bin").write_bytes(data)
    assert len(load_folder(good, 16)) == 15
    assert reads == ["b.gltf"]
    (good / "b.bin").write_bytes(bytes(len(data) - 96) + data[-96:])
    os.utime(good / "b.bin", (1, 2**31))
    with pytest.warns(UserWarning, match="b.gltf"):
        load_folder(good, 16)
    assert reads == ["b.gltf"] * 2


def test_what_is_not_the_fault_of_a_file_is_tried_again(good, reads, tmp_path):
    (good / "a.npy").symlink_to("b.npy")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"a\.npy: No such file"):
            load_folder(good, 16)
    assert reads.count("a.npy") == 2
    assert len(reads) == 15
    assert list((tmp_path / "cache").glob("*/broken.csv"))
    np.save(good / "b.npy", made.sphere(20))
    assert len(load_folder(good, 16)) == 15
    assert not list((tmp_path / "cache").glob("*/broken.csv"))
    assert sorted(reads[15:]) == ["a.npy", "b.npy"]


def test_folders_that_nobody_uses_are_forgotten(good, tmp_path):
    load_folder(good, 16)
    load_folder(good, 16, up="y")
    first, second = sorted((tmp_path / "cache").iterdir())
    (second / "mine.txt").write_text("not written by this library")
    (tmp_path / "cache" / "folder-of-mine").mkdir()
    for path in (first, second, tmp_path / "cache" / "folder-of-mine"):
        os.utime(path, (1, 1))
    load_folder(good / "chair", 16)
    assert not first.exists()
    assert [p.name for p in second.iterdir()] == ["mine.txt"]
    assert (tmp_path / "cache" / "folder-of-mine").exists()


def test_use_keeps_a_folder(good, reads, tmp_path):
    load_folder(good, 16)
    (place,) = (tmp_path / "cache").iterdir()
    os.utime(place, (1, 1))
    load_folder(good, 16)
    load_folder(good / "chair", 16)
    assert place.exists()


def test_an_interrupted_reading_goes_on(good, reads, monkeypatch):
    def stop(done, total):
        if done > 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_folder(good, 16, on_progress=stop, workers=1)
    before = len(reads)
    assert before >= 9
    seen = []
    shapes = load_folder(good, 16, on_progress=lambda done, total: seen.append((done, total)))
    assert len(reads) - before == 13 - 8  # two chunks of four were whole
    assert seen[-1] == (13, 13)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    for row, name in enumerate(shapes.names):
        assert (shapes.points[row].numpy() == read_shape(good / name, 16)).all()


def test_a_damaged_cache_is_read_again(good, reads, tmp_path):
    first = load_folder(good, 16).hash
    for name in ("points-*.npy", "table.npz"):
        (path,) = (tmp_path / "cache").glob(f"*/{name}")
        path.write_bytes(path.read_bytes()[:50])
        assert load_folder(good, 16).hash == first
    assert len(reads) == 3 * 13

    def stop(done, total):
        if done > 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_folder(good, 24, on_progress=stop)
    next((tmp_path / "cache").glob("*/part-*")).write_bytes(b"nonsense")
    assert len(load_folder(good, 24)) == 13


def test_shapes_stay_on_disk_and_writing_to_them_changes_no_file(good):
    shapes = load_folder(good, 16)
    assert isinstance(shapes.points.numpy().base, np.memmap) or isinstance(shapes.points.numpy(), np.ndarray)
    shapes.points.zero_()
    assert load_folder(good, 16).points.abs().max() > 0.5


def test_a_cache_that_cannot_be_written_costs_a_warning(good, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / "file" / "cache"))
    (good / "broken.obj").write_bytes(b"")
    with pytest.warns(UserWarning, match="Set CONTRAST3D_CACHE"):
        assert len(load_folder(good, 16)) == 13


def test_what_another_process_has_read_is_not_read_again(good, reads, monkeypatch):
    """Rank 1 finds, in the midst of its reading, that the rest is there."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    started = []

    def other(done, total):
        if not started:
            started.append(True)
            monkeypatch.setenv("RANK", "0")
            load_folder(good, 16, on_progress=lambda *_: None)

    shapes = load_folder(good, 16, on_progress=other, workers=1)
    assert len(shapes) == 13
    assert 13 < len(reads) <= 13 + 4


def test_the_reading_shows_how_far_it_is(good, capsys, monkeypatch):
    load_folder(good, 16)
    assert capsys.readouterr().err == ""  # over at once
    monkeypatch.setattr("contrast3d.tally.LINE_SECONDS", 0)
    load_folder(good, 17, quiet=True)
    assert capsys.readouterr().err == ""
    load_folder(good, 18)
    assert re.match(r"1 of 13 files read\n2 of 13 files read  \d+/s  0:00 left\n", capsys.readouterr().err)
    monkeypatch.setenv("RANK", "1")
    load_folder(good, 19)
    assert capsys.readouterr().err == ""


def test_names_that_are_no_text(tmp_path):
    (tmp_path / "set").mkdir()
    with open(os.path.join(os.fsencode(tmp_path / "set"), b"\xff\xfe.npy"), "wb") as file:
        np.save(file, made.sphere(20))
    shapes = load_folder(tmp_path / "set", 8)
    assert shapes.names == ("\\udcff\\udcfe.npy",)
    assert len(shapes.hash) == 12
