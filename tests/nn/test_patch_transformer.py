"""Patch transformers: published sizes, weights, masks, gradients, readouts, levels and attention."""

import copy
import json

import pytest
import torch

from contrast3d.downstream.classification import make_head
from contrast3d.errors import ConfigError, DataError
from contrast3d.methods.point_mae import PointMAE
from contrast3d.methods.recon import ReCon
from contrast3d.nn.patch_transformer import POOLINGS, PRESETS, PatchTransformer
from contrast3d.nn.patches import Patches
from contrast3d.nn.rebuild import describe, rebuild
from contrast3d.nn.two_towers import TwoTowers
from contrast3d.types import Clouds

QUERIES = ("cls", "img", "text")
KINDS = {
    "released": {}, "paper": {"order": "paper"}, "standard": {"block": "standard"},
    "point-mae": {"block": "standard", "queries": (), "readout": ("max",)},
}
STREAMS = ("released", "paper")


def small(kind="released", **options):
    torch.manual_seed(0)
    shape = {"width": 16, "depth": 3, "num_heads": 2, "num_patches": 6, "patch_size": 5, "drop_path": 0.0}
    return PatchTransformer(**{**shape, **KINDS.get(kind, {}), **options})


def clouds(b=3, n=30, seed=1):
    return Clouds.from_dense(torch.randn(b, n, 3, generator=torch.Generator().manual_seed(seed)))


def mask_of(patches):
    """Two patches of each cloud, never the same ones."""
    b, g, _ = patches.centers.shape
    return torch.stack([torch.arange(g).roll(i) < 2 for i in range(b)])


def parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


kinds = pytest.mark.parametrize("kind", KINDS)


# Sizes, of the spec's section 5.


@pytest.mark.parametrize(("size", "expected"), [("tiny", 11_353_231), ("small", 19_733_263), ("base", 43_571_215)])
def test_sizes_of_recon(size, expected):
    encoder = PatchTransformer(**PRESETS[size])
    assert parameters(encoder, make_head("mlp-3", encoder.embed_dim, 15)) == expected
    assert encoder.embed_dim == 4 * encoder.width


def test_size_of_point_mae():
    encoder = PatchTransformer(queries=("cls",), block="standard", readout=("cls", "max"))
    assert parameters(encoder, make_head("mlp-3", encoder.embed_dim, 15)) == 22_093_327


@pytest.mark.parametrize(("size", "millions"), [("tiny", 13.15), ("small", 22.94), ("base", 50.78)])
def test_what_recon_pretrains(size, millions):
    encoder = PatchTransformer(**PRESETS[size], projections={"img": 768, "text": 512})
    assert parameters(ReCon(encoder, lambda clouds: {})) / 1e6 == pytest.approx(millions, abs=0.006)


def test_what_point_mae_and_two_towers_pretrain():
    point_mae = PointMAE(PatchTransformer(queries=(), block="standard", readout=("max",)))
    assert parameters(point_mae) / 1e6 == pytest.approx(29.01, abs=0.006)
    towers = TwoTowers(queries=("img", "text"), readout=("img", "text", "max"))
    cls = 2 * towers.width  # the spec's first tower is fine-tuned with a class token and its position
    assert (parameters(towers, make_head("mlp-3", 4 * towers.width, 15)) + cls) / 1e6 == pytest.approx(44.12, abs=0.006)


# Weights.


def test_weights_as_released():
    encoder = PatchTransformer(width=64, depth=2, num_heads=1, projections={"img": 512})
    assert not any(m.bias.any() for m in encoder.modules() if isinstance(m, torch.nn.Linear) and m.bias is not None)
    for name, p in encoder.named_parameters():
        if p.ndim == 2 and p.numel() > 1000:
            assert 0.018 < p.std() < 0.022, name
    for name in QUERIES:
        assert encoder.tokens[name].shape == (64,)  # one axis: no weight decay
        assert encoder.token_positions[name].shape == (1, 64)
        assert 0.01 < encoder.tokens[name].std() < 0.03


@kinds
def test_comes_back_as_it_was_described(kind):
    encoder = small(kind, skip_origin=True)
    again = rebuild(json.loads(json.dumps(describe(encoder))))
    again.load_state_dict(encoder.state_dict())
    for one in (again, copy.deepcopy(encoder)):
        torch.testing.assert_close(one.eval()(clouds()).pooled, encoder.eval()(clouds()).pooled)
    assert (again.readout, again.queries, again.skip_origin) == (encoder.readout, encoder.queries, True)


def test_with_queries_keeps_weights():
    encoder = small("point-mae").eval()
    tuned = encoder.with_queries("cls", readout=("cls", "max")).eval()
    assert (tuned.embed_dim, tuned.queries, encoder.queries) == (32, ("cls",), ())
    ours, theirs = encoder.state_dict(), tuned.state_dict()
    assert {k for k in theirs if k not in ours} == {"tokens.cls", "token_positions.cls"}
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    of_recon = small("released")
    fewer = of_recon.with_queries("img", "new", readout=("img",))
    assert torch.equal(fewer.tokens["img"], of_recon.tokens["img"])
    assert fewer.tokens["new"].any()
    with torch.no_grad():
        fewer.norm.weight.zero_()
    assert of_recon.norm.weight.all()  # a copy


# Masks.


@kinds
def test_only_visible_patches_enter(kind):
    encoder = small(kind).eval()
    patches = encoder.patches(clouds())
    mask = mask_of(patches)
    encoded = encoder.encode(patches, mask)
    assert encoded.tokens.shape == (3, 4, 16)
    for b in range(3):
        assert torch.equal(encoded.centers[b], patches.centers[b][~mask[b]])
    spoilt = torch.where(mask[..., None, None], 9.0, patches.points)
    again = encoder.encode(Patches(patches.centers, spoilt, patches.index), mask)
    torch.testing.assert_close(again.tokens, encoded.tokens)
    for name in encoder.queries:
        torch.testing.assert_close(again.queries[name], encoded.queries[name])


def test_batch_statistics_are_of_hidden_patches_too():
    encoder = small()
    patches = encoder.patches(clouds())
    mask = mask_of(patches)
    spoilt = Patches(patches.centers, torch.where(mask[..., None, None], 9.0, patches.points), patches.index)
    assert not torch.isclose(encoder.encode(patches, mask).tokens, encoder.encode(spoilt, mask).tokens).all()


@kinds
def test_nothing_hidden_is_no_mask(kind):
    encoder = small(kind).eval()
    patches = encoder.patches(clouds())
    without, nothing = encoder.encode(patches), encoder.encode(patches, torch.zeros(3, 6, dtype=torch.bool))
    torch.testing.assert_close(without.tokens, nothing.tokens)
    assert torch.equal(without.centers, patches.centers)


@kinds
def test_order_of_patches_and_of_their_points_does_not_matter(kind):
    encoder = small(kind).eval()
    patches, order, inner = encoder.patches(clouds()), torch.tensor([4, 0, 5, 2, 1, 3]), torch.tensor([3, 1, 0, 4, 2])
    shuffled = Patches(patches.centers[:, order], patches.points[:, order][:, :, inner],
                       patches.index[:, order][:, :, inner])
    one, other = encoder.encode(patches), encoder.encode(shuffled)
    torch.testing.assert_close(one.tokens[:, order], other.tokens, rtol=1e-4, atol=1e-5)
    for name in encoder.queries:
        torch.testing.assert_close(one.queries[name], other.queries[name], rtol=1e-4, atol=1e-5)


# Gradients.


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("detach", [True, False])
def test_what_queries_learn_reaches_tokens_only_without_detach(kind, detach):
    encoder = small(kind, projections={"img": 4, "text": 4})
    patches = encoder.patches(clouds())
    encoded = encoder.encode(patches, mask_of(patches), detach)
    sum(p.square().sum() for p in encoder.project(encoded).values()).backward()
    reached = {n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.any()}
    local = {n for n in reached if ".local." in n or n.startswith(("embed.", "position."))}
    assert bool(local) is not detach
    if detach:
        heads = {f"projections.{q}.{leaf}" for q in ("img", "text") for leaf in ("weight", "bias")}
        tokens = {f"{part}.{q}" for q in ("img", "text") for part in ("tokens", "token_positions")}
        assert {n for n in reached if ".queries." not in n} == heads | tokens | {"norm.weight", "norm.bias"}
    else:
        assert {"embed.conv1.weight", "position.0.weight", "blocks.0.local.attn.qkv.weight"} <= local


@pytest.mark.parametrize("kind", STREAMS)
def test_what_tokens_learn_never_reaches_queries(kind):
    encoder = small(kind)
    encoder.encode(encoder.patches(clouds())).tokens.square().sum().backward()
    assert not [n for n, p in encoder.named_parameters() if ("queries" in n or "token" in n) and p.grad is not None]


# Readouts, levels, attention.


def test_readouts():
    encoder = small(projections={"img": 5}).eval()
    encoded = encoder.encode(encoder.patches(clouds()))
    queries = torch.stack([encoded.queries[name] for name in QUERIES])
    highest, mean = encoded.tokens.amax(1), encoded.tokens.mean(1)
    expected = {
        "queries": torch.cat(list(queries), 1), "queries-max": queries.amax(0), "max": highest, "mean": mean,
        "max+mean": highest + mean, **encoded.queries,
    }
    for parts in (*((part,) for part in expected), ("queries", "max"), ("queries-max", "max+mean"), ("text", "cls")):
        encoder.readout = parts
        features = encoder(clouds())
        torch.testing.assert_close(features.pooled, torch.cat([expected[part] for part in parts], 1))
        assert features.pooled.shape == (3, encoder.embed_dim)
        torch.testing.assert_close(features.tokens, encoded.tokens)
    torch.testing.assert_close(
        encoder.project(encoded), {"img": encoded.queries["img"] @ encoder.projections["img"].weight.T})
    assert set(POOLINGS) < set(expected)


@kinds
def test_levels_are_of_tokens_before_the_last_norm(kind):
    encoder = small(kind).eval()
    patches = encoder.patches(clouds())
    encoded = encoder.encode(patches, levels=(1, 3))
    assert len(encoded.levels) == 2
    torch.testing.assert_close(encoder.norm(encoded.levels[1]), encoded.tokens)
    shallow = small(kind, depth=1).eval()
    shallow.load_state_dict(encoder.state_dict(), strict=False)
    torch.testing.assert_close(encoded.levels[0], shallow.encode(patches, levels=(1,)).levels[0])


@kinds
@pytest.mark.parametrize("block", [0, 1, -1])
def test_attention(kind, block):
    """That of the block, given what enters it: seen by a hook as it really runs."""
    encoder, seen = small(kind).eval(), []
    patches = encoder.patches(clouds())
    encoder.blocks[block].register_forward_pre_hook(lambda _, args: seen.append(args))
    with torch.no_grad():
        encoder.encode(patches)
        of_queries, of_tokens = encoder.attention(patches, block)
        expected = encoder.blocks[block].weights(*seen[0][:2])
    assert tuple(of_queries) == encoder.queries
    for i, name in enumerate(encoder.queries):
        torch.testing.assert_close(of_queries[name], expected[0][:, i])
    torch.testing.assert_close(of_tokens, expected[1])
    if encoder.block == "two-stream" or not encoder.queries:  # else queries take their share of the attention
        assert all(torch.allclose(a.sum(-1), torch.ones(())) for a in (*of_queries.values(), of_tokens))


# Refused.


def test_clouds_with_fewer_points_than_a_patch_needs():
    with pytest.raises(DataError, match="5 points each; expected at least 6, for 6 patches of 5"):
        small()(clouds(n=5))
    with pytest.raises(DataError, match="different lengths"):
        small()(Clouds.from_list([torch.randn(9, 3), torch.randn(8, 3)]))


@pytest.mark.parametrize(("options", "told"), [
    ({"num_heads": 3}, "heads that divide the width"),
    ({"depth": 0}, "expected at least 1 each"),
    ({"queries": ("cls", "max")}, "expected different names, and none of queries"),
    ({"queries": ("cls", "cls")}, "expected different names"),
    ({"readout": ("median",)}, r"readout = \('median',\); expected a choice of cls, img, max"),
    ({"readout": ()}, r"readout = \(\)"),
    ({"queries": ()}, r"two-stream blocks without queries.*Try: block = 'standard'"),
    ({"queries": (), "block": "standard", "readout": ("queries",)}, "expected a choice of max, max\\+mean, mean$"),
    ({"queries": ("cls",), "projections": {"img": 4}}, r"projections of img, but the queries are \('cls',\)"),
    ({"drop_path": 1.0}, "drop_path"),
])
def test_impossible_arguments(options, told):
    with pytest.raises(ConfigError, match=told):
        small(**options)


def test_attention_of_a_block_that_is_not_there():
    encoder = small()
    with pytest.raises(ConfigError, match="block 3 of 3; expected one from -3 to 2"):
        encoder.attention(encoder.patches(clouds()), 3)
