"""Health of a representation, read without labels: rank, alignment, uniformity, spread."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contrast3d.errors import DataError


def rankme(features: Float[Tensor, "s d"], eps: float = 1e-7) -> float:
    """Effective rank, from 1 (collapsed onto a line) to min(S, D) (Garrido et al., ICML 2023, eq. 1).

    The exponential of the entropy of the singular values, normalised to sum one. Features are not centred.
    """
    _require(features, 1)
    values = torch.linalg.svdvals(features.double())
    p = values / values.sum().clamp_min(eps) + eps
    return torch.exp(-(p * p.log()).sum()).item()


def alignment(a: Float[Tensor, "s d"], b: Float[Tensor, "s d"]) -> float:
    """Mean squared distance of positive pairs on the unit sphere, 0 to 4 (Wang & Isola, 2020, alpha = 2)."""
    _require(a, 1)
    return (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean().item()


def uniformity(x: Float[Tensor, "s d"], t: float = 2.0, block: int = 1024) -> float:
    """log of the mean of exp(-t |x_i - x_j|^2) over the pairs i < j on the unit sphere (Wang & Isola, 2020).

    0 for collapsed features, about -2t for features spread evenly over many dimensions. Computed in
    blocks of rows, so memory is linear in S.
    """
    _require(x, 2)
    x = F.normalize(x, dim=1)
    sums = []
    for start in range(0, len(x), block):
        rows = x[start : start + block]
        # the columns start with the block's own first row, so the pairs i < j lie above the diagonal
        squared = (2 - 2 * rows @ x[start:].T).clamp_min(0)
        above = torch.ones_like(squared, dtype=torch.bool).triu(1)
        sums.append((-t * squared).masked_fill(~above, -torch.inf).flatten().logsumexp(0))
    pairs = len(x) * (len(x) - 1) / 2
    return (torch.stack(sums).double().logsumexp(0) - torch.tensor(pairs).double().log()).item()


def feature_std(x: Float[Tensor, "s d"]) -> float:
    """Spread of unit features per dimension, times sqrt(D): 1 healthy, 0 collapsed (SimSiam, fig. 2)."""
    _require(x, 1)
    return (F.normalize(x, dim=1).std(0, correction=0).mean() * x.shape[1] ** 0.5).item()


def _require(features: Tensor, rows: int) -> None:
    if len(features) < rows:
        raise DataError("features", f"{len(features)} rows", f"at least {rows}")
