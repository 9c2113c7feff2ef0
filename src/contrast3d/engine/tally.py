"""How far a pass over many files has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from contrast3d.engine.progress import BAR_SECONDS, LINE_SECONDS, clock


class Tally:
    """So many of `total`, the rate and the time left, on stderr; silent when `quiet`."""

    def __init__(self, total: int, what: str = "shapes", quiet: bool = False):
        self.total, self.what, self.quiet = total, what, quiet
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` are done, where it is time to; `note` stands behind."""
        now = time.monotonic()
        interval = BAR_SECONDS if self._terminal else LINE_SECONDS
        if self.quiet or (now - self._shown < interval and not (self._terminal and done == self.total)):
            return
        self._shown = now
        rate = done / max(now - self._started, 1e-9)
        left = clock((self.total - done) / max(rate, 1e-9))
        text = f"{done:,} of {self.total:,} {self.what}  {rate:.0f}/s  {left} left" + (note and f"  {note}")
        if not self._terminal:
            print(text, file=sys.stderr, flush=True)
            return
        filled = round(24 * done / max(self.total, 1))
        end = "\n" if done == self.total else ""
        print(f"\r\x1b[K{'━' * filled}{'╌' * (24 - filled)}  {text}", end=end, file=sys.stderr, flush=True)
