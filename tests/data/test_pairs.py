"""Pairs of views against the plain definition: voxel means, all distances, the larger direction."""

import numpy as np
import pytest
import rgbd_folders as folders

from contrast3d.data import pairs as pairs_module
from contrast3d.data.pairs import find_pairs, with_pairs
from contrast3d.data.rgbd import find_scans, read_scan
from contrast3d.data.scene_views import SceneViews
from contrast3d.errors import ConfigError, DataError


def naive(clouds, least, voxel, radius):
    """(pairs, overlaps) of clouds in one frame; no trick anywhere."""
    means = []
    for cloud in clouds:
        _, numbers = np.unique(np.floor(cloud / voxel).astype(int), axis=0, return_inverse=True)
        means.append(np.array([cloud[numbers.ravel() == n].mean(0) for n in range(numbers.max() + 1)]))
    found = []
    for i, a in enumerate(means):
        for j, b in enumerate(means[i + 1 :], i + 1):
            near = ((a[:, None] - b[None]) ** 2).sum(-1) <= radius**2
            overlap = max(near.any(0).mean(), near.any(1).mean())
            if overlap >= least:
                found.append((i, j, overlap))
    return [(i, j) for i, j, _ in found], [overlap for *_, overlap in found]


@pytest.fixture
def room(tmp_path):
    folders.write_scannet(tmp_path, count=12)
    (source,) = find_scans(tmp_path)
    return read_scan(source, every=1, thin=0.0, voxel=0.2)


@pytest.mark.parametrize("least", [0.3, 0.7])
@pytest.mark.parametrize("given", [False, True])
def test_pairs_equal_naive(room, monkeypatch, least, given):
    monkeypatch.setattr(pairs_module, "BLOCK", 10)  # so that blocks have borders
    told = []
    scene = room.views
    pairs, overlaps = find_pairs(
        scene, least, 0.2, 0.3, room.means if given else None, lambda *numbers: told.append(numbers)
    )
    clouds = [scene.world(v) for v in range(len(scene))]
    if given:  # the means are of all pixels, and know no millimetres
        poses = folders.poses(len(scene))
        clouds = [folders.world_points(d, pose) for d, pose in zip(folders.depths(poses), poses)]
    expected, shares = naive(clouds, least, 0.2, 0.3)
    assert 5 < len(expected) < 66
    assert pairs.tolist() == [list(pair) for pair in expected]
    assert np.allclose(overlaps, shares, atol=1e-6)
    assert told[-1] == (66, 66)
    assert len(told) > 3


def test_all_pairs_where_nothing_is_asked_for(room):
    pairs, overlaps = find_pairs(room.views, 0.0)
    assert len(pairs) == 66
    assert overlaps.min() < 0.1 < overlaps.max()
    assert overlaps.dtype == np.float32


def test_views_of_nothing_and_few_views():
    none = SceneViews.of([], np.zeros((0, 4, 4)))
    assert find_pairs(none)[0].shape == (0, 2)
    one = SceneViews.of([np.ones((3, 3))], np.eye(4)[None])
    assert find_pairs(one)[0].shape == (0, 2)
    empty = SceneViews.of([np.ones((3, 3)), np.zeros((0, 3)), np.ones((2, 3))], np.stack([np.eye(4)] * 3))
    assert with_pairs(empty).pairs.tolist() == [[0, 2]]
    assert with_pairs(empty).overlaps.tolist() == [1.0]


def test_bad_arguments_are_refused(room):
    with pytest.raises(ConfigError, match=r"min_overlap = 1\.5"):
        find_pairs(room.views, 1.5)
    with pytest.raises(DataError, match="means of 1 views"):
        find_pairs(room.views, means=room.means[:1])


@pytest.mark.shared
def test_red_kitchen_has_519_pairs(shared):
    (source,) = find_scans(shared / "data" / "rgbd" / "redkitchen")
    scan = read_scan(source)
    pairs, overlaps = find_pairs(scan.views, means=scan.means)
    assert len(pairs) == 519
    assert overlaps.min() >= 0.3
    assert len(find_pairs(scan.views)[0]) == pytest.approx(519, abs=2)  # of thinned points too
