"""How far the reading of many files is: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FIRST_LINE_S, _LINE_S = 5.0, 30.0


@contextmanager
def reading_bar(on_progress: Callable[[int, int], None] | None = None) -> Iterator[Callable[[int, int], None]]:
    """A function to be called as tell(done, total). It is `on_progress` where given; else it shows on stderr.

    Of the processes of torchrun only the first shows anything. What ends at once shows nothing.
    """
    if on_progress is not None:
        yield on_progress
    elif os.environ.get("RANK", "0") != "0":
        yield lambda done, total: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("reading shapes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "left"
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None, visible=False)
            yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
    else:
        yield _lines()


def _lines() -> Callable[[int, int], None]:
    began = time.monotonic()
    due = began + _FIRST_LINE_S

    def tell(done: int, total: int) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due and done:
            left = (now - began) / done * (total - done)
            print(f"reading shapes: {done} of {total}, {left:.0f} s left", file=sys.stderr, flush=True)
            due = now + _LINE_S

    return tell
