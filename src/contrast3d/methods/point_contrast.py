"""PointContrast: the same place in two partial views of a scene gets the same feature, other places others."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.losses.hardest_contrastive import hardest_contrastive
from contrast3d.losses.point_info_nce import point_info_nce
from contrast3d.methods.contract import check_encoder, pair_numbers
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.types import ViewPairs

WATCHED = 512  # matches that the numbers to log are of


class PointContrast(Rebuildable):
    """Xie et al. (ECCV 2020) with any encoder that gives `dense` features.

    loss: info-nce, or hardest for the hardest-contrastive loss.
    temperature: of PointInfoNCE, 0.4 in both released scripts.
    num_pairs: matches that count, per process and step; of more, so many are drawn (of info-nce one for each point).
    num_candidates: points of each view among which the hardest loss looks for strangers.
    positive_margin, negative_margin, squared_positive: of the hardest loss.

    The views pass the encoder one after the other, with batch statistics of their own. Negatives are those of this
    process, as released: the loss of several processes is the mean of theirs.
    """

    views = 2
    needs = frozenset({"dense"})

    def __init__(self, encoder: nn.Module, loss: Literal["info-nce", "hardest"] = "info-nce", temperature: float = 0.4,
                 num_pairs: int = 4096, num_candidates: int = 1024, positive_margin: float = 0.1,
                 negative_margin: float = 1.4, squared_positive: bool = True):
        super().__init__()
        check_encoder(type(self), encoder)
        if loss not in ("info-nce", "hardest") or not temperature > 0 or num_pairs < 1 or num_candidates < 1:
            raise ConfigError(f"PointContrast: loss = {loss!r}, temperature = {temperature}, num_pairs = {num_pairs}, "
                              f"num_candidates = {num_candidates}; expected info-nce or hardest, and positive numbers")
        self.encoder, self.loss, self.temperature = encoder, loss, temperature
        self.num_pairs, self.num_candidates = num_pairs, num_candidates
        self.margins = (positive_margin, negative_margin)
        self.squared_positive = squared_positive

    def forward(self, batch: ViewPairs) -> dict[str, Tensor]:
        return self.objective(*self.features(batch), batch.matches)

    # Not `embed`: gradient caching cuts embeddings by clouds, and these are of points.
    def features(self, batch: ViewPairs) -> list[Float[Tensor, "_ c"]]:
        """Unit features (N, C) and (M, C) of all points of the two views."""
        return [F.normalize(self.encoder(view).points, dim=1) for view in (batch.first, batch.second)]

    def objective(
        self, first: Float[Tensor, "n c"], second: Float[Tensor, "m c"], matches: Int[Tensor, "p 2"]
    ) -> dict[str, Tensor]:
        """The loss of some of the matches, drawn from torch's generator; zero where there are none."""
        if self.loss == "info-nce":
            drawn = one_match_each(matches, self.num_pairs)
            loss = point_info_nce(first[drawn[:, 0]], second[drawn[:, 1]], self.temperature)
        else:
            drawn = matches[torch.randperm(len(matches), device=matches.device)[: self.num_pairs]]
            candidates = tuple(
                torch.randperm(len(f), device=f.device)[: self.num_candidates] for f in (first, second))
            loss = hardest_contrastive(first, second, drawn, candidates, matches, *self.margins, self.squared_positive)
        loss = loss + 0 * (first.sum() + second.sum())  # touches all parameters, also where there are no matches
        return {"loss": loss, **self._numbers(first, second, drawn[:WATCHED])}

    @torch.no_grad()
    def _numbers(self, first: Tensor, second: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        """Signs of a collapse: features without spread, matches no nearer than strangers."""
        first, second = first.float(), second.float()
        a, b = first[drawn[:, 0]], second[drawn[:, 1]]
        if not len(a):
            return {}
        return {
            "feature_std": first.std(0, correction=0).mean() * first.shape[1] ** 0.5,  # times sqrt(D): 1 is healthy
            "positive_distance": (a - b).norm(dim=1).mean(),
            "negative_distance": (a - b.roll(1, 0)).norm(dim=1).mean(), **pair_numbers(a, b),
        }


@torch.no_grad()
def one_match_each(matches: Int[Tensor, "p 2"], most: int) -> Int[Tensor, "q 2"]:
    """For every point of the first view that has matches, one of them, all equally likely; `most` of these points."""
    shuffled = matches[torch.randperm(len(matches), device=matches.device)]
    points, which = shuffled[:, 0].unique(return_inverse=True)
    chosen = torch.full_like(points, len(shuffled))
    chosen.scatter_reduce_(0, which, torch.arange(len(shuffled), device=matches.device), "amin")
    return shuffled[chosen[torch.randperm(len(points), device=matches.device)[:most]]]
