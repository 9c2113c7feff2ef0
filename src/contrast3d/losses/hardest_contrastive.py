"""The hardest-contrastive loss: matches come together, the nearest stranger of each is pushed away."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contrast3d.errors import DataError

BLOCK_ROWS = 1024
_EPS = 1e-7  # under the root, as released: its gradient at zero is finite


def hardest_contrastive(
    first: Float[Tensor, "n d"], second: Float[Tensor, "m d"], positives: Int[Tensor, "p 2"],
    candidates: tuple[Int[Tensor, "c"], Int[Tensor, "e"]], matches: Int[Tensor, "q 2"] | None = None,
    positive_margin: float = 0.1, negative_margin: float = 1.4, squared_positive: bool = True,
) -> Float[Tensor, ""]:
    """Choy et al. (ICCV 2019), as PointContrast uses it (Xie et al. 2020, eq. 1), with d = |f - g|:

        mean over positives of [d^2 - m_p]_+ + (mean over i of [m_n - d_i]_+^2 + mean over j of [m_n - d_j]_+^2) / 2,

    d_i the distance of i to the nearest of the candidates in the other view, left out where the two are a listed match.

    positives: (P, 2) rows of `first` and `second`. candidates: rows of `first`, and of `second`, to look for strangers
    among. matches: all listed matches, by default the positives. squared_positive: True as released; False as printed,
    [d - m_p]_+^2. A mean over nothing is zero. Distances are made in blocks of rows, without gradient; only those to
    the hardest are kept.
    """
    if not 0 <= positive_margin < negative_margin:
        raise DataError("margins", f"{positive_margin} and {negative_margin}", "0 <= positive_margin < negative_margin")
    wide = torch.promote_types(first.dtype, torch.float32)
    with torch.autocast(first.device.type, enabled=False):
        f, g = first.to(wide), second.to(wide)
        a, b = f[positives[:, 0]], g[positives[:, 1]]
        squared = (a - b).square().sum(1)
        if squared_positive:
            attraction = (squared - positive_margin).relu()
        else:
            attraction = ((squared + _EPS).sqrt() - positive_margin).relu().square()
        listed = _keys(positives if matches is None else matches, len(g)).unique()
        of_first, of_second = positives.unbind(1)
        hard = _nearest(a, g, candidates[1])
        loss_first = _repulsion(a, g[hard], negative_margin, _strangers(of_first, hard, len(g), listed))
        hard = _nearest(b, f, candidates[0])
        loss_second = _repulsion(b, f[hard], negative_margin, _strangers(hard, of_second, len(g), listed))
        return _mean(attraction) + (loss_first + loss_second) / 2


@torch.no_grad()
def _nearest(anchors: Tensor, features: Tensor, candidates: Tensor) -> Tensor:
    """(P,) the row of `features`, one of the candidates, nearest to each anchor."""
    if not len(candidates):
        return candidates.new_zeros(0)
    others = features[candidates]
    return torch.cat([candidates[torch.cdist(some, others).argmin(1)] for some in anchors.split(BLOCK_ROWS)])


def _strangers(i: Tensor, j: Tensor, width: int, listed: Tensor) -> Bool[Tensor, "p"]:
    if not len(i) or not len(j):
        return torch.zeros(0, dtype=torch.bool, device=i.device)
    return ~torch.isin(i * width + j, listed)


def _repulsion(anchors: Tensor, hardest: Tensor, margin: float, strangers: Tensor) -> Tensor:
    if not len(strangers):
        return anchors.sum() * 0
    distance = ((anchors - hardest)[strangers].square().sum(1) + _EPS).sqrt()
    return _mean((margin - distance).relu().square())


def _keys(matches: Tensor, width: int) -> Tensor:
    return matches[:, 0] * width + matches[:, 1]


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(len(values), 1)
