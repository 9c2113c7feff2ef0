"""Embed shapes into an index: where a run's encoder, the files and the store meet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.engine import distributed
from contrast3d.engine.interrupt import Interrupt
from contrast3d.engine.tally import Tally
from contrast3d.errors import ConfigError, DataError
from contrast3d.index import embedding
from contrast3d.index.embedding import Item
from contrast3d.index.shards import Entry, Shard
from contrast3d.index.store import Header, IndexDir
from contrast3d.index.vectors import Index
from contrast3d.recipes.export import points_of
from contrast3d.recipes.runs import Run, load_run
from contrast3d.recipes.shape_index import ShapeIndex, encoder_hash, encoding
from contrast3d.recipes.sources import items_of, set_items


@dataclass(frozen=True)
class Embedded:
    """How `embed_paths` ended: shapes written now, found there already, left out now; in the index altogether.

    signal: what interrupted it, or None.
    """

    written: int
    known: int
    skipped: dict[str, str]
    total: int
    seconds: float
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
    if batch_size < 1:
        raise ConfigError(f"batch_size = {batch_size}; expected at least 1")
    ranks = distributed.setup(device)
    try:
        with ExitStack() as held:
            with distributed.together():
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
            fresh = _unknown(items, store, header)
            first = store.next_number() + ranks.rank
            distributed.maximum(0)  # nobody writes a shard before all have counted those there are
            return _share(run, reader, store, header, fresh, len(items), first, ranks, batch_size, quiet)
    finally:
        distributed.cleanup()


def _share(run, reader, store, header, fresh, total, first, ranks, batch_size, quiet) -> Embedded:
    """This process's share of the shapes, and rank 0's page about all of them."""
    started = time.perf_counter()
    own = fresh[ranks.rank :: ranks.world]
    sink = _Sink(store, first, ranks.world, header if ranks.world == 1 else None)
    tally = Tally(len(own), "shapes" if ranks.world == 1 else f"shapes of rank {ranks.rank}", quiet or ranks.rank > 0)
    with Interrupt() as interrupt, ExitStack() as inside:
        progress = embedding.embed(
            own, encoding(reader, inside), sink, batch_size=batch_size,
            stopped=lambda: interrupt.signal is not None,
            on_progress=lambda p: tally.update(p.done, f"{len(p.skipped)} skipped" if p.skipped else ""),
        )
        signal = interrupt.signal
    parts = distributed.gather({"numbers": sink.numbers, "skipped": progress.skipped, "done": progress.done,
                                "signal": signal})
    skipped = {name: why for part in parts for name, why in part["skipped"].items()}
    if ranks.rank == 0:
        header = store.list_shards(store.header(), [n for part in parts for n in part["numbers"]])
        attempted = {item.entry.name for item in fresh}
        former = {name: why for name, why in store.skipped().items() if name not in attempted}
        store.write_skipped({**former, **skipped})
    signal = next((part["signal"] for part in parts if part["signal"] is not None), None)
    return Embedded(
        sum(part["done"] for part in parts) - len(skipped), total - len(fresh), skipped, header.count,
        time.perf_counter() - started, signal,
    )


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
        raise DataError(name, f"{why.removeprefix(name + ': ')}; {len(progress.skipped)} of {total} shapes so",
                        "finite features")
