"""Protocols over frozen features: few labels to all of them, with the free baselines beside.

`linear`, `svm` and `knn` differ in the probe alone. Nothing is ever selected on the test set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor, nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream import baselines
from contrast3d.downstream.features import extract
from contrast3d.downstream.few_shot_tuned import few_shot_finetune as few_shot_finetune
from contrast3d.downstream.finetune import finetune as finetune
from contrast3d.downstream.finetune import finetune_best_on_test as finetune_best_on_test
from contrast3d.downstream.part_segmentation import part_segmentation as part_segmentation
from contrast3d.downstream.probes import Prediction, probe, probe_all, probe_few
from contrast3d.downstream.registration import registration as registration
from contrast3d.downstream.released_svm import svm_released as svm_released
from contrast3d.downstream.retrieval import retrieval as retrieval
from contrast3d.downstream.semantic_segmentation import segmentation as segmentation
from contrast3d.downstream.semantic_segmentation import segmentation_best_on_test as segmentation_best_on_test
from contrast3d.downstream.splits import Data, few_labels, folds, labelled_splits
from contrast3d.downstream.table import MAJORITY, SUPERVISED, TRAINING_FREE, UNTRAINED, Budget, Table
from contrast3d.downstream.zero_shot import zero_shot as zero_shot
from contrast3d.errors import ConfigError


@dataclass(frozen=True)
class Supervised:
    """The supervised contestant: `fit(train, test, seed) -> Prediction` (see classification.fit_classifier).

    labels_per_class: at which numbers of labels it runs; draws: how many of the label draws it sees.
    """

    fit: Callable[[ShapeSet, ShapeSet, int], Prediction]
    labels_per_class: Sequence[int | None] = (10, None)
    draws: int = 3


def label_efficiency(
    kind: str, encoder: nn.Module, data: Data, *, name: str = "pre-trained",
    labels_per_class: Sequence[Budget] = (5, 10, 20, None), draws: int = 3, seed: int = 0,
    make_untrained: baselines.MakeUntrained = None, supervised: Supervised | None = None,
    batch_size: int = 64, on_progress: Callable[[str], None] | None = None,
) -> Table:
    """Probe the frozen encoder with few labels per class up to all of them, beside the baselines.

    kind: "linear", "svm" or "knn" (see probes.probe).
    data: (train, test), or a callable such as datasets.LDraw40: data("train"), data("test").
    name: what the table calls the encoder; not as it calls a baseline.
    labels_per_class: numbers, shares of each class such as "10%", None for all.
    draws: of the labels; draw d uses seed + d and is the same for every contestant. With all labels there is
        nothing to draw, so features that do not vary with the seed are probed once, and the supervised network
        is trained once.
    make_untrained: seed -> the same architecture with fresh weights, one per draw; by default a copy of the
        encoder whose modules reset their parameters, False for none.
    supervised: see `Supervised`. on_progress: told in a few words what comes next.
    """
    if draws < 1 or not labels_per_class:
        raise ConfigError("label_efficiency: needs at least one draw and one number of labels per class")
    started = time.perf_counter()
    train, test = labelled_splits(data)
    tell = on_progress or (lambda message: None)
    seeds = tuple(range(seed, seed + draws))
    table = Table(
        f"{kind} probe", train.title.removesuffix(" train"), name, tuple(labels_per_class), seeds,
        f"{train.hash}-{test.hash}", test.labels, train.classes,
    )

    def run(contestant: str, features_of: Callable[[int], baselines.FeaturePair], varies: bool) -> None:
        tell(contestant)
        places, jobs = [], []
        for s in seeds:
            features = features_of(s) if varies or s == seed else features
            for budget in table.budgets:
                if s == seed or varies or budget is not None:
                    places.append(budget)
                    jobs.append(partial(probe_few, kind, features, train, test, few_labels(train.labels, budget, s), s))
        for budget, prediction in zip(places, probe_all(jobs)):
            table.add(contestant, budget, prediction)

    for budget in table.budgets:
        for s in seeds if budget is not None else seeds[:1]:
            rows = few_labels(train.labels, budget, s)
            table.add(MAJORITY, budget, baselines.majority(train.labels[rows], test.labels))
    run(TRAINING_FREE, lambda s: baselines.training_free(train, test), varies=False)
    if make_untrained is not False:
        fresh = baselines.untrained_maker(encoder, make_untrained)
        run(UNTRAINED, lambda s: baselines.untrained(fresh, s, train, test, batch_size), varies=True)
    run(name, lambda s: tuple(extract(encoder, x, batch_size) for x in (train, test)), varies=False)
    if supervised is not None:
        tell(SUPERVISED)
        for budget in (b for b in table.budgets if b in supervised.labels_per_class):
            for s in seeds[: 1 if budget is None else supervised.draws]:
                few = train.subset(few_labels(train.labels, budget, s))
                table.add(SUPERVISED, budget, supervised.fit(few, test, s))
    table.wall_s = time.perf_counter() - started
    return table


linear = partial(label_efficiency, "linear")
svm = partial(label_efficiency, "svm")
knn = partial(label_efficiency, "knn")


def svm_holdout(
    features: Float[Tensor, "s d"], labels: Int[Tensor, " s"], groups: Int[Tensor, " s"] | None = None,
    *, fold: int = 0, num_folds: int = 5, seed: int = 0, kind: str = "svm",
) -> Prediction:
    """Hold one of `num_folds` stratified folds out as the test set, and probe with the others.

    C is chosen by cross-validation inside the others. For sets whose official test split is not here, or is
    not to be touched.
    """
    splits = folds(labels, groups, num_folds, seed)
    if not 0 <= fold < len(splits):
        raise ConfigError(f"fold={fold}: there are {len(splits)} folds, counted from 0")
    train, test = splits[fold]
    inside = None if groups is None else groups[train]
    return probe(kind, features[train], labels[train], features[test], labels[test], inside, seed)
