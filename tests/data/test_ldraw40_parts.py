import re
import shutil

import numpy as np
import pytest
import torch

from contrast3d.data import catalog, compact, compact_labels, ldraw40, ldraw40_parts
from contrast3d.data.ldraw40_parts import FAMILIES, UNSCORED, LDraw40Parts, ldraw40_scheme
from contrast3d.data.parts import scheme_of, shapenetpart_scheme
from contrast3d.data.shapenetpart import CATEGORIES, PARTS
from contrast3d.errors import DataError, MissingDataError


def of(shapes, name, family):
    """(points of this family, the other points) of a part."""
    row = shapes.names.index(name)
    mask = shapes.point_labels[row] == FAMILIES.index(family)
    return shapes.points[row][mask], shapes.points[row][~mask]


def test_points_are_those_of_ldraw40():
    for split in ("train", "test"):
        labelled, plain = LDraw40Parts(split), ldraw40.LDraw40(split)
        assert torch.equal(labelled.points, plain.points)
        assert labelled.names == plain.names
        assert labelled.point_labels.shape == plain.points.shape[:2]
    assert LDraw40Parts().title == "LDraw-40 parts train"


def test_labels_belong_to_their_points():
    """A plain plate's studs stand on top of everything else: labels in another order would be anywhere."""
    whole = LDraw40Parts("all")
    plates = [n for n, d in zip(whole.names, whole.descriptions) if re.fullmatch(r"Plate +\d+ x +\d+", d)]
    assert len(plates) > 10
    for name in plates:
        studs, rest = of(whole, name, "stud")
        assert len(studs) >= 20
        assert studs[:, 2].quantile(0.1) > rest[:, 2].quantile(0.9)
    axle, _ = of(whole, "3705.dat", "axle")  # Technic Axle 4
    assert len(axle) > 1000


def test_shares_of_the_families():
    shares = LDraw40Parts("all").point_labels.flatten().bincount(minlength=len(FAMILIES)) / (2537 * 1024)
    expected = [0.468, 0.197, 0.147, 0.042, 0.017, 0.013, 0.035, 0.034, 0.027, 0.009, 0.013]
    assert shares.tolist() == pytest.approx(expected, abs=1e-3)


def test_scheme():
    scheme = ldraw40_scheme()
    assert [FAMILIES[i] for i in scheme.scored] == [f for f in FAMILIES if f not in UNSCORED]
    assert scheme.of_class.shape == (40, 11)
    whole = LDraw40Parts("all")
    assert bool(scheme.of_class[whole.labels].gather(1, whole.point_labels).all())
    assert not bool(scheme.of_class.all())


def test_scheme_of_shapenetpart():
    scheme = shapenetpart_scheme()
    assert len(scheme) == 50
    assert scheme.of_class.sum(0).tolist() == [1] * 50
    assert scheme.names[12] == "Chair 0"
    few = shapenetpart_scheme(("Chair", "Table"))
    assert few.of_class[0].nonzero().flatten().tolist() == list(PARTS["Chair"])
    assert len(CATEGORIES) == 16


def test_scheme_needs_labels():
    with pytest.raises(DataError, match="no labels of points"):
        scheme_of(ldraw40.LDraw40("test"), FAMILIES)
    with pytest.raises(DataError, match=r"parts 0 to 10; expected 0 to 2"):
        scheme_of(LDraw40Parts("test"), FAMILIES[:3])


def test_fewer_points_keep_their_labels():
    few = catalog.find("LDraw40Parts").read("test", "", 256)
    assert few.points.shape == (781, 256, 3)
    assert torch.equal(few.point_labels, LDraw40Parts("test").point_labels[:, :256])
    assert catalog.check("ldraw40-parts", "") == []


def test_labels_travel_with_their_codes(tmp_path):
    generator = np.random.default_rng(0)
    codes = np.stack([generator.permutation(2**20)[:50] for _ in range(7)]).astype(np.uint32)
    labels = (codes % 7).astype(np.int64)
    (tmp_path / "x.points").write_bytes(compact.encode(codes))
    (tmp_path / "x.parts").write_bytes(compact_labels.encode(codes, labels, (tmp_path / "x.points").read_bytes()))
    read = compact_labels.read_labels(tmp_path / "x.parts", tmp_path / "x.points", 7)
    levels = compact.read_points(tmp_path / "x.points")
    found = compact.morton_codes(compact.quantise(levels)) % 7
    assert np.array_equal(read, found)
    with pytest.raises(DataError, match="the label 6; expected 0 to 5"):
        compact_labels.read_labels(tmp_path / "x.parts", tmp_path / "x.points", 6)


def test_broken_installation(tmp_path, monkeypatch):
    for name in ("ldraw40.csv", "ldraw40.points", "ldraw40.parts"):
        shutil.copy(ldraw40.FOLDER / name, tmp_path)
    monkeypatch.setattr(ldraw40, "FOLDER", tmp_path)
    ldraw40_parts._labels.cache_clear()
    path = tmp_path / "ldraw40.parts"
    whole = path.read_bytes()
    for content, message in (
        (whole[:-1] + b"?", "damaged contents"), (whole[:-1], "damaged contents"),
        (b"nothing", "first line b'nothing'"),
        (whole.replace(b'"points_crc32": ', b'"points_crc32": 1', 1), r"other points than those of ldraw40\.points"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            LDraw40Parts("test")
    path.unlink()
    with pytest.raises(MissingDataError, match=r"ldraw40\.parts: no such file.*reinstall"):
        LDraw40Parts("test")
    ldraw40_parts._labels.cache_clear()
