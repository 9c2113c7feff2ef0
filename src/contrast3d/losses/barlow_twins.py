"""The redundancy-reduction loss of Barlow Twins."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.collective import gather_rows

VARIANCE_FLOOR = 1e-5


def barlow_twins(
    first: Float[Tensor, "b d"], second: Float[Tensor, "b d"], off_diagonal: float = 0.0051
) -> Float[Tensor, ""]:
    """sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2 (Zbontar et al., 2021, eq. 1).

    C (D, D): correlation of column i of the first view with column j of the second, over the batch of all
    processes, of standard deviations sqrt(var + 1e-5), as the batch norm of the released code has them: columns
    that do not vary correlate with nothing, and their gradients stay small.
    """
    wide = torch.promote_types(first.dtype, torch.float32)
    with torch.autocast(first.device.type, enabled=False):
        a, b = (_standardised(gather_rows(z.to(wide))) for z in (first, second))
        correlation = a.T @ b / len(a)
        on = correlation.diagonal()
        return (1 - on).square().sum() + off_diagonal * (correlation.square().sum() - on.square().sum())


def _standardised(z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    if len(z) < 2:
        raise DataError("barlow_twins", "a batch of one", "at least two shapes: correlations need a batch")
    z = z - z.mean(0)
    return z * (z.square().mean(0) + VARIANCE_FLOOR).rsqrt()
