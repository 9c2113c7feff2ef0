"""Shapes into vectors: `contrast3d embed`'s pipeline against a straightforward loop with a naive DGCNN.

From files (meshes, read and sampled on the way) and from points in memory apart. The loop takes batches of the same
size; its network stores every edge, and its files are read by trimesh, one after the other.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import harness  # before torch: sets how OpenMP threads wait
import numpy as np
import torch
from dgcnn import FLOAT, PlainEdgeConv, plain_knn
from harness import Case, relative_difference
from torch import Tensor, nn

import contrast3d as c3d
from contrast3d.index import embedding
from contrast3d.nn.dgcnn import DGCNN
from contrast3d.recipes.sources import items_of
from contrast3d.types import Clouds


@dataclass(frozen=True)
class Sizes:
    """Shapes of n points in batches, k neighbours, vectors of width d."""

    shapes: int = 512
    n: int = 1024
    batch: int = 32
    k: int = 20
    d: int = 512
    rings: int = 40  # of a mesh: 2 * rings^2 triangles


QUICK = Sizes(shapes=6, n=64, batch=4, k=5, d=16, rings=6)
_folders: list[tempfile.TemporaryDirectory] = []  # removed when the process ends


def cases(quick: bool) -> dict[tuple[str, str], Callable[[], Case]]:
    """Every row's name and variant, and what builds its case."""
    s = QUICK if quick else Sizes()
    return {
        ("embed", f"{s.shapes} shapes from memory"): partial(memory_case, s),
        ("embed", f"{s.shapes} shapes from files"): partial(files_case, s),
    }


class PlainDGCNN(nn.Module):
    """DGCNN as it is usually written, in evaluation mode, with the weights of ours."""

    def __init__(self, network: DGCNN):
        super().__init__()
        self.k, self.embed, self.norm = network.k, copy.deepcopy(network.embed), copy.deepcopy(network.norm)
        self.convs = nn.ModuleList(PlainEdgeConv(conv) for conv in network.convs)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for conv in self.convs:
            x = conv(x, plain_knn(x, self.k))
            levels.append(x)
        y = nn.functional.leaky_relu(self.norm(self.embed(torch.cat(levels, dim=-1))), 0.2)
        return torch.cat([y.amax(1), y.mean(1)], dim=-1)


@cache
def networks(s: Sizes) -> tuple[DGCNN, PlainDGCNN]:
    torch.manual_seed(0)
    ours = DGCNN(s.d, k=s.k).eval()
    return ours, PlainDGCNN(ours)


def difference(points: Tensor, s: Sizes, dtype: torch.dtype) -> float:
    """Of the features of a few shapes."""
    ours, plain = (copy.deepcopy(network).to(dtype) for network in networks(s))
    some = points[:4].to(dtype)
    with torch.no_grad():
        return relative_difference([ours(Clouds.from_dense(some)).pooled], [plain(some)])


def work(s: Sizes) -> tuple[float, float]:
    """Least operations and bytes: two products per point and layer, distances, the comparison of k neighbours."""
    rows, widths = s.shapes * s.n, (3, 64, 64, 128, 256)
    flops = moved = 0
    for c, d in pairwise(widths):
        flops += rows * (4 * c * d + s.n * (2 * c + 2) + s.k * d)
        moved += FLOAT * rows * (c + 3 * d)
    return flops + 2 * rows * sum(widths[1:]) * s.d / 2, moved + FLOAT * rows * (sum(widths[1:]) + s.d)


def memory_case(s: Sizes) -> Case:
    points = torch.randn(s.shapes, s.n, 3, generator=torch.Generator().manual_seed(0))
    ours, plain = networks(s)
    shapes = c3d.ShapeSet(points)

    def loop() -> Tensor:
        with torch.no_grad():
            return torch.cat([plain(batch) for batch in points.split(s.batch)])

    return Case(partial(c3d.embed, ours, shapes, batch_size=s.batch), *work(s), rate_note(s), loop,
                partial(difference, points, s), max_rounds=3)


def files_case(s: Sizes) -> Case:
    """A folder of STL meshes of as many different bodies."""
    folder = tempfile.TemporaryDirectory(prefix="contrast3d-embed-")
    _folders.append(folder)
    write_meshes(Path(folder.name), s)
    ours, plain = networks(s)

    def encode(points: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return ours(Clouds.from_dense(torch.from_numpy(points))).pooled.numpy()

    def run() -> None:
        items = items_of([folder.name], s.n)
        done = embedding.embed(items, encode, lambda shard: None, batch_size=s.batch)
        assert not done.skipped, done.skipped

    def loop() -> None:
        import trimesh

        paths = sorted(Path(folder.name).iterdir())
        for start in range(0, len(paths), s.batch):
            clouds = []
            for path in paths[start : start + s.batch]:
                points = trimesh.load(path).sample(s.n)
                points = points - points.mean(0)
                clouds.append(points / np.linalg.norm(points, axis=1).max())
            with torch.no_grad():
                plain(torch.from_numpy(np.stack(clouds).astype(np.float32)))

    return Case(run, *work(s), rate_note(s) + " Reading the files comes on top.", loop, max_rounds=3)


def write_meshes(folder: Path, s: Sizes) -> None:
    """Closed bodies of revolution with random profiles, as binary STL."""
    import trimesh

    rng = np.random.default_rng(0)
    turn = np.linspace(0, 2 * np.pi, s.rings, endpoint=False)
    at = np.arange(s.rings)
    cells = (at[:-1, None] * s.rings + at).ravel(), (at[:-1, None] * s.rings + (at + 1) % s.rings).ravel()
    faces = np.concatenate([np.stack([cells[0], cells[1], cells[0] + s.rings], 1),
                            np.stack([cells[1], cells[1] + s.rings, cells[0] + s.rings], 1)])
    for number in range(s.shapes):
        radius = 0.2 + np.abs(np.cumsum(rng.normal(0, 0.1, s.rings)))
        x, y = radius[:, None] * np.cos(turn), radius[:, None] * np.sin(turn)
        z = np.broadcast_to(np.linspace(0, 2, s.rings)[:, None], x.shape)
        mesh = trimesh.Trimesh(np.stack([x, y, z], -1).reshape(-1, 3), faces, process=False)
        mesh.export(folder / f"{number:05}.stl")


def rate_note(s: Sizes) -> str:
    return f"Shapes per second are {s.shapes} over the median."


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, cases))
