"""InfoNCE and its symmetric form NT-Xent, the contrastive losses of MoCo and SimCLR, in memory linear in the batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.ops.collective import gather_rows, rank

BLOCK_ROWS = 1024


def nt_xent(
    first: Float[Tensor, "b d"], second: Float[Tensor, "b d"], temperature: float = 0.1
) -> Float[Tensor, ""]:
    """The normalised temperature-scaled cross entropy (Chen et al. 2020, eq. 1), averaged over all 2 B rows.

    For row i of z = normalised [first; second] with partner p(i):
        loss_i = -log( exp(z_i.z_p(i) / t) / sum over j != i of exp(z_i.z_j / t) ).

    Similarities are made and used in blocks of rows, forward and backward, never stored: memory is
    O(B d), not O(B^2). Under several processes the negatives of all of them count, and the mean over ranks of
    this loss is the loss of the joined batch.
    """
    if len(first) < 1:
        raise DataError("nt_xent", "an empty batch", "at least one pair")
    if temperature <= 0:
        raise DataError("temperature", f"{temperature}", "a positive number")
    half = torch.promote_types(first.dtype, torch.float32)
    a = torch.nn.functional.normalize(first.to(half), dim=-1)
    b = torch.nn.functional.normalize(second.to(half), dim=-1)
    count = len(a)
    keys_a, keys_b = gather_rows(a), gather_rows(b)
    own = rank() * count + torch.arange(count, device=a.device)
    itself = torch.cat([own, own + len(keys_a)])
    queries, keys = torch.cat([a, b]), torch.cat([keys_a, keys_b])
    positive = 2 * (a * b).sum() / temperature
    with torch.autocast(a.device.type, enabled=False):
        return (LogSumExp.apply(queries, keys, itself, temperature) - positive) / (2 * count)


def info_nce(
    queries: Float[Tensor, "b d"], keys: Float[Tensor, "b d"], negatives: Float[Tensor, "m d"], temperature: float = 0.1
) -> Float[Tensor, ""]:
    """Mean over i of -log( exp(q_i.k_i / t) / (exp(q_i.k_i / t) + sum over j of exp(q_i.n_j / t)) ) of unit vectors.

    He et al. (2020), eq. 1: each query has one positive key, and all share the negatives.
    """
    if temperature <= 0:
        raise DataError("temperature", f"{temperature}", "a positive number")
    wide = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        q, k, n = (torch.nn.functional.normalize(z.to(wide), dim=-1) for z in (queries, keys, negatives))
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ n.T], 1) / temperature
        return (logits.logsumexp(1) - logits[:, 0]).mean()


class LogSumExp(torch.autograd.Function):
    """sum over rows i of log sum over j != itself[i] of exp(queries_i . keys_j / temperature), in blocks of rows.

    itself: (B,) the key that each row leaves out, or None.
    """

    @staticmethod
    def forward(ctx, queries, keys, itself, temperature):
        log_sums = torch.cat([
            _similarity(queries, keys, itself, temperature, rows).logsumexp(1) for rows in _blocks(queries)
        ])
        ctx.save_for_backward(queries, keys, itself, log_sums)
        ctx.temperature = temperature
        return log_sums.sum()

    @staticmethod
    def backward(ctx, grad):
        queries, keys, itself, log_sums = ctx.saved_tensors
        queries_grad, keys_grad = torch.empty_like(queries), torch.zeros_like(keys)
        with torch.autocast(queries.device.type, enabled=False):
            for rows in _blocks(queries):
                similarity = _similarity(queries, keys, itself, ctx.temperature, rows)
                softmax = similarity.sub_(log_sums[rows, None]).exp_()
                queries_grad[rows] = softmax @ keys
                keys_grad.addmm_(softmax.T, queries[rows])
        scale = grad / ctx.temperature
        return queries_grad.mul_(scale), keys_grad.mul_(scale), None, None


def _blocks(queries):
    return [slice(i, min(i + BLOCK_ROWS, len(queries))) for i in range(0, len(queries), BLOCK_ROWS)]


def _similarity(queries, keys, itself, temperature, rows):
    similarity = (queries[rows] @ keys.T).div_(temperature)
    return similarity if itself is None else similarity.scatter_(1, itself[rows, None], float("-inf"))
