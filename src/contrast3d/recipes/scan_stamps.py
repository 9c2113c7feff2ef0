"""What tells that files of a recording were replaced: also those in its folders, whose own times do not change then."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from contrast3d.data.fragment_files import GT
from contrast3d.data.rgbd import Source

_CAMERA = "intrinsic_depth.txt"
# Of each layout the folders that are read, and how the names end of what is read there: colours, say, are not.
_READ = {
    "ScanNet frames": {"depth": (".png",), "pose": (".txt",), "intrinsic": (_CAMERA,), "intrinsics": (_CAMERA,),
                       "": (_CAMERA,)},
    "7-Scenes": {"": (".depth.png", ".pose.txt", "camera-intrinsics.txt"), "..": ("camera-intrinsics.txt",)},
    "TUM RGB-D": {"": ("depth.txt", "groundtruth.txt")},
    "3DMatch fragments": {"": (".pth", ".info.txt", GT)},
}


def stamp(scan: Source) -> dict:
    """The source of a scan, the number of its files, their bytes, and a digest of all names, sizes and times.

    None of them is opened but TUM's list of images: 10,000 files take 0.15 s.
    """
    lines, size = [], 0
    for name, status in _files(scan):
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns}")
        size += status.st_size
    digest = hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()[:12]
    return {"source": str(scan.path.resolve()), "files": len(lines), "bytes": size, "digest": digest}


def _files(scan: Source) -> Iterator[tuple[str, os.stat_result]]:
    if scan.layout not in _READ:
        yield scan.path.name, scan.path.stat()
        return
    places = dict(_READ[scan.layout])
    if scan.layout == "TUM RGB-D":
        places |= _image_folders(scan.path / "depth.txt")
    if scan.layout == "3DMatch fragments":
        places[f"../{scan.path.name}-evaluation"] = (GT,)
    for place, ends in places.items():
        folder = os.path.normpath(scan.path.absolute() / place)  # as 7-Scenes are read: above a link, not its target
        with contextlib.suppress(OSError), os.scandir(folder) as entries:  # reading it says what is wrong
            for entry in entries:
                if entry.name.lower().endswith(ends) and entry.is_file():
                    yield f"{place}/{entry.name}", entry.stat()


def _image_folders(listed: Path) -> dict[str, tuple[str, ...]]:
    """The folders of the images that TUM's depth.txt names."""
    with contextlib.suppress(OSError):
        lines = [line.split() for line in listed.read_text(encoding="utf-8", errors="replace").splitlines()]
        folders = {os.path.dirname(words[1]) for words in lines if len(words) > 1 and not words[0].startswith("#")}
        return dict.fromkeys(folders, (".png", "depth.txt", "groundtruth.txt"))
    return {}
