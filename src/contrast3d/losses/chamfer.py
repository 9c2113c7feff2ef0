"""The Chamfer losses of masked reconstruction."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from contrast3d.ops.chamfer import chamfer


def chamfer_l2(predicted: Float[Tensor, "b n 3"], target: Float[Tensor, "b m 3"]) -> Float[Tensor, ""]:
    """mean_i min_j |p_i - t_j|^2 + mean_j min_i |p_i - t_j|^2 (Pang et al., ECCV 2022, eq. 3), over all sets.

    predicted (B, N, 3), target (B, M, 3): a set for each hidden patch, relative to its center. Both get gradients.
    """
    there, back = chamfer(predicted, target)
    return there + back


def chamfer_l1(predicted: Float[Tensor, "b n 3"], target: Float[Tensor, "b m 3"]) -> Float[Tensor, ""]:
    """(mean_i min_j |p_i - t_j| + mean_j min_i |p_i - t_j|) / 2, over all sets: `chamfer_l2`'s kin under the root.

    Distances of zero get no gradient, where the formula has none to give.
    """
    there, back = chamfer(predicted, target, root=True)
    return (there + back) / 2
