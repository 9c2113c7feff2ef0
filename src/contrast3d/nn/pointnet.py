"""PointNet without its transformer nets (Qi et al., CVPR 2017): the small baseline encoder."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from contrast3d.nn.batch_norm import BatchNorm
from contrast3d.nn.pooling import GlobalPool
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.types import Clouds, Features


class PointNet(Rebuildable):
    """A shared MLP on each point, then global pooling; sees no neighbourhoods.

    widths: of the shared MLP before the embedding layer (the paper's 64, 64, 64, 128).
    """

    gives = frozenset({"pooled", "dense"})

    def __init__(self, embed_dim: int = 512, widths: tuple[int, ...] = (64, 64, 64, 128),
                 readout: tuple[str, ...] = ("max",), in_features: int = 0):
        super().__init__()
        self.embed_dim, self.in_features = embed_dim, in_features
        self.pool = GlobalPool(readout, embed_dim)
        channels = (3 + in_features, *widths, self.pool.width)
        self.mlp = nn.Sequential(*(
            layer for a, b in pairwise(channels)
            for layer in (nn.Linear(a, b, bias=False), BatchNorm(b), nn.ReLU())
        ))

    def forward(self, clouds: Clouds) -> Features:
        x = clouds.points
        if self.in_features:
            x = torch.cat([x, clouds.features], dim=-1)
        points = self.mlp(x)
        return Features(pooled=self.pool(clouds.as_dense(points)), points=points)
