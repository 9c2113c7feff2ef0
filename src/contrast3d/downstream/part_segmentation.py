"""Part segmentation: a patch transformer trained on labelled points, from pre-trained weights and from scratch.

Point-MAE (Pang et al., ECCV 2022), ReCon (Qi et al., ICML 2023), on ShapeNetPart or any set with parts. The last
weights are scored. `published` trains as the released scripts do, quirks included: the optimiser steps twice on each
batch, before and after the gradient is clipped, and points are drawn with replacement, from test shapes too.
"""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor, nn

from contrast3d.data.compose import Compose
from contrast3d.data.crops import Resample
from contrast3d.data.draws import Draws
from contrast3d.data.loader import ViewLoader
from contrast3d.data.parts import PartScheme
from contrast3d.data.shapes import ShapeSet
from contrast3d.data.transforms import Scale, Shift
from contrast3d.downstream.baselines import MakeUntrained, redrawn, untrained_maker
from contrast3d.downstream.features import device_of
from contrast3d.downstream.part_segmenter import PartSegmenter, predict_parts
from contrast3d.downstream.part_table import MAJORITY_PART, PartScores, PartTable
from contrast3d.downstream.splits import Data, few_labels, labelled_splits
from contrast3d.downstream.table import LABELS, SCRATCH, Budget, budget_name, percent
from contrast3d.downstream.tuning import passes
from contrast3d.engine.loop import train as run_training
from contrast3d.engine.progress import clock
from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError, DataError
from contrast3d.metrics.segmentation import IGNORE
from contrast3d.nn.rebuild import Rebuildable

PROTOCOL = "part segmentation"
_TEST = -2  # the view whose draws choose the points of test shapes


@dataclass(frozen=True)
class PartTuning:
    """How the networks are trained: AdamW, warm-up, then cosine; mild scale and shift.

    epochs: passes over the labelled shapes. min_steps: optimiser steps at least, by more epochs.
    batch_size: shapes per step. lr: peak learning rate of the head. encoder_lr_scale: the pre-trained encoder's over
        that; from scratch it takes `lr`, unless `published`. warmup: share of the epochs. clip_norm: of the gradient.
    num_points: drawn of each shape in training; 0 takes them all.
    published: step twice, draw with replacement; norms of the head learn as slowly as the encoder, from scratch too.
    """

    epochs: int = 10
    min_steps: int = 300
    batch_size: int = 16
    lr: float = 1e-3
    encoder_lr_scale: float = 0.3
    weight_decay: float = 0.05
    warmup: float = 0.1
    clip_norm: float = 10.0
    num_points: int = 0
    published: bool = False

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 2 or min(self.min_steps, self.num_points) < 0 or not (
            self.encoder_lr_scale > 0 and 0 <= self.warmup < 1
        ):
            raise ConfigError(
                f"epochs = {self.epochs}, batch_size = {self.batch_size}, min_steps = {self.min_steps}, num_points = "
                f"{self.num_points}, encoder_lr_scale = {self.encoder_lr_scale:g}, warmup = {self.warmup:g}; expected "
                "at least 1, 2, 0 and 0, a positive scale, and a share below 1"
            )

    def schedule(self, shapes: int) -> tuple[int, int]:
        """(epochs, steps per epoch) of a training on so many shapes."""
        return passes(shapes, self.batch_size, self.epochs, self.min_steps)


def published(encoder: nn.Module) -> PartTuning:
    """The values of the released scripts: ReCon's, or Point-MAE's for a transformer of standard blocks."""
    recon = getattr(encoder, "block", "") == "two-stream"
    rates = {"lr": 1e-3, "encoder_lr_scale": 0.1} if recon else {"lr": 2e-4, "encoder_lr_scale": 1.0}
    return PartTuning(300, 0, 16, warmup=10 / 300, num_points=2048, published=True, **rates)


def part_segmentation(
    encoder: nn.Module, data: Data, scheme: PartScheme, *, name: str = "pre-trained",
    labels_per_class: Sequence[Budget] = ("1%", "10%", None), draws: int = 3, seed: int = 0,
    make_untrained: MakeUntrained = None, tuning: PartTuning | None = None,
    on_progress: Callable[[str], None] | None = None, on_column: Callable[[PartTable], None] | None = None,
    on_trained: Callable[[str, Budget, int, PartSegmenter], None] | None = None, **changes,
) -> PartTable:
    """Train a copy of the encoder with a fresh `PartSegmenter` head on the points of some shares of the shapes.

    Beside it, on the same draws: the most frequent part of each class, and the same network from scratch for as many
    steps on the same batches.

    encoder: a `PatchTransformer`. data: (train, test) with labels of shapes and points, or a callable such as
        datasets.LDraw40Parts. scheme: what the parts are. make_untrained: seed -> the network with fresh weights; None
        builds it anew, False leaves it out.
    labels_per_class: labelled shapes of each class: numbers, shares such as "10%" (at least one), None for all; with
        all of them each network is trained once.
    on_column: told the table each time that a number of labels is done with. on_trained: told (contestant, labels,
        seed, network). tuning, changes: a `PartTuning`, and fields of it.
    """
    if draws < 1 or not labels_per_class:
        raise ConfigError("part segmentation: needs at least one draw and one number of labels per class")
    started, how, tell = time.perf_counter(), _tuned(tuning, changes), on_progress or (lambda message: None)
    train, test = labelled_splits(data)
    for shapes in (train, test):
        _check(shapes, scheme)
    if how.published:
        test = _drawn(test, how.num_points, seed)
    seeds = tuple(range(seed, seed + draws))
    table = PartTable(PROTOCOL + _departures(how, encoder), train.title.removesuffix(" train"), name,
                      tuple(dict.fromkeys(labels_per_class)), seeds, f"{train.hash}-{test.hash}")
    contestants: dict[str, tuple[Callable[[int], nn.Module], float]] = {}
    if make_untrained is not False:
        scale = how.encoder_lr_scale if how.published else 1.0
        contestants[SCRATCH] = untrained_maker(encoder, make_untrained or partial(_anew, encoder)), scale
    contestants[name] = lambda s: copy.deepcopy(encoder).requires_grad_(), how.encoder_lr_scale
    rows = {
        (b, s): few_labels(train.labels, b, s) for b in table.budgets for s in (seeds if b is not None else seeds[:1])
    }
    total = len(contestants) * sum(math.prod(how.schedule(len(r))) for r in rows.values())
    done, trained_from = 0, time.perf_counter()
    for budget in table.budgets:
        drawn = [s for b, s in rows if b == budget]
        table.shapes[budget] = len(rows[budget, drawn[0]])
        for s in drawn:
            few = train.subset(rows[budget, s])
            table.add(MAJORITY_PART, budget, PartScores.of(majority_parts(few, test, scheme), test, scheme))
            for contestant, (make, scale) in contestants.items():
                what = f"{contestant}, {budget_name(budget)} {LABELS}, draw {s - seed + 1} of {len(drawn)}"
                tell(what)
                segmenter = fit_parts(make, few, scheme, how, encoder_lr_scale=scale, seed=s, device=device_of(encoder))
                scores = PartScores.of(predict_parts(segmenter, test, scheme.allowed, how.batch_size), test, scheme)
                table.add(contestant, budget, scores)
                if on_trained:
                    on_trained(contestant, budget, s, segmenter)
                done += math.prod(how.schedule(len(few)))
                left = (time.perf_counter() - trained_from) * (total / done - 1)
                tell(f"{what}: instance mIoU {percent(scores.instance_miou, None)} %, {clock(left)} left")
        table.wall_s = time.perf_counter() - started
        if on_column:
            on_column(table)
    return table


def fit_parts(
    make_encoder: Callable[[int], nn.Module], train: ShapeSet, scheme: PartScheme, tuning: PartTuning, *,
    encoder_lr_scale: float = 1.0, seed: int = 0, device: torch.device | str = "cpu",
) -> PartSegmenter:
    """Train the encoder of `make_encoder(seed)` and a fresh head; the network with the last weights.

    Raises KeyboardInterrupt at Ctrl-C and SystemExit at SIGTERM: half-trained weights are not scored.
    """
    encoder = make_encoder(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        slow = encoder_lr_scale * tuning.lr
        segmenter = PartSegmenter(encoder, len(scheme.of_class), len(scheme), encoder_lr=slow,
                                  norm_lr=slow if tuning.published else None)
    count = tuning.num_points or train.num_points
    transform = Compose((Resample(count, tuning.published), Scale(0.8, 1.25), Shift(0.1)))
    train = replace(train, point_labels=scheme.known(train.point_labels, IGNORE))
    loader = ViewLoader(train, transform, views=1, batch_size=tuning.batch_size, seed=seed, device=device)
    epochs, _ = tuning.schedule(len(train))
    settings = Training(
        epochs=epochs, lr=tuning.lr, weight_decay=tuning.weight_decay, warmup_epochs=tuning.warmup * epochs,
        clip_norm=None if tuning.published else tuning.clip_norm, seed=seed,
    )
    with second_steps(tuning.clip_norm) if tuning.published else nullcontext():
        ended = run_training(segmenter, loader, settings, device=device, quiet=True)
    if ended.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if ended.signal is not None:
        raise SystemExit(128 + ended.signal)
    return segmenter


@contextmanager
def second_steps(clip_norm: float) -> Iterator[None]:
    """Inside, every optimiser step is followed by another on the same gradient, clipped, as in the released scripts."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    inside = False

    def again(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        nonlocal inside
        if inside:
            return
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)
        inside = True
        try:
            optimizer.step()
        finally:
            inside = False

    hook = register_optimizer_step_post_hook(again)
    try:
        yield
    finally:
        hook.remove()


def majority_parts(train: ShapeSet, test: ShapeSet, scheme: PartScheme) -> Int[Tensor, "t n"]:
    """(T, N) for every point the most frequent part of its class, the first of them where several tie."""
    counts, allowed = torch.zeros(len(scheme.of_class), len(scheme), dtype=torch.long), scheme.allowed
    for row, label in enumerate(train.labels.tolist()):
        counts[label] += train.point_labels[row].bincount(minlength=len(scheme))
    most = counts.masked_fill(~allowed, -1).argmax(1)
    return most[test.labels][:, None].expand(len(test), test.num_points)


def _anew(encoder: nn.Module, seed: int) -> nn.Module:
    """The encoder as its constructor makes it under `seed`."""
    if not isinstance(encoder, Rebuildable):
        return redrawn(encoder, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return type(encoder)(**encoder.kwargs)


def _drawn(shapes: ShapeSet, num_points: int, seed: int) -> ShapeSet:
    """Each shape with `num_points` of its points, drawn with replacement."""
    draws = Draws.of(seed, 0, torch.arange(len(shapes)), _TEST)
    clouds = Resample(num_points, replacement=True)(shapes.clouds(), draws)
    return replace(shapes, points=clouds.dense, point_labels=clouds.point_labels.view(len(shapes), -1))


def _check(shapes: ShapeSet, scheme: PartScheme) -> None:
    if shapes.point_labels is None:
        raise DataError(shapes.title, "no labels of points", "a set with parts: LDraw40Parts, ShapeNetPart")
    if int(shapes.labels.max()) >= len(scheme.of_class):
        found = f"{int(shapes.labels.max()) + 1} classes"
        raise DataError(shapes.title, found, f"the {len(scheme.of_class)} whose parts are known")
    low, high = int(shapes.point_labels.min()), int(shapes.point_labels.max())
    if low < 0 or high >= len(scheme):
        raise DataError(shapes.title, f"parts {low} to {high}", f"0 to {len(scheme) - 1}")


def _tuned(tuning: PartTuning | None, changes: dict) -> PartTuning:
    unknown = set(changes) - set(PartTuning.__dataclass_fields__)
    if unknown:
        raise ConfigError(f"part segmentation: no field {', '.join(sorted(unknown))} in PartTuning")
    return replace(tuning or PartTuning(), **changes)


def _departures(how: PartTuning, encoder: nn.Module) -> str:
    """What is not as by default, or as published, as part of the protocol's name."""
    usual = published(encoder) if how.published else PartTuning()
    own = {key: value for key, value in asdict(how).items() if value != getattr(usual, key)}
    said = ", ".join(f"{key} {value:g}" for key, value in own.items())
    return " as released" * how.published + (f" ({said})" if own else "")
