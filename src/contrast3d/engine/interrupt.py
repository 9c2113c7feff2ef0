"""SIGINT and SIGTERM as a polite request: finish the step, save, leave."""

from __future__ import annotations

import signal
import threading


class Interrupt:
    """Context in which the first SIGINT or SIGTERM is only noted; a second one leaves at once.

    `signal` is the number received, or None; the former handlers return at the end of the block. Outside the
    main thread, where Python allows no handlers, the context does nothing.
    """

    def __init__(self):
        self.signal: int | None = None
        self._former: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        if self.signal is not None:
            raise SystemExit(128 + number)
        self.signal = int(number)
