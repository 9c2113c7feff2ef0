"""PointInfoNCE: every matched point of one view picks its match of the other view out of all matches."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.losses.info_nce import LogSumExp


def point_info_nce(
    queries: Float[Tensor, "p d"], keys: Float[Tensor, "p d"], temperature: float = 0.4
) -> Float[Tensor, ""]:
    """Mean over i of -log( exp(q_i.k_i / t) / sum over j of exp(q_i.k_j / t) ) (Xie et al. 2020, eq. 2).

    queries, keys: unit vectors of P matched points, row by row. The negatives of a query are the keys of all other
    matches; one way only, as released. Similarities are made in blocks and never stored: memory is O(P d). Zero, with
    a gradient of zero, where there are no pairs.
    """
    if not temperature > 0:
        raise DataError("temperature", f"{temperature}", "a positive number")
    if not len(queries):
        return queries.sum() + keys.sum()
    wide = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        q, k = queries.to(wide), keys.to(wide)
        return (LogSumExp.apply(q, k, None, temperature) - (q * k).sum() / temperature) / len(q)
