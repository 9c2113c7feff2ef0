"""Few-shot classification: many small problems of n classes with k labelled shapes each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream import baselines
from contrast3d.downstream.features import extract
from contrast3d.downstream.probes import probe, probe_all
from contrast3d.downstream.splits import Data, labelled_splits
from contrast3d.downstream.table import MAJORITY, TRAINING_FREE, UNTRAINED, Table
from contrast3d.errors import ConfigError, DataError

FRESH_ENCODERS = 3  # untrained ones, which the trials share in turn


def few_shot(
    encoder: nn.Module, data: Data, *, name: str = "pre-trained", ways: Sequence[int] = (5, 10),
    shots: Sequence[int] = (10, 20), queries: int = 20, trials: int = 10, seed: int = 0, kind: str = "linear",
    make_untrained: baselines.MakeUntrained = None, batch_size: int = 64,
    on_progress: Callable[[str], None] | None = None,
) -> Table:
    """n-way k-shot accuracy of a probe on frozen features, over seeded trials (Sharma and Kaul, NeurIPS 2020).

    A trial draws n classes, k labelled shapes of each from the training split and up to `queries` shapes of each
    from the test split; every contestant sees the same trials. A class takes part where it has k training shapes.
    kind: of the probe (see probes.probe); its knob is chosen on folds of the n k labelled shapes.
    """
    check_trials(ways, shots, queries, trials)
    started = time.perf_counter()
    train, test = labelled_splits(data)
    tell = on_progress or (lambda message: None)
    seeds = tuple(range(seed, seed + trials))
    conditions = conditions_of(ways, shots)
    table = Table(f"few-shot {kind} probe", train.title.removesuffix(" train"), name, tuple(conditions), seeds,
                  f"{train.hash}-{test.hash}", test.labels, train.classes, heading="trials of")
    episodes = episodes_of(train, test, conditions, queries, seeds)
    fresh = baselines.untrained_maker(encoder, make_untrained)
    contestants: dict[str, list[Callable[[], baselines.FeaturePair]]] = {
        TRAINING_FREE: [lambda: baselines.training_free(train, test)],
        UNTRAINED: [] if make_untrained is False else [
            partial(baselines.untrained, fresh, s, train, test, batch_size)
            for s in seeds[:FRESH_ENCODERS]
        ],
        name: [lambda: tuple(extract(encoder, x, batch_size) for x in (train, test))],
    }
    for (condition, _), (support, query) in episodes.items():
        table.add(MAJORITY, condition, baselines.majority(train.labels[support], test.labels[query]))
    for contestant, makers in contestants.items():
        tell(contestant)
        features = [make() for make in makers]
        jobs = []
        for (_, s), (support, query) in episodes.items() if features else ():
            x, y = features[(s - seed) % len(features)]
            groups = None if train.groups is None else train.groups[support]
            jobs.append(partial(
                probe, kind, x[support], train.labels[support], y[query], test.labels[query], groups, s))
        for (condition, _), prediction in zip(episodes, probe_all(jobs)):
            table.add(contestant, condition, prediction)
    table.wall_s = time.perf_counter() - started
    return table


def check_trials(ways: Sequence[int], shots: Sequence[int], queries: int, trials: int) -> None:
    """A ConfigError where there is nothing to tell apart, to learn from or to ask."""
    if min(ways, default=0) < 2 or min(shots, default=0) < 2 or queries < 1 or trials < 1:
        raise ConfigError(f"ways = {tuple(ways)}, shots = {tuple(shots)}, queries = {queries}, trials = {trials}; "
                          "expected at least 2 ways, 2 shots (for the folds that choose the knob), 1 query and 1 trial")


def conditions_of(ways: Sequence[int], shots: Sequence[int]) -> dict[str, tuple[int, int]]:
    """The columns of a table: name -> (n, k)."""
    return {f"{n}-way {k}-shot": (n, k) for n in ways for k in shots}


def episodes_of(
    train: ShapeSet, test: ShapeSet, conditions: dict[str, tuple[int, int]], queries: int, seeds: Sequence[int]
) -> dict[tuple[str, int], tuple[Int[Tensor, " a"], Int[Tensor, " b"]]]:
    """The trials by (condition, seed): rows of train and rows of test."""
    return {
        (condition, s): episode(train.labels, test.labels, n, k, queries, s)
        for condition, (n, k) in conditions.items() for s in seeds
    }


def episode(
    train_labels: Int[Tensor, " s"], test_labels: Int[Tensor, " t"], ways: int, shots: int, queries: int, seed: int
) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """(training rows, test rows) of one trial; a DataError where too few classes have `shots` training shapes."""
    able = [c for c in test_labels.unique().tolist() if int((train_labels == c).sum()) >= shots]
    if len(able) < ways:
        raise DataError("few-shot", f"{len(able)} classes with {shots} training shapes and a test shape",
                        f"at least {ways}", "fewer --ways or --shots")
    draw = np.random.default_rng([seed, ways, shots])
    support, query = [], []
    for c in draw.choice(able, ways, replace=False):
        support.append(draw.permutation((train_labels == int(c)).nonzero().flatten().numpy())[:shots])
        query.append(draw.permutation((test_labels == int(c)).nonzero().flatten().numpy())[:queries])
    return torch.from_numpy(np.concatenate(support)), torch.from_numpy(np.concatenate(query))
