"""The batch types that every layer of the library exchanges: `Clouds` in, `Features` out.

Shape legend (see CONTRIBUTING): B clouds, N points, M voxels, C channels, D embedding width, K neighbours, P pairs.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError


def _moved(value, *args, **kwargs):
    return value.to(*args, **kwargs) if isinstance(value, Tensor) else value


@dataclass(frozen=True)
class Clouds:
    """A batch of point clouds, packed, with everything that must move with the points.

    points: (sum N, 3) coordinates of all clouds, one after the other.
    offsets: (B + 1,) int64; cloud b owns rows offsets[b] : offsets[b + 1].
    features: (sum N, C) per-point inputs beside the coordinates (colour, normals), or None.
    labels: (B,) int64 class of each cloud, or None.
    point_labels: (sum N,) int64 class of each point, or None.
    ids: (B,) int64 stable sample numbers; they key the random draws of transforms.
    indices: (sum N,) int64 row of each surviving point in its own untransformed cloud.
    transform: (B, 4, 4) accumulated affine map from the untransformed cloud to this one (column vectors).

    The correspondences between two views of one sample follow from `indices` and `transform`.
    """

    points: Float[Tensor, "n 3"]
    offsets: Int[Tensor, "b1"]
    features: Float[Tensor, "n c"] | None = None
    labels: Int[Tensor, "b"] | None = None
    point_labels: Int[Tensor, "n"] | None = None
    ids: Int[Tensor, "b"] | None = None
    indices: Int[Tensor, "n"] | None = None
    transform: Float[Tensor, "b 4 4"] | None = None

    @classmethod
    def from_dense(cls, points: Float[Tensor, "b n 3"], **fields) -> Clouds:
        """Equally long clouds (B, N, 3) -> Clouds; the packed points are a view, nothing is copied."""
        if points.ndim != 3 or points.shape[-1] != 3:
            raise DataError("points", f"shape {tuple(points.shape)}", "(B, N, 3)")
        b, n, _ = points.shape
        offsets = torch.arange(b + 1, device=points.device) * n
        clouds = cls(points.reshape(b * n, 3), offsets, **fields)
        clouds.__dict__["is_dense"] = b > 0  # known without a look at the offsets, which a traced network has none of
        return clouds

    @classmethod
    def from_list(cls, clouds: list[Float[Tensor, "_ 3"]], **fields) -> Clouds:
        """A list of (N_b, 3) tensors -> Clouds."""
        lengths = torch.tensor([0] + [len(c) for c in clouds])
        points = torch.cat(clouds) if clouds else torch.empty(0, 3)
        return cls(points, lengths.cumsum(0).to(points.device), **fields)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def device(self) -> torch.device:
        return self.points.device

    @cached_property
    def lengths(self) -> Int[Tensor, "b"]:
        """(B,) number of points in each cloud."""
        return self.offsets.diff()

    @cached_property
    def batch_index(self) -> Int[Tensor, "n"]:
        """(sum N,) the cloud that each point belongs to."""
        return torch.repeat_interleave(
            torch.arange(len(self), device=self.device), self.lengths, output_size=len(self.points)
        )

    @cached_property
    def is_dense(self) -> bool:
        """True when all clouds are equally long."""
        lengths = self.lengths
        return len(self) > 0 and bool((lengths == lengths[0]).all())

    @property
    def dense(self) -> Float[Tensor, "b n 3"]:
        """(B, N, 3) view of the points; a DataError when the clouds differ in length."""
        return self.as_dense(self.points)

    def as_dense(self, values: Tensor) -> Tensor:
        """Per-point values (sum N, ...) -> (B, N, ...); a DataError when the clouds differ in length."""
        if not self.is_dense:
            found = "no clouds" if len(self) == 0 else "clouds of different lengths"
            raise DataError("clouds", found, "equally long clouds", "transforms.Resample(num_points)")
        return values.view(self.offsets.shape[0] - 1, -1, *values.shape[1:])

    def replace(self, **changes) -> Clouds:
        """A copy with some fields exchanged."""
        return dataclasses.replace(self, **changes)

    def chunks(self, most: int) -> list[Clouds]:
        """The batch in pieces of at most `most` clouds, their sizes as even as they go; nothing is copied."""
        count = max(1, -(-len(self) // most))
        bounds = [len(self) * i // count for i in range(count + 1)]
        return [self._piece(start, stop) for start, stop in itertools.pairwise(bounds)]

    def _piece(self, start: int, stop: int) -> Clouds:
        first, last = self.offsets[[start, stop]].tolist()
        points = lambda v: None if v is None else v[first:last]  # noqa: E731
        clouds = lambda v: None if v is None else v[start:stop]  # noqa: E731
        return Clouds(
            points(self.points), self.offsets[start : stop + 1] - first, points(self.features), clouds(self.labels),
            points(self.point_labels), clouds(self.ids), points(self.indices), clouds(self.transform),
        )

    def take_points(self, rows: Int[Tensor, "m"], offsets: Int[Tensor, "b1"]) -> Clouds:
        """Keep the points `rows` (indices into the packed points, grouped by cloud); `offsets` bounds them."""
        pick = lambda v: None if v is None else v.index_select(0, rows)  # noqa: E731
        return self.replace(
            points=pick(self.points), offsets=offsets, features=pick(self.features),
            point_labels=pick(self.point_labels), indices=pick(self.indices),
        )

    def to(self, *args, **kwargs) -> Clouds:
        return Clouds(**{f.name: _moved(getattr(self, f.name), *args, **kwargs) for f in dataclasses.fields(self)})


@dataclass(frozen=True)
class Voxels:
    """A batch of sparse voxel grids: the occupied voxels of all clouds, and a feature for each.

    coords: (M, 4) int32 rows [cloud, x, y, z], distinct and sorted; x, y, z are multiples of `stride`.
    features: (M, C).
    offsets: (B + 1,) int64; cloud b owns rows offsets[b] : offsets[b + 1].
    stride: 1 on the finest level; coarser levels keep the units of the finest.
    first: (M,) int64 the point that stands for each voxel, the first that fell into it, or None.
    inverse: (N,) int64 the voxel of each input point, or None.
    maps: coordinate sets and kernel maps by what they are, filled by `ops.kernel_map` and shared by all Voxels that
        come from one another.
    """

    coords: Int[Tensor, "m 4"]
    features: Float[Tensor, "m c"]
    offsets: Int[Tensor, "b1"]
    stride: int = 1
    first: Int[Tensor, "m"] | None = None
    inverse: Int[Tensor, "n"] | None = None
    maps: dict = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        """The number of clouds."""
        return len(self.offsets) - 1

    @property
    def device(self) -> torch.device:
        return self.features.device

    def replace(self, **changes) -> Voxels:
        """A copy with some fields exchanged."""
        return dataclasses.replace(self, **changes)

    def to(self, device: torch.device | str) -> Voxels:
        """On another device, where kernel maps are made anew."""
        kept = {f.name: _moved(getattr(self, f.name), device) for f in dataclasses.fields(self) if f.name != "maps"}
        return Voxels(**kept)


@dataclass(frozen=True)
class ViewPairs:
    """Two partial views of each of B scenes, and which of their points are the same place.

    first, second: the views, each in a frame of its own.
    matches: (P, 2) int64 rows into the packed points of `first` and of `second`; a point may match several.
    """

    first: Clouds
    second: Clouds
    matches: Int[Tensor, "p 2"]

    def __len__(self) -> int:
        return len(self.first)

    @property
    def device(self) -> torch.device:
        return self.first.device

    def to(self, *args, **kwargs) -> ViewPairs:
        moved = (v.to(*args, **kwargs) for v in (self.first, self.second, self.matches))
        return ViewPairs(*moved)


@dataclass(frozen=True)
class Features:
    """What an encoder returns.

    pooled: (B, D) one vector per cloud.
    points: (sum N, C) one vector per input point, in the input's own order, or None.
    tokens: (B, G, T) one vector per patch, or None.
    """

    pooled: Float[Tensor, "b d"]
    points: Float[Tensor, "n c"] | None = None
    tokens: Float[Tensor, "b g t"] | None = None
