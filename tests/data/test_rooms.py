"""Generated rooms: the same again, apart by split, furnished plausibly; their depth frames lie on their surfaces."""

import zipfile

import numpy as np
import pytest
import torch

from contrast3d.data.room_camera import NUMBERING, film, room_views, write_rgbd
from contrast3d.data.room_meshes import class_of, read_meshes
from contrast3d.data.room_mixes import KINDS
from contrast3d.data.room_placement import rectangles_touch
from contrast3d.data.rooms import CLASSES, Rooms, boxes, make_room, scan
from contrast3d.errors import ConfigError, DataError, MissingDataError

CUBE = "".join(f"v {x} {y} {z}\n" for x in (0, 2) for y in (0, 1) for z in (0, 1)) + (
    "f 1 2 4 3\nf 5 7 8 6\nf 1 5 6 2\nf 3 4 8 7\nf 1 3 7 5\nf 2 6 8 4\n"
)


@pytest.fixture(scope="module")
def rooms():
    return [make_room("train", i) for i in range(50)]


def same(a, b):
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("points", "colors", "labels", "instances"))


def test_the_same_again_and_a_larger_count_begins_alike():
    three, two = Rooms("train", 3, density=100.0), Rooms("train", 2, density=100.0)
    assert all(same(a, b) for a, b in zip(three.scenes, two.scenes))
    assert three.hash != two.hash
    assert three.classes == CLASSES
    assert three.title == "Rooms train"


def test_splits_and_seeds_have_no_room_in_common():
    keys = [(split, i, seed) for split in ("train", "val", "test") for seed in (0, 1) for i in range(2)]
    assert len({make_room(*key).plan.size for key in keys}) == 12
    assert len({Rooms(split, 1, seed=seed, density=20.0).hash for split, i, seed in keys if i == 0}) == 6


def test_scans(rooms):
    for room in rooms[:6]:
        scene = scan(room, 400.0)
        assert scene.colors.dtype == np.uint8
        assert scene.labels.dtype == np.uint8
        assert scene.labels.max() < len(CLASSES)
        half = np.array([*room.plan.size, 2 * room.plan.height]) / 2
        assert (np.abs(scene.points[:, :2]) < half[:2] + 0.35).all()  # doors and windows lie within the walls
        assert scene.points[:, 2].min() > -0.05
        assert scene.points[:, 2].max() < room.plan.height + 0.05
        shell = np.isin(scene.labels, [0, 1, 2])
        assert (scene.instances[shell] == -1).all()
        assert (room.boxes[scene.instances[~shell], 7] == scene.labels[~shell]).all()


def test_density_counts_points_per_area():
    room = make_room("train", 0)
    few, many = (len(scan(room, d).points) for d in (200.0, 800.0))
    assert 3.5 < many / few < 4.5
    assert 0.2 < many / (800 * room.areas.sum()) < 0.8  # hidden and oblique surfaces are missing


def test_every_class_occurs_in_a_fair_share_of_rooms(rooms):
    share = np.mean([[label in room.labels for label in range(len(CLASSES))] for room in rooms], 0)
    assert (share[:4] == 1).all()  # floor, wall, ceiling, door
    assert (share > 0.08).all(), dict(zip(CLASSES, share))
    kinds = {room.plan.kind for room in rooms}
    assert kinds == set(KINDS)
    assert any(len(room.plan.outline) == 6 for room in rooms)


def test_colours_do_not_give_the_classes_away(rooms):
    """The nearest mean colour of a class, learnt on 25 rooms, hardly beats chance on 25 others."""
    colors, labels = zip(*[(s.colors, s.labels) for s in (scan(room, 30.0) for room in rooms)])
    known = [np.concatenate(part[:25]) for part in (colors, labels)]
    other = [np.concatenate(part[25:]) for part in (colors, labels)]
    means = np.stack([known[0][known[1] == label].mean(0) for label in range(len(CLASSES))])
    guess = np.square(other[0][:, None].astype(float) - means).sum(-1).argmin(1)
    recall = np.mean([(guess[other[1] == label] == label).mean() for label in range(len(CLASSES))])
    assert recall < 0.12


def standing(room):
    return [p for p in room.placed if p.stands == "floor"]


def test_furniture_stands_inside_and_apart(rooms):
    for room in rooms:
        rows = np.array([p.box for p in standing(room)])[:, [0, 1, 3, 4, 6]]
        half = np.array(room.plan.size) / 2
        c, s = np.abs(np.cos(rows[:, 4])), np.abs(np.sin(rows[:, 4]))
        reach = np.stack([c * rows[:, 2] + s * rows[:, 3], s * rows[:, 2] + c * rows[:, 3]], 1)
        assert (np.abs(rows[:, :2]) + reach <= half).all()
        for i, row in enumerate(rows):
            assert not rectangles_touch(row, rows[i + 1 :]).any()
        if len(room.plan.outline) == 6:  # nor in the corner that is cut away
            assert not rectangles_touch(np.array(room.plan.blocks[0]), rows).any()
        for p in standing(room):
            assert p.world(p.piece.triangles)[..., 2].min() > -1e-6


def test_rectangles_touch_as_sampled_points_say():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 60)] * 2), -1).reshape(-1, 2)
    rows = np.c_[rng.uniform(-1, 1, (400, 2)), rng.uniform(0.1, 0.7, (400, 2)), rng.uniform(-4, 4, 400)]
    for a, b in zip(rows[:200], rows[200:]):
        c, s = np.cos(a[4]), np.sin(a[4])
        world = (grid * a[2:4]) @ np.array([[c, s], [-s, c]]) + a[:2] - b[:2]
        c, s = np.cos(b[4]), np.sin(b[4])
        own = world @ np.array([[c, -s], [s, c]])
        if (np.abs(own) < b[2:4]).all(1).any():
            assert rectangles_touch(a, b[None])[0]
        elif not (np.abs(own) < b[2:4] + 0.05).all(1).any():
            assert not rectangles_touch(a, b[None])[0]


def test_boxes_hold_their_objects(rooms):
    room = rooms[0]
    found = boxes(room)
    assert found.shape == (room.instances.max() + 1, 8)
    for row, box in enumerate(found):
        corners = room.triangles[room.instances == row].reshape(-1, 3) - box[:3]
        c, s = np.cos(box[6]), np.sin(box[6])
        own = np.abs(corners @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]))
        np.testing.assert_allclose(own.max(0), box[3:6], atol=1e-5)
        assert (room.labels[room.instances == row] == box[7]).all()


def distance_to(triangles, points):
    """(N,) distance of each point to the plane of the triangle of the same row."""
    a, b, c = triangles.astype(float).transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return np.abs(((points - a) * normal).sum(1))


@pytest.mark.parametrize("noise", [False, True])
def test_depth_frames_lie_on_the_surfaces(rooms, noise):
    room = rooms[1]
    frames = film(room, 4, noise=noise)
    views = room_views(room, 4, noise=noise)
    assert len(views) == 4
    assert len(views.pairs) == 0
    for view in range(4):
        points, pixels = frames.points(view)
        stored = views.xyz_mm[views.offsets[view] : views.offsets[view + 1]]
        assert np.array_equal(np.rint(points * 1000).astype(np.int16), stored)
        off = distance_to(room.triangles[frames.faces[view].ravel()[pixels]], views.world(view))
        if not noise:
            assert len(points) > 15_000
            assert np.quantile(off, 0.999) < 0.002  # rounded to millimetres
        else:
            allowed = 0.003 + 0.012 * points[:, 2] ** 2
            assert (off < allowed).mean() > 0.995
            assert off.mean() > 0.0005
            assert 0 < len(points) < 19_200


def test_the_camera_stays_in_the_room_and_looks_about(rooms):
    for room in rooms[:10]:
        poses = film(room, 20, width=8, height=6).poses
        turn = poses[:, :3, :3]
        np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turn.shape), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(turn), 1)
        assert (np.abs(poses[:, :2, 3]) < np.array(room.plan.size) / 2).all()
        assert ((poses[:, 2, 3] > 0.9) & (poses[:, 2, 3] < 2)).all()
        step = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
        assert step.max() < 2 * max(room.plan.size) * np.pi / 20
        ahead = poses[:, :2, 2] / np.linalg.norm(poses[:, :2, 2], axis=1, keepdims=True)
        assert (ahead @ ahead.T).min() < -0.9  # opposite walls


def test_recording_on_disk(rooms, tmp_path):
    from PIL import Image

    room = rooms[0]
    folder = write_rgbd(room, tmp_path / "scans" / "room", 3, width=80, height=60)
    numbers = [0, NUMBERING, 2 * NUMBERING]
    for name, suffix in (("depth", "png"), ("color", "jpg"), ("pose", "txt")):
        assert sorted(p.name for p in (folder / name).iterdir()) == sorted(f"{i}.{suffix}" for i in numbers)
    frames = film(room, 3, width=80, height=60)
    for view, number in enumerate(numbers):
        depth = np.array(Image.open(folder / "depth" / f"{number}.png"))
        assert depth.dtype == np.uint16
        assert np.array_equal(depth, frames.depth_mm[view])
        np.testing.assert_allclose(np.loadtxt(folder / "pose" / f"{number}.txt"), frames.poses[view], atol=1e-9)
        assert Image.open(folder / "color" / f"{number}.jpg").size == (80, 60)
    camera = np.loadtxt(folder / "intrinsic" / "intrinsic_depth.txt")
    np.testing.assert_allclose(camera[:3, :3], frames.intrinsics)
    assert [p.name for p in folder.parent.iterdir()] == ["room"]  # nothing unfinished
    with pytest.raises(DataError, match="already"):
        write_rgbd(room, folder, 1)


def test_own_meshes(tmp_path):
    (tmp_path / "Sofas").mkdir()
    (tmp_path / "Sofas" / "red.obj").write_text(CUBE)
    (tmp_path / "office-chair_2.obj").write_text(CUBE)
    (tmp_path / "chair-broken.obj").write_text("v 1 2\n")
    (tmp_path / "spoon.obj").write_text(CUBE)
    with zipfile.ZipFile(tmp_path / "library.sh3f", "w") as archive:
        lines = "id#1=x\nname#1=Bookcase big\nmodel#1=/shelf/s.obj\nname#2=Cat\nmodel#2=/cat.obj\n"
        archive.writestr("PluginFurnitureCatalog.properties", lines)
        archive.writestr("shelf/s.obj", CUBE)
    library = read_meshes(tmp_path)
    assert {kind: len(found) for kind, found in library.items()} == {"sofa": 1, "chair": 1, "shelf": 1}
    changed = 0
    for index in range(4):
        mixed, plain = make_room("val", index, meshes=tmp_path), make_room("val", index)
        for p in mixed.placed:
            if p.piece.kind in library and len(p.piece.triangles) == 12:
                changed += 1
                size = p.piece.high - p.piece.low
                np.testing.assert_allclose(size / size[0], [1, 0.5, 0.5])  # stands on its own y
        assert mixed.plan.size == plain.plan.size
    assert changed
    assert len(Rooms("val", 1, density=50.0, meshes=tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [("chair-12", "chair"), ("OfficeChair", "chair"), ("armchairs", "sofa"), ("tablet", None), ("desk_lamp", None)],
)
def test_classes_of_names(name, kind):
    assert class_of(name) == kind


def test_bad_mesh_folders(tmp_path):
    with pytest.raises(MissingDataError, match="no such folder"):
        make_room("train", 0, meshes=tmp_path / "none")
    with pytest.raises(DataError, match="known class"):
        make_room("train", 0, meshes=tmp_path)


@pytest.mark.parametrize(
    ("split", "options"),
    [("train", {"count": 0}), ("dev", {}), ("dev", {"count": 1}), ("val", {"count": 1, "density": 0.0}),
     ("val", {"count": 1, "density": 1e9}), ("val", {"count": 1, "density": float("nan")})],
)  # fmt: skip
def test_bad_arguments_of_rooms(split, options):
    with pytest.raises(ConfigError, match="splits are train, val, test"):
        Rooms(split, **options)


def test_bad_arguments_of_one_room():
    with pytest.raises(ConfigError, match="index -1"):
        make_room("train", -1)
    with pytest.raises(ConfigError, match="0 frames"):
        film(make_room("train", 0), 0)


def test_threads_change_nothing():
    room = make_room("test", 0)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = scan(room, 200.0)
    finally:
        torch.set_num_threads(threads)
    assert same(alone, scan(room, 200.0))
