"""Fine-tuning: the network, or a head on it, trained on the labels; from the pre-trained weights and from scratch.

The clean protocol scores the last weights. `finetune_best_on_test` is what the code of Point-MAE (Pang et al., 2022)
and ReCon (Qi et al., 2023) reports: the accuracy of the epoch that is best on the test set. Votes have rows
of their own.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

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
    UNTRAINED,
    UNTRAINED_LAST,
    VOTED,
    Budget,
    Table,
    budget_name,
    percent,
)
from contrast3d.downstream.tuned_encoders import tunable
from contrast3d.downstream.tuned_views import farthest, released_views, voting_views
from contrast3d.downstream.tuning import Tuning
from contrast3d.downstream.voting import ROUNDS, mean_vote, published_vote
from contrast3d.engine.progress import LINE_SECONDS, clock
from contrast3d.errors import ConfigError

PROTOCOL = "fine-tuning"
Voting = Literal["none", "mean", "published"]
LAST = {SCRATCH: SCRATCH_LAST, UNTRAINED: UNTRAINED_LAST}


def finetune(
    encoder: nn.Module, data: Data, *, name: str = "pre-trained", labels_per_class: Sequence[Budget] = (10, None),
    draws: int = 3, seed: int = 0, transform: Transform | str | None = "objects",
    make_untrained: baselines.MakeUntrained = None, best_on_test: bool = False, voting: Voting = "none",
    rounds: int = ROUNDS, on_progress: Callable[[str], None] | None = None,
    on_column: Callable[[Table], None] | None = None, how: Tuning | None = None, **tuning,
) -> Table:
    """Train a copy of the encoder with a fresh head at each number of labels: all weights, or as `mode` says.

    Beside it, on the same draws: the majority class, a linear probe of the frozen encoder, and the same network from
    scratch (of a frozen mode: untrained), for as many steps on the same batches. The last weights are scored.

    data, name, labels_per_class, draws, make_untrained: as in `evaluate.label_efficiency`; with all labels each network
        is trained once. make_untrained=False leaves out the network from scratch.
    transform: the views to train on; or the name of a preset, which makes views of as many points as the encoder reads
        at a time (`nn.Partwise`), or as the shapes have.
    best_on_test: report the best of at most `epochs` looks at the test set, which is too high; the table, which says
        so, has the last weights in rows of their own.
    voting: "mean" adds a row of ours by the mean of ten passes, "published" the best of `rounds` such votes on test.
    on_column: told the table each time that a number of labels is done with.
    how: a whole `Tuning`, `tuning.released(...)` say. tuning: fields of it (mode, epochs, lr, encoder_lr_scale ...).
    """
    if draws < 1 or not labels_per_class:
        raise ConfigError("finetune: needs at least one draw and one number of labels per class")
    if voting not in get_args(Voting):
        raise ConfigError(f"voting = {voting!r}; expected one of {', '.join(get_args(Voting))}")
    started, tell = time.perf_counter(), on_progress or (lambda message: None)
    usual, how = (how if how and how.published else Tuning()), replace(how or Tuning(), **tuning)
    train, test = labelled_splits(data)
    seeds = tuple(range(seed, seed + draws))
    table = Table(
        how.title(PROTOCOL, best_on_test, usual), train.title.removesuffix(" train"), name,
        tuple(dict.fromkeys(labels_per_class)), seeds, f"{train.hash}-{test.hash}", test.labels, train.classes,
    )
    rows = {
        (budget, s): few_labels(train.labels, budget, s)
        for budget in table.budgets for s in (seeds if budget is not None else seeds[:1])
    }
    read = points_per_view(encoder, train, how)
    votes = Votes(voting, voting_views(how.augmentation or transform, read), rounds)
    runs = contestants(encoder, name, make_untrained, how, views_of(transform, read, how), votes)
    tell(FROZEN)
    probed = dict(zip(rows, _probed(encoder, train, test, rows)))
    seen = farthest(test, read) if how.published else test
    timer = Timer(tell, len(runs) * sum(math.prod(how.schedule(len(r))) for r in rows.values()))
    for budget in table.budgets:
        drawn = [s for b, s in rows if b == budget]
        for s in drawn:
            table.add(MAJORITY, budget, baselines.majority(train.labels[rows[budget, s]], test.labels))
            table.add(FROZEN, budget, probed[budget, s])
        for contestant, trainings in runs.items():
            for s in drawn:
                timer.begin(f"{contestant}, {budget_name(budget)} {LABELS}, draw {s - seed + 1} of {len(drawn)}")
                ended = trainings.run(train.subset(rows[budget, s]), seen, s, best_on_test, timer, voted_on=test)
                table.add(contestant, budget, ended.best)
                if best_on_test:
                    table.add(LAST.get(contestant, TUNED_LAST), budget, ended.last)
                if ended.voted is not None:
                    table.add(VOTED[voting], budget, ended.voted)
                timer.end(ended.last)
        table.wall_s = time.perf_counter() - started
        if on_column:
            on_column(table)
    return table


finetune_best_on_test = partial(finetune, best_on_test=True)


@dataclass(frozen=True)
class Votes:
    """Whether and how ours is classified by votes, too; see voting.py."""

    kind: Voting = "none"
    views: Transform | None = None
    rounds: int = ROUNDS

    def of(self, classifier: Classifier, test: ShapeSet, seed: int) -> Prediction | None:
        """None where there are none."""
        if self.kind == "none":
            return None
        if self.kind == "mean":
            return mean_vote(classifier, test, self.views, seed=seed)
        return published_vote(classifier, test, self.views, rounds=self.rounds, seed=seed)


@dataclass(frozen=True)
class Ended:
    """Predictions of one training: best on test (the last where test was not looked at), last, and voted."""

    best: Prediction
    last: Prediction
    voted: Prediction | None = None


@dataclass(frozen=True)
class Trainings:
    """One contestant. start: seed -> the encoder that training begins with."""

    start: Callable[[int], nn.Module]
    how: Tuning
    encoder_lr_scale: float
    transform: Transform | None
    device: torch.device
    votes: Votes = Votes()

    def run(
        self, few: ShapeSet, test: ShapeSet, seed: int, best_on_test: bool, timer: Timer,
        voted_on: ShapeSet | None = None,
    ) -> Ended:
        """Train on few, score on test. voted_on: the test set with all points that passes of a vote may draw."""
        epochs, steps = self.how.schedule(len(few))
        every = -(-epochs // self.how.epochs)  # few labels take more epochs, and are no reason for more looks
        looks: list[Prediction] = []
        kept: dict = {}

        def after(epoch: int, classifier: Classifier) -> dict[str, float]:
            if best_on_test and epoch % every == 0 and epoch < epochs:
                look = Prediction.score(predict(classifier, test), test.labels, epoch=epoch)
                if self.votes.kind != "none" and look.accuracy > max((x.accuracy for x in looks), default=-1):
                    kept["best"] = copy.deepcopy(classifier.state_dict())
                looks.append(look)
            kept["classifier"] = classifier
            timer.closed(epoch, epochs, steps)
            return {}

        last = fit_classifier(
            self.start, few, test, self.transform, epochs=epochs, seed=seed, batch_size=self.how.batch_size,
            lr=self.how.lr, weight_decay=self.how.weight_decay, encoder_lr_scale=self.encoder_lr_scale,
            warmup_epochs=self.how.warmup(epochs), clip_norm=self.how.clip_norm, schedule=self.how.lr_schedule,
            head=self.how.head(), on_epoch=after, device=self.device,
        )
        if best_on_test:
            last = Prediction.score(last.predictions, test.labels, epoch=epochs)
        best = max([*looks, last], key=lambda look: look.accuracy)
        if best is not last and "best" in kept:
            kept["classifier"].load_state_dict(kept["best"])
        return Ended(best, last, self.votes.of(kept["classifier"], voted_on or test, seed))


def points_per_view(encoder: nn.Module, shapes: ShapeSet, how: Tuning) -> int:
    """As said, as the encoder reads at a time, or as the shapes have."""
    return how.num_points or getattr(encoder, "num_points", shapes.num_points)


def views_of(transform: Transform | str | None, num_points: int, how: Tuning) -> Transform | None:
    """The augmentation of `how`, or the given one; of a preset, points are drawn as released where the tuning is."""
    transform = how.augmentation or transform
    if not isinstance(transform, str):
        return transform
    return released_views(transform, num_points) if how.published else preset(transform, num_points)


def contestants(
    encoder: nn.Module, name: str, make_untrained: baselines.MakeUntrained, how: Tuning, views: Transform | None,
    votes: Votes | None = None,
) -> dict[str, Trainings]:
    """The same network from fresh weights, and ours; of votes ours alone."""
    def begin(make: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
        return lambda seed: tunable(make(seed), seed, how.num_points, how.drop_path)

    shared = {"how": how, "transform": views, "device": device_of(encoder)}
    ours = Trainings(
        begin(lambda seed: encoder), encoder_lr_scale=how.encoder_lr_scale, votes=votes or Votes(), **shared)
    if make_untrained is False:
        return {name: ours}
    fresh = begin(baselines.untrained_maker(encoder, make_untrained))
    scratch = Trainings(fresh, encoder_lr_scale=how.scratch_lr_scale, **shared)
    return {UNTRAINED if how.frozen else SCRATCH: scratch, name: ours}


class Timer:
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


def _probed(
    encoder: nn.Module, train: ShapeSet, test: ShapeSet, rows: dict[tuple[Budget, int], Int[Tensor, " r"]]
) -> list[Prediction]:
    """The linear probe of the frozen encoder on each of the draws."""
    features = extract(encoder, train), extract(encoder, test)
    return probe_all([partial(probe_few, "linear", features, train, test, r, s) for (_, s), r in rows.items()])
