"""`TwoTowers`: one network reconstructs, another learns from teachers: an ablation of ReCon (Qi et al., ICML 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Bool
from torch import Tensor

from contrast3d.nn.patch_transformer import Encoded, PatchTransformer
from contrast3d.nn.patches import Patches
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.types import Clouds, Features


class TwoTowers(Rebuildable):
    """Two patch transformers that share nothing, in the place of one with two streams.

    The first sees visible patches, as Point-MAE's; the second all of them, with `queries` as tokens among others.
    Arguments are those of `PatchTransformer`; the tokens are the first tower's, the queries the second's.
    """

    gives = frozenset({"pooled", "tokens"})

    def __init__(self, width: int = 384, depth: int = 12, num_heads: int = 6, num_patches: int = 64,
                 patch_size: int = 32, queries: Sequence[str] = ("cls", "img", "text"), drop_path: float = 0.1,
                 readout: Sequence[str] = ("queries", "max"), projections: Mapping[str, int] | None = None,
                 skip_origin: bool = False):
        super().__init__()
        self.width, self.num_patches, self.patch_size, self.queries = width, num_patches, patch_size, tuple(queries)
        shared = {"width": width, "depth": depth, "num_heads": num_heads, "num_patches": num_patches,
                  "patch_size": patch_size, "block": "standard", "drop_path": drop_path, "skip_origin": skip_origin}
        self.local = PatchTransformer(queries=(), readout=("max",), **shared)
        self.asked = PatchTransformer(queries=queries, readout=readout, projections=projections, **shared)
        self.projections = self.asked.projections

    @property
    def readout(self) -> tuple[str, ...]:
        """What `pooled` joins: queries of the second tower, poolings of the first one's tokens."""
        return self.asked.readout

    @readout.setter
    def readout(self, parts: Sequence[str]) -> None:
        self.asked.readout = parts

    @property
    def embed_dim(self) -> int:
        """Width of `pooled`."""
        return self.asked.embed_dim

    def patches(self, clouds: Clouds) -> Patches:
        """The patches of dense clouds, of both towers."""
        return self.local.patches(clouds)

    def forward(self, clouds: Clouds) -> Features:
        encoded = self.encode(self.patches(clouds))
        return Features(pooled=self.read(encoded), tokens=encoded.tokens)

    def encode(
        self, patches: Patches, mask: Bool[Tensor, "b g"] | None = None, detach: bool = False,
        levels: Sequence[int] = (),
    ) -> Encoded:
        """As `PatchTransformer.encode`; detach is of no effect, nothing flows between towers."""
        local, asked = self.local.encode(patches, mask, levels=levels), self.asked.encode(patches)
        return Encoded(asked.queries, local.tokens, local.centers, local.levels)

    def read(self, encoded: Encoded) -> Tensor:
        """The parts of the readout, side by side."""
        return self.asked.read(encoded)

    def project(self, encoded: Encoded) -> dict[str, Tensor]:
        """Each query that has a projection, in its teacher's space."""
        return self.asked.project(encoded)
