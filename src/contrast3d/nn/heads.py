"""Projection heads: what stands between the encoder and the loss, and is thrown away afterwards."""

from __future__ import annotations

from torch import nn

from contrast3d.nn.batch_norm import BatchNorm


def projector(in_dim: int, hidden_dim: int, out_dim: int, depth: int = 2, norm: bool = True) -> nn.Sequential:
    """An MLP of `depth` linear layers with ReLU between them (SimCLR, Chen et al. 2020, section 4.2).

    norm: batch norm after every hidden layer, as SimCLR's released code has it; the report has none.
    """
    layers: list[nn.Module] = []
    width = in_dim
    for _ in range(depth - 1):
        layers.append(nn.Linear(width, hidden_dim, bias=not norm))
        if norm:
            layers.append(BatchNorm(hidden_dim))
        layers.append(nn.ReLU())
        width = hidden_dim
    return nn.Sequential(*layers, nn.Linear(width, out_dim))
