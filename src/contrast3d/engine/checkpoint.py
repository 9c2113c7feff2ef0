"""What a run must remember to go on bit for bit, and when to write it down."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import torch
from torch import nn

from contrast3d.engine import distributed
from contrast3d.engine.means import RunningMeans
from contrast3d.engine.randomness import random_state, set_random_state
from contrast3d.engine.run_dir import RunDir, differences
from contrast3d.engine.schedule import Plan
from contrast3d.errors import ConfigError, Contrast3dError, DataError, FailedElsewhere
from contrast3d.ops.collective import rank

# An epoch's end is saved when saves have cost less than this share of the time.
CHEAP_SHARE = 0.05


@dataclass
class Position:
    """Where a run stands: finished optimiser steps, seconds, means of the open epoch, last closed metrics."""

    step: int = 0
    seconds: float = 0.0
    means: RunningMeans = field(default_factory=RunningMeans)
    metrics: dict[str, float] = field(default_factory=dict)


class Checkpoints:
    """Saves and restores method, optimiser, generators and position in a RunDir; idle when `run` is None."""

    def __init__(
        self, run: RunDir | None, method: nn.Module, optimizer: torch.optim.Optimizer, plan: Plan,
        every_steps: int | None = None,
    ):
        self.run, self.method, self.optimizer, self.plan = run, method, optimizer, plan
        self.every_steps = every_steps
        self._saved_at, self._saved_step, self._cost = time.monotonic(), -1, 0.0

    def restore(self, resume: bool) -> Position:
        """The saved position, with everything else put back in place; a fresh one when there is none."""
        if self.run is None:
            return Position()
        if not resume:
            self.run.restart()
        if not resume or not self.run.has_state:
            self.run.rewind(0)
            return Position()
        state = self.run.load_state()
        self._check(state)
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        if rank() < len(state["random"]):  # a new rank keeps its own seed
            set_random_state(state["random"][rank()])
        self.run.rewind(state["step"])
        self._saved_step = state["step"]
        return Position(state["step"], state["seconds"], RunningMeans(state["means"]), state["metrics"])

    def due(self, step: int) -> bool:
        """Whether to save before optimiser step `step`; the initial weights, being draws, always are."""
        if self.run is None or step == self._saved_step:
            return False
        if self._saved_step < 0:
            return True
        if self.every_steps is not None and step % self.every_steps == 0:
            return True
        waited = time.monotonic() - self._saved_at
        if step % self.plan.steps_per_epoch == 0 and waited * CHEAP_SHARE > self._cost:
            return True
        return waited >= self.plan.settings.checkpoint_seconds

    def save(self, position: Position) -> None:
        """Write state.pt and, for a method with an encoder, encoder.safetensors. Every rank must call it."""
        if self.run is None:
            return
        start = time.monotonic()
        self._check_finite(position.step)
        self.run.save_state({
            "settings": self._fingerprint,
            "step": position.step,
            "seconds": position.seconds,
            "means": position.means.state(),
            "metrics": position.metrics,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": distributed.gather(random_state()),
        })
        self._save_encoder(position.step)
        self._saved_at, self._saved_step = time.monotonic(), position.step
        self._cost = self._saved_at - start

    def mend_encoder(self, step: int) -> None:
        """Write encoder.safetensors again where it is missing, damaged, or of a step before state.pt's `step`."""
        if self.run is None or not distributed.is_main():
            return
        try:
            origin = json.loads(self.run.encoder_metadata().get("contrast3d", "{}"))
            if origin.get("step") == step:
                return
        except DataError:
            pass
        self._save_encoder(step)

    def _save_encoder(self, step: int) -> None:
        encoder = getattr(self.method, "encoder", None)
        if isinstance(encoder, nn.Module) and distributed.is_main():
            origin = {"recipe": self.run.recipe if self.run.has_recipe else {}, "step": step}
            # one entry, since safetensors writes several in random order
            self.run.save_encoder(encoder, {"contrast3d": json.dumps(origin)})

    @property
    def _fingerprint(self) -> dict:
        return {**self.plan.settings.fingerprint, "batches_per_epoch": self.plan.batches_per_epoch}

    def _check(self, state: dict) -> None:
        if "settings" not in state:
            raise DataError(f"{self.run.path}/state.pt", f"the keys {list(state)[:5]}", "the state of a run")
        changed = differences(state["settings"], self._fingerprint)
        if changed:
            raise ConfigError(
                f"{self.run.path} was trained with other settings: {'; '.join(changed)}. "
                "Try: the run's own settings to resume it, another run folder, or --restart (in Python resume=False)"
            )
        shapes = {name: list(tensor.shape) for name, tensor in self.method.state_dict().items()}
        changed = differences({name: list(tensor.shape) for name, tensor in state["method"].items()}, shapes)
        if changed:
            raise ConfigError(
                f"{self.run.path} holds another model: {'; '.join(changed[:3])}. "
                "Try: the run's own model to resume it, another run folder, or --restart (in Python resume=False)"
            )

    def _check_finite(self, step: int) -> None:
        broken = [n for n, p in self.method.named_parameters() if p.numel() and not torch.isfinite(p).all()]
        if broken:
            raise diverged(f"parameters ({broken[0]}, ...) are not finite", step, self.optimizer, self.run)


def diverged(what: str, step: int, optimizer: torch.optim.Optimizer, run: RunDir | None) -> Contrast3dError:
    """The error of a training that has left the finite numbers, which all ranks do at once; nothing is saved after."""
    if not distributed.is_main():
        return FailedElsewhere("rank 0 says why")
    lr = optimizer.param_groups[0]["lr"]
    kept = f" The last good checkpoint is kept in {run.path}." if run is not None and run.has_state else ""
    return ConfigError(
        f"{what} after step {step} at lr {lr:.3g}.{kept} Try: a lower lr, a longer warmup_epochs, clip_norm=1"
    )
