"""The losses of MoCo, memory bank, BYOL, Barlow Twins and VICReg, against their papers' formulas written as loops."""

from __future__ import annotations

import math

import pytest
import torch

from contrast3d.errors import DataError
from contrast3d.losses import barlow_twins, byol, info_nce, instance_softmax, vicreg

B, D = 5, 4


def embeddings(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def unit(vector):
    return vector / math.sqrt(sum(float(x) ** 2 for x in vector))


def dot(a, b):
    return float(sum(x * y for x, y in zip(a.tolist(), b.tolist())))


def naive_info_nce(queries, keys, negatives, temperature):
    total = 0.0
    for q, k in zip(map(unit, queries), map(unit, keys)):
        positive = math.exp(dot(q, k) / temperature)
        total -= math.log(positive / (positive + sum(math.exp(dot(q, unit(n)) / temperature) for n in negatives)))
    return total / len(queries)


def naive_instance_softmax(projections, rows, bank, temperature):
    total = 0.0
    for v, row in zip(map(unit, projections), rows.tolist()):
        scores = [math.exp(dot(v, w) / temperature) for w in bank]
        total -= math.log(scores[row] / sum(scores))
    return total / len(projections)


def naive_byol(predictions, targets):
    pairs = zip(map(unit, predictions), map(unit, targets))
    return sum(float((p - z).square().sum()) for p, z in pairs) / len(predictions)


def naive_barlow_twins(first, second, off_diagonal):
    a, b = ((z - z.mean(0)).tolist() for z in (first, second))
    total = 0.0
    for i in range(D):
        for j in range(D):
            above = sum(a[n][i] * b[n][j] for n in range(B))
            spread = [sum(z[n][k] ** 2 for n in range(B)) / B + 1e-5 for z, k in ((a, i), (b, j))]
            c = above / B / math.sqrt(spread[0] * spread[1])
            total += (1 - c) ** 2 if i == j else off_diagonal * c**2
    return total


def naive_vicreg(first, second, invariance, variance, covariance):
    s = sum((x - y) ** 2 for a, b in zip(first.tolist(), second.tolist()) for x, y in zip(a, b)) / (B * D)
    v = c = 0.0
    for z in (first, second):
        z = (z - z.mean(0)).tolist()
        cov = [[sum(z[n][i] * z[n][j] for n in range(B)) / (B - 1) for j in range(D)] for i in range(D)]
        v += sum(max(0.0, 1 - math.sqrt(cov[i][i] + 1e-4)) for i in range(D)) / D / 2
        c += sum(cov[i][j] ** 2 for i in range(D) for j in range(D) if i != j) / D
    return invariance * s + variance * v + covariance * c


ROWS = torch.tensor([2, 0, 6, 5, 1])
BANK = torch.nn.functional.normalize(embeddings(7, D, seed=2).detach(), dim=1)
CASES = {
    "info_nce": (lambda a, b: info_nce(a, b, BANK * 3, 0.3), lambda a, b: naive_info_nce(a, b, BANK * 3, 0.3)),
    "instance": (lambda a, b: instance_softmax(a, ROWS, BANK, 0.3) + 0 * b.sum(),
                 lambda a, b: naive_instance_softmax(a, ROWS, BANK, 0.3)),
    "byol": (byol, naive_byol),
    "barlow_twins": (lambda a, b: barlow_twins(a, b, 0.02), lambda a, b: naive_barlow_twins(a, b, 0.02)),
    "vicreg": (lambda a, b: vicreg(a, b, 20.0, 10.0, 3.0), lambda a, b: naive_vicreg(a, b, 20.0, 10.0, 3.0)),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_formula(case):
    ours, naive = CASES[case]
    a, b = embeddings(B, D), embeddings(B, D, seed=1)
    assert ours(a, b).item() == pytest.approx(naive(a.detach(), b.detach()), abs=1e-10)
    small = 0.3 * a, 0.3 * b  # where VICReg's hinge is open
    assert ours(*small).item() == pytest.approx(naive(*(z.detach() for z in small)), abs=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_gradcheck(case):
    inputs = (0.5 * embeddings(B, D)).detach().requires_grad_(), embeddings(B, D, seed=1)
    assert torch.autograd.gradcheck(CASES[case][0], inputs)


@pytest.mark.parametrize("case", CASES)
def test_half_precision_and_equal_rows_stay_finite(case):
    a = torch.ones(B, D, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = CASES[case][0](a, a.detach())
    loss.backward()
    assert loss.dtype in (torch.float32, torch.float64)
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize(("call", "told"), [
    (lambda: barlow_twins(torch.randn(1, 4), torch.randn(1, 4)), "a batch of one"),
    (lambda: vicreg(torch.randn(1, 4), torch.randn(1, 4)), "a batch of one"),
    (lambda: vicreg(torch.randn(0, 4), torch.randn(0, 4)), "an empty batch"),
    (lambda: info_nce(torch.randn(2, 4), torch.randn(2, 4), torch.randn(3, 4), 0.0), "temperature"),
])
def test_bad_arguments(call, told):
    with pytest.raises(DataError, match=told):
        call()


def test_a_dead_feature_of_barlow_twins_has_no_huge_gradient():
    a, b = embeddings(B, D), embeddings(B, D, seed=1)
    dead = torch.tensor([1.0, 1.0, 1.0, 1e-7])
    first = (a.detach() * dead).requires_grad_()
    barlow_twins(first, b * dead).backward()
    assert first.grad.abs().max() < 10
