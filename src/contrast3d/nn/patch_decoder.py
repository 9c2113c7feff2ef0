"""The decoder of masked reconstruction: hidden patches from visible tokens (Pang et al., ECCV 2022)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contrast3d.nn.attention import Block
from contrast3d.nn.linear import Linear


class PatchDecoder(nn.Module):
    """Standard blocks over visible tokens and mask tokens, each with its center's position; then points of a patch.

    width: of the tokens, which does not change. patch_size: points per patch.
    """

    def __init__(self, width: int, depth: int = 4, num_heads: int = 6, patch_size: int = 32, drop_path: float = 0.1):
        super().__init__()
        self.mask_token = nn.Parameter(torch.empty(width))
        self.position = nn.Sequential(nn.Linear(3, 128), nn.GELU(), Linear(128, width))
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(width, num_heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(width)
        self.head = Linear(width, 3 * patch_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The mask token and the blocks as released; positions and head keep torch's own."""
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self, tokens: Float[Tensor, "b v c"], centers: Float[Tensor, "b v 3"], hidden: Float[Tensor, "b m 3"]
    ) -> Float[Tensor, "b m k 3"]:
        """Points of the patches whose centers are `hidden`, relative to them."""
        b, m, _ = hidden.shape
        position = self.position(torch.cat([centers, hidden], 1))
        x = torch.cat([tokens, self.mask_token.to(tokens.dtype).expand(b, m, -1)], 1)
        nothing = x[:, :0]
        for block in self.blocks:
            x = block(nothing, x + position)[1]
        return self.head(self.norm(x[:, -m:])).view(b, m, -1, 3)
