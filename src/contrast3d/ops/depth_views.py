"""A depth image as a view: thinned points in the frame of its camera, voxel means in the frame of the scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int16, UInt16

from contrast3d.errors import ConfigError
from contrast3d.ops.kernels.depth_views import CENTRE, read_view

REACH = 32.767  # metres: as far as int16 millimetres go
SATURATED = 65535  # what 7-Scenes and Kinects write where nothing was measured; 0 everywhere
FINEST = 2 * REACH / CENTRE  # metres, of a voxel


def depth_view(
    depth: UInt16[np.ndarray, "h w"], camera: Sequence[float], units: float, pose: Float[np.ndarray, "4 4"],
    thin: float, voxel: float,
) -> tuple[Int16[np.ndarray, "n 3"], Float[np.ndarray, "m 3"]]:
    """((N, 3) int16 millimetres, camera frame; (M, 3) float64 metres, frame of the scene) of one depth image.

    Each pixel that is neither 0 nor 65535 has a point: z = depth / units, x = (u - cx) z / fx + bx, y likewise; those
    beyond 32 m are left out, as int16 cannot hold them. Kept is the first point in each voxel of `thin` metres, all
    at 0, by rows of the image; of all points the mean is taken in each voxel of `voxel` metres.

    camera: fx, fy, cx, cy, bx, by. pose: camera to scene. Raises ConfigError where a voxel is below 0.1 mm.
    """
    if (thin != 0 and not thin >= FINEST) or not voxel >= FINEST:
        raise ConfigError(f"thin = {thin}, voxel = {voxel}; expected {FINEST:.1g} m or more")
    numbers = np.array(camera, np.float64)
    return read_view(np.ascontiguousarray(depth), SATURATED, float(units), numbers, np.ascontiguousarray(pose),
                     float(thin), float(voxel), REACH)
