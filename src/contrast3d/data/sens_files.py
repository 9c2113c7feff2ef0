"""ScanNet's .sens: a header, then frame by frame pose, colour and depth; read in place, never as a whole."""

from __future__ import annotations

import os
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt16

from contrast3d.data.recordings import Frame, Recording, checked_camera, checked_pose
from contrast3d.errors import DataError

EXPECTED = "a ScanNet .sens file of version 4"
RAW, ZLIB, OCCI = 0, 1, 2
_FRAME = struct.Struct("<16f4Q")  # camera to world, times of colour and depth, bytes of colour and depth
_NAME_MOST = 1 << 16


def sens_recording(path: Path) -> Recording:
    """The frames of a .sens file; only their headers are read now.

    A file that ends early has as many frames as are whole. Raises DataError where it is no such file, or its depth
    is compressed by Occipital's codec, which nothing free reads.
    """
    with _opened(path) as file:
        (version,) = _read(file, "<I", path)
        if version != 4:
            raise DataError(str(path), f"version {version}", EXPECTED)
        (length,) = _read(file, "<Q", path)
        if length > _NAME_MOST:
            raise DataError(str(path), f"a sensor's name of {length} bytes", EXPECTED)
        file.seek(length, os.SEEK_CUR)
        matrices = np.array(_read(file, "<64f", path), np.float64).reshape(4, 4, 4)
        _, compression, _, _, width, height, units, count = _read(file, "<2i4IfQ", path)
        if compression not in (RAW, ZLIB):
            kind = "Occipital's codec (occi_ushort)" if compression == OCCI else f"an unknown codec ({compression})"
            raise DataError(str(path), f"depth compressed by {kind}", "raw_ushort or zlib_ushort",
                            "export depth/, pose/ and intrinsic/ with ScanNet's SensReader")
        if not (units > 0 and 0 < width < 1 << 14 and 0 < height < 1 << 14):
            raise DataError(str(path), f"depth images of {width} x {height}, {units:g} units a metre", EXPECTED)
        frames = _frames(file, path, count, (height, width), compression)
    if not frames:
        raise DataError(str(path), "no whole frame", EXPECTED)
    camera = checked_camera(matrices[2], str(path))
    return Recording(path.stem, path, "ScanNet .sens", camera, float(units), tuple(frames))


def _frames(file: BinaryIO, path: Path, count: int, shape: tuple[int, int], compression: int) -> list[Frame]:
    """Hop from header to header."""
    frames, size = [], path.stat().st_size
    for number in range(count):
        header = file.read(_FRAME.size)
        if len(header) < _FRAME.size:
            break
        *pose, _, _, color_bytes, depth_bytes = _FRAME.unpack(header)
        start = file.tell() + color_bytes
        if start + depth_bytes > size:
            break
        name = f"{path} frame {number}"
        matrix = np.array(pose).reshape(4, 4)
        frames.append(Frame(f"frame {number}", number, partial(checked_pose, matrix, name),
                            partial(_depth, path, start, depth_bytes, shape, compression, name)))
        file.seek(start + depth_bytes)
    return frames


def _depth(path: Path, start: int, count: int, shape: tuple[int, int], compression: int, name: str
           ) -> UInt16[np.ndarray, "h w"]:
    """One depth image, (H, W) uint16."""
    wanted = 2 * shape[0] * shape[1]
    with _opened(path) as file:
        file.seek(start)
        data = file.read(count)
    if compression == ZLIB:
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(data, wanted + 1)  # no more than that, whatever the file claims
        except zlib.error as error:
            raise DataError(name, f"depth cannot be inflated: {error}", f"{wanted} bytes") from None
    if len(data) != wanted:
        raise DataError(name, f"a depth image of {len(data)} bytes", f"{wanted} bytes")
    return np.frombuffer(data, "<u2").reshape(shape).astype(np.uint16, copy=False)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(str(path), error.strerror or "cannot be read", EXPECTED) from None


def _read(file: BinaryIO, layout: str, path: Path) -> tuple:
    data = file.read(struct.calcsize(layout))
    if len(data) < struct.calcsize(layout):
        raise DataError(str(path), "the file ends within its header", EXPECTED)
    return struct.unpack(layout, data)
