"""The regression loss of BYOL."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def byol(predictions: Float[Tensor, "b d"], targets: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Mean over the batch of || p / |p| - z / |z| ||^2 = 2 - 2 cos(p, z) (Grill et al., 2020, eq. 2)."""
    wide = torch.promote_types(predictions.dtype, torch.float32)
    return (2 - 2 * F.cosine_similarity(predictions.to(wide), targets.to(wide), dim=-1)).mean()
