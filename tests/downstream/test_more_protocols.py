"""Few-shot trials, shares of the labels, and corrupted test shapes."""

from __future__ import annotations

import pytest
import torch
from test_evaluate import Spread, boxes

from contrast3d.data.corruptions import FAMILIES, SEVERITIES, corrupted
from contrast3d.downstream.few_shot import episode, few_shot
from contrast3d.downstream.robustness import CLEAN, robustness
from contrast3d.downstream.splits import few_labels
from contrast3d.downstream.table import MAJORITY, TRAINING_FREE, UNTRAINED
from contrast3d.errors import ConfigError, DataError

# Few-shot.


def test_a_trial_is_what_it_says():
    train, test = boxes("train"), boxes("test")
    support, query = episode(train.labels, test.labels, 2, 5, 7, seed=3)
    assert sorted(train.labels[support].bincount(minlength=3).tolist()) == [0, 5, 5]
    assert sorted(test.labels[query].bincount(minlength=3).tolist()) == [0, 7, 7]
    assert set(train.labels[support].tolist()) == set(test.labels[query].tolist())
    assert len(set(support.tolist())) == 10
    again, other = (episode(train.labels, test.labels, 2, 5, 7, seed=s)[0] for s in (3, 4))
    assert torch.equal(support, again)
    assert not torch.equal(support, other)


def test_few_shot_table():
    table = few_shot(Spread(), boxes, name="Spread", ways=(2, 3), shots=(4,), trials=3, make_untrained=Spread)
    assert table.budgets == ("2-way 4-shot", "3-way 4-shot")
    assert table.contestants == [MAJORITY, TRAINING_FREE, UNTRAINED, "Spread"]
    assert all(len(table.cell(who, b).values) == 3 for who in table.contestants for b in table.budgets)
    assert table.cell("Spread", "3-way 4-shot").mean > 0.8 > table.cell(MAJORITY, "3-way 4-shot").mean
    assert table.cell(MAJORITY, "2-way 4-shot").mean == pytest.approx(0.5)
    result = table.to_results("boxes", commit="c", command="x", device="cpu")[0]
    assert (result["condition"], result["protocol"]) == ("2-way 4-shot", "few-shot linear probe")
    assert "labels_per_class" not in result


def test_few_shot_needs_classes_enough():
    with pytest.raises(DataError, match=r"3 classes with 4 training shapes .* at least 5"):
        few_shot(Spread(), boxes, ways=(5,), shots=(4,))
    with pytest.raises(ConfigError, match="at least 2 ways"):
        few_shot(Spread(), boxes, ways=(1,))


# Shares of the labels.


def test_shares_are_of_each_class():
    labels = torch.tensor([0] * 40 + [1] * 10 + [2] * 3 + [-1] * 5)
    rows = few_labels(labels, "10%", seed=0)
    assert labels[rows].bincount().tolist() == [4, 1, 1]  # at least one of each
    assert set(rows.tolist()) <= set(few_labels(labels, "50%", seed=0).tolist())
    assert torch.equal(few_labels(labels, "100%", 0), few_labels(labels, None, 0))


@pytest.mark.parametrize("share", ["ten", "10", "0%", "101%", "%", "-5%"])
def test_shares_that_are_none(share):
    with pytest.raises(DataError, match="a number, or a share of each class such as 10%"):
        few_labels(torch.tensor([0, 1]), share, 0)


# Corruptions.


@pytest.mark.parametrize("family", FAMILIES)
def test_a_corruption_is_the_same_every_time_and_worse_with_severity(family):
    shapes = boxes("test", per_class=4)
    first, again, other = (corrupted(shapes, family, 3, seed) for seed in (0, 0, 1))
    assert torch.equal(first.points, again.points)
    assert not torch.equal(first.points, other.points)
    assert first.points.shape == shapes.points.shape
    assert torch.isfinite(first.points).all()
    assert torch.equal(first.labels, shapes.labels)
    distances = [_chamfer(corrupted(shapes, family, s).points, corrupted(shapes, family, 1).points) for s in SEVERITIES]
    if family != "rotation":  # of a box, any turn is as far as another
        assert distances[4] > distances[2] > distances[0]


def _chamfer(a, b):
    distances = torch.cdist(a, b)
    return float(distances.amin(1).mean() + distances.amin(2).mean())


def test_corruptions_do_what_they_say():
    shapes = boxes("test", per_class=4)
    unique = lambda s: sum(len(p.unique(dim=0)) for p in s.points) / len(s)  # noqa: E731
    assert unique(corrupted(shapes, "dropout", 5)) < 0.15 * shapes.num_points
    assert unique(corrupted(shapes, "crop", 5)) == pytest.approx(0.5 * shapes.num_points, rel=0.05)
    plane = corrupted(shapes, "background", 5).points
    low = plane[..., 2].amin(1, keepdim=True)
    assert ((plane[..., 2] - low).abs() < 1e-5).float().mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("family", "severity"), [("fog", 1), ("jitter", 0), ("jitter", 6)])
def test_unknown_corruptions(family, severity):
    with pytest.raises(ConfigError, match="expected one of jitter, dropout"):
        corrupted(boxes("test"), family, severity)


def test_robustness_table():
    table = robustness(Spread(), boxes, name="Spread", draws=2, families=("jitter", "background"), severities=(1, 5),
                       make_untrained=Spread)
    assert table.budgets == (CLEAN, "jitter", "background")
    assert table.contestants == [TRAINING_FREE, UNTRAINED, "Spread"]
    assert len(table.cell("Spread", "jitter").values) == 2
    assert table.cell("Spread", CLEAN).mean > table.cell("Spread", "background").mean
    assert len(table.scores["Spread", "jitter"][0].predictions) == 2 * 48
