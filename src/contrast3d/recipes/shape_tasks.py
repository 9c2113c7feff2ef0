"""What the shape recipes train: augmented views of whole shapes."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING

from contrast3d.data.loader import check_views
from contrast3d.downstream.online import held_out_probe
from contrast3d.engine.collapse import warn_of_collapse
from contrast3d.recipes.task import Task

if TYPE_CHECKING:
    from contrast3d.engine.distributed import Ranks
    from contrast3d.recipes.contrast import ContrastRecipe
    from contrast3d.recipes.machine import Machine


def contrast(recipe: ContrastRecipe, machine: Machine, ranks: Ranks) -> Task:
    """Any of the methods on views of whole shapes, with the online probe of the training set's own labels."""
    own = recipe.shapes("train", machine.data_root, machine.quiet)
    shapes = recipe.pretraining_shapes(machine.data_root, machine.quiet, own)
    loader, method = recipe.make_loader(shapes, ranks), recipe.make_method(len(shapes))
    probe = held_out_probe(own, recipe.num_points, recipe.probe_every, recipe.epochs) if ranks.rank == 0 else None

    def check() -> None:
        if recipe.batch_size > len(shapes):
            warnings.warn(f"batch_size = {recipe.batch_size:,}, but there are {len(shapes):,} shapes: every batch is "
                          "all of them", stacklevel=3)
        if not recipe.identical_views:
            warn = partial(warn_of_collapse, quiet=machine.quiet, title="IDENTICAL VIEWS")
            check_views(loader, "Try: --augmentation objects, or another that moves the points", warn)

    return Task(method, loader, shapes.title, shapes.hash, probe, check)
