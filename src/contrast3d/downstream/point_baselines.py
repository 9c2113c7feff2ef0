"""What a segmentation must beat without any network: the majority class, and a forest on what each point shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.data.scenes import IGNORE, SceneSet
from contrast3d.downstream.segmenter import Scores, as_voxels, score, score_all
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


def pointwise(draws: Sequence[tuple[SceneSet, int]], test: SceneSet, voxel_size: float) -> list[Scores]:
    """A random forest on `point_numbers` for each (training scenes, seed), grown on about 30,000 labelled voxels, drawn
    evenly from the scenes. The test scenes, which take the time, are described once."""
    forests = [_forest(train, voxel_size, seed) for train, seed in draws]

    def predict(clouds: Clouds) -> list[Int[Tensor, " m"]]:
        numbers = point_numbers(clouds)
        return [torch.from_numpy(forest.predict(numbers)) for forest in forests]

    return score_all(predict, test, voxel_size)


def _forest(train: SceneSet, voxel_size: float, seed: int):
    from sklearn.ensemble import RandomForestClassifier

    numbers, labels, random = [], [], np.random.default_rng(seed)
    for scene in train.scenes:
        clouds, _ = as_voxels(scene, voxel_size)
        known = np.flatnonzero((clouds.point_labels != IGNORE).numpy())
        rows = random.permutation(known)[: -(-MOST_POINTS // len(train))]
        numbers.append(point_numbers(clouds, rows))
        labels.append(clouds.point_labels.numpy()[rows])
    x, y = np.concatenate(numbers), np.concatenate(labels)
    if not len(y):
        raise DataError(train.title, "no labelled points", "at least one")
    return RandomForestClassifier(50, min_samples_leaf=5, n_jobs=1, random_state=seed).fit(x, y)


def point_numbers(clouds: Clouds, rows: Int[np.ndarray, "m"] | None = None) -> Float[np.ndarray, "m c"]:
    """(M, C) of the points `rows` of one scene, or of all: height, colour, and at each of NEIGHBOURS the linearity,
    planarity, scattering (Demantke et al. 2011) and size of the neighbourhood, how upright its normal is, and its mean
    height and colour."""
    from scipy.spatial import cKDTree

    points = clouds.points.double().numpy()
    colors = np.zeros((len(points), 0)) if clouds.features is None else clouds.features.numpy()
    rows = np.arange(len(points)) if rows is None else rows
    columns = [points[rows, 2:], colors[rows]]
    most = min(max(NEIGHBOURS), len(points))
    nearest = cKDTree(points).query(points[rows], most)[1].reshape(len(rows), most)
    for count in NEIGHBOURS:
        near = nearest[:, :count]
        around = points[near]
        middle = around.mean(1, keepdims=True)
        around = around - middle
        spread, axes = np.linalg.eigh(around.transpose(0, 2, 1) @ around / near.shape[1])
        small, medium, large = np.sqrt(np.maximum(spread, 0)).T
        large = np.maximum(large, 1e-9)
        columns += [
            np.stack([(large - medium) / large, (medium - small) / large, small / large, large], 1),
            np.abs(axes[:, 2, :1]), middle[:, 0, 2:], colors[near].mean(1),
        ]
    return np.concatenate(columns, 1)
