"""`PatchTransformer`: tokens of patches, and named queries beside them. One vocabulary for Point-MAE and ReCon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.nn.attention import Block, Order, TwoStreamBlock
from contrast3d.nn.linear import Linear
from contrast3d.nn.patches import PatchEmbed, Patches, group, select
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.types import Clouds, Features

PRESETS = {  # of ReCon (Qi et al. 2023): heads of 64 channels
    "tiny": {"width": 192, "num_heads": 3}, "small": {"width": 256, "num_heads": 4},
    "base": {"width": 384, "num_heads": 6},
}
POOLINGS = ("queries-max", "max", "mean", "max+mean")


@dataclass(frozen=True)
class Encoded:
    """What `PatchTransformer.encode` returns.

    queries: (B, C) by name. tokens: (B, V, C) of the visible patches, in order; centers: (B, V, 3) of these.
    levels: tokens after some of the blocks, before the last norm.
    """

    queries: dict[str, Float[Tensor, "b c"]]
    tokens: Float[Tensor, "b v c"]
    centers: Float[Tensor, "b v 3"]
    levels: list[Float[Tensor, "b v c"]] = field(default_factory=list)


class PatchTransformer(Rebuildable):
    """The transformer of Point-MAE (Pang et al., ECCV 2022) and ReCon (Qi et al., ICML 2023) on dense clouds.

    width, depth, num_heads: of the transformer; see PRESETS. num_patches, patch_size: of the grouping; the papers take
        64 of 1,024 points, 128 of 2,048, 512 of 8,192, of 32 points each.
    queries: names of learned tokens, in their order. block: "two-stream" (ReCon: queries see tokens and not the
        reverse) or "standard" (queries are tokens like others). order: of the two-stream block.
    readout: what `pooled` joins: "queries", the query of a name, "queries-max", and "max", "mean", "max+mean" (their
        sum) over tokens. May be set at any time.
    projections: of a query, the width of the space that it is compared in: a teacher's.
    skip_origin: sample patches as the released kernels do.

    With queries ("cls", "img", "text") this is ReCon's, with none Point-MAE's; the latter is fine-tuned with a fresh
    "cls" (see `with_queries`). Positions are added before every block. Names of parts: `tokens` and
    `token_positions` are of the queries, since tokens, being vectors, are exempt from weight decay, as released.
    """

    gives = frozenset({"pooled", "tokens"})

    def __init__(self, width: int = 384, depth: int = 12, num_heads: int = 6, num_patches: int = 64,
                 patch_size: int = 32, queries: Sequence[str] = ("cls", "img", "text"),
                 block: Literal["two-stream", "standard"] = "two-stream", order: Order = "released",
                 drop_path: float = 0.1, readout: Sequence[str] = ("queries", "max"),
                 projections: Mapping[str, int] | None = None, skip_origin: bool = False):
        super().__init__()
        projections = dict(projections or {})
        _check(width, depth, num_heads, num_patches, patch_size, tuple(queries), block, projections)
        self.width, self.num_patches, self.patch_size, self.skip_origin = width, num_patches, patch_size, skip_origin
        self.queries, self.block = tuple(queries), block
        self.embed = PatchEmbed(width)
        self.position = nn.Sequential(nn.Linear(3, 128), nn.GELU(), Linear(128, width))
        self.tokens = nn.ParameterDict({name: nn.Parameter(torch.empty(width)) for name in queries})
        self.token_positions = nn.ParameterDict({name: nn.Parameter(torch.empty(1, width)) for name in queries})
        make = Block if block == "standard" else lambda *a: TwoStreamBlock(*a, order=order)
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(make(width, num_heads, rate) for rate in rates)
        self.norm = nn.LayerNorm(width)
        self.projections = nn.ModuleDict({name: Linear(width, d) for name, d in projections.items()})
        self.reset_parameters()
        self.readout = tuple(readout)

    def reset_parameters(self) -> None:
        """Linear layers and queries as released; other parts keep what they have."""
        self.apply(_initialise)
        for parameter in (*self.tokens.values(), *self.token_positions.values()):
            nn.init.trunc_normal_(parameter, std=0.02)

    @property
    def readout(self) -> tuple[str, ...]:
        """What `pooled` joins."""
        return self._readout

    @readout.setter
    def readout(self, parts: Sequence[str]) -> None:
        known = {*self.queries, *POOLINGS[1:], *(("queries", "queries-max") if self.queries else ())}
        if not parts or set(parts) - known:
            raise ConfigError(f"readout = {tuple(parts)}; expected a choice of {', '.join(sorted(known))}")
        self._readout = tuple(parts)

    @property
    def embed_dim(self) -> int:
        """Width of `pooled`."""
        return self.width * sum(len(self.queries) if part == "queries" else 1 for part in self.readout)

    def patches(self, clouds: Clouds) -> Patches:
        """The patches of dense clouds."""
        return group(clouds.dense, self.num_patches, self.patch_size, self.skip_origin)

    def forward(self, clouds: Clouds) -> Features:
        encoded = self.encode(self.patches(clouds))
        return Features(pooled=self.read(encoded), tokens=encoded.tokens)

    def encode(
        self, patches: Patches, mask: Bool[Tensor, "b g"] | None = None, detach: bool = False,
        levels: Sequence[int] = (),
    ) -> Encoded:
        """Tokens and queries of the patches that `mask` does not hide, as many of each cloud.

        detach: stop the gradient from queries to tokens. levels: blocks, counted from 1, whose tokens are returned.
        """
        visible = None if mask is None else ~mask
        x = self.embed(patches.points, visible)
        centers = patches.centers if visible is None else select(patches.centers, visible)
        position, q, q_position = self.position(centers), *self._fresh_queries(centers.shape[0])
        kept = []
        for number, block in enumerate(self.blocks, 1):
            q, x = block(q + q_position, x + position, detach)
            if number in levels:
                kept.append(x)
        q, x = self.norm(q), self.norm(x)
        return Encoded({name: q[:, i] for i, name in enumerate(self.queries)}, x, centers, kept)

    def _fresh_queries(self, clouds: int) -> tuple[Tensor, Tensor]:
        """(B, Q, C) queries as they enter, and (Q, C) their positions."""
        if not self.queries:
            nothing = self.norm.weight.new_empty(0, self.width)
            return nothing.expand(clouds, 0, self.width), nothing
        tokens = torch.stack([self.tokens[name] for name in self.queries])
        return tokens.expand(clouds, *tokens.shape), torch.cat([self.token_positions[name] for name in self.queries])

    def read(self, encoded: Encoded) -> Float[Tensor, "b d"]:
        """The parts of the readout, side by side."""
        tokens, parts = encoded.tokens, []
        for part in self.readout:
            if part == "queries":
                parts += encoded.queries.values()
            elif part == "queries-max":
                parts.append(torch.stack(list(encoded.queries.values())).amax(0))
            elif part in self.queries:
                parts.append(encoded.queries[part])
            else:
                pools = {"max": tokens.amax(1)} if "max" in part else {}
                pools |= {"mean": tokens.mean(1)} if "mean" in part else {}
                parts.append(sum(pools.values()))
        return torch.cat(parts, 1)

    def project(self, encoded: Encoded) -> dict[str, Float[Tensor, "b d"]]:
        """Each query that has a projection, in its teacher's space."""
        return {name: layer(encoded.queries[name]) for name, layer in self.projections.items()}

    @torch.no_grad()
    def attention(self, patches: Patches, block: int = -1) -> tuple[dict[str, Tensor], Float[Tensor, "b g g"]]:
        """Attention in a block, the mean over heads: of each query (B, G) and of each token (B, G, G) over tokens."""
        x, position, (q, q_position) = (
            self.embed(patches.points), self.position(patches.centers), self._fresh_queries(patches.centers.shape[0]))
        depth = len(self.blocks)
        if not -depth <= block < depth:
            raise ConfigError(f"block {block} of {depth}; expected one from {-depth} to {depth - 1}")
        *before, wanted = self.blocks[: block % depth + 1]
        for each in before:
            q, x = each(q + q_position, x + position)
        of_queries, of_tokens = wanted.weights(q + q_position, x + position)
        return dict(zip(self.queries, of_queries.unbind(1))), of_tokens

    def with_queries(self, *names: str, readout: Sequence[str]) -> PatchTransformer:
        """A copy with these queries: those that it has already keep their weights, the others are fresh."""
        copy = type(self)(**{**self.kwargs, "queries": names, "readout": tuple(readout)})
        copy.load_state_dict(self.state_dict(), strict=False)
        return copy.to(self.norm.weight.device)


def _initialise(module: nn.Module) -> None:
    """Truncated normals of deviation 0.02, biases zero, as released."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check(
    width: int, depth: int, num_heads: int, num_patches: int, patch_size: int, queries: tuple[str, ...], block: str,
    projections: dict[str, int],
) -> None:
    if min(width, depth, num_heads, num_patches, patch_size) < 1 or width % num_heads:
        raise ConfigError(f"PatchTransformer: width = {width}, depth = {depth}, num_heads = {num_heads}, num_patches = "
                          f"{num_patches}, patch_size = {patch_size}; expected at least 1 each, and heads that divide "
                          "the width")
    if block not in ("two-stream", "standard"):
        raise ConfigError(f"block = {block!r}; expected 'two-stream' or 'standard'")
    if block == "two-stream" and not queries:
        raise ConfigError("two-stream blocks without queries: one stream would be empty. Try: block = 'standard'")
    odd = set(queries) & {"queries", *POOLINGS}
    if odd or len(set(queries)) < len(queries):
        raise ConfigError(f"queries = {queries}; expected different names, and none of queries, {', '.join(POOLINGS)}")
    if set(projections) - set(queries):
        raise ConfigError(f"projections of {', '.join(projections)}, but the queries are {queries}")
