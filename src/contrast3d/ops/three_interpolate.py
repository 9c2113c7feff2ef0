"""Features at new places from the features of the nearest points."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.ops.gather import gather
from contrast3d.ops.knn import knn


def three_interpolate(
    points: Float[Tensor, "b n 3"],
    features: Float[Tensor, "b n c"],
    queries: Float[Tensor, "b m 3"],
    eps: float = 1e-8,
) -> Float[Tensor, "b m c"]:
    """Features (B, M, C) at the queries: the three nearest points' mean, weighted by 1 / (d^2 + eps).

    PointNet++ (Qi et al. 2017, eq. 2 with p = 2, k = 3): feature propagation to a denser cloud. A cloud of one
    or two points uses what there is. Weights are computed in float32 (float64 for float64 input).

    Differentiable in the features and, where they require it, in the coordinates; the choice of the three is
    held fixed. (Common CUDA implementations differentiate in the features only.)
    """
    index = knn(points, min(3, points.shape[1]), queries)
    dtype = torch.promote_types(points.dtype, torch.float32)
    offsets = gather(points, index).to(dtype) - queries[:, :, None].to(dtype)
    weights = 1 / (offsets.square().sum(-1, keepdim=True) + eps)
    weights = (weights / weights.sum(2, keepdim=True)).to(features.dtype)
    # one neighbour at a time: (B, M, C) in memory rather than (B, M, 3, C)
    return sum(weights[:, :, i] * gather(features, index[:, :, i]) for i in range(index.shape[2]))
