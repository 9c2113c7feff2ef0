"""`Cached`: a teacher that has said everything already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import ConfigError, DataError
from contrast3d.teachers.feature_files import FeatureFile
from contrast3d.types import Clouds


@dataclass(frozen=True)
class Cached:
    """Stored features by query name, looked up by `clouds.ids`, the rows of the set that the files are about.

    files: of one set, by the name of the query ("img", "text").
    pick: "random", one view or prompt of each shape per call, drawn from torch's generator, as ReCon's teachers see
        another picture and prompt in every epoch; or "mean", always the mean of all.
    standardize: each feature less its mean, over its spread, both of the file's own shapes: a regression then weighs
        all features alike.
    rows: where `clouds.ids` count the shapes of a part of the set, the rows of that part (see `subset`).
    statistics: mean and spread by name, of the file they are to be taken from instead.
    """

    files: Mapping[str, FeatureFile]
    pick: Literal["random", "mean"] = "random"
    standardize: bool = False
    rows: Int[Tensor, "m"] | None = None
    statistics: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self):
        if self.pick not in ("random", "mean"):
            raise ConfigError(f"pick = {self.pick!r}; expected random or mean")
        lengths = {len(file) for file in self.files.values()}
        if len(lengths) != 1:
            found = ", ".join(f"{name}: {len(file)}" for name, file in self.files.items()) or "no files"
            raise DataError("teachers", f"features of sets of different sizes ({found})", "files about one set")

    @property
    def dims(self) -> dict[str, int]:
        return {name: file.dim for name, file in self.files.items()}

    @property
    def missing(self) -> dict[str, list[str]]:
        """Names of shapes without a target, by query; queries that all have are left out."""
        return {name: file.missing for name, file in self.files.items() if file.missing}

    def __len__(self) -> int:
        return len(self.rows) if self.rows is not None else len(next(iter(self.files.values())))

    def subset(self, rows: Int[Tensor, "m"]) -> Cached:
        """The teacher of `shapes.subset(rows)`."""
        rows = torch.as_tensor(rows).cpu()
        own = rows if self.rows is None else self.rows[rows]
        return Cached(self.files, self.pick, self.standardize, own, self.statistics)

    def __call__(self, clouds: Clouds) -> dict[str, Float[Tensor, "b _"]]:
        """{name: (B, D) float32} on the clouds' device; NaN rows where a shape has no target."""
        if clouds.ids is None:
            raise DataError("clouds", "no ids", "ids, by which cached features are found", "Clouds(..., ids=rows)")
        ids = clouds.ids.cpu()
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(self):
            raise DataError("clouds.ids", f"{int(ids.min())} to {int(ids.max())}", f"rows of {len(self)} shapes")
        ids = ids if self.rows is None else self.rows[ids]
        return {name: self._of(name, file, ids).to(clouds.device) for name, file in self.files.items()}

    def restored(self, name: str, values: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Targets of a name, or a student's predictions of them, as the teacher itself would give them."""
        if not self.standardize:
            return values
        mean, spread = self.statistics.get(name) or self.files[name].statistics
        return values * spread.to(values) + mean.to(values)

    def _of(self, name: str, file: FeatureFile, ids: Int[Tensor, "b"]) -> Float[Tensor, "b d"]:
        rows = file.rows[ids]
        known = rows.clamp(min=0)
        if self.pick == "mean":
            picked = file.features[known].float().mean(1)
        else:
            picked = file.features[known, torch.randint(file.views, known.shape)].float()
        if self.standardize:
            mean, spread = self.statistics.get(name) or file.statistics
            picked = (picked - mean) / spread
        return torch.where(rows[:, None] < 0, torch.nan, picked)
