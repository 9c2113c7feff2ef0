"""`PartScheme`: what the part labels of points mean, which parts a shape of each class may have, which count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from contrast3d.data.shapenetpart import CATEGORIES, PARTS
from contrast3d.data.shapes import ShapeSet
from contrast3d.errors import DataError


@dataclass(frozen=True)
class PartScheme:
    """names: of the P parts. of_class: (L, P), the parts that a shape of each class may have.

    scored: the parts that are told apart; points of the others have no label, in training and in scores, though the
    network sees them.
    """

    names: tuple[str, ...]
    of_class: Bool[Tensor, "l p"]
    scored: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def allowed(self) -> Bool[Tensor, "l p"]:
        """(L, P) the scored parts that a shape of each class may have."""
        scored = torch.zeros(len(self), dtype=torch.bool)
        scored[list(self.scored)] = True
        return self.of_class & scored

    def known(self, point_labels: Int[Tensor, "s n"], ignore: int) -> Int[Tensor, "s n"]:
        """The labels with `ignore` in place of parts that are not scored."""
        scored = torch.zeros(len(self), dtype=torch.bool)
        scored[list(self.scored)] = True
        return torch.where(scored[point_labels], point_labels, ignore)


def shapenetpart_scheme(classes: Sequence[str] = CATEGORIES) -> PartScheme:
    """The 50 parts of ShapeNetPart; each category has its own, two to six."""
    names = tuple(f"{category} {i}" for category in CATEGORIES for i in range(len(PARTS[category])))
    of_class = torch.zeros(len(classes), len(names), dtype=torch.bool)
    for row, category in enumerate(classes):
        of_class[row, PARTS[category].start : PARTS[category].stop] = True
    return PartScheme(names, of_class, tuple(range(len(names))))


def scheme_of(shapes: ShapeSet, names: Sequence[str], unscored: Sequence[str] = ()) -> PartScheme:
    """Parts by their names; a class has those that any of its shapes has. A DataError without such labels."""
    if shapes.point_labels is None or shapes.labels is None:
        raise DataError(shapes.title, "no labels of points, or none of shapes", "both")
    if int(shapes.point_labels.min()) < 0 or int(shapes.point_labels.max()) >= len(names):
        found = f"parts {int(shapes.point_labels.min())} to {int(shapes.point_labels.max())}"
        raise DataError(shapes.title, found, f"0 to {len(names) - 1}")
    present = torch.zeros(len(shapes), len(names), dtype=torch.bool).scatter(1, shapes.point_labels, True)
    classes = max(len(shapes.classes), int(shapes.labels.max()) + 1)
    of_class = torch.stack([present[shapes.labels == c].any(0) for c in range(classes)])
    return PartScheme(tuple(names), of_class, tuple(i for i, name in enumerate(names) if name not in unscored))
