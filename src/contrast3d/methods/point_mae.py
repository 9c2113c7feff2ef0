"""Point-MAE: hide most patches of a cloud, encode the rest, reconstruct what was hidden (Pang et al., ECCV 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.losses.chamfer import chamfer_l1, chamfer_l2
from contrast3d.methods.contract import check_encoder
from contrast3d.nn.patch_decoder import PatchDecoder
from contrast3d.nn.patch_transformer import Encoded
from contrast3d.nn.patches import Patches, block_mask, random_mask, select
from contrast3d.nn.rebuild import Rebuildable
from contrast3d.types import Clouds

CHAMFER = {"chamfer-l1": chamfer_l1, "chamfer-l2": chamfer_l2}
OF_PATCHES = ("patches", "encode", "project", "num_patches", "patch_size", "width", "queries", "projections")


@dataclass(frozen=True)
class Reconstruction:
    """patches: of the clouds. mask: (B, G), True = hidden. hidden: (B, M, K, 3) predicted, relative to centers."""

    patches: Patches
    mask: Bool[Tensor, "b g"]
    hidden: Float[Tensor, "b m k 3"]


class PointMAE(Rebuildable):
    """Masked reconstruction with an encoder that gives `tokens`: a `nn.PatchTransformer`, with any queries or none.

    mask_ratio: of the patches, hidden. mask: "random", or "block" for neighbouring patches.
    decoder_depth, decoder_heads: of the decoder; 0 heads makes them 64 wide, as the papers' are.
    loss: "chamfer-l2" or "chamfer-l1", on points relative to their centers.

    With ReCon's block this is the Point-MAE that ReCon's tables mark with a dagger: its queries learn nothing.
    """

    views = 1
    needs = frozenset({"tokens"})
    stop_gradient = False

    def __init__(self, encoder: nn.Module, mask_ratio: float = 0.6, mask: Literal["random", "block"] = "random",
                 decoder_depth: int = 4, decoder_heads: int = 0, decoder_drop_path: float = 0.1,
                 loss: Literal["chamfer-l2", "chamfer-l1"] = "chamfer-l2"):
        super().__init__()
        check_encoder(type(self), encoder)
        missing = [name for name in OF_PATCHES if not hasattr(encoder, name)]
        if missing:
            raise ConfigError(f"{type(self).__name__}: {type(encoder).__name__} has no {', '.join(missing)}; expected "
                              "an encoder of patches, such as nn.PatchTransformer")
        hidden = int(mask_ratio * encoder.num_patches)
        if not 1 <= hidden < encoder.num_patches:
            raise ConfigError(f"mask_ratio = {mask_ratio} hides {hidden} of {encoder.num_patches} patches; expected at "
                              "least one hidden and one visible")
        if loss not in CHAMFER or mask not in ("random", "block"):
            raise ConfigError(f"loss = {loss!r}, mask = {mask!r}; expected one of {tuple(CHAMFER)}, random or block")
        self.encoder, self.mask_ratio, self.mask, self.loss = encoder, mask_ratio, mask, loss
        heads = decoder_heads or max(1, encoder.width // 64)
        self.decoder = PatchDecoder(encoder.width, decoder_depth, heads, encoder.patch_size, decoder_drop_path)

    def forward(self, batch: Sequence[Clouds]) -> dict[str, Tensor]:
        """batch: one view of each shape, dense."""
        (clouds,) = batch
        patches = self.encoder.patches(clouds)
        mask = self.draw_mask(patches)
        encoded = self.encoder.encode(patches, mask, detach=self.stop_gradient)
        return self.objective(clouds, patches, mask, encoded)

    def draw_mask(self, patches: Patches) -> Bool[Tensor, "b g"]:
        """What to hide, from torch's generator."""
        if self.mask == "block":
            return block_mask(patches.centers, self.mask_ratio)
        return random_mask(*patches.centers.shape[:2], self.mask_ratio, patches.centers.device)

    def objective(
        self, clouds: Clouds, patches: Patches, mask: Bool[Tensor, "b g"], encoded: Encoded
    ) -> dict[str, Tensor]:
        """The loss of an encoding, and its parts."""
        loss = self.reconstruction_loss(patches, mask, self.decode(patches, mask, encoded))
        idle = sum(q.sum() for q in encoded.queries.values())  # they get a gradient, of zero: ranks stay in step
        return {"loss": loss + 0 * idle, "reconstruction": loss.detach()}

    def decode(self, patches: Patches, mask: Bool[Tensor, "b g"], encoded: Encoded) -> Float[Tensor, "b m k 3"]:
        """Points of the hidden patches, relative to their centers."""
        return self.decoder(encoded.tokens, encoded.centers, select(patches.centers, mask))

    def reconstruction_loss(self, patches: Patches, mask: Bool[Tensor, "b g"], hidden: Tensor) -> Tensor:
        """Chamfer distance of predicted and true hidden patches."""
        true = select(patches.points, mask)
        return CHAMFER[self.loss](hidden.flatten(0, 1).to(true.dtype), true.flatten(0, 1))

    @torch.no_grad()
    def reconstruct(self, clouds: Clouds, mask: Bool[Tensor, "b g"] | None = None) -> Reconstruction:
        """Hide patches of the clouds, drawn where no mask is given, and predict them."""
        patches = self.encoder.patches(clouds)
        mask = self.draw_mask(patches) if mask is None else mask
        return Reconstruction(patches, mask, self.decode(patches, mask, self.encoder.encode(patches, mask)))
