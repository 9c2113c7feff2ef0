"""Chamfer against the table of all distances, with gradients; kernel against torch path; threads, ties, odd input."""

import importlib
import inspect
import math
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrast3d.errors import DataError
from contrast3d.ops.chamfer import chamfer
from contrast3d.ops.kernels.chamfer import BLOCK, STEP
from contrast3d.ops.portable import portable

MODULE = importlib.import_module("contrast3d.ops.chamfer")


def naive(first, second, root=False):
    """Both means of the table of all distances."""
    table = (first[:, :, None] - second[:, None]).square().sum(-1)
    table = table.sqrt() if root else table
    return table.amin(2).mean(), table.amin(1).mean()


def sets(b, n, m, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(b, k, 3, generator=draw, dtype=dtype).requires_grad_() for k in (n, m)]


def gradients(function, first, second, root, weights=(0.7, -1.3)):
    there, back = function(first, second, root)
    return torch.autograd.grad(weights[0] * there + weights[1] * back, (first, second))


@settings(max_examples=40, deadline=None)
@given(b=st.integers(1, 4), n=st.integers(1, 80), m=st.integers(1, 80), seed=st.integers(0, 99), root=st.booleans())
def test_equals_the_table_of_all_distances(b, n, m, seed, root):
    first, second = sets(b, n, m, seed)
    for ours, expected in zip(chamfer(first, second, root), naive(first, second, root)):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    for ours, expected in zip(gradients(chamfer, first, second, root), gradients(naive, first, second, root)):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, STEP - 1, STEP, STEP + 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("root", [False, True])
def test_kernel_equals_torch_path(n, dtype, root, monkeypatch):
    monkeypatch.setattr(MODULE, "BLOCK", 100)  # several blocks of rows
    first, second = sets(3, n, 2 * n + 1, n, dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    with portable():
        expected, slopes = chamfer(first, second, root), gradients(chamfer, first, second, root)
    for x, y in zip((*chamfer(first, second, root), *gradients(chamfer, first, second, root)), (*expected, *slopes)):
        assert x.dtype == dtype
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("kernel", [True, False])
def test_gradcheck(root, kernel):
    def both(first, second):
        if kernel:
            return chamfer(first, second, root)
        with portable():
            return chamfer(first, second, root)

    assert torch.autograd.gradcheck(both, tuple(sets(2, 5, 7)))
    first, second = sets(2, 5, 7)
    assert torch.autograd.gradcheck(lambda x: both(x, second.detach()), (first,))
    assert torch.autograd.gradcheck(lambda x: both(first.detach(), x), (second,))


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("kernel", [True, False])
def test_equal_sets_pull_at_nothing(root, kernel):
    first = torch.randn(3, 9, 3, requires_grad=True)
    second = first.detach().clone()[:, torch.randperm(9)].requires_grad_()
    if kernel:
        there, back = chamfer(first, second, root)
        found = torch.autograd.grad(there + back, (first, second))
    else:
        with portable():
            there, back = chamfer(first, second, root)
            found = torch.autograd.grad(there + back, (first, second))
    assert there == back == 0
    assert not any(g.any() for g in found)  # and no NaN, which 0 / 0 would be


@pytest.mark.parametrize("kernel", [True, False])
def test_of_equally_near_points_the_first_counts(kernel):
    first = torch.zeros(1, 1, 3)
    second = torch.tensor([[[0, 2.0, 0], [1, 0, 0], [0, 0, 1], [-1, 0, 0], [0, 1, 0]]])
    if kernel:
        squared, index = MODULE._nearest(first, second)
        assert squared.item() == 1
    else:
        index = MODULE._nearest_torch(first, second)
    assert index.item() == 1
    alike = torch.ones(1, 3 * BLOCK, 3, requires_grad=True)
    there, _ = chamfer(torch.zeros(1, 2, 3), alike)
    (pull,) = torch.autograd.grad(there, alike)
    assert pull[0, 0].tolist() == [2, 2, 2]
    assert not pull[0, 1:].any()


@pytest.mark.parametrize("shape", [(1, 1000, 700), (70, 32, 32)])
@pytest.mark.parametrize("root", [False, True])
def test_threads_do_not_matter(shape, root):
    first, second = sets(*shape, dtype=torch.float32)
    found = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        try:
            found.append((*chamfer(first, second, root), *gradients(chamfer, first, second, root)))
        finally:
            torch.set_num_threads(2)
    assert all(torch.equal(x, y) for other in found[1:] for x, y in zip(found[0], other))


def test_entered_from_several_threads_at_once():
    problems, found = [sets(20, 32, 40, seed) for seed in range(8)], {}

    def work(i):
        found[i] = gradients(chamfer, *problems[i], False)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, problem in enumerate(problems):
        for x, y in zip(found[i], gradients(naive, *problem, False)):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


def test_large_sets_hold_no_table():
    """What is kept for the gradient is as large as the sets, not as their product."""
    first, second = sets(1, 4000, 3000, dtype=torch.float32)
    kept = []
    for plain in (False, True):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            if plain:
                with portable():
                    there, back = chamfer(first, second)
            else:
                there, back = chamfer(first, second)
        (there + back).backward()
        assert kept
        assert max(kept) <= 3 * 4000
    expected = naive(first.double(), second.double())
    torch.testing.assert_close(there.double(), expected[0], rtol=1e-6, atol=0)


def test_far_from_the_origin_distances_keep_their_digits():
    first, second = sets(4, 32, 32, dtype=torch.float32)
    moved = [s.detach() * 1e-2 + 10 for s in (first, second)]
    for ours, expected in zip(chamfer(*moved), naive(*(s.double() for s in moved))):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=0)


def test_any_layout():
    first, second = sets(3, 6, 8)
    strided = [s.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for s in (first, second)]
    assert not strided[0].is_contiguous()
    for x, y in zip(gradients(chamfer, *strided, False), gradients(chamfer, first, second, False)):
        assert torch.equal(x, y)
    one = sets(1, 5, 5)[0][:, :1].expand(4, 5, 3)
    assert all(v == 0 for v in chamfer(one, one))


def test_halves_and_autocast_are_in_float32():
    first, second = sets(2, 8, 8, dtype=torch.float32)
    expected = chamfer(first, second)
    with torch.autocast("cpu", torch.bfloat16):
        told = chamfer(first, second)
    assert all(torch.equal(x, y) for x, y in zip(told, expected))
    half = first.detach().bfloat16().requires_grad_()
    there, back = chamfer(half, second)
    assert there.dtype == torch.float32
    (there + back).backward()
    assert half.grad.dtype == torch.bfloat16
    assert half.grad.any()


def test_no_sets_give_zeros_with_a_gradient():
    first, second = sets(0, 4, 5)
    there, back = chamfer(first, second)
    (there + back).backward()
    assert there == back == 0
    assert first.grad.shape == (0, 4, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_shows(bad, side):
    problem = [s.detach().clone() for s in sets(3, 40, 40)]
    problem[side][1, 33, 2] = bad
    there, back = chamfer(*problem)
    assert not torch.isfinite(there + back)


@pytest.mark.parametrize("shapes", [
    ((2, 0, 3), (2, 4, 3)), ((2, 4, 3), (2, 0, 3)), ((2, 4, 3), (3, 4, 3)), ((1, 4, 3), (2, 4, 3)),
])
def test_sets_that_do_not_go_together(shapes):
    with pytest.raises(DataError, match=r"chamfer: sets .* expected \(B, N, 3\) and \(B, M, 3\), no empty sets"):
        inspect.unwrap(chamfer)(*(torch.zeros(s) for s in shapes))  # as without the tests' type checks
