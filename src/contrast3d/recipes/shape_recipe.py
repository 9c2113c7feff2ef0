"""`ShapeRecipe`: what recipes on sets of single shapes have in common, which is the reading of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from contrast3d.errors import DataError
from contrast3d.recipes import datasets

if TYPE_CHECKING:
    from torch import nn

    from contrast3d.data.shapes import ShapeSet


class ShapeRecipe(ABC):
    """Trains on shapes of a data set, or of your own, and is evaluated on its labelled ones.

    The fields are documented where recipes declare them.
    """

    dataset: str
    extra_datasets: tuple[str, ...]
    categories: tuple[str, ...]
    up: Literal["z", "y", "x"]
    labels_from: Literal["none", "folders"]
    holdout: int
    shape_points: int
    num_points: int
    augmentation: str
    views: int

    @property
    @abstractmethod
    def method_title(self) -> str:
        """What reports call the method."""

    @property
    @abstractmethod
    def network(self) -> str:
        """What reports call the encoder."""

    @abstractmethod
    def knobs(self) -> str:
        """What the report says of the method's own knobs: "temperature 0.1, "."""

    @property
    def how_views_differ(self) -> dict:
        """Arguments of the loader of views, where a recipe has views drawn otherwise than usual."""
        return {}

    @abstractmethod
    def make_encoder(self, seed: int | None = None) -> nn.Module:
        """The encoder with fresh weights; the same seed gives the same weights."""

    def make_reader(self, seed: int | None = None) -> nn.Module:
        """A fresh encoder as probes read it: whole shapes, in parts of the density that training shows."""
        from contrast3d.nn.partwise import Partwise

        return Partwise(self.make_encoder(seed), self.num_points)

    def shapes(self, split: Literal["train", "test", "all"], data_root: Path, quiet: bool = False) -> ShapeSet:
        """The shapes of a split; with `holdout`, parts of the training split; "all" of a set that has no splits.

        Of a file, or another set without a training split, four fifths and one; all of it to train on where the
        labels are too few to part it. quiet: do not show how far the reading of a folder is.
        """
        stored = stored_split(self.dataset, split, self.holdout)
        return part_of(self._read(self.dataset, stored, data_root, quiet), self.dataset, split, self.holdout)

    def splits(self, data_root: Path, quiet: bool = False) -> tuple[ShapeSet, ShapeSet]:
        """`shapes` of train and test; what both are parts of is read once."""
        stored = [stored_split(self.dataset, split, self.holdout) for split in ("train", "test")]
        if stored[0] != stored[1]:
            return self.shapes("train", data_root, quiet), self.shapes("test", data_root, quiet)
        whole = self._read(self.dataset, stored[0], data_root, quiet)
        train, test = (part_of(whole, self.dataset, split, self.holdout) for split in ("train", "test"))
        return train, test

    def pretraining_sets(
        self, data_root: Path, quiet: bool = False, own: ShapeSet | None = None
    ) -> list[ShapeSet]:
        """The training shapes, and the sets of `extra_datasets`. own: `shapes("train")`, where known."""
        own = self.shapes("train", data_root, quiet) if own is None else own
        others = [self._read(name, datasets.widest_split(name), data_root, quiet) for name in self.extra_datasets]
        return [own, *others]

    def pretraining_shapes(self, data_root: Path, quiet: bool = False, own: ShapeSet | None = None) -> ShapeSet:
        """`pretraining_sets` as one set."""
        return joined(self.pretraining_sets(data_root, quiet, own))

    def _read(self, dataset: str, split: str, data_root: Path, quiet: bool) -> ShapeSet:
        options = reader_options(self.dataset, self.up, self.labels_from, self.categories, quiet)
        return datasets.read(dataset, split, data_root, self.shape_points, options)

    def idle_of_data(self) -> dict[str, str]:
        """Fields that change nothing with this data set, each with the field and value that makes it so."""
        read = (self.dataset, *self.extra_datasets)
        idle: list[str] = []
        if "ShapeNetPart" not in read:
            idle += ["categories", *([] if any(map(datasets.is_yours, read)) else ["up"])]
        if not datasets.is_folder(self.dataset):
            idle += ["labels_from"]
        return dict.fromkeys(idle, f"--dataset {self.dataset}")

    @property
    def is_embedded(self) -> bool:
        """Whether the data set needs no folder of files."""
        return datasets.is_yours(self.dataset) or datasets.find(self.dataset).embedded


def reader_options(
    dataset: str, up: str, labels_from: str, categories: tuple[str, ...], quiet: bool
) -> dict[str, dict]:
    """What `datasets.read` tells readers, by the fields of a recipe on `dataset`."""
    parts = {"categories": categories or None, "up": "z" if datasets.is_yours(dataset) else up}
    own = {"up": up, "labels_from": labels_from, "quiet": quiet}
    return {"ShapeNetPart": parts, datasets.FILES: {"up": up}, datasets.FOLDER: own}


def stored_split(dataset: str, split: str, holdout: int) -> str:
    """The split of a data set's own that holds a split as recipes have it."""
    if datasets.is_whole(dataset):
        return datasets.whole_split(dataset)
    return "train" if holdout else split


def part_of(whole: ShapeSet, dataset: str, split: str, holdout: int) -> ShapeSet:
    """A split as recipes have it, of all the shapes that its `stored_split` has."""
    from contrast3d.downstream.splits import folds

    in_parts = holdout or datasets.is_whole(dataset)
    if whole.labels is None or not in_parts or split == "all":
        return whole
    try:
        train, test = folds(whole.labels, whole.groups, holdout or 5, seed=0)[0]
    except DataError:
        if split == "test":
            raise
        return whole
    rows = train if split == "train" else test
    return whole.subset(rows, f"{whole.title} ({'rest' if split == 'train' else 'held-out part'})")


def joined(sets: Sequence[ShapeSet]) -> ShapeSet:
    """All shapes of some sets as one; with labels where they are of the same classes in each."""
    import torch

    from contrast3d.data.shapes import ShapeSet

    if len(sets) == 1:
        return sets[0]
    descriptions = [text for s in sets for text in (s.descriptions or ("",) * len(s))]
    alike = all(s.labels is not None and s.classes == sets[0].classes for s in sets)
    return ShapeSet(
        torch.cat([s.points for s in sets]), torch.cat([s.labels for s in sets]) if alike else None,
        sets[0].classes if alike else (), descriptions=tuple(descriptions) if any(descriptions) else (),
        title=" + ".join(s.title for s in sets),
    )
