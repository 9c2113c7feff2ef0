"""Offsets against the loop that the docstring names, on both paths."""

import pytest
import torch

from contrast3d.errors import DataError
from contrast3d.ops.offsets import offsets
from contrast3d.ops.portable import portable


def case(b=2, n=7, g=3, k=4, c=3, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    return (torch.randn(b, n, c, generator=draw, dtype=dtype), torch.randint(n, (b, g, k), generator=draw),
            torch.randn(b, g, c, generator=draw, dtype=dtype))


def naive(points, index, centers):
    out = points.new_empty(*index.shape, points.shape[2])
    for b, g, j in ((b, g, j) for b in range(len(index)) for g in range(index.shape[1]) for j in range(index.shape[2])):
        out[b, g, j] = points[b, index[b, g, j]] - centers[b, g]
    return out


@pytest.mark.parametrize("sizes", [{}, {"b": 0}, {"g": 0}, {"k": 0}, {"n": 1}, {"c": 1}, {"dtype": torch.float64}])
@pytest.mark.parametrize("count", [1, 2])
def test_equals_the_loop(sizes, count, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    points, index, centers = case(**sizes)
    wanted = naive(points, index, centers)
    assert torch.equal(offsets(points, index, centers), wanted)
    strided = points.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(offsets(strided, index, centers), wanted)
    with portable():
        assert torch.equal(offsets(points, index, centers), wanted)


def test_gradients():
    points, index, centers = case(dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p, c: offsets(p, index, c),
                                    (points.requires_grad_(), centers.requires_grad_()))


@pytest.mark.parametrize("bad", [-1, 7])
@pytest.mark.parametrize("learnt", [False, True])
def test_an_index_out_of_range_is_refused(bad, learnt):
    points, index, centers = case()
    index[1, 2, 3] = bad
    with pytest.raises(DataError, match=r"index: indices from .* expected 0 to 6"):
        offsets(points.requires_grad_(learnt), index, centers)
