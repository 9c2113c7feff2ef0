"""Transformer blocks: the standard one, and ReCon's with a stream of tokens and a stream of queries."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.nn.linear import Linear
from contrast3d.ops.attention import cross_attention, self_attention

Order = Literal["released", "paper"]


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values from one layer without bias."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.proj = Linear(width, width)

    def _heads(self, x: Tensor) -> Float[Tensor, "b n 3 h d"]:
        b, n, c = x.shape
        return self.qkv(x).view(b, n, 3, self.num_heads, c // self.num_heads)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        return self.proj(self_attention(self._heads(x)))

    def weights(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n n"]:
        """How much each token attends to each, the mean over heads."""
        q, k, _ = self._heads(x).unbind(2)
        return _weights(q, k)


class CrossAttention(nn.Module):
    """Multi-head attention of queries over tokens."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q = Linear(width, width, bias=False)
        self.kv = Linear(width, 2 * width, bias=False)
        self.proj = Linear(width, width)

    def _heads(self, queries: Tensor, tokens: Tensor) -> tuple[Float[Tensor, "b q h d"], Float[Tensor, "b n 2 h d"]]:
        b, n, c = tokens.shape
        size = c // self.num_heads
        return (self.q(queries).view(b, queries.shape[1], self.num_heads, size),
                self.kv(tokens).view(b, n, 2, self.num_heads, size))

    def forward(self, queries: Float[Tensor, "b q c"], tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b q c"]:
        return self.proj(cross_attention(*self._heads(queries, tokens)))

    def weights(self, queries: Float[Tensor, "b q c"], tokens: Float[Tensor, "b n c"]) -> Float[Tensor, "b q n"]:
        """How much each query attends to each token, the mean over heads."""
        q, kv = self._heads(queries, tokens)
        return _weights(q, kv[:, :, 0])


def _weights(q: Float[Tensor, "b m h d"], k: Float[Tensor, "b n h d"]) -> Float[Tensor, "b m n"]:
    """Softmax of the scaled products, the mean over heads."""
    return (q.transpose(1, 2) @ k.permute(0, 2, 3, 1) * q.shape[-1] ** -0.5).softmax(-1).mean(1)


class Mlp(nn.Module):
    """Two layers, four times as wide between them, with exact GELU."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = Linear(width, 4 * width, activation="gelu"), Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))


class DropPath(nn.Module):
    """Leaves a branch out for a share of the samples, and makes up for it (Huang et al., ECCV 2016)."""

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise ConfigError(f"drop_path = {rate}; expected a share from 0 to below 1")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        kept = torch.rand(len(x)).to(x) >= self.rate  # on the CPU, so that all devices draw alike
        return x * (kept / (1 - self.rate)).view(-1, *[1] * (x.ndim - 1))


class Branch(nn.Module):
    """The layers of one stream of a block."""

    def __init__(self, attention: nn.Module, width: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), attention
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width)


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x)). Queries are tokens like others."""

    def __init__(self, width: int, num_heads: int, drop_path: float = 0.0):
        super().__init__()
        self.local, self.drop_path = Branch(Attention(width, num_heads), width), DropPath(drop_path)

    def forward(self, queries: Tensor, tokens: Tensor, detach: bool = False) -> tuple[Tensor, Tensor]:
        """(B, Q, C) and (B, N, C) -> the same; detach would part what is one stream here: a ConfigError."""
        if detach and queries.shape[1]:
            raise ConfigError("the standard block has one stream: no gradient can be stopped between queries and "
                              "tokens. Try: block = 'two-stream'")
        count = queries.shape[1]
        x = torch.cat([queries, tokens], 1) if count else tokens
        x = x + self.drop_path(self.local.attn(self.local.norm1(x)))
        x = x + self.drop_path(self.local.mlp(self.local.norm2(x)))
        return x[:, :count], x[:, count:]

    def weights(self, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of queries (B, Q, N) and of tokens (B, N, N) over the tokens."""
        found = self.local.attn.weights(self.local.norm1(torch.cat([queries, tokens], 1)))
        found = found[:, :, queries.shape[1] :]
        return found[:, : queries.shape[1]], found[:, queries.shape[1] :]


class TwoStreamBlock(nn.Module):
    """ReCon's block (Qi et al., ICML 2023, section 3.3): tokens see each other, queries see the tokens.

    order: "released", as the published weights were trained: both streams are replaced by their normed values before
    each step, so that the skips begin after the norm, and queries see the tokens as they were before this block's
    self-attention. "paper", as printed: skips begin before the norm, queries see the tokens after it.
    """

    def __init__(self, width: int, num_heads: int, drop_path: float = 0.0, order: Order = "released"):
        super().__init__()
        if order not in ("released", "paper"):
            raise ConfigError(f"order = {order!r}; expected 'released' or 'paper'")
        self.order = order
        self.local = Branch(Attention(width, num_heads), width)
        self.queries = Branch(CrossAttention(width, num_heads), width)
        self.drop_path = DropPath(drop_path)

    def forward(self, queries: Tensor, tokens: Tensor, detach: bool = False) -> tuple[Tensor, Tensor]:
        """(B, Q, C) and (B, N, C) -> the same. detach: no gradient flows from the queries to the tokens."""
        q, x, drop = self.queries, self.local, self.drop_path
        stop = Tensor.detach if detach else lambda tokens: tokens
        if self.order == "released":
            queries, tokens = q.norm1(queries), x.norm1(tokens)
            queries = queries + drop(q.attn(queries, stop(tokens)))
            tokens = tokens + drop(x.attn(tokens))
            queries, tokens = q.norm2(queries), x.norm2(tokens)
            return queries + drop(q.mlp(queries)), tokens + drop(x.mlp(tokens))
        tokens = tokens + drop(x.attn(x.norm1(tokens)))
        queries = queries + drop(q.attn(q.norm1(queries), stop(tokens)))
        return queries + drop(q.mlp(q.norm2(queries))), tokens + drop(x.mlp(x.norm2(tokens)))

    def weights(self, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of queries (B, Q, N) and of tokens (B, N, N) over the tokens."""
        normed = self.local.norm1(tokens)
        seen = normed if self.order == "released" else tokens + self.local.attn(normed)
        return self.queries.attn.weights(self.queries.norm1(queries), seen), self.local.attn.weights(normed)
