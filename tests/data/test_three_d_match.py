"""3DMatch out of files in the layout of a scene's views."""

from __future__ import annotations

import numpy as np
import pytest

from contrast3d.data.fragment_files import write_gt_log
from contrast3d.data.scene_views import SceneViews, save_views
from contrast3d.data.three_d_match import TEST, ThreeDMatch, problems
from contrast3d.errors import ConfigError, DataError, MissingDataError


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(TEST):
        rng = np.random.default_rng(number)
        views = [rng.uniform(-1, 1, (20 + v, 3)) for v in range(3)]
        save_views(SceneViews.of(views, np.stack([np.eye(4)] * 3)), tmp_path / "3dmatch" / f"{name}.npz")
    return tmp_path


def test_all_scenes_by_name(root):
    scenes = ThreeDMatch(root)
    assert [s.name for s in scenes] == sorted(TEST)
    assert scenes[0].points(2).shape == (22, 3)
    assert [s.name for s in ThreeDMatch(root / "3dmatch")] == sorted(TEST)
    assert [s.name for s in ThreeDMatch(root / "3dmatch" / f"{TEST[0]}.npz")] == [TEST[0]]
    assert problems(root) == []


def test_chosen_scenes(root):
    assert [s.name for s in ThreeDMatch(root, ["mit_lab", "hotel_uc"])] == [TEST[7], TEST[3]]
    with pytest.raises(DataError, match="2 scenes are called 'hotel_umd'; expected one of 7-scenes-redkitchen, "):
        ThreeDMatch(root, ["hotel_umd"])
    with pytest.raises(DataError, match="0 scenes are called 'attic'"):
        ThreeDMatch(root, ["attic"])


@pytest.mark.parametrize("beside", ["{}-evaluation", "{}"])  # as 3DMatch and as PREDATOR lay their lists out
def test_the_pairs_of_3dmatch(root, beside):
    from dataclasses import replace

    scene = ThreeDMatch(root, ["mit_lab"])[0]
    listed = replace(scene, pairs=np.array([[0, 1], [0, 2]]))
    path = write_gt_log(listed, root / "3dmatch" / beside.format(scene.name) / "gt.log")
    assert not len(ThreeDMatch(root, ["mit_lab"])[0].pairs), "only where they are asked for"
    found = ThreeDMatch(root, ["mit_lab"], gt=True)[0]
    assert (found.pairs.tolist(), found.overlaps.tolist()) == ([[0, 1], [0, 2]], [0, 0])
    assert len(ThreeDMatch(root / "3dmatch" / f"{scene.name}.npz", gt=True)[0].pairs) == 2
    with pytest.raises(ConfigError, match=rf"{TEST[0]} has no list of pairs: .*{TEST[0]}-evaluation/gt\.log is not"):
        ThreeDMatch(root, gt=True)
    path.write_text(path.read_text().replace("\t 3\t", "\t 4\t"))
    with pytest.raises(DataError, match=r"gt\.log: pairs of 4 fragments; expected of 3"):
        ThreeDMatch(root, ["mit_lab"], gt=True)


def test_what_is_missing_or_broken_is_named(root, tmp_path):
    (root / "3dmatch" / f"{TEST[1]}.npz").unlink()
    (root / "3dmatch" / f"{TEST[2]}.npz").write_bytes(b"PK no archive")
    lines = problems(root)
    assert len(lines) == 2
    assert f"{TEST[2]}.npz: cannot be read" in lines[0]
    assert f"no {TEST[1]}.npz; expected the eight test scenes (source: 3DMatch" in lines[1]
    with pytest.raises(DataError, match="3DMatch: 1 of 7 files cannot be used"):
        ThreeDMatch(root)
    assert len(ThreeDMatch(root, ["mit_lab"])) == 1
    with pytest.raises(MissingDataError, match="no such folder; expected this layout there or below"):
        ThreeDMatch(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="no scenes of 3DMatch"):
        ThreeDMatch(tmp_path / "empty")
    assert "no such folder" in problems(tmp_path / "gone")[0]


@pytest.mark.shared
def test_the_real_fragments(shared):
    scenes = ThreeDMatch(shared / "data")
    assert [len(s) for s in scenes] == [60, 55, 37, 38]
    assert {s.name for s in scenes} <= set(TEST)
    for scene in scenes:
        turns = scene.poses[:, :3, :3]
        np.testing.assert_allclose(turns @ turns.swapaxes(1, 2), np.stack([np.eye(3)] * len(scene)), atol=1e-4)
