"""Forward and backward of one batch: as it is, or in pieces with cached gradients; over all ranks either way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from contrast3d.engine import distributed
from contrast3d.engine.gradient_cache import cached_backward, check_composed
from contrast3d.engine.settings import Training

Backward = Callable[[Any, bool], dict[str, Tensor]]


def make_backward(method: nn.Module, settings: Training, device: torch.device) -> Backward:
    """-> backward(batch, last): adds the gradients of one of `settings.accumulate` batches, returns the outputs.

    After the last batch of a step the gradients are the mean over all ranks.
    """
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")
    return _cached(method, settings, autocast) if settings.micro_batch else _plain(method, settings, autocast)


def _plain(method: nn.Module, settings: Training, autocast: torch.autocast) -> Backward:
    forward = distributed.parallel(method)

    def backward(batch: Any, last: bool) -> dict[str, Tensor]:
        # gradients travel between ranks once per step, with the last batch
        with nullcontext() if last or forward is method else forward.no_sync():
            with autocast:
                outputs = forward(batch)
            (outputs["loss"] / settings.accumulate).backward()
        return outputs

    return backward


def _cached(method: nn.Module, settings: Training, autocast: torch.autocast) -> Backward:
    check_composed(method)
    distributed.start_alike(method)

    def backward(batch: Any, last: bool) -> dict[str, Tensor]:
        outputs = cached_backward(method, batch, settings.micro_batch, autocast, 1 / settings.accumulate)
        if last:
            distributed.average_gradients(method)
        return outputs

    return backward
