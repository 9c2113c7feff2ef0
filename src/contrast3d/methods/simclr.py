"""SimCLR on point clouds: two augmented views of a shape attract, everything else in the batch repels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.losses.info_nce import nt_xent
from contrast3d.nn.heads import projector
from contrast3d.types import Clouds


class SimCLR(nn.Module):
    """Chen et al. (ICML 2020) with any encoder that gives `pooled` features.

    projection_dim, hidden_dim, head_norm: of the projection head. temperature: of NT-Xent.
    """

    views = 2
    needs = frozenset({"pooled"})

    def __init__(self, encoder: nn.Module, projection_dim: int = 128, hidden_dim: int = 512,
                 temperature: float = 0.2, head_norm: bool = True):
        super().__init__()
        missing = self.needs - getattr(encoder, "gives", self.needs)
        if missing:
            raise ConfigError(f"SimCLR needs an encoder that gives {', '.join(missing)}; {type(encoder).__name__} "
                              f"gives {', '.join(encoder.gives)}")
        if not isinstance(getattr(encoder, "embed_dim", None), int):
            raise ConfigError(f"SimCLR: {type(encoder).__name__} has no embed_dim; expected an encoder with the width "
                              "of its pooled features as `embed_dim`")
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
        loss = nt_xent(first, second, self.temperature)
        with torch.no_grad():
            a, b = (nn.functional.normalize(z.float(), dim=-1) for z in (first, second))
            hits = (a @ b.T).argmax(1) == torch.arange(len(a), device=a.device)
        return {"loss": loss, "alignment": (a - b).square().sum(1).mean(), "pair_accuracy": hits.float().mean()}
