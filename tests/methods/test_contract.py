"""Contract tests over all methods: what the engine and the recipes rely on. A method joins by its name in __all__."""

import copy
import inspect

import pytest
import torch
from torch import nn

from contrast3d import methods
from contrast3d.errors import ConfigError
from contrast3d.nn.patch_transformer import PatchTransformer
from contrast3d.nn.pointnet import PointNet
from contrast3d.types import Clouds, Features, ViewPairs

METHODS = {name: getattr(methods, name) for name in methods.__all__}
COMPOSED = [name for name in METHODS if hasattr(METHODS[name], "embed")]  # the others take no part in gradient caching
SHAPES = 6


def make(kind, encoder):
    """With its own defaults, a bank for SHAPES where it wants one, contrast of points sharp enough for so few, and one
    that needs no teacher where the method wants either."""
    takes = inspect.signature(kind).parameters
    wanted = {"num_shapes": SHAPES} if "num_shapes" in takes else {}
    wanted |= {"self_contrast": "instance"} if "self_contrast" in takes else {}
    return kind(encoder, **wanted, **({"temperature": 0.1} if "dense" in kind.needs else {}))


def encoder_for(kind):
    """A small one that gives what the method needs; whatever is dropped at random would blur what is compared."""
    if "tokens" in kind.needs:
        return PatchTransformer(16, 2, 2, 4, 4, drop_path=0.0)
    return PointNet(16, widths=(8,))


def batch(method, seed=0, n=SHAPES):
    """What the method takes: views of shapes; of dense features, pairs of views with the matches of their points."""
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(n, 16, 3, generator=g)
    ids = torch.arange(n)
    views = [Clouds.from_dense(base + 0.1 * torch.randn(n, 16, 3, generator=g), ids=ids) for _ in range(method.views)]
    return ViewPairs(*views, torch.arange(n * 16)[:, None].expand(-1, 2)) if "dense" in method.needs else views


@pytest.fixture(params=METHODS, name="method")
def _method(request):
    torch.manual_seed(0)
    return make(METHODS[request.param], encoder_for(METHODS[request.param]))


def test_forward_is_the_loss(method):
    outputs = method(batch(method))
    assert outputs["loss"].ndim == 0
    assert all(torch.isfinite(torch.as_tensor(v)) for v in outputs.values())
    assert ("reconstruction" if "tokens" in method.needs else "alignment") in outputs  # drawn in the report
    outputs["loss"].backward()
    assert all((p.grad is not None) == p.requires_grad for p in method.parameters())


def test_the_encoder_is_the_one_given(method):
    """Its name and parameters are what is saved, and no slow copy shares its memory."""
    names = {id(p) for p in method.encoder.parameters()}
    others = [p for name, p in method.named_parameters() if not name.startswith("encoder.")]
    assert names
    assert not names & {id(p) for p in others}


@pytest.mark.parametrize("method", COMPOSED, indirect=True)
def test_forward_is_embed_then_objective(method):
    views, again = batch(method), copy.deepcopy(method)
    torch.testing.assert_close(again.objective(again.embed(views))["loss"], method(views)["loss"])


def test_the_state_dict_is_all_there_is(method):
    """A copy with the same state goes the same way: nothing that matters lies outside parameters and buffers."""
    for _ in range(2):
        step(method, torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.1))
    torch.manual_seed(1)
    again = make(type(method), encoder_for(type(method)))
    again.load_state_dict(method.state_dict())
    losses = []
    for each in (method, again):
        torch.manual_seed(2)  # of masks
        losses.append(each(batch(each))["loss"])
    torch.testing.assert_close(*losses)


def test_evaluation_changes_nothing(method):
    method.eval()
    before = copy.deepcopy(method.state_dict())
    method(batch(method))
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())


def step(method, optimizer):
    if hasattr(method, "before_step"):
        method.before_step(0.5)
    outputs = method(batch(method))
    optimizer.zero_grad()
    outputs["loss"].backward()
    optimizer.step()
    if hasattr(method, "after_step"):
        method.after_step()
    return {name: value.item() for name, value in outputs.items()}


def test_a_few_steps_teach_something(method):
    """The loss falls; where earlier keys of the same shapes pile up among the negatives, the views come together."""
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], 3e-3)
    seen = [step(method, optimizer) for _ in range(40)]
    assert min(seen[-1][key] / seen[1][key] for key in ("loss", "alignment") if key in seen[1]) < 0.8


@pytest.mark.parametrize("kind", [kind for kind in METHODS.values() if "tokens" not in kind.needs])
def test_any_encoder_with_the_signature_plugs_in(kind):
    class Mean(nn.Module):
        embed_dim = 3

        def forward(self, clouds):
            return Features(pooled=clouds.dense.mean(1), points=clouds.points)

    method = make(kind, Mean())
    assert torch.isfinite(method(batch(method))["loss"])


@pytest.mark.parametrize("kind", METHODS.values())
def test_an_encoder_that_lacks_what_the_method_needs(kind):
    encoder = PointNet(16, widths=(8,))
    encoder.gives = frozenset({"pooled", "dense"}) - kind.needs
    with pytest.raises(ConfigError, match=f"needs an encoder that gives {' '.join(kind.needs)}; PointNet gives"):
        make(kind, encoder)


@pytest.mark.parametrize("kind", METHODS.values())
def test_an_encoder_without_a_width_is_refused(kind):
    with pytest.raises(ConfigError, match="Linear has no embed_dim"):
        make(kind, nn.Linear(3, 3))
