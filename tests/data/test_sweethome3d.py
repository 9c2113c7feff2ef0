import numpy as np
import pytest
import torch

from contrast3d.data import compact, sweethome3d
from contrast3d.data.sweethome3d import CLASSES, SweetHome3D
from contrast3d.errors import ConfigError, MissingDataError


def test_counts_and_classes():
    whole, labelled = SweetHome3D(), SweetHome3D("labelled")
    assert whole.points.shape == (747, 1024, 3)
    assert len(labelled) == 481
    assert len(CLASSES) == 16
    assert whole.labels.min() == -1
    assert set(labelled.labels.tolist()) == set(range(16))
    assert len(set(whole.names)) == 747


def test_shapes_fill_the_unit_sphere_around_their_bounding_box():
    points = SweetHome3D().points
    grid = 1 / 1023  # half a step of the grid that the points were rounded to
    assert (points.norm(dim=2).amax(1) - 1).abs().max() < 2 * grid
    assert (points.amax(1) + points.amin(1)).abs().max() < 2 * grid + 1e-6


def test_content_is_pinned():
    """Results name this hash; a change of data, order or shuffle must be a decision."""
    assert SweetHome3D().hash == "a0ab976cffa6"


def test_unknown_split():
    with pytest.raises(ConfigError, match=r"'train'.*all and labelled"):
        SweetHome3D("train")


def test_broken_installation(tmp_path, monkeypatch):
    monkeypatch.setattr(sweethome3d, "FOLDER", tmp_path)
    with pytest.raises(MissingDataError, match=r"sweethome3d\.csv: no such file.*reinstall"):
        SweetHome3D()


def test_attribution_names_every_creator_and_licence():
    text = (sweethome3d.FOLDER / "sweethome3d-ATTRIBUTION.txt").read_text()
    manifest = compact.read_manifest(sweethome3d.FOLDER / "sweethome3d.csv", sweethome3d.COLUMNS)
    assert all(f"    {creator} (" in text for creator in set(manifest["creator"]))
    assert all(f"\n{library}: " in text for library in set(manifest["library"]))
    for licence in ("publicdomain/zero/1.0", "licenses/by/3.0/", "licenses/by/3.0/us/"):
        assert licence in text


@pytest.mark.shared
def test_set_is_the_reference(shared):
    """Same order, names and labels; our points are as near to half of the reference as its other half."""
    whole = SweetHome3D()
    manifest = compact.read_manifest(sweethome3d.FOLDER / "sweethome3d.csv", sweethome3d.COLUMNS)
    with np.load(shared / "data" / "sweethome3d_2048.npz", allow_pickle=False) as file:
        reference = {key: file[key] for key in file.files}
    assert whole.classes == tuple(reference["classes"].tolist())
    assert whole.labels.tolist() == reference["label"].tolist()
    assert whole.descriptions == tuple(name.replace("\\u20ac", "€") for name in reference["name"].tolist())
    for key in ("category", "library", "creator"):
        assert manifest[key] == tuple(reference[key].tolist())
    one, two = torch.from_numpy(reference["points"][::25].astype(np.float32)).split(1024, dim=1)
    distance = torch.cdist(whole.points[::25], one).amin(2).mean(1)
    floor = torch.cdist(two, one).amin(2).mean(1)
    assert (distance / floor).max() < 1.3
