"""How well a ranking by similarity puts shapes of the query's class first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contrast3d.errors import DataError


def average_precision(scores: Float[Tensor, "q s"], relevant: Bool[Tensor, "q s"]) -> Float[Tensor, " q"]:
    """Per query, the mean over its relevant shapes of the precision at their rank; NaN where none is relevant.

    scores: higher is nearer; equal ones rank by lower index. Precision at rank r is the share of relevant shapes among
    the first r.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    hits = relevant.gather(1, order).double()
    precision = hits.cumsum(1) / torch.arange(1, hits.shape[1] + 1, device=hits.device)
    return (precision * hits).sum(1) / hits.sum(1)


def mean_average_precision(features: Float[Tensor, "s d"], labels: Int[Tensor, " s"], block: int = 512) -> float:
    """Mean over the shapes of the average precision with which each finds the others of its class, by cosine.

    A query is not among what it ranks. Shapes that are alone in their class ask nothing, but are ranked. Memory is
    block x S. A DataError where every shape is alone.
    """
    features = F.normalize(features.float(), dim=1)
    found = []
    for start in range(0, len(features), block):
        rows = torch.arange(start, min(start + block, len(features)))
        scores = features[rows] @ features.T
        relevant = labels[rows, None] == labels
        scores[torch.arange(len(rows)), rows] = -torch.inf  # the query itself comes last, where it changes nothing
        relevant[torch.arange(len(rows)), rows] = False
        found.append(average_precision(scores, relevant))
    values = torch.cat(found) if found else features.new_zeros(0)
    values = values[~values.isnan()]
    if not len(values):
        raise DataError("labels", f"{len(labels)} shapes, each alone in its class", "classes of at least two")
    return values.mean().item()
