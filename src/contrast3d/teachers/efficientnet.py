"""EfficientNet-Lite0 (Tan and Le, ICML 2019, without squeeze-and-excitation and swish), for its published weights."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

EPSILON = 1e-3
WIDTH, CLASSES = 1280, 1000
# (blocks, kernel, stride, expansion, channels) of the seven stages of B0
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does: the odd pixel goes to the right and below."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        (k, _), (s, _) = self.kernel_size, self.stride
        high, wide = (max(-(-size // s) * s - s + k - size, 0) for size in x.shape[-2:])
        if high == wide and high % 2 == 0:
            return nn.functional.conv2d(x, self.weight, self.bias, self.stride, high // 2, 1, self.groups)
        x = pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        return nn.functional.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


class Inverted(nn.Module):
    """Expand, convolve each channel, project; the input is added where shapes agree."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = before * expansion
        self.expand, self.adds = expansion > 1, stride == 1 and before == after
        if self.expand:
            self._expand_conv, self._bn0 = SameConv(before, inner, 1, bias=False), nn.BatchNorm2d(inner, EPSILON)
        self._depthwise_conv = SameConv(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = nn.BatchNorm2d(inner, EPSILON)
        self._project_conv, self._bn2 = SameConv(inner, after, 1, bias=False), nn.BatchNorm2d(after, EPSILON)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        y = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.expand else x
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """(B, 3, H, W) images -> (B, 1280) pooled features; `_fc` is the classifier of ImageNet's 1,000 classes.

    Names of parameters are those of the published file.
    """

    def __init__(self):
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, EPSILON)
        blocks, before = [], 32
        for count, kernel, stride, expansion, after in STAGES:
            for first in [True] + [False] * (count - 1):
                blocks.append(Inverted(before, after, kernel, stride if first else 1, expansion))
                before = after
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SameConv(before, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH, EPSILON)
        self._fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1280"]:
        x = nn.functional.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        return nn.functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def classify(self, features: Float[Tensor, "b 1280"]) -> Float[Tensor, "b 1000"]:
        """Logits over ImageNet's classes."""
        return self._fc(features)


@torch.no_grad()
def fused(network: EfficientNetLite0) -> EfficientNetLite0:
    """The same network in evaluation mode with every batch norm folded into the convolution before it; in place."""
    network.eval()
    for module in network.modules():
        for conv, norm in (("_conv_stem", "_bn0"), ("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"),
                           ("_project_conv", "_bn2"), ("_conv_head", "_bn1")):  # fmt: skip
            if hasattr(module, conv) and isinstance(getattr(module, norm), nn.BatchNorm2d):
                both = nn.utils.fuse_conv_bn_weights(
                    getattr(module, conv).weight, None, *_of(getattr(module, norm))
                )
                getattr(module, conv).weight, getattr(module, conv).bias = both
                setattr(module, norm, nn.Identity())
    return network.requires_grad_(False)


def _of(norm: nn.BatchNorm2d) -> tuple:
    return norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
