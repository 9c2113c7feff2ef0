"""The two losses of PointContrast against their formulas, written out naively."""

import importlib

import pytest
import torch
import torch.nn.functional as F

from contrast3d.errors import DataError
from contrast3d.losses.hardest_contrastive import hardest_contrastive
from contrast3d.losses.point_info_nce import point_info_nce

LOG_SUMS = importlib.import_module("contrast3d.losses.info_nce")
HARDEST = importlib.import_module("contrast3d.losses.hardest_contrastive")
NONE = torch.zeros(0, dtype=torch.int64)
NO_PAIRS = torch.zeros(0, 2, dtype=torch.int64)


def units(n, d=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator, dtype=dtype), dim=1).requires_grad_()


# PointInfoNCE.


@pytest.mark.parametrize("n", [1, 2, 7, 64])
@pytest.mark.parametrize("block", [1, 3, 1024])
def test_point_info_nce_is_the_cross_entropy_of_the_diagonal(n, block, monkeypatch):
    monkeypatch.setattr(LOG_SUMS, "BLOCK_ROWS", block)
    q, k = units(n), units(n, seed=1)
    ours = point_info_nce(q, k, 0.4)
    expected = F.cross_entropy(q @ k.T / 0.4, torch.arange(n))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    for x, y in zip(torch.autograd.grad(ours, (q, k)), torch.autograd.grad(expected, (q, k))):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


def test_point_info_nce_at_its_own_block_size():
    n = 2 * LOG_SUMS.BLOCK_ROWS + 5
    q, k = units(n, 16), units(n, 16, seed=1)
    expected = F.cross_entropy(q @ k.T / 0.07, torch.arange(n))
    torch.testing.assert_close(point_info_nce(q, k, 0.07), expected, rtol=0, atol=1e-11)


def test_point_info_nce_looks_one_way_only():
    q, k = units(9), units(9, seed=1)
    assert not torch.isclose(point_info_nce(q, k), point_info_nce(k, q))


def test_point_info_nce_gradcheck():
    assert torch.autograd.gradcheck(lambda q, k: point_info_nce(q, k, 0.2), (units(5, 3), units(5, 3, seed=1)))


def test_point_info_nce_without_pairs():
    q, k = (torch.zeros(0, 4, requires_grad=True) for _ in range(2))
    loss = point_info_nce(q, k)
    loss.backward()
    assert loss.item() == 0
    assert q.grad.shape == k.grad.shape == (0, 4)


def test_point_info_nce_holds_no_square(monkeypatch):
    """Blocks of rows against all keys, one at a time, and nothing between forward and backward but rows."""
    n, rows, seen, kept = 200, 16, [], []
    similarity = LOG_SUMS._similarity

    def watched(queries, keys, itself, temperature, rows):
        found = similarity(queries, keys, itself, temperature, rows)
        seen.append(found.numel())
        return found

    monkeypatch.setattr(LOG_SUMS, "BLOCK_ROWS", rows)
    monkeypatch.setattr(LOG_SUMS, "_similarity", watched)
    q, k = units(n), units(n, seed=1)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        point_info_nce(q, k).backward()
    assert len(seen) == 2 * -(-n // rows)
    assert max(seen) <= rows * n
    assert max(kept) <= n * 6


def test_point_info_nce_widens_halves():
    q, k = units(8, dtype=torch.float32), units(8, seed=1, dtype=torch.float32)
    assert point_info_nce(q.bfloat16(), k.bfloat16()).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        loss = point_info_nce(q, k)
    loss.backward()
    torch.testing.assert_close(loss, F.cross_entropy(q @ k.T / 0.4, torch.arange(8)))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_point_info_nce_refuses_a_temperature(temperature):
    with pytest.raises(DataError, match="temperature"):
        point_info_nce(units(2), units(2), temperature)


# Hardest-contrastive.


def naive(first, second, positives, candidates, matches=None, m_p=0.1, m_n=1.4, squared=True):
    matches = {tuple(pair) for pair in (positives if matches is None else matches).tolist()}
    distance = lambda i, j: ((first[i] - second[j]).square().sum() + 1e-7).sqrt()  # noqa: E731
    attraction, of_first, of_second = [], [], []
    for i, j in positives.tolist():
        square = (first[i] - second[j]).square().sum()
        attraction.append((square - m_p).relu() if squared else (distance(i, j) - m_p).relu() ** 2)
        if len(candidates[1]):
            hard = min(candidates[1].tolist(), key=lambda c, i=i: distance(i, c).item())
            if (i, hard) not in matches:
                of_first.append((m_n - distance(i, hard)).relu() ** 2)
        if len(candidates[0]):
            hard = min(candidates[0].tolist(), key=lambda c, j=j: distance(c, j).item())
            if (hard, j) not in matches:
                of_second.append((m_n - distance(hard, j)).relu() ** 2)
    mean = lambda values: sum(values) / max(len(values), 1)  # noqa: E731
    return mean(attraction) + (mean(of_first) + mean(of_second)) / 2


def problem(n=30, m=25, pairs=20, few=12, seed=0):
    """Features, and pairs of which some share a point: a match may be the nearest candidate."""
    generator = torch.Generator().manual_seed(seed)
    first, second = units(n, seed=seed), units(m, seed=seed + 1)
    matches = torch.stack([torch.randint(n, (pairs,), generator=generator),
                           torch.randint(m, (pairs,), generator=generator)], 1).unique(dim=0)
    candidates = tuple(torch.randperm(len(f), generator=generator)[:few] for f in (first, second))
    return first, second, matches, candidates


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("block", [1, 7, 1024])
@pytest.mark.parametrize("seed", [0, 1])
def test_hardest_is_the_double_loop(squared, block, seed, monkeypatch):
    monkeypatch.setattr(HARDEST, "BLOCK_ROWS", block)
    first, second, matches, candidates = problem(seed=seed)
    positives = matches[::2]
    ours = hardest_contrastive(first, second, positives, candidates, matches, 0.1, 1.4, squared)
    expected = naive(first, second, positives, candidates, matches, 0.1, 1.4, squared)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    for x, y in zip(torch.autograd.grad(ours, (first, second)), torch.autograd.grad(expected, (first, second))):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


def test_the_two_forms_of_attraction_differ_in_the_square():
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    only = torch.tensor([[0, 0]])
    released = hardest_contrastive(first, second, only, (NONE, NONE))
    printed = hardest_contrastive(first, second, only, (NONE, NONE), squared_positive=False)
    assert released.item() == pytest.approx(2 - 0.1)
    assert printed.item() == pytest.approx((2**0.5 - 0.1) ** 2)


def test_a_listed_match_is_no_stranger():
    """Points 0 and 1 of the first view both match point 0 of the second, which is the only candidate there."""
    first, second = torch.eye(3)[:2], torch.eye(3)[2:]
    positives, candidates = torch.tensor([[0, 0]]), (torch.tensor([1]), torch.tensor([0]))
    both = torch.tensor([[0, 0], [1, 0]])
    attraction = 2 - 0.1
    assert hardest_contrastive(first, second, positives, candidates, both).item() == pytest.approx(attraction)
    pushed = 0.5 * (1.5 - 2**0.5) ** 2  # of (1, 0), which is not listed here; (0, 0) is
    told = hardest_contrastive(first, second, positives, candidates, positives, negative_margin=1.5)
    assert told.item() == pytest.approx(attraction + pushed, abs=1e-6)
    alike = hardest_contrastive(first, second, positives, candidates, negative_margin=1.5)
    assert torch.equal(alike, told)  # the positives are the matches where no others are named


@pytest.mark.parametrize(("positives", "candidates"), [
    (NO_PAIRS, (torch.arange(4), torch.arange(4))),  # nothing to attract
    (NO_PAIRS, (NONE, NONE)),
    (torch.tensor([[1, 2]]), (NONE, NONE)),  # nothing to repel
    (torch.tensor([[1, 2]]), (NONE, torch.arange(4))),
    (torch.tensor([[1, 2]]), (torch.tensor([1]), torch.tensor([2]))),  # every candidate is the match itself
])
def test_nothing_to_compare_is_no_nan(positives, candidates):
    first, second = units(4), units(4, seed=1)
    loss = hardest_contrastive(first, second, positives, candidates)
    loss.backward()
    torch.testing.assert_close(loss, torch.as_tensor(naive(first, second, positives, candidates), dtype=loss.dtype))
    assert torch.isfinite(first.grad).all()
    assert torch.isfinite(second.grad).all()
    assert loss.item() > 0 or not len(positives)


def test_equal_features_have_a_gradient():
    """The distance of a point to itself is a kink; the epsilon under the root rounds it off."""
    first = torch.ones(4, 3, requires_grad=True)
    loss = hardest_contrastive(first, torch.ones(4, 3), torch.tensor([[0, 0]]), (torch.arange(1, 4),) * 2,
                               squared_positive=False)
    loss.backward()
    assert torch.isfinite(first.grad).all()


@pytest.mark.parametrize("squared", [True, False])
def test_hardest_gradcheck(squared):
    """Far from where a margin is met or another candidate becomes the nearest."""
    first, second, matches, candidates = problem(8, 7, 6, 5)
    assert torch.autograd.gradcheck(
        lambda a, b: hardest_contrastive(a, b, matches, candidates, squared_positive=squared), (first, second))


def test_hardest_widens_halves():
    first, second, matches, candidates = problem()
    exact = hardest_contrastive(first, second, matches, candidates).float()
    with torch.autocast("cpu", torch.bfloat16):
        told = hardest_contrastive(first.float(), second.float(), matches, candidates)
    torch.testing.assert_close(told, exact)
    assert hardest_contrastive(first.bfloat16(), second.bfloat16(), matches, candidates).dtype == torch.float32


@pytest.mark.parametrize("margins", [(-0.1, 1.4), (0.5, 0.5), (2.0, 1.4), (float("nan"), 1.4)])
def test_margins_that_cannot_be(margins):
    first, second, matches, candidates = problem()
    with pytest.raises(DataError, match="margins"):
        hardest_contrastive(first, second, matches, candidates, None, *margins)
