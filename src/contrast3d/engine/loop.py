"""The one loop, for everything whose forward returns {"loss": scalar, **numbers to log}."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from contrast3d.engine import distributed
from contrast3d.engine.ahead import Ahead
from contrast3d.engine.backward import make_backward
from contrast3d.engine.checkpoint import Checkpoints, Position, diverged
from contrast3d.engine.interrupt import Interrupt
from contrast3d.engine.journal import Journal
from contrast3d.engine.means import RunningMeans
from contrast3d.engine.memory import keep_freed_memory
from contrast3d.engine.optimizers import build_optimizer, set_lr
from contrast3d.engine.progress import Progress
from contrast3d.engine.randomness import preserved_randomness, seed_everything
from contrast3d.engine.run_dir import RunDir
from contrast3d.engine.schedule import Plan
from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError, FailedElsewhere
from contrast3d.ops.collective import rank

# Reading the loss makes a GPU wait, so there it is checked for NaN only every so many steps.
GPU_CHECK_STEPS = 20


@runtime_checkable
class Loader(Protocol):
    """Batches by number: the same (epoch, step) gives the same batch, so that a run resumes at an integer.

    Where a GPU trains, `batch` is called one step ahead, on a thread of its own: it must not draw from torch's global
    generator, which the training draws from. In a distributed run each rank's loader gives that rank's share of the
    batch. `batch_size`, where there is one, is the number of shapes in a batch over all ranks; `what` says what they
    are, if not shapes.
    """

    def __len__(self) -> int: ...

    def batch(self, epoch: int, step: int) -> Any: ...


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    steps, epochs: finished ones, over all resumes; seconds: likewise.
    metrics: the last numbers of training and of `on_epoch`.
    signal: what was received meanwhile, or None; one that came with the last step interrupted nothing.
    """

    status: Literal["finished", "interrupted"]
    steps: int
    epochs: int
    seconds: float
    metrics: dict[str, float]
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """0, or 128 + signal as shells expect (130 for Ctrl-C, 143 for SIGTERM)."""
        return 0 if self.status == "finished" else 128 + self.signal


def train(
    method: nn.Module,
    loader: Loader,
    settings: Training,
    run: RunDir | None = None,
    *,
    device: str | torch.device = "cpu",
    resume: bool = True,
    on_epoch: Callable[[int, nn.Module], dict[str, float]] | None = None,
    checkpoint_steps: int | None = None,
    quiet: bool = False,
    tensorboard: bool = False,
) -> Outcome:
    """Train `method` on the batches of `loader`; resume `run` where it stopped.

    method(batch) returns {"loss": scalar, **numbers to log}. Optional: `before_step(progress)` and
    `after_step()` around each optimiser step, `param_groups()`, and `encoder`, saved with every checkpoint.
    on_epoch(epochs done, method) runs on the main rank after each epoch, in eval mode; its numbers, if it
    returns any, are logged. What it draws from the generators does not change the training. It must not talk to
    other ranks.
    checkpoint_steps: save every so many steps, beside every `settings.checkpoint_seconds`.

    On the CPU, a run that was interrupted or killed ends with the same bits as one that was not. SIGINT and
    SIGTERM finish the step, save, and return an interrupted Outcome. Raises ConfigError when the loss is NaN
    or infinite, when `run` was trained with other settings, or when another process trains in it.
    """
    with ExitStack() as held:
        if run is not None:
            with distributed.together():
                held.enter_context(run.locked())
        return _train(method, loader, settings, run, torch.device(device), resume, on_epoch, checkpoint_steps, quiet,
                      tensorboard)


def _train(
    method: nn.Module, loader: Loader, settings: Training, run: RunDir | None, device: torch.device, resume: bool,
    on_epoch: Callable[[int, nn.Module], dict[str, float]] | None, checkpoint_steps: int | None, quiet: bool,
    tensorboard: bool,
) -> Outcome:
    """`train`, with the run folder locked."""
    keep_freed_memory()
    plan = Plan(settings, len(loader))
    seed_everything(settings.seed + rank())
    method.to(device)
    optimizer = build_optimizer(method, settings)
    checkpoints = Checkpoints(run, method, optimizer, plan, checkpoint_steps)
    with distributed.together():
        position = checkpoints.restore(resume)
    _check_ranks_agree(position.step)
    backward = make_backward(method, settings, device)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    check_steps = 1 if device.type == "cpu" else GPU_CHECK_STEPS
    display = Progress(plan, getattr(loader, "batch_size", None), quiet or not distributed.is_main(),
                       getattr(loader, "what", "shapes"))
    journal = Journal(run, display, tensorboard, position.step)
    status, started, start_step = "finished", time.perf_counter() - position.seconds, position.step
    method.train()

    def make(number: int) -> Any:
        """Batch `number` of the run, counted over all epochs."""
        epoch, step = divmod(number // settings.accumulate, plan.steps_per_epoch)
        return loader.batch(epoch, step * settings.accumulate + number % settings.accumulate)

    with Interrupt() as interrupt, journal, Ahead(make, device) as batches:
        while True:
            # 1. Where are we? Ranks take the same decision at the same step.
            due = checkpoints.due(position.step)
            broken = (due or position.step % check_steps == 0) and not position.means.finite("loss")
            due, broken, stop, position.seconds = distributed.maximum(
                due, broken, interrupt.signal or 0, time.perf_counter() - started
            )
            progress = plan.progress(position.step, position.seconds)
            if broken:
                raise diverged("the loss is NaN or infinite", position.step, optimizer, run)
            if progress >= 1:
                break
            if due or stop:
                checkpoints.save(position)
            if stop:
                status = "interrupted"
                break

            # 2. One optimiser step over `accumulate` batches.
            set_lr(optimizer, lambda peak: plan.lr(position.step, position.seconds, peak))
            if hasattr(method, "before_step"):
                method.before_step(progress)
            optimizer.zero_grad()
            for i in range(settings.accumulate):
                batch = batches.batch(position.step * settings.accumulate + i)
                for name, value in backward(batch, i == settings.accumulate - 1).items():
                    position.means.add(name, value)
            if settings.clip_norm is not None:
                norm = nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
                position.means.add("grad_norm", norm)
            optimizer.step()
            if hasattr(method, "after_step"):
                method.after_step()
            position.step += 1

            # 3. Report.
            position.seconds = time.perf_counter() - started
            display.update(position.step, position.seconds, lambda: position.means.value("loss"))
            if position.step % plan.steps_per_epoch == 0:
                _close_epoch(position, method, optimizer, plan, journal, on_epoch)

        if status == "finished" and position.means.count:  # the time ran out within an epoch
            _close_epoch(position, method, optimizer, plan, journal, on_epoch)
        if status == "finished" and position.step > start_step:
            checkpoints.save(position)
        elif status == "finished":
            checkpoints.mend_encoder(position.step)

    epochs = position.step // plan.steps_per_epoch
    signal = int(stop) if status == "interrupted" else interrupt.signal
    return Outcome(status, position.step, epochs, position.seconds, position.metrics, signal)


def _close_epoch(
    position: Position, method: nn.Module, optimizer: torch.optim.Optimizer, plan: Plan, journal: Journal,
    on_epoch: Callable[[int, nn.Module], dict[str, float]] | None,
) -> None:
    """Log the means of the epoch and measure the method; `position` then stands at the start of the next."""
    epoch = math.ceil(position.step / plan.steps_per_epoch)
    numbers = position.means.compute()
    if not math.isfinite(numbers["loss"]):
        raise diverged("the loss is NaN or infinite", position.step, optimizer, journal.run)
    numbers["lr"] = optimizer.param_groups[0]["lr"]
    position.means, position.metrics = RunningMeans(), numbers
    journal.write("train", position.step, epoch, numbers, position.seconds)
    if on_epoch is None or not distributed.is_main():
        return
    method.eval()
    with preserved_randomness():
        measured = {name: float(value) for name, value in on_epoch(epoch, method).items()}
    method.train()
    if measured:  # on_epoch may look only now and then
        journal.write("epoch", position.step, epoch, measured, position.seconds)
        journal.watch_health(measured, epoch)
    position.metrics = {**numbers, **measured}


def _check_ranks_agree(step: int) -> None:
    most, least = distributed.maximum(step, -step)
    if most == -least:
        return
    if not distributed.is_main():
        raise FailedElsewhere("rank 0 says why")
    raise ConfigError(
        f"the ranks resume at different steps ({int(-least)} to {int(most)}). "
        "Try: a run folder that all machines share"
    )
