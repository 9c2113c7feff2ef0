"""`Machine`: where a recipe runs. Nothing here changes the numbers of a run, so none of it is in recipe.json."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contrast3d.errors import ConfigError, Contrast3dError, FailedElsewhere


@dataclass(frozen=True)
class Machine:
    """Folders, device and threads.

    Attributes:
        data_root: folder of the data set's files; embedded sets need none.
        out: the run folder, -o for short; default runs/RECIPE, of the demo runs/demo. An unfinished run in it is
            resumed.
        restart: forget what the run folder holds and begin again.
        device: auto (CUDA, else Apple GPU, else CPU), cpu, cuda, cuda:1 or mps.
        threads: CPU threads; 0 takes all that torch sees.
        quiet: no progress bar.
        tensorboard: also write event files (pip install 'contrast3d[log]').
    """

    data_root: Path = Path("data")
    out: Path | None = None
    restart: bool = False
    device: str = "auto"
    threads: int = 0
    quiet: bool = False
    tensorboard: bool = False

    def __post_init__(self):
        if self.threads < 0:
            raise ConfigError(f"threads = {self.threads}; expected a number of threads, or 0 for all")

    def set_threads(self) -> None:
        if self.threads:
            import torch

            torch.set_num_threads(self.threads)


@contextmanager
def told_once() -> Iterator[None]:
    """A block that fails alike in all processes of torchrun: only the first of them says why."""
    try:
        yield
    except Contrast3dError as error:
        if is_first_process():
            raise
        raise FailedElsewhere("rank 0 says why") from error


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started: the one that prints."""
    return os.environ.get("RANK", "0") == "0"
