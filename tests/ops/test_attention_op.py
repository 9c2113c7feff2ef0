"""Attention between small sets: against softmax(q k^T / sqrt(D)) v in float64, forward and backward."""

from __future__ import annotations

import pytest
import torch

from contrast3d.ops import attention as ops
from contrast3d.ops.attention import cross_attention, self_attention
from contrast3d.ops.portable import portable


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive(q, k, v):
    """(B, M, H, D), (B, N, H, D) twice -> (B, M, H D)."""
    scores = torch.einsum("bmhd,bnhd->bhmn", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhmn,bnhd->bmhd", scores.softmax(-1), v).flatten(2)


def with_gradients(function, grad, *inputs):
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    out.backward(grad.to(out.dtype))
    return out.detach(), *(leaf.grad for leaf in leaves)


def close(found, wanted, tolerance=1e-5):
    """Relative to the largest, or to 1: gradients of a softmax over one key vanish."""
    return all(
        f.shape == w.shape and bool((f - w).abs().max() <= tolerance * max(1.0, float(w.abs().max())))
        for f, w in zip(found, wanted, strict=True))


@pytest.fixture
def served(monkeypatch):
    """How often the kernels were asked."""
    calls, attention = [], ops._Attention.apply
    monkeypatch.setattr(ops._Attention, "apply", lambda *args: calls.append(1) or attention(*args))
    return calls


@pytest.mark.parametrize("size", [64, 32])
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 26, 64, 131])
def test_self_attention_as_naive(count, size):
    qkv, grad = normal(3, count, 3, 2, size), normal(3, count, 2 * size, seed=1)
    found = with_gradients(self_attention, grad, qkv)
    wanted = with_gradients(lambda qkv: naive(*qkv.unbind(2)), grad, qkv.double())
    assert close(found, wanted)
    assert count == 1 or not close([found[0], found[1].flip(2)], wanted)  # canary


@pytest.mark.parametrize("size", [64, 32])
@pytest.mark.parametrize(("queries", "count"), [(1, 1), (3, 26), (3, 64), (17, 5), (64, 7)])
def test_cross_attention_as_naive(queries, count, size):
    q, kv = normal(3, queries, 2, size), normal(3, count, 2, 2, size, seed=1)
    grad = normal(3, queries, 2 * size, seed=2)
    found = with_gradients(cross_attention, grad, q, kv)
    assert close(found, with_gradients(lambda q, kv: naive(q, *kv.unbind(2)), grad, q.double(), kv.double()))


def test_which_shapes_the_kernels_serve(served):
    wide = ops.kernels.HEAD
    self_attention(normal(1, 26, 3, 2, wide))
    cross_attention(normal(1, 3, 2, wide), normal(1, 26, 2, 2, wide))
    assert len(served) == 2
    self_attention(normal(1, 26, 3, 2, wide).double())
    self_attention(normal(1, 26, 3, 2, wide // 2))
    self_attention(normal(1, ops.LARGEST + 1, 3, 1, wide))
    with portable():
        self_attention(normal(1, 26, 3, 2, wide))
    assert len(served) == 2


@pytest.mark.parametrize("scale", [1e-6, 5.0])
def test_flat_and_sharp_scores(scale):
    qkv, grad = normal(2, 26, 3, 2, 64) * scale, normal(2, 26, 128, seed=1)
    found = with_gradients(self_attention, grad, qkv)
    assert close(found, with_gradients(lambda qkv: naive(*qkv.unbind(2)), grad, qkv.double()), 2e-5)


def test_nan_is_not_hidden():
    qkv = normal(2, 26, 3, 1, 64)
    qkv[1, 3, 1, 0, 5] = float("nan")  # of a key: all queries of its cloud see it
    out = self_attention(qkv)
    assert out[1].isnan().all()
    assert not out[0].isnan().any()


def test_no_number_depends_on_threads():
    qkv, grad = normal(3, 26, 3, 3, 64), normal(3, 26, 192, seed=1)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(with_gradients(self_attention, grad, qkv))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other))


def test_strided_and_expanded():
    qkv = normal(26, 2, 64, 3, 2)
    strided = qkv.permute(1, 0, 3, 4, 2)
    one = strided[:1].expand(2, -1, -1, -1, -1)
    assert torch.equal(self_attention(strided), self_attention(strided.contiguous()))
    assert torch.equal(self_attention(one)[1], self_attention(strided[:1])[0])
    leaf = strided.clone().requires_grad_()
    self_attention(leaf).sum().backward()
    kept = with_gradients(self_attention, torch.ones(2, 26, 128), strided)
    assert torch.equal(leaf.grad, kept[1])


def test_only_wanted_gradients_are_kept():
    q, kv = normal(2, 3, 2, 64).requires_grad_(), normal(2, 26, 2, 2, 64)
    cross_attention(q, kv).sum().backward()
    assert q.grad is not None
    assert kv.grad is None
    kv = kv.requires_grad_()
    cross_attention(q.detach(), kv).sum().backward()
    assert kv.grad.abs().sum() > 0


@pytest.mark.parametrize(("clouds", "count"), [(0, 26), (2, 0)])
def test_nothing(clouds, count):
    qkv = torch.zeros(clouds, count, 3, 2, 64, requires_grad=True)
    out = self_attention(qkv)
    assert out.shape == (clouds, count, 128)
    out.sum().backward()
    assert qkv.grad.shape == qkv.shape


def test_bfloat16_is_widened(served):
    qkv, grad = normal(2, 26, 3, 2, 64).bfloat16(), normal(2, 26, 128, seed=1).bfloat16()
    found = with_gradients(self_attention, grad, qkv)
    wanted = with_gradients(lambda qkv: naive(*qkv.unbind(2)), grad, qkv.double())
    assert all(f.dtype == torch.bfloat16 for f in found)
    assert close(found, wanted, 2**-7)
    q, kv = normal(2, 3, 2, 64).bfloat16(), normal(2, 26, 2, 2, 64, seed=1).bfloat16()
    assert cross_attention(q, kv).dtype == torch.bfloat16
    assert len(served) == 2


def test_float64_by_gradcheck():
    q, kv = normal(2, 3, 2, 4).double().requires_grad_(), normal(2, 5, 2, 2, 4, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(cross_attention, (q, kv))
