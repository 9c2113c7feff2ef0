"""Accuracies of class predictions, as fractions between 0 and 1."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from contrast3d.errors import DataError


def accuracy(predictions: Int[Tensor, " s"], labels: Int[Tensor, " s"]) -> float:
    """Share of samples whose prediction is their label (overall or instance accuracy, "OA")."""
    _require_samples(labels)
    return (predictions == labels).double().mean().item()


def balanced_accuracy(predictions: Int[Tensor, " s"], labels: Int[Tensor, " s"]) -> float:
    """Mean over the classes present in `labels` of the share predicted right ("mAcc")."""
    _require_samples(labels)
    counts = torch.bincount(labels)
    hits = torch.bincount(labels[predictions == labels], minlength=len(counts))
    present = counts > 0
    return (hits[present].double() / counts[present]).mean().item()


def confusion_matrix(
    predictions: Int[Tensor, " s"], labels: Int[Tensor, " s"], num_classes: int
) -> Int[Tensor, "l l"]:
    """(L, L) counts; row = label, column = prediction."""
    both = torch.cat([predictions, labels])
    if len(both) and (both.min() < 0 or both.max() >= num_classes):
        raise DataError(
            "confusion_matrix", f"classes {int(both.min())} to {int(both.max())}", f"0 to {num_classes - 1}"
        )
    cells = torch.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return cells.view(num_classes, num_classes)


def _require_samples(labels: Tensor) -> None:
    if len(labels) == 0:
        raise DataError("labels", "no samples", "at least one")
