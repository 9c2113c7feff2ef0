"""Search: equal to the naive one whatever the blocks are, and faiss beside it."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from toy_index import in_memory, on_disk, shard, unit

from contrast3d.errors import ConfigError, DataError
from contrast3d.index import approximate, exact
from contrast3d.index.vectors import Index


def naive(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    similarity = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order, 1 - np.take_along_axis(similarity, order, 1)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


@pytest.mark.parametrize("cuts", [(), (1,), (3, 4, 20), (25, 50, 75)])
@pytest.mark.parametrize("queries", [1, 2, 300])
@pytest.mark.parametrize("k", [1, 7, 100])
def test_exact_search_is_the_naive_one(cuts, queries, k):
    vectors, asked = unit(100, 16), unit(queries, 16, seed=5)
    rows, scores = exact.nearest(np.split(vectors, cuts), tensor(asked), k)
    expected, distances = naive(vectors, asked, k)
    np.testing.assert_array_equal(rows.numpy(), expected)
    np.testing.assert_allclose(1 - scores.numpy(), distances, atol=1e-6)


def test_equally_near_shapes_come_by_row():
    vectors = np.repeat(unit(2), [3, 4], axis=0)
    rows, _ = exact.nearest([vectors[:4], vectors[4:]], tensor(vectors[:1]), 3)
    assert rows.tolist() == [[0, 1, 2]]


def test_dead_rows_are_never_found():
    vectors, dead = unit(20), np.arange(20) % 3 == 0
    rows, scores = exact.nearest([vectors[:7], vectors[7:]], tensor(vectors), 13, dead)
    assert not dead[rows.numpy()].any()
    assert bool(torch.isfinite(scores).all())


def test_distances_and_length_of_queries():
    index = in_memory(shard(unit(30)))
    rows, distances = index.search(tensor(5 * unit(30)[:3]), 2)
    assert rows[:, 0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(distances[:, 0], 0, atol=1e-6)
    assert (distances >= 0).all()


def test_a_shape_is_not_its_own_neighbour():
    vectors = np.concatenate([unit(20), unit(1)])  # the last is a copy of the first
    index = in_memory(shard(vectors[:10]), shard(vectors[10:], first=10))
    own = np.arange(21)
    rows, distances = index.search(tensor(vectors), 20, without=own)
    assert not (rows == own[:, None]).any()
    assert (rows[0, 0], rows[20, 0]) == (20, 0)
    expected, _ = naive(vectors, vectors[3:4], 21)
    assert rows[3].tolist() == expected[0, 1:].tolist()
    assert (np.diff(distances) >= 0).all()


@pytest.mark.parametrize(("k", "without", "most"), [(6, None, 5), (5, np.array([0]), 4), (100, np.array([0]), 4)])
def test_k_beyond_the_index_finds_all_there_are(k, without, most):
    index = in_memory(shard(unit(5)))
    rows, distances = index.search(tensor(unit(1)), k, without=without)
    assert rows.shape == distances.shape == (1, most)
    expected, _ = index.search(tensor(unit(1)), most, without=without)
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one(k):
    with pytest.raises(ConfigError, match=f"k = {k}; expected at least 1"):
        in_memory(shard(unit(5))).search(tensor(unit(1)), k)


def test_an_index_of_the_query_alone():
    with pytest.raises(ConfigError, match=r"no shape beside the query\. Try: contrast3d embed"):
        in_memory(shard(unit(1))).search(tensor(unit(1)), 1, without=np.array([0]))


def test_unknown_engine():
    with pytest.raises(ConfigError, match="engine = 'magic'; expected one of auto, exact, hnsw, ivf-pq"):
        in_memory(shard(unit(5))).search(tensor(unit(1)), 1, "magic")


def test_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(tmp_path / "parts" / "a.stl"), "/other/b.obj", "LDraw40/all/3001.dat", "/x/y.npz#seat", "/z/b.obj"]
    index = in_memory(shard(unit(5), names))
    assert index.name(0) == "parts/a.stl"
    assert index.name(1) == "/other/b.obj"
    for asked in (names[0], "parts/a.stl", "./parts/a.stl", "a.stl", "a", "parts/a"):
        assert index.row_of(asked) == 0, asked
    assert index.row_of("3001") == index.row_of("3001.dat") == index.row_of("all/3001") == 2
    assert index.row_of("seat") == 3
    assert index.row_of("other/b") == 1
    assert index.row_of("1.dat") is None
    with pytest.raises(ConfigError, match="2 shapes of the index are called 'b'"):
        index.row_of("b")


class TestFaiss:
    @pytest.fixture(autouse=True)
    def faiss(self):
        return pytest.importorskip("faiss", reason="faiss is not installed (extra: search)")

    @pytest.mark.parametrize("engine", approximate.KINDS)
    def test_it_finds_what_exact_search_finds(self, engine, tmp_path):
        centers = np.repeat(unit(200, 16), 60, axis=0)
        vectors = centers + 0.1 * np.random.default_rng(0).normal(size=centers.shape).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        index = on_disk(tmp_path / "index", shard(vectors[:5000]), shard(vectors[5000:], first=5000))
        asked = tensor(vectors[::600])
        own = np.arange(0, 12000, 600)
        rows, distances = index.search(asked, 10, without=own)
        found, apart = index.search(asked, 10, engine, without=own)
        recall = np.mean([len({*a} & {*b}) / 10 for a, b in zip(rows.tolist(), found.tolist())])
        assert recall > 0.9
        assert not (found == own[:, None]).any()
        same = rows == found
        np.testing.assert_allclose(apart[same], distances[same], atol=1e-6)  # ranked by the stored vectors

    def test_the_graph_is_kept_and_read(self, faiss, tmp_path, monkeypatch):
        index = on_disk(tmp_path / "index", shard(unit(50)))
        first = index.search(tensor(unit(3)), 5, "hnsw")
        monkeypatch.setattr(approximate, "_build", lambda *a: pytest.fail("it was built before"))
        again = Index.open(tmp_path / "index").search(tensor(unit(3)), 5, "hnsw")
        np.testing.assert_array_equal(first[0], again[0])

    def test_more_shapes_build_it_anew(self, tmp_path):
        on_disk(tmp_path / "index", shard(unit(50))).search(tensor(unit(3)), 5, "hnsw")
        vectors = unit(10, seed=4)
        index = on_disk(tmp_path / "index", shard(vectors, first=50))
        assert index.search(tensor(vectors), 1, "hnsw")[0].ravel().tolist() == list(range(50, 60))
        assert json.loads((tmp_path / "index" / "hnsw.json").read_text())["count"] == 60

    def test_replaced_rows_are_not_found(self, tmp_path):
        vectors = unit(50)
        index = on_disk(tmp_path / "index", shard(vectors), shard(unit(1, seed=9), ["shape7"]))
        assert 7 not in index.search(tensor(vectors[7:8]), 50, "hnsw")[0]

    def test_ivf_pq_of_few_shapes(self):
        with pytest.raises(ConfigError, match="ivf-pq needs at least 9984 shapes, and the index has 50"):
            in_memory(shard(unit(50))).search(tensor(unit(1)), 1, "ivf-pq")

    @pytest.mark.parametrize("content", [b"", b"abcd", b"IHNf", b"IHNf" + bytes(200)])
    def test_a_damaged_graph(self, tmp_path, content):
        on_disk(tmp_path / "index", shard(unit(50))).search(tensor(unit(3)), 5, "hnsw")
        (tmp_path / "index" / "hnsw.faiss").write_bytes(content)
        with pytest.raises(DataError, match=r"hnsw.faiss: .*Try: delete"):
            Index.open(tmp_path / "index").search(tensor(unit(3)), 5, "hnsw")

    def test_a_graph_of_other_vectors(self, faiss, tmp_path):
        on_disk(tmp_path / "index", shard(unit(50))).search(tensor(unit(3)), 5, "hnsw")
        other = faiss.IndexHNSWFlat(8, 4)
        other.add(unit(3))
        faiss.write_index(other, str(tmp_path / "index" / "hnsw.faiss"))
        with pytest.raises(DataError, match="3 vectors of 8; expected 50 of 8"):
            Index.open(tmp_path / "index").search(tensor(unit(3)), 5, "hnsw")


def test_without_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"faiss is not installed.*pip install 'contrast3d\[search\]'"):
        in_memory(shard(unit(50))).search(tensor(unit(1)), 1, "hnsw")
