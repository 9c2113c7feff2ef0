"""Shaded pictures of point clouds, as a network trained on photographs can read them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.kernels import shaded_views as kernels
from contrast3d.ops.kernels import threads
from contrast3d.ops.kernels.inputs import check_finite
from contrast3d.ops.knn import knn


@dataclass(frozen=True)
class Look:
    """What the pictures look like. The values are those that a linear probe of an ImageNet network's features liked
    best on training shapes of LDraw-40: a white background and planes of many points matter most, the rest little.

    elevation: degrees of the cameras above the horizon; azimuth: degrees of the first. fill: share of the picture
    that the shape takes. surface, background: grey in 0 to 1. ambient: light without direction, the rest falls from
    the upper left in front. darkening: of what lies behind an edge. neighbors: points in a fitted plane.
    disc: radius of a point's disc, as a multiple of the distance to its sixth neighbour. sharp: further fits of each
    plane without what is beyond an edge. smooth: radii over which normals are mixed; behind: radii behind the front
    from which they still are. fine: pixels in each direction that one is the mean of.
    """

    elevation: float = 25.0
    azimuth: float = 30.0
    fill: float = 0.68
    surface: float = 0.75
    background: float = 1.0
    ambient: float = 0.35
    darkening: float = 0.5
    neighbors: int = 40
    disc: float = 0.9
    sharp: int = 2
    smooth: float = 1.8
    behind: float = 1.2
    fine: int = 1

    def __post_init__(self):
        if not (0 < self.fill <= 1 and self.neighbors >= 3 and self.disc > 0 and self.fine >= 1):
            raise ConfigError(f"{self}: expected 0 < fill <= 1, 3 neighbours or more, disc > 0, fine >= 1")


LOOK = Look()
LIGHT = (-0.45, -0.62, 0.64)  # right, down, towards the viewer


@torch.no_grad()
def shaded_views(
    points: Float[Tensor, "b n 3"], num_views: int = 8, size: int = 224, look: Look = LOOK
) -> Float[Tensor, "b v 3 h w"]:
    """(B, K, 3, size, size) float32 pictures in 0 to 1 of each cloud, from K places around it, z up.

    The cameras are level turns of each other, evenly spaced, `look.elevation` degrees above the horizon; lines stay
    parallel, and every picture is filled alike. A point is drawn as a disc in the plane of its neighbours (surface
    splatting, Zwicker et al. 2001), large enough to touch them; normals are averaged over the front discs of a
    pixel, lit from both sides (Lambert), and darkened where a nearer surface is beside (Luft et al. 2006).

    Drawn on the CPU, result on the points' device. A shape's pictures do not depend on the rest of the batch.
    Raises DataError for fewer than three points, no views, an empty picture, or values that are not finite.
    """
    b, n, _ = points.shape
    if n < 3 or num_views < 1 or size < 8:
        found = f"{n} points, {num_views} views of {size} pixels"
        raise DataError("shaded_views", found, "3 points or more, a view or more, of 8 pixels or more")
    cloud = points.detach().float().cpu().contiguous()
    check_finite("points", cloud.numpy())
    near = knn(cloud, min(n, max(look.neighbors, 7)))
    normals, radii = np.empty((b, n, 3), np.float32), _radii(cloud, near, look.disc)
    around = near[..., : look.neighbors].contiguous().numpy()
    threads.run(kernels.surfels, b, cloud.numpy(), around, look.sharp, normals)
    fine = size * look.fine
    grey = np.empty((b * num_views, fine, fine), np.float32)
    light = np.array(LIGHT) / math.hypot(*LIGHT)
    lit = np.array([look.surface, look.background, look.ambient, look.darkening, *light])
    threads.run(kernels.draw_views, b * num_views, cloud.numpy(), normals, radii, _cameras(num_views, look), look.fill,
                look.smooth, look.behind, lit, grey)
    pictures = torch.from_numpy(grey)[:, None]
    pictures = avg_pool2d(pictures, look.fine) if look.fine > 1 else pictures
    return pictures.view(b, num_views, 1, size, size).expand(-1, -1, 3, -1, -1).to(points.device)


def _radii(points: Tensor, near: Tensor, disc: float) -> np.ndarray:
    """(B, N) how far a point's disc reaches: to about its sixth neighbour, and not beyond three times the usual."""
    sixth = near[..., min(6, near.shape[-1] - 1)]
    reach = (points - points.gather(1, sixth[..., None].expand_as(points))).norm(dim=-1)
    usual = reach.median(1, keepdim=True).values
    return (disc * reach.clamp(min=usual / 3, max=1.5 * usual)).numpy()


def _cameras(count: int, look: Look) -> np.ndarray:
    """(K, 3, 3) rows right, down and towards the viewer."""
    turns = [math.radians(look.azimuth + 360 * i / count) for i in range(count)]
    s, c = math.sin(math.radians(look.elevation)), math.cos(math.radians(look.elevation))
    return np.array([
        [[-math.sin(a), math.cos(a), 0], [s * math.cos(a), s * math.sin(a), -c], [c * math.cos(a), c * math.sin(a), s]]
        for a in turns
    ])
