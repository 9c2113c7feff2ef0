"""`ViewLoader`: batches of augmented views as a pure function of (epoch, step)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from contrast3d.data.draws import Draws
from contrast3d.data.shapes import ShapeSet
from contrast3d.data.transforms import Transform
from contrast3d.errors import CollapseWarning, ConfigError, DataError
from contrast3d.types import Clouds

_SHUFFLE = -1  # the view whose draws order the epoch


class ViewLoader:
    """V views of each shape, step by step; random access, no state: `loader.batch(epoch, step)`.

    The order of an epoch and every draw follow from (seed, epoch, row, view), so a resumed run continues with
    the very batches it would have had, and the shares of `world` ranks, joined by rank, are the batch of one.

    shapes: the data set; a shape's id is its row.
    transform: applied to each view; None gives the shapes as they are.
    views: number of views, 1 for supervised training (labels travel in `Clouds.labels`).
    batch_size: global; a data set smaller than that is one batch.
    drop_last: leave out the last, smaller batch of an epoch; False needs world = 1.
    identical: give every view the draws of the first, so that views do not differ (defect 1 of the report).
    draws: "per-sample", or "per-batch": all samples share one draw of each parameter (see `Draws.shared`).
    """

    def __init__(
        self, shapes: ShapeSet, transform: Transform | None, views: int = 2, batch_size: int = 64,
        seed: int = 0, rank: int = 0, world: int = 1, device: torch.device | str = "cpu",
        drop_last: bool = True, draws: Literal["per-sample", "per-batch"] = "per-sample", identical: bool = False,
    ):
        if batch_size < 1 or batch_size % world:
            raise ConfigError(f"batch_size {batch_size} (global) does not divide by {world} processes")
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} is not in 0 ... {world - 1}")
        if views < 1:
            raise ConfigError(f"views={views}: there is at least one")
        if not drop_last and world > 1:
            raise ConfigError("drop_last=False needs a single process: ranks would get unequal shares")
        if draws not in ("per-sample", "per-batch"):
            raise ConfigError(f"draws={draws!r} is not 'per-sample' or 'per-batch'")
        if len(shapes) < max(2, world):
            raise DataError(shapes.title, f"{len(shapes)} shapes", f"at least {max(2, world)} for a batch")
        self.shapes, self.transform, self.views, self.seed = shapes, transform, views, seed
        self.rank, self.world, self.device, self.draws = rank, world, device, draws
        self.batch_size = min(batch_size, len(shapes) // world * world)
        self.drop_last, self.identical = drop_last, identical
        self._ordered: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        """Steps per epoch."""
        full, rest = divmod(len(self.shapes), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> Int[Tensor, "s"]:
        """(S,) the rows of the data set in this epoch's order."""
        if self._ordered[0] != epoch:
            keys = Draws.of(self.seed, epoch, torch.arange(len(self.shapes)), _SHUFFLE).keys
            self._ordered = (epoch, keys.argsort(stable=True))
        return self._ordered[1]

    def batch(self, epoch: int, step: int) -> list[Clouds]:
        """The V views of this rank's share of a batch."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of an epoch of {len(self)} steps")
        rows = self.order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        share = len(rows) // self.world
        mine = slice(self.rank * share, (self.rank + 1) * share)
        clouds = self.shapes.clouds(rows[mine], self.device)
        if self.transform is None:
            return [clouds] * self.views
        rows = rows.to(self.device)
        draws = (self._draws(epoch, rows, 0 if self.identical else view).take(mine) for view in range(self.views))
        return [self.transform(clouds, own) for own in draws]

    def epoch(self, epoch: int) -> Iterator[list[Clouds]]:
        """All batches of one epoch, in order."""
        return (self.batch(epoch, step) for step in range(len(self)))

    def _draws(self, epoch: int, rows: Int[Tensor, "b"], view: int) -> Draws:
        draws = Draws.of(self.seed, epoch, rows, view)
        return draws.shared() if self.draws == "per-batch" else draws


def identical_views(first: Clouds, second: Clouds) -> Bool[Tensor, "b"]:
    """(B,) True where a sample has the same points in both views."""
    same = first.lengths == second.lengths
    if len(first.points) == len(second.points) and bool(same.all()):
        differing = (first.points != second.points).any(1)
        return torch.zeros_like(same).index_add(0, first.batch_index, differing) == 0
    pairs = zip(first.points.split(first.lengths.tolist()), second.points.split(second.lengths.tolist()))
    return torch.tensor([torch.equal(a, b) for a, b in pairs], device=same.device)


def check_views(
    loader: ViewLoader, advice: str = "Give the loader a transform that draws per view",
    warn: Callable[[str], None] | None = None,
) -> int:
    """Draw the first batch and warn of samples whose views do not differ; how many.

    advice: what to do about it. warn: takes the message; by default it becomes a CollapseWarning.
    """
    views = loader.batch(0, 0)
    same = torch.zeros(len(views[0]), dtype=torch.bool, device=views[0].device)
    for i, first in enumerate(views):
        for second in views[i + 1 :]:
            same |= identical_views(first, second)
    count = int(same.sum())
    message = f"{count} of {len(same)} samples have identical views: there is no invariance to learn. {advice}"
    if count and warn is not None:
        warn(message)
    elif count:
        warnings.warn(message, CollapseWarning, stacklevel=2)
    return count
