"""`ShapeSet`: a whole data set of equally sampled shapes, held in memory as one array."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError
from contrast3d.types import Clouds

_BLOCK = 1024  # shapes looked at in one step


@dataclass(frozen=True)
class ShapeSet:
    """S shapes of N points each, in memory; `shapes.clouds(rows)` makes a batch.

    points: (S, N, 3) float32, finite.
    labels: (S,) int64, -1 where a shape has no label; None for an unlabelled set.
    classes: names of the labels.
    names: one name per shape (file, part number), unique within the set.
    groups: (S,) int64; shapes of one group are near relatives and never straddle a validation split. None:
        every shape is a group of its own.
    descriptions: free text per shape, or empty.
    point_labels: (S, N) int64 part of each point, or None.
    title: what a table calls the set, e.g. "LDraw-40 train".
    """

    points: Float[Tensor, "s n 3"]
    labels: Int[Tensor, "s"] | None = None
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    groups: Int[Tensor, "s"] | None = None
    descriptions: tuple[str, ...] = ()
    point_labels: Int[Tensor, "s n"] | None = None
    title: str = "shapes"
    _checked: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self):
        if not self._checked:
            self._check()
            object.__setattr__(self, "_checked", True)

    def _check(self):
        if self.points.ndim != 3 or self.points.shape[-1] != 3:
            raise DataError(self.title, f"points of shape {tuple(self.points.shape)}", "(shapes, points, 3)")
        if len(self.points) == 0:
            raise DataError(self.title, "no shapes", "at least one")
        # some at a time: the points may be mapped from a file that is larger than memory
        finite = torch.cat([torch.isfinite(some).flatten(1).all(1) for some in self.points.split(_BLOCK)])
        if not finite.all():
            bad = [self.name(i) for i in (~finite).nonzero().flatten()[:5].tolist()]
            raise DataError(
                self.title, f"NaN or infinite points in {int((~finite).sum())} shapes ({', '.join(bad)} ...)",
                "finite coordinates", "remove these shapes or re-export them",
            )
        for attribute in ("labels", "names", "groups", "descriptions", "point_labels"):
            value = getattr(self, attribute)
            if value is not None and len(value) not in (0, len(self)):
                raise DataError(self.title, f"{len(value)} {attribute} for {len(self)} shapes", "as many")

    def __len__(self) -> int:
        return len(self.points)

    @property
    def num_points(self) -> int:
        return self.points.shape[1]

    def name(self, row: int) -> str:
        return self.names[row] if self.names else f"#{row}"

    def clouds(self, rows: Int[Tensor, "b"] | None = None, device: torch.device | str = "cpu") -> Clouds:
        """The shapes `rows` (all when None) as one batch; `ids` are the rows themselves."""
        rows = torch.arange(len(self)) if rows is None else torch.as_tensor(rows)
        n = self.num_points
        return Clouds.from_dense(
            self.points[rows],
            labels=None if self.labels is None else self.labels[rows],
            point_labels=None if self.point_labels is None else self.point_labels[rows].reshape(-1),
            ids=rows,
            indices=torch.arange(n).repeat(len(rows)),
            transform=torch.eye(4).expand(len(rows), 4, 4),
        ).to(device)

    def subset(self, rows: Int[Tensor, "m"], title: str | None = None) -> ShapeSet:
        """The shapes `rows`, with everything that belongs to them."""
        rows = torch.as_tensor(rows)
        pick = lambda v: None if v is None else v[rows]  # noqa: E731
        text = lambda v: tuple(v[i] for i in rows.tolist()) if v else ()  # noqa: E731
        return replace(
            self, points=self.points[rows], labels=pick(self.labels), groups=pick(self.groups),
            names=text(self.names), descriptions=text(self.descriptions),
            point_labels=pick(self.point_labels), title=title or self.title,
        )

    @cached_property
    def hash(self) -> str:
        """Twelve hex digits over points, labels and names: the `data_hash` of results."""
        digest = hashlib.sha256(np.ascontiguousarray(self.points.numpy()))
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        digest.update("\n".join((*self.classes, *self.names)).encode())
        return digest.hexdigest()[:12]
