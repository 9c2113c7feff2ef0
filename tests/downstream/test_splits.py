import pytest
import torch

from contrast3d.downstream.splits import few_labels, folds, validation_split
from contrast3d.errors import DataError


def labels_and_groups(n=200, classes=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, classes, (n,), generator=g), torch.randint(0, n // 3, (n,), generator=g)


def test_few_labels_counts_and_small_classes():
    labels = torch.tensor([0] * 10 + [1] * 3 + [-1] * 20 + [4] * 7)
    rows = few_labels(labels, 5, seed=0)
    assert torch.bincount(labels[rows]).tolist() == [5, 3, 0, 0, 5]
    assert len(rows.unique()) == len(rows)
    assert few_labels(labels, None, seed=3).tolist() == [*range(13), *range(33, 40)]


def test_few_labels_is_seeded_and_nested():
    labels, _ = labels_and_groups()
    five, again = few_labels(labels, 5, seed=1), few_labels(labels, 5, seed=1)
    assert torch.equal(five, again)
    assert not torch.equal(five, few_labels(labels, 5, seed=2))
    assert set(five.tolist()) <= set(few_labels(labels, 10, seed=1).tolist())


@pytest.mark.parametrize("seed", range(3))
def test_groups_never_straddle_and_every_row_validates_once(seed):
    labels, groups = labels_and_groups(seed=seed)
    splits = folds(labels, groups, 5, seed)
    assert torch.cat([val for _, val in splits]).sort().values.tolist() == list(range(200))
    for train, val in splits:
        assert not set(groups[train].tolist()) & set(groups[val].tolist())
        assert len(train) + len(val) == 200


def test_validation_split_is_stratified_and_near_its_fraction():
    labels = torch.arange(100) % 4
    train, val = validation_split(labels, None, 0.2)
    assert torch.bincount(labels[val]).tolist() == [5] * 4
    assert len(train) == 80


def test_fewer_folds_where_there_are_few_groups_or_tiny_classes():
    assert len(folds(torch.tensor([0, 0, 1, 1, 0, 1]), torch.tensor([0, 0, 0, 1, 1, 1]), 5)) == 2
    assert len(folds(torch.tensor([0, 0, 0, 1, 2]), None, 5)) == 3  # classes of one sample are no obstacle


def test_splits_that_cannot_be_are_one_clear_error():
    with pytest.raises(DataError, match="at least two groups"):
        folds(torch.tensor([0, 1, 1]), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(DataError, match="class of two samples"):
        folds(torch.arange(5), None)
    with pytest.raises(DataError, match="no labelled"):
        few_labels(torch.full((4,), -1), 5, 0)
    with pytest.raises(DataError, match="at least 1"):
        few_labels(torch.zeros(4, dtype=torch.int64), 0, 0)
    with pytest.raises(DataError, match="fraction"):
        validation_split(torch.zeros(4, dtype=torch.int64), None, 1.0)
