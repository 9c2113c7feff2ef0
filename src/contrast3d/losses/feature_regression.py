"""Regression of a teacher's features: ReCon's cross-modal loss, which is no contrast, whatever its name there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from contrast3d.ops.collective import world_size, world_sum_


def feature_regression(predictions: Float[Tensor, "b d"], targets: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Mean over rows and entries of r^2 / 2 where |r| < 1, else |r| - 1/2, r = prediction - target (Qi et al., 2023).

    Neither side is normalised and there are no negatives, as released. Rows whose target holds a NaN, shapes that have
    no image or no caption, are left out: of the mean too, over the rows of all processes, so that the mean over ranks
    of this loss is that of the joined batch. Zero, with a gradient of zero, where all are.
    """
    wide = torch.promote_types(predictions.dtype, torch.float32)
    with torch.autocast(predictions.device.type, enabled=False):
        predictions, targets = predictions.to(wide), targets.detach().to(wide)
        known = ~targets.isnan().any(1)
        targets = torch.where(known[:, None], targets, predictions.detach())
        total = F.smooth_l1_loss(predictions, targets, reduction="sum")
        return total * world_size() / (known_in_all(known) * max(predictions.shape[1], 1))


def known_in_all(known: Bool[Tensor, "b"]) -> Float[Tensor, ""]:
    """How many rows of all processes are known, 1 where none is."""
    return world_sum_(known.sum().to(torch.float32)).clamp(min=1)
