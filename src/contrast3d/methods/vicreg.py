"""VICReg: variance, invariance, covariance; each branch is kept from collapsing by itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from contrast3d.losses.vicreg import vicreg
from contrast3d.methods.contract import check_encoder, pair_numbers
from contrast3d.nn.heads import projector
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.types import Clouds


class VICReg(Rebuildable):
    """Bardes et al. (ICLR 2022).

    projection_dim, hidden_dim, head_norm: of the three-layer expander. invariance, variance, covariance: weights of
    the three terms (lambda, mu, nu).
    """

    views = 2
    needs = frozenset({"pooled"})

    def __init__(self, encoder: nn.Module, projection_dim: int = 1024, hidden_dim: int = 1024,
                 invariance: float = 25.0, variance: float = 25.0, covariance: float = 1.0, head_norm: bool = True):
        super().__init__()
        check_encoder(type(self), encoder)
        self.encoder = encoder
        self.projector = projector(encoder.embed_dim, hidden_dim, projection_dim, depth=3, norm=head_norm)
        self.weights = (invariance, variance, covariance)

    def forward(self, batch: Sequence[Clouds]) -> dict[str, Tensor]:
        return self.objective(self.embed(batch))

    def embed(self, batch: Sequence[Clouds]) -> list[Tensor]:
        """Two views of B clouds -> two projections (B, projection_dim)."""
        return [self.projector(self.encoder(view).pooled) for view in batch]

    def objective(self, embeddings: list[Tensor]) -> dict[str, Tensor]:
        """The loss of two views' projections."""
        first, second = embeddings
        return {"loss": vicreg(first, second, *self.weights), **pair_numbers(first, second)}
