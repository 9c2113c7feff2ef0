"""Pickled fragments of 3DMatch: read without unpickling, with poses and frames, broken ones listed."""

import numpy as np
import pytest
import torch

from contrast3d.data.fragment_files import find_gt_log, read_fragments, read_gt_log, write_gt_log
from contrast3d.data.rgbd import find_scans, read_scan
from contrast3d.errors import DataError


def write(folder, number, cloud, first=0, pose=None):
    folder.mkdir(exist_ok=True)
    torch.save(cloud, folder / f"cloud_bin_{number}.pth", _use_new_zipfile_serialization=False)
    pose = np.eye(4) if pose is None else pose
    rows = "\n".join("\t ".join(f"{v:.8e}" for v in row) for row in pose)
    (folder / f"cloud_bin_{number}.info.txt").write_text(f"sun3d-home\tseq-01\t{first}\t{first + 49}\n{rows}\n")


def test_fragments_come_in_order_with_poses_and_frames(tmp_path):
    rng = np.random.default_rng(0)
    clouds = {number: rng.integers(-3000, 3000, (20 + number, 3)) / 1000 for number in (10, 2, 0)}
    for number, cloud in clouds.items():
        pose = np.eye(4)
        pose[:3, 3] = number
        write(tmp_path / "home", number, cloud, 50 * number, pose)
    (source,) = find_scans(tmp_path)
    assert (source.name, source.layout) == ("home", "3DMatch fragments")
    scan = read_scan(source)
    assert scan.views.frames.tolist() == [[0, 49], [100, 149], [500, 549]]
    for view, number in enumerate((0, 2, 10)):
        assert np.abs(scan.views.points(view) - clouds[number]).max() < 1e-6  # whole millimetres: nothing is lost
        assert scan.views.poses[view, 0, 3] == number


def test_broken_fragments_are_listed(tmp_path):
    good = np.ones((3, 3))
    write(tmp_path, 0, good)
    write(tmp_path, 1, {"points": good})
    write(tmp_path, 2, good * np.nan)
    write(tmp_path, 3, good, pose=np.full((4, 4), np.nan))
    write(tmp_path, 4, good)
    (tmp_path / "cloud_bin_4.info.txt").unlink()
    write(tmp_path, 5, good)
    (tmp_path / "cloud_bin_5.info.txt").write_text("home seq-01 0 49\n1 2 3\n")
    write(tmp_path, 6, torch.ones(4, 3))
    (source,) = find_scans(tmp_path)
    scan = read_scan(source)
    assert len(scan.views) == 2
    assert scan.total == 7
    for (name, why), words in zip(scan.skipped, ("dict", "NaN", "lost", "No such file", "3 numbers")):
        assert words in why, (name, why)
    for path in tmp_path.glob("*.info.txt"):
        path.unlink()
    with pytest.raises(DataError, match="none of 7 fragments can be used, the first because of"):
        read_scan(source)


def poses(count):
    """Cameras turned about z, and moved."""
    found = np.tile(np.eye(4), (count, 1, 1))
    for v in range(count):
        found[v, :2, :2] = [[np.cos(v), -np.sin(v)], [np.sin(v), np.cos(v)]]
        found[v, :3, 3] = v, -v, 0.5
    return found


def entry(i, j, count, matrix):
    """One pair as 3DMatch writes it."""
    return f"{i}\t {j}\t {count}\t\n" + "".join("\t ".join(f"{v:15.8e}" for v in row) + "\t\n" for row in matrix)


@pytest.fixture
def scene(tmp_path):
    """(the folder of four fragments that all see the same points, their poses)."""
    folder, world = tmp_path / "home", np.random.default_rng(0).uniform(-1, 1, (40, 3))
    for number, pose in enumerate(poses(4)):
        write(folder, number, (world - pose[:3, 3]) @ pose[:3, :3], pose=pose)
    return folder, poses(4)


@pytest.mark.parametrize("place", ["home/gt.log", "home-evaluation/gt.log"])
def test_the_pairs_of_gt_log(scene, tmp_path, place):
    folder, poses = scene
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("".join(
        entry(i, j, 4, np.linalg.inv(poses[i]) @ poses[j]) for i, j in ((0, 1), (0, 3), (2, 3))))
    assert find_gt_log(folder) == tmp_path / place
    views, skipped = read_fragments(folder, "home")
    assert (views.pairs.tolist(), views.overlaps.tolist(), skipped) == ([[0, 1], [0, 3], [2, 3]], [0, 0, 0], [])
    listed = read_gt_log(tmp_path / place)
    assert listed.fragments == 4
    for (i, j), pose in zip(listed.pairs.tolist(), listed.poses):  # it takes j to i: both see the same points
        there = views.points(j) @ pose[:3, :3].T + pose[:3, 3]
        np.testing.assert_allclose(there, views.points(i), atol=2e-3)
        assert np.abs(views.points(i) @ pose[:3, :3].T + pose[:3, 3] - views.points(j)).max() > 0.5
    assert read_scan(find_scans(tmp_path)[0]).views.pairs.tolist() == views.pairs.tolist()


def test_no_gt_log_is_no_pairs(scene):
    assert find_gt_log(scene[0]) is None
    views, skipped = read_fragments(scene[0], "home")
    assert (len(views.pairs), skipped) == (0, [])


def test_a_gt_log_of_other_poses_is_listed_and_left_out(scene):
    folder, poses = scene
    (folder / "gt.log").write_text(entry(0, 1, 4, np.linalg.inv(poses[1]) @ poses[0]))  # the other direction
    views, ((file, why),) = read_fragments(folder, "home")
    assert (len(views), len(views.pairs), file) == (4, 0, "gt.log")
    assert "a pose of fragments 0 and 1 that is" in why
    assert "expected the list of this scene" in why


def test_pairs_of_fragments_that_are_left_out(scene, tmp_path):
    """The others keep theirs, by the new numbers."""
    folder, poses = scene
    (folder / "cloud_bin_1.pth").write_bytes(b"nothing")
    pairs = ((0, 1), (0, 2), (2, 3))
    (folder / "gt.log").write_text("".join(entry(i, j, 4, np.linalg.inv(poses[i]) @ poses[j]) for i, j in pairs))
    views, skipped = read_fragments(folder, "home")
    assert views.pairs.tolist() == [[0, 1], [1, 2]]
    assert [name for name, _ in skipped] == ["cloud_bin_1.pth", "gt.log"]
    assert "1 of 3 pairs are of fragments that cannot be used" in skipped[1][1]
    listed = read_gt_log(write_gt_log(views, tmp_path / "new" / "gt.log"))
    assert (listed.pairs.tolist(), listed.fragments) == ([[0, 1], [1, 2]], 3)
    np.testing.assert_allclose(listed.poses[1], np.linalg.inv(poses[2]) @ poses[3], atol=1e-7)


@pytest.mark.parametrize(("text", "told"), [
    ("", "0 numbers"), ("0 1 4\n1 0 0 0\n", "7 numbers, 7 too many"), ("0 one 4", "no number"),
    (entry(1, 0, 4, np.eye(4)), "`1 0 4` of 4 fragments"), (entry(0, 4, 4, np.eye(4)), "`0 4 4` of 4 fragments"),
    (entry(0, 1.5, 4, np.eye(4)), "`0 1.5 4`"), (entry(0, "nan", 4, np.eye(4)), "`0 nan 4`"),
    (entry(0, 1, 4, np.eye(4)) + entry(0, 2, 5, np.eye(4)), "`0 2 5` of 4 fragments"),
    (2 * entry(0, 1, 4, np.eye(4)), "listed twice"), (entry(0, 1, 4, np.eye(4) * np.nan), "lost"),
    (entry(0, 1, 4, 2 * np.eye(4)), "no rotation"),
])
def test_a_gt_log_that_is_something_else(tmp_path, text, told):
    (tmp_path / "gt.log").write_text(text)
    with pytest.raises(DataError, match=told) as error:
        read_gt_log(tmp_path / "gt.log")
    assert str(tmp_path / "gt.log") in str(error.value)
    with pytest.raises(DataError, match="No such file"):
        read_gt_log(tmp_path / "other.log")
