"""The linear SVM of ReCon's released code: raw features, scikit-learn's LinearSVC with a C of its own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream import baselines
from contrast3d.downstream.features import extract
from contrast3d.downstream.probes import Prediction
from contrast3d.downstream.splits import Data, labelled_splits
from contrast3d.downstream.table import MAJORITY, TRAINING_FREE, UNTRAINED, Table
from contrast3d.downstream.tuned_encoders import inner, read_as
from contrast3d.downstream.tuned_views import farthest
from contrast3d.errors import ConfigError

PROTOCOL = "SVM as released by ReCon (C = 0.075)"
C, BATCH = 0.075, 128
READOUT = ("queries-max", "max+mean")


def svm_released(
    encoder: nn.Module, data: Data, *, name: str = "pre-trained", draws: int = 3, seed: int = 0,
    make_untrained: baselines.MakeUntrained = None, on_progress: Callable[[str], None] | None = None,
) -> Table:
    """What the code of ReCon (Qi et al., ICML 2023) reports as linear SVM; `evaluate.svm` is the clean one.

    Features of the points that lie farthest apart, as many as the encoder reads at a time, neither scaled nor
    standardised; of a patch transformer the maximum over its queries and the sum of maximum and mean over its tokens.
    C is not chosen here; the authors' choice is said to have been made on test. The last batch of 128 of the shuffled
    training shapes is left out where it is not full; draw d shuffles by seed + d.
    """
    if draws < 1:
        raise ConfigError("svm_released: needs at least one draw")
    started, tell = time.perf_counter(), on_progress or (lambda message: None)
    train, test = labelled_splits(data)
    seeds = tuple(range(seed, seed + draws))
    table = Table(PROTOCOL, train.title.removesuffix(" train"), name, (None,), seeds, f"{train.hash}-{test.hash}",
                  test.labels, train.classes)
    table.add(MAJORITY, None, baselines.majority(train.labels, test.labels))
    read = getattr(encoder, "num_points", train.num_points)
    sampled = farthest(train, read), farthest(test, read)
    features = {TRAINING_FREE: lambda s: baselines.training_free(train, test)}
    if make_untrained is not False:
        fresh = baselines.untrained_maker(encoder, make_untrained)
        features[UNTRAINED] = lambda s: _features(fresh(s), sampled)
    features[name] = lambda s: _features(encoder, sampled)
    for contestant, make in features.items():
        tell(contestant)
        for s in seeds:
            x, y = make(s) if contestant == UNTRAINED or s == seed else (x, y)
            rows = full_batches(len(train), s)
            table.add(contestant, None, linear_svc(x[rows], train.labels[rows], y, test.labels, seed=s))
    table.wall_s = time.perf_counter() - started
    return table


def released_readout(encoder: nn.Module) -> nn.Module:
    """The encoder with the feature of the released SVM, where it is a patch transformer; of one without queries only
    what is read of tokens."""
    if not hasattr(inner(encoder), "readout"):
        return encoder
    return read_as(encoder, READOUT if inner(encoder).queries else READOUT[1:])


def linear_svc(
    x: Float[Tensor, "s d"], labels: Int[Tensor, " s"], test_x: Float[Tensor, "t d"], test_labels: Int[Tensor, " t"],
    seed: int = 0, c: float = C,
) -> Prediction:
    """scikit-learn's LinearSVC on features as they are, stopped where it stops by itself."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of its thousand steps: part of the protocol
        found = LinearSVC(C=c, random_state=seed).fit(x.numpy(), labels.numpy()).predict(test_x.numpy())
    return Prediction.score(torch.from_numpy(found), test_labels, C=c)


def full_batches(count: int, seed: int, batch_size: int = BATCH) -> Int[Tensor, " r"]:
    """Rows of a shuffled epoch without its last, smaller batch; all where there is less than one."""
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return rows[: count // batch_size * batch_size or count]


def _features(encoder: nn.Module, sampled: tuple[ShapeSet, ShapeSet]) -> baselines.FeaturePair:
    encoder = released_readout(encoder)
    return extract(encoder, sampled[0]), extract(encoder, sampled[1])
