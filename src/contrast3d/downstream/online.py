"""`OnlineProbe`: what a pre-training run looks at after an epoch, at little cost and never on test data."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor, nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.features import extract
from contrast3d.downstream.probes import knn_predict
from contrast3d.downstream.splits import folds
from contrast3d.errors import ConfigError, DataError
from contrast3d.metrics.classification import accuracy
from contrast3d.metrics.representation import feature_std, rankme, uniformity


class OnlineProbe:
    """`probe(epoch, method) -> numbers`: kNN accuracy and label-free health of `method.encoder`.

    train, val: disjoint parts of the training split (see splits.validation_split); where either has no
        labels there is no kNN accuracy. At most `most_shapes` of each are used, the same ones in every epoch.
    every: epochs between two looks; others return {}. last: an epoch that is looked at in any case.
    k: neighbours that vote.

    Health is read from the features of `val`: rankme, uniformity, feature_std.
    """

    def __init__(
        self, train: ShapeSet, val: ShapeSet, every: int = 1, k: int = 20, most_shapes: int = 1024,
        batch_size: int = 64, last: int | None = None,
    ):
        if every < 1 or k < 1:
            raise ConfigError(f"every={every}, k={k}: both are at least 1")
        if len(val) < 2:
            raise DataError(val.title, "1 shape to validate on", "at least 2")
        self.train, self.val = _at_most(train, most_shapes), _at_most(val, most_shapes)
        self.every, self.k, self.batch_size, self.last = every, k, batch_size, last

    def __call__(self, epoch: int, method: nn.Module) -> dict[str, float]:
        if epoch % self.every and epoch != self.last:
            return {}
        queries = extract(method.encoder, self.val, self.batch_size)
        health = {
            "rankme": rankme(queries), "uniformity": uniformity(queries), "feature_std": feature_std(queries),
        }
        if self.train.labels is None or self.val.labels is None:
            return health
        bank, labelled = self.train.labels >= 0, self.val.labels >= 0
        if not (bank.any() and labelled.any()):
            return health
        keys = extract(method.encoder, self.train, self.batch_size)[bank]
        predictions = knn_predict(keys, self.train.labels[bank], queries[labelled], self.k)
        return {"knn_accuracy": accuracy(predictions, self.val.labels[labelled]), **health}


def held_out_probe(shapes: ShapeSet, num_points: int, every: int, last: int) -> OnlineProbe:
    """The probe of a training set: a fifth of its labelled shapes is held out, all at the density of the views.

    Health numbers alone, with a warning, where there are too few labelled shapes to hold some out.
    """
    shapes = replace(shapes, points=shapes.points[:, :num_points], point_labels=None)
    if shapes.labels is not None:
        try:
            train_rows, val_rows = folds(shapes.labels, shapes.groups, 5, seed=0)[0]
            return OnlineProbe(shapes.subset(train_rows), shapes.subset(val_rows), every=every, last=last)
        except DataError as error:
            warnings.warn(f"training goes on without the kNN probe of the labels: {error}", stacklevel=2)
            shapes = replace(shapes, labels=None)
    return OnlineProbe(shapes, shapes, every=every, last=last)


def _at_most(shapes: ShapeSet, count: int) -> ShapeSet:
    """`count` random shapes of the set, or all where it has no more."""
    return shapes if len(shapes) <= count else shapes.subset(_draw(len(shapes), count))


def _draw(total: int, count: int) -> Int[Tensor, " r"]:
    return torch.randperm(total, generator=torch.Generator().manual_seed(0))[:count].sort().values
