"""Running means of what a method logs, without waiting for the device at every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from contrast3d.engine import distributed


class RunningMeans:
    """Sums of named numbers since the last reset; only `compute`, `value` and `state` read them back.

    A NaN or infinity stays in its sum, so that a check now and then misses none.
    """

    def __init__(self, state: dict | None = None):
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        for name, (value, count) in (state or {}).items():
            self._sums[name], self._counts[name] = torch.tensor(value), count

    @property
    def count(self) -> int:
        """How many steps have been added."""
        return max(self._counts.values(), default=0)

    def add(self, name: str, value: Tensor | float | int) -> None:
        """Add one step's value of `name`, a number or a 0-d tensor."""
        value = value.detach().float() if isinstance(value, Tensor) else torch.tensor(float(value))
        former = self._sums.get(name)
        # a clone, since the method may go on writing to a buffer it reports
        self._sums[name] = value.clone() if former is None else former.to(value.device) + value
        self._counts[name] = self._counts.get(name, 0) + 1

    def value(self, name: str) -> float:
        """The mean of one number on this rank; NaN before the first."""
        return float(self._sums[name]) / self._counts[name] if name in self._sums else math.nan

    def finite(self, name: str) -> bool:
        """Whether all values added so far were finite."""
        return name not in self._sums or bool(torch.isfinite(self._sums[name]))

    def compute(self) -> dict[str, float]:
        """All means over the steps and the ranks; a rank that never logged a name has no part in its mean."""
        states = distributed.gather(self.state())
        found = {name: [state[name] for state in states if name in state] for state in states for name in state}
        return {n: sum(value for value, _ in of) / sum(count for _, count in of) for n, of in found.items()}

    def state(self) -> dict:
        """What the constructor takes to go on from here."""
        return {name: [float(value), self._counts[name]] for name, value in self._sums.items()}
