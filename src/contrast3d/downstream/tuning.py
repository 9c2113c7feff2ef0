"""`Tuning`: how networks are fine-tuned, ours and as released; what of it is worth a word in a table's title."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from torch import nn

from contrast3d.downstream.tuned_encoders import inner
from contrast3d.errors import ConfigError

Mode = Literal["full", "mlp-linear", "mlp-3"]
WARMUP = 0.1  # of the epochs, where nothing else is said
BEST = ", best epoch chosen on test, to compare with papers that do so"


def passes(shapes: int, batch_size: int, epochs: int, min_steps: int) -> tuple[int, int]:
    """(epochs, steps per epoch) of a training on so many shapes: more epochs where these make too few steps."""
    steps = max(1, shapes // batch_size)
    return max(epochs, math.ceil(min_steps / steps)), steps


@dataclass(frozen=True)
class Tuning:
    """How the networks are trained: AdamW, warm-up, then cosine.

    epochs: passes over the labelled shapes.
    min_steps: optimiser steps at least, by more epochs: of few labels an epoch is a handful of steps, after a dozen of
        which not even the fresh head has converged.
    lr: peak learning rate of whatever starts from fresh weights, and of a class token with its position.
    encoder_lr_scale: the rest of the encoder's over that; smaller keeps more of what it knows. From scratch there is
        nothing to keep, and the encoder takes `lr`: handicapped, it would be no rival.
    batch_size: shapes per step, one augmented view of each.
    mode: full trains all weights under a head of two layers (as released: of three); mlp-linear and mlp-3 train a head
        of one and of three layers, and the class token, on a frozen encoder in evaluation mode.
    warmup_epochs: None: a tenth. drop_path: None: as the encoder has it. clip_norm: largest gradient norm.
    augmentation: a preset, where it is not the caller's. num_points: of a view; 0: as the encoder reads.
    published: whose released code is followed, ReCon or Point-MAE. Then a frozen encoder stays in training mode (batch
        statistics move, paths are dropped), the fresh part is decayed whole, and scratch is not favoured.

    lr and its scale, which is ReCon's, are the best of three pairs on a fold of the training shapes of LDraw-40.
    """

    epochs: int = 15
    min_steps: int = 300
    lr: float = 3e-3
    encoder_lr_scale: float = 0.1
    weight_decay: float = 0.05
    batch_size: int = 32
    mode: Mode = "full"
    label_smoothing: float = 0.1
    warmup_epochs: float | None = None
    clip_norm: float = 1.0
    drop_path: float | None = None
    augmentation: str = ""
    num_points: int = 0
    published: str = ""

    def __post_init__(self):
        if self.epochs < 1 or self.min_steps < 0 or self.batch_size < 2 or not self.encoder_lr_scale > 0:
            raise ConfigError(
                f"epochs = {self.epochs}, min_steps = {self.min_steps}, batch_size = {self.batch_size}, "
                f"encoder_lr_scale = {self.encoder_lr_scale:g}; expected at least 1 epoch, 0 steps, 2 shapes, and a "
                "positive scale"
            )
        if self.mode not in get_args(Mode):
            raise ConfigError(f"mode = {self.mode!r}; expected one of {', '.join(get_args(Mode))}")

    @property
    def frozen(self) -> bool:
        """Whether the encoder keeps its weights."""
        return self.mode != "full"

    @property
    def lr_schedule(self) -> Literal["cosine", "cosine-epochs"]:
        """Its name in `engine.settings.Training`."""
        return "cosine-epochs" if self.published else "cosine"

    @property
    def scratch_lr_scale(self) -> float:
        """`encoder_lr_scale` of a network from fresh weights."""
        return self.encoder_lr_scale if self.published else 1.0

    def schedule(self, shapes: int) -> tuple[int, int]:
        """(epochs, steps per epoch) of a training on so many shapes."""
        return passes(shapes, self.batch_size, self.epochs, self.min_steps)

    def warmup(self, epochs: int) -> float:
        """Epochs of warm-up, of so many in all."""
        return WARMUP * epochs if self.warmup_epochs is None else min(self.warmup_epochs, epochs / 2)

    def head(self) -> dict:
        """The arguments of a `Classifier` that follow."""
        heads = {"full": "mlp-3" if self.published else "mlp-2", "mlp-linear": "linear", "mlp-3": "mlp-3"}
        frozen = "no" if not self.frozen else "train" if self.published else "eval"
        return {"head": heads[self.mode], "frozen": frozen, "label_smoothing": self.label_smoothing,
                "fresh_decay": self.weight_decay if self.published == "ReCon" else None}

    def title(self, what: str, best_on_test: bool = False, usual: Tuning | None = None) -> str:
        """The protocol's name, with all that is not as usual: other trainings are no like to compare with."""
        usual = usual or Tuning()
        own = {name: f"{value:g}" if isinstance(value, int | float) else value for name, value in asdict(self).items()
               if value != getattr(usual, name) and name not in ("mode", "published") and value not in (None, "")}
        departures = ", ".join(f"{name} {value}" for name, value in own.items())
        return (what + (f" as released by {self.published}" if self.published else "")
                + (f", {self.mode}" if self.frozen else "") + (BEST if best_on_test else "")
                + (f" ({departures})" if departures else ""))


def released(encoder: nn.Module, dataset: str, mode: Mode = "full", few_shot: bool = False) -> Tuning:
    """The values of the scripts of ReCon, or of Point-MAE where the network has its block: one stream.

    dataset: ScanObjectNN's variants have their own, among them 2,048 points. The learning rate is the fresh part's, ten
    times the encoder's in ReCon.
    """
    same = {"epochs": 151 if few_shot else 301, "min_steps": 0, "label_smoothing": 0.0, "warmup_epochs": 10.0,
            "clip_norm": 10.0, "mode": mode}
    scanned = is_scanned(dataset) and not few_shot
    if scanned:
        same["num_points"] = 2048
    if getattr(inner(encoder), "block", "") == "standard":
        return Tuning(lr=5e-4, encoder_lr_scale=1.0, drop_path=0.1, augmentation="scale-shift",
                      published="Point-MAE", **same)
    if few_shot:
        body = 5e-4 if mode == "full" else 1e-3
    else:
        body = 1e-4 if mode != "full" else 2e-5 if scanned else 1e-5
    drop_path = (0.1 if few_shot else 0.2) if hasattr(inner(encoder), "num_patches") else None
    augmentation = "rotate-up" if few_shot or scanned else "scale-shift"
    return Tuning(lr=10 * body, drop_path=drop_path, augmentation=augmentation, published="ReCon", **same)


def is_scanned(dataset: str) -> bool:
    """Whether the set is one of ScanObjectNN's."""
    return dataset.lower().startswith("scanobjectnn")
