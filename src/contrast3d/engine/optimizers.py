"""Optimisers with the usual exemption from weight decay."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError


def build_optimizer(method: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """The optimiser of `settings` over the trainable parameters of `method`.

    `method.param_groups()`, where there is one, may set lr or weight_decay per group; in every group that
    does not set weight_decay, parameters of fewer than two dimensions are exempt from it, unless settings.decay_all.
    """
    if hasattr(method, "param_groups"):
        groups = method.param_groups()
    else:
        groups = [{"params": method.parameters()}]
    decay = {"weight_decay": settings.weight_decay} if settings.decay_all else {}
    groups = [part for group in groups for part in _split_by_decay({**decay, **group})]
    if not groups:
        raise ConfigError(f"{type(method).__name__} has no trainable parameters")
    if settings.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, settings.lr, weight_decay=settings.weight_decay, fused=True)
    elif settings.optimizer == "adam":
        optimizer = torch.optim.Adam(groups, settings.lr, weight_decay=settings.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            groups, settings.lr, momentum=settings.momentum, dampening=settings.dampening,
            weight_decay=settings.weight_decay,
        )
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def _split_by_decay(group: dict) -> list[dict]:
    params = [p for p in group["params"] if p.requires_grad]
    if "weight_decay" in group:
        parts = [{**group, "params": params}]
    else:
        parts = [
            {**group, "params": [p for p in params if p.ndim >= 2]},
            {**group, "params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        ]
    return [part for part in parts if part["params"]]


def set_lr(optimizer: torch.optim.Optimizer, lr: Callable[[float], float]) -> None:
    """Give every group what the schedule has for its own peak."""
    for group in optimizer.param_groups:
        group["lr"] = lr(group["initial_lr"])
