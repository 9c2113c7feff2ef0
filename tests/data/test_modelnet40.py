"""ModelNet40 and ModelNet10 from small files in each of the official layouts."""

import contextlib
import pickle

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contrast3d.data.modelnet40 import MODELNET10, ModelNet10, ModelNet40, problems
from contrast3d.data.modelnet_layouts import CLASSES
from contrast3d.errors import ConfigError, Contrast3dError, DataError, MissingDataError

RNG = np.random.default_rng(0)
CUBE = "8 12 0\n" + "".join(f"{x} {y} {z}\n" for x in (0, 4) for y in (0, 2) for z in (0, 1)) + "".join(
    f"3 {a} {b} {c}\n3 {a} {c} {d}\n"
    for a, b, c, d in [(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)]
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_hdf5(root, per_file=(3, 2), names=CLASSES):
    folder = root / "modelnet40_ply_hdf5_2048"
    folder.mkdir(parents=True)
    clouds = RNG.uniform(-1, 1, (sum(per_file), 2048, 3)).astype(np.float32)
    labels = (np.arange(sum(per_file)) * 7 % len(names)).astype(np.uint8)
    start = 0
    for i, count in enumerate(per_file):
        with h5py.File(folder / f"ply_data_train{i}.h5", "w") as file:
            file["data"] = clouds[start : start + count]
            file["label"] = labels[start : start + count, None]
        start += count
    lines = [f"data/modelnet40_ply_hdf5_2048/ply_data_train{i}.h5" for i in range(len(per_file))]
    (folder / "train_files.txt").write_text("\n".join(lines) + "\n")
    (folder / "shape_names.txt").write_text("\n".join(names) + "\n")
    return folder, clouds, labels


NAMES = ("airplane_0001", "night_stand_0002", "airplane_0003")


def write_txt(root, names=NAMES, lines=30, prefix="modelnet40"):
    folder = root / "modelnet40_normal_resampled"
    clouds = []
    for name in names:
        category = name.rpartition("_")[0]
        (folder / category).mkdir(parents=True, exist_ok=True)
        clouds.append(RNG.normal(size=(lines, 6)))
        text = "".join(",".join(f"{v:.6f}" for v in row) + "\n" for row in clouds[-1])
        (folder / category / f"{name}.txt").write_text(text)
    (folder / f"{prefix}_train.txt").write_text("\n".join(names) + "\n")
    (folder / f"{prefix}_shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    return folder, np.array(clouds)


def write_off(root, title="ModelNet10", classes=MODELNET10.classes, split="train"):
    for i, category in enumerate(classes):
        folder = root / title / category / split
        folder.mkdir(parents=True)
        for k in (1, 2):  # the release's broken header on every other file
            (folder / f"{category}_{k:04}.off").write_text(("OFF\n" if (i + k) % 2 else "OFF") + CUBE)
    return root / title


def write_npz(root, split="train", count=4, **changes):
    arrays = {
        "points": RNG.uniform(-1, 1, (count, 64, 3)).astype(np.float16), "label": np.arange(count),
        "name": np.array([f"shape_{i}" for i in range(count)]), "classes": np.array(CLASSES), **changes,
    }
    np.savez(root / f"modelnet40_{split}_64.npz", **arrays)
    return arrays


def exchanged(points):
    return points[..., [0, 2, 1]]


def test_hdf5(tmp_path):
    folder, clouds, labels = write_hdf5(tmp_path)
    for root in (tmp_path, folder):
        shapes = ModelNet40("train", root, 100, normalize=False)
        np.testing.assert_array_equal(shapes.points, exchanged(clouds[:, :100]))
        assert shapes.labels.tolist() == labels.tolist()
    assert shapes.classes == CLASSES
    assert shapes.names == tuple(f"ply_data_train{i}/{j}" for i, n in enumerate((3, 2)) for j in range(n))
    as_stored = ModelNet40("train", tmp_path, 100, normalize=False, up="y")
    np.testing.assert_array_equal(as_stored.points, clouds[:, :100])


def test_labels_follow_the_names_not_their_order_in_the_file(tmp_path):
    _, _, labels = write_hdf5(tmp_path, names=CLASSES[::-1])
    assert ModelNet40("train", tmp_path).labels.tolist() == [39 - i for i in labels.tolist()]


def test_txt(tmp_path):
    folder, clouds = write_txt(tmp_path)
    shapes = ModelNet40("train", folder, 20, normalize=False)
    np.testing.assert_allclose(shapes.points, exchanged(clouds[:, :20, :3]), atol=1e-6)
    assert shapes.names == NAMES
    assert [shapes.classes[i] for i in shapes.labels] == ["airplane", "night_stand", "airplane"]
    unit = ModelNet40("train", folder, 20)
    assert unit.points.norm(dim=2).amax(1).numpy() == pytest.approx(1, abs=1e-6)


def test_txt_comes_from_the_cache_until_a_file_changes(tmp_path, cache):
    folder, _ = write_txt(tmp_path)
    first = ModelNet40("train", tmp_path, 20)
    (entry,) = cache.iterdir()
    stamp = entry.stat().st_mtime_ns
    assert ModelNet40("train", tmp_path, 20).hash == first.hash
    assert entry.stat().st_mtime_ns == stamp
    entry.write_bytes(b"damaged")
    assert ModelNet40("train", tmp_path, 20).hash == first.hash
    path = folder / "airplane" / "airplane_0001.txt"
    path.write_text("9,9,9,0,0,1\n" + path.read_text())
    assert ModelNet40("train", tmp_path, 20).hash != first.hash
    assert not list(cache.glob("*.tmp"))


def test_off_with_broken_headers(tmp_path):
    write_off(tmp_path)
    shapes = ModelNet10("train", tmp_path, 500, normalize=False, seed=3)
    assert len(shapes) == 20
    assert shapes.classes == MODELNET10.classes
    assert shapes.labels.tolist() == [i for i in range(10) for _ in range(2)]
    on_a_side = (shapes.points == 0) | (shapes.points.numpy() == np.array([4, 2, 1]))
    assert on_a_side.any(2).all()
    assert (shapes.points[0] != shapes.points[1]).any()
    again = ModelNet10("train", tmp_path / "ModelNet10", 500, normalize=False, seed=3)
    np.testing.assert_array_equal(shapes.points, again.points)
    (tmp_path / "ModelNet10").rename(tmp_path / "ModelNet40")
    with pytest.raises(MissingDataError, match=r"no folder for 30 of 40 classes \(airplane, bench"):
        ModelNet40("train", tmp_path)


def test_npz(tmp_path):
    arrays = write_npz(tmp_path)
    for root in (tmp_path, tmp_path / "modelnet40_train_64.npz"):
        shapes = ModelNet40("train", root, 50, normalize=False)
        np.testing.assert_array_equal(shapes.points, arrays["points"][:, :50].astype(np.float32))
    assert shapes.names == tuple(arrays["name"])
    with pytest.raises(MissingDataError, match=r"only modelnet40_train_64.npz; expected modelnet40_test_"):
        ModelNet40("test", tmp_path)


def test_modelnet10_out_of_modelnet40(tmp_path):
    _, clouds, labels = write_hdf5(tmp_path, (40,))
    shapes = ModelNet10("train", tmp_path, 16, normalize=False)
    rows = [i for i, label in enumerate(labels) if CLASSES[label] in MODELNET10.classes]
    np.testing.assert_array_equal(shapes.points, exchanged(clouds[rows, :16]))
    assert [shapes.classes[i] for i in shapes.labels] == [CLASSES[labels[i]] for i in rows]


def test_modelnet10_has_lists_of_its_own(tmp_path):
    write_txt(tmp_path, ("bed_0001", "sofa_0002"), prefix="modelnet10")
    assert ModelNet10("train", tmp_path, 16).names == ("bed_0001", "sofa_0002")


def test_best_layout_first_and_by_name(tmp_path):
    write_npz(tmp_path)
    write_txt(tmp_path)
    assert ModelNet40("train", tmp_path, 16).names[0] == "airplane_0001"
    assert ModelNet40("train", tmp_path, 16, layout="npz").names[0] == "shape_0"
    with pytest.raises(MissingDataError, match="no ModelNet40 as off"):
        ModelNet40("train", tmp_path, layout="off")


def test_pickled_dat_is_refused_unread(tmp_path):
    folder = tmp_path / "modelnet40_normal_resampled"
    folder.mkdir()
    path = folder / "modelnet40_train_8192pts_fps.dat"
    path.write_bytes(pickle.dumps([[], []]))
    for root in (tmp_path, folder, path):
        with pytest.raises(DataError, match=r"pickle.*Try: the modelnet40_normal_resampled txt files"):
            ModelNet40("train", root)


def test_missing_root_lists_the_layouts(tmp_path):
    for root, found in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "no ModelNet40")):
        with pytest.raises(MissingDataError) as error:
            ModelNet40("train", root)
        message = str(error.value)
        assert found in message
        for part in ("modelnet40_ply_hdf5_2048/", "modelnet40_normal_resampled/", "ModelNet40/<class>",
                     ".npz", "modelnet.cs.princeton.edu", "10,000 lines x,y,z,nx,ny,nz", "(n, 2048, 3)"):
            assert part in message


def test_wrong_arguments(tmp_path):
    for arguments in ({"split": "val"}, {"num_points": 1}):
        with pytest.raises(ConfigError):
            ModelNet40(**{"split": "train", "root": tmp_path, **arguments})


def damage_missing_h5(folder):
    (folder / "ply_data_train1.h5").unlink()


def damage_truncated_h5(folder):
    path = folder / "ply_data_train0.h5"
    path.write_bytes(path.read_bytes()[:5000])


def damage_key(folder):
    with h5py.File(folder / "ply_data_train0.h5", "a") as file:
        del file["label"]


def damage_label(folder):
    with h5py.File(folder / "ply_data_train0.h5", "a") as file:
        file["label"][1] = 77


def damage_nan(folder):
    with h5py.File(folder / "ply_data_train0.h5", "a") as file:
        file["data"][2, 5, 1] = np.nan


def damage_names(folder):
    (folder / "shape_names.txt").write_text("airplane\naeroplane\n")


def damage_list(folder):
    (folder / "train_files.txt").write_text("\n")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damage_missing_h5, r"ply_data_train1\.h5: no such file; expected an HDF5 file"),
        (damage_truncated_h5, r"ply_data_train0\.h5: an HDF5 file that cannot be read \(.*truncated"),
        (damage_key, r"ply_data_train0\.h5: keys data; expected a data set 'label'"),
        (damage_label, r"ply_data_train0\.h5: label 77; expected -1 \(none\) to 39"),
        (damage_nan, r"ply_data_train0\.h5: NaN or infinite points in 1 of 3 shapes \(rows 2\)"),
        (damage_names, r"shape_names\.txt: class 'aeroplane'; expected one of airplane"),
        (damage_list, r"train_files\.txt: an empty list; expected names of \.h5 files"),
    ],
)
def test_broken_hdf5_layouts(tmp_path, damage, told):
    folder, _, _ = write_hdf5(tmp_path)
    damage(folder)
    with pytest.raises(DataError, match=told) as error:
        ModelNet40("train", tmp_path)
    assert "\n" not in str(error.value)
    assert any(str(error.value) in line for line in problems(tmp_path))


def test_too_many_points(tmp_path):
    write_hdf5(tmp_path)
    with pytest.raises(DataError, match="2048 points a shape; expected at least 4096"):
        ModelNet40("train", tmp_path, 4096)


def test_unknown_class_in_a_txt_list(tmp_path):
    folder, _ = write_txt(tmp_path)
    (folder / "modelnet40_train.txt").write_text("airplane_0001\naeroplane_0002\n")
    with pytest.raises(DataError, match=r"modelnet40_train.txt: class 'aeroplane' of 'aeroplane_0002'"):
        ModelNet40("train", tmp_path)


def test_a_name_in_a_list_is_no_path(tmp_path):
    folder, _ = write_txt(tmp_path)
    for name in ("airplane_../../secret", "airplane_\0"):
        (folder / "modelnet40_train.txt").write_text(name + "\n")
        with pytest.raises(DataError, match=r"modelnet40_train\.txt: the name 'airplane_"):
            ModelNet40("train", tmp_path)


def test_one_broken_file_in_a_hundred_is_left_out_every_time(tmp_path):
    names = [f"chair_{i:04}" for i in range(110)]
    folder, _ = write_txt(tmp_path, names, lines=9)
    (folder / "chair" / "chair_0005.txt").write_text("1,2,3,4,5,6\n1,2,3\n")
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning, match=r"1 of 110 files.*\n.*chair_0005.txt: 3 columns in row 2"):
            shapes = ModelNet40("train", tmp_path, 8)
        assert shapes.names == tuple(n for n in names if n != "chair_0005")
    (folder / "chair" / "chair_0007.txt").unlink()
    with pytest.raises(DataError, match=r"2 of 110 files.*\n.*chair_0005.*\n.*chair_0007.txt: No such file"):
        ModelNet40("train", tmp_path, 8)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "no numbers"), ("1,2,3,4,5,6\n", "1 lines; expected at least 8"),
        ("1,2,3,nan,5,6\n" * 9, "NaN or infinity in row 1"), ("1,2,x,4,5,6\n", "'x' on line 1"),
    ],
)
def test_broken_txt(tmp_path, content, told):
    folder, _ = write_txt(tmp_path)
    (folder / "airplane" / "airplane_0003.txt").write_text(content)
    with pytest.raises(DataError, match=told):
        ModelNet40("train", tmp_path, 8)


def test_check_names_each_missing_file(tmp_path):
    folder, _ = write_txt(tmp_path)
    (folder / "modelnet40_test.txt").write_text("airplane_0009\n")
    (folder / "airplane" / "airplane_0001.txt").unlink()
    lines = problems(tmp_path)
    assert len(lines) == 2
    assert "airplane_0001.txt: missing; expected 10,000 lines x,y,z,nx,ny,nz (source: PointNet++" in lines[0]
    assert "airplane_0009.txt: missing" in lines[1]
    assert "hdf5" in problems(tmp_path / "nowhere")[0]


def test_check_counts(tmp_path):
    write_off(tmp_path)
    lines = problems(tmp_path, MODELNET10)
    assert "20 train shapes in the off layout; expected 3991" in lines[0]
    assert "no folder for 10 of 10 classes" in lines[1]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=120), st.sampled_from(["list", "names", "cloud", "mesh", "h5", "npz"]))
def test_fuzz(tmp_path_factory, content, target):
    """Random bytes in place of any file of any layout: a ShapeSet or a Contrast3dError, nothing else."""
    root = tmp_path_factory.mktemp("fuzz")
    if target in ("list", "names", "cloud"):
        folder, _ = write_txt(root, lines=3)
        name = {"list": "modelnet40_train.txt", "names": "modelnet40_shape_names.txt",
                "cloud": "airplane/airplane_0001.txt"}[target]
        (folder / name).write_bytes(content)
    elif target == "mesh":
        (write_off(root) / "bed" / "train" / "bed_0001.off").write_bytes(b"OFF" + content)
    elif target == "npz":
        (root / "modelnet40_train_64.npz").write_bytes(content)
    else:
        folder, _, _ = write_hdf5(root, (1,))
        (folder / "ply_data_train0.h5").write_bytes(content)
    with contextlib.suppress(Contrast3dError):
        ModelNet10("train", root, 2)
    assert isinstance(problems(root), list)


@pytest.mark.shared
def test_the_real_training_split(shared):
    shapes = ModelNet40("train", shared / "data")
    assert shapes.points.shape == (9843, 1024, 3)
    assert np.bincount(shapes.labels).tolist()[:4] == [626, 106, 515, 173]
    assert len(ModelNet10("train", shared / "data", 16)) == 3991
