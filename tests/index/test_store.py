"""The files of an index: what is written comes back, kills cost little, and damage is one clear error."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from toy_index import header, on_disk, shard, unit

from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.index.shards import Entry, Shard, complete_shards
from contrast3d.index.store import IndexDir, Skipped
from contrast3d.index.vectors import Index


@pytest.fixture
def folder(tmp_path):
    """An index of two shards, 4 and 3 shapes."""
    vectors = unit(7)
    on_disk(tmp_path / "index", shard(vectors[:4]), shard(vectors[4:], first=4))
    return tmp_path / "index"


def test_what_is_written_comes_back(folder):
    index = Index.open(folder)
    assert len(index) == 7
    assert (index.header.shards, index.header.count, index.header.metric) == ((0, 1), 7, "cosine")
    np.testing.assert_array_equal(index.vectors([6, 0, 3, 4]), unit(7)[[6, 0, 3, 4]])
    assert index.points([5]).dtype == np.float32
    assert isinstance(index.shards[0].vectors, np.memmap)
    assert index.entries[5] == Entry("shape5", 7, 9)


def test_files_are_plain(folder):
    assert json.loads((folder / "index.json").read_text())["format"] == 1
    assert np.load(folder / "vectors-00001.npy").shape == (3, 8)
    assert np.load(folder / "points-00001.npy").dtype == np.float16
    lines = (folder / "entries-00001.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"name": "shape4", "size": 7, "mtime": 9}
    assert not [p for p in folder.iterdir() if p.name.endswith(".tmp")]


def test_names_of_any_bytes_survive(tmp_path):
    names = ["täß/ünï.obj", "quote\"comma,.stl", "new\nline.off", "bytes\udcff.ply"]
    index = on_disk(tmp_path / "index", shard(unit(4), names))
    assert [entry.name for entry in index.entries] == names
    assert "\n" not in index.name(2)
    index.name(3).encode()


def test_a_shard_that_no_page_lists_is_taken_in(folder):
    store = IndexDir(folder)
    store.write(store.next_number(), shard(unit(2, seed=3), first=7))
    assert len(Index.open(folder)) == 7
    assert store.begin(header()).count == 9
    assert len(Index.open(folder)) == 9


def test_half_a_shard_is_not(folder):
    store = IndexDir(folder)
    store.write(2, shard(unit(2, seed=3), first=7))
    (folder / "entries-00002.jsonl").unlink()  # a kill before its last file
    assert store.begin(header()).count == 7
    assert store.next_number() == 2
    assert complete_shards(folder) == [0, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": "f" * 64}, "vectors of another encoder (eeeeeeeeeeee there, ffffffffffff here)"),
        ({"width": 9}, "width = 8, not 9"),
        ({"num_points": 6}, "num_points = 5, not 6"),
        ({"up": "y"}, "up = 'z', not 'y'"),
    ],
)
def test_other_vectors_are_refused(folder, changes, words):
    with pytest.raises(ConfigError) as error:
        IndexDir(folder).begin(header(**changes))
    assert words in str(error.value)


def test_the_last_of_a_name_counts(tmp_path):
    vectors = unit(4)
    index = on_disk(tmp_path / "index", shard(vectors[:3]), shard(vectors[3:], ["shape1"]))
    assert len(index) == 3
    assert index.rows.tolist() == [0, 2, 3]
    assert index.row_of("shape1") == 3
    rows, _ = index.search(_tensor(vectors[1:2]), 3)
    assert 1 not in rows


def test_one_writer_at_a_time(folder):
    store = IndexDir(folder)
    with store.locked(), pytest.raises(ConfigError, match="another process embeds"), IndexDir(folder).locked():
        pass


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="a folder of other things"), IndexDir(tmp_path).locked():
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_no_index(tmp_path):
    with pytest.raises(MissingDataError, match="no such folder; expected an index"):
        Index.open(tmp_path / "nowhere")
    with pytest.raises(MissingDataError, match=r"index.json: no such file"):
        Index.open(tmp_path)
    IndexDir(tmp_path).begin(header())
    with pytest.raises(DataError, match="an index of no shapes"):
        Index.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("index.json", b"{", "index.json: unreadable"),
        ("index.json", b'{"format": 1}', "index.json: unreadable"),
        ("index.json", b'{"format": 9}', "format 9; expected format 1"),
        ("index.json", b"[]", "index.json: unreadable"),
        ("vectors-00000.npy", b"", "vectors-00000.npy: unreadable"),
        ("vectors-00000.npy", b"\x93NUMPY", "vectors-00000.npy: unreadable"),
        ("points-00001.npy", None, "points-00001.npy: unreadable"),
        ("entries-00000.jsonl", None, "entries-00000.jsonl: No such file"),
        ("entries-00000.jsonl", b"{}\n", "not the names of a shard"),
        ("entries-00000.jsonl", b'{"name": "one"}\n', "expected float32 of (1, 8)"),
    ],
)
def test_damage_is_one_clear_error(folder, name, content, words):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        Index.open(folder)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_vector_file_cut_short(folder):
    path = folder / "vectors-00000.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"vectors-00000\.npy: unreadable"):
        Index.open(folder)


def test_pickled_arrays_are_refused(folder):
    np.save(folder / "vectors-00000.npy", np.array([{}] * 4, object), allow_pickle=True)
    with pytest.raises(DataError, match=r"vectors-00000\.npy: unreadable"):
        Index.open(folder)


def test_skipped(tmp_path):
    store = IndexDir(tmp_path)
    assert store.skipped() == {}
    skipped = {"a,b.stl": Skipped('says "no"', 7, 8), "ü\n.obj": Skipped("cut short"), "\udcff": Skipped("bytes")}
    store.write_skipped(skipped)
    assert store.skipped() == skipped
    assert skipped["a,b.stl"].covers(Entry("a,b.stl", 7, 8))
    assert not skipped["a,b.stl"].covers(Entry("a,b.stl", 7, 9))
    assert not skipped["\udcff"].covers(Entry("\udcff"))  # the file is not to blame
    assert not skipped["a,b.stl"]._replace(reader=0).covers(Entry("a,b.stl", 7, 8))  # by a former reader
    (tmp_path / "skipped.csv").write_text("name,reason\na.stl,of a former version\n")
    assert not store.skipped()["a.stl"].covers(Entry("a.stl", 7, 8))
    store.write_skipped({})
    assert not (tmp_path / "skipped.csv").exists()


def test_an_edited_list_of_what_was_skipped(tmp_path):
    """Rows that do not parse are as if they were not there: those files are tried again."""
    store = IndexDir(tmp_path)
    store.write_skipped({"a.stl": Skipped("cut short", 7, 8), "b.stl": Skipped("empty", 9, 10)})
    path = tmp_path / "skipped.csv"
    path.write_text(path.read_text() + "\nalone\nc.stl,why,seven,8,1\nd.stl,why,1,2,3,4\ne.stl,why,1.5,2,3\n")
    assert store.skipped() == {"a.stl": Skipped("cut short", 7, 8), "b.stl": Skipped("empty", 9, 10)}
    path.write_text(path.read_text() + '"' + "endless\n" * 20_000)
    assert store.skipped().keys() == {"a.stl", "b.stl"}


def test_moved_indices_open(folder, tmp_path):
    shutil.move(folder, tmp_path / "elsewhere")
    assert len(Index.open(tmp_path / "elsewhere")) == 7


def test_a_shard_has_as_many_of_each():
    assert len(Shard(unit(2), np.zeros((2, 5, 3), np.float16), [Entry("a"), Entry("b")])) == 2


def _tensor(array):
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))
