"""ScanObjectNN out of files in the layout of the release."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from contrast3d.data import catalog
from contrast3d.data.scanobjectnn import CLASSES, VARIANTS, ScanObjectNN, problems
from contrast3d.errors import ConfigError, DataError, MissingDataError


def write(root, variant: str, counts=(("training", 6), ("test", 3)), background: bool = True) -> None:
    folder, suffix, _ = VARIANTS[variant]
    place = root / "h5_files" / (folder if background else "main_split_nobg")
    place.mkdir(parents=True, exist_ok=True)
    for seed, (part, count) in enumerate(counts):
        rng = np.random.default_rng([seed, *variant.encode(), background])
        with h5py.File(place / f"{part}_objectdataset{suffix}.h5", "w") as file:
            file["data"] = rng.random((count, 2048, 3)).astype(np.float32) * [1, 3, 2]
            file["label"] = (np.arange(count) % 15).astype(np.int32)
            file["mask"] = np.zeros((count, 2048), np.int32)


def test_every_variant(tmp_path):
    for variant in VARIANTS:
        write(tmp_path, variant)
    hashes = set()
    for variant in VARIANTS:
        train, test = (ScanObjectNN(split, tmp_path, 64, variant) for split in ("train", "test"))
        assert (len(train), len(test), train.num_points) == (6, 3, 64)
        assert train.classes == CLASSES
        assert train.labels.tolist() == [0, 1, 2, 3, 4, 5]
        assert train.title == f"ScanObjectNN {variant} train"
        hashes |= {train.hash, test.hash}
    assert len(hashes) == 2 * len(VARIANTS)
    write(tmp_path, "PB_T50_RS", background=False)
    bare = ScanObjectNN("train", tmp_path, 64, background=False)
    assert bare.hash not in hashes


def test_y_becomes_z_and_the_first_points_are_kept(tmp_path):
    write(tmp_path, "OBJ_BG")
    turned, stored = (ScanObjectNN("test", tmp_path, 32, "OBJ_BG", up=up) for up in ("z", "y"))
    x, y, z = stored.points.unbind(-1)
    assert torch.equal(turned.points, torch.stack((x, -z, y), -1))
    raw = ScanObjectNN("test", tmp_path / "h5_files" / "main_split", 2048, "OBJ_BG", up="y", normalize=False)
    with h5py.File(tmp_path / "h5_files" / "main_split" / "test_objectdataset.h5") as file:
        np.testing.assert_array_equal(raw.points.numpy(), file["data"][()].astype(np.float32))


def test_what_is_missing_is_named(tmp_path):
    (line,) = problems(tmp_path)
    for part in ("training", "test"):
        assert f"main_split/{part}_objectdataset_augmentedrot_scale75.h5" in line
    assert "missing; expected data (n, 2048, 3) and label (n,)" in line
    assert "hkust-vgd.github.io/scanobjectnn" in line
    with pytest.raises(MissingDataError, match="no such file; expected this layout"):
        ScanObjectNN("train", tmp_path)
    write(tmp_path, "PB_T50_RS")
    train, test = problems(tmp_path)
    assert "training_objectdataset_augmentedrot_scale75.h5: 6 shapes; expected 11416" in train
    assert "test_objectdataset_augmentedrot_scale75.h5: 3 shapes; expected 2882" in test
    (tmp_path / "h5_files/main_split/test_objectdataset_augmentedrot_scale75.h5").write_bytes(b"nonsense")
    assert "test_objectdataset_augmentedrot_scale75.h5" in problems(tmp_path)[1]
    with pytest.raises(DataError, match="a file that starts with b'nonsense'"):
        ScanObjectNN("test", tmp_path)


def test_wrong_arguments(tmp_path):
    with pytest.raises(ConfigError, match="train and test, not 'val'"):
        ScanObjectNN("val", tmp_path)
    with pytest.raises(ConfigError, match="num_points must be 2 to 2048"):
        ScanObjectNN("train", tmp_path, 4096)


def test_the_catalogue_has_the_three_variants_of_papers(tmp_path):
    for name, variant in (("ScanObjectNN", "PB_T50_RS"), ("scanobjectnn_obj_bg", "OBJ_BG"),
                          ("ScanObjectNN-OBJ-ONLY", "OBJ_ONLY")):
        write(tmp_path, variant)
        shapes = catalog.find(name).read("train", tmp_path, 32)
        assert variant in shapes.title


def test_one_missing_file_is_named(tmp_path):
    write(tmp_path, "OBJ_BG", counts=(("training", 6),))
    lines = problems(tmp_path, "OBJ_BG")
    assert any("test_objectdataset.h5: missing" in line for line in lines)
