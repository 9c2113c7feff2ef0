import math

import pytest
import torch

from contrast3d.errors import DataError
from contrast3d.metrics.representation import alignment, feature_std, rankme, uniformity


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def test_rankme_counts_equal_directions():
    assert rankme(torch.eye(7)) == pytest.approx(7, rel=1e-4)
    assert rankme(torch.ones(50, 8)) == pytest.approx(1, abs=1e-3)
    two = torch.cat([torch.eye(2)] * 5) @ torch.linalg.qr(torch.randn(6, 6))[0][:2]
    assert rankme(two) == pytest.approx(2, rel=1e-3)


def test_rankme_is_the_entropy_of_singular_values():
    x = torch.randn(40, 9, dtype=torch.float64)
    p = torch.linalg.eigvalsh(x.T @ x).clamp_min(0).sqrt()
    p = p / p.sum()
    naive = math.exp(-sum(v * math.log(v) for v in p.tolist() if v > 0))
    assert rankme(x) == pytest.approx(naive, rel=1e-4)


@pytest.mark.parametrize("block", [1, 7, 16, 1024])
def test_uniformity_parity_with_all_pairs(block):
    x = torch.randn(33, 5, dtype=torch.float64) * 10
    naive = torch.pdist(unit(x)).square().mul(-2).exp().mean().log().item()
    assert uniformity(x, block=block) == pytest.approx(naive, rel=1e-9)


def test_uniformity_survives_a_large_t_and_collapse():
    far = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert uniformity(far, t=100.0) == pytest.approx(-400.0)  # exp(-400) alone would underflow
    assert uniformity(torch.ones(10, 4)) == pytest.approx(0.0, abs=1e-5)


def test_alignment_parity_and_range():
    a, b = torch.randn(20, 6, dtype=torch.float64), torch.randn(20, 6, dtype=torch.float64)
    naive = sum((unit(a)[i] - unit(b)[i]).norm().item() ** 2 for i in range(20)) / 20
    assert alignment(a, b) == pytest.approx(naive)
    assert alignment(a, 3 * a) == pytest.approx(0.0, abs=1e-12)
    assert alignment(a, -a) == pytest.approx(4.0)


def test_feature_std_is_one_when_healthy_and_zero_when_collapsed():
    torch.manual_seed(0)
    assert feature_std(torch.randn(4000, 64)) == pytest.approx(1.0, abs=0.02)
    assert feature_std(torch.randn(1, 64).expand(100, 64)) == pytest.approx(0.0, abs=1e-6)


def test_too_few_rows():
    with pytest.raises(DataError, match="at least 2"):
        uniformity(torch.randn(1, 3))
    with pytest.raises(DataError, match="at least 1"):
        rankme(torch.empty(0, 3))
