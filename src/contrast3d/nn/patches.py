"""Clouds as patches: grouping, masks, and the mini-PointNet that makes a token of each (Yu et al., CVPR 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from contrast3d.errors import DataError
from contrast3d.nn.batch_norm import BatchNorm
from contrast3d.ops.farthest_point_sampling import farthest_point_sampling
from contrast3d.ops.gather import gather
from contrast3d.ops.knn import knn
from contrast3d.ops.offsets import offsets
from contrast3d.ops.patch_embed import PatchWeights, Running, patch_embed

ORIGIN = 1e-3  # squared norm up to which the released sampling never picks a point, the first one aside


@dataclass(frozen=True)
class Patches:
    """G patches of K points of each of B clouds.

    centers: (B, G, 3). points: (B, G, K, 3) relative to their center. index: (B, G, K) rows of the cloud's points.
    """

    centers: Float[Tensor, "b g 3"]
    points: Float[Tensor, "b g k 3"]
    index: Int[Tensor, "b g k"]


@torch.no_grad()
def group(points: Float[Tensor, "b n 3"], num_patches: int, patch_size: int, skip_origin: bool = False) -> Patches:
    """Centers by farthest-point sampling from the first point, and the `patch_size` points nearest to each.

    Patches overlap and keep the order of the sampling. skip_origin: as the released kernels sample, which never pick a
    point whose squared norm is at most 1e-3, the first one aside.

    Raises DataError for clouds of fewer points than `num_patches` or `patch_size`.
    """
    n, least = points.shape[1], max(num_patches, patch_size)
    if n < least:
        raise DataError("clouds", f"{n} points each", f"at least {least}, for {num_patches} patches of {patch_size}",
                        "fewer or smaller patches (--num-patches, --patch-size), or more points")
    chosen = _away_from_origin(points, num_patches) if skip_origin else farthest_point_sampling(points, num_patches)
    centers = gather(points, chosen)
    index = knn(points, patch_size, centers)
    return Patches(centers, offsets(points, index, centers), index)


def _away_from_origin(points: Tensor, num_patches: int) -> Tensor:
    """The sample (B, G) without points near the origin: the first one again, where no others are left."""
    near = points.square().sum(-1) <= ORIGIN
    moved = torch.where(near[..., None], points[:, :1], points)  # nothing is farther from them than zero then
    chosen = farthest_point_sampling(moved, num_patches)
    return chosen.masked_fill(near.gather(1, chosen), 0)


def random_mask(clouds: int, patches: int, ratio: float, device: torch.device | str = "cpu") -> Bool[Tensor, "b g"]:
    """(B, G), True = hidden: of each cloud floor(ratio G) patches, drawn from torch's generator."""
    keys = torch.rand(clouds, patches).to(device)  # on the CPU, so that all devices draw alike
    return _lowest(keys, int(ratio * patches))


def block_mask(centers: Float[Tensor, "b g 3"], ratio: float) -> Bool[Tensor, "b g"]:
    """(B, G), True = hidden: the floor(ratio G) patches nearest to one center that is drawn for each cloud."""
    b, g, _ = centers.shape
    drawn = torch.randint(g, (b, 1)).to(centers.device)
    return _lowest((centers - gather(centers, drawn)).square().sum(-1), int(ratio * g))


def _lowest(keys: Tensor, count: int) -> Tensor:
    """True at the `count` lowest keys of each row."""
    return torch.zeros_like(keys, dtype=torch.bool).scatter(1, keys.argsort(dim=1, stable=True)[:, :count], True)


def select(values: Float[Tensor, "b g *rest"], chosen: Bool[Tensor, "b g"]) -> Float[Tensor, "b v *rest"]:
    """The chosen patches of each cloud, which are equally many, in order."""
    return values[chosen].view(values.shape[0], -1, *values.shape[2:])


class PatchEmbed(nn.Module):
    """A token of each patch: a shared MLP on its points, max, the same again with the max beside each point.

    3 -> 128 -> 256, max, [max, point] 512 -> 512 -> width, max (Point-BERT, Yu et al. 2022, section 3.1). Batch norm
    after the first and the third layer sees the points of all patches, hidden ones too.
    """

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Linear(3, 128), BatchNorm(128)
        self.conv2 = nn.Linear(128, 256)
        self.conv3, self.norm2 = nn.Linear(512, 512), BatchNorm(512)
        self.conv4 = nn.Linear(512, width)

    def forward(self, points: Float[Tensor, "b g k 3"], visible: Bool[Tensor, "b g"] | None = None) -> Tensor:
        """Patches (B, G, K, 3) -> tokens (B, V, C) of those that are visible, equally many of each cloud."""
        norms = self.norm1, self.norm2
        if self.training:
            for norm in norms:
                norm.num_batches_tracked += 1
        one, two, three, four = ((conv.weight, conv.bias) for conv in (self.conv1, self.conv2, self.conv3, self.conv4))
        first, second = ((norm.weight, norm.bias) for norm in norms)
        running = Running(*(t for norm in norms for t in (norm.running_mean, norm.running_var)))
        return patch_embed(points, PatchWeights(*one, *first, *two, *three, *second, *four), running, self.training,
                           visible, self.norm1.momentum, self.norm1.eps)
