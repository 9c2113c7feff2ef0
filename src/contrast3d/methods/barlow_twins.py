"""Barlow Twins: the features of two views correlate, each with its twin and with no other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from contrast3d.losses.barlow_twins import barlow_twins
from contrast3d.methods.contract import check_encoder, pair_numbers
from contrast3d.nn.heads import projector
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.types import Clouds


class BarlowTwins(Rebuildable):
    """Zbontar et al. (ICML 2021).

    projection_dim, hidden_dim, head_norm: of the three-layer projection head; wide ones do better. off_diagonal:
    lambda, the weight of the redundancy term.
    """

    views = 2
    needs = frozenset({"pooled"})

    def __init__(self, encoder: nn.Module, projection_dim: int = 1024, hidden_dim: int = 1024,
                 off_diagonal: float = 0.0051, head_norm: bool = True):
        super().__init__()
        check_encoder(type(self), encoder)
        self.encoder = encoder
        self.projector = projector(encoder.embed_dim, hidden_dim, projection_dim, depth=3, norm=head_norm)
        self.off_diagonal = off_diagonal

    def forward(self, batch: Sequence[Clouds]) -> dict[str, Tensor]:
        return self.objective(self.embed(batch))

    def embed(self, batch: Sequence[Clouds]) -> list[Tensor]:
        """Two views of B clouds -> two projections (B, projection_dim)."""
        return [self.projector(self.encoder(view).pooled) for view in batch]

    def objective(self, embeddings: list[Tensor]) -> dict[str, Tensor]:
        """The loss of two views' projections."""
        first, second = embeddings
        return {"loss": barlow_twins(first, second, self.off_diagonal), **pair_numbers(first, second)}
