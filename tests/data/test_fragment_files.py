"""Pickled fragments of 3DMatch: read without unpickling, with poses and frames, broken ones listed."""

import numpy as np
import pytest
import torch

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
