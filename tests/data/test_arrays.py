"""A user's array files: what is read, and one clear line for every way in which they can be wrong."""

import contextlib
import io
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contrast3d.data.arrays import load_arrays, load_h5, load_npy, load_npz
from contrast3d.errors import Contrast3dError, DataError, MissingDataError

POINTS = np.random.default_rng(0).normal(size=(5, 30, 3)).astype(np.float32)


def write_npz(path, **arrays):
    np.savez(path, **{"points": POINTS, **arrays})
    return path


def test_npz_with_everything(tmp_path):
    path = write_npz(
        tmp_path / "mine.npz", label=np.array([[0], [1], [-1], [1], [0]]), name=np.array(list("abcde")),
        classes=np.array(["chair", "table"]),
    )
    shapes = load_arrays(path, normalize=False)
    assert shapes.title == "mine"
    assert shapes.classes == ("chair", "table")
    assert shapes.names == tuple("abcde")
    assert shapes.labels.tolist() == [0, 1, -1, 1, 0]
    np.testing.assert_array_equal(shapes.points, POINTS)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8])
def test_any_number_type(tmp_path, dtype):
    points = (abs(POINTS) * 50).astype(dtype)
    np.save(tmp_path / "p.npy", points)
    shapes = load_npy(tmp_path / "p.npy", normalize=False)
    np.testing.assert_array_equal(shapes.points, points.astype(np.float32))
    assert shapes.labels is None


def test_h5_with_the_fields_own_key_names(tmp_path):
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["data"], file["label"] = POINTS, np.arange(5)[:, None]
        file["name"] = [f"é{i}" for i in range(5)]
    shapes = load_h5(tmp_path / "p.h5", normalize=False)
    assert shapes.names == tuple(f"é{i}" for i in range(5))
    assert shapes.labels.tolist() == [0, 1, 2, 3, 4]
    assert shapes.classes == ("0", "1", "2", "3", "4")  # without names, the numbers


def test_classes_without_names_and_without_labels(tmp_path):
    assert load_npz(write_npz(tmp_path / "a.npz", label=np.array([2, -1, 0, 0, 2]))).classes == ("0", "1", "2")
    assert load_npz(write_npz(tmp_path / "b.npz", label=np.full(5, -1))).classes == ()


def test_normalisation(tmp_path):
    path = write_npz(tmp_path / "p.npz")
    by_mean, by_box = load_npz(path).points, load_npz(path, normalize="bbox").points
    for points in (by_mean, by_box):
        assert points.norm(dim=2).amax(1).numpy() == pytest.approx(1, abs=1e-6)
    assert abs(by_mean.mean(1)).max() < 1e-6
    assert abs(by_box.amin(1) + by_box.amax(1)).max() < 1e-6


def test_coinciding_points_stay_finite(tmp_path):
    shapes = load_npz(write_npz(tmp_path / "p.npz", points=np.full((2, 4, 3), 7.0)))
    assert (shapes.points == 0).all()


def test_subsample_is_a_function_of_the_shape(tmp_path):
    names = np.array(list("abcde"))
    first = load_npz(write_npz(tmp_path / "p.npz", name=names), 10, normalize=False)
    order = [3, 1, 4, 0, 2]
    path = write_npz(tmp_path / "q.npz", points=POINTS[order], name=names[order])
    other = load_npz(path, 10, normalize=False)
    np.testing.assert_array_equal(first.points[order], other.points)
    for cloud, whole in zip(first.points.numpy(), POINTS):
        rows = {tuple(p) for p in cloud}
        assert len(rows) == 10
        assert rows <= {tuple(p) for p in whole}


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"points": POINTS[0]}, "points[None]"),
        ({"points": np.zeros((2, 9, 6))}, "points[..., :3]"),
        ({"points": np.zeros((2, 9, 2))}, "shape (2, 9, 2)"),
        ({"points": np.zeros((0, 9, 3))}, "no shapes"),
        ({"points": np.zeros((2, 1, 3))}, "clouds of 1 point"),
        ({"points": np.array(["a"])}, "points of type <U1"),
        ({"points": np.full((2, 9, 3), 1e300)}, "infinite"),
        ({"points": np.zeros((2, 9, 3), complex)}, "complex"),
        ({"points": np.array([None])}, "object array"),
        ({"label": np.arange(4)}, "label of shape (4,)"),
        ({"label": np.arange(5) + 0.5}, "no class numbers"),
        ({"label": np.full(5, np.nan)}, "no class numbers"),
        ({"label": np.array([0, 1, 2, 0, 0]), "classes": np.array(["a", "b"])}, "label 2; expected -1"),
        ({"label": np.full(5, -2)}, "label -2"),
        ({"label": np.full(5, 2**30)}, f"label {2**30}; expected -1 (none) to 65535"),
        ({"name": np.array(["a", "b"])}, "expected 5 texts"),
        ({"name": np.array(list("abcda"))}, "the same text twice ('a')"),
        ({"name": np.array(list("abcde"), dtype=object)}, "object array"),
    ],
)
def test_wrong_contents(tmp_path, arrays, found):
    path = write_npz(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError) as error:
        load_npz(path)
    assert found in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_nan_names_the_rows(tmp_path):
    points = POINTS.copy()
    points[[1, 3], 4] = np.nan
    with pytest.raises(DataError, match=r"2 of 5 shapes \(rows 1, 3\)"):
        load_npz(write_npz(tmp_path / "p.npz", points=points))


def test_missing_key_names_those_found(tmp_path):
    np.savez(tmp_path / "p.npz", clouds=POINTS, other=POINTS)
    with pytest.raises(DataError, match="keys clouds, other; expected a key 'points'"):
        load_npz(tmp_path / "p.npz")
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["clouds"] = POINTS
    with pytest.raises(DataError, match="keys clouds; expected a key 'points'"):
        load_h5(tmp_path / "p.h5")


def test_too_many_points_asked_for(tmp_path):
    with pytest.raises(DataError, match="30 points a shape; expected at least 31"):
        load_npz(write_npz(tmp_path / "p.npz"), 31)


@pytest.mark.parametrize("suffix", ["npz", "npy", "h5"])
def test_files_that_are_not_what_they_say(tmp_path, suffix):
    path = tmp_path / f"p.{suffix}"
    with pytest.raises(MissingDataError, match="no such file"):
        load_arrays(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="an empty file"):
        load_arrays(path)
    path.write_bytes(b"<html>404 not found</html>")
    with pytest.raises(DataError):
        load_arrays(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="a folder"):
        load_arrays(path)


def whole_files(folder):
    np.savez_compressed(folder / "w.npz", points=POINTS)
    np.save(folder / "w.npy", POINTS)
    with h5py.File(folder / "w.h5", "w") as file:
        file["points"] = POINTS
    return {suffix: (folder / f"w.{suffix}").read_bytes() for suffix in ("npz", "npy", "h5")}


def test_truncated_files(tmp_path):
    for suffix, data in whole_files(tmp_path).items():
        for share in (0.05, 0.5, 0.99):
            path = tmp_path / f"cut.{suffix}"
            path.write_bytes(data[: int(len(data) * share)])
            with pytest.raises(DataError) as error:
                load_arrays(path)
            assert "\n" not in str(error.value)


def test_a_pickle_is_never_run(tmp_path):
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return marker.touch, ()

    np.savez(tmp_path / "evil.npz", points=np.array([Payload()], dtype=object))
    np.save(tmp_path / "evil.npy", np.array([Payload()], dtype=object))
    for path in (tmp_path / "evil.npz", tmp_path / "evil.npy"):
        with pytest.raises(DataError, match="pickle"):
            load_arrays(path)
    assert not marker.exists()


def test_declared_size_is_checked_before_memory_is_taken(tmp_path):
    header = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 99, 3)}
    np.lib.format.write_array_header_1_0(header, fields)
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("points.npy", header.getvalue() + b"\0" * 64)
    (tmp_path / "huge.npy").write_bytes(header.getvalue())
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("points", (10**9, 99, 3), "f4", chunks=(1, 99, 3))
    for suffix in ("npz", "npy", "h5"):
        with pytest.raises(DataError, match="bytes declared"):
            load_arrays(tmp_path / f"huge.{suffix}")


def test_unknown_suffix(tmp_path):
    with pytest.raises(DataError, match=r"'\.mat'; expected one of \.npz"):
        load_arrays(tmp_path / "p.mat")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from(["npz", "npy"]))
def test_fuzz(tmp_path, data, suffix):
    """Random bytes, and whole files with bytes changed: a ShapeSet or a Contrast3dError, nothing else."""
    if data.draw(st.booleans()):
        content = data.draw(st.binary(max_size=200))
    else:
        content = bytearray(whole_files(tmp_path)[suffix])
        for position in data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=5)):
            content[position] = data.draw(st.integers(0, 255))
    path = tmp_path / f"fuzz.{suffix}"
    path.write_bytes(bytes(content))
    with contextlib.suppress(Contrast3dError):
        assert load_arrays(path).points.shape[2] == 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), signed=st.booleans())
def test_fuzz_h5(tmp_path, content, signed):
    path = tmp_path / "fuzz.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" * signed + content)
    with pytest.raises(Contrast3dError):
        load_arrays(path)
