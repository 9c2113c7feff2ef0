"""Pickles and torch checkpoints read inertly: same values as the real loaders, and nothing ever runs."""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from contrast3d.errors import DataError, MissingDataError
from contrast3d.inert_pickle import Name, Stub, read_pickled

ZIP, LEGACY = True, False
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
TYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128,
)


class EasyDict(dict):
    """As old checkpoints hold their configuration: a dict whose items are attributes too."""

    def __init__(self, **items):
        super().__init__(**items)
        self.__dict__.update(items)


class Executed:
    """Runs a command when unpickled."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return os.system, (f"echo > '{self.flag}'",)


def saved(tmp_path, value, kind=ZIP, name="file.pth"):
    torch.save(value, tmp_path / name, _use_new_zipfile_serialization=kind)
    return tmp_path / name


def pickled(tmp_path, value, protocol=2):
    (tmp_path / "file.dat").write_bytes(pickle.dumps(value, protocol))
    return tmp_path / "file.dat"


def raw(tmp_path, content: bytes):
    (tmp_path / "file.pth").write_bytes(content)
    return tmp_path / "file.pth"


@pytest.mark.parametrize("kind", [ZIP, LEGACY])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type_of_tensor(tmp_path, kind, dtype):
    tensor = (torch.randn(4, 3, generator=torch.Generator().manual_seed(0)) * 9).to(dtype)
    found = read_pickled(saved(tmp_path, {"w": tensor, "empty": tensor[:0], "scalar": tensor[0, 0]}, kind))
    assert found["w"].dtype == dtype
    assert torch.equal(found["w"], tensor)
    assert found["empty"].shape == (0, 3)
    assert torch.equal(found["scalar"], tensor[0, 0])


def test_types_without_a_storage_class(tmp_path):
    tensors = [torch.arange(5).to(torch.uint16), torch.ones(3).to(torch.float8_e4m3fn)]
    found = read_pickled(saved(tmp_path, tensors))
    assert [f.dtype for f in found] == [torch.uint16, torch.float8_e4m3fn]
    assert torch.equal(found[0].long(), tensors[0].long())


@pytest.mark.parametrize("kind", [ZIP, LEGACY])
def test_strided_views_share_their_storage(tmp_path, kind):
    base = torch.arange(24.0).reshape(4, 6)
    value = {"all": base, "turned": base.T, "piece": base[1:3, ::2], "wide": base[:1].expand(5, 6)}
    found = read_pickled(saved(tmp_path, value, kind))
    assert all(torch.equal(found[k], value[k]) for k in value)
    found["all"][1, 0] = -7
    assert found["piece"][0, 0] == -7


@pytest.mark.parametrize("kind", [ZIP, LEGACY])
def test_checkpoint_with_configuration_and_optimizer(tmp_path, kind):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.8)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    config = EasyDict(lr=0.1, opt=EasyDict(name="SGD"))
    arguments = argparse.Namespace(voxel_size=0.025, dirs=["a", "b"])
    value = {"curr_iter": 7, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "config": config,
             "args": arguments, "parameter": model[0].weight, "device": torch.device("cpu"), "kind": torch.float16}
    found = read_pickled(saved(tmp_path, value, kind))
    assert found["curr_iter"] == 7
    assert list(found["state_dict"]) == list(model.state_dict())
    assert all(torch.equal(found["state_dict"][k], v) for k, v in model.state_dict().items())
    momenta = [s["momentum_buffer"] for s in found["optimizer"]["state"].values()]
    assert torch.equal(momenta[0], optimizer.state_dict()["state"][0]["momentum_buffer"])
    assert found["config"].name.endswith("EasyDict")
    assert found["config"].fields["lr"] == 0.1
    assert found["config"].fields["opt"].fields == {"name": "SGD"}
    assert found["args"].fields == {"voxel_size": 0.025, "dirs": ["a", "b"]}
    assert not found["parameter"].requires_grad
    assert torch.equal(found["parameter"], model[0].weight)
    assert found["device"].args[0] == "cpu"
    assert found["kind"] == Name("torch.float16")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_at_every_protocol(tmp_path, protocol):
    shared = [1, 2]
    value = {
        "numbers": [0, -1, 255, 70_000, 2**40, -(2**90), 1.5, float("inf")], "flags": [True, False, None],
        "text": ["", "näme", "line\nbreak", "x" * 300], "bytes": [b"", b"\x00\xff", bytearray(b"ab")],
        "pair": (1, (2,)), "more": {1: "a", (2, "b"): [], b"c": ()},
        "sets": [{1, 2}, frozenset({"x"})], "shared": [shared, shared],
        "ordered": collections.OrderedDict(b=1, a=2), "counted": collections.defaultdict(list, a=[1]), "z": 1 + 2j,
    }
    found = read_pickled(pickled(tmp_path, value, protocol))
    assert found == value
    assert found["shared"][0] is found["shared"][1]
    assert type(found["ordered"]) is dict


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_at_every_protocol(tmp_path, protocol):
    array = np.arange(12, dtype=">f4").reshape(3, 4)
    value = [array, array, array.T, np.float64(2.5), np.int8(-3), np.zeros((0, 3), np.uint8), np.array(["ab", "c"]),
             np.arange(6)[::2], np.bool_(True), np.arange(3, dtype="<f4"), np.array([None, [1]], object)]
    found = read_pickled(pickled(tmp_path, value, protocol))
    for ours, theirs in zip(found[:3] + found[5:8], value[:3] + value[5:8]):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert found[3:5] == [2.5, -3]
    assert found[8] is True
    assert found[9].tolist() == [0, 1, 2]
    assert found[10].tolist() == [None, [1]]


def test_point_mae_lists(tmp_path):
    value = [[np.random.default_rng(i).normal(size=(16, 6)).astype(np.float32) for i in range(3)],
             [np.array([i], np.int32) for i in range(3)]]
    clouds, labels = read_pickled(pickled(tmp_path, value))
    np.testing.assert_array_equal(np.stack(clouds), np.stack(value[0]))
    assert [int(label[0]) for label in labels] == [0, 1, 2]


def test_fragment_of_3dmatch(tmp_path):
    points = np.random.default_rng(0).integers(-4000, 4000, (50, 3)) / 1000
    path = saved(tmp_path, points, LEGACY, "cloud_bin_0.pth")
    assert path.read_bytes()[:2] == b"\x80\x02"
    np.testing.assert_array_equal(read_pickled(path), points)


def test_as_python_2_wrote_it(tmp_path):
    floats = np.array([1.5, -2.0], "<f4").tobytes()
    content = (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
               b"(K\x01K\x02\x85cnumpy\ndtype\nq\x04U\x02f4K\x00K\x01\x87Rq\x05(K\x03U\x01<NNNJ\xff\xff\xff\xff"
               b"J\xff\xff\xff\xffK\x00tb\x89U\x08" + floats + b"tb.")
    assert read_pickled(raw(tmp_path, content)).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("kind", [ZIP, LEGACY])
def test_nothing_runs(tmp_path, kind):
    flag = tmp_path / "ran"
    found = read_pickled(saved(tmp_path, {"state_dict": {"w": torch.ones(2)}, "evil": Executed(flag)}, kind))
    assert torch.equal(found["state_dict"]["w"], torch.ones(2))
    assert isinstance(found["evil"], Stub)
    assert found["evil"].name in ("posix.system", "nt.system")
    assert not flag.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_runs_in_a_plain_pickle(tmp_path, protocol):
    flag = tmp_path / "ran"
    path = pickled(tmp_path, [Executed(flag)], protocol)
    assert read_pickled(path)[0].args == (f"echo > '{flag}'",)
    assert not flag.exists()
    pickle.loads(path.read_bytes())  # the canary: the real thing does run it
    assert flag.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.", b"(S'true'\nios\nsystem\n.", b"(cos\nsystem\nS'true'\no.",
        b"\x80\x02cos\nsystem\n\x8c\x04true\x85\x81.", b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85}\x92.",
        b"cbuiltins\neval\n(S'1'\ntR.", b"cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR.",
    ],
    ids=["reduce", "inst", "obj", "newobj", "newobj_ex", "eval", "getattr"],
)
def test_every_way_to_call_makes_a_stub(tmp_path, content):
    assert isinstance(read_pickled(raw(tmp_path, content)), Stub)


MAKE = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(("
STORAGE = b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


def archive(tmp_path, content: bytes, numbers: bytes = bytes(16), **options):
    with zipfile.ZipFile(tmp_path / "file.pth", "w", **options) as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/data/0", numbers)
    return tmp_path / "file.pth"


@pytest.mark.parametrize(
    ("offset", "size", "stride", "fits"),
    [
        (0, (2, 2), (2, 1), True), (0, (2, 2), (1, 2), True), (3, (1,), (1,), True), (0, (4,), (0,), True),
        (9, (0,), (1,), True), (1, (4,), (1,), False), (0, (2, 2), (3, 1), False), (0, (5,), (1,), False),
        (0, (2,), (1, 1), False), (0, (2**61, 2), (0, 0), False), (0, (3 << 20,), (0,), False), (4, (), (), False),
    ],
)
def test_views_stay_inside_of_their_storage(tmp_path, offset, size, stride, fits):
    pieces = [pickle.dumps(part, 2)[2:-1] for part in (offset, size, stride)]
    path = archive(tmp_path, MAKE + STORAGE + b"".join(pieces) + b"\x89}tR.", np.arange(4, dtype="<f4").tobytes())
    if fits:
        expected = torch.as_strided(torch.arange(4.0), size, stride, offset) if 0 not in size else torch.empty(size)
        assert torch.equal(read_pickled(path), expected)
    else:
        with pytest.raises(DataError, match=r"file\.pth.*(beyond|over a storage|are none)"):
            read_pickled(path)


def refused(path, found: str):
    with pytest.raises(DataError, match=found) as error:
        read_pickled(path)
    assert error.value.where == str(path)
    assert error.value.expected
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty"), (bytes(4000), "zeros"), (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\n <html><body>sign in</body></html>", "web page"), (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "HDF5"), (b"PK\x03\x04" + bytes(30), "zip"),
        (b"not a pickle", "breaks off"),
        (b"\x80\x02]q\x00", "breaks off"), (b"\x80\x02X\xff\xff\xff\x7fab.", "breaks off"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "breaks off"), (b"\x80\x02.", "not there"),
        (b"\x80\x02h\x05.", "not there"), (b"\x80\x02]}s.", "not there"), (b"\x80\x02K\x01K\x02a.", "appended to int"),
        (b"\x80\x02}]K\x01s.", "key of type list"), (b"\x80\x02K\x01)R.", "call of int"),
        (b"\x80\x02\x82\x01.", "EXT1"), (b"\x80\x02X\x01\x00\x00\x00aQ.", "outside of it"),
        (b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R.", "never"),
        (b"\x80\x02ccopy_reg\n_reconstructor\nK\x01K\x02K\x03\x87R.", "does not take"),
        (b"\x80\x02c_codecs\nencode\nK\x01K\x02\x86R.", "does not take"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(X\x01\0\0\0aK\0))NNtR.", "does not take"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n(K\x01K\0))NNK\x05tR.", "does not take"),
        (b"\x80\x02" + b"]" * 9000 + b"a" * 8999 + b".", "nested more"), (b"\x80\x02(K\x01t.(", None),
        (b"\x80\x02)" + b"\x85" * 9000 + b".", "nested more"), (b"\x80\x02)" + b"2\x86" * 300 + b".", "nested more"),
    ],
)
def test_bad_files_say_what_they_are(tmp_path, content, found):
    path = raw(tmp_path, content)
    if found is None:
        assert read_pickled(path) == (1,)
    else:
        refused(path, found)


def test_keys_that_would_hash_forever(tmp_path):
    refused(raw(tmp_path, b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s."), "key of type tuple")


def test_copies_of_copies_are_refused(tmp_path):
    content = b"\x80\x02X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x000c_codecs\nencode\nq\x01](" + (
        b"h\x01h\x00\x85R" * 5000) + b"e."
    refused(raw(tmp_path, content), "far more than the file holds")


def test_missing_file_and_tar(tmp_path):
    with pytest.raises(MissingDataError, match="no such file"):
        read_pickled(tmp_path / "absent.pth")
    with tarfile.open(tmp_path / "old.pth", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    refused(tmp_path / "old.pth", "tar archive")


def test_zip_archives_that_torch_did_not_write(tmp_path):
    value = MAKE + STORAGE + b"K\x00K\x04\x85K\x01\x85\x89}tR."
    assert torch.equal(read_pickled(archive(tmp_path, value)), torch.zeros(4))
    refused(archive(tmp_path, value, b"short"), "16 bytes in data/0")
    refused(archive(tmp_path, value, bytes(1 << 22), compression=zipfile.ZIP_DEFLATED), "compressed")
    np.savez(tmp_path / "file.npz", a=np.zeros(3))
    refused(tmp_path / "file.npz", "0 data.pkl")
    damaged = bytearray(archive(tmp_path, value, b"\x07" * 16).read_bytes())
    damaged[damaged.index(b"\x07" * 16)] = 8
    refused(raw(tmp_path, bytes(damaged)), "CRC")


@pytest.mark.parametrize("kind", [ZIP, LEGACY])
def test_truncated_and_damaged_files(tmp_path, kind):
    value = {"w": torch.randn(40, 3), "b": torch.ones(3, dtype=torch.bool), "n": np.arange(5), "c": EasyDict(a=1)}
    content = saved(tmp_path, value, kind).read_bytes()
    for length in range(0, len(content) - 1, 37):
        with pytest.raises(DataError):
            read_pickled(raw(tmp_path, content[:length]))
    draws = np.random.default_rng(0)
    for _ in range(400):  # any outcome but a value and a DataError fails
        damaged = bytearray(content)
        for place in draws.integers(0, len(content), draws.integers(1, 6)):
            damaged[place] = draws.integers(256)
        with contextlib.suppress(DataError):
            read_pickled(raw(tmp_path, bytes(damaged)))


def test_numbers_that_are_not_in_the_stream(tmp_path):
    content = saved(tmp_path, torch.ones(100), LEGACY).read_bytes()
    refused(raw(tmp_path, content[:-8]), "within the numbers")
    refused(raw(tmp_path, content.replace(struct.pack("<q", 100), struct.pack("<q", 99))), "another count")


@pytest.mark.shared
def test_oracles_read_as_torch_reads_them(shared):
    paths = sorted((shared / "parity").glob("*.pt"))
    if not paths:
        pytest.skip("no oracles")
    compared = 0

    def same(ours, theirs):
        nonlocal compared
        if isinstance(theirs, torch.Tensor):
            compared += 1
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs) or torch.equal(ours.isnan(), theirs.isnan())
        elif isinstance(theirs, dict):
            assert list(ours) == list(theirs)
            [same(ours[k], theirs[k]) for k in theirs]
        elif isinstance(theirs, list | tuple):
            assert len(ours) == len(theirs)
            [same(a, b) for a, b in zip(ours, theirs)]
        else:
            assert ours == theirs

    for path in paths:
        same(read_pickled(path), torch.load(path, weights_only=True))
    assert compared > 500
