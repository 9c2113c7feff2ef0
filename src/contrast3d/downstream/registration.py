"""Registration of partial views by their features, as 3DMatch and PPFNet judge it; nothing is trained.

For each pair of fragments that overlap by 30 %, up to 5,000 random points of one look for the nearest feature among as
many of the other (Zeng et al., CVPR 2017; Deng et al., CVPR 2018; Choy et al., ICCV 2019). Feature-match recall (FMR)
asks whether more than 5 % (20 %) of these matches are within 10 cm under the true pose, registration recall whether
RANSAC finds a pose that brings the true correspondences within 20 cm of each other, as root mean square.

Pairs are those of `fragments.overlapping`, PointContrast's measure of overlap, so numbers compare with each other, not
with the papers' tables; or, by pairs = "gt", those of 3DMatch's own list (gt.log), where recall leaves out those that
follow each other. Our root mean square is over thinned points, 3DMatch's is approximated from its gt.info.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
from torch import nn

from contrast3d.data.scene_views import SceneViews
from contrast3d.downstream import baselines
from contrast3d.downstream.fpfh import fpfh
from contrast3d.downstream.fragments import Fragments
from contrast3d.downstream.matching import FMR, METRICS, Countdown, Describe, Protocol, score_scene
from contrast3d.downstream.table import TRAINING_FREE, UNTRAINED, Cell, percent
from contrast3d.errors import ConfigError

ERRORS = {"rotation_error_deg": "rotation °", "translation_error_m": "translation m"}


@dataclass
class Registration:
    """What each contestant reaches: one dictionary of `evaluate_registration` per seed; `ours` is the encoder."""

    dataset: str
    ours: str
    data_hash: str
    protocol: Protocol
    wall_s: float = 0.0
    values: dict[str, list[dict]] = field(default_factory=dict)

    @property
    def pairs(self) -> int:
        return self.values[self.ours][0]["pairs"]

    @property
    def metrics(self) -> list[str]:
        """Those that were measured."""
        return [m for m in METRICS if self.values[self.ours][0][m] is not None]

    def cell(self, contestant: str, metric: str = FMR) -> Cell:
        return Cell(tuple(one[metric] for one in self.values[contestant]))

    def render(self):
        """A rich table: fractions in per cent, errors as medians over the pairs that were registered."""
        from rich.table import Table

        what = self.protocol.name.replace("registration", f"registration of {self.pairs:,} pairs of fragments")
        table = Table(title=f"{self.dataset}: {what}", title_justify="left")
        table.add_column("")
        for metric in self.metrics:
            table.add_column(f"{METRICS[metric]} %", justify="right")
        for heading in ERRORS.values():
            table.add_column(heading, justify="right")
        for contestant, found in self.values.items():
            cells = [self.cell(contestant, metric) for metric in self.metrics]
            errors = [[one[e] for one in found if one[e] is not None] for e in ERRORS]
            table.add_row(
                contestant, *(percent(c.mean, c.std) for c in cells),
                *(f"{statistics.fmean(e):.2f}" if e else "–" for e in errors),
                style="bold cyan" if contestant == self.ours else None,
            )
        return table

    def to_results(self, recipe: str, *, commit: str, command: str, device: str, seed: int = 0) -> list[dict]:
        """One result per metric, ready for results/*.json; see `table.Table.to_results`."""
        results = []
        for metric in self.metrics:
            cells = {n: self.cell(n, metric) for n in self.values}
            ours = cells.pop(self.ours)
            results.append({
                "recipe": recipe, "protocol": self.protocol.name, "dataset": self.dataset, "metric": metric,
                "labels_per_class": None, "mean": ours.mean, "std": ours.std, "values": list(ours.values),
                "seeds": [seed], "pretraining_seed": seed,
                "baselines": {n: {"mean": c.mean, "std": c.std} for n, c in cells.items()}, "paper": None,
                "chosen": [], "pairs": self.pairs, "commit": commit, "data_hash": self.data_hash, "command": command,
                "wall_s": round(self.wall_s, 1), "device": device,
            })
        return results


def registration(
    encoder: nn.Module, scenes: Sequence[SceneViews], *, name: str = "pre-trained", dataset: str = "3DMatch",
    protocol: Protocol | None = None, draws: int = 3, seed: int = 0, make_untrained: baselines.MakeUntrained = None,
    on_progress: Callable[[str], None] | None = None, **changes,
) -> Registration:
    """The frozen encoder on all pairs of the scenes, beside FPFH (training-free) and the encoder untrained.

    protocol, changes: a `Protocol`, by default at the encoder's own `voxel_size`, and fields of it (overlap,
    consecutive, pairs ...). draws: untrained encoders, of the seeds seed, seed + 1 and so on. make_untrained: as in
    `label_efficiency`. on_progress: told each step, and within it, once a second at most, the pair and the time left.
    """
    if draws < 1:
        raise ConfigError(f"draws = {draws}; expected at least 1")
    started, tell = time.perf_counter(), on_progress or _say_nothing
    protocol = _protocol(protocol or Protocol(voxel_size=_voxel_size(encoder), seed=seed), changes)
    tell("pairs")
    ready = protocol.prepare(scenes)
    found = Registration(dataset, name, _hash(scenes, protocol), protocol)
    contestants = {TRAINING_FREE: [lambda: fpfh_of(protocol.voxel_size)]}
    if make_untrained is not False:
        fresh = baselines.untrained_maker(encoder, make_untrained)
        contestants[UNTRAINED] = [partial(fresh, s) for s in range(seed, seed + draws)]
    contestants[name] = [lambda: encoder]
    rounds = sum(map(len, contestants.values()))
    countdown = Countdown(rounds * sum(len(scene.pairs) for scene in ready), tell)
    for contestant, makers in contestants.items():
        tell(contestant)
        countdown.whose = contestant
        found.values[contestant] = [_evaluated(make(), ready, protocol, countdown) for make in makers]
    found.wall_s = time.perf_counter() - started
    return found


def _protocol(protocol: Protocol, changes: dict) -> Protocol:
    unknown = set(changes) - set(Protocol.__dataclass_fields__)
    if unknown:
        raise ConfigError(f"registration: no field {', '.join(sorted(unknown))} in Protocol")
    return Protocol(**{**asdict(protocol), **changes})


def fpfh_of(voxel_size: float) -> Describe:
    """A fragment -> its FPFH."""
    return lambda points: torch.from_numpy(fpfh(points, voxel_size))


def _hash(scenes: Sequence[SceneViews], protocol: Protocol) -> str:
    """Of all points and poses, and of pairs that come from a list: results name the data they were measured on."""
    digest = hashlib.sha256()
    for scene in scenes:
        given = (scene.pairs,) if protocol.pairs == "gt" else ()
        for array in (scene.xyz_mm, scene.offsets, scene.poses, *given):
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def evaluate_registration(
    encoder: nn.Module | Describe, scenes: Sequence[SceneViews] | Sequence[Fragments], protocol: Protocol | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> dict:
    """How well features match and register the views of the scenes: metric -> value, as fractions, metres, degrees.

    encoder: reads `Clouds` and gives features of points, or a function of one fragment such as `fpfh`. scenes: or what
    `Protocol.prepare` made of them. As the papers do, a metric is the mean over scenes; errors are medians over the
    pairs that were registered, None where none was. "scenes" holds the same for each scene, "pairs" counts.
    on_progress: told the pair and the time left, once a second at most.
    """
    protocol = protocol or Protocol(voxel_size=_voxel_size(encoder))
    ready = scenes if all(isinstance(s, Fragments) for s in scenes) and scenes else protocol.prepare(scenes)
    countdown = Countdown(sum(len(s.pairs) for s in ready), on_progress or _say_nothing)
    return _evaluated(encoder, ready, protocol, countdown)


def _evaluated(
    encoder: nn.Module | Describe, ready: Sequence[Fragments], protocol: Protocol, countdown: Countdown
) -> dict:
    each = {s.name: score_scene(encoder, s, protocol, countdown) for s in ready if s.pairs}
    names = [*METRICS, "rotation_error_deg", "translation_error_m"]
    total = {name: _mean([one[name] for one in each.values()]) for name in names}
    return total | {"pairs": sum(one["pairs"] for one in each.values()), "scenes": each}


def _say_nothing(message: str) -> None:
    pass


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None


def _voxel_size(encoder: nn.Module | Describe) -> float:
    """The one that the encoder itself works with, where it says so."""
    return float(getattr(encoder, "voxel_size", Protocol.voxel_size))
