"""How features of two partial views match, and whether the matches give their pose: one pair, then a scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contrast3d.data.scene_views import SceneViews
from contrast3d.downstream.features import device_of, evaluating
from contrast3d.downstream.fragments import Fragments, Pair, check_scenes, prepared
from contrast3d.downstream.ransac import ransac
from contrast3d.errors import ConfigError, DataError
from contrast3d.metrics import registration as metrics
from contrast3d.ops.knn import knn
from contrast3d.types import Clouds

FMR, FMR_HARD = "feature_match_recall", "feature_match_recall_0.2"
RATIO, RECALL = "inlier_ratio", "registration_recall"
METRICS = {FMR: "FMR", FMR_HARD: "FMR at 0.2", RATIO: "inlier ratio", RECALL: "registration recall"}
SHARES = (0.05, 0.2)  # tau_2: of PPFNet, and the harder one that is quoted since
Describe = Callable[[np.ndarray], Tensor]  # a fragment (N, 3), metres, in its own frame -> features (N, C)


@dataclass(frozen=True)
class Protocol:
    """The numbers of the benchmark; lengths in metres.

    num_keypoints: random points of each fragment, thinned to voxel_size. mutual: only matches that choose each other.
    radius: tau_1, within which a match counts. rmse: below it a pose is right. overlap, consecutive: which pairs (see
    `fragments.overlapping`). distance, hypotheses: of `ransac`, which register = False leaves out.
    """

    voxel_size: float = 0.05
    num_keypoints: int = 5000
    mutual: bool = False
    radius: float = 0.1
    rmse: float = 0.2
    overlap: float = 0.3
    consecutive: bool = False
    register: bool = True
    distance: float = 0.075
    hypotheses: int = 4000
    seed: int = 0

    def prepare(self, scenes: Sequence[SceneViews]) -> list[Fragments]:
        """The scenes as every contestant sees them; a DataError where no two views overlap enough."""
        check_scenes(scenes)
        ready = [
            prepared(scene, voxel_size=self.voxel_size, num_keypoints=self.num_keypoints, overlap=self.overlap,
                     consecutive=self.consecutive, seed=self.seed)
            for scene in scenes
        ]
        if not any(scene.pairs for scene in ready):
            kind = "" if self.consecutive else ", those that follow each other aside"
            found = f"no pair of views of {', '.join(s.name for s in ready)} overlaps by {self.overlap:.0%}{kind}"
            raise DataError("registration", found, "at least one pair", "a smaller overlap, or consecutive=True")
        return ready


@dataclass(frozen=True)
class PairScore:
    """How one pair went; rmse is infinite where no pose was found, rotation (degrees) and translation then too."""

    first: int
    second: int
    inlier_ratio: float
    rmse: float = float("inf")
    rotation: float = float("inf")
    translation: float = float("inf")


def describing(encoder: nn.Module) -> Describe:
    """A fragment -> the encoder's features of its points, of unit length, in eval mode; it is left as it was."""
    device = device_of(encoder)

    def describe(points: np.ndarray) -> Float[Tensor, "n c"]:
        with evaluating(encoder):
            found = encoder(Clouds.from_list([torch.from_numpy(points).to(device)])).points
        if found is None or len(found) != len(points):
            given = "no features of points" if found is None else f"{len(found)} features of {len(points)} points"
            raise ConfigError(f"registration: {type(encoder).__name__} gives {given}; it needs a dense encoder")
        return F.normalize(found.float(), dim=1)

    return describe


def score_scene(encoder: nn.Module | Describe, scene: Fragments, protocol: Protocol) -> dict:
    """The metrics of one scene; see `registration.evaluate_registration`."""
    describe = describing(encoder) if isinstance(encoder, nn.Module) else encoder
    return summary(score_pairs(describe, scene, protocol), protocol)


def score_pairs(describe: Describe, scene: Fragments, protocol: Protocol) -> list[PairScore]:
    """Every pair of a scene; each fragment is described once."""
    used = {v for pair in scene.pairs for v in (pair.first, pair.second)}
    features = {v: describe(scene.points[v])[torch.from_numpy(scene.keypoints[v])] for v in sorted(used)}
    broken = sum(not bool(torch.isfinite(f).all()) for f in features.values())
    if broken:
        found = f"NaN or infinity in {broken} of {len(features)} fragments of {scene.name}"
        raise DataError("features", found, "finite features", "pre-training with a smaller --lr")
    return [_score(scene, pair, features[pair.first], features[pair.second], protocol) for pair in scene.pairs]


def nearest(first: Float[Tensor, "n c"], second: Float[Tensor, "m c"], mutual: bool = False) -> Int[Tensor, "p 2"]:
    """(P, 2) rows: to each feature of `first` the nearest of `second`; mutual keeps those that choose each other."""
    if not len(first) or not len(second):
        return torch.zeros(0, 2, dtype=torch.int64)
    rows = torch.arange(len(first), device=first.device)
    there = knn(second[None], 1, first[None])[0, :, 0]
    found = torch.stack([rows, there], 1)
    if mutual:
        back = knn(first[None], 1, second[None])[0, :, 0]
        found = found[back[there] == rows]
    return found.cpu()


def _score(scene: Fragments, pair: Pair, first: Tensor, second: Tensor, protocol: Protocol) -> PairScore:
    rows = nearest(first, second, protocol.mutual).numpy()
    p = scene.points[pair.first][scene.keypoints[pair.first][rows[:, 0]]]
    q = scene.points[pair.second][scene.keypoints[pair.second][rows[:, 1]]]
    truth = torch.from_numpy(pair.truth)
    ratio = metrics.inlier_ratio(torch.from_numpy(p), torch.from_numpy(q), truth, protocol.radius)
    found = protocol.register and ransac(
        p, q, distance=protocol.distance, hypotheses=protocol.hypotheses, seed=protocol.seed
    )
    if not found:
        return PairScore(pair.first, pair.second, ratio)
    pose = torch.from_numpy(found.transform)
    same = [torch.from_numpy(scene.points[v][pair.matches[:, k]]) for k, v in enumerate((pair.first, pair.second))]
    return PairScore(
        pair.first, pair.second, ratio, metrics.correspondence_rmse(*same, pose), metrics.rotation_error(pose, truth),
        metrics.translation_error(pose, truth),
    )


def summary(scores: Sequence[PairScore], protocol: Protocol) -> dict:
    """One scene's metrics."""
    names = [f.name for f in fields(PairScore)]
    column = {name: torch.tensor([getattr(s, name) for s in scores], dtype=torch.float64) for name in names}
    easy, hard = (metrics.feature_match_recall(column["inlier_ratio"], share) for share in SHARES)
    right = column["rmse"] < protocol.rmse
    median = lambda name: column[name][right].quantile(0.5).item() if right.any() else None  # noqa: E731
    return {
        FMR: easy, FMR_HARD: hard, RATIO: column["inlier_ratio"].mean().item(),
        RECALL: metrics.registration_recall(column["rmse"], protocol.rmse) if protocol.register else None,
        "rotation_error_deg": median("rotation"), "translation_error_m": median("translation"), "pairs": len(scores),
    }
