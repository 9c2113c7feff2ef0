import re
import shutil

import numpy as np
import pytest
import torch

from contrast3d.data import ldraw40
from contrast3d.data.ldraw40 import CLASSES, POOL_FILE, LDraw40, LDrawPool, load_pool, mould_groups
from contrast3d.errors import ConfigError, DataError, MissingDataError


def test_counts_and_classes():
    train, test, whole = LDraw40("train"), LDraw40("test"), LDraw40("all")
    assert (len(train), len(test), len(whole)) == (1756, 781, 2537)
    assert whole.points.shape == (2537, 1024, 3)
    assert len(CLASSES) == len(set(CLASSES)) == 40
    counts = whole.labels.bincount(minlength=40)
    assert counts.min() == 27
    assert counts.max() == 120
    assert set(train.labels.tolist()) == set(test.labels.tolist()) == set(range(40))
    assert LDraw40().title == "LDraw-40 train"


def test_train_and_test_are_the_whole_and_share_no_mould():
    train, test, whole = LDraw40("train"), LDraw40("test"), LDraw40("all")
    assert sorted(train.names + test.names) == sorted(whole.names)
    assert len(set(whole.names)) == len(whole)
    assert not set(train.groups.tolist()) & set(test.groups.tolist())
    moved = {813, 3709, 61190}
    assert moved <= set(train.groups.tolist())


def test_shapes_fill_the_unit_sphere_around_their_bounding_box():
    points = LDraw40("all").points
    grid = 1 / 1023  # half a step of the grid that the points were rounded to
    assert (points.norm(dim=2).amax(1) - 1).abs().max() < 2 * grid
    assert (points.amax(1) + points.amin(1)).abs().max() < 2 * grid + 1e-6


def test_points_of_a_shape_are_distinct():
    points = LDraw40("test").points
    for cloud in points[::40]:
        assert len(torch.unique(cloud, dim=0)) == 1024


def test_content_is_pinned():
    """Results name this hash; a change of data, order or shuffle must be a decision."""
    assert LDraw40("all").hash == "cdecde8d01bb"


def test_callers_cannot_change_each_others_points():
    LDraw40("all").points.zero_()
    assert LDraw40("all").points.abs().max() > 0.9


def test_names_groups_and_descriptions_belong_together():
    whole = LDraw40("all")
    row = whole.names.index("10048.dat")
    assert whole.descriptions[row] == "Minifig Hair Tousled"
    assert whole.classes[whole.labels[row]] == "minifig_hair"
    assert whole.groups[row] == 10048


def test_mould_groups():
    names = ["3001a.dat", "3001b.dat", "u8015.dat", "u8015c01.dat", "8015.dat", "ms1034.dat", "light.dat"]
    groups = mould_groups(names).tolist()
    assert groups[0] == groups[1] == 3001
    assert groups[2] == groups[3] != groups[4]
    assert len(set(groups)) == 5


def test_unknown_split():
    with pytest.raises(ConfigError, match=r"'val'.*train, test and all"):
        LDraw40("val")


def test_broken_installation(tmp_path, monkeypatch):
    original = ldraw40.FOLDER
    monkeypatch.setattr(ldraw40, "FOLDER", tmp_path)
    with pytest.raises(MissingDataError, match=r"ldraw40\.csv: no such file.*reinstall"):
        LDraw40()
    manifest = tmp_path / "ldraw40.csv"
    text = (original / manifest.name).read_text()
    shutil.copy(original / "ldraw40.points", tmp_path)
    manifest.write_text(text.replace(",train,", ",training,", 1))
    with pytest.raises(DataError, match="unknown class or split 'training'"):
        LDraw40()
    manifest.write_text("".join(text.splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="2536 rows; expected one for each of 2537"):
        LDraw40()


def test_attribution_names_every_author_and_the_licence():
    text = (ldraw40.FOLDER / "ldraw40-ATTRIBUTION.txt").read_text()
    manifest = ldraw40.compact.read_manifest(ldraw40.FOLDER / "ldraw40.csv", ldraw40.COLUMNS)
    authors = set(manifest["author"])
    assert len(authors) == 134
    assert all(f"    {author} (" in text for author in authors)
    assert "https://creativecommons.org/licenses/by/2.0/" in text
    assert "Estate of James Jessiman" in text


@pytest.mark.shared
def test_membership_and_labels_are_those_of_the_reference(shared):
    whole = LDraw40("all")
    train = set(LDraw40("train").names)
    with np.load(shared / "data" / "ldraw40_2048.npz", allow_pickle=False) as reference:
        assert whole.names == tuple(reference["fname"].tolist())
        assert whole.classes == tuple(reference["classes"].tolist())
        assert whole.descriptions == tuple(reference["description"].tolist())
        assert whole.labels.tolist() == reference["label"].tolist()
        for name, is_train in zip(whole.names, reference["is_train"].tolist()):
            moved = re.match(r"\d*", name)[0] in ("813", "3709", "61190")
            assert (name in train) == (is_train or moved)


@pytest.mark.shared
def test_points_lie_on_the_surface_of_the_reference(shared):
    """Two samples of one surface are as far apart as the reference's own two halves."""
    with np.load(shared / "data" / "ldraw40_2048.npz", allow_pickle=False) as file:
        reference = torch.from_numpy(file["points"][::100].astype(np.float32))
    ours = LDraw40("all").points[::100]
    one, two = reference[:, :1024], reference[:, 1024:]
    distance = torch.cdist(ours, one).amin(2).mean(1)
    floor = torch.cdist(two, one).amin(2).mean(1)
    assert (distance / floor).max() < 1.25


def saved_pool(path, **changes):
    points = np.random.default_rng(0).uniform(-1, 1, (3, 16, 3)).astype(np.float16)
    arrays = {
        "points": points, "names": np.array(["3001a.dat", "3001b.dat", "u1.dat"]),
        "descriptions": np.array(["Brick", "Brick old", "Unknown"]),
    } | changes  # fmt: skip
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_pool(tmp_path):
    pool = load_pool(saved_pool(tmp_path / "pool.npz"))
    assert pool.points.shape == (3, 16, 3)
    assert pool.points.dtype == torch.float32
    assert pool.labels is None
    assert pool.descriptions == ("Brick", "Brick old", "Unknown")
    assert pool.groups.tolist() == [3001, 3001, -1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"descriptions": None}, "no array 'descriptions'.*--pool"),
        ({"descriptions": np.array(["one"])}, "1 descriptions for 3 shapes"),
        ({"points": np.full((3, 16, 3), np.nan, np.float16)}, "NaN"),
        ({"points": np.zeros((3, 16), np.float16)}, r"\(3, 16\)"),
        ({"names": np.array(["a", "a", "b"])}, "twice"),
    ],
)
def test_broken_pool(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        load_pool(saved_pool(tmp_path / "pool.npz", **changes))


def test_missing_pool(tmp_path):
    with pytest.raises(MissingDataError, match=r"pool\.npz.*tools/build_ldraw40.py --pool"):
        load_pool(tmp_path / "pool.npz")


def test_pool_beside_ldraw40_leaves_its_parts_and_relatives_of_test_shapes_out(tmp_path):
    test = LDraw40("test")
    mould = next(m for m in test.groups.tolist() if 0 < m < 10**12)
    names = np.array([LDraw40("train").names[0], "999999.dat", f"{mould}zz.dat"])
    saved_pool(tmp_path / POOL_FILE, names=names)
    rest = LDrawPool(tmp_path)
    assert rest.names == ("999999.dat",)
    assert rest.labels is None
