import pytest
import torch
from torch import nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.features import extract
from contrast3d.errors import DataError
from contrast3d.types import Features


class ToyEncoder(nn.Module):
    """Per-point linear layer, batch norm, dropout, max over the points."""

    embed_dim = 6

    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)

    def forward(self, clouds):
        points = self.dropout(self.norm(self.linear(clouds.points)))
        return Features(clouds.as_dense(points).amax(1), points)


def shapes(n=10):
    return ShapeSet(torch.randn(n, 16, 3, generator=torch.Generator().manual_seed(0)))


def test_eval_mode_inside_and_every_mode_restored():
    encoder = ToyEncoder().train()
    encoder.norm.eval()  # a user who froze one layer finds it frozen afterwards
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    features = extract(encoder, shapes(), batch_size=4)
    assert features.shape == (10, 6)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert (encoder.training, encoder.norm.training, encoder.dropout.training) == (True, False, True)
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    torch.testing.assert_close(features, extract(encoder, shapes(), batch_size=10))


def test_modes_are_restored_after_an_error():
    encoder = ToyEncoder().train()
    encoder.linear = nn.Linear(4, 6)
    with pytest.raises(RuntimeError):
        extract(encoder, shapes())
    assert encoder.training


def test_broken_features_are_one_clear_error():
    encoder = ToyEncoder()
    nn.init.constant_(encoder.linear.weight, float("nan"))
    with pytest.raises(DataError, match="10 of 10 shapes"):
        extract(encoder, shapes())
