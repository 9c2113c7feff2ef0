"""Layers on voxels: sparse convolutions with their weights, and the residual blocks of sparse networks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.nn.batch_norm import BatchNorm
from contrast3d.ops.sparse_conv import sparse_conv, sparse_conv_transpose
from contrast3d.types import Voxels


class SparseConv(nn.Module):
    """A sparse convolution, or a transposed one back onto the voxels that a strided one came from.

    weight: (kernel_size^3, in_channels, out_channels), x fastest; bias: (out_channels,) or None. Both begin uniform in
    +-1 / sqrt(n), n = in_channels * kernel_size^3 (transposed: out_channels), as MinkowskiEngine has it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1,
                 bias: bool = False, transposed: bool = False):
        super().__init__()
        if transposed and dilation != 1:
            raise ConfigError(f"SparseConv: dilation = {dilation}; transposed convolutions have none")
        self.kernel_size, self.stride, self.dilation, self.transposed = kernel_size, stride, dilation, transposed
        self.weight = nn.Parameter(torch.empty(kernel_size**3, in_channels, out_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        slots, in_channels, out_channels = self.weight.shape
        bound = 1 / math.sqrt((out_channels if self.transposed else in_channels) * slots)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, voxels: Voxels) -> Voxels:
        if self.transposed:
            return sparse_conv_transpose(voxels, self.weight, self.bias, self.kernel_size, self.stride)
        return sparse_conv(voxels, self.weight, self.bias, self.kernel_size, self.stride, self.dilation)

    def extra_repr(self) -> str:
        kind = ", transposed" if self.transposed else ""
        return f"{self.weight.shape[1]}, {self.weight.shape[2]}, kernel {self.kernel_size}, stride {self.stride}{kind}"


def normalized(voxels: Voxels, norm: nn.Module, residual: Tensor | None = None, rectify: bool = True) -> Voxels:
    """ReLU(norm(features) + residual); without the ReLU where it is not to `rectify`."""
    x = norm(voxels.features)
    x = x if residual is None else x + residual
    return voxels.replace(features=torch.relu(x) if rectify else x)


@torch.no_grad()
def rescale_like(network: nn.Module, other: nn.Module) -> None:
    """Give each convolution before a batch norm the length of its twin in `other`; what is computed stays the same.

    Batch norm takes out the length of the weights before it, but a step of an optimiser turns long weights less:
    trained ones, several times as long as fresh ones, would hardly move at the learning rate that suits those.
    """
    for (conv, norm), (twin, _) in zip(normed_convs(network), normed_convs(other), strict=True):
        factor = twin.weight.norm() / conv.weight.norm().clamp_min(1e-12)
        conv.weight.mul_(factor)
        norm.running_mean.mul_(factor)
        norm.running_var.mul_(factor.square())


def normed_convs(network: nn.Module) -> Iterator[tuple[SparseConv, nn.Module]]:
    """The convolutions without a bias, each with the batch norm behind it: siblings conv1 and norm1, and so on."""
    for module in network.modules():
        for name, child in module.named_children():
            after = {"stem": "stem_norm"}.get(name, name.replace("conv", "norm"))
            if isinstance(child, SparseConv) and child.bias is None and hasattr(module, after):
                yield child, getattr(module, after)


class Shortcut(nn.Module):
    """A convolution of size 1 and a norm, where a residual block changes the width."""

    def __init__(self, in_channels: int, out_channels: int, momentum: float):
        super().__init__()
        self.conv = SparseConv(in_channels, out_channels, 1)
        self.norm = BatchNorm(out_channels, momentum=momentum)

    def forward(self, voxels: Voxels) -> Tensor:
        return self.norm(self.conv(voxels).features)


class BasicBlock(nn.Module):
    """ReLU(norm2(conv2(ReLU(norm1(conv1(x))))) + x): the residual block of ResNet-18 and -34 (He et al. 2016).

    momentum: of the block's own norms; shortcut_momentum: of the shortcut's.
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, momentum: float = 0.1, shortcut_momentum: float = 0.1):
        super().__init__()
        self.conv1, self.norm1 = SparseConv(in_channels, channels), BatchNorm(channels, momentum=momentum)
        self.conv2, self.norm2 = SparseConv(channels, channels), BatchNorm(channels, momentum=momentum)
        self.shortcut = None if in_channels == channels else Shortcut(in_channels, channels, shortcut_momentum)

    def forward(self, voxels: Voxels) -> Voxels:
        residual = voxels.features if self.shortcut is None else self.shortcut(voxels)
        x = normalized(self.conv1(voxels), self.norm1)
        return normalized(self.conv2(x), self.norm2, residual)


class Bottleneck(nn.Module):
    """The block of ResNet-50: sizes 1, 3, 1, and four times as wide outside as in."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, momentum: float = 0.1, shortcut_momentum: float = 0.1):
        super().__init__()
        wide = channels * self.expansion
        self.conv1, self.norm1 = SparseConv(in_channels, channels, 1), BatchNorm(channels, momentum=momentum)
        self.conv2, self.norm2 = SparseConv(channels, channels), BatchNorm(channels, momentum=momentum)
        self.conv3, self.norm3 = SparseConv(channels, wide, 1), BatchNorm(wide, momentum=momentum)
        self.shortcut = None if in_channels == wide else Shortcut(in_channels, wide, shortcut_momentum)

    def forward(self, voxels: Voxels) -> Voxels:
        residual = voxels.features if self.shortcut is None else self.shortcut(voxels)
        x = normalized(self.conv1(voxels), self.norm1)
        x = normalized(self.conv2(x), self.norm2)
        return normalized(self.conv3(x), self.norm3, residual)
