"""`IndexDir`: an index on disk.

    index.json            what the vectors are, and the shards that count
    vectors-00000.npy     (S, D) float32, each row of length one
    points-00000.npy      (S, 1024, 3) float16, the first points of each shape, for pictures
    entries-00000.jsonl   a line per row: name, size and mtime of its file
    skipped.csv           what could not be embedded: name, reason, and size and mtime of the file to blame
    hnsw.faiss, hnsw.json the graph of `--engine hnsw`, where it was asked for; likewise ivf-pq

Shards are whole or absent, and index.json is written after them: a kill at any moment costs at most the shard
in work. A row whose name comes again further down was replaced.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from contrast3d.data import cache
from contrast3d.engine.lock import exclusive
from contrast3d.engine.run_dir import replacing
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.index.shards import FIX, Entry, Shard, complete_shards, read_shard, write_shard

FORMAT = 1
MAKE_ONE = "contrast3d embed RUN PATHS... -o INDEX"


@dataclass(frozen=True)
class Header:
    """What index.json says.

    encoder: sha256 of the encoder's weights as safetensors. run: the folder of the run, or None.
    num_points: points per shape that the encoder read. up: the axis that files have up. width: of the vectors.
    shards: the numbers of those that count. count: rows in them, replaced ones included.
    """

    encoder: str
    num_points: int
    width: int
    up: str = "z"
    recipe: str | None = None
    run: str | None = None
    shards: tuple[int, ...] = ()
    count: int = 0
    metric: str = "cosine"
    format: int = FORMAT

    def check_same(self, other: Header, where: str) -> None:
        """A ConfigError unless the vectors of both can be compared."""
        if self.encoder != other.encoder:
            raise ConfigError(
                f"{where} holds vectors of another encoder ({self.encoder[:12]} there, {other.encoder[:12]} here). "
                "Try: the run that made it, or another folder"
            )
        for field in ("width", "num_points", "up"):
            a, b = getattr(self, field), getattr(other, field)
            if a != b:
                raise ConfigError(f"{where} was made with {field} = {a!r}, not {b!r}. Try: another folder")


class Skipped(NamedTuple):
    """Why a shape could not be embedded. size, mtime: of its file; zeros where that is not to blame.

    reader: the version of the readers that said so.
    """

    reason: str
    size: int = 0
    mtime: int = 0
    reader: int = cache.VERSION

    def covers(self, entry: Entry) -> bool:
        """Whether it would be the same again: the file and the readers are as they were."""
        return bool(self.mtime) and self[1:] == (entry.size, entry.mtime, cache.VERSION)


class IndexDir:
    """The files of one index; `vectors.Index.open` reads them to search."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        return self._header_path.exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, nobody else writes to this folder, which is made; a ConfigError where someone does."""
        if self.path.exists() and not self.exists and any(p.name != ".lock" for p in self.path.iterdir()):
            raise ConfigError(f"{self.path} is a folder of other things. Try: a new folder for the index")
        self.path.mkdir(parents=True, exist_ok=True)
        with exclusive(self.path / ".lock") as free:
            if not free:
                raise ConfigError(f"another process embeds into {self.path}. Try: wait for its end, or another folder")
            yield

    def header(self) -> Header:
        """index.json; MissingDataError or DataError where it is absent or broken."""
        if not self.path.is_dir():
            raise MissingDataError(str(self.path), "no such folder", "an index", MAKE_ONE)
        if not self.exists:
            raise MissingDataError(str(self._header_path), "no such file", "an index", MAKE_ONE)
        try:
            written = json.loads(self._header_path.read_text("utf-8"))
            if written["format"] != FORMAT:
                raise DataError(str(self._header_path), f"format {written['format']}", f"format {FORMAT}", FIX)
            return Header(**{**written, "shards": tuple(written["shards"])})
        except (ValueError, TypeError, KeyError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(str(self._header_path), f"unreadable ({error})", "what `embed` writes", FIX) from None

    def begin(self, header: Header) -> Header:
        """Write index.json, or check that the one there fits and take in the shards that a kill left unlisted."""
        if not self.exists:
            self._write(header)
            return header
        former = self.header()
        former.check_same(header, str(self.path))
        return self.list_shards(replace(former, run=header.run, recipe=header.recipe), complete_shards(self.path))

    def list_shards(self, header: Header, numbers: list[int]) -> Header:
        """index.json with these shards and those that it listed already."""
        shards = tuple(sorted({*header.shards, *numbers}))
        count = sum(len(self.read(number, header.width)) for number in shards if number not in header.shards)
        header = replace(header, shards=shards, count=header.count + count)
        self._write(header)
        return header

    def next_number(self) -> int:
        """A shard number above all there are."""
        return max(complete_shards(self.path), default=-1) + 1

    def write(self, number: int, shard: Shard) -> None:
        """The files of a shard, which counts once it is listed."""
        write_shard(self.path, number, shard)

    def read(self, number: int, width: int) -> Shard:
        """A shard, its arrays memory-mapped."""
        return read_shard(self.path, number, width)

    def skipped(self) -> dict[str, Skipped]:
        """What could not be embedded so far, by name.

        People open and edit this table: rows that are none of its own any more are passed over, and what they named
        is tried again.
        """
        path = self.path / "skipped.csv"
        if not path.exists():
            return {}
        known: dict[str, Skipped] = {}
        with contextlib.suppress(csv.Error):  # a quote that never ends: what stands behind it is lost
            for row in csv.reader(io.StringIO(path.read_text("utf-8", "surrogateescape"), newline="")):
                with contextlib.suppress(ValueError, TypeError):
                    name, reason, *numbers = row
                    known[name] = Skipped(reason, *map(int, numbers))
        known.pop("name", None)
        return known

    def write_skipped(self, skipped: Mapping[str, Skipped]) -> None:
        """skipped.csv anew; no file where nothing was skipped."""
        path = self.path / "skipped.csv"
        if skipped:
            write_csv(path, ("name", *Skipped._fields), ((name, *row) for name, row in skipped.items()))
        else:
            path.unlink(missing_ok=True)

    @property
    def _header_path(self) -> Path:
        return self.path / "index.json"

    def _write(self, header: Header) -> None:
        with replacing(self._header_path) as file:
            file.write((json.dumps(asdict(header), indent=2) + "\n").encode())


def write_csv(path: Path, header, rows) -> Path:
    """A CSV file in one step."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))  # names may be any bytes
    return path
