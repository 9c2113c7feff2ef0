"""Frozen features: encode every shape of a set once, in eval mode; protocols take the result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.engine.memory import keep_freed_memory
from contrast3d.errors import DataError


@contextmanager
def evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """Eval mode and no gradients inside; afterwards every submodule is in the mode it was in before."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield module
    finally:
        for m, training in modes:
            m.training = training


def device_of(module: nn.Module) -> torch.device:
    """Where the module's first parameter lives; the CPU when it has none."""
    parameter = next(module.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def extract(
    encoder: nn.Module, shapes: ShapeSet, batch_size: int = 64, device: torch.device | str | None = None
) -> Float[Tensor, "s d"]:
    """The pooled features (S, D) of all shapes, float32 on the CPU; the encoder is left as it was.

    device: where the batches go, by default where the encoder lives. The points are taken as they are,
    without augmentation, and batch norm uses its running statistics.
    """
    keep_freed_memory()
    device = device_of(encoder) if device is None else device
    with evaluating(encoder):
        features = torch.cat([
            encoder(shapes.clouds(rows, device=device)).pooled.float().cpu()
            for rows in torch.arange(len(shapes)).split(batch_size)
        ])
    broken = int((~torch.isfinite(features)).any(1).sum())
    if broken:
        raise DataError("features", f"NaN or infinity for {broken} of {len(shapes)} shapes of {shapes.title}",
                        "finite features", "pre-training with a smaller --lr, or with --precision float32")
    return features
