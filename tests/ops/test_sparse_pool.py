"""Pooling of voxels against its definition; the shared numbers are compared in test_sparse_conv."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_sparse import CELLS, normal, pairs, pooled, threads, voxels_of

from contrast3d.errors import DataError
from contrast3d.ops.kernel_map import coarser
from contrast3d.ops.portable import portable
from contrast3d.ops.sparse_conv import sparse_conv_transpose
from contrast3d.ops.sparse_pool import _reduce, global_pool, sparse_pool
from contrast3d.ops.voxels import from_coords

REDUCTIONS = ("max", "mean", "sum")


@settings(max_examples=40, deadline=None)
@given(
    coords=CELLS, kernel_size=st.integers(1, 4), stride=st.integers(1, 3), width=st.sampled_from([1, 5, 16]),
    reduce=st.sampled_from(REDUCTIONS), seed=st.integers(0, 99),
)  # fmt: skip
def test_equals_naive_on_any_pool(coords, kernel_size, stride, width, reduce, seed):
    voxels = from_coords(coords, normal(len(coords), width, seed=seed), clouds=4)[0]
    outs, offsets = coarser(voxels, stride)
    found = pairs(voxels.coords, outs, kernel_size, 1)
    for count in (1, 2):
        with threads(count):
            result = sparse_pool(voxels, kernel_size, stride, reduce)
        if len(outs):
            torch.testing.assert_close(result.features, pooled(voxels.features, found, len(outs), reduce))
        assert torch.equal(result.coords, outs)
        assert torch.equal(result.offsets, offsets)
        assert (result.stride, result.maps is voxels.maps) == (stride, True)
    voxels.maps.clear()
    with portable():
        assert torch.equal(sparse_pool(voxels, kernel_size, stride, reduce).features, result.features)


@settings(max_examples=20, deadline=None)
@given(coords=CELLS, reduce=st.sampled_from(REDUCTIONS))
def test_whole_clouds_equal_naive(coords, reduce):
    """A cloud without voxels has zeros, also where all others are negative."""
    voxels = from_coords(coords, normal(len(coords), 3) - 9, clouds=4)[0]
    found = [[(m, b) for m, b in enumerate(voxels.coords[:, 0].tolist())]]
    wanted = pooled(voxels.features, found, 4, reduce)
    torch.testing.assert_close(global_pool(voxels, reduce), wanted)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_gradcheck(reduce):
    voxels = voxels_of(count=20, extent=2, width=3, clouds=(0, 2))
    features = voxels.features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: sparse_pool(voxels.replace(features=f), 2, 2, reduce).features, features)
    assert torch.autograd.gradcheck(lambda f: sparse_pool(voxels.replace(features=f), 3, 1, reduce).features, features)
    assert torch.autograd.gradcheck(lambda f: global_pool(voxels.replace(features=f), reduce), features)


def test_the_mean_counts_what_is_there():
    coords = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1], [0, 2, 0, 0]])
    voxels = from_coords(coords, torch.tensor([[1.0], [5.0], [7.0]]))[0]
    assert sparse_pool(voxels, 2, 2, "mean").features.flatten().tolist() == [3.0, 7.0]
    assert sparse_pool(voxels, 2, 2, "max").features.flatten().tolist() == [5.0, 7.0]
    assert sparse_pool(voxels, 3, 1, "sum").features.flatten().tolist() == [6.0, 13.0, 12.0]


def test_pooled_voxels_find_their_way_back():
    voxels = voxels_of(count=50)
    down = sparse_pool(voxels)
    up = sparse_conv_transpose(down, torch.eye(5).double().expand(8, 5, 5))
    assert torch.equal(up.coords, voxels.coords)
    assert bool((up.features >= voxels.features).all())


@pytest.mark.parametrize("clouds", [0, 3])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_no_voxels(clouds, reduce):
    nothing = from_coords(torch.zeros(0, 4, dtype=torch.long), torch.zeros(0, 2), clouds)[0]
    assert sparse_pool(nothing, 2, 2, reduce).features.shape == (0, 2)
    assert torch.equal(global_pool(nothing, reduce), torch.zeros(clouds, 2))


def test_strided_features():
    voxels, strided = voxels_of(count=30, width=4), normal(4, 100)[:, ::2].T
    strided = strided[: len(voxels.coords)]
    assert not strided.is_contiguous()
    for reduce in REDUCTIONS:
        one = sparse_pool(voxels.replace(features=strided), reduce=reduce).features
        assert torch.equal(one, sparse_pool(voxels.replace(features=strided.contiguous()), reduce=reduce).features)


def test_unknown_reductions():
    with pytest.raises(DataError, match="'median'; expected max, mean or sum"):
        _reduce(torch.ones(2, 1), torch.zeros(2, dtype=torch.long), 1, "median")
