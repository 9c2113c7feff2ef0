"""The sparse residual U-Net of PointContrast (Xie et al., ECCV 2020), a MinkowskiUNet (Choy et al., CVPR 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from contrast3d.errors import ConfigError, DataError
from contrast3d.nn.batch_norm import BatchNorm
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.nn.sparse import BasicBlock, Bottleneck, SparseConv, normalized, rescale_like
from contrast3d.ops.sparse_pool import global_pool
from contrast3d.ops.voxels import voxelize
from contrast3d.types import Clouds, Features, Voxels

PLANES = (32, 64, 128, 256, 256, 128, 96, 96)
BLOCKS = {  # depth: the residual blocks of each stage, and their kind
    14: ((1,) * 8, BasicBlock), 18: ((2,) * 8, BasicBlock), 34: ((2, 3, 4, 6, 2, 2, 2, 2), BasicBlock),
    50: ((2, 3, 4, 6, 2, 2, 2, 2), Bottleneck),
}


class Stage(nn.Module):
    """A strided convolution down, or a transposed one up with the skip joined, and residual blocks."""

    def __init__(self, in_channels: int, channels: int, skip: int | None, planes: int, blocks: int, block: type,
                 momentum: float, block_momentum: float):
        super().__init__()
        self.conv = SparseConv(in_channels, channels, 2, 2, transposed=skip is not None)
        self.norm = BatchNorm(channels, momentum=momentum)
        widths = [channels + (skip or 0)] + [planes * block.expansion] * (blocks - 1)
        self.blocks = nn.ModuleList(block(width, planes, block_momentum, momentum) for width in widths)

    def forward(self, voxels: Voxels, skip: Voxels | None = None) -> Voxels:
        x = normalized(self.conv(voxels), self.norm)
        if skip is not None:
            x = x.replace(features=torch.cat([x.features, skip.features], 1))
        for block in self.blocks:
            x = block(x)
        return x


class SparseUNet(Rebuildable):
    """SR-UNet: points into voxels, four levels down and up again, a feature for every voxel and so for every point.

    in_channels: width of `Clouds.features`; clouds without features have ones there, as in pre-training.
    out_channels: width of a last linear layer on the decoder's features; None leaves it out, for a head of your own.
    depth: 14, 18, 34 or 50. The defaults are SR-UNet34, 37,847,808 parameters (Res16UNet34C of the released code).
    planes: width of the eight stages; the stem is as wide as the first.
    width: factor on all planes. Widths that fill vector registers (multiples of 16) are the fast ones.
    voxel_size: edge of a voxel in the units of the points.
    norm_momentum, block_norm_momentum: of batch norm outside and inside of the residual blocks; the released code
        passes its configured value (0.05 in pre-training, 0.02 in segmentation) to the former only.
    decoder: False leaves the encoder alone, for whole clouds.

    The network declares `dense_dim`, the width of `Features.points`, and `embed_dim`, that of `pooled`: maximum and
    mean of the deepest level. Features are not normalised.
    """

    def __init__(self, in_channels: int = 3, out_channels: int | None = 32, depth: int = 34,
                 planes: Sequence[int] = PLANES, width: float = 1.0, voxel_size: float = 0.025,
                 norm_momentum: float = 0.05, block_norm_momentum: float = 0.1, decoder: bool = True):
        super().__init__()
        if depth not in BLOCKS or len(planes) != 8 or not width > 0 or not voxel_size > 0:
            raise ConfigError(f"SparseUNet: depth = {depth}, {len(planes)} planes, width = {width}, voxel_size = "
                              f"{voxel_size}; expected one of {', '.join(map(str, BLOCKS))}, 8, and positive numbers")
        blocks, block = BLOCKS[depth]
        planes = [max(1, round(p * width)) for p in planes]
        wide = [p * block.expansion for p in planes]
        momenta = (norm_momentum, block_norm_momentum)
        self.in_channels, self.voxel_size = in_channels, voxel_size
        self.stem, self.stem_norm = SparseConv(in_channels, planes[0]), BatchNorm(planes[0], momentum=norm_momentum)
        inputs = [planes[0], *wide[:3]]
        self.downs = nn.ModuleList(
            Stage(inputs[i], inputs[i], None, planes[i], blocks[i], block, *momenta) for i in range(4))
        self.ups, self.final = None, None
        self.gives = frozenset({"pooled", "dense"} if decoder else {"pooled"})
        self.embed_dim, self.dense_dim = 2 * wide[3], None
        if not decoder:
            return
        self.ups = nn.ModuleList(
            Stage(wide[3 + i], planes[4 + i], inputs[3 - i], planes[4 + i], blocks[4 + i], block, *momenta)
            for i in range(4))
        self.dense_dim = wide[7] if out_channels is None else out_channels
        if out_channels is not None:
            self.final = nn.Linear(wide[7], out_channels)
            for parameter in self.final.parameters():
                nn.init.uniform_(parameter, -1 / math.sqrt(wide[7]), 1 / math.sqrt(wide[7]))

    def forward(self, clouds: Clouds | Voxels) -> Features:
        """Features.points in the order of the points of `clouds`, or of the voxels where voxels are given."""
        voxels = clouds if isinstance(clouds, Voxels) else self.voxels(clouds)
        levels = [normalized(self.stem(voxels), self.stem_norm)]
        for down in self.downs:
            levels.append(down(levels[-1]))
        deepest = levels.pop()
        pooled = torch.cat([global_pool(deepest, "max"), global_pool(deepest, "mean")], 1)
        if self.ups is None:
            return Features(pooled)
        x = deepest
        for up in self.ups:
            x = up(x, levels.pop())
        dense = x.features if self.final is None else self.final(x.features)
        return Features(pooled, dense if isinstance(clouds, Voxels) else dense.index_select(0, voxels.inverse))

    def rescale_like(self, fresh: SparseUNet) -> None:
        """Before fine-tuning: weights as long as those of a fresh network, so that one learning rate suits both."""
        rescale_like(self, fresh)

    def voxels(self, clouds: Clouds) -> Voxels:
        """The voxels of `clouds` with the input features of the network."""
        features = clouds.features
        if features is not None and features.shape[1] != self.in_channels:
            raise DataError("features", f"width {features.shape[1]}", f"in_channels = {self.in_channels}",
                            "another in_channels, or clouds.replace(features=None)")
        if features is None:
            clouds = clouds.replace(features=clouds.points.new_ones(len(clouds.points), self.in_channels))
        return voxelize(clouds, self.voxel_size)
