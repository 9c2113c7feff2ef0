"""Dense layers: against torch in float64, on shapes that oneDNN serves and on those that are left to torch."""

from __future__ import annotations

import copy
import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from contrast3d.errors import ConfigError, DataError
from contrast3d.nn.linear import Linear
from contrast3d.ops.linear import check_width, linear
from contrast3d.ops.portable import portable

ops = importlib.import_module("contrast3d.ops.linear")  # the package has the function under that name

SERVED = pytest.mark.skipif(not ops._has_product(), reason="no oneDNN product, or a processor without AVX-512")


def normal(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def case(rows, width, out, leading=()):
    """x, weight, bias and a gradient of the result."""
    return (normal(*leading, rows, width), normal(out, width, seed=1, scale=width**-0.5), normal(out, seed=2),
            normal(*leading, rows, out, seed=3))


def with_gradients(function, x, weight, bias, grad):
    """The result and the gradients of x, weight and bias."""
    leaves = [x.detach().clone().requires_grad_(), weight.detach().clone().requires_grad_(),
              None if bias is None else bias.detach().clone().requires_grad_()]
    out = function(*leaves)
    out.backward(grad.to(out.dtype))
    return out.detach(), *(leaf.grad for leaf in leaves if leaf is not None)


def naive(activation):
    def function(x, weight, bias=None):
        out = x.double() @ weight.double().T + (0 if bias is None else bias.double())
        return out * (1 + torch.erf(out / 2**0.5)) / 2 if activation else out

    return function


def close(found, wanted):
    return all(
        f.shape == w.shape and f.dtype == torch.float32 and bool((f - w).abs().max() <= 1e-5 * w.abs().max())
        for f, w in zip(found, wanted, strict=True))


@pytest.fixture
def products(monkeypatch):
    """The shapes of the products that oneDNN was asked for."""
    asked, product = [], ops._product

    def counted(x, weight, *rest):
        asked.append((len(x), x.shape[1], len(weight)))
        return product(x, weight, *rest)

    monkeypatch.setattr(ops, "_product", counted)
    return asked


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("rows", "width", "out", "leading"),
    [(832, 384, 1152, ()), (26, 384, 384, (32,)), (2048, 192, 192, ()), (96, 1536, 384, ()), (3, 256, 1024, (32,)),
     (2500, 33, 67, ()), (1, 3, 5, ()), (4, 384, 384, (2, 3)), (7, 40, 9, ())],
)
def test_as_naive(rows, width, out, leading, bias, activation):
    x, weight, b, grad = case(rows, width, out, leading)
    b = b if bias else None
    run = lambda x, w, b: linear(x, w, b, activation)  # noqa: E731
    found, wanted = (with_gradients(f, x, weight, b, grad) for f in (run, naive(activation)))
    assert close(found, wanted)
    assert not close([f * 1.0001 for f in found], wanted)  # canary
    with torch.no_grad():
        assert close([run(x, weight, b)], wanted[:1])


@SERVED
@pytest.mark.parametrize("activation", [None, "gelu"])
def test_large_layers_are_served_and_small_ones_are_not(products, activation):
    x, weight, bias, grad = case(832, 384, 192)
    with_gradients(lambda *args: linear(*args, activation), x, weight, bias, grad)
    assert products == [(832, 384, 192), (832, 192, 384), (192, 832, 384)]
    products.clear()
    linear(x[:9], weight, bias, activation)
    linear(x, weight[:31], bias[:31], activation)
    assert not products


@SERVED
def test_long_sums_are_parted(products):
    x, weight, bias, grad = case(2 * ops.ROWS + 5, 64, 64)
    found = with_gradients(linear, x, weight, bias, grad)
    assert [shape for shape in products if shape[0] == 64] == [(64, ops.ROWS, 64)] * 2 + [(64, 5, 64)]
    assert close(found, with_gradients(naive(None), x, weight, bias, grad))


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("shape", [(832, 384, 1152), (2049, 384, 384), (5000, 64, 64), (96, 1536, 384)])
def test_no_number_depends_on_threads(shape, activation):
    x, weight, bias, grad = case(*shape)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(with_gradients(lambda *args: linear(*args, activation), x, weight, bias, grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))


@pytest.mark.parametrize("activation", [None, "gelu"])
def test_strided_and_expanded(activation):
    x, weight, bias, grad = case(832, 64, 64)
    run = lambda *args: linear(*args, activation)  # noqa: E731
    kept = with_gradients(run, x, weight, bias, grad)
    strided = normal(832, 130)[:, :128:2]
    assert close(with_gradients(run, strided, weight, bias, grad),
                 with_gradients(naive(activation), strided, weight, bias, grad))
    leaf = x.T.contiguous().requires_grad_()
    out = run(leaf.T, weight.T.contiguous().T, bias)
    out.backward(grad.T.contiguous().T)
    assert close([out.detach(), leaf.grad.T], kept[:2])
    row = weight[:1].clone().requires_grad_()
    out = run(x, row.expand(64, 64), bias[:1].expand(64))
    out.sum().backward()  # an expanded gradient
    wanted = with_gradients(naive(activation), x, weight[:1].expand(64, 64), bias[:1].expand(64), torch.ones(832, 64))
    assert close([out.detach(), row.grad], [wanted[0], wanted[2].sum(0, keepdim=True)])


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_only_wanted_gradients_are_made(products, wanted, activation):
    *tensors, grad = case(832, 64, 64)
    full = with_gradients(lambda *args: linear(*args, activation), *tensors, grad)
    products.clear()
    leaves = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(tensors)]
    linear(*leaves, activation).backward(grad)
    for i, leaf in enumerate(leaves):
        assert torch.equal(leaf.grad, full[1 + i]) if i in wanted else leaf.grad is None
    if ops._has_product():
        assert len(products) == 1 + (0 in wanted) + (1 in wanted)


def test_no_rows():
    x, weight, bias, grad = case(0, 384, 384, (2,))
    found = with_gradients(lambda *args: linear(*args, "gelu"), x, weight, bias, grad)
    assert [f.shape for f in found] == [(2, 0, 384), (2, 0, 384), (384, 384), (384,)]
    assert not found[2].any()


@pytest.mark.parametrize("activation", [None, "gelu"])
def test_float64_by_gradcheck(activation):
    leaves = [t.double().requires_grad_() for t in case(4, 3, 5)[:3]]
    assert torch.autograd.gradcheck(lambda *args: linear(*args, activation), leaves)


def test_other_types_autocast_and_portable_are_torch(products):
    x, weight, bias, _ = case(832, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    with portable():
        assert torch.equal(linear(x, weight, bias, "gelu"), F.gelu(F.linear(x, weight, bias)))
    half = [t.bfloat16() for t in (x, weight, bias)]
    assert torch.equal(linear(*half), F.linear(*half))
    assert not products


@SERVED
def test_gelu_keeps_nan_and_great_numbers():
    values = torch.tensor([0.0, -0.0, 50.0, -50.0, 1e20, -1e20, float("nan"), 1e-30])
    x = torch.zeros(2048, 64)
    x[:8, 0] = values
    weight = torch.eye(64)
    out, slope, *_ = with_gradients(lambda *args: linear(*args, "gelu"), x, weight, None, torch.ones(2048, 64))
    assert out[6, 0].isnan()
    torch.testing.assert_close(out[:6, 0], torch.tensor([0.0, 0.0, 50.0, 0.0, 1e20, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(slope[:6, 0], torch.tensor([0.5, 0.5, 1.0, 0.0, 1.0, 0.0]), rtol=0, atol=1e-6)


def test_widths_and_activations_that_do_not_fit():
    with pytest.raises(DataError, match="linear layer: features of width 4; expected 3, that of its weight"):
        check_width(torch.zeros(2, 4), torch.zeros(5, 3))  # the type checker of the tests would be before `linear`
    with pytest.raises(ConfigError, match="activation = 'relu'; expected None or 'gelu'"):
        linear(torch.zeros(2, 3), torch.zeros(5, 3), None, "relu")


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_is_a_drop_in(bias):
    torch.manual_seed(0)
    ours, before = Linear(64, 96, bias, activation="gelu"), torch.get_rng_state()
    torch.manual_seed(0)
    plain = nn.Linear(64, 96, bias)
    assert torch.equal(torch.get_rng_state(), before)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), plain.parameters()))
    x = normal(16, 26, 64)
    torch.testing.assert_close(ours(x), F.gelu(plain(x)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(copy.deepcopy(ours)(x), ours(x), rtol=0, atol=0)
    assert str(ours) == f"Linear(in_features=64, out_features=96, bias={bias}, activation=gelu)"
