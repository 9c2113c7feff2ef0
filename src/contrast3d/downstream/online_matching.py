"""`MatchingProbe`: how well features match on views kept from training, looked at while a run trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from contrast3d.data.scene_views import SceneViews
from contrast3d.downstream.fragments import Fragments
from contrast3d.downstream.matching import FMR, RATIO, Protocol
from contrast3d.downstream.registration import evaluate_registration
from contrast3d.errors import DataError

MOST_PAIRS = 12
KEYPOINTS = 1000


class MatchingProbe:
    """`probe(epoch, method) -> numbers`: feature-match recall and inlier ratio of a few held-out pairs of views.

    every: epochs between two looks; others return {}. last: an epoch that is looked at in any case. Nothing is chosen
    by these numbers.
    """

    def __init__(self, scenes: Sequence[Fragments], protocol: Protocol, every: int, last: int):
        self.scenes, self.protocol, self.every, self.last = list(scenes), protocol, every, last

    @classmethod
    def of(cls, scenes: Sequence[SceneViews], voxel_size: float, every: int, last: int) -> MatchingProbe | None:
        """The probe of some scenes; None where no two of their views overlap."""
        protocol = Protocol(voxel_size=voxel_size, num_keypoints=KEYPOINTS, register=False)
        try:
            ready = protocol.prepare(scenes)
        except DataError:
            return None
        most = max(1, MOST_PAIRS // len(ready))
        some = [replace(scene, pairs=scene.pairs[:: -(-len(scene.pairs) // most) or 1]) for scene in ready]
        return cls(some, protocol, every, last)

    def __call__(self, epoch: int, method: nn.Module) -> dict[str, float]:
        if epoch % self.every and epoch != self.last:
            return {}
        found = evaluate_registration(method.encoder, self.scenes, self.protocol)
        return {f"held_out_{name}": found[name] for name in (FMR, RATIO)}
