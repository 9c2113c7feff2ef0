"""Shapes into shards: read in threads, encoded in batches, written as they come; broken shapes are left out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from contrast3d.errors import DataError, UnreadableError
from contrast3d.index.shards import KEPT_POINTS, SHARD_ROWS, Entry, Shard

FLUSH_SECONDS = 60.0  # at most so much work is lost by a kill
READERS = 4  # threads that read files while others are encoded

Encode = Callable[[Float[np.ndarray, "b n 3"]], Float[np.ndarray, "b d"]]


@dataclass(frozen=True)
class Item:
    """A shape to embed: its entry, and what reads its points (N, 3) float32 or raises a DataError."""

    entry: Entry
    read: Callable[[], Float[np.ndarray, "n 3"]]


@dataclass
class Progress:
    """How far an embedding has come: shapes written or left out, and why these were.

    again: names of those skipped whose file is not to blame, so that it is worth another try.
    """

    done: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)

    def skip(self, name: str, error: Exception | str) -> None:
        """Leave out a shape, because of this."""
        self.skipped[name] = _reason(error)
        if isinstance(error, OSError | UnreadableError):
            self.again.add(name)


def embed(
    items: Sequence[Item], encode: Encode, sink: Callable[[Shard], None], *, batch_size: int = 64,
    stopped: Callable[[], bool] = lambda: False, on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Encode the items in order; `sink` receives shards of at most 8192 rows, one a minute or more often.

    encode: points (B, N, 3) float32 -> features (B, D), of any length. A shape whose features are not finite, or
        all zero, is left out like one that cannot be read.
    stopped: asked after each batch; what was encoded until then reaches the sink.
    """
    progress = Progress()
    rows: list[tuple[Entry, np.ndarray, np.ndarray]] = []
    flushed = time.monotonic()
    for batch in _batches(items, batch_size, progress):
        rows += _encoded(batch, encode, progress)
        on_progress(progress)
        while len(rows) >= SHARD_ROWS:
            sink(_shard(rows[:SHARD_ROWS]))
            rows, flushed = rows[SHARD_ROWS:], time.monotonic()
        if rows and time.monotonic() - flushed > FLUSH_SECONDS:
            sink(_shard(rows))
            rows, flushed = [], time.monotonic()
        if stopped():
            break
    if rows:
        sink(_shard(rows))
    return progress


def _batches(
    items: Sequence[Item], batch_size: int, progress: Progress
) -> Iterator[list[tuple[Entry, np.ndarray]]]:
    """Shapes that could be read, some at a time; the next batches are read meanwhile."""
    waiting: deque[tuple[Item, Future]] = deque()
    coming = iter(items)
    with ThreadPoolExecutor(READERS) as pool:
        try:
            batch = []
            while True:
                while len(waiting) < 2 * batch_size and (item := next(coming, None)) is not None:
                    waiting.append((item, pool.submit(_attempt, item)))
                if not waiting:
                    break
                item, future = waiting.popleft()
                points = future.result()
                if isinstance(points, Exception):
                    progress.skip(item.entry.name, points)
                    progress.done += 1
                else:
                    batch.append((item.entry, points))
                if len(batch) == batch_size:
                    yield batch
                    batch = []
            if batch:
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)


def _attempt(item: Item) -> np.ndarray | DataError | OSError:
    """The points, or why there are none."""
    try:
        return np.ascontiguousarray(item.read(), np.float32)
    except (DataError, OSError) as error:
        return error


def _reason(error: Exception | str) -> str:
    """In words; the name of the file stands beside."""
    if isinstance(error, DataError):
        return str(error).removeprefix(f"{error.where}: ")
    return getattr(error, "strerror", None) or str(error)


def _encoded(
    batch: Sequence[tuple[Entry, np.ndarray]], encode: Encode, progress: Progress
) -> list[tuple[Entry, np.ndarray, np.ndarray]]:
    """Entry, unit vector and kept points of each shape with a direction."""
    points = np.stack([points for _, points in batch])
    features = np.asarray(encode(points), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(features, axis=1)
    usable = np.isfinite(lengths) & (lengths > 0)
    rows = []
    for (entry, cloud), vector, length, good in zip(batch, features, lengths, usable):
        if good:
            rows.append((entry, vector / length, cloud[:KEPT_POINTS].astype(np.float16)))
        else:
            progress.skip(entry.name, "the encoder gives NaN, infinity or zero for it")
    progress.done += len(batch)
    return rows


def _shard(rows: Sequence[tuple[Entry, np.ndarray, np.ndarray]]) -> Shard:
    entries, vectors, points = zip(*rows)
    return Shard(np.stack(vectors), np.stack(points), list(entries))
