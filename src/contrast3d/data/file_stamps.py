"""Size and time of files, by which it is told whether they have changed; a .gltf changes with its buffers."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[int, int]  # bytes, time of change in ns


class Stamps:
    """stamps(path) -> size and time of change in ns; zeros for a file that is not there.

    A .gltf is as large as it and its buffers together, and as new as the newest of them: the .bin file that is called
    like it, or where there is none, all that lie beside it. Folders are listed once.
    """

    def __init__(self) -> None:
        self._buffers: dict[Path, dict[str, Stamp]] = {}

    def __call__(self, path: Path) -> Stamp:
        try:
            state = path.stat()
        except OSError:
            return 0, 0
        own = state.st_size, state.st_mtime_ns
        return _together([own, self._buffer(path)]) if path.suffix.lower() == ".gltf" else own

    def _buffer(self, path: Path) -> Stamp:
        if path.parent not in self._buffers:
            self._buffers[path.parent] = _buffers(path.parent)
        known = self._buffers[path.parent]
        return known.get(f"{path.stem}.bin", known[""])


def _buffers(folder: Path) -> dict[str, Stamp]:
    """The .bin files of a folder by name, and all of them together under ""."""
    found = {}
    for path in folder.glob("*.bin"):
        try:
            state = path.stat()
        except OSError:  # a link to nowhere
            continue
        found[path.name] = state.st_size, state.st_mtime_ns
    return {**found, "": _together(list(found.values()))}


def _together(stamps: list[Stamp]) -> Stamp:
    return sum(size for size, _ in stamps), max((time for _, time in stamps), default=0)
