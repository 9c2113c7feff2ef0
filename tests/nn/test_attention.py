"""Attention against loops, and both kinds of block against their formulas written out."""

import math

import pytest
import torch
import torch.nn.functional as F

from contrast3d.errors import ConfigError
from contrast3d.nn.attention import Attention, Block, CrossAttention, DropPath, TwoStreamBlock

WIDTH, HEADS = 12, 3
ORDERS = ("released", "paper")


def random(module, seed=0):
    """The module in float64 with weights that all matter, norms and biases included."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.3 + (0.5 if p.ndim == 1 else 0))
    return module.double()


def streams(b=2, q=3, n=5):
    g = torch.Generator().manual_seed(1)
    return [torch.randn(b, m, WIDTH, generator=g, dtype=torch.float64, requires_grad=True) for m in (q, n)]


def looped(q, k, v, heads):
    """softmax(q k^T / sqrt(d)) v, for each cloud, head and query by itself -> result and weights, mean over heads."""
    d = q.shape[2] // heads
    out, weights = torch.zeros_like(q), q.new_zeros(len(q), q.shape[1], k.shape[1])
    for b in range(len(q)):
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            for i in range(q.shape[1]):
                scores = torch.stack([q[b, i, part] @ key[part] for key in k[b]]) / math.sqrt(d)
                share = scores.exp() / scores.exp().sum()
                out[b, i, part] = sum(s * value[part] for s, value in zip(share, v[b]))
                weights[b, i] += share / heads
    return out, weights


def of_self(attention, x):
    return looped(*(x @ w.T for w in attention.qkv.weight.chunk(3)), attention.num_heads)


def of_others(attention, queries, tokens):
    k, v = (tokens @ w.T for w in attention.kv.weight.chunk(2))
    return looped(queries @ attention.q.weight.T, k, v, attention.num_heads)


def projected(attention, found):
    return found @ attention.proj.weight.T + attention.proj.bias


def mlp(layers, x):
    inner = x @ layers.fc1.weight.T + layers.fc1.bias
    inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    return inner @ layers.fc2.weight.T + layers.fc2.bias


def norm(layer, x):
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, 1e-5)


def test_self_attention():
    attention, (_, x) = random(Attention(WIDTH, HEADS)), streams()
    found, weights = of_self(attention, x)
    torch.testing.assert_close(attention(x), projected(attention, found))
    torch.testing.assert_close(attention.weights(x), weights)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5).double())
    assert attention.qkv.bias is None


def test_cross_attention():
    attention, (queries, tokens) = random(CrossAttention(WIDTH, HEADS)), streams()
    found, weights = of_others(attention, queries, tokens)
    torch.testing.assert_close(attention(queries, tokens), projected(attention, found))
    torch.testing.assert_close(attention.weights(queries, tokens), weights)
    assert weights.shape == (2, 3, 5)
    assert attention.q.bias is None
    assert attention.kv.bias is None


def test_standard_block():
    """Queries and tokens are one sequence."""
    block, (queries, tokens) = random(Block(WIDTH, HEADS)), streams()
    layers, x = block.local, torch.cat([queries, tokens], 1)
    found, weights = of_self(layers.attn, norm(layers.norm1, x))
    x = x + projected(layers.attn, found)
    x = x + mlp(layers.mlp, norm(layers.norm2, x))
    for ours, expected in zip(block(queries, tokens), x.split([3, 5], 1)):
        torch.testing.assert_close(ours, expected)
    for ours, expected in zip(block.weights(queries, tokens), weights[:, :, 3:].split([3, 5], 1)):
        torch.testing.assert_close(ours, expected)


def written_out(block, queries, tokens):
    """Spec of both orders, step by step; and what queries and tokens attend to."""
    q, x = block.queries, block.local
    if block.order == "paper":
        found, own = of_self(x.attn, norm(x.norm1, tokens))
        tokens = tokens + projected(x.attn, found)
        found, crossed = of_others(q.attn, norm(q.norm1, queries), tokens)
        queries = queries + projected(q.attn, found)
        tokens = tokens + mlp(x.mlp, norm(x.norm2, tokens))
        queries = queries + mlp(q.mlp, norm(q.norm2, queries))
        return queries, tokens, crossed, own
    queries, tokens = norm(q.norm1, queries), norm(x.norm1, tokens)
    found, crossed = of_others(q.attn, queries, tokens)
    queries = queries + projected(q.attn, found)
    found, own = of_self(x.attn, tokens)
    tokens = tokens + projected(x.attn, found)
    queries, tokens = norm(q.norm2, queries), norm(x.norm2, tokens)
    return queries + mlp(q.mlp, queries), tokens + mlp(x.mlp, tokens), crossed, own


@pytest.mark.parametrize("order", ORDERS)
def test_two_streams(order):
    block, (queries, tokens) = random(TwoStreamBlock(WIDTH, HEADS, order=order)), streams()
    q, x, crossed, own = written_out(block, queries, tokens)
    for detach in (False, True):  # which is of the gradient alone
        ours = block(queries, tokens, detach)
        torch.testing.assert_close(ours[0], q)
        torch.testing.assert_close(ours[1], x)
    ours = block.weights(queries, tokens)
    torch.testing.assert_close(ours[0], crossed)
    torch.testing.assert_close(ours[1], own)


def test_orders_differ():
    released, (queries, tokens) = random(TwoStreamBlock(WIDTH, HEADS)), streams()
    paper = random(TwoStreamBlock(WIDTH, HEADS, order="paper"))
    paper.load_state_dict(released.state_dict())
    for one, other in zip(released(queries, tokens), paper(queries, tokens)):
        assert (one - other).abs().max() > 1e-2


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("detach", [False, True])
def test_what_queries_learn_reaches_tokens_only_without_detach(order, detach):
    block, (queries, tokens) = random(TwoStreamBlock(WIDTH, HEADS, order=order)), streams()
    block(queries, tokens, detach)[0].square().sum().backward()
    assert (tokens.grad is None) == detach
    local = [name for name, p in block.named_parameters() if name.startswith("local.") and p.grad is not None]
    assert local == ([] if detach else ["local.norm1.weight", "local.norm1.bias"] if order == "released" else [
        "local.norm1.weight", "local.norm1.bias", "local.attn.qkv.weight", "local.attn.proj.weight",
        "local.attn.proj.bias"])
    assert queries.grad is not None
    assert all(p.grad is not None for p in block.queries.parameters())


@pytest.mark.parametrize("order", ORDERS)
def test_tokens_never_see_queries(order):
    block, (queries, tokens) = random(TwoStreamBlock(WIDTH, HEADS, order=order)), streams()
    alone = block(queries[:, :0], tokens)
    assert alone[0].shape == (2, 0, WIDTH)
    torch.testing.assert_close(block(queries, tokens)[1], alone[1])


def test_one_stream_cannot_be_parted():
    block, (queries, tokens) = Block(WIDTH, HEADS).double(), streams()
    with pytest.raises(ConfigError, match=r"one stream.*Try: block = 'two-stream'"):
        block(queries, tokens, detach=True)
    assert block(queries[:, :0], tokens, detach=True)[1].shape == tokens.shape  # without queries there is nothing to


def test_drop_path():
    """It leaves samples out whole, makes up for it, and does so in training alone."""
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    torch.manual_seed(0)
    found = drop(x)
    kept = found.flatten(1).amax(1)
    assert set(kept.tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(found, kept[:, None, None].expand_as(found))
    assert abs(found.mean() - 1) < 0.05
    torch.manual_seed(0)
    assert torch.equal(drop(x), found)
    assert drop.eval()(x) is x
    assert DropPath(0.0)(x) is x


def test_each_branch_is_left_out_by_itself():
    torch.manual_seed(0)
    block, x = Block(WIDTH, HEADS, drop_path=0.5).double(), streams(b=200)[1]
    nothing = x[:, :0]
    whole = block.eval()(nothing, x)[1]
    halved = block.train()(nothing, x)[1]
    unchanged = (halved == x).flatten(1).all(1).float().mean()  # both branches are left out of every fourth
    assert 0.15 < unchanged < 0.35
    assert not torch.isclose(halved, whole).flatten(1).all(1).any()


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_rates(rate):
    with pytest.raises(ConfigError, match=f"drop_path = {rate}; expected a share from 0 to below 1"):
        DropPath(rate)
