"""Which rows are labelled and which validate: draws of few labels, and splits that respect groups.

A group holds near relatives (parts of one mould). It never straddles a split: where it does, validation
reads several points too high.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from threading import Lock

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import DataError

Data = Callable[[str], ShapeSet] | tuple[ShapeSet, ShapeSet]  # data("train"), data("test"); or the two sets

_ONE_AT_A_TIME = Lock()  # filters of warnings belong to the process, and probes run in threads


def few_labels(labels: Int[Tensor, " s"], per_class: int | str | None, seed: int) -> Int[Tensor, " r"]:
    """Rows of `per_class` random samples of each class (all where it has fewer); None: every labelled row.

    "10%": that share of each class, at least one sample. Label -1 means unlabelled and is never drawn. Draws of
    one seed are nested: the 5 labels of a class are among its 10.
    """
    share = _share(per_class) if isinstance(per_class, str) else None
    if share is None and per_class is not None and per_class < 1:
        raise DataError("labels_per_class", str(per_class), "at least 1, a share such as 10%, or None for all labels")
    rows = []
    for c in labels[labels >= 0].unique().tolist():
        members = (labels == c).nonzero().flatten().numpy()
        count = per_class if share is None else max(1, round(share * len(members)))
        rows.append(np.random.default_rng([seed, c]).permutation(members)[:count])
    if not rows:
        raise DataError("labels", "no labelled samples", "at least one")
    return torch.from_numpy(np.sort(np.concatenate(rows)))


def _share(text: str) -> float:
    """"10%" -> 0.1."""
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not (text.endswith("%") and 0 < share <= 1):
        raise DataError("labels_per_class", repr(text), "a number, or a share of each class such as 10%")
    return share


def folds(
    labels: Int[Tensor, " s"], groups: Int[Tensor, " s"] | None, count: int = 5, seed: int = 0
) -> list[tuple[Int[Tensor, " a"], Int[Tensor, " b"]]]:
    """(training rows, validation rows) of `count` folds, stratified by label as well as the groups allow.

    Fewer folds where there are fewer groups than `count`, or no class with that many samples.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    independent = len(labels) if groups is None else len(groups.unique())
    count = min(count, independent, int(labels.unique(return_counts=True)[1].max()))
    if count < 2:
        raise DataError("labels", f"{len(labels)} samples in {independent} groups",
                        "at least two groups and a class of two samples", "more labels per class")
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes smaller than the number of folds are expected
        if groups is None:
            split = StratifiedKFold(count, shuffle=True, random_state=seed).split(labels, labels)
        else:
            split = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, groups)
        pairs = [(torch.from_numpy(train), torch.from_numpy(val)) for train, val in split]
    return [(train, val) for train, val in pairs if len(train) and len(val)]


def validation_split(
    labels: Int[Tensor, " s"], groups: Int[Tensor, " s"] | None, fraction: float = 0.2, seed: int = 0
) -> tuple[Int[Tensor, " a"], Int[Tensor, " b"]]:
    """(training rows, validation rows), about `fraction` of the samples in the second."""
    if not 0 < fraction <= 0.5:
        raise DataError("fraction", str(fraction), "above 0, at most 0.5")
    return folds(labels, groups, round(1 / fraction), seed)[0]


def labelled(shapes: ShapeSet) -> ShapeSet:
    """Those with a label; DataError when there are none."""
    known = shapes.labels >= 0 if shapes.labels is not None else torch.zeros(len(shapes), dtype=torch.bool)
    if not bool(known.any()):
        raise DataError(shapes.title, "no labels", "a labelled set")
    return shapes if bool(known.all()) else shapes.subset(known.nonzero().flatten())


def labelled_splits(data: Data) -> tuple[ShapeSet, ShapeSet]:
    """The labelled shapes of (train, test).

    DataError when a split has none, when test has a class that train lacks, or when there is but one class.
    """
    train, test = (data("train"), data("test")) if callable(data) else data
    train, test = labelled(train), labelled(test)
    unseen = set(test.labels.tolist()) - set(train.labels.tolist())
    if unseen:
        names = [test.classes[c] if c < len(test.classes) else str(c) for c in sorted(unseen)]
        found = f"classes that {train.title} lacks: {', '.join(names)}"
        raise DataError(test.title, found, "the same classes in both")
    if len(train.labels.unique()) < 2:
        raise DataError(train.title, "one class", "at least two, to be told apart")
    return train, test
