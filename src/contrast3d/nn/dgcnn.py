"""DGCNN: stacked edge convolutions, a shared linear layer, global pooling (Wang et al., TOG 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.nn.batch_norm import BatchNorm
from contrast3d.nn.edge_conv import EdgeConv
from contrast3d.nn.pooling import GlobalPool
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.ops.farthest_point_sampling import farthest_point_sampling
from contrast3d.ops.gather import gather
from contrast3d.ops.knn import knn
from contrast3d.types import Clouds, Features


class DGCNN(Rebuildable):
    """Dynamic graph CNN on dense clouds.

    embed_dim: D of the pooled vector; each pooling of `readout` gets an equal share.
    layers: widths of each edge convolution's MLP; the defaults are the four of Wang et al.
    k: neighbours, the point itself included; clouds need at least k points.
    dynamic: rebuild the graph in feature space before each later layer; False keeps the 3-D graph.
    plain: linear last layers in every MLP and a linear, unnormalised embedding layer, as in the report.
    strides: of each layer; 4 keeps every fourth point, by farthest-point sampling, as the centers of that layer
        and of what follows. All 1 is DGCNN proper; larger ones are the pyramid of PointNet++ with edge
        convolutions, which costs a fraction and sees further. A pyramid gives no `points`.
    readout: global poolings, of "max" and "mean".
    in_features: channels of `Clouds.features` beside the coordinates.

    With the defaults and embed_dim=2048 this is the classification backbone of Wang et al. (k = 20, 1024-wide
    embedding, max and mean). `DGCNN.report()` is the encoder of Bernini (2022).
    """

    def __init__(self, embed_dim: int = 512, layers: tuple[tuple[int, ...], ...] = ((64,), (64,), (128,), (256,)),
                 k: int = 20, dynamic: bool = True, plain: bool = False, negative_slope: float = 0.2,
                 strides: tuple[int, ...] | None = None, readout: tuple[str, ...] = ("max", "mean"),
                 in_features: int = 0):
        super().__init__()
        if not layers:
            raise ConfigError("DGCNN: layers=(); expected at least one")
        self.strides = tuple(strides or (1,) * len(layers))
        if k < 1 or len(self.strides) != len(layers) or min(self.strides) < 1:
            raise ConfigError(f"DGCNN: k={k}, {len(layers)} layers and strides {self.strides}; expected k and every "
                              "stride to be at least 1, and one stride per layer")
        self.gives = frozenset({"pooled", "dense"} if max(self.strides) == 1 else {"pooled"})
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
        dense = points.flatten(0, 1) if "dense" in self.gives else None
        return Features(pooled=self.pool(points), points=dense)

    def point_features(self, points: Tensor, x: Tensor) -> Tensor:
        """(B, N, 3) coordinates and (B, N, C) inputs -> (B, M, width) features of the M points that remain."""
        levels: list[Tensor] = []
        index = None
        for conv, stride in zip(self.convs, self.strides):
            space = x.detach() if levels and self.dynamic else points
            rows = None
            if stride > 1:
                rows = farthest_point_sampling(points, max(1, points.shape[1] // stride))
                points = gather(points, rows)
                levels = [gather(level, rows) for level in levels]
            if rows is not None or index is None or self.dynamic:
                index = knn(space, self.k, None if rows is None else gather(space, rows))
            x = conv(x, index, rows)
            levels.append(x)
            if rows is not None:
                index = None  # the next layer's neighbours are among the points that remain
        y = self.embed(torch.cat(levels, dim=-1))
        return self.activation(y if self.norm is None else self.norm(y))
