"""Finished or half-finished runs, read back: the recipe with its values, and the encoder it trained."""

from __future__ import annotations

import dataclasses
import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from contrast3d.downstream.results import commit, device_name, write_json
from contrast3d.engine.run_dir import RunDir
from contrast3d.errors import ConfigError, DataError
from contrast3d.nn.partwise import Partwise
from contrast3d.nn.rebuild import rebuild
from contrast3d.recipes import table
from contrast3d.recipes.masked import MaskedRecipe
from contrast3d.recipes.scene_contrast import SceneRecipe
from contrast3d.recipes.shape_recipe import ShapeRecipe

ORIGIN = "origin.json"


class Trained(ABC):
    """A run folder whose encoder can be read back, whoever wrote it.

    num_points: points per view, as training showed them.
    """

    folder: RunDir
    num_points: int

    @abstractmethod
    def make_encoder(self) -> nn.Module:
        """The encoder with fresh weights."""

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def title(self) -> str:
        """What tables call the run."""
        return self.path.resolve().name

    def trained(self) -> dict[str, int | None]:
        """The step of the weights in encoder.safetensors and the epochs closed by then; None where not recorded."""
        step = json.loads(self.folder.encoder_metadata().get("contrast3d", "{}")).get("step")
        closed = [] if step is None else [line["epoch"] for line in self.lines() if line["step"] <= step]
        return {"step": step, "epoch": None if step is None else max(closed, default=0)}

    def lines(self) -> list[dict]:
        """The `train` lines of metrics.jsonl, one per closed epoch."""
        return [line for line in self.folder.metrics() if line.get("kind") == "train"]

    def reader(self) -> nn.Module:
        """The trained encoder as probes read it: whole shapes, in parts of the density of its views."""
        return Partwise(self.encoder(), self.num_points).eval()

    def encoder(self) -> nn.Module:
        """The encoder as its last checkpoint left it; a DataError where the weights do not fit the recipe."""
        encoder = self.make_encoder()
        try:
            encoder.load_state_dict(self.folder.load_encoder_state())
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()
            raise DataError(
                str(self.path / "encoder.safetensors"), f"weights of another encoder ({first})", "those of recipe.json",
                "train the run again in another folder",
            ) from None
        return encoder.eval()


@dataclass(frozen=True)
class Run(Trained):
    """A run folder and the recipe that made it.

    name: of the recipe in `recipes.table`. encoder(): the trained encoder, in evaluation mode.
    """

    folder: RunDir
    name: str
    recipe: ShapeRecipe | SceneRecipe

    def make_encoder(self, seed: int | None = None) -> nn.Module:
        if isinstance(self.recipe, MaskedRecipe):
            return self.recipe.make_encoder(seed, self.projections())
        return self.recipe.make_encoder(seed)

    def make_reader(self, seed: int | None = None) -> nn.Module:
        """A fresh encoder as probes read it, as `reader` gives the trained one."""
        return Partwise(self.make_encoder(seed), self.num_points)

    def projections(self) -> dict[str, int]:
        """Widths of what teachers say, by query; of teachers that are gone, as the weights have them."""
        try:
            return self.recipe.projections() if isinstance(self.recipe, MaskedRecipe) else {}
        except (ConfigError, DataError):
            weights = self.folder.load_encoder_state()
            of_query = {query: re.compile(rf"(asked\.)?projections\.{query}\.weight") for query in ("img", "text")}
            return {query: len(weights[name]) for query, pattern in of_query.items()
                    for name in weights if pattern.fullmatch(name)}

    @property
    def num_points(self) -> int:
        if isinstance(self.recipe, SceneRecipe):
            raise ConfigError(f"{self.path} was trained on scenes: its encoder reads rooms and fragments, not single "
                              f"shapes. Try: contrast3d evaluate registration {self.path}")
        return self.recipe.num_points

    def overrides(self) -> dict:
        """The fields in which the run differs from its recipe, with the run's values."""
        return overrides_of(self.name, self.recipe)

    def finished(self) -> bool:
        """Whether the last epoch of the recipe is closed, and the weights are those of its end."""
        lines = self.lines()
        over = bool(lines) and lines[-1]["epoch"] >= self.recipe.epochs
        return over and self.trained()["step"] in (None, lines[-1]["step"])

    def origin(self) -> dict[str, str]:
        """commit and device that trained the run; empty for a run that did not record them."""
        path = self.path / ORIGIN
        try:
            return dict(json.loads(path.read_text())) if path.exists() else {}
        except (TypeError, ValueError) as error:
            raise DataError(str(path), f"unreadable ({error})", "what `contrast3d pretrain` writes",
                            "delete it: the report then leaves commit and machine out") from None


@dataclass(frozen=True)
class FittedRun(Trained):
    """A run folder of `contrast3d.fit`: its encoder rebuilt from recipe.json, or `given` by the caller."""

    folder: RunDir
    num_points: int
    described: dict
    given: nn.Module | None = None

    def make_encoder(self) -> nn.Module:
        return rebuild(self.described) if self.given is None else self.given


def overrides_of(name: str, recipe: ShapeRecipe | SceneRecipe) -> dict:
    """The fields in which `recipe` differs from the one called `name`, with its own values."""
    default = table.find(name)
    values = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(default)}
    return {key: value for key, value in values.items() if value != getattr(default, key)}


def record(name: str, recipe: ShapeRecipe | SceneRecipe, data_hash: str | None = None) -> dict:
    """What recipe.json holds. data_hash: of the shapes that train, so that a resume notices when they changed."""
    written = {"recipe": name, "fields": dataclasses.asdict(recipe)}
    return written if data_hash is None else {**written, "data_hash": data_hash}


def record_origin(folder: RunDir, device: torch.device) -> None:
    """Write commit and device of a run that begins; one that goes on keeps those that it began with.

    Not a part of recipe.json: another commit or machine may resume a run, and weights do not depend on them.
    """
    if not folder.has_state:
        write_json(folder.path / ORIGIN, {"commit": commit(), "device": device_name(device)})


def load_run(path: str | Path, encoder: nn.Module | None = None) -> Run | FittedRun:
    """The run in a folder; clear errors for a folder that is none and for a recipe this version does not know.

    encoder: of a run of `fit` whose network cannot rebuild itself (see `nn.rebuild`), one built as it was; it
        receives the weights.
    """
    folder = RunDir(path)
    written = folder.recipe
    if written.get("recipe", "") is None:
        return _fitted(folder, written, encoder)
    return _from_recipe(folder, written)


def load_recipe_run(path: str | Path) -> Run:
    """`load_run` of a run that a recipe made: it knows its data set, which the other kind does not."""
    run = load_run(path)
    if isinstance(run, Run):
        return run
    raise ConfigError(
        f"{path} was made by contrast3d.fit, which records no data set. Try in Python: "
        f"contrast3d.evaluate.linear(contrast3d.load_run({str(path)!r}).reader(), (train, test))"
    )


def _fitted(folder: RunDir, written: dict, encoder: nn.Module | None) -> FittedRun:
    described, num_points = written.get("encoder"), written.get("num_points")
    if not (isinstance(described, dict) and {"class", "kwargs"} <= set(described) and type(num_points) is int):
        raise DataError(str(folder.path / "recipe.json"), "no encoder and num_points", "what `contrast3d.fit` writes")
    return FittedRun(folder, num_points, described, encoder)


def _from_recipe(folder: RunDir, written: dict) -> Run:
    try:
        name, fields = written["recipe"], dict(written["fields"])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            str(folder.path / "recipe.json"), "no recipe and fields", "what `contrast3d pretrain` writes"
        ) from None
    default = table.find(name)
    unknown = set(fields) - {f.name for f in dataclasses.fields(default)}
    if unknown:
        raise ConfigError(f"{folder.path}/recipe.json holds unknown fields ({', '.join(sorted(unknown))}): "
                          "it was written by another version of contrast3d")
    values = {key: _as(type(getattr(default, key)), v, key, folder) for key, v in fields.items()}
    return Run(folder, name, dataclasses.replace(default, **values))


def _as(kind: type, value, key: str, folder: RunDir):
    """`value` of a json file in the type that the field has."""
    if (kind, type(value)) in ((tuple, list), (float, int)):
        return kind(value)
    if type(value) is not kind:
        raise DataError(str(folder.path / "recipe.json"), f"{key} is {value!r}", f"of type {kind.__name__}")
    return value
