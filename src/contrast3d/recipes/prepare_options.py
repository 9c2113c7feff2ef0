"""The options of `contrast3d data prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contrast3d.errors import ConfigError


@dataclass(frozen=True)
class PairsOptions:
    """RGB-D scans into one small file per scene: partial views, their poses, and all pairs of views that overlap.

    Attributes:
        out: folder to write, -o for short; scenes that it has with the same options are not made again.
        every: frames from one view to the next; fragments are all taken.
        min_overlap: share of a view that the other one must see too.
        voxel: metres, of the voxels in which the points of a view are averaged before overlaps are measured.
        radius: metres, up to which a place counts as seen by both.
        thin: metres; of a view the first point in each voxel of this size is stored, all at 0.
        intrinsics: FX FY CX CY of the depth camera, in pixels, instead of what the files say.
        restart: make all scenes again.
        threads: CPU threads; 0 takes all that torch sees.
        quiet: no progress bar.
    """

    out: Path
    every: int = 25
    min_overlap: float = 0.3
    voxel: float = 0.05
    radius: float = 0.075
    thin: float = 0.01
    intrinsics: tuple[float, ...] = ()
    restart: bool = False
    threads: int = 0
    quiet: bool = False

    def __post_init__(self):
        if self.every < 1:
            raise ConfigError(f"--every {self.every}; expected 1 or more")
        if not 0 < self.min_overlap <= 1:
            raise ConfigError(f"--min-overlap {self.min_overlap:g}; expected a share above 0 and up to 1")
        for name in ("voxel", "radius"):
            if not 0 < getattr(self, name) <= 10:
                raise ConfigError(f"--{name} {getattr(self, name):g}; expected metres above 0 and up to 10")
        if not 0 <= self.thin <= 1:
            raise ConfigError(f"--thin {self.thin:g}; expected metres from 0 to 1")
        if self.intrinsics and not (len(self.intrinsics) == 4 and min(self.intrinsics) > 0):
            given = " ".join(f"{value:g}" for value in self.intrinsics)
            raise ConfigError(f"--intrinsics {given}; expected FX FY CX CY, in pixels")


MOST_PIXELS = 200_000_000  # of the frames of a room, which are all in memory at once


@dataclass(frozen=True)
class RoomsOptions:
    """RGB-D recordings of generated rooms, in the layout of ScanNet's exported frames, one folder each.

    Attributes:
        out: folder to write, -o for short; rooms that it has with the same options are not made again.
        count: rooms, the first ones of the split.
        split: train, val or test; splits have no room in common.
        frames: of each room, along one walk.
        width: pixels.
        height: pixels.
        meshes: a folder of furniture meshes, or a Sweet Home 3D library (.sh3f), to mix in; Debian's package
            sweethome3d-furniture has its libraries in /usr/share/sweethome3d/furniture.
        restart: make all rooms again.
        threads: CPU threads; 0 takes all that torch sees.
        quiet: no progress bar.
    """

    out: Path
    count: int = 4
    split: Literal["train", "val", "test"] = "train"
    frames: int = 30
    width: int = 320
    height: int = 240
    meshes: Path | None = None
    restart: bool = False
    threads: int = 0
    quiet: bool = False

    def __post_init__(self):
        for name, least, most in (("count", 1, 10_000), ("frames", 1, 10_000), ("width", 2, 4096), ("height", 2, 4096)):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"--{name} {getattr(self, name)}; expected {least} to {most:,}")
        pixels = self.frames * self.width * self.height
        if pixels > MOST_PIXELS:
            raise ConfigError(f"{self.frames} frames of {self.width} x {self.height} are {pixels:,} pixels; expected "
                              f"{MOST_PIXELS:,} at most. Try: a smaller --frames, --width or --height")
