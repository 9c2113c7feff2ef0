"""How well the parts of shapes are found, as ShapeNetPart measures it (Yi et al., SIGGRAPH Asia 2016)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.metrics.segmentation import IGNORE, confusion, iou_per_class


def restricted_argmax(
    logits: Float[Tensor, "b n p"], classes: Int[Tensor, "b"], of_class: Bool[Tensor, "l p"]
) -> Int[Tensor, "b n"]:
    """(B, N) the likeliest part of each point among those that a shape of its class may have."""
    return logits.masked_fill(~of_class[classes][:, None], -torch.inf).argmax(2)


def part_ious(
    predicted: Int[Tensor, "s n"], labels: Int[Tensor, "s n"], classes: Int[Tensor, "s"], of_class: Bool[Tensor, "l p"]
) -> Float[Tensor, "s p"]:
    """(S, P) float64 intersection over union of each part in each shape; NaN where its class has no such part.

    1 where a shape of a class that has the part neither holds it nor is said to. Points of the label 255 count nowhere,
    and a shape without others is NaN throughout.
    """
    known = labels != IGNORE
    ious = torch.full((len(labels), of_class.shape[1]), torch.nan, dtype=torch.float64)
    for part in of_class.any(0).nonzero().flatten().tolist():
        said, true = known & (predicted == part), labels == part
        union = (said | true).sum(1).double()
        iou = torch.where(union == 0, 1.0, (said & true).sum(1) / union.clamp(min=1))
        ious[:, part] = torch.where(of_class[classes, part] & known.any(1), iou, torch.nan)
    return ious


def instance_and_class_iou(ious: Float[Tensor, "s p"], classes: Int[Tensor, "s"]) -> tuple[float, float]:
    """(mean over the shapes of the mean over their parts, mean over the classes of the mean over their shapes).

    The instance and the class mIoU of papers. Shapes none of whose parts count are left out.
    """
    counts = (~ious.isnan()).any(1)
    if not bool(counts.any()):
        raise DataError("part_ious", "no shape with a part that counts", "at least one")
    shapes, classes = ious[counts].nanmean(1), classes[counts]
    per_class = [shapes[classes == c].mean().item() for c in classes.unique().tolist()]
    return shapes.mean().item(), sum(per_class) / len(per_class)


def pooled_part_iou(
    predicted: Int[Tensor, "s n"], labels: Int[Tensor, "s n"], parts: int, scored: tuple[int, ...]
) -> tuple[float, Float[Tensor, " p"]]:
    """(mean over the scored parts of the IoU over the points of all shapes, that IoU of each part).

    A part that is rare counts as much as another, and one that is absent counts nowhere, unlike in the instance mIoU.
    """
    each = iou_per_class(confusion(predicted.flatten(), labels.flatten(), parts))
    return each[list(scored)].nanmean().item(), each
