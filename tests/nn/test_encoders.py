"""Contract tests over all encoders, and the published sizes of DGCNN."""

import pytest
import torch
from torch import nn

from contrast3d.errors import ConfigError, Contrast3dError
from contrast3d.nn.batch_norm import BatchNorm
from contrast3d.nn.dgcnn import DGCNN
from contrast3d.nn.edge_conv import EdgeConv
from contrast3d.nn.heads import projector
from contrast3d.nn.patch_transformer import PatchTransformer
from contrast3d.nn.pointnet import PointNet
from contrast3d.nn.sparse_unet import SparseUNet
from contrast3d.nn.two_towers import TwoTowers
from contrast3d.types import Clouds


def sparse(out_channels, in_features=3, **options):
    """Its batch norms are used to such clouds: in evaluation fresh ones leave nothing of so few voxels."""
    network = SparseUNet(in_features, out_channels, depth=14, width=1 / 4, voxel_size=0.5, **options)
    for norm in (m for m in network.modules() if isinstance(m, BatchNorm)):
        norm.momentum = None
    with torch.no_grad():
        network(Clouds.from_dense(torch.randn(8, 24, 3)))
    return network


PATCHES = {"width": 16, "depth": 2, "num_heads": 2, "num_patches": 6, "patch_size": 4}
ENCODERS = {
    "dgcnn": lambda **kw: DGCNN(32, ((8,), (16,)), k=4, **kw),
    "dgcnn static": lambda **kw: DGCNN(32, ((8,), (16,)), k=4, dynamic=False, **kw),
    "dgcnn pyramid": lambda **kw: DGCNN(32, ((8,), (16,), (16,)), k=4, strides=(1, 2, 2), **kw),
    "dgcnn report": lambda **kw: DGCNN(
        32, ((8, 8), (16,)), k=4, plain=True, negative_slope=0.0, readout=("max",), **kw
    ),
    "pointnet": lambda **kw: PointNet(32, widths=(8, 8), **kw),
    "sparse unet": lambda **kw: sparse(8, **kw),
    "sparse encoder": lambda **kw: sparse(None, decoder=False, **kw),
    "patch transformer": lambda: PatchTransformer(**PATCHES),
    "patch transformer paper": lambda: PatchTransformer(**PATCHES, order="paper", readout=("queries-max", "max+mean")),
    "patch transformer standard": lambda: PatchTransformer(**PATCHES, block="standard"),
    "patch transformer without queries": lambda: PatchTransformer(
        **PATCHES, block="standard", queries=(), readout=("mean",)
    ),
    "two towers": lambda: TwoTowers(**PATCHES),
}
COORDINATES = tuple(name for name in ENCODERS if name.startswith(("patch", "two")))  # are all that these read
RAGGED = ("sparse unet", "sparse encoder")  # read clouds of any lengths


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(params=ENCODERS, name="make")
def _make(request):
    def make(**kwargs):
        torch.manual_seed(0)
        return ENCODERS[request.param](**kwargs)

    return make


def test_features_have_the_declared_shapes(make):
    encoder, clouds = make(), Clouds.from_dense(torch.randn(3, 24, 3))
    features = encoder(clouds)
    assert features.pooled.shape == (3, encoder.embed_dim)
    assert "pooled" in encoder.gives
    if "dense" in encoder.gives:
        assert len(features.points) == 3 * 24
    else:
        assert features.points is None
    if "tokens" in encoder.gives:
        assert features.tokens.shape == (3, encoder.num_patches, encoder.width)
    else:
        assert features.tokens is None


def test_every_parameter_learns(make):
    encoder = make()
    features = encoder(Clouds.from_dense(torch.randn(4, 24, 3)))
    sum(f.square().sum() for f in (features.pooled, features.points) if f is not None).backward()
    still = [n for n, p in encoder.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not still


def test_order_of_points_and_of_clouds_does_not_matter(make):
    """Pyramids and patches sample from the first point on, so only the others are shuffled."""
    encoder = make().eval()
    points = torch.randn(3, 24, 3)
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(23)])
    with torch.no_grad():
        one = encoder(Clouds.from_dense(points)).pooled
        other = encoder(Clouds.from_dense(points[:, order].flip(0))).pooled.flip(0)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_evaluation_does_not_depend_on_the_batch(make):
    encoder, points = make().eval(), torch.randn(3, 24, 3)
    with torch.no_grad():
        together = encoder(Clouds.from_dense(points)).pooled
        alone = torch.cat([encoder(Clouds.from_dense(p[None])).pooled for p in points])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [name for name in ENCODERS if name not in COORDINATES], indirect=True)
def test_point_features_beside_the_coordinates(make):
    encoder = make(in_features=2)
    clouds = Clouds.from_dense(torch.randn(2, 24, 3), features=torch.randn(48, 2))
    assert encoder(clouds).pooled.shape == (2, encoder.embed_dim)


def test_bfloat16_autocast_stays_close(make):
    encoder, clouds = make().eval(), Clouds.from_dense(torch.randn(2, 24, 3))
    with torch.no_grad():
        full = encoder(clouds).pooled
        with torch.autocast("cpu", torch.bfloat16):
            half = encoder(clouds).pooled.float()
    assert torch.nn.functional.cosine_similarity(full, half).min() > 0.98


def test_ragged_clouds_are_read_or_refused_by_name(make, request):
    clouds = Clouds.from_list([torch.randn(24, 3), torch.randn(20, 3)])
    if request.node.callspec.params["make"] in RAGGED:
        assert make()(clouds).pooled.shape == (2, make().embed_dim)
        return
    with pytest.raises(Contrast3dError, match="different lengths"):
        make()(clouds)


def test_clouds_smaller_than_k():
    with pytest.raises(Contrast3dError, match="k=4"):
        ENCODERS["dgcnn"]()(Clouds.from_dense(torch.randn(2, 1, 3)))


def test_sizes_of_the_report():
    """Spec of Bernini (2022), section 2."""
    assert parameters(DGCNN.report()) == 45_952
    assert parameters(projector(128, 256, 10, norm=False)) == 35_594


def test_size_of_wang_et_al():
    """Edge convolutions 3-64-64-128-256 and the 512 -> 1024 embedding, each with batch norm and no bias."""
    linear = 6 * 64 + 128 * 64 + 128 * 128 + 256 * 256 + 512 * 1024
    norms = 2 * (64 + 64 + 128 + 256 + 1024)
    encoder = DGCNN(embed_dim=2048)
    assert parameters(encoder) == linear + norms
    assert encoder.k == 20


def test_edge_conv_equals_the_layer_on_stored_edges():
    """The splitting of the first product, against [x_i, x_j - x_i] put together."""
    layer = EdgeConv(5, (7,), negative_slope=0.2).double()
    x, index = torch.randn(2, 11, 5).double(), torch.randint(0, 11, (2, 11, 4))
    neighbors = x[torch.arange(2)[:, None, None], index]
    edges = torch.cat([x[:, :, None].expand_as(neighbors), neighbors - x[:, :, None]], -1)
    y = torch.nn.functional.batch_norm(layer.first(edges).flatten(0, 2), None, None, layer.norm.weight,
                                       layer.norm.bias, True)
    expected = torch.nn.functional.leaky_relu(y, 0.2).view(2, 11, 4, 7).amax(2)
    torch.testing.assert_close(layer(x, index), expected)
    assert layer.norm.num_batches_tracked == 1


def test_batch_norm_is_torch_s_in_one_process():
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4)
    x = torch.randn(2, 5, 4)
    torch.testing.assert_close(ours(x), theirs(x.reshape(10, 4)).view(2, 5, 4))
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_batch_norm_alone_asks_no_other_process(monkeypatch):
    monkeypatch.setattr("contrast3d.nn.batch_norm.world_size", lambda: 2)
    monkeypatch.setattr("contrast3d.nn.batch_norm.world_sum", lambda x: 2 * x + 1)  # what the other one has
    ours, theirs, x = BatchNorm(4), nn.BatchNorm1d(4), torch.randn(10, 4)
    assert not torch.allclose(ours(x), theirs(x))
    ours.alone = True
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("kwargs", [
    {"embed_dim": 33}, {"k": 0}, {"readout": ("median",)}, {"strides": (1,)}, {"layers": ()}, {"layers": ((8, 8, 8),)},
])
def test_impossible_arguments(kwargs):
    with pytest.raises(ConfigError):
        DGCNN(**kwargs)


def test_one_value_is_too_little_for_batch_norm():
    with pytest.raises(ConfigError, match="more than one value per channel"):
        BatchNorm(4)(torch.randn(1, 4))
