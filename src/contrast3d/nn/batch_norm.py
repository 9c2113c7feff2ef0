"""Batch norm over the last axis whose statistics cover every process, on CPU as well as CUDA.

torch's own SyncBatchNorm runs on CUDA only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.ops.collective import world_size, world_sum
from contrast3d.ops.edge_conv import update_running


class BatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` over (..., C), synchronised whenever several processes train together, unless `alone`."""

    alone = False

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        if self.training and not self.alone and world_size() > 1:
            return self._synchronised(flat).view(x.shape)
        if self.training and len(flat) == 1:
            raise ConfigError("batch norm needs more than one value per channel to train on; use a larger batch")
        return super().forward(flat).view(x.shape)

    def _synchronised(self, x: Tensor) -> Tensor:
        x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        count = world_sum(x.new_tensor(float(len(x))))
        mean = world_sum(x.sum(0)) / count
        var = world_sum((x - mean).square().sum(0)) / count
        update_running(self.running_mean, self.running_var, mean.detach(), var.detach(), float(count), self.momentum)
        self.num_batches_tracked += 1
        return (x - mean) * (var + self.eps).rsqrt() * self.weight + self.bias
