"""How far a pass over many files has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections import deque

BAR_SECONDS = 0.5
LINE_SECONDS = 10.0
_RATE_OF = 20  # showings: the rate is of the time since the first of them


class Tally:
    """So many of `total`, the rate and the time left, on stderr; silent when `quiet`.

    Of the processes of torchrun only the first shows anything, and what ends at once shows nothing. Leave it as a
    context, so that what is printed next does not stand behind a bar.
    """

    def __init__(self, total: int, what: str = "shapes", quiet: bool = False):
        self.total, self.what = total, what
        self.quiet = quiet or os.environ.get("RANK", "0") != "0"
        self._terminal = sys.stderr.isatty()
        self._marks: deque[tuple[float, int]] = deque(maxlen=_RATE_OF)  # (time, done)
        self._shown = time.monotonic()
        self._open = False  # whether a bar stands in the line that the cursor is in

    def __enter__(self) -> Tally:
        return self

    def __exit__(self, *_) -> None:
        if self._open:
            print(file=sys.stderr, flush=True)
            self._open = False

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` are done, where it is time to; `note` stands behind."""
        now = time.monotonic()
        if not self._marks:  # what came before the first one, kernels that are compiled say, does not tell the rate
            self._marks.append((now, done))
        interval = BAR_SECONDS if self._terminal else LINE_SECONDS
        if self.quiet or (now - self._shown < interval and not (self._open and done == self.total)):
            return
        self._shown = now
        (then, before), *_ = self._marks
        self._marks.append((now, done))
        rate = (done - before) / max(now - then, 1e-9)
        text = f"{done:,} of {self.total:,} {self.what}"
        if done > before:
            text += f"  {rate:.0f}/s  {clock((self.total - done) / rate)} left"
        text += note and f"  {note}"
        if not self._terminal:
            print(text, file=sys.stderr, flush=True)
            return
        filled = round(24 * done / max(self.total, 1))
        print(f"\r\x1b[K{'━' * filled}{'╌' * (24 - filled)}  {text}", end="", file=sys.stderr, flush=True)
        self._open = True


def clock(seconds: float) -> str:
    """m:ss, or h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
