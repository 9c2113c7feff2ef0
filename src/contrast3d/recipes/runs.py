"""Finished or half-finished runs, read back: the recipe with its values, and the encoder it trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from contrast3d.engine.run_dir import RunDir
from contrast3d.errors import ConfigError, DataError
from contrast3d.nn.partwise import Partwise
from contrast3d.recipes import table
from contrast3d.recipes.simclr import SimCLRRecipe


@dataclass(frozen=True)
class Run:
    """A run folder and the recipe that made it.

    name: of the recipe in `recipes.table`. encoder(): the trained encoder, in evaluation mode.
    """

    folder: RunDir
    name: str
    recipe: SimCLRRecipe

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def title(self) -> str:
        """What tables call the run."""
        return self.path.name

    def reader(self) -> nn.Module:
        """The trained encoder as probes read it: whole shapes, in parts of the density of its views."""
        return Partwise(self.encoder(), self.recipe.num_points).eval()

    def encoder(self) -> nn.Module:
        """The encoder as its last checkpoint left it; a DataError where the weights do not fit the recipe."""
        encoder = self.recipe.make_encoder()
        try:
            encoder.load_state_dict(self.folder.load_encoder_state())
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip()
            raise DataError(
                str(self.path / "encoder.safetensors"), f"weights of another encoder ({first})", "those of recipe.json",
                "train the run again in another folder",
            ) from None
        return encoder.eval()


def record(name: str, recipe: SimCLRRecipe) -> dict:
    """What recipe.json holds."""
    return {"recipe": name, "fields": dataclasses.asdict(recipe)}


def load_run(path: str | Path) -> Run:
    """The run in a folder; clear errors for a folder that is none and for a recipe this version does not know."""
    folder = RunDir(path)
    written = folder.recipe
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
