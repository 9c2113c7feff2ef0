"""`Training`: how long, how fast and how exactly the loop of `engine/loop.py` trains."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal, get_args

from contrast3d.errors import ConfigError

Optimizer = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "cosine-epochs", "poly", "step", "constant"]
Precision = Literal["float32", "bfloat16"]
# fields that runs of before do not know: at their defaults they change nothing
_LATER = ("decay_all", "dampening", "poly_power", "warmup_start_lr", "min_lr")


@dataclass(frozen=True)
class Training:
    """The knobs of one training run; a value that cannot work is a ConfigError at construction.

    epochs: passes over the data.
    optimizer: adamw (decoupled weight decay), adam (L2 penalty) or sgd (with momentum).
    lr: peak learning rate.
    weight_decay: not applied to biases, norms and other 1-D parameters unless decay_all, or method.param_groups(), says
        so. decay_all: to those too, as many released scripts have it.
    momentum: of sgd. dampening: of its momentum; 0.1 in the segmentation of PointContrast.
    schedule: after the warm-up: cosine to zero, poly to nearly zero, a factor `step_gamma` every `step_epochs`, or
        constant. cosine-epochs: as Point-MAE and ReCon were trained, constant within an epoch (see `Plan.lr`).
    poly_power: of the poly schedule; 1 is a straight line.
    step_epochs: epochs between two drops of the step schedule.
    step_gamma: factor of each drop.
    warmup_epochs: epochs of linear warm-up; fractions are allowed.
    warmup_start_lr, min_lr: of cosine-epochs: the learning rates at the first epoch, and that the cosine falls to, of
        all parameters alike, whatever their own peak.
    clip_norm: largest gradient norm, or None.
    accumulate: loader batches per optimiser step.
    micro_batch: shapes per process that are in the network at a time; the gradient is that of the whole batch all
        the same (see engine/gradient_cache.py). None: the whole batch.
    precision: bfloat16 runs the forward pass under autocast; parameters stay float32.
    max_seconds: wall-time budget over all resumes; schedules are squeezed into it. None: no limit.
    checkpoint_seconds: at most this much work is lost by a kill.
    seed: of torch, numpy and python, the same on every resume; rank r uses seed + r.
    """

    epochs: int = 100
    optimizer: Optimizer = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    decay_all: bool = False
    momentum: float = 0.9
    dampening: float = 0.0
    schedule: Schedule = "cosine"
    poly_power: float = 0.9
    step_epochs: int = 20
    step_gamma: float = 0.5
    warmup_epochs: float = 0.0
    warmup_start_lr: float = 0.0
    min_lr: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1
    micro_batch: int | None = None
    precision: Precision = "float32"
    max_seconds: float | None = None
    checkpoint_seconds: float = 60.0
    seed: int = 0

    def __post_init__(self):
        for field, choices in (("optimizer", Optimizer), ("schedule", Schedule), ("precision", Precision)):
            _require(self, field, getattr(self, field) in get_args(choices), f"one of {get_args(choices)}")
        for field in ("epochs", "step_epochs", "accumulate"):
            value = getattr(self, field)
            _require(self, field, isinstance(value, int) and value >= 1, "a whole number of at least 1")
        for field in ("lr", "step_gamma", "poly_power"):
            _require(self, field, 0 < getattr(self, field) < math.inf, "a positive number")
        for field in ("clip_norm", "max_seconds", "micro_batch"):
            value = getattr(self, field)
            _require(self, field, value is None or value > 0, "a positive number or None")
        for field in ("weight_decay", "checkpoint_seconds"):
            _require(self, field, getattr(self, field) >= 0, "zero or a positive number")
        for field in ("warmup_start_lr", "min_lr"):
            _require(self, field, 0 <= getattr(self, field) <= self.lr, "zero or more, and at most lr")
        for field in ("momentum", "dampening"):
            _require(self, field, 0 <= getattr(self, field) < 1, "a number in [0, 1)")
        _require(self, "warmup_epochs", 0 <= self.warmup_epochs < self.epochs, "at least 0 and below epochs")
        _require(self, "seed", isinstance(self.seed, int) and 0 <= self.seed < 2**31, "in [0, 2^31)")

    @property
    def fingerprint(self) -> dict:
        """The fields that shape the numbers; a run only resumes with the same ones."""
        fields = dataclasses.asdict(self)
        del fields["checkpoint_seconds"]
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if name not in _LATER or value != defaults[name]}


def _require(settings: Training, field: str, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(f"training.{field} = {getattr(settings, field)!r}; expected {expected}")
