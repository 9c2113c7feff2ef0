"""Contract tests over all methods: what the engine and the recipes rely on."""

import pytest
import torch
from torch import nn

from contrast3d.errors import ConfigError
from contrast3d.methods.simclr import SimCLR
from contrast3d.nn.pointnet import PointNet
from contrast3d.types import Clouds, Features

METHODS = {"simclr": SimCLR}


def views(method, seed=0, n=6):
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(n, 16, 3, generator=g)
    return [Clouds.from_dense(base + 0.1 * torch.randn(n, 16, 3, generator=g)) for _ in range(method.views)]


@pytest.fixture(params=METHODS, name="method")
def _method(request):
    torch.manual_seed(0)
    return METHODS[request.param](PointNet(16, widths=(8,)))


def test_forward_is_the_loss(method):
    outputs = method(views(method))
    assert outputs["loss"].ndim == 0
    assert all(torch.isfinite(torch.as_tensor(v)) for v in outputs.values())
    outputs["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


def test_forward_is_embed_then_objective(method):
    batch = views(method)
    torch.testing.assert_close(method.objective(method.embed(batch))["loss"], method(batch)["loss"])


def test_a_few_steps_lower_the_loss(method):
    batch = views(method)
    optimizer = torch.optim.Adam(method.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        loss = method(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_any_encoder_with_the_signature_plugs_in():
    class Mean(nn.Module):
        embed_dim = 3

        def forward(self, clouds):
            return Features(pooled=clouds.dense.mean(1))

    method = SimCLR(Mean(), projection_dim=4, hidden_dim=8)
    assert torch.isfinite(method(views(method))["loss"])


def test_an_encoder_that_lacks_what_the_method_needs():
    encoder = PointNet(16, widths=(8,))
    encoder.gives = frozenset({"dense"})
    with pytest.raises(ConfigError, match="needs an encoder that gives pooled"):
        SimCLR(encoder)


@pytest.mark.parametrize("method", METHODS.values())
def test_an_encoder_without_a_width_is_refused(method):
    with pytest.raises(ConfigError, match="Linear has no embed_dim"):
        method(nn.Linear(3, 3))
