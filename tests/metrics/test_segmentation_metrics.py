"""IoU and accuracies of labelled points against sums over sets."""

from __future__ import annotations

import math

import pytest
import torch

from contrast3d.errors import DataError
from contrast3d.metrics.segmentation import (
    IGNORE,
    confusion,
    iou_per_class,
    mean_accuracy,
    mean_iou,
    overall_accuracy,
)


def test_by_hand():
    labels = torch.tensor([0, 0, 0, 1, 1, IGNORE, 2])
    predicted = torch.tensor([0, 0, 1, 1, 0, 2, 2])
    matrix = confusion(predicted, labels, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    iou = iou_per_class(matrix)
    assert iou[:3].tolist() == pytest.approx([2 / 4, 1 / 3, 1.0])
    assert math.isnan(iou[3])
    assert mean_iou(matrix) == pytest.approx((0.5 + 1 / 3 + 1) / 3)
    assert mean_accuracy(matrix) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert overall_accuracy(matrix) == pytest.approx(4 / 6)


def test_agrees_with_sets_of_points_and_adds_up():
    generator = torch.Generator().manual_seed(0)
    labels, predicted = torch.randint(0, 5, (2, 400), generator=generator)
    labels[::7] = IGNORE
    matrix = confusion(predicted, labels, 5)
    assert torch.equal(matrix, confusion(predicted[:99], labels[:99], 5) + confusion(predicted[99:], labels[99:], 5))
    known = {i for i in range(400) if labels[i] != IGNORE}
    for c, iou in enumerate(iou_per_class(matrix).tolist()):
        true, said = ({i for i in known if values[i] == c} for values in (labels, predicted))
        assert iou == pytest.approx(len(true & said) / len(true | said))


def test_a_class_that_is_only_predicted_costs_iou_but_not_accuracy():
    matrix = confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0]), 3)
    assert mean_iou(matrix) == pytest.approx((2 / 3 + 0) / 2)
    assert mean_accuracy(matrix) == pytest.approx(2 / 3)


def test_another_number_may_mean_ignore():
    assert confusion(torch.tensor([0, 1]), torch.tensor([-1, 1]), 2, ignore=-1).tolist() == [[0, 0], [0, 1]]


def test_what_cannot_be_counted():
    with pytest.raises(DataError, match="classes 0 to 3"):
        confusion(torch.tensor([0, 0]), torch.tensor([0, 3]), 3)
    with pytest.raises(DataError, match="classes 1 to 7"):
        confusion(torch.tensor([7]), torch.tensor([1]), 3)
    empty = confusion(torch.tensor([0]), torch.tensor([IGNORE]), 3)
    for measure in (mean_iou, mean_accuracy, overall_accuracy):
        with pytest.raises(DataError, match="no labelled points"):
            measure(empty)
