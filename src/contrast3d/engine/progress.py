"""What a user sees while training: a bar on a terminal, a line now and then elsewhere, TensorBoard."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from contrast3d.engine.schedule import Plan
from contrast3d.errors import ConfigError
from contrast3d.tally import BAR_SECONDS, LINE_SECONDS, clock


class Progress:
    """Epoch, loss, rate, elapsed and remaining time on stderr; silent when `quiet`.

    batch_size: shapes in one loader batch over all ranks; None counts steps instead. what: they are, if not shapes.
    """

    def __init__(self, plan: Plan, batch_size: int | None = None, quiet: bool = False, what: str = "shapes"):
        self.plan, self.batch_size, self.quiet, self.what = plan, batch_size, quiet, what
        self.numbers: dict[str, float] = {}
        self._interval = BAR_SECONDS if sys.stderr.isatty() else LINE_SECONDS
        self._first: tuple[float, int] | None = None  # (time, step) behind the first step, which compiles kernels
        self._shown: deque[tuple[float, int]] = deque(maxlen=20)  # likewise of the last renderings
        self._bar = None

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = BarColumn(bar_width=24), TextColumn("{task.percentage:3.0f} %  {task.description}")
            self._bar = Bar(*columns, console=Console(stderr=True), auto_refresh=False)
            self._bar.add_task("starting", total=1.0)
            self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, seconds: float, loss: Callable[[], float]) -> None:
        """Show the state after `step` steps; `loss` is only read when it is time to show it."""
        now = time.monotonic()
        last = step == self.plan.steps
        if self.quiet or (self._shown and now - self._shown[-1][0] < self._interval and not last):
            return
        self._first = self._first or (now, step)
        self._shown.append((now, step))
        done = self.plan.progress(step, seconds)
        text = "  ".join([
            f"epoch {min(step // self.plan.steps_per_epoch + 1, self.plan.settings.epochs)}"
            f"/{self.plan.settings.epochs}",
            f"loss {loss():.4g}",
            *(f"{name} {value:.3g}" for name, value in self.numbers.items()),
            *self._rate(),
            ", ".join([f"{clock(seconds)} elapsed", *self._left(now, step, seconds)]),
        ])
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, description=text, refresh=True)
        else:
            print(f"{100 * done:3.0f} %  {text}", file=sys.stderr, flush=True)

    def _rate(self) -> list[str]:
        """"120 shapes/s", or nothing where a single step is all there is to tell it from."""
        (then, first), (now, last) = self._shown[0], self._shown[-1]
        if last == first:
            return []
        steps_per_second = (last - first) / max(now - then, 1e-9)
        if self.batch_size is None:
            return [f"{steps_per_second:.3g} steps/s"]
        return [f"{steps_per_second * self.batch_size * self.plan.settings.accumulate:.3g} {self.what}/s"]

    def _left(self, now: float, step: int, seconds: float) -> list[str]:
        """"0:42 left", by the steps behind the first or by the budget, whichever ends sooner; nothing if unknown."""
        then, first = self._first
        budget = self.plan.settings.max_seconds
        ends = [] if budget is None else [max(0.0, budget - seconds)]
        if step > first:
            ends.append((now - then) * (self.plan.steps - step) / (step - first))
        return [f"{clock(min(ends))} left"] if ends else []


def tensorboard_writer(folder: Path, step: int):
    """A SummaryWriter that overwrites what came after `step`; a ConfigError without the extra `log`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("tensorboard is not installed. Try: pip install 'contrast3d[log]'") from None
    return SummaryWriter(folder, purge_step=step + 1)
