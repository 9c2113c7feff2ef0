"""Reading a shape at the density its encoder was trained on."""

from __future__ import annotations

from torch import nn

from contrast3d.errors import ConfigError
from contrast3d.types import Clouds, Features


class Partwise(nn.Module):
    """Encode clouds of N points as N // num_points disjoint clouds of num_points each, and average the vectors.

    An encoder that learnt from views of num_points knows neighbourhoods of that density; on denser clouds its
    neighbours are nearer and its features drift. Points are taken in their stored order, which must be random.
    """

    gives = frozenset({"pooled"})

    def __init__(self, encoder: nn.Module, num_points: int):
        super().__init__()
        if num_points < 1:
            raise ConfigError(f"Partwise: num_points={num_points}; expected at least 1")
        self.encoder, self.num_points, self.embed_dim = encoder, num_points, encoder.embed_dim

    def forward(self, clouds: Clouds) -> Features:
        points = clouds.dense
        b, n, _ = points.shape
        parts = max(1, n // self.num_points)
        points = points[:, : parts * self.num_points].reshape(b * parts, -1, 3)
        pooled = self.encoder(Clouds.from_dense(points)).pooled
        return Features(pooled=pooled.view(b, parts, -1).mean(1))
