"""The non-parametric softmax of instance discrimination."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def instance_softmax(
    projections: Float[Tensor, "b d"], rows: Int[Tensor, " b"], bank: Float[Tensor, "s d"], temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Mean over i of -log( exp(v_i.w_rows(i) / t) / sum over j of exp(v_i.w_j / t) ) (Wu et al., 2018, eq. 2).

    v: the projections, normalised here. w: the bank, one unit vector per shape, constant.
    """
    wide = torch.promote_types(projections.dtype, torch.float32)
    with torch.autocast(projections.device.type, enabled=False):
        logits = F.normalize(projections.to(wide), dim=1) @ bank.to(wide).T / temperature
        return F.cross_entropy(logits, rows)
