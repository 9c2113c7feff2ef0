"""SR-UNet: published sizes, MinkowskiEngine's numbers, and what is promised of an encoder of points."""

import json

import pytest
import torch
from torch import nn

from contrast3d.checkpoints.pointcontrast import load_pointcontrast, to_released
from contrast3d.errors import ConfigError, DataError
from contrast3d.losses.point_info_nce import point_info_nce
from contrast3d.nn.rebuild import describe, rebuild
from contrast3d.nn.sparse import BasicBlock, Bottleneck, Shortcut, SparseConv
from contrast3d.nn.sparse_unet import SparseUNet
from contrast3d.ops.portable import portable
from contrast3d.ops.sparse_conv import sparse_conv
from contrast3d.ops.voxels import from_coords, voxelize
from contrast3d.types import Clouds


def small(**options):
    torch.manual_seed(0)
    return SparseUNet(**{"width": 1 / 16, "voxel_size": 0.25, "out_channels": 7} | options)


def scattered(*lengths, seed=0, spread=1.0):
    draw = torch.Generator().manual_seed(seed)
    return Clouds.from_list([torch.randn(n, 3, generator=draw) * spread for n in lengths])


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def settled(network, clouds):
    """The network in evaluation mode, batch norms used to such clouds: fresh ones leave next to nothing of them."""
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm1d)):
        norm.momentum = None
    with torch.no_grad():
        network.train()(clouds)
    return network.eval()


@pytest.mark.parametrize(("out_channels", "count"), [
    (32, 37_847_808), (13, 37_845_965), (20, 37_846_644), (50, 37_849_554), (256, 37_869_536), (None, 37_844_704),
])
def test_sizes_of_the_paper(out_channels, count):
    with torch.device("meta"):
        network = SparseUNet(out_channels=out_channels)
    assert parameters(network) == count
    assert network.dense_dim == (out_channels or 96)
    assert network.embed_dim == 512
    if out_channels:
        assert len(network.state_dict()) == 374


def test_sizes_of_the_stages():
    """Spec of PointContrast, section 2: convolution and norm, then the blocks."""
    with torch.device("meta"):
        network = SparseUNet()
    assert parameters(network.stem) + parameters(network.stem_norm) == 2_592 + 64
    assert [parameters(s.conv) + parameters(s.norm) for s in (*network.downs, *network.ups)] == [
        8_192 + 64, 8_192 + 64, 32_768 + 128, 131_072 + 256, 524_288 + 512, 262_144 + 256, 98_304 + 192, 73_728 + 192]
    assert [parameters(s.blocks) for s in (*network.downs, *network.ups)] == [
        110_848, 611_200, 3_328_256, 20_388_352, 8_063_488, 2_016_512, 1_091_520, 1_091_520]
    assert [len(s.blocks) for s in (*network.downs, *network.ups)] == [2, 3, 4, 6, 2, 2, 2, 2]


@pytest.fixture(scope="module", name="oracle")
def _oracle(shared):
    path = shared / "parity" / "sparse_mini_fp64.pt"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return torch.load(path, weights_only=True)


def run(network, coords, features):
    """Rows divided by their norm, in the order of `coords`."""
    voxels, order = from_coords(coords, features)
    dense = nn.functional.normalize(network(voxels).points, dim=1, eps=0)
    return torch.empty_like(dense).index_copy(0, order, dense)


@pytest.mark.shared
@pytest.mark.parametrize("plain", [False, True])
def test_training_step_of_minkowski_engine(oracle, plain):
    """Loaded through the importer: results, loss, all gradients, statistics after it, and the result with those."""
    network = SparseUNet(width=1 / 8).double()
    assert len(load_pointcontrast(network, oracle["state_dict"], kernel_order="cube").loaded) == 374
    if plain:
        with portable():
            _step(network, oracle)
    else:
        _step(network, oracle)


@pytest.mark.shared
def test_training_step_on_one_thread(oracle):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        network = SparseUNet(width=1 / 8).double()
        load_pointcontrast(network, oracle["state_dict"], kernel_order="cube")
        _step(network, oracle)
    finally:
        torch.set_num_threads(threads)


def _step(network, oracle):
    first = run(network, oracle["coords"], oracle["feats"])
    second = run(network, oracle["coords2"], oracle["feats2"])
    assert far(first, oracle["out_train"]) <= 1e-10
    assert far(second, oracle["out_train2"]) <= 1e-10
    queries, keys = oracle["pairs"].T
    assert len(queries) == 256
    loss = point_info_nce(first[queries], second[keys], 0.4)
    assert far(loss, oracle["loss_nce_T0.4"]) <= 1e-10
    loss.backward()
    grads = {to_released(name): p.grad for name, p in network.named_parameters()}
    grads["final.kernel"] = grads["final.kernel"].T
    assert len(oracle["grads"]) == len(grads) == 188
    for name, wanted in oracle["grads"].items():
        assert far(grads[name].reshape(wanted.shape), wanted) <= 1e-10, name
    buffers = {to_released(name): b for name, b in network.named_buffers()}
    assert set(buffers) == set(oracle["buffers_after"])
    for name, wanted in oracle["buffers_after"].items():
        assert far(buffers[name], wanted) <= 1e-10, name
    network.eval()
    with torch.no_grad():
        assert far(run(network, oracle["coords"], oracle["feats"]), oracle["out_eval_after"]) <= 1e-10


def far(found, wanted):
    return float((found - wanted).detach().abs().max())


@pytest.mark.parametrize("depth", [14, 18, 34, 50])
def test_depths(depth):
    network, clouds = small(depth=depth), scattered(200, 150)
    features = network(clouds)
    wide = 4 if depth == 50 else 1
    assert features.pooled.shape == (2, network.embed_dim) == (2, 2 * 16 * wide)
    assert features.points.shape == (350, 7)
    blocks = [m for m in network.modules() if isinstance(m, BasicBlock | Bottleneck)]
    assert len(blocks) == {14: 8, 18: 16, 34: 23, 50: 23}[depth]
    (features.points.square().sum() + features.pooled.square().sum()).backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]


def test_the_encoder_alone():
    encoder, whole = small(decoder=False), small()
    assert (encoder.gives, encoder.dense_dim, encoder.embed_dim) == ({"pooled"}, None, 32)
    assert (whole.gives, whole.dense_dim) == ({"pooled", "dense"}, 7)
    encoder.load_state_dict({n: t for n, t in whole.state_dict().items() if n in encoder.state_dict()})
    clouds = scattered(200, 150)
    features = encoder(clouds)
    assert features.points is None
    assert torch.equal(features.pooled, whole(clouds).pooled)
    assert small(out_channels=None)(clouds).points.shape == (350, 6)


def test_points_keep_their_order():
    """Each point has the features of its voxel, wherever it stands in its cloud."""
    clouds = scattered(300, 200)
    clouds = clouds.replace(features=torch.randn(500, 3, generator=torch.Generator().manual_seed(1)))
    voxels = voxelize(clouds, 0.25)
    clouds = clouds.replace(features=clouds.features[voxels.first][voxels.inverse])  # one input for all of a voxel
    network = settled(small(), clouds)
    order = torch.cat([torch.randperm(300), 300 + torch.randperm(200)])
    with torch.no_grad():
        one = network(clouds)
        other = network(clouds.take_points(order, clouds.offsets))
        of_voxels = network(network.voxels(clouds)).points
    assert torch.equal(other.points, one.points[order])
    assert torch.equal(other.pooled, one.pooled)
    assert torch.equal(one.points, of_voxels[voxels.inverse])
    assert one.points.std(0).min() > 0.05


def test_clouds_do_not_see_each_other_in_evaluation():
    clouds = scattered(200, 0, 1, 150, spread=0.5)
    network = settled(small(), clouds)
    with torch.no_grad():
        together = network(clouds)
        for b, piece in enumerate(clouds.chunks(1)):
            alone = network(piece)
            torch.testing.assert_close(alone.pooled[0], together.pooled[b])
            low, high = clouds.offsets[b : b + 2].tolist()
            torch.testing.assert_close(alone.points, together.points[low:high])
    assert not together.pooled[1].any()
    assert together.pooled[2].abs().max() > 0.1


def test_translation_by_sixteen_voxels_changes_nothing():
    """The coarsest voxels are 16 wide, so they cut a cloud that is moved by as many alike; by 8 they do not."""
    clouds = scattered(300, spread=2.0)
    clouds = clouds.replace(points=(clouds.points * 4).round() / 4)  # exact in every sum below
    network = settled(small(), clouds)

    def moved(*by):
        with torch.no_grad():
            return network(clouds.replace(points=clouds.points + torch.tensor(by) * 0.25))

    for by in ((16.0, 0, 0), (-32.0, 48, 16)):
        assert torch.equal(moved(*by).points, moved(0.0, 0, 0).points)
        assert torch.equal(moved(*by).pooled, moved(0.0, 0, 0).pooled)
    assert not torch.allclose(moved(8.0, 0, 0).points, moved(0.0, 0, 0).points)


def test_few_voxels():
    one = Clouds.from_list([torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.1, 0.1]])])
    network = settled(small(), scattered(100, 100))
    with torch.no_grad():
        features = network(one)
        assert torch.equal(features.points[0], features.points[1])
        assert torch.isfinite(features.points).all()
        for nothing in (Clouds.from_list([]), scattered(0), scattered(0, 0)):
            features = network(nothing)
            assert features.points.shape == (0, 7)
            assert torch.equal(features.pooled, torch.zeros(len(nothing), 32))
    with pytest.raises(ConfigError, match="more than one value per channel"):
        small()(one)


def test_training_with_an_empty_cloud_among_others():
    network = small()
    features = network(scattered(100, 0, 100))
    (features.points.sum() + features.pooled.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    assert all(torch.isfinite(b).all() for b in network.buffers())


def test_features_of_another_width():
    clouds = scattered(50)
    with pytest.raises(DataError, match=r"features: width 4; expected in_channels = 3"):
        small()(clouds.replace(features=torch.ones(50, 4)))
    with pytest.raises(DataError, match=r"weight: shape \(27, 3, 2\); expected \(27, 1, width\)"):
        small()(voxelize(clouds, 0.25))
    ones = settled(small(), clouds)
    assert torch.equal(ones(clouds).points, ones(clouds.replace(features=torch.ones(50, 3))).points)
    assert small(in_channels=1)(voxelize(clouds, 0.25)).pooled.shape == (1, 32)


def test_momenta_of_the_released_code():
    network = SparseUNet(width=1 / 16, norm_momentum=0.02, block_norm_momentum=0.3)
    for norms, outside, inside in ((_momenta(small()), 0.05, 0.1), (_momenta(network), 0.02, 0.3)):
        for name, momentum in norms.items():
            assert momentum == (inside if ".norm1" in name or ".norm2" in name else outside), name
        assert set(norms.values()) == {outside, inside}
    assert {n.eps for n in network.modules() if isinstance(n, nn.BatchNorm1d)} == {1e-5}


def _momenta(network):
    return {name: m.momentum for name, m in network.named_modules() if isinstance(m, nn.BatchNorm1d)}


def test_shortcuts_are_where_the_width_changes():
    with torch.device("meta"):
        network = SparseUNet()
    found = [name for name, module in network.named_modules() if isinstance(module, Shortcut)]
    assert found == [f"{side}.{i}.blocks.0.shortcut" for side in ("downs", "ups") for i in range(4)][1:]


def test_beginning_of_the_weights():
    """Uniform in +-1 / sqrt(n), n = channels in (transposed: out) times slots."""
    torch.manual_seed(0)
    for layer, n in (
        (SparseConv(16, 64, 3, bias=True), 16 * 27), (SparseConv(64, 8, 2, 2, transposed=True), 8 * 8),
        (SparseConv(50, 70, 1), 50),
    ):
        bound = n**-0.5
        assert 0.98 * bound < layer.weight.abs().max() <= bound
        assert abs(float(layer.weight.detach().std()) - bound / 3**0.5) < 0.03 * bound
        assert layer.bias is None or layer.bias.abs().max() <= bound
    final = SparseUNet(width=1 / 16).final
    assert final.weight.abs().max() <= 6**-0.5


def test_a_block_is_its_formula():
    torch.manual_seed(0)
    block = BasicBlock(3, 4).double().eval()
    coords = torch.randint(-3, 3, (60, 4)).unique(dim=0).abs().unique(dim=0)
    voxels, _ = from_coords(coords, torch.randn(len(coords), 3).double())
    x = torch.relu(block.norm1(sparse_conv(voxels, block.conv1.weight).features))
    x = block.norm2(sparse_conv(voxels.replace(features=x), block.conv2.weight).features)
    wanted = torch.relu(x + block.shortcut.norm(voxels.features @ block.shortcut.conv.weight[0]))
    torch.testing.assert_close(block(voxels).features, wanted)


def test_bfloat16_and_the_torch_path_stay_close():
    clouds = scattered(300, 200)
    network = settled(small(), clouds)
    with torch.no_grad():
        full = network(clouds).points
        with torch.autocast("cpu", torch.bfloat16):
            low = network(clouds).points.float()
        with portable():
            plain = network(clouds).points
    assert nn.functional.cosine_similarity(full, low).mean() > 0.99
    torch.testing.assert_close(plain, full, rtol=1e-4, atol=1e-5)


def test_rebuilt_as_it_was():
    network = small(depth=18, norm_momentum=0.02, decoder=False, in_channels=4)
    again = rebuild(json.loads(json.dumps(describe(network))))
    again.load_state_dict(network.state_dict())
    assert again.kwargs == network.kwargs
    assert _momenta(again) == _momenta(network)
    assert again.voxel_size == 0.25


@pytest.mark.parametrize("options", [
    {"depth": 33}, {"planes": (32, 64)}, {"width": 0.0}, {"voxel_size": 0.0}, {"voxel_size": -1.0},
])
def test_impossible_arguments(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        SparseUNet(**options)


def test_transposed_convolutions_have_no_dilation():
    with pytest.raises(ConfigError, match="dilation = 2"):
        SparseConv(3, 3, 2, 2, dilation=2, transposed=True)
    assert "kernel 2, stride 2, transposed" in repr(SparseConv(3, 3, 2, 2, transposed=True))


def test_rescaled_weights_compute_the_same_and_are_as_long_as_fresh_ones():
    trained, fresh = small().double(), small().double()
    for norm in (m for m in trained.modules() if isinstance(m, nn.BatchNorm1d)):
        norm.eps = 1e-14  # which is not scaled
    with torch.no_grad():
        for i, parameter in enumerate(p for p in trained.parameters() if p.ndim == 3):
            parameter.mul_(1 + i % 5)
    clouds = scattered(300, 200)
    clouds = clouds.replace(points=clouds.points.double())
    before = settled(trained, clouds)(clouds).points
    trained.rescale_like(fresh)
    torch.testing.assert_close(trained(clouds).points, before, atol=1e-6, rtol=1e-6)
    lengths = [[p.detach().norm() for p in net.parameters() if p.ndim == 3] for net in (trained, fresh)]
    torch.testing.assert_close(*lengths)
