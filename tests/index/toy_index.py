"""Small indices of known vectors."""

from __future__ import annotations

import numpy as np

from contrast3d.index.shards import Entry, Shard
from contrast3d.index.store import Header, IndexDir
from contrast3d.index.vectors import Index

ENCODER = "e" * 64


def unit(count: int, width: int = 8, seed: int = 0) -> np.ndarray:
    """(S, D) float32 random directions."""
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def shard(vectors: np.ndarray, names: list[str] | None = None, first: int = 0) -> Shard:
    """Vectors with names and some points."""
    names = names or [f"shape{first + i}" for i in range(len(vectors))]
    points = np.random.default_rng(1).normal(size=(len(vectors), 5, 3)).astype(np.float16)
    return Shard(vectors, points, [Entry(name, 7, 9) for name in names])


def header(width: int = 8, **changes) -> Header:
    """What an index of toy shards says."""
    return Header(**{"encoder": ENCODER, "num_points": 5, "width": width, **changes})


def in_memory(*shards: Shard) -> Index:
    """An index of these shards."""
    return Index(header(shards[0].vectors.shape[1]), shards)


def on_disk(folder, *shards: Shard) -> Index:
    """The same, written and opened."""
    store = IndexDir(folder)
    with store.locked():
        head = store.begin(header(shards[0].vectors.shape[1]))
        for some in shards:
            number = store.next_number()
            store.write(number, some)
            head = store.list_shards(head, [number])
    return Index.open(folder)
