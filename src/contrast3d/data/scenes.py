"""`SceneSet`: labelled scenes of many points each, for segmentation; a scene becomes `Clouds` when it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from contrast3d.errors import DataError
from contrast3d.types import Clouds

IGNORE = 255  # the label of points that neither teach nor count


@dataclass(frozen=True)
class Scene:
    """One scene: N points in metres, z up, with whatever is known of each.

    points: (N, 3) float32. colors: (N, 3) uint8, or None. labels: (N,) uint8 class, 255 for none, or None.
    instances: (N,) int32 object of each point, -1 for none, or None.
    """

    name: str
    points: np.ndarray
    colors: np.ndarray | None = None
    labels: np.ndarray | None = None
    instances: np.ndarray | None = None

    def __post_init__(self):
        if self.points.ndim != 2 or self.points.shape[1] != 3 or self.points.dtype != np.float32:
            raise DataError(self.name, f"points of {self.points.dtype} {self.points.shape}", "float32 (N, 3)")
        if len(self.points) and not np.isfinite(self.points).all():
            raise DataError(self.name, "NaN or infinite coordinates", "finite metres")
        for what, values in (("colors", self.colors), ("labels", self.labels), ("instances", self.instances)):
            if values is not None and len(values) != len(self.points):
                raise DataError(self.name, f"{len(values)} {what} for {len(self.points)} points", "one for each point")

    def clouds(self, index: int = 0) -> Clouds:
        """The scene as a batch of one; features are the colours in [-0.5, 0.5], where there are any."""
        points = torch.from_numpy(self.points)
        features = None if self.colors is None else torch.from_numpy(self.colors).float() / 255 - 0.5
        labels = None if self.labels is None else torch.from_numpy(self.labels).long()
        return Clouds.from_list([points], features=features, point_labels=labels, ids=torch.tensor([index]))


@dataclass(frozen=True)
class SceneSet:
    """Scenes with the classes that their labels name.

    title: what a table calls the set, e.g. "Rooms train".
    """

    scenes: tuple[Scene, ...]
    classes: tuple[str, ...] = ()
    title: str = "scenes"

    def __post_init__(self):
        for scene in self.scenes:
            labels = scene.labels
            if labels is not None and ((labels >= len(self.classes)) & (labels != IGNORE)).any():
                most = int(labels[labels != IGNORE].max())
                raise DataError(f"{self.title}: {scene.name}", f"a label {most}", f"below {len(self.classes)}, or 255")

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Scene:
        return self.scenes[index]

    def subset(self, rows: Sequence[int], title: str | None = None) -> SceneSet:
        """Some of the scenes."""
        return replace(self, scenes=tuple(self.scenes[int(i)] for i in rows), title=title or self.title)

    @cached_property
    def hash(self) -> str:
        """Of all points and labels: results name the data they were measured on."""
        digest = hashlib.sha256()
        for scene in self.scenes:
            digest.update(np.ascontiguousarray(scene.points).tobytes())
            if scene.labels is not None:
                digest.update(np.ascontiguousarray(scene.labels).tobytes())
        return digest.hexdigest()[:16]
