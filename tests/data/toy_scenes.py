"""Small scenes of overlapping views of one uneven floor, without a camera."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from contrast3d.data.scene_views import SceneViews


def toy_scene(seed: int = 0, views: int = 3, points: int = 700, name: str = "toy") -> SceneViews:
    """Views side by side, each of two metres, of which neighbours share half; all neighbours are pairs."""
    rng = np.random.default_rng(seed)
    poses, clouds = np.tile(np.eye(4), (views, 1, 1)), []
    poses[:, :3, :3] = Rotation.random(views, random_state=seed).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(views, 3)) + np.arange(views)[:, None] * [1, 0, 0]
    for v in range(views):
        x, y = rng.uniform(v, v + 2, points), rng.uniform(0, 1, points)
        world = np.stack([x, y, 0.3 * np.sin(3 * x + seed) * np.cos(2 * y)], 1)
        clouds.append((world - poses[v, :3, 3]) @ poses[v, :3, :3])
    pairs = np.stack([np.arange(views - 1), np.arange(1, views)], 1).astype(np.int64)
    numbers = np.arange(views)
    return SceneViews.of(clouds, poses, name, frames=np.stack([numbers, numbers], 1), pairs=pairs,
                         overlaps=np.full(views - 1, 0.5, np.float32))
