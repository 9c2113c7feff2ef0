"""From a run and files to an index that can be searched, in one process and two, whole and interrupted."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import contrast3d as c3d
from contrast3d.data import folder as data_folder
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.index.store import Skipped
from contrast3d.index.vectors import Index
from contrast3d.recipes import looking, table
from contrast3d.recipes.embed import _listed, embed_paths
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.pretrain import pretrain
from contrast3d.recipes.shape_index import encoder_hash, open_index
from contrast3d.recipes.sources import items_of

NAME = "simclr-ldraw40"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """run/, other/ (another seed), own.npz, and files/ with nine shapes and a broken one."""
    folder = tmp_path_factory.mktemp("embed")
    for name, seed in (("run", 0), ("other", 1)):
        recipe = tiny.shrunk(table.find(NAME), dataset=str(tiny.write_npz(folder / "own.npz")), seed=seed)
        pretrain(NAME, recipe, Machine(out=folder / name, quiet=True))
    clouds = tiny.clouds(np.arange(9) % 3, 60)
    (folder / "files" / "deep").mkdir(parents=True)
    for number, cloud in enumerate(clouds):
        np.savetxt(folder / "files" / ("deep" if number > 5 else ".") / f"cloud{number}.xyz", cloud)
    (folder / "files" / "broken.stl").write_text("no mesh")
    return folder


@pytest.fixture
def here(place, tmp_path, monkeypatch) -> Path:
    """A copy of the files in the working folder, with the run beside."""
    shutil.copytree(place / "files", tmp_path / "files")
    for name in ("run", "other", "own.npz"):
        os.symlink(place / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_embed_search_and_again(here):
    done = embed_paths("run", ["files"], "index", batch_size=4, quiet=True)
    assert (done.written, done.known, done.total, list(done.skipped)) == (9, 0, 9, [str(here / "files/broken.stl")])
    index = open_index("index")
    hits = index.search("cloud4", k=3)
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert "files/cloud4.xyz" not in [hit.name for hit in hits]
    assert all(hit.name.startswith("files/") for hit in hits)
    assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
    again = embed_paths("run", ["files"], "index", quiet=True)
    assert (again.written, again.known, again.total) == (0, 9, 9)
    assert [row["name"] for row in rows_of("index/skipped.csv")] == [str(here / "files/broken.stl")]


def test_a_file_that_is_not_in_the_index(here):
    embed_paths("run", ["files"], "index", quiet=True)
    shutil.copy("files/cloud2.xyz", "query.xyz")
    index = open_index("index")
    hits = index.search("query.xyz", k=2)
    assert hits[0].name == "files/cloud2.xyz"
    assert hits[0].distance < 1e-5
    assert len(index.search(Path("query.xyz"), k=9)) == len(index.search("query.xyz")) == 9  # 10, but there are 9
    assert len(index.search("cloud2")) == 8


def test_a_changed_file_is_embedded_anew(here):
    embed_paths("run", ["files"], "index", quiet=True)
    shutil.copy("files/cloud2.xyz", "files/cloud0.xyz")
    changed = open_index("index").query("files/cloud0.xyz")
    assert changed.row is None  # what the index has is of the old file
    done = embed_paths("run", ["files"], "index", quiet=True)
    assert (done.written, done.known, done.total) == (1, 8, 10)
    index = open_index("index")
    assert len(index) == 9
    assert index.search("cloud0", k=1)[0].name == "files/cloud2.xyz"


def test_a_mended_file_leaves_the_list_of_the_skipped(here):
    embed_paths("run", ["files"], "index", quiet=True)
    Path("files/worse.stl").write_text("no mesh either")
    embed_paths("run", ["files/worse.stl"], "index", quiet=True)
    assert len(rows_of("index/skipped.csv")) == 2  # the first is not asked about again
    os.remove("files/worse.stl")
    shutil.copy("files/cloud0.xyz", "files/worse.xyz")
    embed_paths("run", ["files"], "index", quiet=True)
    assert [Path(row["name"]).name for row in rows_of("index/skipped.csv")] == ["broken.stl"]
    assert open_index("index").search("worse", k=1)[0].name == "files/cloud0.xyz"


def test_shapes_of_a_file_of_many_stay_listed_as_long_as_it_is_there(tmp_path):
    (tmp_path / "own#1.npz").touch()
    here, gone = str(tmp_path / "own#1.npz"), str(tmp_path / "gone.npz")
    stay = f"{here}#3", f"{here}#chair#3", here, "mine/4"
    former = {name: Skipped("cut short", 7, 8) for name in (*stay, f"{gone}#3", gone)}
    assert _listed(former, {}, {}, set()).keys() == set(stay)


def test_a_broken_file_is_not_read_again_until_it_changes(here, monkeypatch):
    os.symlink("gone.stl", "files/link.stl")
    first = embed_paths("run", ["files"], "index", quiet=True)
    assert (first.still, len(first.skipped)) == (0, 2)
    real, read = data_folder.read_shape, []
    monkeypatch.setattr(data_folder, "read_shape", lambda path, *a, **o: read.append(path.name) or real(path, *a, **o))
    again = embed_paths("run", ["files"], "index", quiet=True)
    assert read == ["link.stl"]  # which is not its own fault
    assert (again.known, again.still, list(again.skipped)) == (9, 1, [str(here / "files/link.stl")])
    assert len(rows_of("index/skipped.csv")) == 2
    Path("files/broken.stl").write_text("no mesh either")
    shutil.copy("files/cloud0.xyz", "files/gone.stl")
    assert embed_paths("run", ["files"], "index", quiet=True).still == 0
    assert sorted(read[1:]) == ["broken.stl", "gone.stl", "link.stl"]


def test_sets_array_files_and_single_clouds(here):
    np.save("single.npy", tiny.clouds(np.array([0]), 60)[0])
    done = embed_paths("run", ["SweetHome3D", "own.npz", "single.npy", "own.npz"], "index", quiet=True)
    assert done.total == 747 + 60 + 1
    index = open_index("index")
    names = [index.index.name(row) for row in (0, 747, 807)]
    assert names[0].startswith("SweetHome3D/all/")
    assert names[1:] == ["own.npz#shape0", "single.npy"]
    for query in (*names, "shape3"):
        assert index.query(query).row is not None
        assert index.search(query, k=1)


def test_interrupted_and_gone_on_with(here, monkeypatch):
    real, calls = data_folder.read_shape, []

    def read(path, num_points, **options):
        calls.append(path)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return real(path, num_points, **options)

    monkeypatch.setattr(data_folder, "read_shape", read)
    done = embed_paths("run", ["files"], "index", batch_size=2, quiet=True)
    assert (done.signal, done.exit_code) == (2, 130)
    assert 0 < done.total < 9
    monkeypatch.undo()
    os.chdir(here)
    rest = embed_paths("run", ["files"], "index", quiet=True)
    assert (rest.known, rest.total, rest.signal) == (done.total, 9, None)
    whole = embed_paths("run", ["files"], "whole", quiet=True)
    assert whole.total == 9
    a, b = Index.open("index"), Index.open("whole")
    for name in ("cloud0", "cloud8"):
        np.testing.assert_allclose(a.vectors([a.row_of(name)]), b.vectors([b.row_of(name)]), atol=1e-6)


def test_two_processes_share_the_shapes(here):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "contrast3d", "embed", "run", "files", "-o", "index", "--quiet", "--device", "cpu",
               "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("embedded 9 shapes") == 1
    embed_paths("run", ["files"], "alone", quiet=True)
    two, one = Index.open("index"), Index.open("alone")
    assert two.header.shards == (0, 1)
    assert {e.name for e in two.entries} == {e.name for e in one.entries}
    for entry in one.entries:
        np.testing.assert_allclose(two.vectors([two.row_of(entry.name)]), one.vectors([one.row_of(entry.name)]),
                                   atol=1e-6)
    assert len(rows_of("index/skipped.csv")) == 1


def test_the_encoder_must_be_the_one(here):
    embed_paths("run", ["files"], "index", quiet=True)
    with pytest.raises(ConfigError, match="holds vectors of another encoder"):
        embed_paths("other", ["files"], "index", quiet=True)
    with pytest.raises(ConfigError, match="other has another encoder than the one that made index"):
        open_index("index", "other")
    assert open_index("index", "run").search("cloud1", k=1)


def test_a_run_that_moved(here, place):
    shutil.copytree(place / "run", "mine")
    embed_paths("mine", ["files"], "index", quiet=True)
    shutil.move("mine", "moved")
    shutil.copy("files/cloud2.xyz", "query.xyz")
    assert open_index("index").search("cloud2", k=1)  # needs no encoder
    with pytest.raises(MissingDataError, match=r"mine: no such folder.*Try: --run RUN"):
        open_index("index").search("query.xyz", k=1)
    assert open_index("index", "moved").search("query.xyz", k=1)[0].name == "files/cloud2.xyz"


def test_nothing_to_embed(here):
    Path("empty").mkdir()
    for path, words in (("empty", "empty folder"), ("nowhere", "no such file or folder"),
                        ("nowhere/a.stl", "no such file or folder"), ("LDraw4", "did you mean LDraw40?")):
        with pytest.raises(MissingDataError, match=words):
            embed_paths("run", [path], "index", quiet=True)
    assert not Path("index").exists()


def test_items_come_once(here):
    items = items_of(["files", "files/cloud0.xyz", "./files"], 48)
    assert len(items) == 10


def test_in_python(here):
    shapes = c3d.ShapeSet(torch.from_numpy(tiny.clouds(np.arange(12) % 3, 48)), title="mine")
    encoder = c3d.load_run("run").reader()
    index = c3d.embed(encoder, shapes)
    assert len(index) == 12
    hits = index.search("mine/0", k=3)
    assert "mine/0" not in [hit.name for hit in hits]
    assert index.search(shapes.points[5], k=1)[0].name == "mine/5"
    assert index.search(Path("files/cloud0.xyz"), k=2)
    assert not encoder.training
    kept = c3d.embed(encoder, shapes, out="index")
    assert [h.name for h in kept.search("mine/0", k=3)] == [h.name for h in hits]
    assert len(c3d.embed(encoder, shapes, out="index")) == 12
    assert len(c3d.open_index("index", run="run").groups(2.0)) == 1
    with pytest.raises(ConfigError, match="does not say which run made it"):
        c3d.open_index("index").search("files/cloud0.xyz", k=1)
    with pytest.raises(DataError, match="expected finite numbers"):
        index.search(np.full((4, 3), np.nan, np.float32), k=1)


def test_an_encoder_in_training_mode_is_left_in_it(here):
    shapes = c3d.ShapeSet(torch.from_numpy(tiny.clouds(np.arange(4) % 3, 48)))
    encoder = c3d.nn.PointNet(8, widths=(8,)).train()
    before = encoder_hash(encoder)
    c3d.embed(encoder, shapes)
    assert encoder.training
    assert encoder_hash(encoder) == before


def test_an_encoder_that_gives_nothing(here):
    shapes = c3d.ShapeSet(torch.from_numpy(tiny.clouds(np.arange(4) % 3, 48)), title="mine")
    encoder = c3d.nn.PointNet(8, widths=(8,))
    with torch.no_grad():
        encoder.mlp[0].weight.fill_(torch.nan)
    with pytest.raises(DataError, match="mine/0: the encoder gives NaN, infinity or zero for it; 4 of 4"):
        c3d.embed(encoder, shapes)


def test_pictures_lists_and_pages(here):
    embed_paths("run", ["files"], "index", quiet=True)
    shutil.copy("files/cloud2.xyz", "files/copy.xyz")
    embed_paths("run", ["files"], "index", quiet=True)
    found = open_index("index")
    query = found.query("cloud2")
    path = looking.strip(found.index, query, found.search(query, 8), here / "deep" / "strip.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    groups = found.groups(0.0)
    assert looking.duplicates_text(found.index, groups).endswith("\n1 group; without duplicates 9 of 10 shapes remain")
    rows = rows_of(looking.duplicates_csv(found.index, groups, here / "copies.csv"))
    assert [(Path(r["name"]).name, Path(r["nearest"]).name) for r in rows] == [
        ("cloud2.xyz", "copy.xyz"), ("copy.xyz", "cloud2.xyz")]
    page = looking.gallery(found.index, here / "page.html").read_text()
    assert "Clusters" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert looking.gallery(found.index, here / "page.html", most=1).exists()
    with pytest.raises(ConfigError, match=r"expected a picture ending in \.png"):
        looking.check_picture(Path("strip.txt"))
    with pytest.raises(ConfigError, match="most = 0"):
        looking.gallery(found.index, here / "page.html", most=0)
