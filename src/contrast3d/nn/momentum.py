"""Momentum encoders: slow copies of a network that follow it without gradients (He et al., CVPR 2020, eq. 2)."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy with the same weights that no gradient reaches. Its batch norm keeps statistics of its own."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """slow <- momentum * slow + (1 - momentum) * fast, for every parameter."""
    slow_parameters, fast_parameters = list(slow.parameters()), [p.detach() for p in fast.parameters()]
    if slow_parameters:
        torch._foreach_lerp_(slow_parameters, fast_parameters, 1 - momentum)


def cosine_momentum(start: float, progress: float) -> float:
    """From `start` to 1 as `progress` goes from 0 to 1 (BYOL, Grill et al., NeurIPS 2020, section 3.3)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
