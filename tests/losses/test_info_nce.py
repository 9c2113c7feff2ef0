"""NT-Xent against the formula of SimCLR, written out over the whole similarity matrix."""

import importlib

import pytest
import torch

from contrast3d.errors import DataError
from contrast3d.losses.info_nce import nt_xent

MODULE = importlib.import_module("contrast3d.losses.info_nce")  # the package's name of it is a function


def naive(first, second, temperature):
    z = torch.nn.functional.normalize(torch.cat([first, second]), dim=-1)
    n = len(first)
    similarity = z @ z.T / temperature
    loss = 0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [j for j in range(2 * n) if j != i]
        loss = loss - similarity[i, partner] + similarity[i, others].logsumexp(0)
    return loss / (2 * n)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("block", [1, 3, 1024])
def test_equals_the_formula(n, block, monkeypatch):
    monkeypatch.setattr(MODULE, "BLOCK_ROWS", block)
    a = torch.randn(n, 5, dtype=torch.float64, requires_grad=True)
    b = torch.randn(n, 5, dtype=torch.float64, requires_grad=True)
    ours, expected = nt_xent(a, b, 0.3), naive(a, b, 0.3)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    for x, y in zip(torch.autograd.grad(ours, (a, b)), torch.autograd.grad(expected, (a, b))):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


def test_gradcheck():
    a, b = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: nt_xent(x, y, 0.2), (a, b))


def test_extremes():
    """Equal rows, tiny temperatures and half precision stay finite; swapping the views changes nothing."""
    same = torch.ones(8, 4)
    assert nt_xent(same, same, 0.1).item() == pytest.approx(torch.tensor(15.0).log().item(), abs=1e-5)
    a, b = torch.randn(16, 8), torch.randn(16, 8)
    assert torch.isfinite(nt_xent(a, b, 1e-3))
    assert nt_xent(a.bfloat16(), b.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(nt_xent(a, b), nt_xent(b, a))


def test_backward_under_autocast():
    a, b = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        nt_xent(a, b).backward()
    assert torch.isfinite(a.grad).all()


def test_bad_arguments():
    with pytest.raises(DataError, match="empty batch"):
        nt_xent(torch.zeros(0, 4), torch.zeros(0, 4))
    with pytest.raises(DataError, match="temperature"):
        nt_xent(torch.randn(2, 4), torch.randn(2, 4), 0.0)
