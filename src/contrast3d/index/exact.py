"""Exact search by matrix products over blocks of vectors, which may lie on disk: about the speed of memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

QUERIES = 256  # at a time: 8 MB of scores for a block of 8192 vectors


def nearest(
    blocks: Sequence[Float[np.ndarray, "_ d"]], queries: Float[Tensor, "q d"], k: int,
    dead: Bool[np.ndarray, " s"] | None = None,
) -> tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]:
    """Rows of the k vectors with the largest dot products, and these products; best first, then by lower row.

    blocks: (S_i, D) float32 arrays one after the other; rows count through them, k of them at least.
    dead: (S,) rows that are never found.
    """
    found = [_some(blocks, some, k, dead) for some in queries.split(QUERIES)]
    rows, scores = (torch.cat(parts) for parts in zip(*found))
    return rows, scores


def _some(blocks, queries: Tensor, k: int, dead: np.ndarray | None) -> tuple[Tensor, Tensor]:
    best = queries.new_full((len(queries), 0), -torch.inf)
    rows = torch.zeros(len(queries), 0, dtype=torch.int64)
    for start, block in _numbered(blocks):
        scores = _products(block, queries)
        if dead is not None:
            scores[:, torch.from_numpy(dead[start : start + len(block)])] = -torch.inf
        top, at = scores.topk(min(k, len(block)))
        best, rows = torch.cat([best, top], 1), torch.cat([rows, at + start], 1)
        if best.shape[1] > k:
            best, kept = best.topk(k)
            rows = rows.gather(1, kept)
    rows, order = rows.sort(1)
    best, again = best.gather(1, order).sort(dim=1, descending=True, stable=True)
    return rows.gather(1, again), best


def _products(block: np.ndarray, queries: Tensor) -> Tensor:
    vectors = torch.from_numpy(block)
    # A product with a single column is a sum per row, read at the speed of memory; with a matrix of one row it is not.
    return torch.mv(vectors, queries[0])[None] if len(queries) == 1 else queries @ vectors.T


def _numbered(blocks: Iterable[np.ndarray]) -> Iterable[tuple[int, np.ndarray]]:
    start = 0
    for block in blocks:
        yield start, block
        start += len(block)


def near_pairs(
    blocks: Sequence[Float[np.ndarray, "_ d"]], least: float, rows_at_once: int = 1024
) -> Iterable[tuple[Int[Tensor, " p"], Int[Tensor, " p"], Float[Tensor, " p"]]]:
    """All pairs i < j whose dot product is at least `least`, a tile at a time: rows i, rows j, products."""
    for first, left in _numbered(blocks):
        for second, right in _numbered(blocks):
            if second < first:
                continue
            for offset in range(0, len(left), rows_at_once):
                products = torch.from_numpy(left[offset : offset + rows_at_once]) @ torch.from_numpy(right).T
                i, j = (products >= least).nonzero(as_tuple=True)
                values = products[i, j]
                i, j = i + first + offset, j + second
                upper = i < j
                if bool(upper.any()):
                    yield i[upper], j[upper], values[upper]
