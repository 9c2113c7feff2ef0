"""Search among a million vectors of width 512: exact, and faiss with its recall.

The vectors are clustered, as features are. They lie on disk, memory-mapped, as `contrast3d embed` writes them; the
reference of exact search is numpy on an array in memory, that of faiss is exact search.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import harness  # before torch: sets how OpenMP threads wait
import numpy as np
import torch
from harness import Case

from contrast3d.index import approximate, exact
from contrast3d.index.shards import SHARD_ROWS, Entry, Shard
from contrast3d.index.store import Header, IndexDir
from contrast3d.index.vectors import Index

FLOAT = 4  # bytes
K = 10
ASKED = 200  # queries that recall is measured with
WANTED_MS = 600


@dataclass(frozen=True)
class Sizes:
    """S vectors of width d about so many centers; a batch of queries."""

    s: int = 1_000_000
    d: int = 512
    centers: int = 20_000
    batch: int = 64


QUICK = Sizes(s=10_000, d=16, centers=400, batch=8)
_folders: list[tempfile.TemporaryDirectory] = []  # removed when the process ends


def cases(quick: bool) -> dict[tuple[str, str], Callable[[], Case]]:
    """Every row's name and variant, and what builds its case; those of faiss where it is installed."""
    s = QUICK if quick else Sizes()
    rows = {
        ("search_exact", "1 query"): partial(exact_case, s, 1),
        ("search_exact", f"{s.batch} queries"): partial(exact_case, s, s.batch),
    }
    if approximate.available():
        rows[("search_ivf_pq", "1 query")] = partial(faiss_case, s, "ivf-pq")
        rows[("search_hnsw", "1 query")] = partial(faiss_case, s, "hnsw")
    return rows


@cache
def index_of(s: Sizes) -> Index:
    """The index on disk; vectors are made a shard at a time."""
    folder = tempfile.TemporaryDirectory(prefix="contrast3d-search-")
    _folders.append(folder)
    store = IndexDir(Path(folder.name) / "index")
    with store.locked():
        header = store.begin(Header("0" * 64, 1, s.d))
        for number, start in enumerate(range(0, s.s, SHARD_ROWS)):
            count = min(SHARD_ROWS, s.s - start)
            entries = [Entry(f"shape{row}") for row in range(start, start + count)]
            store.write(number, Shard(clustered(s, count, number), np.zeros((count, 1, 3), np.float16), entries))
        store.list_shards(header, list(range(-(-s.s // SHARD_ROWS))))
    return Index.open(store.path)


def clustered(s: Sizes, count: int, seed: int) -> np.ndarray:
    """(count, d) unit vectors, each near one of the centers, which are the same for every seed."""
    centers = np.random.default_rng(12345).standard_normal((s.centers, s.d), np.float32)
    rng = np.random.default_rng(seed)
    vectors = centers[rng.integers(s.centers, size=count)] + 0.7 * rng.standard_normal((count, s.d), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def plain_search(vectors: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores = queries @ vectors.T
    rows = np.argpartition(-scores, K, axis=1)[:, :K]
    best = np.take_along_axis(scores, rows, 1)
    order = np.argsort(-best, axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(best, order, 1)


def exact_case(s: Sizes, count: int) -> Case:
    index = index_of(s)
    queries = clustered(s, count, -1 % 2**32)
    in_memory = np.concatenate(index.blocks)

    def difference(dtype: torch.dtype) -> float:
        """Of the products found, on the first vectors in float64."""
        some = in_memory if dtype == torch.float32 else in_memory[: 4 * SHARD_ROWS].astype(np.float64)
        asked = queries.astype(some.dtype)
        blocks = np.array_split(some, 3)
        _, ours = exact.nearest(blocks, torch.from_numpy(asked), K)
        return harness.relative_difference([ours], [torch.from_numpy(plain_search(some, asked)[1])])

    note = f"The project asks for less than {WANTED_MS} ms a query on two cores. Page faults of the map come on top."
    return Case(partial(index.search, torch.from_numpy(queries), K, "exact"), 2 * count * s.s * s.d,
                FLOAT * s.s * s.d, note, partial(plain_search, in_memory, queries), difference)


def faiss_case(s: Sizes, engine: str) -> Case:
    """faiss built once, outside of the times; what it finds is measured against exact search."""
    index = index_of(s)
    queries = torch.from_numpy(clustered(s, ASKED, -1 % 2**32))
    truth, found = (index.search(queries, K, name)[0] for name in ("exact", engine))
    recall = np.mean([len({*a} & {*b}) / K for a, b in zip(truth.tolist(), found.tolist())])
    note = f"Recall@{K} is {recall:.3f} over {ASKED} queries."
    candidates = 10 * K  # what must be read whole, to be ranked by the stored vectors
    ours, reference = (partial(index.search, queries[:1], K, name) for name in (engine, "exact"))
    return Case(ours, 2 * candidates * s.d, FLOAT * candidates * s.d, note, reference)


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, cases))
