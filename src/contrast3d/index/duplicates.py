"""Groups of shapes that are nearly the same: all that chains of small distances connect."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from contrast3d.errors import ConfigError
from contrast3d.index import exact
from contrast3d.index.vectors import Index

NEIGHBOURS = 32  # of each shape that an approximate engine looks at
ROUNDING = 1e-6  # of a float32 product of unit vectors: copies may lie so far apart
QUERIES = 4096  # shapes whose neighbours are looked up at a time


@dataclass(frozen=True)
class Group:
    """Shapes that belong together.

    rows: in order. distances: of each to the nearest other of the group; nearest: which that is.
    """

    rows: tuple[int, ...]
    distances: tuple[float, ...]
    nearest: tuple[int, ...]


def groups(index: Index, threshold: float, engine: str = "auto") -> list[Group]:
    """Groups of at least two shapes, largest first: two shapes belong together where their cosine distance is at
    most `threshold`, and so do all that a chain of such pairs connects.

    engine: exact compares all with all, so its time grows with the square of their number; hnsw and ivf-pq look at
    32 neighbours of each shape. auto: see `Index.search`.
    """
    if not 0 <= threshold <= 2:
        raise ConfigError(f"threshold = {threshold}; expected a cosine distance from 0 to 2, such as 0.01")
    count = len(index.entries)
    parents = np.arange(count)
    closest, partner = np.full(count, np.inf, np.float32), np.full(count, -1)
    for i, j, distance in _pairs(index, threshold, engine):
        parents = _joined(parents, i, j)
        for a, b in ((i, j), (j, i)):
            order = np.argsort(-distance, kind="stable")  # falling: numpy keeps the last value written
            order = order[distance[order] < closest[a[order]]]
            closest[a[order]], partner[a[order]] = distance[order], b[order]
    return _collected(parents, closest, partner)


def _pairs(index: Index, threshold: float, engine: str) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of live rows and their distances, some at a time."""
    if index.chosen_engine(engine) == "exact":
        found = exact.near_pairs(index.blocks, 1 - threshold - ROUNDING)
        pairs = ((i.numpy(), j.numpy(), (1 - s).clamp_min(0).numpy()) for i, j, s in found)
    else:
        pairs = _neighbour_pairs(index, threshold, engine)
    for i, j, distance in pairs:
        if index.dead is not None:
            kept = ~(index.dead[i] | index.dead[j])
            i, j, distance = i[kept], j[kept], distance[kept]
        yield i, j, distance


def _neighbour_pairs(index: Index, threshold: float, engine: str):
    k = min(NEIGHBOURS, len(index) - 1)
    for start in range(0, len(index) if k else 0, QUERIES):
        rows = index.rows[start : start + QUERIES]
        found, distances = index.search(torch.from_numpy(index.vectors(rows)), k, engine, without=rows)
        near = (distances <= threshold + ROUNDING) & (found >= 0)
        yield np.repeat(rows, k).reshape(-1, k)[near], found[near], distances[near]


def _joined(parents: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Component numbers after the pairs (i, j) have been joined too."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(parents)
    rows, columns = np.concatenate([np.arange(count), i]), np.concatenate([parents, j])
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), (count, count))
    numbers = connected_components(graph, directed=False)[1]
    first = np.full(numbers.max() + 1, count)
    np.minimum.at(first, numbers, np.arange(count))
    return first[numbers]


def _collected(parents: np.ndarray, closest: np.ndarray, partner: np.ndarray) -> list[Group]:
    members = np.flatnonzero(partner >= 0)
    members = members[np.argsort(parents[members], kind="stable")]
    cuts = np.flatnonzero(np.diff(parents[members])) + 1
    found = [
        Group(tuple(rows.tolist()), tuple(closest[rows].tolist()), tuple(partner[rows].tolist()))
        for rows in np.split(members, cuts) if len(rows)
    ]
    return sorted(found, key=lambda group: (-len(group.rows), group.rows))
