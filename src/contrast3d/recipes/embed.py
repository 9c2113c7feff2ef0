"""Embed shapes into an index: where a run's encoder, the files and the store meet."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.engine import distributed
from contrast3d.engine.interrupt import Interrupt
from contrast3d.errors import ConfigError, DataError
from contrast3d.index import embedding
from contrast3d.index.embedding import Item
from contrast3d.index.shards import Entry, Shard
from contrast3d.index.store import Header, IndexDir, Skipped
from contrast3d.index.vectors import Index
from contrast3d.recipes.export import points_of
from contrast3d.recipes.runs import Run, load_run
from contrast3d.recipes.shape_index import ShapeIndex, encoder_hash, encoding
from contrast3d.recipes.sources import items_of, set_items
from contrast3d.tally import Tally


@dataclass(frozen=True)
class Embedded:
    """How `embed_paths` ended: shapes written now, found there already, left out now; in the index altogether.

    still: how many were left out unread, because they could not be used before and have not changed. signal: what
    interrupted it, or None.
    """

    written: int
    known: int
    skipped: dict[str, str]
    total: int
    seconds: float
    still: int = 0
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """0, or 128 + signal as shells expect."""
        return 0 if self.signal is None else 128 + self.signal


def embed(encoder: nn.Module, clouds: ShapeSet, *, out: str | Path | None = None, batch_size: int = 64) -> ShapeIndex:
    """An index of the shapes, in memory or in the folder `out`, to be searched with the same encoder.

    Shapes that the folder has by the same name are not encoded again. See `open_index` for reading it back.
    """
    items = set_items(clouds, clouds.title)
    with ExitStack() as held:
        encode = encoding(encoder, held)
        if out is None:
            shards: list[Shard] = []
            _refuse_losses(embedding.embed(items, encode, shards.append, batch_size=batch_size), len(items))
            header = _header(encoder, clouds.num_points, shards[0].vectors.shape[1])
            return ShapeIndex(Index(header, tuple(shards)), lambda: encoder)
        store = IndexDir(out)
        with store.locked():
            header = store.begin(_header(encoder, clouds.num_points, encoder.embed_dim))
            fresh = _unknown(items, store, header)
            number = store.next_number()
            sink = _Sink(store, number)
            _refuse_losses(embedding.embed(fresh, encode, sink, batch_size=batch_size), len(fresh))
            store.list_shards(header, sink.numbers)
    return ShapeIndex(Index.open(out), lambda: encoder)


def embed_paths(
    run_folder: str | Path, paths: Sequence[str], out: str | Path, *, up: str = "z", data_root: Path = Path("data"),
    batch_size: int = 64, device: str = "auto", quiet: bool = False,
) -> Embedded:
    """Embed files, folders and data sets into the index `out` with the encoder of a run; goes on where it stopped.

    What the index has under the same name, size and time is not read again. Under torchrun every process calls this
    and takes its share of the shapes. Interrupted (Ctrl-C), it saves what was encoded.
    """
    ranks = distributed.setup(device)
    try:
        with ExitStack() as held:
            with distributed.together():
                if batch_size < 1:
                    raise ConfigError(f"batch_size = {batch_size}; expected at least 1")
                run = load_run(run_folder)
                reader = run.reader().to(ranks.device)
                header = _header_of(run, reader, up)
                items = items_of(paths, header.num_points, up=up, data_root=data_root)
                store = IndexDir(out)
            with distributed.together():
                if ranks.rank == 0:
                    held.enter_context(store.locked())
                    store.begin(header)
            # only now: rank 0 has taken in what an earlier embed left unlisted
            header = store.header()
            unknown = _unknown(items, store, header)
            former = store.skipped()
            fresh = [i for i in unknown if i.entry.name not in former or not former[i.entry.name].covers(i.entry)]
            first = store.next_number() + ranks.rank
            distributed.maximum(0)  # nobody writes a shard before all have counted those there are
            done = _share(reader, store, header, fresh, former, first, ranks, batch_size, quiet)
            return replace(done, known=len(items) - len(unknown), still=len(unknown) - len(fresh))
    finally:
        distributed.cleanup()


def _share(reader, store, header, fresh, former, first, ranks, batch_size, quiet) -> Embedded:
    """This process's share of the shapes, and rank 0's list of all of them.

    former: what could not be embedded earlier; all of `fresh` is tried now.
    """
    started = time.perf_counter()
    own = fresh[ranks.rank :: ranks.world]
    sink = _Sink(store, first, ranks.world, header if ranks.world == 1 else None)
    tally = Tally(len(own), "shapes" if ranks.world == 1 else f"shapes of rank {ranks.rank}", quiet)
    with Interrupt() as interrupt, ExitStack() as inside, tally:
        progress = embedding.embed(
            own, encoding(reader, inside), sink, batch_size=batch_size,
            stopped=lambda: interrupt.signal is not None,
            on_progress=lambda p: tally.update(p.done, f"{len(p.skipped)} skipped" if p.skipped else ""),
        )
        signal = interrupt.signal
    parts = distributed.gather({"numbers": sink.numbers, "skipped": progress.skipped, "again": progress.again,
                                "done": progress.done, "signal": signal})
    skipped = {name: why for part in parts for name, why in part["skipped"].items()}
    if ranks.rank == 0:
        header = store.list_shards(store.header(), [n for part in parts for n in part["numbers"]])
        again = {name for part in parts for name in part["again"]}
        store.write_skipped(_listed(former, {item.entry.name: item.entry for item in fresh}, skipped, again))
    signal = next((part["signal"] for part in parts if part["signal"] is not None), None)
    return Embedded(
        sum(part["done"] for part in parts) - len(skipped), 0, skipped, header.count,
        time.perf_counter() - started, signal=signal,
    )


def _listed(
    former: dict[str, Skipped], attempted: dict[str, Entry], skipped: dict[str, str], again: set[str]
) -> dict[str, Skipped]:
    """The list of what cannot be embedded: what was skipped now, and earlier where its file is still there."""
    kept = {
        name: row for name, row in former.items()
        if name not in attempted and (_is_there(name) or not os.path.isabs(name))
    }
    blamed = {name: () if name in again else attempted[name][1:] for name in skipped}
    return {**kept, **{name: Skipped(reason, *blamed[name]) for name, reason in skipped.items()}}


def _is_there(name: str) -> bool:
    """Whether the file of a name exists: of `/shapes.npz#3`, one shape of many, /shapes.npz."""
    return os.path.lexists(name) or any(os.path.isfile(name[:i]) for i, mark in enumerate(name) if mark == "#")


class _Sink:
    """Writes shards under the numbers first, first + step, ...; lists each at once where it has the header."""

    def __init__(self, store: IndexDir, first: int, step: int = 1, header: Header | None = None):
        self.store, self._next, self._step, self._header = store, first, step, header
        self.numbers: list[int] = []

    def __call__(self, shard: Shard) -> None:
        self.store.write(self._next, shard)
        self.numbers.append(self._next)
        self._next += self._step
        if self._header is not None:
            self._header = self.store.list_shards(self._header, self.numbers)


def _header_of(run, reader: nn.Module, up: str) -> Header:
    """What an index by this run says. Shapes are read as densely as probes read them."""
    recipe = run.name if isinstance(run, Run) else None
    header = _header(reader, points_of(run), reader.embed_dim)
    return replace(header, up=up, recipe=recipe, run=str(run.path.resolve()))


def _header(encoder: nn.Module, num_points: int, width: int) -> Header:
    return Header(encoder_hash(encoder), num_points, width)


def _unknown(items: Sequence[Item], store: IndexDir, header: Header) -> list[Item]:
    """The items that the index has not, or had when their file was another."""
    known: dict[str, Entry] = {
        entry.name: entry for number in header.shards for entry in store.read(number, header.width).entries
    }
    return [item for item in items if known.get(item.entry.name) != item.entry]


def _refuse_losses(progress: embedding.Progress, total: int) -> None:
    """Shapes in memory cannot be broken files: an encoder that fails on one of them is an error."""
    if progress.skipped:
        name, why = next(iter(progress.skipped.items()))
        raise DataError(name, f"{why}; {len(progress.skipped)} of {total} shapes so",
                        "finite features")
