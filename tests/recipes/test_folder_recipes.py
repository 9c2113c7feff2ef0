"""A folder of your own as the data set of a recipe, of `load`, of `data check`; and as the only thing that is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny

import contrast3d as c3d
from contrast3d import cli
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.recipes import datasets, table


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """Sixty clouds in three sub-folders; y is up."""
    label = np.arange(60) % 3
    for i, points in enumerate(tiny.clouds(label, 64)):
        place = tmp_path / "my shapes" / f"class{label[i]}"
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{i}.npy", points)
    (tmp_path / "my shapes" / "readme.md").write_text("ignored")
    return tmp_path / "my shapes"


@pytest.mark.parametrize("labels_from", ["none", "folders"])
def test_pretrain_evaluate_report(folder, labels_from, tmp_path, capsys):
    recipe = tiny.shrunk(table.find("simclr-ldraw40"), dataset=str(folder), labels_from=labels_from, up="y")
    run = tmp_path / "run"
    flags = tiny.flags("simclr-ldraw40", recipe)
    assert cli.main(["pretrain", "simclr-ldraw40", *flags, "--out", str(run), "--quiet"]) == 0
    told = capsys.readouterr().out
    assert ("evaluate linear" in told) == (labels_from == "folders")
    assert "--data-root" not in told
    fields = json.loads((run / "recipe.json").read_text())["fields"]
    assert (fields["dataset"], fields["labels_from"], fields["up"]) == (str(folder), labels_from, "y")
    code = cli.main(["evaluate", "knn", str(run), "--draws", "1", "--labels", "5", "all"])
    if labels_from == "folders":
        assert code == 0
        assert len(list((run / "results").glob("knn-myshapes*-all.json"))) == 1
    else:
        assert code == 1
        assert "labels" in capsys.readouterr().err
    assert cli.main(["report", str(run)]) == 0
    assert "my shapes" in (run / "report.html").read_text()


def test_a_folder_joins_as_a_further_set(folder, tmp_path):
    recipe = tiny.shrunk(table.find("simclr-ldraw40"), extra_datasets=(str(folder),))
    shapes = recipe.pretraining_shapes(tmp_path)
    assert shapes.title == "LDraw-40 train + my shapes"
    assert len(shapes) == len(recipe.shapes("train", tmp_path)) + 60


def test_up_of_a_folder_is_not_up_of_shapenetpart(folder, tmp_path):
    tiny.write_shapenetpart(tmp_path, "hdf5")
    fields = {"extra_datasets": ("ShapeNetPart",), "dataset": str(folder)}
    of_y, of_z = (tiny.shrunk(table.find("simclr-ldraw40"), up=up, **fields).pretraining_shapes(tmp_path).points
                  for up in ("y", "z"))
    assert (of_y[60:] == of_z[60:]).all()
    assert (of_y[:60] != of_z[:60]).any()


def test_names_and_paths(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LDraw40").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "folder").mkdir()
    assert not datasets.is_folder("LDraw40")  # the name of a set wins
    for path in ("./LDraw40", "mine", "folder", ".", "gone/shapes", str(folder)):
        assert datasets.is_folder(path), path
        assert datasets.is_whole(path)
        assert datasets.widest_split(path) == datasets.whole_split(path) == "all"
    for name in ("own.npz", "folder/own.npz", "gone"):
        assert not datasets.is_folder(name), name
    with pytest.raises(ConfigError, match=r"no data set 'gone'.* and folders of meshes or clouds of points"):
        datasets.read("gone", "all", tmp_path, 16)
    (tmp_path / "folder").rmdir()
    with pytest.raises(ConfigError, match="dataset = 'folder'; expected the path of your folder"):
        datasets.read("folder", "all", tmp_path, 16)


def test_what_can_be_wrong_is_one_line(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.obj").write_bytes(b"")
    cases = {
        tmp_path / "empty": "an empty folder; expected files ending in .obj",
        tmp_path / "gone": "no such file or folder",
        tmp_path / "broken": "1 of 1 files cannot be used (a.obj: an empty file",
        folder / "class0" / "0.npy": "expected (shapes, points, 3)", folder / "readme.md": "a file; expected a folder",
    }
    for path, said in cases.items():
        assert cli.main(["pretrain", "simclr-ldraw40", "--dataset", str(path), "--out", str(tmp_path / "run")]) == 1
        told = capsys.readouterr().err
        assert said in told, told
        assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_load(folder, tmp_path):
    shapes = c3d.load(folder, num_points=32, up="y", labels_from="folders")
    assert shapes.points.shape == (60, 32, 3)
    assert shapes.classes == ("class0", "class1", "class2")
    assert c3d.load(str(folder)).num_points == 1024
    with pytest.raises(MissingDataError, match="no such file or folder"):
        c3d.load(tmp_path / "gone")
    with pytest.raises(DataError, match="a file; expected a folder"):
        c3d.load(folder / "readme.md")


def test_load_a_file(tmp_path):
    path = tiny.write_npz(tmp_path / "own.npz")
    plain, turned = c3d.load(path), c3d.load(path, up="y")
    assert (turned.points == plain.points[..., [0, 2, 1]] * plain.points.new_tensor([1, -1, 1])).all()
    assert (turned.labels == plain.labels).all()
    with pytest.raises(ConfigError, match="a file holds its own labels"):
        c3d.load(path, labels_from="folders")


def test_check(folder, capsys):
    assert cli.main(["data", "check", "folder", "--data-root", str(folder)]) == 0
    assert "nothing is missing" in capsys.readouterr().out
    (folder / "class0" / "bad.stl").write_bytes(b"")
    assert cli.main(["data", "check", "folder", "--data-root", str(folder)]) == 1
    assert "bad.stl: an empty file" in capsys.readouterr().out
