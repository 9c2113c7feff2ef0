"""From items to shards: order, batches, broken shapes, interruption."""

from __future__ import annotations

import numpy as np
import pytest

from contrast3d.errors import DataError
from contrast3d.index import embedding
from contrast3d.index.embedding import Item, embed
from contrast3d.index.shards import Entry


def items(count: int, broken: tuple[int, ...] = ()) -> list[Item]:
    def read(number: int):
        if number in broken:
            raise DataError(f"file{number}", "cut short")
        return np.full((4, 3), number + 1, np.float32)

    return [Item(Entry(f"file{i}"), lambda i=i: read(i)) for i in range(count)]


def encode(points: np.ndarray) -> np.ndarray:
    """A direction that tells the shape's number."""
    angle = points[:, 0, 0] / 100
    return 7 * np.stack([np.cos(angle), np.sin(angle)], 1)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_shapes_come_in_order_with_unit_vectors(batch_size):
    shards = []
    done = embed(items(10), encode, shards.append, batch_size=batch_size)
    assert (done.done, done.skipped) == (10, {})
    assert [e.name for shard in shards for e in shard.entries] == [f"file{i}" for i in range(10)]
    vectors = np.concatenate([shard.vectors for shard in shards])
    np.testing.assert_allclose(np.arctan2(vectors[:, 1], vectors[:, 0]), np.arange(1, 11) / 100, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert shards[0].points.dtype == np.float16


def test_broken_shapes_are_listed_and_the_rest_goes_on():
    shards = []
    done = embed(items(10, broken=(0, 4, 9)), encode, shards.append, batch_size=4)
    assert done.done == 10
    assert done.skipped == {f"file{i}": "cut short" for i in (0, 4, 9)}
    assert [e.name for s in shards for e in s.entries] == [f"file{i}" for i in (1, 2, 3, 5, 6, 7, 8)]


def test_nothing_but_broken_shapes():
    assert embed(items(3, broken=(0, 1, 2)), encode, pytest.fail).done == 3


def test_unreadable_files_are_broken_shapes():
    def refuse():
        raise PermissionError(13, "Permission denied")

    done = embed([Item(Entry("secret"), refuse)], encode, pytest.fail)
    assert done.skipped == {"secret": "Permission denied"}


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1e30])
def test_features_without_a_direction(value):
    def broken(points):
        features = encode(points)
        features[points[:, 0, 0] == 3] = value
        return features

    shards = []
    done = embed(items(5), broken, shards.append)
    kept = [0, 1, 2, 3, 4] if value == 1e30 else [0, 1, 3, 4]
    assert [e.name for s in shards for e in s.entries] == [f"file{i}" for i in kept if value != 1e30 or i != 2]
    assert list(done.skipped) == ["file2"]


def test_shards_have_a_size(monkeypatch):
    monkeypatch.setattr(embedding, "SHARD_ROWS", 4)
    shards = []
    embed(items(10), encode, shards.append, batch_size=3)
    assert [len(shard) for shard in shards] == [4, 4, 2]
    monkeypatch.setattr(embedding, "FLUSH_SECONDS", -1.0)
    shards.clear()
    embed(items(10), encode, shards.append, batch_size=3)
    assert [len(shard) for shard in shards] == [3, 3, 3, 1]


def test_interrupted_it_keeps_what_is_done():
    shards, told = [], []
    done = embed(items(10), encode, shards.append, batch_size=3, stopped=lambda: True,
                 on_progress=lambda p: told.append(p.done))
    assert (done.done, told) == (3, [3])
    assert [len(shard) for shard in shards] == [3]
