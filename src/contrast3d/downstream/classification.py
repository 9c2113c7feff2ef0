"""Supervised classification of shapes: a network trained on labels, from fresh weights or from given ones."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from contrast3d.data.loader import ViewLoader
from contrast3d.data.shapes import ShapeSet
from contrast3d.data.transforms import Transform
from contrast3d.downstream.features import device_of, evaluating
from contrast3d.downstream.probes import Prediction
from contrast3d.downstream.tuned_encoders import class_parameters
from contrast3d.engine.loop import train as run_training
from contrast3d.engine.settings import Schedule, Training
from contrast3d.errors import ConfigError
from contrast3d.types import Clouds

Head = Literal["linear", "mlp-2", "mlp-3"]
RELEASED_FLOOR = 1e-6  # learning rate at both ends of the released schedule


class Classifier(nn.Module):
    """An encoder and a head; forward(batch) is the cross-entropy, as the training loop wants it.

    hidden_dim: width of the head. dropout: in it. label_smoothing: of the cross-entropy.
    encoder_lr: peak learning rate of the encoder, where it is not the head's, which a class token has with the head.
    head: linear, mlp-2, or the mlp-3 of ReCon (Qi et al., ICML 2023).
    frozen: eval or train, the mode that the encoder is in while nothing of it is trained but the class token and its
        position, where it has them; in "train", as in the released code of ReCon, batch statistics still move.
    fresh_decay: weight decay of whatever has the head's learning rate, biases and norms included, as in that code.
    """

    def __init__(
        self, encoder: nn.Module, num_classes: int, hidden_dim: int = 256, dropout: float = 0.5,
        label_smoothing: float = 0.1, encoder_lr: float | None = None, head: Head = "mlp-2",
        frozen: Literal["no", "eval", "train"] = "no", fresh_decay: float | None = None,
    ):
        super().__init__()
        if num_classes < 2:
            raise ConfigError(f"num_classes={num_classes}: a classifier tells at least 2 apart")
        self.encoder, self.label_smoothing, self.encoder_lr = encoder, label_smoothing, encoder_lr
        self.frozen, self.fresh_decay = frozen, fresh_decay
        self.head = make_head(head, encoder.embed_dim, num_classes, hidden_dim, dropout)
        if frozen != "no":
            encoder.requires_grad_(False)
            for parameter in class_parameters(encoder):
                parameter.requires_grad_()

    def train(self, mode: bool = True) -> Classifier:
        """Training mode, but for an encoder frozen in evaluation mode: it keeps its statistics and all of its paths."""
        super().train(mode)
        if self.frozen == "eval":
            self.encoder.eval()
        return self

    def param_groups(self) -> list[dict]:
        """What the optimiser trains; see engine/optimizers.py."""
        if self.encoder_lr is None and self.fresh_decay is None:
            return [{"params": self.parameters()}]
        tokens = class_parameters(self.encoder)
        beside = {id(p) for p in tokens}
        rest = {"params": [p for p in self.encoder.parameters() if id(p) not in beside]}
        fresh = {"params": [*tokens, *self.head.parameters()]}
        rest |= {} if self.encoder_lr is None else {"lr": self.encoder_lr}
        fresh |= {} if self.fresh_decay is None else {"weight_decay": self.fresh_decay}
        return [rest, fresh]

    def logits(self, clouds: Clouds) -> Float[Tensor, "b l"]:
        return self.head(self.encoder(clouds).pooled)

    def forward(self, batch: Sequence[Clouds]) -> dict[str, Tensor]:
        """batch: views of labelled clouds; each view is a sample of its own."""
        logits = torch.cat([self.logits(view) for view in batch])
        labels = torch.cat([view.labels for view in batch])
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return {"loss": loss, "accuracy": (logits.argmax(1) == labels).float().mean()}


def make_head(kind: Head, width: int, num_classes: int, hidden_dim: int = 256, dropout: float = 0.5) -> nn.Module:
    """(B, width) features -> (B, L) logits. mlp-3 is laid out as in the released checkpoints of ReCon and Point-MAE."""
    if kind == "linear":
        return nn.Linear(width, num_classes)
    if kind == "mlp-2":
        return nn.Sequential(
            nn.Linear(width, hidden_dim, bias=False), nn.BatchNorm1d(hidden_dim), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden_dim, num_classes),
        )
    if kind != "mlp-3":
        raise ConfigError(f"head = {kind!r}; expected linear, mlp-2 or mlp-3")
    layers = [(nn.Linear(w, hidden_dim), nn.BatchNorm1d(hidden_dim), nn.ReLU(), nn.Dropout(dropout))
              for w in (width, hidden_dim)]
    return nn.Sequential(*layers[0], *layers[1], nn.Linear(hidden_dim, num_classes))


def predict(classifier: Classifier, shapes: ShapeSet, batch_size: int = 64) -> Int[Tensor, " s"]:
    """The most likely class of each shape, without augmentation; the classifier is left as it was."""
    device = device_of(classifier)
    with evaluating(classifier):
        return torch.cat([
            classifier.logits(shapes.clouds(rows, device=device)).argmax(1).cpu()
            for rows in torch.arange(len(shapes)).split(batch_size)
        ])


def fit_classifier(
    make_encoder: Callable[[int], nn.Module], train: ShapeSet, test: ShapeSet, transform: Transform | None,
    *, seconds: float | None = None, epochs: int | None = None, seed: int = 0, batch_size: int = 32,
    lr: float = 1e-3, weight_decay: float = 0.05, encoder_lr_scale: float = 1.0, warmup_epochs: float = 0.0,
    clip_norm: float = 1.0, schedule: Schedule = "cosine", head: dict[str, Any] | None = None,
    on_epoch: Callable[[int, Classifier], dict[str, float]] | None = None, device: torch.device | str = "cpu",
) -> Prediction:
    """Train the encoder of `make_encoder(seed)` and a fresh head on the labels of `train`, for `seconds` of wall time
    or for `epochs`.

    The last weights are scored, never the best ones on test. Both sets must be labelled throughout.
    encoder_lr_scale: learning rate of the encoder over that of the head. head: further arguments of the
    `Classifier`. on_epoch: as in engine.loop.train.

    Raises KeyboardInterrupt at Ctrl-C and SystemExit at SIGTERM: half-trained weights are not scored.
    """
    if (seconds is None) == (epochs is None):
        raise ConfigError("fit_classifier: give either seconds or epochs")
    num_classes = max(len(train.classes), int(train.labels.max()) + 1, 2)
    encoder = make_encoder(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder_lr = None if encoder_lr_scale == 1 else encoder_lr_scale * lr
        classifier = Classifier(encoder, num_classes, encoder_lr=encoder_lr, **(head or {}))
    loader = ViewLoader(train, transform, views=1, batch_size=batch_size, seed=seed, device=device)
    # a budget of time squeezes the schedule into it, so the number of epochs only has to be out of reach
    settings = Training(
        epochs=epochs or 100_000, max_seconds=seconds, lr=lr, weight_decay=weight_decay, clip_norm=clip_norm,
        warmup_epochs=warmup_epochs, schedule=schedule, seed=seed,
        **(dict.fromkeys(("warmup_start_lr", "min_lr"), RELEASED_FLOOR) if schedule == "cosine-epochs" else {}),
    )
    outcome = run_training(classifier, loader, settings, device=device, on_epoch=on_epoch, quiet=True)
    if outcome.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if outcome.signal is not None:
        raise SystemExit(128 + outcome.signal)
    return Prediction.score(predict(classifier, test), test.labels)
