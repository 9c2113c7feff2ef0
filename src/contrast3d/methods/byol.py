"""BYOL: predict what a slow copy of yourself says of the other view; no negatives at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.losses.byol import byol
from contrast3d.methods.contract import check_encoder, pair_numbers
from contrast3d.nn.heads import projector
from contrast3d.nn.momentum import cosine_momentum, follow, frozen_copy
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.types import Clouds


class BYOL(Rebuildable):
    """Grill et al. (NeurIPS 2020).

    projection_dim, hidden_dim, head_norm: of the projection head and of the predictor behind it. momentum: of the
    target network at the start; it rises to 1 by a cosine.
    """

    views = 2
    needs = frozenset({"pooled"})

    def __init__(self, encoder: nn.Module, projection_dim: int = 128, hidden_dim: int = 512, momentum: float = 0.99,
                 head_norm: bool = True):
        super().__init__()
        check_encoder(type(self), encoder)
        if not 0 <= momentum <= 1:
            raise ConfigError(f"BYOL: momentum = {momentum}; expected in [0, 1]")
        self.encoder = encoder
        self.projector = projector(encoder.embed_dim, hidden_dim, projection_dim, norm=head_norm)
        self.predictor = projector(projection_dim, hidden_dim, projection_dim, norm=head_norm)
        self.momentum_encoder, self.momentum_projector = frozen_copy(self.encoder), frozen_copy(self.projector)
        self.start_momentum = self.momentum = momentum

    def forward(self, batch: Sequence[Clouds]) -> dict[str, Tensor]:
        return self.objective(self.embed(batch))

    def embed(self, batch: Sequence[Clouds]) -> list[Tensor]:
        """Two views -> two predictions and two targets, (B, projection_dim) each."""
        predictions = [self.predictor(self.projector(self.encoder(view).pooled)) for view in batch]
        with torch.no_grad():
            targets = [self.momentum_projector(self.momentum_encoder(view).pooled) for view in batch]
        return [*predictions, *targets]

    def objective(self, embeddings: list[Tensor]) -> dict[str, Tensor]:
        """The loss both ways: the prediction of each view against the target of the other."""
        first, second, first_target, second_target = embeddings
        loss = byol(first, second_target.detach()) + byol(second, first_target.detach())
        return {"loss": loss, **pair_numbers(first, second_target)}

    def before_step(self, progress: float) -> None:
        self.momentum = cosine_momentum(self.start_momentum, progress)

    def after_step(self) -> None:
        follow(self.momentum_encoder, self.encoder, self.momentum)
        follow(self.momentum_projector, self.projector, self.momentum)
