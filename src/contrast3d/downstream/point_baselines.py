"""What a segmentation must beat without any network: the majority class, and a forest on what each point shows."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from contrast3d.data.scenes import IGNORE, SceneSet
from contrast3d.downstream.segmenter import Scores, as_voxels, score
from contrast3d.errors import DataError
from contrast3d.types import Clouds

NEIGHBOURS = (16, 64)  # points that the shape around a point is taken from
MOST_POINTS = 30_000  # that the forest grows on


def majority(train: SceneSet, test: SceneSet, voxel_size: float) -> Scores:
    """Always the most frequent class of the labelled points of `train`."""
    counts = np.zeros(len(train.classes), np.int64)
    for scene in train.scenes:
        counts += np.bincount(scene.labels[scene.labels != IGNORE], minlength=len(counts))
    most = int(counts.argmax())
    return score(lambda clouds: torch.full((len(clouds.points),), most), test, voxel_size)


def pointwise(train: SceneSet, test: SceneSet, voxel_size: float, seed: int = 0) -> Scores:
    """A random forest on `point_numbers`, grown on at most 30,000 labelled voxels of `train`, drawn evenly."""
    from sklearn.ensemble import RandomForestClassifier

    numbers, labels = [], []
    for scene in train.scenes:
        clouds, _ = as_voxels(scene, voxel_size)
        known = (clouds.point_labels != IGNORE).numpy()
        numbers.append(point_numbers(clouds)[known])
        labels.append(clouds.point_labels.numpy()[known])
    x, y = np.concatenate(numbers), np.concatenate(labels)
    if not len(y):
        raise DataError(train.title, "no labelled points", "at least one")
    rows = np.random.default_rng(seed).permutation(len(y))[:MOST_POINTS]
    forest = RandomForestClassifier(50, min_samples_leaf=5, n_jobs=1, random_state=seed).fit(x[rows], y[rows])
    return score(lambda clouds: torch.from_numpy(forest.predict(point_numbers(clouds))), test, voxel_size)


def point_numbers(clouds: Clouds) -> Float[np.ndarray, "n c"]:
    """(N, C) of one scene: height, colour, and at each of NEIGHBOURS the linearity, planarity and scattering of the
    neighbourhood (Demantke et al. 2011), how upright its normal is, and its height and colour."""
    from scipy.spatial import cKDTree

    points = clouds.points.double().numpy()
    colors = np.zeros((len(points), 0)) if clouds.features is None else clouds.features.numpy()
    columns = [points[:, 2:], colors]
    for count in NEIGHBOURS:
        _, near = cKDTree(points).query(points, min(count, len(points)))
        near = near.reshape(len(points), -1)
        around = points[near] - points[near].mean(1, keepdims=True)
        spread, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around) / near.shape[1])
        small, middle, large = np.sqrt(np.maximum(spread, 0)).T
        large = np.maximum(large, 1e-9)
        columns += [
            np.stack([(large - middle) / large, (middle - small) / large, small / large, large], 1),
            np.abs(axes[:, 2, :1]), points[near, 2].mean(1, keepdims=True), colors[near].mean(1),
        ]
    return np.concatenate(columns, 1)
