"""Parts of the page: thumbnails, scales and ticks, tables, neighbours, confusion, the map."""

import math

import numpy as np
import pytest

from contrast3d.errors import DataError
from contrast3d.report.gallery import apart, confusion, embedding_map, nearest
from contrast3d.report.plots import Series, finite, line_chart, number, percent, smooth, thin, ticks
from contrast3d.report.tables import ResultTable, table_chart, table_html
from contrast3d.report.theme import class_colors
from contrast3d.report.thumbnails import Atlas, Frame, camera, data_uri, fit_frame, render, render_points

RNG = np.random.default_rng(0)


def box(n=2000, scale=(1.0, 1.0, 1.0)) -> np.ndarray:
    """Points on the surface of a cube."""
    points = RNG.uniform(-1, 1, (n, 3)).astype(np.float32)
    points[np.arange(n), RNG.integers(0, 3, n)] = RNG.choice([-1, 1], n)
    return points * np.asarray(scale, np.float32)


def test_camera_is_a_rotation_that_keeps_up_up():
    assert np.allclose(camera() @ camera().T, np.eye(3), atol=1e-6)
    right, up, towards = camera() @ np.array([0, 0, 1.0])
    assert right == pytest.approx(0, abs=1e-6)
    assert up > towards > 0  # seen from above, but more from the side


def test_a_cube_shows_a_bright_top_and_two_darker_sides():
    image = render(box(4000), 96).astype(float)
    assert image.shape == (96, 96, 4)
    assert image[48, 48, 3] == 255
    assert image[2, 2, 3] == 0
    top, left, right = image[28, 48, :3].sum(), image[60, 28, :3].sum(), image[60, 72, :3].sum()
    assert top > left
    assert top > right
    assert abs(left - right) > 10


def test_a_taller_shape_stands_upright():
    alpha = render(box(2000, (0.2, 0.2, 1)), 64)[..., 3] > 128
    assert np.ptp(np.flatnonzero(alpha.any(1))) > 2 * np.ptp(np.flatnonzero(alpha.any(0)))


def test_a_window_stays_open_and_a_wall_has_no_holes():
    wall = np.stack([RNG.uniform(-1, 1, 2000), np.zeros(2000), RNG.uniform(-1, 1, 2000)], 1)
    frame = wall[np.abs(wall[:, [0, 2]]).max(1) > 0.6]
    assert render(wall, 96)[48, 48, 3] == 255
    assert (render(wall, 96)[30:66, 40:56, 3] == 255).all()
    assert render(frame, 96)[48, 48, 3] == 0


@pytest.mark.parametrize("points", [
    np.zeros((0, 3)), np.zeros((1, 3)), np.ones((5, 3)), np.full((4, 3), np.nan), RNG.normal(size=(3, 3)),
    1e6 * RNG.normal(size=(50, 3)), 1e-6 * RNG.normal(size=(50, 3)),
], ids=["none", "one", "duplicates", "NaN", "three", "huge", "tiny"])
@pytest.mark.parametrize("draw", [render, render_points])
def test_any_cloud_is_drawn(points, draw):
    image = draw(points, 33)
    assert image.shape == (33, 33, 4)
    assert image.dtype == np.uint8
    assert (image[..., 3].max() > 0) == bool(np.isfinite(points).all() and len(points))


def test_points_outside_the_frame_are_left_out():
    far = Frame((10.0, 10.0, 10.0), 0.1)
    assert render(box(100), 32, frame=far).max() == 0
    assert render_points(box(100), 32, frame=far).max() == 0


def test_one_frame_keeps_sizes_comparable():
    big, small = box(500), 0.3 * box(500)
    frame = fit_frame(big, small)
    area = [(render_points(p, 64, frame=frame)[..., 3] > 0).sum() for p in (big, small)]
    assert area[0] > 3 * area[1]


def test_nearer_points_cover_farther_ones():
    near, far = camera()[2] * 0.5, -camera()[2] * 0.5
    colors = np.array([[1.0, 0, 0], [0, 0, 1.0]])
    for order in ([0, 1], [1, 0]):
        image = render_points(np.stack([near, far])[order], 32, colors[order], Frame((0.0, 0.0, 0.0), 1.0))
        middle = image[16, 16]
        assert middle[0] > middle[2]


def test_atlas_places_every_thumbnail_where_it_says():
    images = np.zeros((7, 8, 8, 4), np.uint8)
    images[:, 0, 0, 0] = np.arange(1, 8)
    atlas = Atlas(images)
    assert atlas.sheet.shape == (8 * atlas.rows, 8 * atlas.columns, 4)
    for row in range(7):
        x, y = atlas.position(row)
        left = round(x / 100 * (atlas.columns - 1)) * 8
        top = round(y / 100 * (atlas.rows - 1)) * 8
        assert atlas.sheet[top, left, 0] == row + 1
    with pytest.raises(DataError, match="no shapes"):
        Atlas.of(np.zeros((0, 10, 3), np.float32))


def test_a_thumbnail_is_small_and_the_same_again():
    points = box()
    assert data_uri(render(points)) == data_uri(render(points.copy()))
    assert len(data_uri(render(points))) < 6000


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.4, -1.2), (1e-5, 3e-5), (0, 12345), (0.1, 0.1000001)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 <= t <= high + 1e-9 for t in found)
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_numbers_are_short():
    assert [number(v) for v in (1234.6, 3.4159, 0.012, 3e-5, 0, -2.5, math.nan)] == [
        "1,235", "3.42", "0.012", "3e−5", "0", "−2.5", "–"]
    assert percent(0.5023) == "50.2 %"


def test_finite_reads_what_logs_hold():
    found = finite([1, "2", None, "x", math.inf, math.nan])
    assert np.array_equal(found, [1, 2] + [math.nan] * 4, equal_nan=True)


def test_smooth_keeps_a_constant_and_skips_gaps():
    y = np.full(100, 3.0)
    y[10:12] = np.nan
    assert np.allclose(smooth(y), 3)


def test_thin_keeps_means():
    x, y = thin(np.arange(1000.0), np.arange(1000.0), most=100)
    assert len(x) == 100
    assert y.mean() == pytest.approx(499.5)


def test_line_chart_breaks_at_gaps_and_names_ticks_apart():
    chart = line_chart([Series("a", [0, 1, 2, 3], [1, math.nan, 1.0001, 1.0002])], x_label="x", title="t")
    path = chart.split('class="line"')[1].split('"/>')[0]
    assert path.count("M") == 2
    names = [part.split(">")[1].split("<")[0] for part in chart.split('class="ytick"')[1:]]
    assert len(set(names)) == len(names) > 2
    assert line_chart([Series("a", [0], [math.nan])], x_label="x", title="t") == ""


def test_table_marks_the_best_of_each_column_and_shows_gaps():
    table = ResultTable("t", ("", "1", "2"), [("a", [(0.5, 0.012), None]), ("b", [(0.4, None), (0.9, 0.1)])])
    html = table_html(table)
    assert html.count('class="best"') == 2
    assert '<td class="best"><b>50.0</b> <small>± 1.2</small></td><td class="none">–</td>' in html
    lower = ResultTable("t", ("", "1"), [("a", [(3.0, None)]), ("b", [(2.0, None)])], percent=False,
                        higher_is_better=False)
    assert '<td class="best"><b>2.000</b></td>' in table_html(lower)
    with pytest.raises(DataError, match="1 cells"):
        ResultTable("t", ("", "1", "2"), [("a", [None])])


def test_only_amounts_are_joined_by_lines():
    rows = [("a", [(0.5, 0.1), (0.6, 0.1)])]
    assert "<svg" in table_chart(ResultTable("t", ("labels", "5", "all"), rows))
    assert table_chart(ResultTable("t", ("", "accuracy", "class mean"), rows)) == ""


def test_nearest_leaves_the_query_out_and_sorts_by_cosine():
    features = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]] + 0.1
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    rows, distances = nearest(features, np.array([0, 2]), 10)
    assert rows.shape == (2, 3)
    assert rows[0, 0] == 1
    assert distances[0, 0] == pytest.approx(0, abs=1e-6)
    assert 2 not in rows[1]
    assert (np.diff(distances, axis=1) >= 0).all()


def test_confusion_counts_rows_true_columns_predicted():
    table = confusion(np.array([0, 0, 1, -1]), np.array([0, 1, 1, 0]), 2)
    assert table.tolist() == [[1, 1], [0, 1]]


def test_map_keeps_clusters_together_and_repeats():
    centers = np.eye(3, 16) * 5
    features = (centers[np.arange(60) % 3] + 0.1 * RNG.normal(size=(60, 16))).astype(np.float32)
    flat = embedding_map(features)
    assert np.array_equal(flat, embedding_map(features))
    assert flat.min() == 0
    assert flat.max() == 1
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1) + 10 * np.eye(60)
    assert (distance.argmin(1) % 3 == np.arange(60) % 3).all()


def test_shown_thumbnails_do_not_overlap():
    places = RNG.uniform(0, 500, (200, 2))
    shown = apart(places, 60, np.arange(200))
    gaps = np.abs(places[shown][:, None] - places[shown][None]).max(-1) + 1e3 * np.eye(len(shown))
    assert len(shown) > 10
    assert gaps.min() >= 60


def test_class_colors_are_distinct_hex():
    for count in (1, 8, 40):
        colors = class_colors(count)
        assert len(set(colors)) == count
        assert all(len(c) == 7 and int(c[1:], 16) >= 0 for c in colors)
