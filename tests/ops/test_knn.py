"""kNN against numpy, the kernel against the torch path, and the places a kernel must survive."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrast3d.errors import DataError
from contrast3d.ops.knn import _knn_torch, _prepared, knn


def naive(points, k, queries=None):
    """Stable sort of squared differences, in float64; a point precedes its duplicates in its own list."""
    own = queries is None
    points = points.double().numpy()
    queries = points if own else queries.double().numpy()
    out = np.empty((*queries.shape[:2], k), np.int64)
    for b, cloud in enumerate(points):
        for i, query in enumerate(queries[b]):
            distances = ((cloud - query) ** 2).sum(-1)
            if own:
                distances[i] = -1
            out[b, i] = np.argsort(distances, kind="stable")[:k]
    return torch.from_numpy(out)


def grid(*shape, seed=0, levels=4):
    """Small integers: distances are exact in every precision, and full of ties."""
    return torch.randint(levels, shape, generator=torch.Generator().manual_seed(seed)).float()


def cloud(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=25, deadline=None)
@given(
    b=st.integers(0, 3), n=st.integers(1, 100), m=st.integers(0, 9), c=st.sampled_from([1, 2, 3, 4, 17]),
    seed=st.integers(0, 99), data=st.data(),
)  # fmt: skip
def test_equals_naive_on_any_shape(b, n, m, c, seed, data):
    k = data.draw(st.integers(1, n))
    points = cloud(b, n, c, seed=seed, dtype=torch.float64)
    queries = cloud(b, m, c, seed=seed + 1, dtype=torch.float64)
    assert torch.equal(knn(points, k), naive(points, k))
    assert torch.equal(knn(points, k, queries), naive(points, k, queries))


@pytest.mark.parametrize("n", [1, 63, 64, 65, 500])
@pytest.mark.parametrize("k", [1, 20, 300])
def test_ties_come_by_lower_index_and_the_point_itself_first(n, k):
    points, queries = grid(2, n, 3), grid(2, 7, 3, seed=1)
    k = min(k, n)
    assert torch.equal(knn(points, k), naive(points, k))
    assert torch.equal(knn(points, k, queries), naive(points, k, queries))


@pytest.mark.parametrize("c", [3, 8])
def test_all_points_equal(c):
    points = torch.full((1, 700, c), 0.25)
    own = knn(points, 300)
    assert torch.equal(own[0, :, 0], torch.arange(700))
    assert torch.equal(own[0, 5, 1:], torch.tensor([j for j in range(300) if j != 5]))
    assert torch.equal(knn(points, 3, points[:, :1])[0, 0], torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("c", [3, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernel_equals_torch_path(c, dtype):
    points, queries = cloud(2, 300, c, dtype=dtype), cloud(2, 40, c, seed=1, dtype=dtype)
    for k, wanted in ((20, None), (300, queries)):
        exact = distances_of(points, knn(points, k, wanted), wanted)
        plain = distances_of(points, _knn_torch(*_torch_arguments(points, k, wanted)), wanted)
        torch.testing.assert_close(exact, plain, rtol=1e-4, atol=1e-4)


def _torch_arguments(points, k, queries):
    points, queries, own = _prepared(points, k, queries)
    return points, k, queries, own


def distances_of(points, index, queries):
    queries = points if queries is None else queries
    return torch.stack([(p[i] - q[:, None]).norm(dim=-1) for p, i, q in zip(points, index, queries)])


@pytest.mark.parametrize("c", [3, 64])
def test_far_from_the_origin_a_point_is_still_its_own_neighbour(c):
    points = cloud(2, 200, c) + 1000
    assert torch.equal(knn(points, 5)[..., 0], torch.arange(200).expand(2, 200))
    assert (knn(points, 1, points[:, :50])[..., 0] == torch.arange(50)).float().mean() > 0.95


def test_non_contiguous_input_and_no_gradient():
    points = cloud(2, 3, 100).transpose(1, 2).requires_grad_()
    index = knn(points, 4, points[:, ::2])
    assert torch.equal(index, naive(points.detach(), 4, points.detach()[:, ::2]))
    assert not index.requires_grad


@pytest.mark.parametrize("c", [3, 16])
def test_thread_counts_agree(c):
    points = cloud(3, 257, c)
    two = knn(points, 20)
    torch.set_num_threads(1)
    one = knn(points, 20)
    torch.set_num_threads(2)
    assert torch.equal(one, two)


def test_autocast_and_half_precision_use_float32():
    points = cloud(2, 100, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = knn(points, 10)
    assert torch.equal(inside, knn(points, 10))
    half = points.bfloat16()
    assert torch.equal(knn(half, 10), knn(half.float(), 10))


@pytest.mark.parametrize("c", [3, 16])
def test_two_python_threads_at_once(c):
    clouds = [cloud(4, 300, c, seed=s) for s in range(2)]
    expected = [knn(x, 10) for x in clouds]
    wrong = []

    def work(x, wanted):
        wrong.extend(i for i in range(5) if not torch.equal(knn(x, 10), wanted))

    workers = [threading.Thread(target=work, args=pair) for pair in zip(clouds, expected)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_large_k_of_few_points_reads_clearly():
    with pytest.raises(DataError, match="k=20 neighbours asked of clouds of 10 points"):
        knn(torch.zeros(1, 10, 3), 20)


@pytest.mark.parametrize(
    ("points", "queries"),
    [
        (torch.zeros(1, 4, 3), torch.full((1, 1, 3), torch.nan)),
        (torch.full((1, 4, 3), torch.inf), None),
        (torch.full((1, 4, 8), 1e20) * torch.arange(4)[:, None], None),
    ],
)
def test_values_without_a_distance_are_refused(points, queries):
    with pytest.raises(DataError, match="NaN, infinite or overflowing"):
        knn(points, 2, queries)


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(DataError, match="queries: shape"):
        _prepared(torch.zeros(1, 4, 3), 2, torch.zeros(2, 4, 3))
