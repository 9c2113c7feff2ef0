"""RGB-D scans in every layout: the same room comes out, broken frames are listed, nonsense is one clear error."""

import numpy as np
import pytest
import rgbd_folders as folders

from contrast3d.data.recordings import Camera
from contrast3d.data.rgbd import find_scans, read_rgbd, read_scan
from contrast3d.data.scene_views import SceneViews, save_views
from contrast3d.errors import ConfigError, DataError, MissingDataError

WRITERS = {
    "ScanNet frames": folders.write_scannet, "7-Scenes": folders.write_seven_scenes, "TUM RGB-D": folders.write_tum,
    "ScanNet .sens": lambda folder: folders.write_sens(folder / "scene0000_00.sens"),
}


def read_one(path, **options):
    (source,) = find_scans(path)
    return read_scan(source, **{"every": 1, "thin": 0.0, **options})


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_walls_of_the_room(tmp_path, layout):
    WRITERS[layout](tmp_path / "rooms")
    (source,) = find_scans(tmp_path)
    assert source.layout == layout
    camera = Camera(*folders.CAMERA) if layout == "TUM RGB-D" else None
    scan = read_scan(source, every=1, thin=0.0, camera=camera)
    assert not scan.skipped
    assert len(scan.views) == 4
    assert np.abs(scan.views.poses - folders.poses(4)).max() < 1e-6
    assert scan.views.frames[:, 0].tolist() == scan.views.frames[:, 1].tolist()
    for v in range(4):
        world = scan.views.world(v)
        assert len(world) == folders.WIDTH * folders.HEIGHT - 2  # without the unknown and the saturated pixel
        assert np.abs(np.abs(world).max(1) - 2).max() < 0.003  # millimetres, along slanted rays
        assert np.abs(np.abs(scan.means[v]).max(1) - 2).max() < 0.06  # at a corner, a mean lies inside


def test_names_tell_where_a_scene_was(tmp_path):
    folders.write_seven_scenes(tmp_path / "chess" / "seq-01", intrinsics_in=tmp_path / "chess")
    folders.write_sens(tmp_path / "scans" / "scene0000_00" / "scene0000_00.sens")
    folders.write_scannet(tmp_path / "office")
    (tmp_path / "notes.txt").write_text("not a scan")
    np.savez(tmp_path / "other.npz", points=np.zeros((3, 3)))
    assert [source.name for source in find_scans(tmp_path)] == [
        "chess-seq-01", "office", "scans-scene0000_00",
    ]
    assert [source.name for source in find_scans(tmp_path, ignored=tmp_path / "scans")] == ["chess-seq-01", "office"]
    with pytest.raises(DataError, match="3 scenes"):
        read_rgbd(tmp_path)


def test_fragments_are_taken_as_they_are(tmp_path):
    scene = SceneViews.of([np.eye(3), np.ones((2, 3))], np.stack([np.eye(4)] * 2))
    save_views(scene, tmp_path / "home.npz")
    read = read_rgbd(tmp_path, every=25)
    assert read.name == "home"
    assert np.array_equal(read.xyz_mm, scene.xyz_mm)


def test_every_counts_the_numbers_of_the_recording(tmp_path):
    folders.write_scannet(tmp_path / "sparse", count=4, step=25)
    folders.write_scannet(tmp_path / "dense", count=6, step=10)
    assert read_one(tmp_path / "sparse", every=25).views.frames[:, 0].tolist() == [0, 25, 50, 75]
    assert read_one(tmp_path / "dense", every=25).views.frames[:, 0].tolist() == [0, 30]
    with pytest.raises(ConfigError, match="every = 0"):
        read_one(tmp_path / "sparse", every=0)


def test_thinning_keeps_the_first_point_of_each_voxel_and_means_are_of_all(tmp_path):
    folders.write_scannet(tmp_path)
    whole, thin = read_one(tmp_path), read_one(tmp_path, thin=0.2, spool=tmp_path)
    points, kept = whole.views.points(1), thin.views.points(1)
    assert 20 < len(kept) < len(points) / 2
    voxels = {}
    for i, voxel in enumerate(map(tuple, np.floor(points.astype(np.float64) / 0.2).astype(int))):
        voxels.setdefault(voxel, i)
    assert abs(len(voxels) - len(kept)) <= 2  # rounding to millimetres moves a point across a border
    assert all(np.abs(points - point).max(1).min() == 0 for point in kept)
    assert all(np.array_equal(a, b) for a, b in zip(whole.means, thin.means))


def test_frames_of_no_use_are_listed_and_the_others_read(tmp_path):
    folders.write_scannet(tmp_path, count=10)
    (tmp_path / "pose" / "25.txt").write_text("-inf " * 16)
    (tmp_path / "pose" / "50.txt").unlink()
    png = tmp_path / "depth" / "75.png"
    png.write_bytes(png.read_bytes()[: png.stat().st_size // 2])
    folders.write_png(tmp_path / "depth" / "100.png", np.zeros((folders.HEIGHT, folders.WIDTH), np.uint16))
    folders.write_png(tmp_path / "depth" / "125.png", np.full((20, 30), 1000, np.uint16))
    (tmp_path / "pose" / "150.txt").write_text(folders.matrix_text(np.zeros((4, 4))))
    (tmp_path / "pose" / "175.txt").write_text("1 2 three")
    folders.write_png(tmp_path / "depth" / "200.png", np.full((folders.HEIGHT, folders.WIDTH), 200, np.uint8))
    scan = read_one(tmp_path)
    assert scan.views.frames[:, 0].tolist() == [0, 225]
    why = dict(scan.skipped)
    assert scan.total == 10
    assert list(why) == [f"{n}.png" for n in range(25, 225, 25)]
    for name, words in zip(why, ("lost", "No such file", "cannot be read", "no depth anywhere", "30 x 20 pixels",
                                 "no rotation", "no number", "mode L")):
        assert words in why[name], (name, why[name])
    with pytest.warns(UserWarning, match=r"8 of 10 frames cannot be used(.|\n)*25.png: .*lost"):
        assert len(read_rgbd(tmp_path)) == 2


def test_nothing_left_is_an_error(tmp_path):
    folders.write_scannet(tmp_path, count=2)
    for path in (tmp_path / "pose").iterdir():
        path.write_text("nan " * 16)
    with pytest.raises(DataError, match=r"none of 2 frames can be used.*lost"):
        read_one(tmp_path)


def test_an_unknown_layout_and_an_empty_folder_show_the_layouts(tmp_path):
    with pytest.raises(DataError, match=r"an empty folder; expected ScanNet frames .*\.sens.*7-Scenes.*TUM.*npz"):
        find_scans(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(DataError, match="no scan in a known layout; expected ScanNet frames"):
        find_scans(tmp_path)
    with pytest.raises(MissingDataError, match="no such file or folder"):
        find_scans(tmp_path / "nowhere")


def test_raw_sens_lost_poses_and_a_file_that_ends_early(tmp_path):
    path = folders.write_sens(tmp_path / "a.sens", count=5, compression=0, lost=(1,))
    whole = read_one(path)
    assert whole.views.frames[:, 0].tolist() == [0, 2, 3, 4]
    assert [name for name, _ in whole.skipped] == ["frame 1"]
    path.write_bytes(path.read_bytes()[:-10])
    assert read_one(path).views.frames[:, 0].tolist() == [0, 2, 3]


def test_bad_sens_files_are_clear_errors(tmp_path):
    good = folders.write_sens(tmp_path / "a.sens")
    data = good.read_bytes()
    for found, changed in {
        "Occipital": folders.write_sens(tmp_path / "occi.sens", compression=2).read_bytes(),
        "version 9": b"\x09" + data[1:], "ends within its header": data[:50], "no whole frame": data[:400],
        "sensor's name": data[:4] + b"\xff" * 8 + data[12:],
    }.items():
        good.write_bytes(changed)
        with pytest.raises(DataError, match=found):
            read_one(good)


def test_a_frame_that_does_not_inflate_is_skipped(tmp_path):
    path = folders.write_sens(tmp_path / "a.sens")
    data = bytearray(path.read_bytes())
    data[-300:-200] = bytes(100)
    path.write_bytes(data)
    assert [name for name, _ in read_one(path).skipped] == ["frame 3"]


def test_intrinsics_come_from_above_from_the_kinect_or_from_the_caller(tmp_path):
    scene = folders.write_seven_scenes(tmp_path / "chess" / "seq-01", intrinsics_in=tmp_path / "chess")
    above = read_one(scene).views
    (tmp_path / "chess" / "camera-intrinsics.txt").unlink()
    given = read_one(scene, camera=Camera(*folders.CAMERA)).views
    assert np.array_equal(above.xyz_mm, given.xyz_mm)
    with pytest.warns(UserWarning, match="Kinect"), pytest.raises(DataError, match="centred at"):
        read_one(scene)
    (scene / "camera-intrinsics.txt").write_text("1 2 3")
    with pytest.raises(DataError, match="3 numbers; expected 3 x 3"):
        read_one(scene)


def test_scannet_needs_intrinsics(tmp_path):
    folders.write_scannet(tmp_path)
    path = tmp_path / "intrinsic" / "intrinsic_depth.txt"
    path.write_text(folders.intrinsics(4, bx=0.25))
    moved = read_one(tmp_path).views.points(0)
    path.unlink()
    with pytest.raises(MissingDataError, match=r"intrinsic_depth\.txt: no such file"):
        read_one(tmp_path)
    plain = read_one(tmp_path, camera=Camera(*folders.CAMERA)).views.points(0)
    assert np.allclose(moved - plain, [0.25, 0, 0], atol=0.0011)


def test_tum_takes_the_nearest_pose_within_20_ms_and_its_sub_sets_camera(tmp_path):
    folder = folders.write_tum(tmp_path / "rgbd_dataset_freiburg2_desk")
    lines = (folder / "groundtruth.txt").read_text().splitlines()
    (folder / "groundtruth.txt").write_text("\n".join(lines[:-2]) + "\n")
    scan = read_one(folder, camera=Camera(*folders.CAMERA))
    assert len(scan.views) == 3
    assert "no pose within 0.02 s" in scan.skipped[0][1]
    with pytest.raises(DataError, match=r"centred at \(325.1, 249.7\)"):
        read_one(folder)
    (folder / "depth.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match="nothing listed"):
        read_one(folder)
    (folder / "depth.txt").write_text("now depth/a.png\n")
    with pytest.raises(DataError, match="line 1: now"):
        read_one(folder)


@pytest.mark.shared
def test_red_kitchen(shared):
    scan = read_one(shared / "data" / "rgbd" / "redkitchen", thin=0.05)
    assert len(scan.views) == 40
    assert not scan.skipped
    assert scan.views.frames[-1].tolist() == [975, 975]
