"""Pictures of scans and rooms: what covers what, colours of features, lines between views, sections of the page."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

from contrast3d.report import scenes
from contrast3d.report.scenes import (
    FeatureScan,
    ScenePair,
    SegmentedRoom,
    feature_colors,
    label_colors,
    overlay_picture,
    pair_picture,
    scene_sections,
    segmentation_picture,
)
from contrast3d.report.splats import draw, height_colors, open_room, room_camera, scan_camera, typical_spacing

RNG = np.random.default_rng(0)
RED, BLUE = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])


def plane(n, *spans):
    """n points, each coordinate uniform in its span or fixed."""
    return np.stack([RNG.uniform(*s, n) if isinstance(s, tuple) else np.full(n, float(s)) for s in spans], 1)


def room():
    """(points, part) of a furnished room of 4 x 5 x 2.5 m: floor, ceiling, table, walls at -x, +x, -y, +y."""
    x, y, z = (0, 4), (0, 5), (0, 2.5)
    parts = [plane(6000, x, y, 0), plane(6000, x, y, 2.5), plane(1500, (1.5, 2.5), (2, 3), 0.8),
             plane(4000, 0, y, z), plane(4000, 4, y, z), plane(4000, x, 0, z), plane(4000, x, 5, z)]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(p) for p in parts])


def view(n=3000):
    """A wall two metres ahead of a camera, and a ball in front of its left half."""
    ball = RNG.normal(size=(n // 2, 3))
    ball = 0.3 * ball / np.linalg.norm(ball, axis=1, keepdims=True) + (-0.6, 0, 1.4)
    return np.concatenate([plane(n, (-1.2, 1.2), (-0.9, 0.9), 2), ball])


def test_nearer_points_cover_farther_ones():
    wall, card = plane(4000, (-1, 1), (-1, 1), 2), plane(2000, (-0.3, 0.3), (-0.3, 0.3), 1.5)
    points = np.concatenate([card, wall])  # the nearer ones first: order must not matter
    image = draw(points, np.repeat([RED, BLUE], (2000, 4000), 0), scan_camera(wall, 120, 120))
    assert image.shape == (120, 120, 4)
    assert image[60, 60, 0] > 100 > image[60, 60, 2]
    assert image[15, 60, 2] > 100 > image[15, 60, 0]


@pytest.mark.parametrize("points", [300, 3000, 30_000])
def test_surfaces_are_closed_and_fill_the_picture(points):
    wall = plane(points, (-1, 1), (-1, 1), 2)
    alpha = draw(wall, np.tile(RED, (points, 1)), scan_camera(wall, 100, 100, tilt=0.0))[..., 3]
    inside = alpha[20:80, 20:80] > 0
    assert inside.mean() > 0.93
    assert np.ptp(np.flatnonzero((alpha > 0).any(0))) > 85


def test_a_scan_is_seen_as_its_sensor_saw_it():
    places = np.array([[-0.5, 0, 2.0], [0.5, 0, 2], [0, -0.5, 2], [0, 0.5, 2]])
    left, right, above, below = scan_camera(np.concatenate([view(), places]), 200, 150).see(places)
    assert left[0] < right[0]
    assert above[1] < below[1]
    behind = scan_camera(view(), 200, 150).see(np.array([[0, 0, -50.0]]))
    assert np.isnan(behind[0, :2]).all()


def test_a_room_stands_upright_and_is_cut_open():
    points, part = room()
    camera = room_camera(points, 200, 150)
    low, high = camera.see(np.array([[2, 2.5, 0], [2, 2.5, 1.0]]))
    assert low[1] > high[1]
    assert low[0] == pytest.approx(high[0])
    shown = open_room(points)
    share = [shown[part == i].mean() for i in range(7)]
    assert share[0] > 0.95  # the floor
    assert share[1] == 0  # the ceiling
    assert share[2] == 1  # the table
    near = camera.rotation[2, :2]  # towards the viewer
    hidden = [4 if near[0] > 0 else 3, 6 if near[1] > 0 else 5]
    for wall in range(3, 7):
        assert (share[wall] < 0.3) if wall in hidden else (share[wall] > 0.75), (wall, share)


def test_a_room_without_ceiling_keeps_its_furniture():
    points, part = room()
    low = points[:, 2] < 1
    assert open_room(points[low])[part[low] == 2].all()


@pytest.mark.parametrize("points", [
    np.zeros((0, 3)), np.zeros((1, 3)), np.ones((7, 3)), np.full((9, 3), np.nan), 1e5 * RNG.normal(size=(40, 3)),
    np.concatenate([view(200), [[np.nan, 0, 0], [np.inf, 0, 1]]]),
], ids=["none", "one", "duplicates", "NaN", "huge", "some NaN"])
@pytest.mark.parametrize("camera", [scan_camera, room_camera])
def test_any_cloud_is_drawn(points, camera):
    open_room(points)
    colors = height_colors(points, np.array([0, 0, 1.0]))
    assert ((colors >= 0) & (colors <= 1)).all()
    image = draw(points, colors, camera(points, 40, 30))
    assert image.shape == (30, 40, 4)
    assert (image[..., 3].max() > 0) == np.isfinite(points).all(1).any()


def test_spacing_is_that_of_the_points():
    grid = np.stack(np.meshgrid(np.arange(30), np.arange(30), [0]), -1).reshape(-1, 3) * 0.05
    assert typical_spacing(grid) == pytest.approx(0.05)


def test_one_feature_has_one_colour_in_all_views():
    kinds = RNG.normal(size=(4, 16))
    first, second = RNG.integers(0, 4, 500), RNG.integers(0, 4, 300)
    a, b = feature_colors([kinds[first], kinds[second]])
    assert a.shape == (500, 3)
    assert ((a >= 0) & (a <= 1)).all()
    means = np.array([a[first == i].mean(0) for i in range(4)])
    np.testing.assert_allclose(b, means[second], atol=1e-9)
    apart = np.linalg.norm(means[:, None] - means[None], axis=2)[np.triu_indices(4, 1)]
    assert apart.min() > 0.3
    again = feature_colors([-kinds[first] @ np.linalg.qr(RNG.normal(size=(16, 16)))[0]])[0]  # signs and axes are free
    spread = [np.ptp(again[first == i], axis=0).max() for i in range(4)]
    assert max(spread) < 1e-9


def test_outliers_do_not_wash_colours_out():
    features = RNG.normal(size=(2000, 8)).astype(np.float32)
    features[0] = 1e4
    assert feature_colors([features])[0].std(0).min() > 0.1


@pytest.mark.parametrize("features", [
    np.zeros((5, 8)), np.full((5, 4), 3.3), np.full((5, 4), np.nan), RNG.normal(size=(5, 1)), RNG.normal(size=(5, 2)),
    np.zeros((0, 4)), np.zeros((5, 0)),
], ids=["zero", "equal", "NaN", "one wide", "two wide", "none", "no width"])
def test_any_features_have_colours(features):
    (colors,) = feature_colors([features])
    assert colors.shape == (len(features), 3)
    assert np.isfinite(colors).all()
    if features.shape[1] > 2 and len(features):
        np.testing.assert_allclose(colors, 0.5)
    assert feature_colors([]) == []


def test_broken_features_are_grey_and_the_others_are_not():
    features = RNG.normal(size=(50, 5))
    features[7] = np.nan
    (colors,) = feature_colors([features])
    np.testing.assert_allclose(colors[7], 0.5)
    assert colors.std(0).min() > 0.1


def test_matches_are_joined_across_the_gap():
    points = view()
    matches = np.repeat(np.arange(0, 3000, 3)[:, None], 2, 1)
    width = scenes.WIDTH
    gap = slice(width + 2, width + scenes.GAP - 2)
    joined = pair_picture(points, points, matches, lines=12)
    alone = pair_picture(points, points, matches, lines=0)
    assert joined.shape == (scenes.HEIGHT, 2 * width + scenes.GAP, 4)
    assert alone[:, gap, 3].max() == 0
    crossings = (joined[:, width + scenes.GAP // 2, 3] > 0).sum()
    assert 6 <= crossings <= 60
    assert pair_picture(points, points, np.zeros((0, 2), np.int64))[:, gap, 3].max() == 0


def test_what_both_saw_is_coloured_and_the_rest_is_grey():
    points = plane(6000, (-1, 1), (-1, 1), 2)
    left = np.flatnonzero(points[:, 0] < 0)
    image = pair_picture(points, points, np.stack([left, left], 1), lines=0)[:, : scenes.WIDTH].astype(float)
    colourful = np.ptp(image[..., :3], axis=2) * (image[..., 3] > 200)
    middle = image.shape[1] // 2
    assert colourful[40:-40, middle - 90 : middle - 20].mean() > 40
    assert colourful[40:-40, middle + 20 : middle + 90].mean() < 15


def test_sampled_matches_lie_apart():
    points = RNG.uniform(0, 1, (5000, 3))
    points[:4900] *= 0.01  # a crowd and a few afar
    matches = np.repeat(np.arange(4000, 5000)[:, None], 2, 1)
    taken = scenes._spread_matches(points, matches, 30)
    assert len(set(taken.tolist())) == 30
    assert (matches[taken, 0] >= 4900).sum() >= 28


def test_aligned_views_fall_on_each_other():
    points = view()
    angle = 0.4
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    turn[:3, 3] = (0.3, 0.1, -0.2)
    moved = points @ turn[:3, :3].T + turn[:3, 3]
    extent = lambda image: (image[..., 3] > 0).sum()  # noqa: E731
    right, wrong = overlay_picture(points, moved, turn), overlay_picture(points, moved, np.linalg.inv(turn))
    assert extent(right) > 1.2 * extent(wrong)  # what lies together fills the picture better
    opaque = wrong[wrong[..., 3] > 250].astype(int)
    assert (opaque[:, 2] > opaque[:, 0] + 40).any()
    assert (opaque[:, 0] > opaque[:, 2] + 40).any()


def test_labels_have_the_colours_of_the_legend():
    colors = label_colors(np.array([0, 1, 255, -1, 7]), 2)
    assert len(np.unique(colors[:3], axis=0)) == 3
    np.testing.assert_array_equal(colors[2], colors[3])
    np.testing.assert_array_equal(colors[2], colors[4])
    points, part = room()
    part = part.astype(np.uint8)
    part[:100] = 255
    shown = SegmentedRoom(points.astype(np.float32), np.zeros(len(points), np.int64), part)
    pictures = dict(segmentation_picture(shown, [f"class {i}" for i in range(7)]))
    assert list(pictures) == ["input", "truth", "prediction"]
    hues = {k: np.ptp(p[p[..., 3] > 250][:, :3].astype(float), axis=0) for k, p in pictures.items()}
    assert hues["truth"].min() > hues["prediction"].min() + 20
    assert len(segmentation_picture(SegmentedRoom(points, shown.predicted), ["a"])) == 2


class Checker(HTMLParser):
    """Tags must nest; pictures must be inside of the page."""

    def __init__(self):
        super().__init__()
        self.open, self.pictures = [], 0

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.pictures += 1
            assert attributes["src"].startswith("data:image/webp;base64,")
            assert attributes["alt"]
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def sections():
    points, (corner, part) = view(600), room()
    matches = np.repeat(np.arange(0, 600, 5)[:, None], 2, 1)
    pair = ScenePair(points, points, matches, np.eye(4), 'a <script> "pair"')
    scan = FeatureScan(points, RNG.normal(size=(len(points), 8)).astype(np.float32), None, "scan")
    colored = FeatureScan(corner, np.ones((len(corner), 8)), np.full((len(corner), 3), 99, np.uint8), "room", "room")
    rooms = SegmentedRoom(corner, part, np.where(part == 1, 255, part), None, "one")
    return scene_sections([pair], [scan, colored], [rooms], [*"abcdef", "<g>", "unused"])


def test_sections_are_well_formed_and_escaped(sections):
    for anchor, heading, lead, body in sections:
        assert anchor.startswith("scene-")
        assert heading
        assert lead
        checker = Checker()
        checker.feed(body)
        assert not checker.open
        assert checker.pictures == {"scene-pairs": 2, "scene-features": 4, "scene-rooms": 3}[anchor]
    pairs, features, rooms = (s[3] for s in sections)
    assert "<script>" not in pairs
    assert "120 correspondences between 900 and 900 points" in pairs
    assert "<span>colours</span>" in features
    assert "<span>height</span>" in features
    assert "&lt;g&gt;" in rooms
    assert "unused" not in rooms
    assert "100.0% of 23,500 labelled points right" in rooms


def test_missing_data_leaves_sections_empty():
    assert [body for *_, body in scene_sections()] == ["", "", ""]


@pytest.mark.shared
def test_a_real_fragment(shared):
    from contrast3d.data.scene_views import load_views

    path = shared / "data" / "3dmatch" / "sun3d-hotel_uc-scan3.npz"
    if not path.is_file():
        pytest.skip("no 3DMatch scenes")
    points = load_views(path).points(3)[::8].astype(float)
    image = draw(points, height_colors(points, np.array([0, -1.0, 0])), scan_camera(points, 220, 165))
    filled = image[..., 3] > 200
    assert 0.35 < filled.mean() < 0.98
    upper, lower = image[:55][filled[:55]][:, :3].astype(int), image[-55:][filled[-55:]][:, :3].astype(int)
    assert (upper[:, 0] - upper[:, 2]).mean() > (lower[:, 0] - lower[:, 2]).mean() + 20  # warm above, cool below
