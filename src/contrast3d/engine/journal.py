"""Where the numbers of a run go: metrics.jsonl, the progress display, TensorBoard."""

from __future__ import annotations

from contrast3d.engine.collapse import collapse_message, warn_of_collapse
from contrast3d.engine.distributed import is_main
from contrast3d.engine.progress import Progress, tensorboard_writer
from contrast3d.engine.run_dir import RunDir
from contrast3d.errors import ConfigError


class Journal:
    """Context that records one training run; on ranks other than the main one it keeps silent."""

    def __init__(self, run: RunDir | None, progress: Progress, tensorboard: bool = False, step: int = 0):
        if tensorboard and run is None:
            raise ConfigError("tensorboard = True needs a run folder to write to. Try: run=RunDir(path)")
        self.run, self.progress = run, progress
        self._tensorboard = None
        if tensorboard and is_main():
            self._tensorboard = tensorboard_writer(run.path / "tensorboard", step)
        self._warned = False

    def __enter__(self) -> Journal:
        self.progress.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.progress.__exit__(*error)
        if self._tensorboard is not None:
            self._tensorboard.close()

    def write(self, kind: str, step: int, epoch: int, numbers: dict[str, float], seconds: float) -> None:
        """One line of metrics.jsonl. `kind`: "train" (means over an epoch) or "epoch" (from on_epoch).

        All fields but `seconds` are the same in a resumed and in an uninterrupted run.
        """
        if self.run is not None:
            place = {"kind": kind, "step": step, "epoch": epoch}
            self.run.log({**place, **numbers, "seconds": round(seconds, 3)})
        if self._tensorboard is not None:
            for name, value in numbers.items():
                self._tensorboard.add_scalar(f"{kind}/{name}", value, step)
            self._tensorboard.flush()

    def watch_health(self, numbers: dict[str, float], epoch: int) -> None:
        """Warn, once, when the numbers that on_epoch measured tell of a collapse."""
        self.progress.numbers = dict(list(numbers.items())[:3])
        message = collapse_message(numbers, epoch)
        if message is not None and not self._warned:
            self._warned = True
            warn_of_collapse(message, self.progress.quiet)
