"""Votes: a shape is classified by the mean over several passes, each on other points and views of it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.data.draws import Draws
from contrast3d.data.shapes import ShapeSet
from contrast3d.data.transforms import Transform
from contrast3d.downstream.classification import Classifier
from contrast3d.downstream.features import device_of, evaluating
from contrast3d.downstream.probes import Prediction
from contrast3d.errors import ConfigError

PASSES, ROUNDS = 10, 299  # of the released scripts of Point-MAE (Pang et al., ECCV 2022) and ReCon


def mean_logits(
    classifier: Classifier, shapes: ShapeSet, views: Transform, passes: int = PASSES, seed: int = 0, number: int = 0,
    batch_size: int = 64,
) -> Float[Tensor, "s l"]:
    """The mean of the logits over `passes` views of each shape; number: of the round, which has draws of its own."""
    if passes < 1:
        raise ConfigError(f"passes = {passes}; expected at least 1")
    device, parts = device_of(classifier), []
    with evaluating(classifier):
        for rows in torch.arange(len(shapes)).split(batch_size):
            clouds, ids = shapes.clouds(rows, device=device), rows.to(device)
            seen = (views(clouds, Draws.of(seed, number, ids, view)) for view in range(passes))
            parts.append((sum(classifier.logits(view) for view in seen) / passes).cpu())
    return torch.cat(parts)


def mean_vote(
    classifier: Classifier, shapes: ShapeSet, views: Transform, passes: int = PASSES, seed: int = 0
) -> Prediction:
    """One vote of so many passes: nothing is chosen."""
    logits = mean_logits(classifier, shapes, views, passes, seed)
    return Prediction.score(logits.argmax(1), shapes.labels, passes=passes)


def published_vote(
    classifier: Classifier, shapes: ShapeSet, views: Transform, passes: int = PASSES, rounds: int = ROUNDS,
    seed: int = 0,
) -> Prediction:
    """The best of so many votes *on the test set*, as the tables "with voting" of the papers count: far too high."""
    if rounds < 1:
        raise ConfigError(f"rounds = {rounds}; expected at least 1")
    votes = (
        Prediction.score(mean_logits(classifier, shapes, views, passes, seed, number).argmax(1), shapes.labels,
                         passes=passes, rounds=rounds, round=number)
        for number in range(rounds)
    )
    return max(votes, key=lambda vote: vote.accuracy)
