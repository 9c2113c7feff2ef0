"""Global pooling of point features into one vector per cloud."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contrast3d.errors import ConfigError


class GlobalPool(nn.Module):
    """Concatenated poolings over the points; `width` is what each of them must receive to make embed_dim."""

    def __init__(self, readout: tuple[str, ...], embed_dim: int):
        super().__init__()
        if not readout or set(readout) - {"max", "mean"}:
            raise ConfigError(f"readout {readout}: expected a non-empty choice of 'max' and 'mean'")
        if embed_dim % len(readout):
            raise ConfigError(f"embed_dim={embed_dim} cannot be shared by the {len(readout)} poolings {readout}")
        self.readout, self.width = tuple(readout), embed_dim // len(readout)

    def forward(self, points: Float[Tensor, "b n c"]) -> Float[Tensor, "b d"]:
        pools = {"max": lambda x: x.amax(1), "mean": lambda x: x.mean(1)}
        return torch.cat([pools[name](points) for name in self.readout], dim=-1)
