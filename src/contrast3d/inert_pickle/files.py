"""The files that pickles come in: torch's zip archives, its older stream of five pickles, and a pickle alone."""

from __future__ import annotations

import struct
import zipfile
from io import BufferedIOBase, BytesIO
from pathlib import Path

import torch

from contrast3d.errors import DataError, MissingDataError, UnreadableError
from contrast3d.inert_pickle.machine import interpret
from contrast3d.inert_pickle.objects import Malformed, Name, Storage, storage_type

EXPECTED = "a file that torch.save or pickle wrote"
AGAIN = "get the file again: it is damaged, or is no such file"
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_CHUNK = 1 << 22


def read_pickled(path: Path | str) -> object:
    """The object in a torch checkpoint (of any age) or in a pickle: plain values, tensors, arrays and inert stubs.

    Nothing is imported or called for it. Tensors are on the CPU and want no gradient; those that share a storage
    share memory. A DataError says what a file is that cannot be read so.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(str(path), "no such file", EXPECTED)
    try:
        with open(path, "rb") as file:
            return _read(file, path.stat().st_size)
    except OSError as error:
        raise UnreadableError(str(path), f"cannot be read ({error.strerror or error})", EXPECTED) from None
    except Malformed as error:
        raise DataError(str(path), str(error), EXPECTED, AGAIN) from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        line = str(error).partition("\n")[0] or "it ends too early"
        raise DataError(str(path), f"a damaged zip archive ({line})", EXPECTED, AGAIN) from None


def _read(file: BufferedIOBase, size: int) -> object:
    head = file.read(512)
    file.seek(0)
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(file, size)
    _refuse_others(head)
    bounded = Bounded(file, size)
    first = interpret(bounded, _no_storages)
    return _read_stream(bounded) if type(first) is int and first == _MAGIC else first


def _refuse_others(head: bytes) -> None:
    """Malformed where a file is plainly something else."""
    start = head.lstrip().lower()
    if not head.strip(b"\0"):
        raise Malformed("empty, or nothing but zeros")
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise Malformed("a web page")
    if start.startswith(b"version https://git-lfs"):
        raise Malformed("a pointer of Git LFS, not the file itself")
    if head[257:262] == b"ustar":
        raise Malformed("a tar archive, as torch wrote before version 0.1.10")
    if head.startswith((b"\x89HDF", b"\x93NUMPY", b"\x1f\x8b")):
        raise Malformed("HDF5, .npy or gzip")


class Bounded:
    """A file that never reads, and so never makes room for, more than there is."""

    def __init__(self, file: BufferedIOBase, size: int):
        self.file, self.size = file, size

    def tell(self) -> int:
        return self.file.tell()

    def left(self) -> int:
        """Bytes from here to the end."""
        return max(self.size - self.file.tell(), 0)

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, self.left()))

    def readline(self) -> bytes:
        return self.file.readline(self.left())


def _no_storages(key: object) -> object:
    raise Malformed("a pickle that refers to what lies outside of it")


def _fill(raw: torch.Tensor, file) -> None:
    """Read into the bytes of a storage, a piece at a time: no second copy of a large one."""
    target = memoryview(raw.numpy())
    for start in range(0, len(target), _CHUNK):
        piece = target[start : start + _CHUNK]
        data = file.read(len(piece))
        if len(data) != len(piece):
            raise Malformed("ends within the numbers of a tensor")
        piece[:] = data


class _Storages:
    """The storages of one file by key, made when first referred to; together no larger than the file."""

    def __init__(self, size: int):
        self.room = size
        self.raw: dict[str, torch.Tensor] = {}
        self.types: dict[str, torch.dtype] = {}

    def new(self, key: str, dtype: torch.dtype, nbytes: int) -> torch.Tensor:
        self.room -= nbytes
        if self.room < 0:
            raise Malformed("tensors that are larger than the file")
        self.types[key] = dtype
        self.raw[key] = torch.empty(nbytes, dtype=torch.uint8)
        return self.raw[key]

    def finish(self, key: str) -> None:
        """After the bytes are in: a bool of another byte than 0 and 1 is none."""
        if self.types[key] == torch.bool:
            self.raw[key].clamp_(max=1)


def _reference(reference: object) -> tuple[str, torch.dtype, int, object]:
    """("storage", type, key, device, elements[, view]) -> key, type, bytes, view."""
    if not isinstance(reference, tuple) or len(reference) not in (5, 6) or reference[0] != "storage":
        raise Malformed("a reference out of the pickle that is none to a storage")
    _, kind, key, _, numel, *view = reference
    dtype = storage_type(kind)
    if not isinstance(key, str) or not isinstance(numel, int) or numel < 0:
        raise Malformed("a storage without name or size")
    return key, dtype, numel * torch.empty(0, dtype=dtype).element_size(), view[0] if view else None


def _read_zip(file: BufferedIOBase, size: int) -> object:
    """`<name>/data.pkl` refers to storages in `<name>/data/<key>`, all of them stored as they are."""
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Malformed(f"a zip archive with {len(pickles)} data.pkl, which torch did not write")
        if any(i.compress_type != zipfile.ZIP_STORED or i.flag_bits & 1 for i in entries.values()):
            raise Malformed("a zip archive with compressed entries, which torch did not write")
        if sum(i.file_size for i in entries.values()) > size:
            raise Malformed("a zip archive of more than its own size")
        prefix = pickles[0].removesuffix("data.pkl")
        order = entries.get(f"{prefix}byteorder")
        if order is not None and archive.read(order) != b"little":
            raise Malformed("numbers of another byte order than little")
        storages = _Storages(size)

        def storage(reference: object) -> Storage:
            key, dtype, nbytes, _ = _reference(reference)
            if key not in storages.raw:
                info = entries.get(f"{prefix}data/{key}")
                if info is None or info.file_size < nbytes:
                    raise Malformed(f"a tensor of {nbytes} bytes in data/{key[:40]}, which holds fewer or is not there")
                with archive.open(info) as entry:
                    _fill(storages.new(key, dtype, info.file_size), entry)
                storages.finish(key)
            return _part(storages, key, dtype, 0, nbytes)

        content = archive.read(pickles[0])
        return interpret(Bounded(BytesIO(content), len(content)), storage)


def _part(storages: _Storages, key: str, dtype: torch.dtype, start: int, nbytes: int) -> Storage:
    if start < 0 or start + nbytes > storages.raw[key].numel():
        raise Malformed(f"a storage of {nbytes} bytes from {start} on, in one that is smaller")
    return Storage(storages.raw[key][start : start + nbytes], dtype)


def _read_stream(file: Bounded) -> object:
    """Behind the magic number: protocol, system, the object, the keys of its storages, then these one by one."""
    protocol, system = (interpret(file, _no_storages) for _ in range(2))
    if protocol != _PROTOCOL or not isinstance(system, dict):
        raise Malformed(f"a torch file of protocol {str(protocol)[:20]}")
    if system.get("little_endian") is not True:
        raise Malformed("numbers of another byte order than little")
    storages = _Storages(file.size)

    def storage(reference: object) -> object:
        if isinstance(reference, tuple) and len(reference) == 4 and reference[0] == "module":
            return reference[1] if isinstance(reference[1], Name) else Name("module")  # a class with its source
        key, dtype, nbytes, view = _reference(reference)
        if key not in storages.raw:
            storages.new(key, dtype, nbytes)
        if view is None:
            return _part(storages, key, dtype, 0, nbytes)
        if not isinstance(view, tuple) or len(view) != 3 or not all(isinstance(v, int) for v in view[1:]):
            raise Malformed("a view of a storage that is none")
        itemsize = torch.empty(0, dtype=dtype).element_size()
        return _part(storages, key, dtype, view[1] * itemsize, view[2] * itemsize)

    content = interpret(file, storage)
    keys = interpret(file, _no_storages)
    if not isinstance(keys, list) or set(storages.raw) - {k for k in keys if isinstance(k, str)}:
        raise Malformed("tensors whose numbers are not in the file")
    for key in keys:
        if not isinstance(key, str) or key not in storages.raw:
            raise Malformed("numbers that belong to no tensor")
        raw, itemsize = storages.raw[key], torch.empty(0, dtype=storages.types[key]).element_size()
        if int.from_bytes(file.read(8), "little") * itemsize != raw.numel():
            raise Malformed("numbers of another count than that of their tensor, or none")
        _fill(raw, file)
        storages.finish(key)
    return content
