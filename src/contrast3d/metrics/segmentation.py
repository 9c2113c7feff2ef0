"""How well predicted labels of points agree with the true ones: everything follows from one confusion matrix."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.metrics.classification import confusion_matrix

IGNORE = 255


def confusion(
    predicted: Int[Tensor, " n"], labels: Int[Tensor, " n"], classes: int, ignore: int = IGNORE
) -> Int[Tensor, "l l"]:
    """(L, L) counts of points; row = label, column = prediction. Points of the label `ignore` count nowhere.

    Matrices of several scenes add up. A DataError where a label or a prediction that counts is no class.
    """
    known = labels != ignore
    return confusion_matrix(predicted[known], labels[known], classes)


def iou_per_class(matrix: Int[Tensor, "l l"]) -> Float[Tensor, " l"]:
    """(L,) float64 diagonal / (row + column - diagonal): intersection over union of each class.

    NaN where a class is neither among the labels nor among the predictions.
    """
    hits = matrix.diagonal().double()
    return hits / (matrix.sum(1) + matrix.sum(0) - hits)


def mean_iou(matrix: Int[Tensor, "l l"]) -> float:
    """Mean of the IoU over the classes present ("mIoU"), those among labels or predictions.

    So a class that is only ever predicted falsely counts as 0, as in the published evaluation (PointContrast).
    """
    _require_points(matrix)
    return iou_per_class(matrix).nanmean().item()


def mean_accuracy(matrix: Int[Tensor, "l l"]) -> float:
    """Mean over the classes among the labels of diagonal / row ("mAcc")."""
    _require_points(matrix)
    return (matrix.diagonal().double() / matrix.sum(1)).nanmean().item()


def overall_accuracy(matrix: Int[Tensor, "l l"]) -> float:
    """Share of the points whose prediction is their label ("OA")."""
    _require_points(matrix)
    return (matrix.diagonal().sum().double() / matrix.sum()).item()


def _require_points(matrix: Tensor) -> None:
    if not int(matrix.sum()):
        raise DataError("labels", "no labelled points", "at least one")
