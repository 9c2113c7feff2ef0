"""What the shape recipes train: augmented views of whole shapes, compared with each other or reconstructed."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING

from contrast3d.data.loader import check_views
from contrast3d.downstream.online import held_out_probe
from contrast3d.engine.collapse import warn_of_collapse
from contrast3d.errors import ConfigError
from contrast3d.recipes.shape_recipe import joined
from contrast3d.recipes.task import Task

if TYPE_CHECKING:
    from contrast3d.data.shapes import ShapeSet
    from contrast3d.engine.distributed import Ranks
    from contrast3d.recipes.contrast import ContrastRecipe
    from contrast3d.recipes.machine import Machine
    from contrast3d.recipes.masked import MaskedRecipe


def contrast(recipe: ContrastRecipe, machine: Machine, ranks: Ranks) -> Task:
    """Any of the methods on views of whole shapes, with the online probe of the training set's own labels."""
    own = recipe.shapes("train", machine.data_root, machine.quiet)
    shapes = recipe.pretraining_shapes(machine.data_root, machine.quiet, own)
    loader, method = recipe.make_loader(shapes, ranks), recipe.make_method(len(shapes))
    probe = held_out_probe(own, recipe.num_points, recipe.probe_every, recipe.epochs) if ranks.rank == 0 else None

    def check() -> None:
        _warn_of_few(recipe, shapes)
        if not recipe.identical_views:
            warn = partial(warn_of_collapse, quiet=machine.quiet, title="IDENTICAL VIEWS")
            check_views(loader, "Try: --augmentation objects, or another that moves the points", warn)

    return Task(method, loader, shapes.title, shapes.hash, probe, check)


def masked(recipe: MaskedRecipe, machine: Machine, ranks: Ranks) -> Task:
    """Reconstruction of hidden patches, with teachers where the recipe has some, and the online probe."""
    own = recipe.shapes("train", machine.data_root, machine.quiet)
    sets = recipe.sets_to_train_on(machine.data_root, machine.quiet, own)
    shapes = joined(sets)
    if recipe.self_contrast == "names" and shapes.labels is None:
        raise ConfigError(f"--self-contrast names reads labels, and {shapes.title} has none in common. Try: instance")
    loader, teacher = recipe.make_loader(shapes, ranks), None
    if recipe.projections():
        from contrast3d.recipes.teachers import load_teacher

        recipe.make_encoder()  # a field that cannot work is told before minutes of features
        teacher = load_teacher(sets, recipe.image_teacher, recipe.text_teacher, captions=recipe.captions,
                               views=recipe.teacher_views, data_root=machine.data_root, device=str(ranks.device),
                               quiet=machine.quiet)
    method = recipe.make_method(teacher=teacher)
    probe = held_out_probe(own, recipe.num_points, recipe.probe_every, recipe.epochs) if ranks.rank == 0 else None
    return Task(method, loader, shapes.title, shapes.hash, probe, lambda: _warn_of_few(recipe, shapes))


def _warn_of_few(recipe: ContrastRecipe | MaskedRecipe, shapes: ShapeSet) -> None:
    if recipe.batch_size > len(shapes):
        warnings.warn(f"batch_size = {recipe.batch_size:,}, but there are {len(shapes):,} shapes: every batch is "
                      "all of them", stacklevel=4)
