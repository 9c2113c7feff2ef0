import pytest
import torch
from sklearn import metrics as sk

from contrast3d.errors import DataError
from contrast3d.metrics.classification import accuracy, balanced_accuracy, confusion_matrix


def test_parity_with_sklearn_when_classes_are_missing_and_imbalanced():
    torch.manual_seed(0)
    labels = torch.tensor([0] * 30 + [1] * 5 + [4] * 2)
    predictions = torch.where(torch.rand(37) < 0.6, labels, torch.randint(0, 6, (37,)))
    assert accuracy(predictions, labels) == pytest.approx(sk.accuracy_score(labels, predictions))
    recalls = [(predictions[labels == c] == c).double().mean().item() for c in (0, 1, 4)]
    assert balanced_accuracy(predictions, labels) == pytest.approx(sum(recalls) / 3)
    ours = confusion_matrix(predictions, labels, 6)
    assert torch.equal(ours, torch.from_numpy(sk.confusion_matrix(labels, predictions, labels=range(6))))


def test_one_class_and_one_sample():
    one = torch.tensor([3])
    assert accuracy(one, one) == balanced_accuracy(one, one) == 1.0
    assert balanced_accuracy(torch.tensor([7]), one) == 0.0


def test_bad_input_is_one_clear_error():
    empty = torch.empty(0, dtype=torch.int64)
    with pytest.raises(DataError, match="no samples"):
        accuracy(empty, empty)
    with pytest.raises(DataError, match="expected 0 to 2"):
        confusion_matrix(torch.tensor([0]), torch.tensor([3]), 3)
    assert confusion_matrix(empty, empty, 2).sum() == 0
