"""Instance discrimination: every shape is a class of its own, told from all others by a memory bank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.losses.instance import instance_softmax
from contrast3d.methods.contract import check_encoder
from contrast3d.nn.heads import projector
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.ops.collective import gather_rows
from contrast3d.types import Clouds


class InstanceDiscrimination(Rebuildable):
    """Wu et al. (CVPR 2018): a non-parametric softmax over one remembered vector per training shape.

    num_shapes: S of the training set; `Clouds.ids` are the rows of the bank. projection_dim, hidden_dim,
    head_norm: of the projection head. temperature: of the softmax. momentum: share of the old vector that stays
    when a shape is seen again (the released code has 0.5).

    The softmax is exact, over all S shapes (the paper samples negatives): a step costs O(B S) memory, 0.5 GB for
    128 of a million shapes.
    """

    views = 1
    needs = frozenset({"pooled"})

    def __init__(self, encoder: nn.Module, num_shapes: int, projection_dim: int = 128, hidden_dim: int = 512,
                 temperature: float = 0.1, momentum: float = 0.5, head_norm: bool = True):
        super().__init__()
        check_encoder(type(self), encoder)
        if num_shapes < 2 or not 0 <= momentum < 1:
            raise ConfigError(f"InstanceDiscrimination: num_shapes = {num_shapes}, momentum = {momentum}; expected at "
                              "least 2, and in [0, 1)")
        self.encoder = encoder
        self.projector = projector(encoder.embed_dim, hidden_dim, projection_dim, norm=head_norm)
        self.temperature, self.momentum = temperature, momentum
        self.register_buffer("bank", F.normalize(torch.randn(num_shapes, projection_dim), dim=1))

    def forward(self, batch: Sequence[Clouds]) -> dict[str, Tensor]:
        return self.objective(self.embed(batch))

    def embed(self, batch: Sequence[Clouds]) -> list[Tensor]:
        """One view -> its projections (B, projection_dim), and the rows (B,) of the bank they belong to."""
        (view,) = batch
        if view.ids is None or int(view.ids.max()) >= len(self.bank):
            found = "none" if view.ids is None else int(view.ids.max())
            raise ConfigError(f"InstanceDiscrimination: a shape with the id {found}; expected ids below num_shapes = "
                              f"{len(self.bank)}")
        return [self.projector(self.encoder(view).pooled), view.ids]

    def objective(self, embeddings: list[Tensor]) -> dict[str, Tensor]:
        """The loss of the projections against the bank; in training they then renew their rows of it."""
        projections, rows = embeddings
        remembered = self.bank.clone()  # the bank moves before backward
        loss = instance_softmax(projections, rows, remembered, self.temperature)
        unit = F.normalize(projections.detach().to(remembered.dtype), dim=1)
        alignment = (unit - remembered[rows]).square().sum(1).mean()
        if self.training:
            self._remember(gather_rows(rows), gather_rows(unit))
        return {"loss": loss, "alignment": alignment}

    @torch.no_grad()
    def _remember(self, rows: Tensor, unit: Tensor) -> None:
        renewed = self.momentum * self.bank[rows] + (1 - self.momentum) * unit
        self.bank[rows] = F.normalize(renewed, dim=1)
