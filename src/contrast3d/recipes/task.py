"""`Task`: what a recipe hands to `pretrain`, whatever it trains on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Task:
    """A method, the batches it learns from, and what is looked at on the way.

    loader: `loader.batch(epoch, step)`, this process's share. title, data_hash: of the data. on_epoch: (epochs done,
    method) -> numbers to log, on the first process. check: called once, on the first process, before training; warns.
    """

    method: nn.Module
    loader: Any
    title: str
    data_hash: str
    on_epoch: Callable[[int, nn.Module], dict[str, float]] | None = None
    check: Callable[[], None] = lambda: None
