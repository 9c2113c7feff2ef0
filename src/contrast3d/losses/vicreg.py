"""The variance-invariance-covariance loss of VICReg."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.collective import gather_rows


def vicreg(
    first: Float[Tensor, "b d"], second: Float[Tensor, "b d"], invariance: float = 25.0, variance: float = 25.0,
    covariance: float = 1.0,
) -> Float[Tensor, ""]:
    """lambda s(Z, Z') + mu (v(Z) + v(Z')) + nu (c(Z) + c(Z')) (Bardes et al., 2022, eq. 6).

    s: mean squared distance per entry, as the released code has it. v: mean over columns of
    max(0, 1 - sqrt(var + 1e-4)), halved as in the released code. c: sum over i != j of cov_ij^2, over D.
    The batch is that of all processes.
    """
    wide = torch.promote_types(first.dtype, torch.float32)
    if len(first) < 1:
        raise DataError("vicreg", "an empty batch", "at least two shapes")
    with torch.autocast(first.device.type, enabled=False):
        a, b = (gather_rows(z.to(wide)) for z in (first, second))
        if len(a) < 2:
            raise DataError("vicreg", "a batch of one", "at least two shapes: variances need a batch")
        spread = sum(F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() for z in (a, b)) / 2
        return invariance * F.mse_loss(a, b) + variance * spread + covariance * sum(map(_covariance, (a, b)))


def _covariance(z: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    z = z - z.mean(0)
    matrix = z.T @ z / (len(z) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / z.shape[1]
