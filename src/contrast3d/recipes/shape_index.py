"""`ShapeIndex`: an index together with the encoder that made it, so that files and clouds can be looked up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from contrast3d.downstream.features import device_of, evaluating
from contrast3d.engine.distributed import pick_device
from contrast3d.engine.memory import keep_freed_memory
from contrast3d.errors import ConfigError, DataError, MissingDataError
from contrast3d.index.duplicates import Group, groups
from contrast3d.index.vectors import Index
from contrast3d.nn.partwise import Partwise
from contrast3d.recipes.runs import load_run
from contrast3d.recipes.sources import file_entry
from contrast3d.types import Clouds


@dataclass(frozen=True)
class Hit:
    """A shape found: its rank from 1, cosine distance to the query, name and row in the index."""

    rank: int
    distance: float
    name: str
    row: int


@dataclass(frozen=True)
class Query:
    """What was looked up: its name, vector (D,) and points (N, 3), and its row where it is one of the index."""

    name: str
    vector: Float[np.ndarray, " d"]
    points: Float[np.ndarray, "n 3"]
    row: int | None = None


class ShapeIndex:
    """An `Index` whose queries may be names, files or clouds.

    encoder: called for the module that made the vectors, when a query is none of them.
    """

    def __init__(self, index: Index, encoder: Callable[[], nn.Module]):
        self.index, self._encoder = index, encoder

    def __len__(self) -> int:
        return len(self.index)

    def search(
        self, query: str | Path | Float[np.ndarray, "n 3"] | Tensor | Query, k: int = 10, engine: str = "auto"
    ) -> list[Hit]:
        """The k nearest shapes; where the query is one of them, the k nearest others. All of them where k is more.

        query: a name in the index, a file of a mesh or point cloud, or points (N, 3), z up, in the unit sphere.
        engine: see `index.Index.search`.
        """
        query = query if isinstance(query, Query) else self.query(query)
        without = None if query.row is None else np.array([query.row])
        rows, distances = self.index.search(torch.from_numpy(query.vector[None]), k, engine, without)
        found = [(row, d) for row, d in zip(rows[0].tolist(), distances[0].tolist()) if row >= 0]
        return [Hit(rank, d, self.index.name(row), row) for rank, (row, d) in enumerate(found, 1)]

    def query(self, query: str | Path | Float[np.ndarray, "n 3"] | Tensor) -> Query:
        """The vector and the points of what `search` takes."""
        if not isinstance(query, str | Path):
            points = np.ascontiguousarray(query, np.float32)
            return Query("the query", self._encoded(points, "the query"), points)
        path, row = Path(query), self.index.row_of(str(query))
        is_file = path.is_file()
        if row is not None and not (is_file and file_entry(path) != self.index.entries[row]):
            return Query(self.index.name(row), self.index.vectors([row])[0], self.index.points([row])[0], row)
        if not is_file:
            found = "a folder" if path.is_dir() else "neither a file nor the name of a shape in the index"
            raise MissingDataError(str(query), found, "a mesh, a point cloud or a name")
        from contrast3d.data.folder import read_shape
        from contrast3d.data.shape_files import shown

        header = self.index.header
        points = read_shape(path, header.num_points, up=header.up)
        return Query(shown(path.name), self._encoded(points, str(path)), points)

    def groups(self, threshold: float, engine: str = "auto") -> list[Group]:
        """Near-duplicates; see `index.duplicates.groups`."""
        return groups(self.index, threshold, engine)

    def _encoded(self, points: np.ndarray, where: str) -> np.ndarray:
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise DataError(where, f"points of shape {points.shape}", "finite numbers of shape (N, 3)")
        with ExitStack() as held:
            vector = encoding(self._encoder(), held)(points[None])[0]
        if not np.isfinite(vector).all() or not vector.any():
            raise DataError(where, "the encoder gives NaN, infinity or zero for it", "a shape with some extent")
        return vector


def encoding(encoder: nn.Module, held: ExitStack) -> Callable[[np.ndarray], np.ndarray]:
    """points (B, N, 3) -> features (B, D), in evaluation mode as long as `held` is open."""
    module = held.enter_context(evaluating(encoder))
    device = device_of(module)
    keep_freed_memory()

    def encode(points: np.ndarray) -> np.ndarray:
        return module(Clouds.from_dense(torch.from_numpy(points).to(device))).pooled.float().cpu().numpy()

    return encode


def encoder_hash(encoder: nn.Module) -> str:
    """sha256 of the weights as safetensors, without metadata; the reader of a run counts as its encoder."""
    from safetensors.torch import save

    inner = encoder.encoder if isinstance(encoder, Partwise) else encoder
    state = {k: v.detach().cpu().contiguous().clone() for k, v in inner.state_dict().items()}
    return hashlib.sha256(save(state)).hexdigest()


def open_index(folder: str | Path, run: str | Path | None = None, device: str = "auto") -> ShapeIndex:
    """The index in a folder, to be searched.

    run: the run whose encoder made it; by default the folder that the index remembers. Its weights are read when a
        query is no name of the index; a ConfigError where they are not those that made it.
    """
    index = Index.open(folder)

    def encoder() -> nn.Module:
        place = run or index.header.run
        if place is None:
            raise ConfigError(f"{folder} does not say which run made it. Try: --run RUN, or in Python open_index(run=)")
        if run is None and not Path(place).is_dir():
            raise MissingDataError(str(place), "no such folder", f"the run that made {folder}", "--run RUN")
        reader = load_run(place).reader()
        if encoder_hash(reader) != index.header.encoder:
            raise ConfigError(f"{place} has another encoder than the one that made {folder}: it was trained on, or is "
                              "another run. Try: --run with the run that made it, or embed into another folder")
        return reader.to(pick_device(device))

    if run is not None:
        encoder()  # a wrong one is an error, also where the query needs none
    return ShapeIndex(index, encoder)
