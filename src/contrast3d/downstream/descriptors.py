"""A training-free description of a shape: what plain geometry tells before anything is learnt."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.data.shapes import ShapeSet


def d2_histogram(
    points: Float[Tensor, "b n 3"], bins: int = 64, most_points: int = 256
) -> Float[Tensor, "b bins"]:
    """Shares of the pairwise distances of unit-sphere shapes in equal bins over [0, 2] (D2, Osada 2002).

    Of each shape, `most_points` points at equal steps of its order are paired, all with all.
    """
    n = points.shape[1]
    rows = torch.linspace(0, n - 1, min(n, most_points), device=points.device).round().long()
    chosen = points[:, rows]
    first, second = torch.triu_indices(len(rows), len(rows), 1, device=points.device)
    distances = torch.cdist(chosen, chosen)[:, first, second]
    cell = (distances * (bins / 2)).long().clamp_max(bins - 1)
    counts = points.new_zeros(len(points), bins).scatter_add_(1, cell, torch.ones_like(distances))
    return counts / max(len(first), 1)


def voxel_occupancy(points: Float[Tensor, "b n 3"], resolution: int = 12) -> Float[Tensor, "b cells"]:
    """1 where a voxel of the grid over [-1, 1]^3 holds a point, else 0; (B, resolution^3), x slowest."""
    cell = ((points + 1) * (resolution / 2)).long().clamp(0, resolution - 1)
    flat = (cell[..., 0] * resolution + cell[..., 1]) * resolution + cell[..., 2]
    return points.new_zeros(len(points), resolution**3).scatter_(1, flat, 1.0)


def unit_sphere(points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
    """Centre each shape by its bounding box and scale its farthest point to radius one."""
    centred = points - (points.amax(1, keepdim=True) + points.amin(1, keepdim=True)) / 2
    return centred / centred.norm(dim=2).amax(1).clamp_min(1e-12)[:, None, None]


def geometric(shapes: ShapeSet, batch_size: int = 64) -> Float[Tensor, "s d"]:
    """D2 histogram and 12^3 voxel occupancy of the normalised shapes, (S, 1792)."""
    return torch.cat([
        torch.cat([d2_histogram(p), voxel_occupancy(p)], 1)
        for p in map(unit_sphere, shapes.points.split(batch_size))
    ])
