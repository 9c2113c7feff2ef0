"""Gather against plain indexing, with gradients and index checks."""

import inspect

import pytest
import torch

from contrast3d.errors import DataError
from contrast3d.ops.gather import gather


@pytest.mark.parametrize("shape", [(0,), (5,), (5, 3)])
@pytest.mark.parametrize("b", [0, 1, 3])
def test_equals_indexing(b, shape):
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(b, 6, 2, generator=draw)
    index = torch.randint(6, (b, *shape), generator=draw)
    expected = torch.stack([v[i] for v, i in zip(values, index)]) if b else values.new_empty(0, *shape, 2)
    assert torch.equal(gather(values, index), expected)
    strided = values.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(gather(strided, index), expected)


def test_gradient_sums_over_repeated_rows():
    values = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[[0, 0], [1, 3]], [[2, 2], [2, 2]]])
    assert torch.autograd.gradcheck(gather, (values, index))
    gather(values, index).sum().backward()
    assert values.grad[..., 0].tolist() == [[2, 1, 0, 1], [0, 0, 4, 0]]


@pytest.mark.parametrize("bad", [-1, 4])
def test_an_index_out_of_range_is_refused_not_read_from_the_next_cloud(bad):
    with pytest.raises(DataError, match=r"indices from .* expected 0 to 3"):
        gather(torch.zeros(2, 4, 3), torch.tensor([[0], [bad]]))


def test_indices_that_are_no_whole_numbers_are_refused():
    with pytest.raises(DataError, match=r"index: torch\.float32 numbers; expected whole ones"):
        inspect.unwrap(gather)(torch.zeros(2, 4, 3), torch.zeros(2, 1))  # as without the tests' type checks
