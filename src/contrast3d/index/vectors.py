"""`Index`: the rows of an index, opened to be searched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from contrast3d.data.shape_files import shown
from contrast3d.errors import ConfigError, DataError
from contrast3d.index import approximate, exact
from contrast3d.index.shards import Entry, Shard
from contrast3d.index.store import MAKE_ONE, Header, IndexDir

ENGINES = ("auto", "exact", *approximate.KINDS)
EXACT_UP_TO = 2_000_000  # shapes that `auto` searches exactly: about half a second at 512 wide


@dataclass(frozen=True)
class Index:
    """Unit vectors with names. Rows are numbered through the shards; replaced rows keep their numbers.

    folder: where it lies, or None for one in memory.
    """

    header: Header
    shards: tuple[Shard, ...]
    folder: Path | None = None

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """The index in a folder, its vectors memory-mapped; DataErrors for what is none, and for an empty one."""
        store = IndexDir(folder)
        header = store.header()
        shards = tuple(store.read(number, header.width) for number in header.shards)
        if not sum(map(len, shards)):
            raise DataError(str(folder), "an index of no shapes", "at least one", MAKE_ONE)
        return cls(header, shards, store.path)

    def __len__(self) -> int:
        """Shapes that can be found."""
        return len(self.rows)

    @cached_property
    def entries(self) -> list[Entry]:
        """One per row, replaced ones included."""
        return [entry for shard in self.shards for entry in shard.entries]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {entry.name: row for row, entry in enumerate(self.entries)}  # the last of a name counts

    @cached_property
    def rows(self) -> Int[np.ndarray, " s"]:
        """Numbers of the rows that count, in order."""
        return np.sort(np.fromiter(self._row_of.values(), np.int64, len(self._row_of)))

    @cached_property
    def dead(self) -> Bool[np.ndarray, " s"] | None:
        """Which rows were replaced; None where none was."""
        if len(self.rows) == len(self.entries):
            return None
        dead = np.ones(len(self.entries), bool)
        dead[self.rows] = False
        return dead

    @property
    def blocks(self) -> list[Float[np.ndarray, "_ d"]]:
        return [shard.vectors for shard in self.shards]

    def vectors(self, rows: Sequence[int] | Int[np.ndarray, " m"]) -> Float[np.ndarray, "m d"]:
        """(M, D) unit vectors of the rows."""
        return self._picked("vectors", rows)

    def points(self, rows: Sequence[int] | Int[np.ndarray, " m"]) -> Float[np.ndarray, "m p 3"]:
        """(M, P, 3) float32, some points of each shape, z up."""
        return self._picked("points", rows).astype(np.float32)

    def _picked(self, what: str, rows) -> np.ndarray:
        rows = np.asarray(rows, np.int64).reshape(-1)
        ends = np.cumsum([len(shard) for shard in self.shards])
        homes = np.searchsorted(ends, rows, side="right")
        first = getattr(self.shards[0], what)
        out = np.empty((len(rows), *first.shape[1:]), first.dtype)
        for home in np.unique(homes):
            here = homes == home
            shard = self.shards[home]
            out[here] = getattr(shard, what)[rows[here] - (ends[home] - len(shard))]
        return out

    def name(self, row: int) -> str:
        """A row's name as people read it: printable, and relative where it is a path below the working folder."""
        name = self.entries[row].name
        here = os.path.join(os.getcwd(), "")
        return shown(name[len(here):] if name.startswith(here) else name)

    def row_of(self, name: str) -> int | None:
        """The row of a name: its own, the path of its file, or the end of exactly one name; None where there is none.

        A ConfigError where several names end so.
        """
        for known in (name, os.path.abspath(name)):
            if known in self._row_of:
                return self._row_of[known]
        ending = [own for own in self._row_of if _ends_with(own, name)]
        if len(ending) > 1:
            some = ", ".join(ending[:3]) + (", ..." if len(ending) > 3 else "")
            raise ConfigError(f"{len(ending)} shapes of the index are called {name!r} ({some}). Try: the full name")
        return self._row_of[ending[0]] if ending else None

    def search(
        self, queries: Float[Tensor, "q d"], k: int, engine: str = "auto",
        without: Int[np.ndarray, " q"] | None = None,
    ) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
        """Rows of the k nearest shapes of each query and their cosine distances 1 - cos, nearest first.

        k counts no further than the shapes there are to find: more columns there are not. A ConfigError below 1, and
        where there are none. An approximate engine that finds fewer fills up with rows of -1 at an infinite distance.

        engine: exact; hnsw or ivf-pq, approximate searches by faiss, built once; auto is exact up to two million
            shapes, and ivf-pq beyond where faiss is installed.
        without: (Q,) one row each that is not to be found: the query's own.
        """
        most = len(self) - (without is not None)
        if k < 1:
            raise ConfigError(f"k = {k}; expected at least 1")
        if most < 1:
            raise ConfigError(f"{self.folder or 'the index'} has no shape beside the query. Try: {MAKE_ONE}")
        k = min(k, most)
        queries = torch.nn.functional.normalize(queries.float(), dim=1)
        rows, scores = self._find(queries, k + (without is not None), self.chosen_engine(engine))
        if without is not None:
            rows, scores = _leave_out(rows, scores, torch.as_tensor(without))
        return rows.numpy(), (1 - scores).clamp_min(0).numpy()

    def chosen_engine(self, engine: str) -> str:
        """`engine`, or what auto stands for here; a ConfigError for a name that none has."""
        if engine not in ENGINES:
            raise ConfigError(f"engine = {engine!r}; expected one of {', '.join(ENGINES)}")
        if engine != "auto":
            return engine
        return "ivf-pq" if len(self) > EXACT_UP_TO and approximate.available() else "exact"

    def _find(self, queries: Tensor, k: int, engine: str) -> tuple[Tensor, Tensor]:
        if engine == "exact":
            return exact.nearest(self.blocks, queries, k, self.dead)
        candidates = self._graph(engine).candidates(queries, k)
        return approximate.reranked(self.vectors, queries, candidates, k)

    def _graph(self, engine: str) -> approximate.Graph:
        """The faiss index of an engine: opened, or built where there is none of these rows."""
        if engine not in self._graphs:
            self._graphs[engine] = approximate.Graph.open_or_build(
                engine, self.folder, self.header.encoder, self.rows, self.vectors
            )
        return self._graphs[engine]

    @cached_property
    def _graphs(self) -> dict[str, approximate.Graph]:
        return {}


def _ends_with(name: str, ending: str) -> bool:
    """Whether `ending` is the last part of a name, or several, its suffix left out or not."""
    stem = os.path.splitext(name)[0]
    return any(own.endswith(mark + ending) for own in (name, stem) for mark in ("/", "#"))


def _leave_out(rows: Tensor, scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """One column less: without the own row, or without the last where the own one was not found."""
    drop = rows == own[:, None]
    drop[:, -1] |= ~drop.any(1)
    return rows[~drop].view(len(rows), -1), scores[~drop].view(len(rows), -1)
