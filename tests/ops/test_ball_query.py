"""Ball query against its definition, the kernel against the torch path."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.ball_query import _ball_query_torch, ball_query


def naive(points, queries, radius, k):
    points, queries = points.double().numpy(), queries.double().numpy()
    out = np.empty((*queries.shape[:2], k), np.int64)
    for b, cloud in enumerate(points):
        for i, query in enumerate(queries[b]):
            distances = ((cloud - query) ** 2).sum(1)
            found = np.flatnonzero(distances < radius**2)[:k]
            out[b, i] = found[0] if len(found) else distances.argmin()
            out[b, i, : len(found)] = found
    return torch.from_numpy(out)


@settings(max_examples=30, deadline=None)
@given(
    b=st.integers(0, 3), n=st.integers(1, 140), m=st.integers(0, 8), k=st.integers(1, 80), seed=st.integers(0, 99),
    radius=st.sampled_from([0.5, 1.0, 2.0, 3.5, 100.0]), dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_equals_naive_on_any_shape(b, n, m, k, radius, seed, dtype):
    draw = torch.Generator().manual_seed(seed)
    points = torch.randint(-4, 5, (b, n, 3), generator=draw).to(dtype)  # on the sphere, ties and duplicates
    queries = torch.randint(-6, 7, (b, m, 3), generator=draw).to(dtype)
    expected = naive(points, queries, radius, k)
    assert torch.equal(ball_query(points, queries, radius, k), expected)
    assert torch.equal(_ball_query_torch(points, queries, radius, k), expected)


@pytest.mark.parametrize("radius", [0.01, 0.3, 2.0])
def test_clouds_longer_than_a_block(radius):
    draw = torch.Generator().manual_seed(0)
    points, queries = torch.randn(2, 1500, 3, generator=draw), torch.randn(2, 30, 3, generator=draw)
    expected = naive(points, queries, radius, 20)
    assert torch.equal(ball_query(points, queries, radius, 20), expected)
    torch.set_num_threads(1)
    one = ball_query(points.transpose(1, 2).contiguous().transpose(1, 2), queries, radius, 20)
    torch.set_num_threads(2)
    assert torch.equal(one, expected)


def test_the_sphere_itself_is_outside_and_the_lonely_get_their_nearest():
    points = torch.tensor([[[5.0, 0, 0], [1, 0, 0], [0, 0.5, 0]]])
    assert ball_query(points, torch.zeros(1, 1, 3), 1.0, 2).tolist() == [[[2, 2]]]
    assert ball_query(points, torch.zeros(1, 1, 3), 0.1, 2).tolist() == [[[2, 2]]]


def test_bad_arguments_are_refused():
    points = torch.zeros(1, 4, 3)
    with pytest.raises(ConfigError, match="radius=0"):
        ball_query(points, points, 0.0, 2)
    with pytest.raises(ConfigError, match="k=0"):
        ball_query(points, points, 1.0, 0)
    with pytest.raises(DataError, match="N > 0"):
        ball_query(points[:, :0], points, 1.0, 2)
    with pytest.raises(DataError, match="NaN, infinite"):
        ball_query(points, points / 0, 1.0, 2)
