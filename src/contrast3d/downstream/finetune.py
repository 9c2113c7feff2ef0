"""Fine-tuning: the whole network trained on the labels, from the pre-trained weights and from scratch.

The clean protocol scores the last weights. `finetune_best_on_test` is what the code of Point-MAE (Pang et al., 2022)
and ReCon (Qi et al., 2023) reports: the accuracy of the epoch that is best on the test set. Without voting.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor, nn

from contrast3d.data.presets import preset
from contrast3d.data.shapes import ShapeSet
from contrast3d.data.transforms import Transform
from contrast3d.downstream import baselines
from contrast3d.downstream.classification import Classifier, fit_classifier, predict
from contrast3d.downstream.features import device_of, extract
from contrast3d.downstream.probes import Prediction, probe_all, probe_few
from contrast3d.downstream.splits import Data, few_labels, labelled_splits
from contrast3d.downstream.table import (
    FROZEN,
    LABELS,
    MAJORITY,
    SCRATCH,
    SCRATCH_LAST,
    TUNED_LAST,
    Budget,
    Table,
    budget_name,
    percent,
)
from contrast3d.engine.progress import LINE_SECONDS, clock
from contrast3d.errors import ConfigError

PROTOCOL = "fine-tuning"
PROTOCOL_BEST = "fine-tuning, best epoch chosen on test, to compare with papers that do so"
WARMUP = 0.1  # of the epochs


@dataclass(frozen=True)
class Tuning:
    """How the networks are trained: AdamW, a tenth of warm-up, then cosine, label smoothing 0.1.

    epochs: passes over the labelled shapes.
    min_steps: optimiser steps at least, by more epochs: of few labels an epoch is a handful of steps, after a dozen of
        which not even the fresh head has converged.
    lr: peak learning rate of whatever starts from fresh weights.
    encoder_lr_scale: the pre-trained encoder's over that; smaller keeps more of what it knows. From scratch there is
        nothing to keep, and the encoder takes `lr`: handicapped, it would be no rival.
    batch_size: shapes per step, one augmented view of each.

    lr and its scale, which is ReCon's, are the best of three pairs on a fold of the training shapes of LDraw-40.
    """

    epochs: int = 15
    min_steps: int = 300
    lr: float = 3e-3
    encoder_lr_scale: float = 0.1
    weight_decay: float = 0.05
    batch_size: int = 32

    def __post_init__(self):
        if self.epochs < 1 or self.min_steps < 0 or self.batch_size < 2 or not self.encoder_lr_scale > 0:
            raise ConfigError(
                f"epochs = {self.epochs}, min_steps = {self.min_steps}, batch_size = {self.batch_size}, "
                f"encoder_lr_scale = {self.encoder_lr_scale:g}; expected at least 1 epoch, 0 steps, 2 shapes, and a "
                "positive scale"
            )

    def schedule(self, shapes: int) -> tuple[int, int]:
        """(epochs, steps per epoch) of a training on so many shapes."""
        steps = max(1, shapes // self.batch_size)
        return max(self.epochs, math.ceil(self.min_steps / steps)), steps


def finetune(
    encoder: nn.Module, data: Data, *, name: str = "pre-trained", labels_per_class: Sequence[Budget] = (10, None),
    draws: int = 3, seed: int = 0, transform: Transform | str | None = "objects",
    make_untrained: baselines.MakeUntrained = None, best_on_test: bool = False,
    on_progress: Callable[[str], None] | None = None, on_column: Callable[[Table], None] | None = None, **tuning,
) -> Table:
    """Train a copy of the encoder, all of its weights, with a fresh head at each number of labels.

    Beside it, on the same draws: the majority class, a linear probe of the frozen encoder, and the same network from
    scratch, for as many steps on the same batches. The last weights are scored.

    data, name, labels_per_class, draws, make_untrained: as in `evaluate.label_efficiency`; with all labels each network
        is trained once. make_untrained=False leaves out the network from scratch.
    transform: the views to train on; or the name of a preset, which makes views of as many points as the encoder reads
        at a time (`nn.Partwise`), or as the shapes have.
    best_on_test: report the best of at most `epochs` looks at the test set, which is too high; the table, which says
        so, has the last weights in rows of their own.
    on_column: told the table each time that a number of labels is done with.
    tuning: fields of `Tuning` (epochs, lr, encoder_lr_scale ...).
    """
    if draws < 1 or not labels_per_class:
        raise ConfigError("finetune: needs at least one draw and one number of labels per class")
    started, how, tell = time.perf_counter(), Tuning(**tuning), on_progress or (lambda message: None)
    train, test = labelled_splits(data)
    seeds = tuple(range(seed, seed + draws))
    table = Table(
        (PROTOCOL_BEST if best_on_test else PROTOCOL) + _departures(how), train.title.removesuffix(" train"), name,
        tuple(dict.fromkeys(labels_per_class)), seeds, f"{train.hash}-{test.hash}", test.labels, train.classes,
    )
    rows = {
        (budget, s): few_labels(train.labels, budget, s)
        for budget in table.budgets for s in (seeds if budget is not None else seeds[:1])
    }
    if isinstance(transform, str):
        transform = preset(transform, getattr(encoder, "num_points", train.num_points))
    runs = {name: _Trainings(_copies(encoder), how, how.encoder_lr_scale, transform, device_of(encoder))}
    if make_untrained is not False:
        fresh = baselines.untrained_maker(encoder, make_untrained)
        runs = {SCRATCH: _Trainings(fresh, how, 1.0, transform, device_of(encoder)), **runs}
    tell(FROZEN)
    probed = dict(zip(rows, _probed(encoder, train, test, rows)))
    timer = _Timer(tell, len(runs) * sum(math.prod(how.schedule(len(r))) for r in rows.values()))
    for budget in table.budgets:
        drawn = [s for b, s in rows if b == budget]
        for s in drawn:
            table.add(MAJORITY, budget, baselines.majority(train.labels[rows[budget, s]], test.labels))
            table.add(FROZEN, budget, probed[budget, s])
        for contestant, trainings in runs.items():
            for s in drawn:
                timer.begin(f"{contestant}, {budget_name(budget)} {LABELS}, draw {s - seed + 1} of {len(drawn)}")
                best, last = trainings.run(train.subset(rows[budget, s]), test, s, best_on_test, timer)
                table.add(contestant, budget, best)
                if best_on_test:
                    table.add(TUNED_LAST if contestant == name else SCRATCH_LAST, budget, last)
                timer.end(last)
        table.wall_s = time.perf_counter() - started
        if on_column:
            on_column(table)
    return table


def _departures(how: Tuning) -> str:
    """What is not as by default, as part of the protocol's name: other trainings are no like to compare with."""
    own = {name: value for name, value in asdict(how).items() if value != getattr(Tuning, name)}
    return f" ({', '.join(f'{name} {value:g}' for name, value in own.items())})" if own else ""


finetune_best_on_test = partial(finetune, best_on_test=True)


@dataclass(frozen=True)
class _Trainings:
    """One contestant. start: seed -> the encoder that training begins with."""

    start: Callable[[int], nn.Module]
    how: Tuning
    encoder_lr_scale: float
    transform: Transform | None
    device: torch.device

    def run(
        self, few: ShapeSet, test: ShapeSet, seed: int, best_on_test: bool, timer: _Timer
    ) -> tuple[Prediction, Prediction]:
        """(best on test, last); both the last where the test set is not looked at on the way."""
        epochs, steps = self.how.schedule(len(few))
        every = -(-epochs // self.how.epochs)  # few labels take more epochs, and are no reason for more looks
        looks: list[Prediction] = []

        def after(epoch: int, classifier: Classifier) -> dict[str, float]:
            if best_on_test and epoch % every == 0 and epoch < epochs:
                looks.append(Prediction.score(predict(classifier, test), test.labels, epoch=epoch))
            timer.closed(epoch, epochs, steps)
            return {}

        last = fit_classifier(
            self.start, few, test, self.transform, epochs=epochs, seed=seed, batch_size=self.how.batch_size,
            lr=self.how.lr, weight_decay=self.how.weight_decay, encoder_lr_scale=self.encoder_lr_scale,
            warmup_epochs=WARMUP * epochs, on_epoch=after, device=self.device,
        )
        if not best_on_test:
            return last, last
        last = Prediction.score(last.predictions, test.labels, epoch=epochs)
        return max([*looks, last], key=lambda look: look.accuracy), last


class _Timer:
    """Tells what is trained, now and then how far it is, what it reached, and how long all that remains will take."""

    def __init__(self, tell: Callable[[str], None], steps: int):
        self.tell, self.steps, self.done, self.what = tell, steps, 0, ""
        self.started = self.told = time.perf_counter()

    def begin(self, what: str) -> None:
        self.what = what
        self._say(what)

    def closed(self, epoch: int, epochs: int, steps: int) -> None:
        """An epoch of so many steps is over."""
        self.done += steps
        if time.perf_counter() - self.told > LINE_SECONDS and epoch < epochs:
            self._say(f"{self.what}: epoch {epoch} of {epochs}, {self._left()}")

    def end(self, reached: Prediction) -> None:
        self._say(f"{self.what}: {percent(reached.accuracy, None)} %, {self._left()}")

    def _left(self) -> str:
        return f"{clock((time.perf_counter() - self.started) * (self.steps / self.done - 1))} left"

    def _say(self, message: str) -> None:
        self.told = time.perf_counter()
        self.tell(message)


def _copies(encoder: nn.Module) -> Callable[[int], nn.Module]:
    """seed -> the encoder as it was given, free to be trained."""
    return lambda seed: copy.deepcopy(encoder).requires_grad_()


def _probed(
    encoder: nn.Module, train: ShapeSet, test: ShapeSet, rows: dict[tuple[Budget, int], Int[Tensor, " r"]]
) -> list[Prediction]:
    """The linear probe of the frozen encoder on each of the draws."""
    features = extract(encoder, train), extract(encoder, test)
    return probe_all([partial(probe_few, "linear", features, train, test, r, s) for (_, s), r in rows.items()])
