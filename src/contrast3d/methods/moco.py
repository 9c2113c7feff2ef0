"""MoCo on point clouds: the negatives are a queue of earlier keys, so their number does not hang on the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.losses.info_nce import info_nce
from contrast3d.methods.contract import check_encoder, pair_numbers
from contrast3d.nn.heads import projector
from contrast3d.nn.momentum import follow, frozen_copy
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.ops.collective import gather_rows
from contrast3d.types import Clouds


class MoCo(Rebuildable):
    """He et al. (CVPR 2020) with the MLP head of MoCo v2 (Chen et al., 2020).

    queue_size: keys kept as negatives; they begin as random directions. momentum: of the key encoder.
    projection_dim, hidden_dim, head_norm: of the projection head. temperature: of InfoNCE.

    The paper shuffles batch norm over GPUs, so that a key cannot be told from those of the queue by the statistics
    of the batch it shares with its query. Here statistics cover the whole global batch: two processes equal one,
    but that signature of the batch stays, as with any synchronised batch norm. `head_norm=False` weakens it.
    """

    views = 2
    needs = frozenset({"pooled"})

    def __init__(self, encoder: nn.Module, projection_dim: int = 128, hidden_dim: int = 512, temperature: float = 0.2,
                 queue_size: int = 4096, momentum: float = 0.99, head_norm: bool = True):
        super().__init__()
        check_encoder(type(self), encoder)
        if queue_size < 1 or not 0 <= momentum <= 1:
            raise ConfigError(f"MoCo: queue_size = {queue_size}, momentum = {momentum}; expected at least 1, and in "
                              "[0, 1]")
        self.encoder = encoder
        self.projector = projector(encoder.embed_dim, hidden_dim, projection_dim, norm=head_norm)
        self.momentum_encoder, self.momentum_projector = frozen_copy(self.encoder), frozen_copy(self.projector)
        self.temperature, self.momentum = temperature, momentum
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, projection_dim), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))

    def forward(self, batch: Sequence[Clouds]) -> dict[str, Tensor]:
        return self.objective(self.embed(batch))

    def embed(self, batch: Sequence[Clouds]) -> list[Tensor]:
        """Two views -> queries of the first, keys of the second by the momentum encoder, (B, projection_dim) each."""
        queries, keys = batch
        with torch.no_grad():
            key = self.momentum_projector(self.momentum_encoder(keys).pooled)
        return [self.projector(self.encoder(queries).pooled), key]

    def objective(self, embeddings: list[Tensor]) -> dict[str, Tensor]:
        """The loss of queries and keys against the queue; in training the keys then join it."""
        queries, keys = embeddings
        keys = keys.detach()
        loss = info_nce(queries, keys, self.queue.clone(), self.temperature)  # a clone: the queue moves before backward
        if self.training:
            self._enqueue(F.normalize(gather_rows(keys), dim=1))
        return {"loss": loss, **pair_numbers(queries, keys)}

    def after_step(self) -> None:
        follow(self.momentum_encoder, self.encoder, self.momentum)
        follow(self.momentum_projector, self.projector, self.momentum)

    @torch.no_grad()
    def _enqueue(self, keys: Float[Tensor, "b d"]) -> None:
        """The newest keys of all processes take the places of the oldest."""
        size = len(self.queue)
        keys = keys[-size:]
        places = (self.oldest + torch.arange(len(keys), device=keys.device)) % size
        self.queue[places] = keys.to(self.queue.dtype)
        self.oldest.copy_((self.oldest + len(keys)) % size)
