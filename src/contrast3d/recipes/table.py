"""The recipes by name. Adding one: write its file, then add its line here."""

from __future__ import annotations

import importlib

from contrast3d.errors import ConfigError

RECIPES = {
    "simclr-ldraw40": "simclr_ldraw40",
    "simclr-modelnet40": "simclr_modelnet40",
    "simclr-shapenetpart-faithful": "simclr_shapenetpart_faithful",
    "simclr-shapenetpart-corrected": "simclr_shapenetpart_corrected",
}


def find(name: str):
    """The recipe `name` with its documented values; a ConfigError lists the names."""
    return _module(name).RECIPE


def documentation(name: str) -> str:
    """What the recipe is, its command, and the numbers to expect."""
    return (_module(name).__doc__ or "").strip()


def summary(name: str) -> str:
    """The first sentence of the documentation."""
    return documentation(name).split("\n")[0].rstrip(".")


def _module(name: str):
    if name not in RECIPES:
        import difflib

        close = difflib.get_close_matches(name, RECIPES, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(RECIPES)}"
        raise ConfigError(f"no recipe {name!r}; {hint}")
    return importlib.import_module(f"contrast3d.recipes.{RECIPES[name]}")
