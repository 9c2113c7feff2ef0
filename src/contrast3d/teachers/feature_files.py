"""`FeatureFile`: what a teacher said of the shapes of a set, in one .safetensors file with its origin in the header."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.errors import DataError, MissingDataError

VERSION = 1
EXPECTED = "features of a teacher, as `contrast3d data prepare teachers` writes them"
FIX = "contrast3d data prepare teachers DATASET -o FOLDER --restart, or move the file away"
TENSORS = ("features", "rows")
SMALLEST_SPREAD = 0.1  # of a feature, as a share of the mean one: what hardly varies is not blown up


@dataclass(frozen=True)
class FeatureFile:
    """Several features (views, prompts) of each of some things, and the thing that each shape has.

    features: (U, V, D) float16 or float32. rows: (S,) the thing of each shape, -1 where it has none.
    header: kind ("img", "text"), teacher, weights, data_hash, dataset, and how the pictures or words were made.
    names: of the S shapes.
    """

    features: Float[Tensor, "u v d"]
    rows: Int[Tensor, "s"]
    header: dict = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def dim(self) -> int:
        return self.features.shape[2]

    @property
    def views(self) -> int:
        return self.features.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def missing(self) -> list[str]:
        """Names of the shapes without a feature."""
        rows = (self.rows < 0).nonzero().flatten().tolist()
        return [self.names[row] if self.names else f"#{row}" for row in rows]

    @cached_property
    def statistics(self) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
        """(D,) mean and spread of each feature, over the views of all shapes that have some."""
        used = self.features[self.rows[self.rows >= 0].unique()].flatten(0, 1).float()
        if not len(used):
            return torch.zeros(self.dim), torch.ones(self.dim)
        spread = used.std(0, correction=0)
        return used.mean(0), spread.clamp(min=max(SMALLEST_SPREAD * float(spread.mean()), 1e-6))

    def mean_features(self) -> Float[Tensor, "s d"]:
        """(S, D) the mean over views; NaN where a shape has none."""
        means = self.features.float().mean(1)
        return torch.where(self.rows[:, None] < 0, torch.nan, means[self.rows.clamp(min=0)])

    def save(self, path: Path) -> None:
        """Write it under a temporary name, then move it into place."""
        from safetensors.torch import save

        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        text = {"contrast3d": json.dumps({"version": VERSION, **self.header}), "names": json.dumps(self.names)}
        try:
            temporary.write_bytes(save({"features": self.features.contiguous(), "rows": self.rows.contiguous()}, text))
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def load_features(path: Path | str) -> FeatureFile:
    """Read a file; MissingDataError where it is not there, DataError where it is no such file or damaged."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise MissingDataError(str(path), "no such file", EXPECTED)
    try:
        with safe_open(path, "pt") as file:
            text = file.metadata() or {}
            header, names = json.loads(text["contrast3d"]), tuple(json.loads(text["names"]))
            features, rows = (file.get_tensor(name) for name in TENSORS)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DataError(str(path), f"not readable ({' '.join(str(error).split())[:120]})", EXPECTED, FIX) from None
    if header.pop("version", None) != VERSION:
        raise DataError(str(path), "features of another version of this library", f"version {VERSION}",
                        FIX)
    fits = features.ndim == 3 and rows.ndim == 1 and len(rows) > 0 and (not names or len(names) == len(rows))
    if not fits or int(rows.max()) >= len(features):
        raise DataError(str(path), f"features {tuple(features.shape)} for {tuple(rows.shape)} rows", EXPECTED)
    return FeatureFile(features, rows.long(), header, names)


def check_header(path: Path, found: dict, wanted: dict, fix: str) -> None:
    """A DataError unless the file was made of the same data in the same way; of the data it names both hashes."""
    hashes = [f"{header.get('data_hash')} ({header.get('dataset', 'unknown')})" for header in (found, wanted)]
    if found.get("data_hash") != wanted.get("data_hash"):
        raise DataError(str(path), f"features of other shapes, data hash {hashes[0]}", hashes[1], fix)
    different = [key for key in wanted if key != "dataset" and found.get(key) != wanted[key]]
    if different:
        key = different[0]
        raise DataError(str(path), f"made with {key} = {found.get(key)}", f"{key} = {wanted[key]}", fix)


def joined(parts: Sequence[FeatureFile]) -> FeatureFile:
    """Files of one teacher about several sets, one after the other; the header of the first that has features.

    Raises DataError where they were not made alike.
    """
    if len(parts) == 1:
        return parts[0]
    before, rows = 0, []
    for part in parts:
        rows.append(torch.where(part.rows < 0, part.rows, part.rows + before))
        before += len(part.features)
    telling = [part for part in parts if len(part.features)]
    made = [(part.header.get("weights"), tuple(part.features.shape[1:])) for part in telling]
    for part, how in zip(telling, made):
        if how != made[0]:
            raise DataError(f"features of {part.header.get('dataset')}", f"made by weights {how[0]}, {how[1]} each",
                            f"weights {made[0][0]}, {made[0][1]} each, as those of {telling[0].header.get('dataset')}",
                            FIX)
    names = tuple(name for part in parts for name in part.names) if all(part.names for part in parts) else ()
    return FeatureFile(torch.cat([part.features for part in telling]), torch.cat(rows), telling[0].header, names)
