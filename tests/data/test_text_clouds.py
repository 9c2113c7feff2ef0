"""The text parser against Python's own float, OFF meshes, and what broken files are told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrast3d.data.file_sets import judge_broken, read_each
from contrast3d.data.geometry import choose_points, sample_surface
from contrast3d.data.off_meshes import read_off
from contrast3d.data.text_clouds import parse_table, read_table
from contrast3d.errors import DataError

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr), st.integers(-(10**25), 10**25).map(str),
    st.floats(-10, 10).map("{:.6f}".format), st.floats(-1e9, 1e9).map("{:+.3E}".format),
    st.sampled_from(["-0", ".5", "5.", "000012", "1e-400", "0.00000000000000000000123456789012345678901"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=5), max_size=6), st.sampled_from(" ,\t;"))
def test_equals_float(rows, separator):
    text = "\r\n".join(separator.join(row) for row in rows).encode()
    table = parse_table(text, "x")
    assert table.widths.tolist() == [len(row) for row in rows]
    expected = [float(word) for row in rows for word in row]
    np.testing.assert_allclose(table.values, expected, rtol=1e-15, atol=1e-300)


def test_six_decimals_are_exact():
    words = [f"{v:.6f}" for v in np.random.default_rng(0).normal(size=3000)]
    table = parse_table("\n".join(words).encode(), "x")
    np.testing.assert_array_equal(table.values, [float(w) for w in words])


def test_comments_blank_lines_and_words():
    table = parse_table(b"# a comment\n\n1 2 # rest\n  \n3\tnan\n-inf 1e3", "x")
    np.testing.assert_array_equal(table.values, [1, 2, 3, np.nan, -np.inf, 1000])
    assert table.widths.tolist() == [2, 2, 2]
    assert parse_table(b"", "x").widths.tolist() == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"1 2\n3 x4\n", "'x4' on line 2"), (b"1.2.3", "'1.2.3' on line 1"), (b"1 --2", "'--2' on line 1"),
        (b"1\n\n5 185\x00187", "on line 3"), (b"1e", "'1e' on line 1"), (b"-", "'-' on line 1"),
        (b"nano", "'nano' on line 1"), ("1 2\n3 é".encode(), r"\xc3\xa9' on line 2"),
        (b"\x00", r"'\x00' on line 1"),
    ],
)
def test_what_is_no_number_is_named(text, told):
    with pytest.raises(DataError) as error:
        parse_table(text, "file.txt")
    assert told.replace("\\", "\\\\") in str(error.value) or told in str(error.value)
    assert str(error.value).startswith("file.txt: ")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=100))
def test_fuzz_parser(text):
    try:
        table = parse_table(text, "x")
    except DataError:
        return
    assert table.starts[-1] == len(table.values)
    assert (table.widths > 0).all()


def test_read_table_reads_no_further_than_asked(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("".join(f"{i}, {i}\n" for i in range(100)) + "broken")
    np.testing.assert_array_equal(read_table(path, 2, 3), [[0, 0], [1, 1], [2, 2]])
    with pytest.raises(DataError, match="'broken' on line 101"):
        read_table(path, 2)


def test_read_table_with_long_lines_and_few(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("\n".join("1" + " " * 500 + str(i) for i in range(9)))
    assert read_table(path, 2, 5)[:, 1].tolist() == [0, 1, 2, 3, 4]
    assert len(read_table(path, 2, 50)) == 9


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no numbers"), ("1 2 3\n1 2\n", "2 columns in row 2"),
        ("1 2 3\n1 nan 2\n1 2 inf\n", r"row 2 \(2 such"),
    ],
)
def test_read_table_tells_what_is_wrong(tmp_path, text, told):
    path = tmp_path / "t.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        read_table(path, 3)
    with pytest.raises(DataError, match="No such file"):
        read_table(tmp_path / "none.txt", 3)


TETRAHEDRON = "4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"


@pytest.mark.parametrize("header", ["OFF\n", "OFF", "off\r\n", "# by hand\nOFF\n# counts follow\n", "OFF "])
def test_off_headers(tmp_path, header):
    path = tmp_path / "t.off"
    path.write_text(header + TETRAHEDRON)
    vertices, faces = read_off(path)
    np.testing.assert_array_equal(vertices, [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(faces, [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])


def test_off_polygons_and_colours(tmp_path):
    path = tmp_path / "t.off"
    path.write_text("OFF\n5 2\n0 0 0 9 9\n1 0 0\n1 1 0\n0 1 0\n.5 .5 1\n4 0 1 2 3 255 0 0\n3 0 1 4\n")
    faces = read_off(path)[1]
    assert sorted(map(tuple, faces)) == [(0, 1, 2), (0, 1, 4), (0, 2, 3)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "starts with b''"), ("PLY\n", "starts with b'PLY"), ("OFF\n", "header without counts"),
        ("OFF\n4 x\n", "'x' on line 2"), ("OFF\n-1 2 0\n", "header without counts"),
        ("OFF" + TETRAHEDRON[:-8], "7 lines after the header; expected 4 vertices and 4 faces"),
        ("OFF\n1e12 4 0\n0 0 0\n", "lines after the header"), ("OFF\n0 0 0\n", "no vertices"),
        ("OFF" + TETRAHEDRON.replace("3 0 1 2", "3 0 1 9"), "missing vertex"),
        ("OFF" + TETRAHEDRON.replace("3 0 1 2", "9 0 1 2"), "missing corners"),
        ("OFF" + TETRAHEDRON.replace("3 0 1 2", "2 0 1"), "missing corners"),
        ("OFF" + TETRAHEDRON.replace("1 0 0", "1 nan 0"), "NaN"),
        ("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "no faces"),
    ],
)
def test_off_broken(tmp_path, text, told):
    path = tmp_path / "t.off"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read_off(path)
    assert told in str(error.value)
    assert str(path) in str(error.value)


@settings(max_examples=60, deadline=None)
@given(st.text("0123456789 \n.-enaf#", max_size=80), st.binary(max_size=20))
def test_fuzz_off(tmp_path_factory, text, tail):
    path = tmp_path_factory.getbasetemp() / "fuzz.off"
    path.write_bytes(b"OFF" + text.encode() + tail)
    try:
        vertices, faces = read_off(path)
    except DataError:
        return
    assert np.isfinite(vertices).all()
    assert faces.max() < len(vertices)


def test_sampling_is_by_area_on_the_surface_and_repeatable():
    vertices = np.array([[0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 5], [1, 0, 5], [0, 1, 5]], float)
    faces = np.array([[0, 1, 2], [3, 4, 5], [0, 0, 1]])  # areas 1.5, 0.5, 0
    points = sample_surface(vertices, faces, 8000, "shape")
    low = points[points[:, 2] == 0]
    assert len(low) / 8000 == pytest.approx(0.75, abs=0.02)
    assert (points >= 0).all()
    assert (low[:, 0] / 3 + low[:, 1] <= 1 + 1e-6).all()
    np.testing.assert_allclose(low.mean(0), [1, 1 / 3, 0], atol=0.03)
    np.testing.assert_array_equal(points, sample_surface(vertices, faces, 8000, "shape"))
    assert (points != sample_surface(vertices, faces, 8000, "shape", seed=1)).any()
    with pytest.raises(DataError, match="positive area"):
        sample_surface(vertices, faces[2:], 10, "shape")


def test_choose_points():
    assert sorted(choose_points(50, 50, "a")) == list(range(50))
    assert len(set(choose_points(50, 20, "a"))) == 20
    assert set(choose_points(20, 50, "a")) == set(range(20))
    assert len(set(choose_points(1000, 1000, "a", replacement=True))) < 700  # 1 - 1/e of them
    np.testing.assert_array_equal(choose_points(50, 20, "a"), choose_points(50, 20, "a"))
    assert (choose_points(50, 20, "a") != choose_points(50, 20, "b")).any()


def test_broken_files_are_counted_listed_and_tolerated_up_to_one_in_a_hundred():
    def read(i):
        if i in (3, 7):
            raise DataError(f"file{i}", "cut short")
        return i * i

    results, kept, broken = read_each(read, range(200))
    assert results == [i * i for i in kept] == [i * i for i in range(200) if i not in (3, 7)]
    assert broken == ["file3: cut short", "file7: cut short"]
    with pytest.warns(UserWarning, match=r"2 of 200 files cannot be used.*\n.*file3.*\n.*file7"):
        judge_broken("set", broken, 200)
    with pytest.raises(DataError, match="2 of 199 files"):
        judge_broken("set", broken, 199)
