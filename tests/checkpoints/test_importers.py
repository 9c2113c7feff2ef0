"""Released checkpoints into our network and back: names, orders of kernels, prefixes, widths, old files."""

from __future__ import annotations

import argparse
import copy

import numpy as np
import pytest
import torch

from contrast3d.checkpoints.importers import read_checkpoint
from contrast3d.checkpoints.pointcontrast import (
    HYBRID_SLOTS,
    export_pointcontrast,
    find_kernel_order,
    from_released,
    hybrid_to_cube,
    load_pointcontrast,
    to_released,
)
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.nn.sparse_unet import SparseUNet

PLANES = (4, 8, 8, 16, 16, 8, 8, 8)


def network(seed=0, trained=True, **options):
    """With values everywhere; `trained` kernels are strongest at their centre."""
    torch.manual_seed(seed)
    model = SparseUNet(**{"depth": 18, "planes": PLANES, "out_channels": 6} | options)
    for name, tensor in model.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 2)
        elif trained and "blocks" in name and tensor.shape[:1] == (27,):
            tensor[13] *= 6
    return model


def equal(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def to_hybrid(state):
    """As MinkowskiEngine 0.4 would have written it: the kernels of the blocks in its order."""
    slots = list(HYBRID_SLOTS)
    return {k: v[slots] if k.startswith("block") and v.ndim == 3 and len(v) == 27 else v for k, v in state.items()}


def test_names_go_both_ways():
    ours = list(network().state_dict())
    theirs = [to_released(name) for name in ours]
    assert len(set(theirs)) == len(ours)
    assert [from_released(name) for name in theirs] == ours
    assert to_released("downs.0.conv.weight") == "conv1p1s2.kernel"
    assert to_released("ups.0.conv.weight") == "convtr4p16s2.kernel"
    assert to_released("ups.3.norm.running_var") == "bntr7.bn.running_var"
    assert to_released("ups.3.blocks.1.conv2.weight") == "block8.1.conv2.kernel"
    assert to_released("downs.1.blocks.0.shortcut.norm.bias") == "block2.0.downsample.1.bn.bias"
    strangers = ("block9.0.conv1.kernel", "conv1p2s2.kernel", "bn1.weight", "fc.weight", "final.kernel.x", "block1.0")
    assert not any(map(from_released, strangers))
    assert not any(map(to_released, ("downs.4.conv.weight", "head.weight", "ups.0.blocks.0.extra")))


def test_order_of_the_hybrid_offsets():
    """The enumeration that MinkowskiEngine 0.4 makes, step by step."""
    offsets = [(0, 0, 0)]
    for axis in range(3):
        offsets += [tuple(o[i] + step * (i == axis) for i in range(3)) for o in list(offsets) for step in (-1, 1)]
    slots = [(x + 1) + 3 * (y + 1) + 9 * (z + 1) for x, y, z in offsets]
    assert slots == list(HYBRID_SLOTS)
    kernel = torch.tensor([float(s) for s in slots]).view(27, 1, 1)
    assert hybrid_to_cube(kernel).flatten().tolist() == list(range(27))


@pytest.mark.parametrize("order", ["cube", "hybrid"])
@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "module.model.backbone_net."])
def test_prefixes_and_orders(tmp_path, order, prefix):
    source, target = network(0), network(1)
    state = export_pointcontrast(source)
    state = to_hybrid(state) if order == "hybrid" else state
    loaded = load_pointcontrast(target, {prefix + k: v for k, v in state.items()})
    assert equal(target, source)
    assert len(loaded.loaded) == len(state)
    assert not loaded.missing
    assert not loaded.skipped
    assert f"kernels in {order} order" in str(loaded)


class Config(dict):
    """Pickled configuration of an old training."""


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_of_the_old_training(tmp_path, zipped):
    source, target = network(0), network(1)
    state = {f"module.{k}": v for k, v in to_hybrid(export_pointcontrast(source)).items()}
    optimizer = torch.optim.SGD(source.parameters(), 0.1, momentum=0.8).state_dict()
    config = Config(voxel_size=0.025, misc=argparse.Namespace(nceT=0.4))
    torch.save({"curr_iter": 60000, "state_dict": state, "optimizer": optimizer, "config": config, "scheduler": {}},
               tmp_path / "checkpoint.pth", _use_new_zipfile_serialization=zipped)
    loaded = load_pointcontrast(target, tmp_path / "checkpoint.pth")
    assert equal(target, source)
    assert loaded.notes == ("kernels in hybrid order",)
    _, rest = read_checkpoint(tmp_path / "checkpoint.pth")
    assert rest["curr_iter"] == 60000
    assert rest["config"].fields["misc"].fields["nceT"] == 0.4
    assert set(rest) == {"curr_iter", "optimizer", "config", "scheduler"}


def test_untrained_kernels_have_no_order():
    source, target = network(0, trained=False), network(1)
    before = copy.deepcopy(target)
    state = export_pointcontrast(source)
    with pytest.raises(DataError, match=r"strongest in slot 13.*kernel_order='cube'"):
        load_pointcontrast(target, state)
    assert equal(target, before)
    load_pointcontrast(target, state, kernel_order="cube")
    assert equal(target, source)
    load_pointcontrast(target, to_hybrid(state), kernel_order="hybrid")
    assert equal(target, source)
    load_pointcontrast(target, state, kernel_order="hybrid")  # what the probe keeps from happening
    assert not equal(target, source)
    with pytest.raises(ConfigError, match="kernel_order is"):
        load_pointcontrast(target, state, kernel_order="x-fastest")


def test_majority_decides():
    def kernels(cube, hybrid, other):
        peaks = [13] * cube + [0] * hybrid + [5] * other
        made = torch.rand(len(peaks), 27, 2, 3)
        for kernel, peak in zip(made, peaks):
            kernel[peak] += 2
        return {f"k{i}": k for i, k in enumerate(made)}

    assert find_kernel_order(kernels(4, 1, 2)) == "cube"
    assert find_kernel_order(kernels(0, 4, 3)) == "hybrid"
    for votes in ((2, 2, 0), (3, 0, 3), (0, 0, 4)):
        with pytest.raises(DataError, match=f"of {sum(votes)} kernels {votes[0]} are"):
            find_kernel_order(kernels(*votes))


def test_another_head_is_skipped_by_name():
    source, target = network(0), network(1, out_channels=13)
    before = target.final.weight.clone()
    loaded = load_pointcontrast(target, export_pointcontrast(source))
    assert loaded.skipped == {"final.kernel": "shape (6, 8), the network's final.weight has (13, 8)",
                              "final.bias": "shape (6,), the network's final.bias has (13,)"}
    assert loaded.missing == ("final.weight", "final.bias")
    assert torch.equal(target.final.weight, before)
    assert torch.equal(target.ups[3].blocks[0].conv1.weight, source.ups[3].blocks[0].conv1.weight)


def test_another_width_or_depth():
    source, target = export_pointcontrast(network(0)), network(1, planes=(4, 16, *PLANES[2:]))
    before = copy.deepcopy(target)
    with pytest.raises(DataError, match=r"state: block2\.0\.conv1\.kernel: shape \(27, 4, 8\), the network's "
                                        r"downs\.1\.blocks\.0\.conv1\.weight has \(27, 4, 16\)"):
        load_pointcontrast(target, source)
    assert equal(target, before)
    loaded = load_pointcontrast(target, source, partial=True)
    assert "block2.0.conv1.kernel" in loaded.skipped
    assert "stem.weight" in loaded.loaded
    assert torch.equal(target.downs[0].conv.weight, source["conv1p1s2.kernel"])
    shallow = load_pointcontrast(network(1, depth=14), source)
    assert shallow.skipped["block1.1.conv1.kernel"] == "no such part in the network"
    deep = load_pointcontrast(network(1, depth=34), source)
    assert "downs.1.blocks.2.conv1.weight" in deep.missing


def test_encoder_alone():
    source, target = network(0), network(1, decoder=False)
    loaded = load_pointcontrast(target, export_pointcontrast(source))
    assert equal(target.downs, source.downs)
    assert not loaded.missing
    assert len(str(loaded)) < 250
    assert "skipped, no such part in the network: convtr4p16s2.kernel" in str(loaded)


@pytest.mark.parametrize("depth", [14, 50])
def test_siblings(depth):
    source, target = (network(seed, depth=depth, planes=(2,) * 8) for seed in (0, 1))
    load_pointcontrast(target, to_hybrid(export_pointcontrast(source)))
    assert equal(target, source)


def test_kernels_of_one_offset_in_either_shape():
    source, target = network(0), network(1)
    state = export_pointcontrast(source)
    assert state["block2.0.downsample.0.kernel"].shape == (4, 8)
    assert state["final.kernel"].shape == (8, 6)
    assert state["final.bias"].shape == (1, 6)
    for name in ("block2.0.downsample.0.kernel", "final.kernel"):
        state[name] = state[name][None]
    load_pointcontrast(target, state)
    assert equal(target, source)


def test_other_parts_and_two_networks_in_one_file():
    source, other, target = network(0), network(2), network(1)
    state = {f"encoder_q.{k}": v for k, v in export_pointcontrast(source).items()} | {"pnet.bn1.weight": torch.ones(3)}
    assert load_pointcontrast(target, state).skipped == {"pnet.bn1.weight": "no part of this network"}
    state |= {f"encoder_k.{k}": v for k, v in export_pointcontrast(other).items()}
    with pytest.raises(DataError, match=r"two networks.*prefix='encoder_q\.' or prefix='encoder_k\.'"):
        load_pointcontrast(target, state)
    load_pointcontrast(target, state, prefix="encoder_k.")
    assert equal(target, other)
    with pytest.raises(DataError, match="not one tensor that fits"):
        load_pointcontrast(target, state, prefix="encoder_x.")


def test_values_that_are_not_finite():
    state = export_pointcontrast(network(0))
    state["bn2.bn.running_var"][0] = float("nan")
    with pytest.raises(DataError, match=r"bn2\.bn\.running_var: values that are not finite"):
        load_pointcontrast(network(1), state)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", None])
def test_where_the_tensors_lie(tmp_path, key):
    state = {"a.weight": torch.ones(2), "a.array": torch.arange(3)}
    content = state if key is None else {key: state, "epoch": 3}
    torch.save(content, tmp_path / "file.pth")
    found, rest = read_checkpoint(tmp_path / "file.pth")
    assert list(found) == list(state)
    assert rest == ({} if key is None else {"epoch": 3})


def test_pickled_modules_arrays_and_safetensors(tmp_path):
    from safetensors.torch import save_file

    model = network(0)
    torch.save(model, tmp_path / "whole.pth")
    assert sorted(read_checkpoint(tmp_path / "whole.pth")[0]) == sorted(model.state_dict())
    torch.save({"net": model, "epoch": 1}, tmp_path / "inside.pth")
    found, rest = read_checkpoint(tmp_path / "inside.pth")
    assert all(torch.equal(found[k], v) for k, v in model.state_dict().items())
    assert rest == {"epoch": 1}
    torch.save({"state_dict": {"w": np.ones((2, 3), np.float32)}}, tmp_path / "numpy.pth")
    assert torch.equal(read_checkpoint(tmp_path / "numpy.pth")[0]["w"], torch.ones(2, 3))
    save_file({"w": torch.ones(2)}, tmp_path / "file.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "file.safetensors")[0]["w"], torch.ones(2))


def test_files_without_a_network(tmp_path):
    for number, (content, said) in enumerate([
        ({"epoch": 3, "lr": 0.1}, "no tensors of a network among epoch, lr"), ([1], "list, not a network"),
        ({}, "nothing"),
    ]):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(DataError, match=said):
            read_checkpoint(tmp_path / f"{number}.pth")
    (tmp_path / "page.pth").write_text("<!doctype html>")
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    for name, said in (("page.pth", "web page"), ("bad.safetensors", "cannot be read")):
        with pytest.raises(DataError, match=said):
            read_checkpoint(tmp_path / name)
    with pytest.raises(MissingDataError):
        read_checkpoint(tmp_path / "absent.pth")


@pytest.mark.shared
def test_oracle(shared):
    """The released names at an eighth of the width: all of them find their place, and come back unchanged."""
    path = shared / "parity" / "sparse_mini_fp64.pt"
    if not path.is_file():
        pytest.skip("no oracle")
    state = read_checkpoint(path)[0]
    model = SparseUNet(width=1 / 8).double()
    loaded = load_pointcontrast(model, path, kernel_order="cube")
    assert len(loaded.loaded) == len(state) == 374
    assert not loaded.missing
    assert not loaded.skipped
    back = export_pointcontrast(model)
    assert set(back) == set(state)
    assert all(torch.equal(back[k], v) for k, v in state.items())
    trained = {k: v.clone() for k, v in state.items()}
    kernels = [v for k, v in trained.items() if k.startswith("block") and v.shape[:1] == (27,) and v.ndim == 3]
    for kernel in kernels:
        kernel[13] *= 6
    assert load_pointcontrast(model, to_hybrid(trained)).notes == ("kernels in hybrid order",)
    assert all(torch.equal(v, trained[k]) for k, v in export_pointcontrast(model).items())
