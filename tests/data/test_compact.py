import lzma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrast3d.data import compact
from contrast3d.errors import DataError, MissingDataError


def random_levels(shapes, points, seed=0):
    return np.random.default_rng(seed).integers(0, 1024, (shapes, points, 3)).astype(np.uint32)


def written(tmp_path, levels):
    path = tmp_path / "shapes.points"
    path.write_bytes(compact.encode(compact.morton_codes(levels)))
    return path


def as_set(levels):
    return sorted(map(tuple, levels.tolist()))


def test_morton_code_interleaves_the_bits_of_the_axes():
    levels = random_levels(1, 50)[0]
    for (x, y, z), code in zip(levels.tolist(), compact.morton_codes(levels).tolist()):
        bits = sum(((v >> i) & 1) << (3 * i + axis) for axis, v in enumerate((x, y, z)) for i in range(10))
        assert code == bits


def test_coordinates_are_the_nearest_grid_points():
    points = np.random.default_rng(0).uniform(-1, 1, (100, 3))
    points[:2] = [[-1, -1, -1], [1, 1, 1]]
    decoded = compact.coordinates(compact.morton_codes(compact.quantise(points)))
    assert decoded.dtype == np.float32
    assert np.abs(decoded - points).max() <= 1 / 1023 + 1e-6
    np.testing.assert_array_equal(decoded[:2], points[:2])


@settings(max_examples=10, deadline=None)
@given(shapes=st.integers(1, 5), points=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_a_file_gives_back_the_same_point_sets(tmp_path_factory, shapes, points, seed):
    levels = random_levels(shapes, points, seed)
    decoded = compact.read_points(written(tmp_path_factory.mktemp("compact"), levels))
    assert decoded.shape == (shapes, points, 3)
    for ours, original in zip(compact.quantise(decoded), levels):
        assert as_set(ours) == as_set(original)


def test_repeated_points_and_the_corners_of_the_grid_survive(tmp_path):
    levels = np.array([[[0, 0, 0], [1023, 1023, 1023], [0, 0, 0], [5, 6, 7]]], np.uint32)
    decoded = compact.quantise(compact.read_points(written(tmp_path, levels)))
    assert as_set(decoded[0]) == as_set(levels[0])


def test_encoding_does_not_depend_on_the_order_of_points():
    codes = compact.morton_codes(random_levels(3, 64))
    assert compact.encode(codes) == compact.encode(codes[:, ::-1])


def test_points_come_in_a_fixed_order_that_is_random_in_space(tmp_path):
    """Sorted points would start in one corner; half a shuffled cloud has about the mean of the whole."""
    path = written(tmp_path, random_levels(20, 512))
    points = compact.read_points(path)
    np.testing.assert_array_equal(points, compact.read_points(path))
    first_half = points[:, :256].mean(1)
    assert np.abs(first_half - points.mean(1)).max() < 0.15  # four standard errors; sorted codes give 0.5
    order = np.argsort(compact.morton_codes(compact.quantise(points)), axis=1)
    assert len(np.unique(order, axis=0)) == 20, "every shape has a permutation of its own"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content.replace(b'"version": 1', b'"version": 2'),
        lambda content: content.replace(b'"shapes": 2', b'"shapes": 3'),
        lambda content: content.replace(b'"shapes": 2', b'"shapes": "2"'),
        lambda content: content.replace(b'"points": 8', b'"points": -8'),
        lambda content: b"[1, 2]\n" + content,
        lambda content: lzma.compress(content),
    ],
    ids=["empty", "cut", "flipped", "version", "size", "text", "negative", "not-an-object", "compressed"],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, damage):
    path = written(tmp_path, random_levels(2, 8))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"shapes\.points.*reinstall"):
        compact.read_points(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(MissingDataError, match=r"gone\.points: no such file"):
        compact.read_points(tmp_path / "gone.points")
    with pytest.raises(MissingDataError, match=r"gone\.csv: no such file"):
        compact.read_manifest(tmp_path / "gone.csv", ("name",))


def test_manifest_gives_columns(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text('name,text\na,"x, ""y"""\nb,\n')
    assert compact.read_manifest(path, ("name", "text")) == {"name": ("a", "b"), "text": ('x, "y"', "")}


@pytest.mark.parametrize(
    "text", ["", "name\na\n", "name,text\na\n", "name,text,more\na,b,c\n", "name,text\n"]
)
def test_a_manifest_with_other_columns_or_no_rows_is_a_clear_error(tmp_path, text):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"m\.csv"):
        compact.read_manifest(path, ("name", "text"))


def test_a_manifest_that_is_no_text_is_a_clear_error(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(b"name,text\n\xff\xfe,b\n")
    with pytest.raises(DataError, match=r"m\.csv.*UTF-8"):
        compact.read_manifest(path, ("name", "text"))
