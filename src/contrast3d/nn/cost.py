"""What a network costs: its parameters, and the multiply-adds of its layers for one cloud."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from contrast3d.ops.portable import portable
from contrast3d.types import Clouds


@dataclass(frozen=True)
class Cost:
    """parameters: in all. macs: multiply-adds of linear layers and convolutions for one cloud of `num_points`."""

    parameters: int
    macs: int
    num_points: int

    def __str__(self) -> str:
        return (f"{self.parameters / 1e6:.2f} M parameters, {self.macs / 1e9:.2f} G multiply-adds per cloud of "
                f"{self.num_points:,} points")


@torch.no_grad()
def cost(encoder: nn.Module, num_points: int) -> Cost:
    """Count on a random cloud, in evaluation mode; the encoder is left as it was.

    Products between activations (attention, distances) are left out, as papers' tables leave them out. Counted is what
    is computed here: layers that are split, such as those of patches and edges, count once per point and not per edge.
    """
    from torch.utils.flop_counter import FlopCounterMode

    points = torch.randn(1, num_points, 3, generator=torch.Generator().manual_seed(0))
    features = getattr(encoder, "in_features", 0)
    extra = torch.ones(num_points, features) if features else None
    with portable(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(encoder).cpu().eval()(Clouds.from_dense(points, features=extra))
    layers = ("mm", "addmm", "convolution")
    flops = sum(n for op, n in counter.get_flop_counts()["Global"].items() if str(op).split(".")[-1] in layers)
    return Cost(sum(p.numel() for p in encoder.parameters()), flops // 2, num_points)
