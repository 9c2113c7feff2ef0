"""Few-shot classification by fine-tuning: a training of its own for each of many small problems."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor, nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.data.transforms import Transform
from contrast3d.downstream import baselines
from contrast3d.downstream.features import extract
from contrast3d.downstream.few_shot import check_trials, conditions_of, episodes_of
from contrast3d.downstream.finetune import LAST, Ended, Timer, contestants, points_per_view, views_of
from contrast3d.downstream.probes import Prediction, probe, probe_all
from contrast3d.downstream.splits import Data, labelled_splits
from contrast3d.downstream.table import FROZEN, MAJORITY, TUNED_LAST, Table
from contrast3d.downstream.tuned_views import farthest
from contrast3d.downstream.tuning import Tuning

PROTOCOL = "few-shot fine-tuning"
MIN_STEPS = 150  # of a training: these are many, and small


def few_shot_finetune(
    encoder: nn.Module, data: Data, *, name: str = "pre-trained", ways: Sequence[int] = (5, 10),
    shots: Sequence[int] = (10, 20), queries: int = 20, trials: int = 10, seed: int = 0,
    transform: Transform | str | None = "objects", make_untrained: baselines.MakeUntrained = None,
    best_on_test: bool = False, on_progress: Callable[[str], None] | None = None, how: Tuning | None = None, **tuning,
) -> Table:
    """n-way k-shot accuracy of networks trained on each trial's labels, over seeded trials, those of `few_shot`.

    Beside it, on the same trials: the majority class, a linear probe of the frozen encoder, and the same network from
    scratch (of a frozen mode: untrained). Arguments are those of `few_shot` and of `finetune`; min_steps is 150.
    best_on_test: the best epoch of each trial on its own queries counts, as in the papers, which is far too high.
    Tuned as released, the head keeps all classes of the data set; otherwise it has those of the trial.
    """
    check_trials(ways, shots, queries, trials)
    started, tell = time.perf_counter(), on_progress or (lambda message: None)
    clean = Tuning(min_steps=MIN_STEPS)
    usual, how = (how if how and how.published else clean), dataclasses.replace(how or clean, **tuning)
    train, test = labelled_splits(data)
    seeds, conditions = tuple(range(seed, seed + trials)), conditions_of(ways, shots)
    table = Table(how.title(PROTOCOL, best_on_test, usual), train.title.removesuffix(" train"), name, tuple(conditions),
                  seeds, f"{train.hash}-{test.hash}", test.labels, train.classes, heading="trials of")
    episodes = episodes_of(train, test, conditions, queries, seeds)
    read = points_per_view(encoder, train, how)
    runs = contestants(encoder, name, make_untrained, how, views_of(transform, read, how))
    seen = farthest(test, read) if how.published else test
    tell(FROZEN)
    for (condition, _), (support, query) in episodes.items():
        table.add(MAJORITY, condition, baselines.majority(train.labels[support], test.labels[query]))
    for (condition, _), found in zip(episodes, _probed(encoder, train, test, episodes)):
        table.add(FROZEN, condition, found)
    timer = Timer(tell, len(runs) * sum(e * n for e, n in (how.schedule(len(s)) for s, _ in episodes.values())))
    for contestant, trainings in runs.items():
        for (condition, s), (support, query) in episodes.items():
            timer.begin(f"{contestant}, {condition}, trial {s - seed + 1} of {trials}")
            few, asked, classes = _problem(train.subset(support), seen.subset(query), all_classes=bool(how.published))
            ended = _named(trainings.run(few, asked, s, best_on_test, timer), classes)
            table.add(contestant, condition, ended.best)
            if best_on_test:
                table.add(LAST.get(contestant, TUNED_LAST), condition, ended.last)
            timer.end(ended.last)
    table.wall_s = time.perf_counter() - started
    return table


def _problem(few: ShapeSet, asked: ShapeSet, all_classes: bool) -> tuple[ShapeSet, ShapeSet, Int[Tensor, " l"]]:
    """(to train on, to be asked, the label of each class of the head): labels count the classes of the head."""
    if all_classes:
        return few, asked, torch.arange(max(len(few.classes), int(few.labels.max()) + 1))
    classes, labels = few.labels.unique(return_inverse=True)
    renamed = {"classes": tuple(few.classes[c] for c in classes.tolist()) if few.classes else ()}
    return (
        dataclasses.replace(few, labels=labels, **renamed),
        dataclasses.replace(asked, labels=torch.searchsorted(classes, asked.labels), **renamed), classes,
    )


def _named(ended: Ended, classes: Int[Tensor, " l"]) -> Ended:
    """The predictions as labels of the data set."""
    def name(found: Prediction) -> Prediction:
        return dataclasses.replace(found, predictions=classes[found.predictions])

    return Ended(name(ended.best), name(ended.last))


def _probed(encoder: nn.Module, train: ShapeSet, test: ShapeSet, episodes: dict) -> list[Prediction]:
    """The linear probe of the frozen encoder on each trial; only shapes that take part are encoded."""
    used = [torch.cat(rows).unique() for rows in zip(*episodes.values())]
    x, y = (extract(encoder, shapes.subset(rows)) for shapes, rows in zip((train, test), used))
    place = torch.searchsorted
    return probe_all([
        partial(probe, "linear", x[place(used[0], a)], train.labels[a], y[place(used[1], b)], test.labels[b],
                None if train.groups is None else train.groups[a], s)
        for (_, s), (a, b) in episodes.items()
    ])
