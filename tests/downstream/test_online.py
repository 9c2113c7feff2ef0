import pytest
import torch
from torch import nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.online import OnlineProbe
from contrast3d.errors import ConfigError
from contrast3d.types import Features


class Method(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Spread()


class Spread(nn.Module):
    embed_dim = 3

    def forward(self, clouds):
        return Features(clouds.dense.std(1))


def boxes(seed, n=60, labelled=True):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    points = 2 * torch.rand(n, 64, 3, generator=g) - 1
    points[torch.arange(n), :, labels] *= 0.3
    return ShapeSet(points, labels if labelled else None)


def test_accuracy_and_health_every_so_many_epochs():
    probe = OnlineProbe(boxes(0), boxes(1), every=2)
    assert probe(1, Method()) == {}
    numbers = probe(2, Method())
    assert numbers["knn_accuracy"] > 0.95
    assert set(numbers) == {"knn_accuracy", "rankme", "uniformity", "feature_std"}
    assert 2 < numbers["rankme"] <= 3.01
    assert numbers == probe(4, Method())


def test_the_last_epoch_is_always_looked_at():
    probe = OnlineProbe(boxes(0), boxes(1), every=5, last=7)
    assert [epoch for epoch in range(1, 8) if probe(epoch, Method())] == [5, 7]


def test_without_labels_only_health():
    assert "knn_accuracy" not in OnlineProbe(boxes(0, labelled=False), boxes(1, labelled=False))(1, Method())


def test_the_cost_is_capped():
    probe = OnlineProbe(boxes(0, 200), boxes(1, 200), most_shapes=50)
    assert len(probe.train) == len(probe.val) == 50


def test_bad_knobs():
    with pytest.raises(ConfigError, match="every=0"):
        OnlineProbe(boxes(0), boxes(1), every=0)
