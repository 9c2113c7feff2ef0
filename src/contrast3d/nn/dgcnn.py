"""DGCNN: stacked edge convolutions, a shared linear layer, global pooling (Wang et al., TOG 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.nn.batch_norm import BatchNorm
from contrast3d.nn.edge_conv import EdgeConv
from contrast3d.nn.pooling import GlobalPool
from contrast3d.ops.knn import knn
from contrast3d.types import Clouds, Features


class DGCNN(nn.Module):
    """Dynamic graph CNN on dense clouds.

    embed_dim: D of the pooled vector; each pooling of `readout` gets an equal share.
    layers: widths of each edge convolution's MLP; the defaults are the four of Wang et al.
    k: neighbours, the point itself included; clouds need at least k points.
    dynamic: rebuild the graph in feature space before each later layer; False keeps the 3-D graph.
    plain: linear last layers in every MLP and a linear, unnormalised embedding layer, as in the report.
    readout: global poolings, of "max" and "mean".
    in_features: channels of `Clouds.features` beside the coordinates.

    With the defaults and embed_dim=2048 this is the classification backbone of Wang et al. (k = 20, 1024-wide
    embedding, max and mean). `DGCNN.report()` is the encoder of Bernini (2022).
    """

    gives = frozenset({"pooled", "dense"})

    def __init__(self, embed_dim: int = 512, layers: tuple[tuple[int, ...], ...] = ((64,), (64,), (128,), (256,)),
                 k: int = 20, dynamic: bool = True, plain: bool = False, negative_slope: float = 0.2,
                 readout: tuple[str, ...] = ("max", "mean"), in_features: int = 0):
        super().__init__()
        if k < 1:
            raise ConfigError(f"DGCNN: k={k} neighbours; expected at least 1")
        self.embed_dim, self.k, self.dynamic = embed_dim, k, dynamic
        channels = 3 + in_features
        self.in_features = in_features
        self.convs = nn.ModuleList()
        for widths in layers:
            self.convs.append(EdgeConv(channels, tuple(widths), plain, negative_slope))
            channels = widths[-1]
        width = sum(conv.out_channels for conv in self.convs)
        self.pool = GlobalPool(readout, embed_dim)
        self.embed = nn.Linear(width, self.pool.width, bias=plain)
        self.norm = None if plain else BatchNorm(self.pool.width)
        self.activation = nn.Identity() if plain else nn.LeakyReLU(negative_slope)

    @classmethod
    def report(cls, k: int = 20) -> DGCNN:
        """MLP[6, 64, 64] and MLP[128, 128], 192 -> 128, max: 45,952 parameters (spec of the report, section 2)."""
        return cls(embed_dim=128, layers=((64, 64), (128,)), k=k, plain=True, negative_slope=0.0, readout=("max",))

    def forward(self, clouds: Clouds) -> Features:
        x = clouds.dense
        if self.in_features:
            x = torch.cat([x, clouds.as_dense(clouds.features)], dim=-1)
        points = self.point_features(clouds.dense, x)
        return Features(pooled=self.pool(points), points=points.flatten(0, 1))

    def point_features(self, points: Tensor, x: Tensor) -> Tensor:
        """(B, N, 3) coordinates and (B, N, C) inputs -> (B, N, width) before pooling."""
        index = knn(points, self.k)
        levels = []
        for depth, conv in enumerate(self.convs):
            if depth and self.dynamic:
                index = knn(x.detach(), self.k)
            x = conv(x, index)
            levels.append(x)
        y = self.embed(torch.cat(levels, dim=-1))
        return self.activation(y if self.norm is None else self.norm(y))
