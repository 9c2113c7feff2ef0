"""ShapeNetPart from small files in both official layouts."""

import contextlib
import json

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contrast3d.data.shapenetpart import CATEGORIES, PARTS, REPORT_CATEGORIES, ShapeNetPart, problems
from contrast3d.errors import ConfigError, Contrast3dError, DataError, MissingDataError

RNG = np.random.default_rng(0)
SYNSETS = {name: f"{i:08}" for i, name in enumerate(CATEGORIES)}
TXT = "shapenetcore_partanno_segmentation_benchmark_v0_normal"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / "cache"))


def rows_of(category, count):
    """(count, 7) x y z nx ny nz part, every value written with six decimals."""
    parts = RNG.choice(list(PARTS[category]), (count, 1))
    return np.hstack([RNG.uniform(-1, 1, (count, 6)).round(6), parts])


def write_txt(root, splits):
    """splits: {"train": [(category, number of points), ...]}; returns {name: rows}."""
    folder = root / TXT
    (folder / "train_test_split").mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{name}\t{synset}\n" for name, synset in SYNSETS.items())
    (folder / "synsetoffset2category.txt").write_text(lines)
    written = {}
    for split, shapes in splits.items():
        entries = []
        for i, (category, count) in enumerate(shapes):
            name = f"{SYNSETS[category]}/{split}{i:03}"
            path = folder / f"{name}.txt"
            path.parent.mkdir(exist_ok=True)
            written[name] = rows_of(category, count)
            np.savetxt(path, written[name], fmt="%.6f")
            entries.append(f"shape_data/{name}")
        (folder / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(json.dumps(entries))
    return written


def write_hdf5(root, split="train", categories=("Table", "Airplane", "Mug"), number=0, listed=True):
    folder = root / "hdf5_data"
    folder.mkdir(exist_ok=True)
    rows = np.array([rows_of(c, 2048) for c in categories])
    with h5py.File(folder / f"ply_data_{split}{number}.h5", "w") as file:
        file["data"], file["pid"] = rows[:, :, :3].astype(np.float32), rows[:, :, 6].astype(np.uint8)
        file["label"] = np.array([[CATEGORIES.index(c)] for c in categories], np.uint8)
    lines = "".join(f"{name}\t{synset}\n" for name, synset in SYNSETS.items())
    (folder / "all_object_categories.txt").write_text(lines)
    if listed:
        (folder / f"{split}_hdf5_file_list.txt").write_text(f"./hdf5_data/ply_data_{split}{number}.h5\n")
    return folder, rows


def lookup(rows):
    """Point -> part."""
    return {tuple(row[:3].astype(np.float32)): int(row[6]) for row in rows}


def test_the_tables():
    assert len(CATEGORIES) == 16
    assert [p for parts in PARTS.values() for p in parts] == list(range(50))
    assert len(REPORT_CATEGORIES) == 10
    assert set(REPORT_CATEGORIES) < set(CATEGORIES)


def test_txt(tmp_path):
    written = write_txt(tmp_path, {"train": [("Chair", 50), ("Airplane", 33), ("Table", 9)]})
    for root in (tmp_path, tmp_path / TXT):
        shapes = ShapeNetPart("train", root, 20, normalize=False, up="y")
        assert shapes.names == tuple(written)
        assert [shapes.classes[i] for i in shapes.labels] == ["Chair", "Airplane", "Table"]
        for cloud, parts, (name, rows) in zip(shapes.points.numpy(), shapes.point_labels, written.items()):
            part_of = lookup(rows)
            assert [part_of[tuple(p)] for p in cloud] == parts.tolist()
            assert len({tuple(p) for p in cloud}) == min(20, len(rows)), name
    again, other = (ShapeNetPart("train", tmp_path, 20, normalize=False, up="y", seed=s) for s in (0, 1))
    assert (shapes.points == again.points).all()
    assert (shapes.points != other.points).any()


def test_draws_with_replacement_like_the_report(tmp_path):
    write_txt(tmp_path, {"train": [("Chair", 500)]})
    shapes = ShapeNetPart("train", tmp_path, 500, replacement=True, normalize=False)
    assert len(shapes.points[0].unique(dim=0)) == pytest.approx(500 * (1 - np.exp(-1)), abs=40)
    assert len(ShapeNetPart("train", tmp_path, 500, normalize=False).points[0].unique(dim=0)) == 500


def test_up_and_normalisation(tmp_path):
    write_txt(tmp_path, {"train": [("Lamp", 40), ("Mug", 60)]})
    stored = ShapeNetPart("train", tmp_path, 30, up="y").points
    turned = ShapeNetPart("train", tmp_path, 30).points
    assert (turned[..., 0] == stored[..., 0]).all()
    assert (turned[..., 1] == -stored[..., 2]).all()
    assert (turned[..., 2] == stored[..., 1]).all()
    assert turned.norm(dim=2).amax(1).numpy() == pytest.approx(1, abs=1e-6)
    assert abs(turned.mean(1)).max() < 1e-6


def test_category_subset_counts_alphabetically_whatever_the_order_asked(tmp_path):
    write_txt(tmp_path, {"train": [("Table", 9), ("Bag", 9), ("Chair", 9), ("Car", 9)]})
    for wanted in (["Table", "Chair", "Car"], ["Car", "Table", "Chair"]):
        shapes = ShapeNetPart("train", tmp_path, 8, wanted)
        assert shapes.classes == ("Car", "Chair", "Table")
        assert shapes.labels.tolist() == [2, 1, 0]
    assert len(ShapeNetPart("train", tmp_path, 8, REPORT_CATEGORIES)) == 3
    with pytest.raises(DataError, match="no train shape of Mug"):
        ShapeNetPart("train", tmp_path, 8, ["Mug"])
    with pytest.raises(ConfigError, match="no category 'Chairs'; it has Airplane, Bag"):
        ShapeNetPart("train", tmp_path, 8, ["Chairs"])


def test_splits(tmp_path):
    shapes = {"train": [("Car", 9)], "val": [("Mug", 9), ("Cap", 9)], "test": [("Bag", 9)]}
    written = write_txt(tmp_path, shapes)
    names = {split: ShapeNetPart(split, tmp_path, 8).names for split in ("train", "val", "test", "trainval")}
    assert names["train"] + names["val"] + names["test"] == tuple(written)
    assert names["trainval"] == names["train"] + names["val"]
    with pytest.raises(ConfigError, match="not 'valid'"):
        ShapeNetPart("valid", tmp_path)


@pytest.mark.parametrize("listed", [True, False])
def test_hdf5(tmp_path, listed):
    folder, rows = write_hdf5(tmp_path, listed=listed)
    for root in (tmp_path, folder):
        shapes = ShapeNetPart("train", root, 2048, normalize=False, up="y")
        assert [shapes.classes[i] for i in shapes.labels] == ["Table", "Airplane", "Mug"]
        for cloud, parts, whole in zip(shapes.points.numpy(), shapes.point_labels, rows):
            part_of = lookup(whole)
            assert [part_of[tuple(p)] for p in cloud] == parts.tolist()
    subset = ShapeNetPart("train", tmp_path, 100, ["Mug", "Table"])
    assert subset.points.shape == (2, 100, 3)
    assert subset.labels.tolist() == [1, 0]


def test_hdf5_trainval_and_a_missing_test(tmp_path):
    write_hdf5(tmp_path, "train")
    write_hdf5(tmp_path, "val", ("Cap",))
    assert len(ShapeNetPart("trainval", tmp_path, 16)) == 4
    with pytest.raises(MissingDataError, match=r"no test files; expected test_hdf5_file_list\.txt or ply_"):
        ShapeNetPart("test", tmp_path, 16)


def change(folder, key, value):
    with h5py.File(folder / "ply_data_train0.h5", "a") as file:
        del file[key]
        if value is not None:
            file[key] = value


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("pid", None, "keys data, label; expected a data set 'pid'"),
        ("pid", np.zeros((3, 9)), r"shape \(3, 9\)"),
        ("pid", np.full((3, 2048), 49), r"shape 1: part 49 in a Airplane; expected 0 to 3"),
        ("label", np.array([1, 2]), r"label of shape \(2,\); expected \(3,\)"),
        ("label", np.array([1, 2, 16]), "label 16; expected"),
        ("data", np.zeros((3, 2048)), r"points of shape \(3, 2048\)"),
    ],
)
def test_broken_hdf5(tmp_path, key, value, told):
    folder, _ = write_hdf5(tmp_path)
    change(folder, key, value)
    with pytest.raises(DataError, match=told) as error:
        ShapeNetPart("train", tmp_path)
    assert "ply_data_train0.h5" in str(error.value)


def test_truncated_hdf5(tmp_path):
    folder, _ = write_hdf5(tmp_path)
    path = folder / "ply_data_train0.h5"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"ply_data_train0.h5: an HDF5 file that cannot be read"):
        ShapeNetPart("train", tmp_path)
    assert any("ply_data_train0.h5" in line for line in problems(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("train_test_split/shuffled_train_file_list.json", "[", "no json"),
        ("train_test_split/shuffled_train_file_list.json", "{}", "json that is no list of texts"),
        ("train_test_split/shuffled_train_file_list.json", '["shape_data/99999999/a"]', "the entry 'shape"),
        ("train_test_split/shuffled_train_file_list.json", '["shape_data/00000003/../a"]', "the entry"),
        ("synsetoffset2category.txt", "Aeroplane\t02691156\n", r"the line 'Aeroplane\\t02691156'"),
        ("synsetoffset2category.txt", "", "an empty list"),
        ("00000003/train000.txt", "1 2 3 4 5 6\n" * 9, "6 columns in row 1; expected 7 columns"),
        ("00000003/train000.txt", "1 2 3 4 5 6 12\n" * 9, "part 12 in a Car; expected 8 to 11"),
        ("00000003/train000.txt", "1 2 nan 4 5 6 9\n" * 9, "NaN or infinity in row 1"),
    ],
)
def test_broken_txt(tmp_path, name, content, told):
    write_txt(tmp_path, {"train": [("Car", 9)]})
    (tmp_path / TXT / name).write_text(content)
    with pytest.raises(DataError, match=told) as error:
        ShapeNetPart("train", tmp_path, 8)
    assert name in str(error.value)


def test_one_broken_shape_in_a_hundred_is_left_out_every_time(tmp_path):
    written = write_txt(tmp_path, {"train": [("Knife", 4)] * 120})
    path = tmp_path / TXT / SYNSETS["Knife"] / "train007.txt"
    path.unlink()
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"1 of 120 files.*\n.*train007.txt: No such file"):
            shapes = ShapeNetPart("train", tmp_path, 4)
        assert shapes.names == tuple(n for n in written if not n.endswith("007"))
        assert len(shapes.point_labels) == 119


def test_missing_data_lists_the_layouts_and_check_the_files(tmp_path):
    with pytest.raises(MissingDataError) as error:
        ShapeNetPart("train", tmp_path)
    for part in (TXT, "hdf5_data/", "x y z nx ny nz part", "pid (n, 2048)", "shapenet.cs.stanford.edu"):
        assert part in str(error.value)
    assert problems(tmp_path) == [str(error.value)]
    write_txt(tmp_path, {"train": [("Knife", 4), ("Car", 4)], "val": [("Knife", 4)]})
    (tmp_path / TXT / SYNSETS["Car"] / "train001.txt").unlink()
    lines = problems(tmp_path)
    assert any("train001.txt: missing; expected lines x y z nx ny nz part" in line for line in lines)
    assert any("2 train shapes are listed; expected 12137" in line for line in lines)
    assert any("shuffled_test_file_list.json: No such file" in line for line in lines)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=120), st.sampled_from(["synsets", "list", "cloud", "h5", "categories", "files"]))
def test_fuzz(tmp_path_factory, content, target):
    """Random bytes in place of any file of either layout: a ShapeSet or a Contrast3dError, nothing else."""
    root = tmp_path_factory.mktemp("fuzz")
    if target in ("synsets", "list", "cloud"):
        write_txt(root, {"train": [("Car", 9)]})
        name = {"synsets": "synsetoffset2category.txt", "cloud": "00000003/train000.txt",
                "list": "train_test_split/shuffled_train_file_list.json"}[target]
        (root / TXT / name).write_bytes(content)
    else:
        folder, _ = write_hdf5(root, categories=("Mug",))
        name = {"h5": "ply_data_train0.h5", "categories": "all_object_categories.txt",
                "files": "train_hdf5_file_list.txt"}[target]
        (folder / name).write_bytes(content)
    with contextlib.suppress(Contrast3dError):
        ShapeNetPart("train", root, 8)
    assert isinstance(problems(root), list)
