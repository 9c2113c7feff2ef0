"""The table of known data sets: complete, readable, and its checks say what is missing."""

import numpy as np
import pytest

from contrast3d.data import catalog
from contrast3d.errors import ConfigError

BY_NAME = {dataset.name: dataset for dataset in (*catalog.DATASETS, *catalog.SCENES)}


def test_the_table_shows_every_set():
    parts = [part.splitlines() for part in catalog.table().split("\n\n")]
    for lines, what in zip(parts, ("shapes", "scenes"), strict=True):
        assert lines[0].split() == ["name", what, "classes", "splits", "where", "terms", "what"]
    assert [line.split()[0] for lines in parts for line in lines[2:]] == list(BY_NAME)
    assert len(BY_NAME) == len(catalog.DATASETS) + len(catalog.SCENES)
    assert all(len(line) < 140 for lines in parts for line in lines)


@pytest.mark.parametrize("dataset", catalog.SCENES, ids=lambda d: d.name)
def test_scenes_are_not_read_as_shapes(dataset):
    with pytest.raises(ConfigError, match="scenes, not of single shapes"):
        dataset.read("train", "nowhere", 64)


@pytest.mark.parametrize("name", BY_NAME)
def test_descriptions_say_terms_source_and_layout(name):
    dataset = BY_NAME[name]
    text = catalog.describe(name)
    assert dataset.terms in text
    assert dataset.source in text
    assert ("inside the package" in text) == dataset.embedded
    assert dataset.embedded or dataset.layout in text


def test_names_in_any_spelling():
    for name in ("ModelNet40", "modelnet-40", "model_net_40", "MODELNET40"):
        assert catalog.find(name).name == "ModelNet40"
    with pytest.raises(ConfigError, match="no data set 'ModelNet41'; there are LDraw40, LDraw40Parts, SweetHome3D"):
        catalog.find("ModelNet41")


@pytest.mark.parametrize("name", [name for name, dataset in BY_NAME.items() if not dataset.embedded])
def test_check_of_an_empty_folder_is_one_problem(name, tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        problem, *more = catalog.check(name, root)
        assert not more or name == "ScanNet"  # it has a list of scans for each split
        assert str(root) in problem


@pytest.mark.parametrize("name", [d.name for d in catalog.DATASETS if d.embedded])
def test_embedded_sets_are_whole_and_are_what_the_table_says(name, tmp_path):
    dataset = BY_NAME[name]
    assert catalog.check(name, tmp_path) == []
    shapes = dataset.read("all", tmp_path, 256)
    assert len(shapes) == int(dataset.shapes.replace(",", ""))
    assert len(shapes.classes) == int(dataset.classes)
    assert shapes.num_points == 256
    for split in dataset.splits:
        assert len(dataset.read(split, tmp_path, 256)) <= len(shapes)
    with pytest.raises(ConfigError, match="points a shape, not 100000"):
        dataset.read("all", tmp_path, 100_000)


def test_arrays(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, points=np.random.default_rng(0).normal(size=(3, 20, 3)))
    assert catalog.check("arrays", path) == []
    assert catalog.find("arrays").read("all", path, 10).points.shape == (3, 10, 3)
    np.savez(path, clouds=np.zeros(3))
    assert catalog.check("arrays", path) == [
        f"{path}: keys clouds; expected a key 'points' (points (shapes, points, 3); "
        "optional: label (shapes,), name (shapes,), classes (labels,))"
    ]
