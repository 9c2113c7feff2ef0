"""A toy method whose result depends on every state a run carries, and a loader with random access."""

import random

import numpy as np
import torch
from torch import nn


class ToyLoader:
    """Linear regression data: batch (epoch, step) is a pure function of its number; ranks share it."""

    def __init__(self, steps=4, batch_size=8, rank=0, world=1):
        self.steps, self.batch_size, self.rank, self.world = steps, batch_size, rank, world

    def __len__(self):
        return self.steps

    def batch(self, epoch, step):
        generator = torch.Generator().manual_seed(1000 * epoch + step)
        inputs = torch.randn(self.batch_size, 3, generator=generator)
        targets = inputs.sum(1, keepdim=True) + 0.1 * torch.randn(self.batch_size, 1, generator=generator)
        share = self.batch_size // self.world
        mine = slice(self.rank * share, (self.rank + 1) * share)
        return inputs[mine], targets[mine]


class Doubled:
    """Batch i of the epoch is batches 2i and 2i + 1 of `loader`, joined."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader) // 2

    def batch(self, epoch, step):
        pairs = [self.loader.batch(epoch, 2 * step + i) for i in range(2)]
        return tuple(torch.cat(parts) for parts in zip(*pairs))


class Plain(nn.Module):
    """Linear regression: no randomness, no state beside the parameters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, batch):
        inputs, targets = batch
        return {"loss": (self.encoder(inputs) - targets).square().mean(), "inputs": inputs.mean()}


class Noisy(Plain):
    """Draws from torch and numpy, and carries a buffer that follows the parameters."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(8, 3))

    def forward(self, batch):
        inputs, targets = batch
        inputs = nn.functional.dropout(inputs, 0.2) + 0.1 * np.random.randn()
        outputs = super().forward((inputs, targets))
        return {**outputs, "norm": self.average.norm()}

    def before_step(self, progress):
        self.progress = progress

    def after_step(self):
        self.average.lerp_(self.encoder[0].weight.detach(), 0.1 + 0.5 * self.progress)


class Noisier(Noisy):
    """Draws from python, too. Not for tests under beartype, whose checks draw from there themselves."""

    def forward(self, batch):
        inputs, targets = batch
        return super().forward((inputs + 0.1 * random.random(), targets))


def measure(epoch, method):
    """An on_epoch that draws, too."""
    return {"probe": float(method.encoder(torch.randn(5, 3)).mean().detach()), "feature_std": 1.0}


def comparable(metrics):
    """The lines of metrics.jsonl without what the clock decides."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in metrics]
