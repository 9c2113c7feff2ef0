"""Three-nearest interpolation against its formula, with gradients."""

import numpy as np
import pytest
import torch

from contrast3d.ops.three_interpolate import three_interpolate


def inputs(b=2, n=20, m=7, c=4, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    shapes = ((b, n, 3), (b, n, c), (b, m, 3))
    return [torch.randn(*shape, generator=draw, dtype=dtype) for shape in shapes]


def naive(points, features, queries, eps=1e-8):
    out = np.zeros((*queries.shape[:2], features.shape[2]))
    points, features, queries = points.numpy(), features.numpy(), queries.numpy()
    for b, i in np.ndindex(*queries.shape[:2]):
        squared = ((points[b] - queries[b, i]) ** 2).sum(1)
        nearest = np.argsort(squared, kind="stable")[:3]
        weights = 1 / (squared[nearest] + eps)
        out[b, i] = weights @ features[b, nearest] / weights.sum()
    return torch.from_numpy(out)


@pytest.mark.parametrize("n", [1, 2, 3, 20])
@pytest.mark.parametrize("m", [0, 1, 7])
def test_equals_naive(n, m):
    arguments = inputs(n=n, m=m)
    torch.testing.assert_close(three_interpolate(*arguments), naive(*arguments))


def test_on_a_point_it_returns_that_points_features():
    points, features, _ = inputs(dtype=torch.float32)
    torch.testing.assert_close(three_interpolate(points, features, points), features, rtol=1e-4, atol=1e-4)


def test_duplicates_share_the_weight():
    points = torch.zeros(1, 2, 3)
    features = torch.tensor([[[1.0], [3.0]]])
    assert three_interpolate(points, features, torch.zeros(1, 1, 3)).item() == 2


def test_gradients_flow_to_features_and_coordinates():
    arguments = [t.requires_grad_() for t in inputs(b=1, n=6, m=3, c=2)]
    assert torch.autograd.gradcheck(three_interpolate, arguments)


def test_features_keep_their_dtype_and_strides_do_not_matter():
    points, features, queries = inputs(dtype=torch.float32)
    expected = three_interpolate(points, features, queries)
    strided = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (points, features, queries)]
    torch.testing.assert_close(three_interpolate(*strided), expected)
    assert three_interpolate(points, features.bfloat16(), queries).dtype == torch.bfloat16
