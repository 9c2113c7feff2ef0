"""Approximate search by faiss: a graph (HNSW) or compressed lists (IVF-PQ), built once and kept beside the vectors.

faiss proposes candidates; their distances, and with them the order, are computed from the stored vectors.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.engine.run_dir import replacing
from contrast3d.errors import ConfigError, DataError

KINDS = ("hnsw", "ivf-pq")
MAGIC = {"hnsw": b"IHNf", "ivf-pq": b"IwPQ"}  # the first four bytes of what faiss writes
LINKS, BREADTH = 32, 128  # HNSW: links per vector; candidates kept while building and while searching
FEWEST_PER_LIST, FEWEST_LISTS = 39, 256  # IVF-PQ: faiss warns of fewer per list; codes of 8 bits need 256 vectors
PROBES = 32  # lists of IVF-PQ that a search reads
STEP = 65_536  # vectors handed to faiss at a time

Vectors = Callable[[np.ndarray], np.ndarray]  # rows -> (M, D)


def available() -> bool:
    """Whether faiss is installed."""
    return importlib.util.find_spec("faiss") is not None


def _faiss():
    try:
        import faiss
    except ImportError:
        raise ConfigError(
            "faiss is not installed, and the approximate engines are its. Try: pip install 'contrast3d[search]', "
            "or --engine exact"
        ) from None
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


@dataclass(frozen=True)
class Graph:
    """A faiss index over `rows` of an index: its i-th vector is that of rows[i]."""

    kind: str
    rows: Int[np.ndarray, " s"]
    built: Any

    @classmethod
    def open_or_build(
        cls, kind: str, folder: Path | None, encoder: str, rows: Int[np.ndarray, " s"], vectors: Vectors
    ) -> Graph:
        """The one kept in the folder, where it is of these rows; else a new one, which is then kept there.

        A DataError where the file kept is damaged; a ConfigError without faiss, or for too few shapes.
        """
        faiss = _faiss()
        width = vectors(rows[:1]).shape[1]
        described = {"engine": kind, "encoder": encoder, "count": len(rows), "rows": _digest(rows)}
        if folder is not None and _kept(folder, kind) == described:
            return cls(kind, rows, _read(faiss, folder / f"{kind}.faiss", kind, len(rows), width))
        built = _build(faiss, kind, rows, vectors, width)
        if folder is not None:
            _keep(faiss, folder, kind, built, described)
        return cls(kind, rows, built)

    def candidates(self, queries: Float[Tensor, "q d"], k: int) -> Int[np.ndarray, "q _"]:
        """Rows that are likely among the k nearest of each query, ten times as many as asked for; -1 where fewer."""
        faiss = _faiss()
        wanted = min(max(10 * k, 100), len(self.rows))
        if self.kind == "hnsw":
            options = faiss.SearchParametersHNSW(efSearch=max(BREADTH, wanted))
        else:
            options = faiss.SearchParametersIVF(nprobe=PROBES)
        _, found = self.built.search(queries.numpy(), wanted, params=options)
        return np.where(found >= 0, self.rows[found], -1)


def reranked(
    vectors: Vectors, queries: Float[Tensor, "q d"], candidates: Int[np.ndarray, "q c"], k: int
) -> tuple[Int[Tensor, "q k"], Float[Tensor, "q k"]]:
    """The k candidates with the largest dot products with their query, and these products, best first.

    A row of -1, with a product of minus infinity, fills up where there were fewer than k candidates.
    """
    rows, scores = [], []
    for query, found in zip(queries, candidates):
        found = torch.from_numpy(np.sort(np.unique(found[found >= 0])))
        products = torch.from_numpy(vectors(found.numpy())) @ query
        top, at = products.sort(descending=True, stable=True)
        missing = max(0, k - len(found))
        rows.append(torch.nn.functional.pad(found[at[:k]], (0, missing), value=-1))
        scores.append(torch.nn.functional.pad(top[:k], (0, missing), value=-torch.inf))
    return torch.stack(rows), torch.stack(scores)


def _build(faiss, kind: str, rows: np.ndarray, vectors: Vectors, width: int):
    if kind == "hnsw":
        built = faiss.IndexHNSWFlat(width, LINKS, faiss.METRIC_INNER_PRODUCT)
        built.hnsw.efConstruction = BREADTH
    else:
        built = _trained_lists(faiss, rows, vectors, width)
    for start in range(0, len(rows), STEP):
        built.add(vectors(rows[start : start + STEP]))
    return built


def _trained_lists(faiss, rows: np.ndarray, vectors: Vectors, width: int):
    """An empty IVF-PQ whose lists and codes are fitted on a sample, the same for the same rows."""
    if len(rows) < FEWEST_LISTS * FEWEST_PER_LIST:
        raise ConfigError(f"ivf-pq needs at least {FEWEST_LISTS * FEWEST_PER_LIST} shapes, and the index has "
                          f"{len(rows)}. Try: --engine exact, which is fast at this size")
    lists = min(max(64, round(4 * len(rows) ** 0.5)), len(rows) // FEWEST_PER_LIST)
    parts = next(p for p in (64, 48, 32, 24, 16, 8, 4, 2, 1) if width % p == 0 and p <= width)
    # np: without polysemous training, which takes minutes and serves a search that is not used here
    built = faiss.index_factory(width, f"IVF{lists},PQ{parts}np", faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).permutation(len(rows))[: 2 * FEWEST_PER_LIST * max(lists, FEWEST_LISTS)]
    built.train(vectors(rows[np.sort(sample)]))
    return built


def _keep(faiss, folder: Path, kind: str, built, described: dict) -> None:
    """faiss's own file, and then the page beside it that says of which rows it is."""
    path = folder / f"{kind}.faiss"
    temporary = path.with_name(f".{path.name}.tmp")
    (folder / f"{kind}.json").unlink(missing_ok=True)
    faiss.write_index(built, str(temporary))
    temporary.replace(path)
    with replacing(folder / f"{kind}.json") as file:
        file.write((json.dumps(described, indent=2) + "\n").encode())


def _kept(folder: Path, kind: str) -> dict | None:
    """What the page beside the faiss file says; None where there is none, or half of one."""
    try:
        return json.loads((folder / f"{kind}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _read(faiss, path: Path, kind: str, count: int, width: int):
    fix = f"delete {path} and {path.with_suffix('.json').name}: the next search builds them again"
    try:
        with open(path, "rb") as file:
            head = file.read(4)
        if head != MAGIC[kind]:
            raise DataError(str(path), f"a file that starts with {head!r}", f"{MAGIC[kind]!r}, as faiss writes", fix)
        built = faiss.read_index(str(path))
    except (RuntimeError, OSError) as error:
        raise DataError(str(path), f"unreadable ({str(error).splitlines()[0][:120]})", "faiss's file", fix) from None
    if (built.ntotal, built.d) != (count, width):
        raise DataError(str(path), f"{built.ntotal} vectors of {built.d}", f"{count} of {width}", fix)
    return built


def _digest(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, np.int64).tobytes()).hexdigest()[:16]
