"""`contrast3d data prepare pairs`: files to pairs, resumed, interrupted, and everything that can be wrong."""

import csv
import json
import os

import numpy as np
import pytest
import rgbd_folders as folders
import torch

from contrast3d import cli
from contrast3d.data.fragment_files import with_gt_pairs
from contrast3d.data.scene_views import SceneViews, load_views, save_views
from contrast3d.errors import ConfigError, DataError
from contrast3d.recipes import prepare as prepare_module
from contrast3d.recipes.prepare import prepare_pairs
from contrast3d.recipes.prepare_options import PairsOptions


@pytest.fixture
def scans(tmp_path):
    """Three scenes of eight frames, in three layouts."""
    source = tmp_path / "scans"
    folders.write_seven_scenes(source / "kitchen" / "seq-01", count=8)
    folders.write_scannet(source / "office", count=8)
    folders.write_sens(source / "scene0000_00.sens", count=8)
    return source


def test_scenes_of_all_layouts_become_files_with_pairs(scans, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["data", "prepare", "pairs", str(scans), "-o", str(out), "--every", "1"]) == 0
    said = capsys.readouterr()
    assert sorted(path.name for path in out.iterdir()) == [
        "kitchen-seq-01.npz", "office.npz", "prepared.json", "scene0000_00.npz",
    ]
    scene = load_views(out / "office.npz")
    assert len(scene) == 8
    assert 5 < len(scene.pairs) < 28
    assert scene.overlaps.min() >= scene.min_overlap == 0.3
    for name in ("kitchen-seq-01", "scene0000_00"):
        other = load_views(out / f"{name}.npz")
        assert np.array_equal(other.pairs, scene.pairs)
        assert np.allclose(other.overlaps, scene.overlaps, atol=0.02)
    assert f"office: 8 views, {len(scene.pairs)} pairs, ScanNet frames" in said.out
    assert f"3 scenes of 24 views and {3 * len(scene.pairs)} pairs in {out}" in said.out
    assert "skipped" not in said.out


def test_what_is_there_is_not_made_again_unless_options_or_files_change(scans, tmp_path):
    options = PairsOptions(tmp_path / "out", every=1, quiet=True)
    assert len(prepare_pairs(scans, options).written) == 3
    assert prepare_pairs(scans, options).written == []
    assert prepare_pairs(scans, options).known == 3
    (options.out / "office.npz").unlink()
    assert prepare_pairs(scans, options).written == ["office"]
    folders.write_sens(scans / "scene0000_00.sens", count=5)
    changed = prepare_pairs(scans, options)
    assert changed.written == ["scene0000_00"]
    assert changed.scenes["scene0000_00"]["views"] == 5
    (options.out / "prepared.json").write_text("{ broken")
    assert len(prepare_pairs(scans, options).written) == 3
    assert len(prepare_pairs(scans, PairsOptions(options.out, every=1, min_overlap=0.5)).written) == 3
    assert len(prepare_pairs(scans, PairsOptions(options.out, every=1, min_overlap=0.5, restart=True)).written) == 3


@pytest.mark.parametrize(
    ("write", "replaced"),
    [(folders.write_scannet, "depth/25.png"), (folders.write_scannet, "pose/25.txt"),
     (folders.write_scannet, "intrinsic/intrinsic_depth.txt"), (folders.write_tum, "depth/*.png"),
     (folders.write_tum, "groundtruth.txt"), (folders.write_seven_scenes, "frame-000025.depth.png"),
     (folders.write_seven_scenes, "frame-000025.pose.txt")])
def test_a_file_that_is_overwritten_in_place_is_noticed(tmp_path, write, replaced):
    """Which changes the time of no folder; the size of the file may be the same, and its time older than others."""
    folder = write(tmp_path / "scene")
    options = PairsOptions(tmp_path / "out", every=1, intrinsics=folders.CAMERA, quiet=True)
    file = next(folder.glob(replaced))
    assert len(prepare_pairs(folder, options).written) == 1
    before = file.stat()
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns - 10**9))  # older, as rsync leaves them
    assert len(prepare_pairs(folder, options).written) == 1
    assert prepare_pairs(folder, options).written == []


def test_a_camera_one_folder_up_belongs_to_the_recording_and_colours_do_not(tmp_path):
    options = PairsOptions(tmp_path / "out", every=1, quiet=True)
    (tmp_path / "chess").mkdir()
    folder = folders.write_seven_scenes(tmp_path / "chess" / "seq-01", intrinsics_in=tmp_path / "chess")
    assert len(prepare_pairs(folder, options).written) == 1
    (folder / "frame-000000.color.png").write_bytes(b"")
    assert prepare_pairs(folder, options).written == []
    camera = tmp_path / "chess" / "camera-intrinsics.txt"
    camera.write_text(camera.read_text() + "\n")
    assert len(prepare_pairs(folder, options).written) == 1


def test_a_second_recording_of_the_same_name_takes_no_place(tmp_path, fails, capsys):
    """Scans of ScanNet from two places, sequences of 7-Scenes one by one; prepared together they get names apart."""
    for scene in ("chess", "fire"):
        folders.write_seven_scenes(tmp_path / "rec" / scene / "seq-01")
    out, begin = tmp_path / "out", ["data", "prepare", "pairs"]
    chess, fire = (tmp_path / "rec" / scene / "seq-01" for scene in ("chess", "fire"))
    assert cli.main([*begin, str(chess), "-o", str(out), "--every", "1"]) == 0
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    for more in ((), ("--restart",)):
        told = fails(2, *begin, fire, "-o", out, "--every", "1", *more)
        assert f"{out / 'seq-01'}.npz is made of {chess}; {fire} has the same name. Try: another folder with -o" in told
        assert f"or both at once: contrast3d data prepare pairs {tmp_path / 'rec'} -o {out}" in told
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert cli.main([*begin, str(tmp_path / "rec"), "-o", str(out), "--every", "1"]) == 0
    said = capsys.readouterr().out
    assert "removed seq-01.npz: chess-seq-01 is made of the same files" in said  # lest it be trained on twice
    assert sorted(path.stem for path in out.glob("*.npz")) == ["chess-seq-01", "fire-seq-01"]
    (tmp_path / "link").symlink_to(tmp_path / "rec")
    done = prepare_pairs(tmp_path / "link", PairsOptions(out, every=1, quiet=True))
    assert done.written == []  # the same place by another name


def test_a_file_that_was_removed_by_hand_makes_room(tmp_path):
    options = PairsOptions(tmp_path / "out", every=1, quiet=True)
    for place in ("a", "b"):
        folders.write_scannet(tmp_path / place / "scene0000_00")
    prepare_pairs(tmp_path / "a", options)
    with pytest.raises(ConfigError, match=r"or remove scene0000_00\.npz if it is of no more use"):
        prepare_pairs(tmp_path / "b", options)
    (options.out / "scene0000_00.npz").unlink()
    assert prepare_pairs(tmp_path / "b", options).written == ["scene0000_00"]


def test_a_scene_that_cannot_be_made_any_more_is_removed(scans, tmp_path, capsys):
    """And one whose recording is gone is kept: that may be wanted."""
    out = tmp_path / "out"
    command = ["data", "prepare", "pairs", str(scans), "-o", str(out), "--every", "1"]
    assert cli.main(command) == 0
    assert "removed" not in capsys.readouterr().out
    for pose in (scans / "office" / "pose").iterdir():
        pose.write_text("nan " * 16)
    (scans / "scene0000_00.sens").unlink()
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "removed office.npz: it cannot be made any more" in said
    assert "kept scene0000_00, whose recordings are gone" in said
    assert sorted(path.name for path in out.glob("*.npz")) == ["kitchen-seq-01.npz", "scene0000_00.npz"]
    assert set(json.loads((out / "prepared.json").read_text())) == {"kitchen-seq-01", "scene0000_00"}
    assert cli.main(command) == 0
    assert "removed" not in capsys.readouterr().out
    for pose in (scans / "kitchen" / "seq-01").glob("*.pose.txt"):
        pose.write_text("")
    assert cli.main(command) == 1
    assert f"removed from {out}, as they cannot be made any more: kitchen-seq-01" in capsys.readouterr().err
    assert sorted(path.name for path in out.glob("*.npz")) == ["scene0000_00.npz"]


def test_ctrl_c_loses_at_most_the_scene_in_hand(scans, tmp_path, monkeypatch, capsys):
    find, calls = prepare_module.find_pairs, []

    def interrupted(views, *args):
        calls.append(views.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return find(views, *args)

    monkeypatch.setattr(prepare_module, "find_pairs", interrupted)
    command = ["data", "prepare", "pairs", str(scans), "-o", str(tmp_path / "out"), "--every", "1"]
    assert cli.main(command) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["kitchen-seq-01.npz", "prepared.json"]
    assert cli.main(command) == 0
    assert calls == ["kitchen-seq-01", "office", "office", "scene0000_00"]
    assert "1 were there already" in capsys.readouterr().out


def test_frames_and_scenes_of_no_use_are_counted_and_listed(scans, tmp_path, capsys):
    (scans / "office" / "pose" / "25.txt").write_text("nan " * 16)
    (scans / "scene0000_00.sens").write_bytes(b"\x04\0\0\0")
    command = ["data", "prepare", "pairs", str(scans), "-o", str(tmp_path / "out"), "--every", "1"]
    for _ in range(2):  # the second run reads no frame again, and lists it all the same
        assert cli.main(command) == 0
        assert "skipped 1 frames and 1 scenes that cannot be used; why: " in capsys.readouterr().out
        rows = list(csv.reader((tmp_path / "out" / "skipped.csv").open()))
        assert [row[:2] for row in rows] == [["scene", "frame"], ["scene0000_00", ""], ["office", "25.png"]]
        assert "ends within its header" in rows[1][2]
        assert "lost" in rows[2][2]
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["office"]["views"] == 7


def test_nothing_to_use_is_one_error(tmp_path):
    (tmp_path / "a.sens").write_bytes(b"")
    (tmp_path / "b.sens").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 2 scenes can be used; a: .*header"):
        prepare_pairs(tmp_path, PairsOptions(tmp_path / "out"))
    with pytest.raises(DataError, match=r"a\.sens: .*a\.sens: the file ends"):
        prepare_pairs(tmp_path / "a.sens", PairsOptions(tmp_path / "out"))


def test_the_folder_written_to_may_lie_among_the_scans(scans, capsys):
    command = ["data", "prepare", "pairs", str(scans), "-o", str(scans / "pairs"), "--every", "1"]
    for _ in range(2):
        assert cli.main(command) == 0
        assert "3 scenes" in capsys.readouterr().out  # its files are not taken for fragments


def test_fragments_get_pairs_and_views_apart_a_hint(tmp_path, capsys):
    poses = np.stack([np.eye(4)] * 2)
    save_views(SceneViews.of([np.eye(3), np.eye(3)], poses), tmp_path / "in" / "same.npz")
    assert cli.main(["data", "prepare", "pairs", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    assert load_views(tmp_path / "out" / "same.npz").pairs.tolist() == [[0, 1]]
    save_views(SceneViews.of([np.eye(3), np.eye(3) + 9], poses), tmp_path / "in" / "same.npz")
    assert cli.main(["data", "prepare", "pairs", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    assert "try a smaller --every" in capsys.readouterr().err


def test_the_pairs_of_gt_log_are_kept_beside_those_that_overlap(tmp_path):
    """Which registration takes with --pairs gt; a list that comes later is noticed."""
    folder, out = tmp_path / "in" / "home", tmp_path / "out"
    folder.mkdir(parents=True)
    for number in range(2):
        cloud = np.random.default_rng(0).uniform(-1, 1, (40, 3)).astype(np.float32)
        torch.save(cloud, folder / f"cloud_bin_{number}.pth", _use_new_zipfile_serialization=False)
        lines = ["home\tseq\t0\t49", *("\t".join(map(str, row)) for row in np.eye(4))]
        (folder / f"cloud_bin_{number}.info.txt").write_text("\n".join(lines))
    command = ["data", "prepare", "pairs", str(tmp_path / "in"), "-o", str(out)]
    assert cli.main(command) == 0
    assert not list(out.glob("*-evaluation"))
    rows = "".join("\t ".join(map(str, row)) + "\t\n" for row in np.eye(4))
    (folder / "gt.log").write_text(f"0\t 1\t 2\t\n{rows}")
    assert cli.main(command) == 0
    assert load_views(out / "home.npz").overlaps.tolist() == [1.0]
    assert with_gt_pairs(load_views(out / "home.npz"), out).pairs.tolist() == [[0, 1]]
    for path in folder.glob("*.pth"):
        path.write_bytes(b"")
    assert cli.main(command) == 1
    assert not list(out.glob("home*/gt.log"))


def test_bad_arguments_are_one_line_each(scans, tmp_path, fails):
    begin, out = ("data", "prepare", "pairs", scans), ("-o", tmp_path / "out")
    assert "-o FOLDER is missing; see contrast3d data prepare pairs --help" in fails(2, *begin)
    assert "did you mean --every?" in fails(2, *begin, *out, "--evry", "3")
    assert "--every 0" in fails(2, *begin, *out, "--every", "0")
    assert "--min-overlap 2" in fails(2, *begin, *out, "--min-overlap", "2")
    assert "--voxel 0" in fails(2, *begin, *out, "--voxel", "0")
    assert "--radius -1" in fails(2, *begin, *out, "--radius", "-1")
    assert "--thin 5" in fails(2, *begin, *out, "--thin", "5")
    assert "expected FX FY CX CY" in fails(2, *begin, *out, "--intrinsics", "1", "2", "3")
    assert "did you mean pairs?" in fails(2, "data", "prepare", "pair", scans)
    assert "an argument is missing" in fails(2, "data", "prepare")
    assert "expected another folder" in fails(2, *begin, "-o", scans)
    (tmp_path / "file").write_text("")
    assert "is a file; expected a folder" in fails(2, *begin, "-o", tmp_path / "file")
    assert "no such file or folder" in fails(1, "data", "prepare", "pairs", tmp_path / "nowhere", *out)
    (tmp_path / "empty").mkdir()
    assert "an empty folder; expected ScanNet frames" in fails(1, "data", "prepare", "pairs", tmp_path / "empty", *out)


def test_help_names_it(capsys):
    assert cli.main(["data", "--help"]) == 0
    assert "data prepare pairs SOURCE -o FOLDER" in capsys.readouterr().out
    assert cli.main(["data", "prepare", "pairs", "--help"]) == 0
    assert "--min-overlap" in capsys.readouterr().out
    assert cli.main(["--help"]) == 0
    assert "data prepare pairs" in capsys.readouterr().out


@pytest.mark.shared
def test_red_kitchen_from_files_to_pairs(shared, tmp_path, capsys):
    source = shared / "data" / "rgbd" / "redkitchen"
    assert cli.main(["data", "prepare", "pairs", str(source), "-o", str(tmp_path), "--every", "1"]) == 0
    assert "redkitchen: 40 views, 519 pairs, 7-Scenes" in capsys.readouterr().out
    scene = load_views(tmp_path / "redkitchen.npz")
    assert len(scene.pairs) == 519
    assert (tmp_path / "redkitchen.npz").stat().st_size < 16e6
