"""What frozen features know: logistic regression, linear SVM and kNN, every knob chosen by cross-validation.

The knob is chosen on folds of the labelled training rows alone, then the probe is refitted on all of them.
The test labels only score the final predictions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.linear_models import fit_path, softmax_loss, squared_hinge_loss
from contrast3d.downstream.splits import folds
from contrast3d.errors import ConfigError
from contrast3d.metrics.classification import accuracy, balanced_accuracy

C_GRID = tuple(10.0**k for k in range(-4, 3))  # 0.0001 ... 100
K_GRID = (1, 3, 5, 10, 20, 50)
SELECTION_TOL, FINAL_TOL = 1e-2, 1e-4


@dataclass(frozen=True)
class Prediction:
    """Predicted classes of the test set, their accuracies as fractions, and what was chosen on the way.

    validation: cross-validated accuracy within the labelled rows, of what was chosen; None where nothing was.
    """

    predictions: Int[Tensor, " s"]
    accuracy: float
    balanced_accuracy: float
    chosen: dict[str, float | int]
    validation: float | None = None

    @classmethod
    def score(
        cls, predictions: Tensor, labels: Tensor, validation: float | None = None, **chosen: float | int
    ) -> Prediction:
        scores = accuracy(predictions, labels), balanced_accuracy(predictions, labels)
        return cls(predictions, *scores, chosen, validation)


def probe(
    kind: str,
    train_x: Float[Tensor, "s d"], train_y: Int[Tensor, " s"],
    test_x: Float[Tensor, "t d"], test_y: Int[Tensor, " t"],
    groups: Int[Tensor, " s"] | None = None, seed: int = 0, num_folds: int = 3,
) -> Prediction:
    """Fit a probe of the given kind on the labelled rows and score it on the test rows.

    kind: "linear" (multinomial logistic regression), "svm" (one-vs-rest, squared hinge), both on standardised
    features with C from C_GRID; or "knn" (cosine, weighted votes) with k from K_GRID.
    groups: of the training rows; they never straddle a fold.
    """
    if kind not in PATHS:
        raise ConfigError(f"probe {kind!r}: expected one of {', '.join(PATHS)}")
    knob, grid, path = PATHS[kind]
    if len(train_y.unique()) == 1:
        return Prediction.score(train_y[:1].expand(len(test_x)), test_y)
    with _sequential_math() as threads:
        splits = _folds(train_y, groups, num_folds, seed)
        value, validation = _choose(path, grid, knob, train_x, train_y, splits, threads)
        predictions = next(path(train_x, train_y, test_x, (value,), FINAL_TOL))
    return Prediction.score(predictions, test_y, validation, **{knob: value})


def probe_few(
    kind: str, features: tuple[Float[Tensor, "s d"], Float[Tensor, "t d"]], train: ShapeSet, test: ShapeSet,
    rows: Int[Tensor, " r"], seed: int,
) -> Prediction:
    """`probe` with the labels of these training rows alone. features: of all of train and of test."""
    groups = None if train.groups is None else train.groups[rows]
    return probe(kind, features[0][rows], train.labels[rows], features[1], test.labels, groups, seed)


def probe_all(jobs: Sequence[Callable[[], Prediction]]) -> list[Prediction]:
    """The results of several calls of `probe`, in order, as many at a time as torch has threads."""
    with _sequential_math() as threads, ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda job: job(), jobs))


@contextmanager
def _sequential_math() -> Iterator[int]:
    """One thread per matrix product inside; yields how many threads torch had.

    The products of a probe are too small to share: one fold per thread is faster than two
    threads per fold, on a busy machine by an order of magnitude.
    """
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):  # scipy's and numpy's own
            yield threads
    finally:
        torch.set_num_threads(threads)


def _folds(labels: Tensor, groups: Tensor | None, count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """`splits.folds`, remembered: contestants share their draws, and stratifying groups takes a third of a second."""
    return _folds_of(*(None if t is None else tuple(t.tolist()) for t in (labels, groups)), count, seed)


@lru_cache(maxsize=64)
def _folds_of(labels: tuple, groups: tuple | None, count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    return folds(torch.tensor(labels), None if groups is None else torch.tensor(groups), count, seed)


def _choose(
    path: Callable, grid: Sequence, knob: str, x: Tensor, y: Tensor,
    splits: list[tuple[Tensor, Tensor]], threads: int,
) -> tuple[float, float]:
    """The value with the best cross-validated accuracy, the smallest where several tie, and that accuracy.

    The grid is climbed from below, all folds side by side, and left once two values in a row fall behind the
    best: the optimum is then inside, and the slow fits with hardly any penalty are spared.
    """
    climbs = [path(x[a], y[a], x[b], grid, SELECTION_TOL) for a, b in splits]
    total, hits = sum(len(b) for _, b in splits), []
    with ThreadPoolExecutor(min(threads, len(splits))) as pool:
        for _ in grid:
            hits.append(sum(int((p == y[b]).sum()) for p, (_, b) in zip(pool.map(next, climbs), splits)))
            if sum(h < max(hits) for h in hits[hits.index(max(hits)) :]) == 2:
                break
    best = hits.index(max(hits))
    if knob == "C" and best in (0, len(grid) - 1):
        _warn_of_edge(grid[best], hits[best], hits[1 if best == 0 else -2], total)
    return float(grid[best]), hits[best] / total


def _warn_of_edge(value: float, hits: int, neighbor_hits: int, total: int) -> None:
    """Only where the edge beats its neighbour by more than the noise of counting: few labels make flat curves."""
    if hits - neighbor_hits > (hits * (1 - hits / total)) ** 0.5:
        warnings.warn(
            f"the best C, {value:g}, lies at the edge of its grid (cross-validated accuracy {hits / total:.1%}): "
            "the optimum may lie outside", stacklevel=4,
        )


def _linear_path(loss: Callable) -> Callable:
    def path(x, y, query, grid, tol) -> Iterator[Tensor]:
        dtype = torch.float32 if tol >= 1e-3 else torch.float64
        return (model.predict(query) for model in fit_path(x, y, loss, grid, tol=tol, dtype=dtype))

    return path


def _knn_path(x, y, query, grid, tol) -> Iterator[Tensor]:
    return (knn_predict(x, y, query, int(k)) for k in grid)


def knn_predict(
    x: Float[Tensor, "s d"], y: Int[Tensor, " s"], query: Float[Tensor, "t d"], k: int,
    temperature: float = 0.07, block: int = 4096,
) -> Int[Tensor, " t"]:
    """Class of each query: its k nearest in cosine vote exp(cosine / temperature) (Wu et al., 2018)."""
    x, k = F.normalize(x, dim=1), min(k, len(x))
    classes, predictions = int(y.max()) + 1, []
    for rows in F.normalize(query, dim=1).split(block):
        similarity, nearest = (rows @ x.T).topk(k, dim=1)
        weight = ((similarity - 1) / temperature).exp()
        votes = weight.new_zeros(len(rows), classes).scatter_add_(1, y[nearest], weight)
        predictions.append(votes.argmax(1))
    return torch.cat(predictions)


# kind: name of the knob, its grid, and the path (x, y, query, grid, tol) -> predictions, value by value
PATHS: dict[str, tuple[str, Sequence, Callable]] = {
    "linear": ("C", C_GRID, _linear_path(softmax_loss)),
    "svm": ("C", C_GRID, _linear_path(squared_hinge_loss)),
    "knn": ("k", K_GRID, _knn_path),
}
