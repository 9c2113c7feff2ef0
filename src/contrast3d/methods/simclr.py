"""SimCLR on point clouds: two augmented views of a shape attract, everything else in the batch repels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from contrast3d.losses.info_nce import nt_xent
from contrast3d.methods.contract import check_encoder, pair_numbers
from contrast3d.nn.heads import projector
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.types import Clouds


class SimCLR(Rebuildable):
    """Chen et al. (ICML 2020) with any encoder that gives `pooled` features.

    projection_dim, hidden_dim, head_norm: of the projection head. temperature: of NT-Xent.
    """

    views = 2
    needs = frozenset({"pooled"})

    def __init__(self, encoder: nn.Module, projection_dim: int = 128, hidden_dim: int = 512,
                 temperature: float = 0.2, head_norm: bool = True):
        super().__init__()
        check_encoder(type(self), encoder)
        self.encoder = encoder
        self.projector = projector(encoder.embed_dim, hidden_dim, projection_dim, norm=head_norm)
        self.temperature = temperature

    def forward(self, batch: Sequence[Clouds]) -> dict[str, Tensor]:
        return self.objective(self.embed(batch))

    def embed(self, batch: Sequence[Clouds]) -> list[Tensor]:
        """V views of B clouds -> V projections (B, projection_dim)."""
        return [self.projector(self.encoder(view).pooled) for view in batch]

    def objective(self, embeddings: list[Tensor]) -> dict[str, Tensor]:
        """The loss of two views' projections, and how well the positives are told from the rest."""
        first, second = embeddings
        return {"loss": nt_xent(first, second, self.temperature), **pair_numbers(first, second)}
