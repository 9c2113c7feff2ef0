"""Batches made ahead of their use, on a thread of their own, so that a GPU does not wait for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch


class Ahead:
    """make(0), make(1), ...: asked for n, the next one is begun before n is handed out.

    A batch is a pure function of its number, so what is made in vain at the end, or where a run is interrupted, changes
    nothing. On the CPU nothing is made ahead: there it would take the cores from the training itself.
    """

    def __init__(self, make: Callable[[int], Any], device: torch.device):
        self._make, self._begun = make, (-1, None)
        self._thread = None if device.type == "cpu" else ThreadPoolExecutor(
            1, "batches", torch.set_num_threads, (torch.get_num_threads(),))

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_) -> None:
        if self._thread:
            self._thread.shutdown(cancel_futures=True)

    def batch(self, number: int) -> Any:
        """make(number); what it raises is raised here."""
        if not self._thread:
            return self._make(number)
        begun, future = self._begun
        if begun != number:
            future = self._begin(number)
        self._begun = (number + 1, self._begin(number + 1))
        return future.result()

    def _begin(self, number: int) -> Future:
        return self._thread.submit(self._make, number)
