"""Learning-rate schedules as pure functions of the optimiser step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError


@dataclass(frozen=True)
class Plan:
    """How many optimiser steps a run takes, how far it is, and the learning rate there.

    With accumulation, the batches of an epoch that do not fill a whole step are left out, like drop_last.
    """

    settings: Training
    batches_per_epoch: int

    def __post_init__(self):
        if self.steps_per_epoch < 1:
            raise ConfigError(
                f"an epoch has {self.batches_per_epoch} batches, too few for training.accumulate = "
                f"{self.settings.accumulate}. Try: a smaller batch_size or accumulate"
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.batches_per_epoch // self.settings.accumulate

    @property
    def steps(self) -> int:
        return self.settings.epochs * self.steps_per_epoch

    def progress(self, step: int, seconds: float) -> float:
        """Share of the run that is done, in [0, 1]: by steps or by the time budget, whichever is further."""
        return min(1.0, self._effective_step(step, seconds) / self.steps)

    def lr(self, step: int, seconds: float, peak: float) -> float:
        """Learning rate of parameters whose highest is `peak`, for optimiser step `step` (0-based).

        peak * lr_factor, but for cosine-epochs: with T + 1 epochs, t the epochs that were finished before the one that
        precedes this one, W those of the warm-up, s and m the two rates `warmup_start_lr` and `min_lr`:
        s + (peak - s) t / W while t < W, then m + (peak - m) (1 + cos(pi t / T)) / 2. So the first two epochs are
        alike, and the cosine does not begin at the warm-up's end: as Point-MAE and ReCon were trained, for 301 epochs.
        """
        if self.settings.schedule != "cosine-epochs":
            return peak * self.lr_factor(step, seconds)
        start, least, warmup = self.settings.warmup_start_lr, self.settings.min_lr, self.settings.warmup_epochs
        t = max(0, int(self._effective_step(step, seconds) // self.steps_per_epoch) - 1)
        if t < warmup:
            return start + t * ((peak - start) / warmup)
        last = max(1, self.settings.epochs - 1)
        return least + 0.5 * (peak - least) * (1 + math.cos(math.pi * min(t, last) / last))

    def lr_factor(self, step: int, seconds: float) -> float:
        """Multiplier of the peak learning rate for optimiser step `step` (0-based).

        Warm-up over W steps: (t + 1) / W. Afterwards, with T steps in all, cosine:
        (1 + cos(pi (t - W) / (T - W))) / 2; poly: (1 - (t - W) / (T - W + 1))^poly_power, never quite zero;
        step: step_gamma^floor(epoch / step_epochs). cosine-epochs: see `lr`, for parameters whose peak is settings.lr.
        A time budget moves t forward, so that the schedule always ends with the run.
        """
        if self.settings.schedule == "cosine-epochs":
            return self.lr(step, seconds, self.settings.lr) / self.settings.lr
        t = self._effective_step(step, seconds)
        warmup = self.settings.warmup_epochs * self.steps_per_epoch
        if t < warmup:
            return min(1.0, (t + 1) / warmup)
        if self.settings.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (t - warmup) / (self.steps - warmup))))
        if self.settings.schedule == "poly":
            return max(0.0, 1 - (t - warmup) / (self.steps - warmup + 1)) ** self.settings.poly_power
        if self.settings.schedule == "step":
            return self.settings.step_gamma ** (t // self.steps_per_epoch // self.settings.step_epochs)
        return 1.0

    def _effective_step(self, step: int, seconds: float) -> float:
        budget = self.settings.max_seconds
        return float(step) if budget is None else max(float(step), seconds / budget * self.steps)
