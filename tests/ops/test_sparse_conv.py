"""Sparse convolution against its definition, MinkowskiEngine's numbers, and the torch path of other devices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_sparse import CELLS, convolved, gradients, normal, pairs, threads, voxels_of

from contrast3d.errors import DataError
from contrast3d.ops.kernel_map import coarser, kernel_map
from contrast3d.ops.kernels import register_tile as tile
from contrast3d.ops.portable import portable
from contrast3d.ops.sparse_conv import (
    check_weight,
    convolve,
    products,
    sparse_conv,
    sparse_conv_transpose,
    weight_gradient,
)
from contrast3d.ops.sparse_pool import global_pool, sparse_pool
from contrast3d.ops.voxels import from_coords
from contrast3d.types import Voxels

WIDTHS = (1, 3, 5, 16, 17, 96)  # some fill vector registers, some do not
REDUCE = {"avg": "mean", "max": "max", "sum": "sum"}


def case(voxels, width, kernel_size=3, stride=1, dilation=1, seed=0):
    """-> float64 features and weight in the range of -2..2, a gradient, and the pairs by definition."""
    outs = coarser(voxels, stride)[0]
    found = pairs(voxels.coords, outs, kernel_size, dilation * voxels.stride)
    features = normal(len(voxels.coords), width[0], seed=seed)
    weight = normal(kernel_size**3, *width, seed=seed + 1)
    return features, weight, normal(len(outs), width[1], seed=seed + 2), found


def with_gradients(function, features, weight, grad):
    features, weight = features.clone().requires_grad_(), weight.clone().requires_grad_()
    out = function(features, weight)
    out.backward(grad.to(out.dtype))
    return out.detach(), features.grad, weight.grad


def near(found, wanted, tolerance):
    """Relative to the largest value."""
    return (found.double() - wanted).abs().max() <= tolerance * wanted.abs().max() if wanted.numel() else True


@settings(max_examples=60, deadline=None)
@given(
    coords=CELLS, kernel_size=st.integers(1, 5), stride=st.integers(1, 3), dilation=st.integers(1, 2),
    width=st.tuples(st.sampled_from(WIDTHS), st.sampled_from(WIDTHS)), seed=st.integers(0, 99),
    precision=st.sampled_from([(torch.float64, 1e-13), (torch.float32, 1e-5)]),
)  # fmt: skip
def test_equals_naive_on_any_convolution(coords, kernel_size, stride, dilation, width, seed, precision):
    dtype, tolerance = precision
    voxels = from_coords(coords, normal(len(coords), 1), clouds=4)[0]
    features, weight, grad, found = case(voxels, width, kernel_size, stride, dilation, seed)
    features, weight, grad = (t.to(dtype).double() for t in (features, weight, grad))
    wanted = convolved(features, weight, found, len(grad)), *gradients(features, weight, found, grad)

    def run(features, weight):
        mapped = voxels.replace(features=features)
        return sparse_conv(mapped, weight, kernel_size=kernel_size, stride=stride, dilation=dilation).features

    results = []
    for count in (1, 2):
        with threads(count):
            results.append(with_gradients(run, features.to(dtype), weight.to(dtype), grad))
    with portable():
        results.append(with_gradients(run, features.to(dtype), weight.to(dtype), grad))
    assert all(torch.equal(one, two) for one, two in zip(*results[:2]))
    for result in results:
        assert all(found.dtype == dtype for found in result)
        assert all(near(found, truth, tolerance) for found, truth in zip(result, wanted))


@settings(max_examples=25, deadline=None)
@given(
    coords=CELLS, kernel_size=st.integers(1, 4), stride=st.integers(1, 3), seed=st.integers(0, 99),
    width=st.tuples(st.sampled_from(WIDTHS), st.sampled_from(WIDTHS)),
)  # fmt: skip
def test_transposed_equals_naive(coords, kernel_size, stride, width, seed):
    """out[v + offset_i] += features[v] W_i: the map of the way down, read backwards, with the same weights."""
    fine = from_coords(coords, normal(len(coords), 1), clouds=4)[0]
    down = sparse_conv(fine, normal(stride**3, 1, 1), None, stride, stride)
    found = [[(u, m) for m, u in some] for some in pairs(fine.coords, down.coords, kernel_size, 1)]
    features, weight = normal(len(down.coords), width[0], seed=seed), normal(kernel_size**3, *width, seed=seed + 1)
    grad = normal(len(coords), width[1], seed=seed + 2)
    wanted = convolved(features, weight, found, len(grad)), *gradients(features, weight, found, grad)

    def run(features, weight):
        up = sparse_conv_transpose(down.replace(features=features), weight, None, kernel_size, stride)
        assert up.coords is fine.coords
        assert (up.stride, up.offsets.tolist()) == (1, fine.offsets.tolist())
        return up.features

    kernel = with_gradients(run, features, weight, grad)
    with portable():
        plain = with_gradients(run, features, weight, grad)
    assert all(near(found, truth, 1e-13) for found, truth in zip(kernel, wanted))
    assert all(near(found, truth, 1e-13) for found, truth in zip(plain, wanted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [(96, 96), (128, 64), (3, 32), (33, 31)])
def test_many_rows_are_the_same_bits_on_any_threads(dtype, width):
    """Several blocks of rows, tiles of every size and what is left over at their ends."""
    voxels = voxels_of(count=3000, extent=9, width=1)
    features, weight, _, _ = case(voxels_of(count=1), width)
    features, weight = normal(len(voxels.coords), width[0], dtype=dtype), weight.to(dtype)
    grad, results = normal(len(voxels.coords), width[1], seed=3, dtype=dtype), []
    for count in (1, 2, 5):
        with threads(count):
            results.append(with_gradients(lambda f, w: convolve(f, w, kernel_map(voxels, 3)), features, weight, grad))
    with portable():
        plain = with_gradients(lambda f, w: convolve(f, w, kernel_map(voxels, 3)), features, weight, grad)
    for some in zip(*results):
        assert all(torch.equal(some[0], other) for other in some[1:])
    tolerance = 1e-13 if dtype == torch.float64 else 3e-6
    assert all(near(found, truth.double(), tolerance) for found, truth in zip(results[0], plain))


def test_of_full_blocks_it_is_a_dense_convolution():
    """A block of voxels without holes, by torch's own conv3d."""
    sides = torch.arange(-2, 4)
    coords = torch.cartesian_prod(torch.zeros(1, dtype=torch.long), sides, sides, sides)
    features, weight = normal(216, 3), normal(27, 3, 4, seed=1)
    dense = weight.view(3, 3, 3, 3, 4).permute(4, 3, 2, 1, 0)
    wanted = torch.nn.functional.conv3d(features.T.view(1, 3, 6, 6, 6), dense, padding=1)[0].flatten(1).T
    torch.testing.assert_close(sparse_conv(from_coords(coords, features)[0], weight).features, wanted)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"kernel_size": 2, "stride": 2}, {"dilation": 2}])
def test_gradcheck(options):
    voxels, size = voxels_of(count=14, extent=2, width=3), options.get("kernel_size", 3)
    inputs = voxels.features, normal(size**3, 3, 2, seed=1), normal(2, seed=2)
    assert torch.autograd.gradcheck(
        lambda f, w, b: sparse_conv(voxels.replace(features=f), w, b, **{"kernel_size": 3} | options).features,
        [t.clone().requires_grad_() for t in inputs])


@pytest.mark.parametrize("kernel_size", [2, 3])
def test_gradcheck_transposed(kernel_size):
    down = sparse_conv(voxels_of(count=14, extent=2, width=3), normal(8, 3, 3), None, 2, 2)
    inputs = down.features, normal(kernel_size**3, 3, 2, seed=1), normal(2, seed=2)
    assert torch.autograd.gradcheck(
        lambda f, w, b: sparse_conv_transpose(down.replace(features=f), w, b, kernel_size).features,
        [t.clone().requires_grad_() for t in inputs])


def oracle_result(name, voxels, weights):
    """-> rows of the result and their coordinates, of one case of the shared numbers by its name."""
    kind, *parts = name.split("_")
    if kind == "global":
        clouds = torch.arange(len(voxels))
        return global_pool(voxels, REDUCE[parts[0]]), torch.nn.functional.pad(clouds[:, None], (0, 3))
    if kind == "conv":
        size, stride, *dilation = (int(part[1:]) for part in parts)
        out = sparse_conv(voxels, *weights, None, size, stride, *dilation)
    elif kind.endswith("pool"):
        out = sparse_pool(voxels, 2, 2, REDUCE[kind[:3]])
    elif name == "down2_up2":
        out = sparse_conv_transpose(sparse_conv(voxels, weights[0], None, 2, 2), weights[1])
    else:
        assert name == "down2x2_conv3_up2x2"
        out = sparse_conv(sparse_conv(voxels, weights[0], None, 2, 2), weights[1], None, 2, 2)
        out = sparse_conv(out, weights[2])
        out = sparse_conv_transpose(sparse_conv_transpose(out, weights[3]), weights[4])
    return out.features, out.coords


@pytest.mark.shared
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_layers_of_minkowski_engine(shared, count, plain):
    if not (path := shared / "parity" / "sparse_layers_fp64.pt").is_file():
        pytest.skip(f"no {path}")
    cases = torch.load(path, weights_only=True)
    assert len(cases) == 15
    for one in cases:
        features = one["feats"].clone().requires_grad_()
        weights = [k.clone().requires_grad_() for k in one["kernels"]]
        with threads(count):
            if plain:
                with portable():
                    error = _error(one, features, weights)
            else:
                error = _error(one, features, weights)
        assert max(error) <= 1e-12, one["name"]


def _error(one, features, weights):
    """Errors of the result and of the gradient of the input, and of those of the kernels relative to their size."""
    voxels, _ = from_coords(one["coords"], features)
    found, coords = oracle_result(one["name"], voxels, [w[None] if w.ndim == 2 else w for w in weights])
    place = {tuple(c): m for m, c in enumerate(coords.tolist())}
    assert len(place) == len(one["out_coords"])
    found = found[[place[tuple(c)] for c in one["out_coords"].tolist()]]
    found.backward(one["grad_out"])
    difference = [found.detach() - one["out"], features.grad - one["grad_in"]]
    difference += [(w.grad - truth) / truth.abs().max() for w, truth in zip(weights, one["grad_kernels"], strict=True)]
    return [float(d.abs().max()) for d in difference]


def rounded(values):
    return values.bfloat16().double()


@pytest.mark.skipif(not tile.has_bfloat16(), reason="no AVX512-BF16 in this processor")
@pytest.mark.parametrize("width", [(1, 1), (3, 5), (16, 16), (17, 33), (96, 96)])
def test_bfloat16_products_have_sums_of_float32(width):
    voxels = voxels_of(count=250, extent=4, width=1)
    features, weight, grad, _ = case(voxels_of(count=1), width)
    features, grad = normal(len(voxels.coords), width[0]).float(), normal(len(voxels.coords), width[1], seed=5).float()
    found = kernel_map(voxels, 3)

    def run(features, weight):
        with torch.autocast("cpu", torch.bfloat16):
            return convolve(features, weight, found)

    out, of_features, of_weight = with_gradients(run, features, weight.float(), grad)
    assert out.dtype == of_features.dtype == of_weight.dtype == torch.float32
    assert near(out, products(rounded(features), rounded(weight.float()), found), 1e-5)
    back = rounded(weight.float()).transpose(1, 2).contiguous()
    assert near(of_features, products(rounded(grad), back, found.transposed), 1e-5)
    assert near(of_weight, weight_gradient(features.double(), grad.double(), found), 1e-5)
    assert not near(out, products(features.double(), weight, found), 1e-5)  # canary: the products are not of float32
    for count in (1, 2):
        with threads(count):
            assert torch.equal(run(features, weight.float()), out)


@pytest.mark.parametrize("width", [(1, 1), (3, 5), (17, 33)])
def test_bfloat16_without_the_instructions(monkeypatch, width):
    monkeypatch.setattr(tile, "has_bfloat16", lambda: False)
    voxels = voxels_of(count=250, width=1)
    features, weight = normal(len(voxels.coords), width[0]).float(), normal(27, *width).float()
    grad, found = normal(len(voxels.coords), width[1], seed=5).float(), kernel_map(voxels, 3)

    def run(features, weight):
        with torch.autocast("cpu", torch.bfloat16):
            return convolve(features, weight, found)

    low = with_gradients(run, features, weight, grad)
    full = with_gradients(lambda f, w: convolve(f, w, found), features, weight, grad)
    assert all(value.dtype == torch.float32 for value in low)
    assert all(near(value, truth.double(), 2e-2) for value, truth in zip(low, full))
    assert not torch.equal(low[0], full[0])


def test_features_of_half_precision_are_widened_and_float64_stays():
    voxels = voxels_of(count=50, width=4, dtype=torch.float32)
    weight = normal(27, 4, 6).float()
    full = sparse_conv(voxels, weight).features
    for dtype in (torch.bfloat16, torch.float16):
        half = sparse_conv(voxels.replace(features=voxels.features.to(dtype)), weight).features
        assert half.dtype == torch.float32
        assert near(half, full.double(), 2e-2)
    exact = voxels.replace(features=voxels.features.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sparse_conv(exact, weight).features, sparse_conv(exact, weight.double()).features)


def test_strided_features_weights_and_gradients():
    voxels = voxels_of(count=60, width=6)
    weight, bias = normal(27, 6, 5), normal(5)
    strided = normal(6, len(voxels.coords), seed=8).T
    turned = weight.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not strided.is_contiguous()
    assert not turned.is_contiguous()
    grad = normal(5, len(voxels.coords), seed=9).T
    run = lambda f, w: sparse_conv(voxels.replace(features=f), w, bias).features  # noqa: E731
    for found, wanted in zip(
        with_gradients(run, strided, turned, grad),
        with_gradients(run, strided.contiguous(), weight, grad.contiguous()),
    ):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("clouds", [0, 2])
@pytest.mark.parametrize("low", [False, True])
def test_no_voxels(clouds, low):
    nothing = Voxels(torch.zeros(0, 4, dtype=torch.int32), torch.zeros(0, 3), torch.zeros(clouds + 1, dtype=torch.long))
    weight, bias = torch.ones(8, 3, 5, requires_grad=True), torch.ones(5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        down = sparse_conv(nothing, weight, bias, 2, 2)
        up = sparse_conv_transpose(down, torch.ones(8, 5, 4), torch.ones(4))
    assert (down.features.shape, down.stride, len(down)) == ((0, 5), 2, clouds)
    assert (up.features.shape, up.stride, len(up)) == ((0, 4), 1, clouds)
    down.features.sum().backward()
    assert not weight.grad.any()
    assert not bias.grad.any()


def test_one_voxel_meets_the_centre_alone():
    voxel = from_coords(torch.tensor([[0, -7, 3, 9]]), torch.tensor([[1.0, 2.0]]))[0]
    weight = normal(27, 2, 3).float()
    torch.testing.assert_close(sparse_conv(voxel, weight).features[0], torch.tensor([1.0, 2.0]) @ weight[13])
    down = sparse_conv(voxel, weight[:8], None, 2, 2)
    assert down.coords.tolist() == [[0, -8, 2, 8]]  # offset (1, 1, 1): the last weight
    torch.testing.assert_close(down.features[0], torch.tensor([1.0, 2.0]) @ weight[7])


def test_channels_of_no_width():
    voxels = voxels_of(count=9, width=0, dtype=torch.float32)
    weight = torch.ones(27, 0, 4, requires_grad=True)
    out = sparse_conv(voxels, weight).features
    assert not out.any()
    out.sum().backward()
    assert weight.grad.shape == weight.shape


def test_only_wanted_gradients_are_made():
    voxels = voxels_of(count=9, width=2)
    weight = normal(27, 2, 2).requires_grad_()
    sparse_conv(voxels, weight).features.sum().backward()
    assert weight.grad is not None
    assert not sparse_conv(voxels, weight.detach()).features.requires_grad


@pytest.mark.parametrize("shape", [(27, 4, 2), (8, 5, 2), (27, 2), (1, 27, 5, 2)])
def test_weights_that_do_not_fit(shape):
    with pytest.raises(DataError, match=r"weight: shape .*; expected \(27, 5, width\)"):
        check_weight(voxels_of(), torch.ones(shape), 3)


def test_integers_are_no_features():
    voxels = voxels_of()
    voxels.__dict__["features"] = voxels.features.long()  # past the type checker of the tests
    with pytest.raises(DataError, match=r"torch\.int64; expected floating point"):
        check_weight(voxels, normal(27, 5, 2), 3)


def test_transposed_needs_the_finer_voxels():
    with pytest.raises(DataError, match=r"transposed convolution: no coordinates at stride 0\.5"):
        sparse_conv_transpose(voxels_of(width=5), normal(8, 5, 2))
