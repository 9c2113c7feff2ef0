"""Mean average precision against its definition, written as loops."""

from __future__ import annotations

import pytest
import torch

from contrast3d.errors import DataError
from contrast3d.metrics import average_precision, mean_average_precision


def naive(features: torch.Tensor, labels: torch.Tensor) -> float:
    unit = features / features.norm(dim=1, keepdim=True)
    values = []
    for query in range(len(labels)):
        others = [i for i in range(len(labels)) if i != query]
        others.sort(key=lambda i: -float(unit[query] @ unit[i]))
        ranks = [rank for rank, i in enumerate(others, 1) if labels[i] == labels[query]]
        if ranks:
            values.append(sum(found / rank for found, rank in enumerate(ranks, 1)) / len(ranks))
    return sum(values) / len(values)


@pytest.mark.parametrize("block", [1, 7, 512])
def test_it_is_the_definition(block):
    torch.manual_seed(0)
    features, labels = torch.randn(40, 6), torch.randint(0, 5, (40,))
    labels[3] = 99  # alone in its class
    assert mean_average_precision(features, labels, block) == pytest.approx(naive(features, labels), abs=1e-9)


def test_by_hand():
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 1.0, 1.0]])
    relevant = torch.tensor([[True, False, True, False], [True, True, False, False], [False] * 4])
    values = average_precision(scores, relevant)
    assert values[:2].tolist() == pytest.approx([(1 + 2 / 3) / 2, (1 / 3 + 2 / 4) / 2])
    assert values[2].isnan()


def test_perfect_and_worst():
    labels = torch.arange(20) % 2
    assert mean_average_precision(torch.nn.functional.one_hot(labels).float(), labels) == 1
    assert mean_average_precision(torch.randn(20, 3), torch.zeros(20, dtype=torch.long)) == 1


def test_chance_is_about_the_share_of_the_class():
    torch.manual_seed(0)
    value = mean_average_precision(torch.randn(1000, 64), torch.arange(1000) % 4)
    assert value == pytest.approx(0.25, abs=0.02)


def test_nobody_to_find():
    with pytest.raises(DataError, match="3 shapes, each alone in its class"):
        mean_average_precision(torch.randn(3, 2), torch.arange(3))
