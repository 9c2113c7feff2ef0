"""Gradient caching: the gradient of the large batch to the last digits, whatever the size of the pieces."""

from __future__ import annotations

import contextlib
import copy
import inspect

import pytest
import torch
from torch import nn

from contrast3d import methods
from contrast3d.engine.backward import make_backward
from contrast3d.engine.gradient_cache import cached_backward
from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError
from contrast3d.nn.batch_norm import BatchNorm
from contrast3d.nn.pointnet import PointNet
from contrast3d.types import Clouds, Features

SHAPES = 10
COMPOSED = [name for name in methods.__all__ if hasattr(getattr(methods, name), "embed")]


class PerShape(nn.Module):
    """An encoder that normalises each shape by itself, and drops features at random."""

    embed_dim = 12

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, self.embed_dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, clouds):
        return Features(pooled=self.dropout(self.layers(clouds.dense)).amax(1))


def make(name, dropout=0.0, **more):
    kind = getattr(methods, name)
    torch.manual_seed(0)
    if "num_shapes" in inspect.signature(kind).parameters:
        more["num_shapes"] = SHAPES
    return kind(PerShape(dropout), projection_dim=6, hidden_dim=8, head_norm=False, **more).double()


def batch(method, seed=1):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(method.views, SHAPES, 14, 3, dtype=torch.float64, generator=generator)
    return [Clouds.from_dense(view, ids=torch.arange(SHAPES)) for view in points]


def gradients(method):
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("micro_batch", [1, 3, 10, 64])
@pytest.mark.parametrize("name", COMPOSED)
def test_the_gradient_is_that_of_the_plain_batch(name, micro_batch):
    plain = make(name)
    cached = copy.deepcopy(plain)
    expected = plain(batch(plain))
    expected["loss"].backward()
    outputs = cached_backward(cached, batch(cached), micro_batch, contextlib.nullcontext())
    assert outputs.keys() == expected.keys()
    for key in outputs:
        torch.testing.assert_close(outputs[key], expected[key], rtol=0, atol=1e-10)
    assert gradients(cached).keys() == gradients(plain).keys()
    for key, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(cached)[key], gradient, rtol=0, atol=1e-10)
    for (key, ours), theirs in zip(cached.state_dict().items(), plain.state_dict().values()):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10, msg=key)  # queue and bank moved alike


def test_dropout_draws_the_same_in_both_passes():
    """The gradient belongs to the embeddings that the loss saw: finite differences of that very loss agree."""
    method = make("SimCLR", dropout=0.5)

    def loss_and_gradient():
        method.zero_grad()
        torch.manual_seed(7)
        loss = cached_backward(method, batch(method), 4, contextlib.nullcontext())["loss"]
        return loss.item(), method.encoder.layers[0].weight.grad.clone()

    _, gradient = loss_and_gradient()
    direction = torch.randn_like(gradient)
    shifted = []
    for sign in (1, -1):
        with torch.no_grad():
            method.encoder.layers[0].weight.add_(direction, alpha=sign * 1e-6)
        shifted.append(loss_and_gradient()[0])
        with torch.no_grad():
            method.encoder.layers[0].weight.sub_(direction, alpha=sign * 1e-6)
    assert (shifted[0] - shifted[1]) / 2e-6 == pytest.approx(float((gradient * direction).sum()), rel=1e-5)


def test_random_draws_go_on_as_after_one_pass():
    method = make("SimCLR", dropout=0.5)
    torch.manual_seed(7)
    with torch.no_grad():
        method.embed(batch(method))
    expected = torch.rand(3)
    torch.manual_seed(7)
    cached_backward(method, batch(method), SHAPES, contextlib.nullcontext())
    torch.testing.assert_close(torch.rand(3), expected)


def test_batch_norm_is_of_each_piece_and_its_averages_move_once():
    method = make("SimCLR")
    method.projector = nn.Sequential(BatchNorm(method.encoder.embed_dim), method.projector).double()
    once = copy.deepcopy(method)
    for piece in zip(*(view.chunks(5) for view in batch(once))):
        once.embed(piece)
    cached_backward(method, batch(method), 5, contextlib.nullcontext())
    for (name, ours), theirs in zip(method.named_buffers(), once.buffers()):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12, msg=name)


def test_accumulation_and_caching_together():
    plain = make("VICReg")
    cached = copy.deepcopy(plain)
    for method, settings in ((plain, Training(accumulate=2)), (cached, Training(accumulate=2, micro_batch=3))):
        backward = make_backward(method, settings, torch.device("cpu"))
        for i in range(2):
            backward(batch(method, i), i == 1)
    for key, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(cached)[key], gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", [nn.Linear(3, 3), methods.PointContrast(PointNet(8, widths=(4,)))])
def test_a_method_that_is_not_composed_is_refused(method):
    """Embeddings of points, as PointContrast's, are not cut by clouds."""
    with pytest.raises(ConfigError, match=f"{type(method).__name__} has no embed and objective"):
        make_backward(method, Training(micro_batch=2), torch.device("cpu"))


def test_all_but_methods_on_points_and_patches_are_composed():
    assert set(methods.__all__) - set(COMPOSED) == {"PointContrast", "PointMAE", "ReCon"}
