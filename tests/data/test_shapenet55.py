"""ShapeNet55 out of files in the layout that Point-BERT handed around."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contrast3d.data import catalog
from contrast3d.data.shapenet55 import CLASSES, COUNTS, SYNSETS, ShapeNet55, problems
from contrast3d.errors import ConfigError, DataError, MissingDataError

CHAIR, PLANE = "03001627", "02691156"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTRAST3D_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data" / "ShapeNet55-34"
    (folder / "ShapeNet-55").mkdir(parents=True)
    (folder / "shapenet_pc").mkdir()
    for part, numbers in (("train", range(4)), ("test", range(4, 6))):
        names = [f"{CHAIR if i % 2 else PLANE}-{i:032x}.npy" for i in numbers]
        (folder / "ShapeNet-55" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for i, name in zip(numbers, names):
            points = np.random.default_rng(i).random((512, 3)) * [1, 3, 2]
            np.save(folder / "shapenet_pc" / name, points.astype(np.float32))
    return tmp_path / "data"


def test_the_synsets():
    assert len(SYNSETS) == len(set(CLASSES)) == 55
    assert list(SYNSETS) == sorted(SYNSETS)
    assert sum(COUNTS.values()) == 52470


def test_splits_labels_and_names(root):
    train, test, both = (ShapeNet55(split, root, 64) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(both)) == (4, 2, 6)
    assert [train.classes[i] for i in train.labels] == ["airplane", "chair"] * 2
    assert both.names == train.names + test.names
    assert train.names[1] == f"{CHAIR}-{1:032x}"
    assert train.points.shape == (4, 64, 3)
    torch.testing.assert_close(train.points.norm(dim=2).amax(1), torch.ones(4))
    assert ShapeNet55("train", root / "ShapeNet55-34", 64).hash == train.hash
    assert catalog.find("ShapeNet-55").read("train", root, 64).hash == train.hash


def test_y_becomes_z(root):
    turned, stored = (ShapeNet55("train", root, 64, up=up).points for up in ("z", "y"))
    assert torch.equal(turned, torch.stack((stored[..., 0], -stored[..., 2], stored[..., 1]), -1))


def test_what_is_missing_is_named(root, tmp_path):
    gone = next((root / "ShapeNet55-34" / "shapenet_pc").glob(f"{CHAIR}*"))
    gone.unlink()
    lines = problems(root)
    assert f"{gone}: missing; expected points (8192, 3) (source: PoinTr" in lines[0] + lines[1]
    assert len(lines) == 3
    with pytest.raises(DataError, match="1 of 6 files cannot be used"):
        ShapeNet55("all", root, 64)
    (root / "ShapeNet55-34" / "ShapeNet-55" / "test.txt").unlink()
    assert "test.txt: No such file" in problems(root)[-1]
    with pytest.raises(MissingDataError, match="no such folder; expected this layout"):
        ShapeNet55("train", tmp_path / "gone")
    with pytest.raises(ConfigError, match="train, test, all, not 'val'"):
        ShapeNet55("val", root)


@pytest.mark.parametrize("line", ["../../etc/passwd", "99999999-1.npy", "02691156-../x.npy", "02691156-1.txt"])
def test_lists_that_lead_elsewhere(root, line):
    (root / "ShapeNet55-34" / "ShapeNet-55" / "train.txt").write_text(line)
    with pytest.raises(DataError, match=r"the line .*; expected lines like 02691156-"):
        ShapeNet55("train", root)


def test_broken_arrays(root):
    for path, array in zip(sorted((root / "ShapeNet55-34" / "shapenet_pc").iterdir()), (
        np.zeros((4, 2)), np.full((9, 3), np.nan), np.zeros(3), np.array([["a", "b", "c"]] * 3))):
        np.save(path, array)
    with pytest.raises(DataError, match="4 of 6 files cannot be used") as error:
        ShapeNet55("all", root, 8)
    for reason in ("shape (1, 4, 2)", "NaN", "shape (3,)", "points of type <U1"):
        assert reason in str(error.value)
