"""Semantic segmentation: a dense network trained on shares of the labelled scenes, from pre-trained weights and from
scratch (PointContrast, Xie et al. 2020, section 4).

The clean protocol reports the last weights and those that were best on validation scenes.
`segmentation_best_on_test` is what the published code reports: the best of many looks at the test scenes.
"""

from __future__ import annotations

import copy
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from contrast3d.data.scene_loader import SceneLoader, check_scenes
from contrast3d.data.scenes import SceneSet
from contrast3d.downstream.point_baselines import majority, pointwise
from contrast3d.downstream.segmentation_table import MAJORITY, POINTWISE, SCRATCH, Outcome, SegmentationTable
from contrast3d.downstream.segmenter import Segmenter, load_matching, score_scenes
from contrast3d.downstream.table import percent
from contrast3d.engine.loop import train as run_training
from contrast3d.engine.progress import clock
from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError, DataError

PROTOCOL = "semantic segmentation"
PROTOCOL_BEST = "semantic segmentation, best epoch chosen on test, to compare with papers that do so"
LEAST_FOR_VALIDATION = 5  # of fewer labelled scenes, none is spared for looking at

MakeEncoder = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Tuning:
    """How the networks are trained; all contestants alike, for as many steps on the same batches.

    steps: optimiser steps, whatever the number of scenes, rounded up to a multiple of `looks`.
    batch_size: scenes per step. voxel_size: metres. transform: a pipeline of data/scene_transforms.py.
    optimizer, lr, weight_decay, dampening, schedule, warmup: of engine.Training; warmup is a share of the steps.
    decay_all: weight decay of biases and norms too.
    rescale: bring pre-trained weights to the length of fresh ones first, where the encoder has `rescale_like`.
    encoder_lr_scale: learning rate of a pre-trained encoder over `lr`; from scratch it takes `lr`.
    looks: how often the validation scenes are looked at. phase: as in `SceneLoader`.
    colors: show the network the colours; without, ones, as PointContrast pre-trains.
    """

    steps: int = 600
    batch_size: int = 4
    voxel_size: float = 0.05
    transform: str = "rooms"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = 5e-3
    weight_decay: float = 0.01
    dampening: float = 0.0
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warmup: float = 0.05
    decay_all: bool = False
    rescale: bool = True
    encoder_lr_scale: float = 1.0
    looks: int = 10
    phase: int = 100
    colors: bool = True

    def __post_init__(self):
        if self.steps < 1 or self.looks < 1 or not self.encoder_lr_scale > 0 or not 0 <= self.warmup < 1:
            raise ConfigError(
                f"steps = {self.steps}, looks = {self.looks}, encoder_lr_scale = {self.encoder_lr_scale:g}, warmup = "
                f"{self.warmup:g}; expected at least 1 step and look, a positive scale, and a share below 1"
            )

    @property
    def epoch_steps(self) -> int:
        """Steps between two looks, which is what the loop takes for an epoch."""
        return -(-self.steps // self.looks)

    def training(self, seed: int) -> Training:
        return Training(
            epochs=self.looks, optimizer=self.optimizer, lr=self.lr, weight_decay=self.weight_decay,
            decay_all=self.decay_all, dampening=self.dampening if self.optimizer == "sgd" else 0.0,
            schedule=self.schedule,
            warmup_epochs=self.warmup * self.looks, seed=seed,
        )


_PUBLISHED = {
    "steps": 60_000, "batch_size": 48, "optimizer": "sgd", "weight_decay": 1e-4, "dampening": 0.1, "schedule": "poly",
    "warmup": 0.0, "decay_all": True, "rescale": False,
}
# Spec of the paper's scripts; the paper itself says 10,000 iterations for S3DIS. Batch norm momentum 0.02 is the net's.
PUBLISHED = {
    "s3dis": Tuning(**_PUBLISHED, voxel_size=0.05, transform="s3dis", lr=0.1, looks=300),
    "scannet": Tuning(**_PUBLISHED, voxel_size=0.02, transform="scannet", lr=0.8, looks=120),
}


def segmentation(
    make_encoder: MakeEncoder, pretrained: Mapping[str, Tensor] | None, train: SceneSet, test: SceneSet, *,
    name: str = "pre-trained", shares: Sequence[float] = (0.01, 0.1, 1.0), draws: int = 3, seed: int = 0,
    validation: SceneSet | float = 0.2, best_on_test: bool = False, baselines: bool = True,
    device: torch.device | str = "cpu", on_progress: Callable[[str], None] | None = None,
    on_trained: Callable[[str, float, int, Segmenter], None] | None = None, tuning: Tuning | None = None, **changes,
) -> SegmentationTable:
    """Train an encoder and a fresh linear head at each share of the training scenes, and score them on the test scenes.

    Beside it, on the same draws: the majority class, a random forest on what each point shows, and the same network
    from scratch, for as many steps on the same batches.

    make_encoder: seed -> a dense encoder with fresh weights. pretrained: tensors by name, all that fit are loaded; None
        trains from scratch alone.
    shares: of the training scenes, at least one scene each; the scenes of a share are among those of a larger one.
    validation: scenes to choose the best weights on; or the share of the drawn scenes that is spared for it, where they
        are at least five; 0 for none.
    best_on_test: the best weights are chosen on the test scenes, so their score is too high; the table says so.
    on_trained: told (contestant, share, seed, network with the last weights) after each training.
    tuning, changes: a `Tuning`, and fields of it (steps, lr ...).
    """
    started, tell, how = time.perf_counter(), on_progress or (lambda message: None), _tuned(tuning, changes)
    _check(train, test, shares, draws)
    if pretrained is not None and name == SCRATCH:
        raise ConfigError(f"the encoder is called {name!r}; expected a name that no baseline has")
    seeds = tuple(range(seed, seed + draws))
    drawn = {(share, s): draw_scenes(len(train), share, s) for share in dict.fromkeys(shares) for s in seeds}
    table = SegmentationTable(
        (PROTOCOL_BEST if best_on_test else PROTOCOL) + _departures(how), train.title.removesuffix(" train"),
        name if pretrained is not None else SCRATCH, {share: len(rows) for (share, _), rows in drawn.items()}, seeds,
        f"{train.hash}-{test.hash}", train.classes, "test" if best_on_test else "validation",
    )
    contestants: dict[str, MakeEncoder] = {SCRATCH: make_encoder}
    if pretrained is not None:
        table.loaded, table.skipped = load_matching(make_encoder(seed), pretrained)
        tell(f"{name}: {len(table.loaded)} tensors loaded, {len(table.skipped)} skipped")
        contestants[name] = partial(_loaded, make_encoder, pretrained, how.rescale)
    if baselines:
        tell(f"{MAJORITY}, {POINTWISE}")
        forests = pointwise([(train.subset(rows), s) for (_, s), rows in drawn.items()], test, how.voxel_size)
        for ((share, _), rows), forest in zip(drawn.items(), forests):
            table.add(MAJORITY, share, Outcome(majority(train.subset(rows), test, how.voxel_size)))
            table.add(POINTWISE, share, Outcome(forest))
    done, total, trained_from = 0, len(contestants) * len(drawn), time.perf_counter()
    for (share, s), rows in drawn.items():
        few, watched = _watched(train.subset(rows), test, validation, best_on_test)
        for contestant, make in contestants.items():
            what = f"{contestant}, {table.column(share)}, draw {s - seed + 1} of {draws}"
            tell(what)
            scale = how.encoder_lr_scale if contestant == name else 1.0
            segmenter, outcome = fit_segmenter(
                make, few, test, how, watched=watched, seed=s, encoder_lr_scale=scale, device=device
            )
            table.add(contestant, share, outcome)
            if on_trained:
                on_trained(contestant, share, s, segmenter)
            done += 1
            left = (time.perf_counter() - trained_from) * (total / done - 1)
            tell(f"{what}: mIoU {percent(outcome.last.measure('mean_iou'), None)} %, {clock(left)} left")
    table.wall_s = time.perf_counter() - started
    return table


segmentation_best_on_test = partial(segmentation, best_on_test=True)


def fit_segmenter(
    make_encoder: MakeEncoder, train: SceneSet, test: SceneSet, tuning: Tuning, *, watched: SceneSet | None = None,
    seed: int = 0, encoder_lr_scale: float = 1.0, device: torch.device | str = "cpu",
) -> tuple[Segmenter, Outcome]:
    """Train the encoder of `make_encoder(seed)` and a fresh head; (the network with the last weights, its scores).

    watched: the scenes on which the best of `tuning.looks` states is chosen by mean IoU of voxels; None: no choice.

    Raises KeyboardInterrupt at Ctrl-C and SystemExit at SIGTERM: half-trained weights are not scored.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = make_encoder(seed)
        _check_voxels(encoder, tuning)
        torch.manual_seed(seed)  # whatever the encoder drew, the heads are alike
        lr = None if encoder_lr_scale == 1 else encoder_lr_scale * tuning.lr
        segmenter = Segmenter(encoder, len(train.classes), encoder_lr=lr, colors=tuning.colors)
    loader = SceneLoader(
        train, tuning.transform, tuning.batch_size, tuning.voxel_size, seed, device=device, phase=tuning.phase,
        epoch_steps=tuning.epoch_steps,
    )
    best = _Best(watched, tuning)
    look = best.look if watched else None
    ended = run_training(segmenter, loader, tuning.training(seed), device=device, on_epoch=look, quiet=True)
    if ended.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if ended.signal is not None:
        raise SystemExit(128 + ended.signal)
    last = score_scenes(segmenter, test, tuning.voxel_size)
    counts = (len(train), len(watched) if watched else 0)
    if best.state is None:
        return segmenter, Outcome(last, scenes=counts)
    chosen = copy.deepcopy(segmenter)
    chosen.load_state_dict(best.state)
    return segmenter, Outcome(last, score_scenes(chosen, test, tuning.voxel_size), best.step, counts)


class _Best:
    """The weights that did best on the watched scenes, the earlier of equals."""

    def __init__(self, watched: SceneSet | None, tuning: Tuning):
        self.watched, self.tuning = watched, tuning
        self.state: dict[str, Tensor] | None = None
        self.value, self.step = -1.0, None

    def look(self, epoch: int, segmenter: Segmenter) -> dict[str, float]:
        value = score_scenes(segmenter, self.watched, self.tuning.voxel_size).measure("mean_iou")
        if value > self.value:
            self.value, self.step = value, epoch * self.tuning.epoch_steps
            self.state = {key: tensor.clone() for key, tensor in segmenter.state_dict().items()}
        return {"watched_mean_iou": value}


def draw_scenes(count: int, share: float, seed: int) -> list[int]:
    """Rows of a share of `count` scenes, at least one, in drawn order: a smaller share of the same seed comes first."""
    if not 0 < share <= 1:
        raise ConfigError(f"a share of {share} of the scenes; expected one above 0, at most 1")
    return np.random.default_rng(seed).permutation(count)[: max(1, round(share * count))].tolist()


def _watched(
    drawn: SceneSet, test: SceneSet, validation: SceneSet | float, best_on_test: bool
) -> tuple[SceneSet, SceneSet | None]:
    """(scenes to train on, scenes to look at or None)."""
    if best_on_test:
        return drawn, test
    if isinstance(validation, SceneSet):
        return drawn, validation
    spared = max(1, round(validation * len(drawn))) if len(drawn) >= LEAST_FOR_VALIDATION and validation else 0
    kept = len(drawn) - spared
    return drawn.subset(range(kept)), drawn.subset(range(kept, len(drawn))) if spared else None


def _loaded(make_encoder: MakeEncoder, pretrained: Mapping[str, Tensor], rescale: bool, seed: int) -> nn.Module:
    encoder = make_encoder(seed)
    fresh = copy.deepcopy(encoder)
    load_matching(encoder, pretrained)
    if rescale and hasattr(encoder, "rescale_like"):
        encoder.rescale_like(fresh)
    return encoder


def _check_voxels(encoder: nn.Module, tuning: Tuning) -> None:
    own = getattr(encoder, "voxel_size", tuning.voxel_size)
    if abs(own - tuning.voxel_size) > 1e-6 * own:
        raise ConfigError(
            f"the encoder cuts voxels of {own:g} m, the scenes are thinned to {tuning.voxel_size:g} m; expected the "
            "same. Try: another voxel_size"
        )


def _tuned(tuning: Tuning | None, changes: dict) -> Tuning:
    unknown = set(changes) - set(Tuning.__dataclass_fields__)
    if unknown:
        raise ConfigError(f"segmentation: no field {', '.join(sorted(unknown))} in Tuning")
    return Tuning(**{**asdict(tuning or Tuning()), **changes})


def _check(train: SceneSet, test: SceneSet, shares: Sequence[float], draws: int) -> None:
    if draws < 1 or not shares:
        raise ConfigError("segmentation: needs at least one draw and one share of the scenes")
    for scenes in (train, test):
        check_scenes(scenes)
        if scenes[0].labels is None:
            raise DataError(scenes.title, "no labels", "labelled scenes")
    if train.classes != test.classes:
        raise DataError(test.title, f"the classes {', '.join(test.classes)[:60]}", f"those of {train.title}")


def _departures(how: Tuning) -> str:
    """What is not as by default, as part of the protocol's name: other trainings are no like to compare with."""
    for name, published in PUBLISHED.items():
        if how == published:
            return f" (as published for {name})"
    own = {key: value for key, value in asdict(how).items() if value != getattr(Tuning, key)}
    said = (f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in own.items())
    return f" ({', '.join(said)})" if own else ""
