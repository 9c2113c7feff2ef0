"""InfoNCE between shapes and what a teacher of another modality says of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.losses.feature_regression import known_in_all
from contrast3d.ops.collective import gather_rows, rank, world_size

SAME = 1e-5  # 1 - cosine up to which two targets are one: far above rounding, far below two captions that differ


def cross_modal_info_nce(
    projections: Float[Tensor, "b d"], targets: Float[Tensor, "b d"], temperature: float = 0.07
) -> Float[Tensor, ""]:
    """Half the mean over i of -log( exp(p_i.t_i / T) / sum over j of exp(p_i.t_j / T) ), and half that of t_i.p_j.

    p, t: unit vectors of the projections and the teacher's features (Radford et al., 2021). In both sums j = i or
    the targets of i and j differ: two shapes of one caption are not each other's negatives. Rows whose target holds a
    NaN are left out. Targets get no gradient. Zero, with a gradient of zero, where all are left out.

    The batch is that of all processes; the mean over ranks of this loss is that of the joined batch. Memory is
    O(B^2).
    """
    if not temperature > 0:
        raise DataError("temperature", f"{temperature}", "a positive number")
    wide = torch.promote_types(projections.dtype, torch.float32)
    with torch.autocast(projections.device.type, enabled=False):
        targets = targets.detach().to(wide)
        known = ~targets.isnan().any(1)
        p, t = F.normalize(projections.to(wide), dim=1), F.normalize(targets.nan_to_num(0), dim=1)
        all_p, all_t = gather_rows(p), gather_rows(t)
        left_out = ~_comparable(t, all_t, gather_rows(known))
        positive = (p * t).sum(1) / temperature
        there, back = ((x @ y.T / temperature).masked_fill(left_out, -torch.inf).logsumexp(1) - positive
                       for x, y in ((p, all_t), (t, all_p)))
        return ((there + back) / 2 * known).sum() * world_size() / known_in_all(known)


def _comparable(
    targets: Float[Tensor, "b d"], all_targets: Float[Tensor, "w d"], known: Bool[Tensor, "w"]
) -> Bool[Tensor, "b w"]:
    """Which of all rows each own row is told apart from: itself, and those of another target."""
    other = (targets @ all_targets.T < 1 - SAME) & known
    itself = rank() * len(targets) + torch.arange(len(targets), device=targets.device)
    return other.scatter(1, itself[:, None], True)
