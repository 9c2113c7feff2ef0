"""Released weights of Point-MAE, ReCon and ACT into our network and back: names, prefixes, widths, other parts."""

from __future__ import annotations

import copy

import pytest
import torch

from contrast3d.checkpoints import load_patch_transformer
from contrast3d.checkpoints.importers import read_checkpoint
from contrast3d.checkpoints.patch_transformers import (
    config_of,
    export_released,
    from_released,
    load_released,
    to_released,
)
from contrast3d.downstream.classification import Classifier
from contrast3d.errors import ConfigError, DataError
from contrast3d.methods.point_mae import PointMAE
from contrast3d.methods.recon import ReCon
from contrast3d.nn.dgcnn import DGCNN
from contrast3d.nn.patch_transformer import PatchTransformer
from contrast3d.nn.two_towers import TwoTowers

SMALL = {"width": 64, "depth": 2, "num_heads": 1, "num_patches": 8, "patch_size": 4}
KINDS = {
    "point-mae": {"queries": (), "block": "standard", "readout": ("max+mean",)},
    "act": {"queries": ("cls",), "block": "standard"},
    "recon": {"projections": {"img": 12, "text": 10}},
}


def encoder(kind="recon", seed=0, **options):
    """With values everywhere, so that nothing is equal by accident."""
    torch.manual_seed(seed)
    model = PatchTransformer(**SMALL | KINDS[kind] | options)
    return fill(model)


def fill(model):
    for tensor in model.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) + 0.5 if tensor.is_floating_point() else torch.tensor(7))
    return model


def method(kind="recon", seed=0, decoder_depth=2, self_contrast="none", **options):
    inside = encoder(kind, seed, **options)
    made = {"decoder_depth": decoder_depth, "decoder_heads": 1}
    if kind == "recon":
        return fill(ReCon(inside, lambda clouds: {}, self_contrast=self_contrast, **made))
    return fill(PointMAE(inside, **made))


def equal(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def test_names_go_both_ways():
    ours = list(method(self_contrast="names").state_dict())
    theirs = [to_released(name) for name in ours]
    assert len(set(theirs)) == len(ours)
    assert [from_released(name) for name in theirs] == ours
    assert to_released("encoder.blocks.11.queries.attn.kv.weight") == "blocks.blocks.11.attn_contrast.kv.weight"
    assert from_released("module.MAE_encoder.blocks.blocks.3.mlp.fc1.bias") == "encoder.blocks.3.local.mlp.fc1.bias"
    assert from_released("base_model.ACT_encoder.cls_pos") == "encoder.token_positions.cls"
    assert from_released("MAE_decoder.blocks.3.attn.qkv.weight") == "decoder.blocks.3.local.attn.qkv.weight"
    assert from_released("cls_head_finetune.8.bias") == "head.8.bias"
    strangers = (
        "img_encoder.blocks.0.norm1.weight", "dvae.encoder.first_conv.0.weight", "MAE_encoder.lm_head.weight",
        "blocks.0.norm1.weight", "blocks.blocks.x.norm1.weight", "blocks.blocks.0.norm3.weight", "norm.extra",
        "cls_head_finetune.2.weight", "text_encoder.text_projection")
    assert not any(map(from_released, strangers))
    assert not any(map(to_released, ("encoder.tokens.sound", "encoder.blocks.0.norm1.weight", "decoder.extra.weight")))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "module.", "base_model.", "module.base_model."])
def test_prefixes(kind, prefix):
    source, target = method(kind, 0), method(kind, 1)
    loaded = load_released(target, {prefix + k: v for k, v in export_released(source).items()})
    assert equal(source, target)
    assert (loaded.skipped, loaded.missing, len(loaded.loaded)) == ({}, (), len(source.state_dict()))
    alone = encoder(kind, 2)
    loaded = load_released(alone, {prefix + k: v for k, v in export_released(source).items()})
    assert equal(alone, source.encoder)
    assert set(loaded.skipped.values()) == {"no such part in the network"}
    bare = {prefix + k.removeprefix("MAE_encoder."): v for k, v in export_released(source.encoder).items()}
    load_released(target := method(kind, 3), bare)
    assert equal(target.encoder, source.encoder)


def test_layouts_are_those_of_the_released_files():
    state = export_released(method())
    assert state["MAE_encoder.encoder.first_conv.0.weight"].shape == (128, 3, 1)
    assert state["MAE_encoder.encoder.second_conv.3.weight"].shape == (64, 512, 1)
    assert state["increase_dim.0.weight"].shape == (12, 64, 1)
    assert {state[k].shape for k in ("mask_token", "MAE_encoder.cls_token", "MAE_encoder.img_pos")} == {(1, 1, 64)}
    assert state["img_proj.weight"].shape == (12, 64)
    with pytest.raises(DataError, match=r"encoder\.tokens\.sound: no part of the released"):
        export_released(encoder(queries=("cls", "sound"), projections={}))


def test_a_file_of_the_old_training_needs_no_configuration(tmp_path):
    source = method(order="released")
    teachers = {"img_encoder.blocks.0.norm1.weight": torch.ones(3), "text_encoder.positional_embedding": torch.ones(2)}
    state = {f"module.{k}": v for k, v in (export_released(source) | teachers).items()}
    torch.save({"base_model": state, "epoch": 300, "optimizer": {"state": {}}, "metrics": {"acc": 0.0}},
               tmp_path / "ckpt-epoch-300.pth")
    found, loaded = load_patch_transformer(tmp_path / "ckpt-epoch-300.pth", num_patches=8)
    assert equal(found, source.encoder)
    assert (found.patch_size, found.skip_origin, found.readout) == (4, True, ("queries", "max"))
    assert found.kwargs["num_heads"] == 1
    assert not loaded.missing
    assert loaded.skipped["module.img_encoder.blocks.0.norm1.weight"] == "a teacher's"
    assert loaded.skipped["module.mask_token"] == "no such part in the network"
    assert read_checkpoint(tmp_path / "ckpt-epoch-300.pth")[1]["epoch"] == 300


@pytest.mark.parametrize(("kind", "queries", "block", "readout"), [
    ("point-mae", (), "standard", ("max+mean",)), ("act", ("cls",), "standard", ("queries", "max")),
    ("recon", ("cls", "img", "text"), "two-stream", ("queries", "max"))])
def test_configuration(kind, queries, block, readout):
    state = export_released(encoder(kind, width=192, depth=11, num_heads=3))
    assert config_of(state) == {
        "width": 192, "depth": 11, "num_heads": 3, "patch_size": 32, "queries": queries, "block": block,
        "projections": KINDS[kind].get("projections", {}), "readout": readout, "skip_origin": True}
    with pytest.raises(DataError, match="no encoder of Point-MAE, ReCon or ACT"):
        config_of({"conv1p1s2.kernel": torch.ones(2)})


def test_of_act_the_encoder_alone_is_read():
    source = method("act")
    state = {k.replace("MAE_", "ACT_"): v for k, v in export_released(source).items()} | {
        "ACT_encoder.cls_head.0.weight": torch.ones(2, 2), "dvae.encoder.first_conv.0.weight": torch.ones(128, 3, 1)}
    target = method("act", 1)
    before = copy.deepcopy(target)
    loaded = load_released(target, state)
    assert equal(target.encoder, source.encoder)
    assert equal(target.decoder, before.decoder)
    assert loaded.skipped["mask_token"] == loaded.skipped["increase_dim.0.bias"]
    assert "features" in loaded.skipped["mask_token"]
    assert loaded.skipped["ACT_encoder.cls_head.0.weight"] == "no part of this network"
    assert loaded.skipped["dvae.encoder.first_conv.0.weight"] == "a teacher's"
    assert equal(load_patch_transformer(state)[0], source.encoder)
    state["ACT_encoder.reduce_dim.weight"] = torch.ones(64, 64)
    with pytest.raises(DataError, match="reduce_dim"):
        load_released(target, state)


def test_another_width_or_depth_or_block():
    state, target = export_released(encoder(width=128)), encoder(seed=1)
    before = copy.deepcopy(target)
    with pytest.raises(DataError, match=r"state: MAE_encoder\.encoder\.second_conv\.3\.weight: shape \(128, 512\), the "
                                        r"network's embed\.conv4\.weight has \(64, 512\).*Try: PatchTransformer\("
                                        r"width=128, depth=2, num_heads=2, queries=\('cls', 'img', 'text'\)"):
        load_released(target, state)
    assert equal(target, before)
    with pytest.raises(DataError, match=r"state: depth 3; expected the network's depth 2\. Try: .*depth=3"):
        load_released(target, export_released(encoder(depth=3)))
    with pytest.raises(DataError, match="block standard; expected the network's block two-stream"):
        load_released(target, export_released(encoder("point-mae")))
    with pytest.raises(DataError, match="block two-stream; expected the network's block standard"):
        load_released(encoder("act"), export_released(encoder()))
    with pytest.raises(DataError, match=r"img_proj\.weight: shape \(7, 64\), .*\(12, 64\).*'img': 7"):
        load_released(target, export_released(encoder(projections={"img": 7, "text": 10})))
    with pytest.raises(DataError, match=r"increase_dim\.0\.weight: shape \(15, 64\).*\(12, 64\).*Try: patch_size=5"):
        load_released(method(), export_released(method(patch_size=5)))
    with pytest.raises(DataError, match=r"decoder of depth 1; expected the network's depth 2\. Try: decoder_depth=1"):
        load_released(method(), export_released(method(decoder_depth=1)))
    assert equal(target, before)
    loaded = load_released(target, export_released(encoder(depth=3)), partial=True)
    assert equal(target.blocks[1], encoder(depth=3).blocks[1])
    assert loaded.skipped["MAE_encoder.blocks.blocks.2.norm1.weight"] == "no such part in the network"


def test_queries_that_the_file_has_not_stay_fresh():
    source, target = method("point-mae"), encoder("act", 1)
    before = target.tokens["cls"].clone()
    loaded = load_released(target, export_released(source))
    assert loaded.missing == ("tokens.cls", "token_positions.cls")
    assert torch.equal(target.tokens["cls"], before)
    assert equal(target.blocks, source.encoder.blocks)


@pytest.mark.parametrize("head", ["mlp-3", "linear"])
def test_a_classifiers_head(head):
    source = fill(Classifier(encoder(), 15, head=head))
    state = export_released(source)
    assert {"norm.weight", "cls_head_finetune.0.weight"} <= set(state)  # as fine-tuned files have it
    target = fill(Classifier(encoder(seed=1), 15, head=head))
    assert not load_released(target, state).skipped
    assert equal(target, source)
    other = fill(Classifier(encoder(seed=1), 40, head=head))
    before = copy.deepcopy(other.head)
    loaded = load_released(other, state)
    assert set(loaded.skipped.values()) == {"another head than the model's"}
    assert equal(other.head, before)
    assert equal(other.encoder, source.encoder)
    assert all(name.startswith("head.") for name in loaded.missing)
    assert set(load_released(encoder(seed=1), state).skipped) == {k for k in state if k.startswith("cls_head")}


def test_two_networks_and_broken_values():
    state = export_released(encoder())
    with pytest.raises(DataError, match=r"two networks: MAE_encoder\.cls_token and cls_token"):
        load_released(encoder(), state | {"cls_token": state["MAE_encoder.cls_token"]})
    state["MAE_encoder.norm.bias"][0] = float("nan")
    with pytest.raises(DataError, match=r"MAE_encoder\.norm\.bias: values that are not finite"):
        load_released(encoder(), state)
    towers = TwoTowers(**SMALL)
    for model, count in ((towers, 2), (DGCNN(embed_dim=8), 0)):
        with pytest.raises(ConfigError, match=f"has {count} PatchTransformers; expected one"):
            load_released(model, state)
