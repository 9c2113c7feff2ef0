"""How features of two partial views match, and whether the matches give their pose: one pair, then a scene."""

from __future__ import annotations

import time
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
from contrast3d.tally import clock
from contrast3d.types import Clouds

FMR, FMR_HARD = "feature_match_recall", "feature_match_recall_0.2"
RATIO, RECALL = "inlier_ratio", "registration_recall"
METRICS = {FMR: "FMR", FMR_HARD: "FMR at 0.2", RATIO: "inlier ratio", RECALL: "registration recall"}
TELL_S = 1.0  # at least so long from one word on the progress to the next
SHARES = (0.05, 0.2)  # tau_2: of PPFNet, and the harder one that is quoted since
Describe = Callable[[np.ndarray], Tensor]  # a fragment (N, 3), metres, in its own frame -> features (N, C)


@dataclass(frozen=True)
class Protocol:
    """The numbers of the benchmark; lengths in metres.

    num_keypoints: random points of each fragment, thinned to voxel_size. mutual: only matches that choose each other.
    radius: tau_1, within which a match counts. rmse: below it a pose is right. overlap, consecutive: which pairs (see
    `fragments.overlapping`). pairs: "gt" takes exactly those of the scenes' gt.log instead, and registers those of them
    that do not follow each other, as 3DMatch's own evaluation does (mrEvaluateRegistration.m). distance, hypotheses: of
    `ransac`, which register = False leaves out.
    """

    voxel_size: float = 0.05
    num_keypoints: int = 5000
    mutual: bool = False
    radius: float = 0.1
    rmse: float = 0.2
    overlap: float = 0.3
    consecutive: bool = False
    pairs: str = "overlap"
    register: bool = True
    distance: float = 0.075
    hypotheses: int = 4000
    seed: int = 0

    def __post_init__(self):
        if self.pairs not in ("overlap", "gt"):
            raise ConfigError(f"registration: pairs = {self.pairs!r}; expected overlap or gt")
        if self.pairs == "gt" and (self.consecutive or self.overlap != Protocol.overlap):
            raise ConfigError("registration: the pairs of gt.log are taken as they are: leave the overlap "
                              "(--min-overlap) and consecutive (--consecutive) out, or take pairs by overlap")

    @property
    def departures(self) -> tuple[str, ...]:
        """What is not as by default, in words, as a part of the protocol's name: other rules are no like to compare
        with. Voxels are the encoder's own, a seed is no rule, and without poses there are only fewer metrics.
        """
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("voxel_size", "seed", "register")}
        changed = {name: value for name, value in own.items() if value != getattr(Protocol, name)}
        return tuple(name if value is True else f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in changed.items())

    @property
    def name(self) -> str:
        """"registration", with the departures."""
        return f"registration ({', '.join(self.departures)})" if self.departures else "registration"

    def registers(self, pair: Pair) -> bool:
        """Whether a pose is looked for: of gt.log's pairs, not where one fragment follows the other."""
        return self.register and (self.pairs != "gt" or pair.second - pair.first > 1)

    def prepare(self, scenes: Sequence[SceneViews]) -> list[Fragments]:
        """The scenes as every contestant sees them; a DataError where no two views overlap enough."""
        check_scenes(scenes)
        ready = [
            prepared(scene, voxel_size=self.voxel_size, num_keypoints=self.num_keypoints, overlap=self.overlap,
                     consecutive=self.consecutive, gt=self.pairs == "gt", seed=self.seed)
            for scene in scenes
        ]
        if not any(scene.pairs for scene in ready):
            raise self._without_pairs(", ".join(s.name for s in ready))
        return ready

    def _without_pairs(self, names: str) -> DataError:
        """What to do about it, for the shell and in Python."""
        kind = "" if self.consecutive else ", those that follow each other aside"
        less = f"{self.overlap / 2:g}"
        ways = [f"--min-overlap {less} (in Python overlap={less}), or scenes with more views"]
        if not self.consecutive:
            ways.insert(0, "--consecutive, which takes pairs that follow each other, too (in Python consecutive=True)")
        return DataError("registration", f"no pair of views of {names} overlaps by {self.overlap:.0%}{kind}",
                         "at least one pair", ", or ".join(ways))


@dataclass(frozen=True)
class PairScore:
    """How one pair went; rmse is infinite where no pose was found, rotation (degrees) and translation then too.

    registered: whether one was looked for.
    """

    first: int
    second: int
    inlier_ratio: float
    registered: bool = True
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


class Countdown:
    """Tells which pair of which scene has been scored, and the time left; once in TELL_S seconds at most.

    total: pairs that will be scored, by all contestants. whose: the one in hand, for the start of the line.
    """

    def __init__(self, total: int, tell: Callable[[str], None]):
        self.total, self.done, self.whose, self._tell = total, 0, "", tell
        self._began = self._told = time.perf_counter()

    def fragment(self, scene: str, k: int, n: int) -> None:
        """Fragment k of n is described."""
        self._say(f"{scene}: features of fragment {k} of {n}")

    def pair(self, scene: str, k: int, n: int) -> None:
        """Pair k of n is scored."""
        self.done += 1
        self._say(f"{scene}: pair {k} of {n}")

    def _say(self, what: str) -> None:
        now = time.perf_counter()
        if now - self._told < TELL_S:
            return
        self._told = now
        left = f", {clock((now - self._began) * (self.total / self.done - 1))} left" if self.done else ""
        self._tell(f"{self.whose}{self.whose and ', '}{what}{left}")


def score_scene(
    encoder: nn.Module | Describe, scene: Fragments, protocol: Protocol, countdown: Countdown | None = None
) -> dict:
    """The metrics of one scene; see `registration.evaluate_registration`."""
    describe = describing(encoder) if isinstance(encoder, nn.Module) else encoder
    return summary(score_pairs(describe, scene, protocol, countdown), protocol)


def score_pairs(
    describe: Describe, scene: Fragments, protocol: Protocol, countdown: Countdown | None = None
) -> list[PairScore]:
    """Every pair of a scene; each fragment is described once. countdown: told each fragment and each pair."""
    countdown = countdown or Countdown(len(scene.pairs), lambda message: None)
    used = sorted({v for pair in scene.pairs for v in (pair.first, pair.second)})
    features = {}
    for k, v in enumerate(used, 1):
        features[v] = describe(scene.points[v])[torch.from_numpy(scene.keypoints[v])]
        countdown.fragment(scene.name, k, len(used))
    broken = sum(not bool(torch.isfinite(f).all()) for f in features.values())
    if broken:
        found = f"NaN or infinity in {broken} of {len(features)} fragments of {scene.name}"
        raise DataError("features", found, "finite features", "pre-training with a smaller --lr")
    scores = []
    for k, pair in enumerate(scene.pairs, 1):
        scores.append(_score(scene, pair, features[pair.first], features[pair.second], protocol))
        countdown.pair(scene.name, k, len(scene.pairs))
    return scores


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
    if not protocol.registers(pair):
        return PairScore(pair.first, pair.second, ratio, False)
    found = ransac(p, q, distance=protocol.distance, hypotheses=protocol.hypotheses, seed=protocol.seed)
    if not found:
        return PairScore(pair.first, pair.second, ratio)
    pose = torch.from_numpy(found.transform)
    same = [torch.from_numpy(scene.points[v][pair.matches[:, k]]) for k, v in enumerate((pair.first, pair.second))]
    return PairScore(
        pair.first, pair.second, ratio, True, metrics.correspondence_rmse(*same, pose),
        metrics.rotation_error(pose, truth), metrics.translation_error(pose, truth),
    )


def summary(scores: Sequence[PairScore], protocol: Protocol) -> dict:
    """One scene's metrics."""
    names = [f.name for f in fields(PairScore)]
    column = {name: torch.tensor([getattr(s, name) for s in scores], dtype=torch.float64) for name in names}
    easy, hard = (metrics.feature_match_recall(column["inlier_ratio"], share) for share in SHARES)
    asked = column["registered"].bool()
    right = column["rmse"] < protocol.rmse
    median = lambda name: column[name][right].quantile(0.5).item() if right.any() else None  # noqa: E731
    return {
        FMR: easy, FMR_HARD: hard, RATIO: column["inlier_ratio"].mean().item(),
        RECALL: metrics.registration_recall(column["rmse"][asked], protocol.rmse) if asked.any() else None,
        "rotation_error_deg": median("rotation"), "translation_error_m": median("translation"), "pairs": len(scores),
    }
