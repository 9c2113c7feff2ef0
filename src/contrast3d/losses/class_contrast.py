"""ReCon's single-modal contrast, which reads class labels; NT-Xent of two maskings is the one that reads none."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.collective import gather_rows, rank


def class_contrast(
    embeddings: Float[Tensor, "b d"], labels: Int[Tensor, "b"], temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Mean over i of -log( exp(p_i) / (exp(p_i) + sum over j with labels_j != labels_i of exp(z_i.z_j / t)) ).

    p_i: the mean of z_i.z_j / t over all j of the class of i, i included: one positive logit, as ReCon was released
    (Qi et al., 2023). z: the embeddings, normalised here. It reads labels, which the paper's "single-modal
    self-supervised" does too: runs trained with it are supervised by class names. A label below zero is unknown: such
    a row is of no class but its own.

    The batch is that of all processes; the mean over ranks of this loss is that of the joined batch. Memory is
    O(B^2).
    """
    if not temperature > 0:
        raise DataError("temperature", f"{temperature}", "a positive number")
    if not len(embeddings):
        raise DataError("class_contrast", "an empty batch", "at least one shape")
    wide = torch.promote_types(embeddings.dtype, torch.float32)
    with torch.autocast(embeddings.device.type, enabled=False):
        z = F.normalize(embeddings.to(wide), dim=1)
        logits = z @ gather_rows(z).T / temperature
        itself = rank() * len(z) + torch.arange(len(z), device=z.device)
        same = (labels[:, None] == gather_rows(labels)) & (labels >= 0)[:, None]
        same = same.scatter(1, itself[:, None], True)
        positive = (logits * same).sum(1) / same.sum(1)
        negatives = logits.masked_fill(same, -torch.inf)
        return (torch.cat([positive[:, None], negatives], 1).logsumexp(1) - positive).mean()
