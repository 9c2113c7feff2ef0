"""The options of `contrast3d data prepare teachers`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contrast3d.errors import ConfigError


@dataclass(frozen=True)
class TeachersOptions:
    """What image and text teachers say of the shapes of a set, into files that training reads.

    Attributes:
        out: folder to write, -o for short; recipes look for it at DATA_ROOT/teachers. Default: that, where it is a
            folder, or else the cache, where recipes look too.
        split: train or test as recipes have it (of a set in one piece, and of your own, four fifths and one), or
            another one of the data set's own, such as all.
        holdout: n makes train and test of the training split, as recipes do with the same number.
        up: of your own and of ShapeNetPart, as the recipe has it.
        labels_from: of your own folder, as the recipe has it.
        categories: of ShapeNetPart, as the recipe has them.
        image: none, efficientnet-lite0, or the folder of a network of transformers; it sees shaded renders.
        text: none, minilm, or the folder of a network of transformers.
        views: renders of each shape, and prompts around each caption.
        captions: what the text teacher reads: description, masked (without the words of the set's own classes), or
            class-prompts (names of classes, which are labels); several make a file each.
        shape_points: points of each shape, as recipes read them.
        data_root: folder of the data set's files; embedded sets need none.
        device: auto, cpu, cuda, cuda:1 or mps, for the networks; pictures are drawn on the CPU.
        restart: make all files again.
        threads: CPU threads; 0 takes all that torch sees.
        quiet: no progress bar.
    """

    out: Path | None = None
    split: str = "train"
    holdout: int = 0
    up: Literal["z", "y", "x"] = "z"
    labels_from: Literal["none", "folders"] = "none"
    categories: tuple[str, ...] = ()
    image: str = "efficientnet-lite0"
    text: str = "minilm"
    views: int = 8
    captions: tuple[Literal["description", "masked", "class-prompts"], ...] = ("description",)
    shape_points: int = 1024
    data_root: Path = Path("data")
    device: str = "auto"
    restart: bool = False
    threads: int = 0
    quiet: bool = False

    def __post_init__(self):
        if not 1 <= self.views <= 60:
            raise ConfigError(f"--views {self.views}; expected 1 to 60")
        if self.holdout < 0 or self.holdout == 1:
            raise ConfigError(f"--holdout {self.holdout}; expected 0, or at least 2 parts")
        if self.shape_points < 3:
            raise ConfigError(f"--shape-points {self.shape_points}; expected 3 or more")
        if not self.captions:
            raise ConfigError("--captions is empty; expected description, masked or class-prompts, or --text none")
