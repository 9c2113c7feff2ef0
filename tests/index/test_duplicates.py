"""Groups of near-duplicates against a naive search for connected pairs."""

from __future__ import annotations

import numpy as np
import pytest
from toy_index import in_memory, on_disk, shard, unit

from contrast3d.errors import ConfigError
from contrast3d.index.duplicates import groups


def naive(vectors: np.ndarray, threshold: float) -> set[frozenset[int]]:
    near = 1 - vectors @ vectors.T <= threshold + 1e-6
    found, left = set(), set(range(len(vectors)))
    while left:
        group, waiting = set(), [left.pop()]
        while waiting:
            row = waiting.pop()
            group.add(row)
            waiting += [j for j in np.flatnonzero(near[row]).tolist() if j not in group]
        left -= group
        if len(group) > 1:
            found.add(frozenset(group))
    return found


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.2, 0.5, 2.0])
@pytest.mark.parametrize("cuts", [(), (40,), (10, 11, 90)])
def test_groups_are_the_connected_pairs(threshold, cuts):
    vectors = np.concatenate([unit(90), unit(90)[:10]])
    index = in_memory(*(shard(part, first=start) for start, part in zip((0, *cuts), np.split(vectors, cuts))))
    found = groups(index, threshold)
    assert {frozenset(group.rows) for group in found} == naive(vectors, threshold)
    assert [len(g.rows) for g in found] == sorted((len(g.rows) for g in found), reverse=True)
    distances = 1 - vectors @ vectors.T + 3 * np.eye(len(vectors))
    for group in found:
        np.testing.assert_allclose(group.distances, distances[list(group.rows)].min(1).clip(0), atol=1e-6)
        for row, distance, nearest in zip(group.rows, group.distances, group.nearest):
            assert distances[row, nearest] == pytest.approx(distance, abs=1e-6)


def test_tiles_smaller_than_a_shard(monkeypatch):
    from contrast3d.index import exact

    vectors = np.concatenate([unit(60), unit(60)])
    found = list(exact.near_pairs([vectors[:70], vectors[70:]], 1 - 1e-6, rows_at_once=9))
    pairs = {(i, j) for a, b, _ in found for i, j in zip(a.tolist(), b.tolist())}
    assert pairs == {(i, i + 60) for i in range(60)}


def test_replaced_rows_have_no_duplicates():
    vectors = unit(6)
    index = in_memory(shard(vectors), shard(vectors[2:3], ["shape2"]))
    assert groups(index, 0.0) == []


def test_one_shape():
    assert groups(in_memory(shard(unit(1))), 0.5) == []


@pytest.mark.parametrize("threshold", [-0.1, 2.1, float("nan")])
def test_thresholds(threshold):
    with pytest.raises(ConfigError, match="expected a cosine distance from 0 to 2"):
        groups(in_memory(shard(unit(3))), threshold)


def test_an_approximate_engine_finds_them_too(tmp_path):
    pytest.importorskip("faiss", reason="faiss is not installed (extra: search)")
    vectors = np.concatenate([unit(90), unit(90)[:10]])
    found = groups(on_disk(tmp_path / "index", shard(vectors)), 0.0, "hnsw")
    assert {group.rows for group in found} == {(i, i + 90) for i in range(10)}
