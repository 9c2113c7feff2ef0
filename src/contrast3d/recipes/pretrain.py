"""Pre-train a recipe: where its method, its data and the engine meet."""

from __future__ import annotations

import dataclasses
import shlex
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from contrast3d.data.loader import check_views
from contrast3d.downstream.online import held_out_probe
from contrast3d.engine import distributed
from contrast3d.engine.collapse import warn_of_collapse
from contrast3d.engine.loop import Outcome, train
from contrast3d.engine.run_dir import RunDir
from contrast3d.engine.schedule import Plan
from contrast3d.errors import ConfigError
from contrast3d.recipes import datasets, table
from contrast3d.recipes.contrast import ContrastRecipe
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.runs import Run, record, record_origin


def pretrain(name: str, recipe: ContrastRecipe, machine: Machine | None = None) -> tuple[Run, Outcome]:
    """Train `recipe` into its run folder, or go on where it stopped; the Outcome tells whether it finished.

    Under torchrun every process calls this; the batch is shared among them.
    """
    _check_effect(recipe, table.find(name))
    machine = machine or Machine()
    machine.set_threads()
    ranks = distributed.setup(machine.device)
    try:
        with ExitStack() as held:
            with distributed.together():
                own = recipe.shapes("train", machine.data_root, machine.quiet)
                shapes = recipe.pretraining_shapes(machine.data_root, machine.quiet, own)
                loader, method = recipe.make_loader(shapes, ranks), recipe.make_method(len(shapes))
                Plan(recipe.training(), len(loader))
                probe = None
                if ranks.rank == 0:
                    probe = held_out_probe(own, recipe.num_points, recipe.probe_every, recipe.epochs)
                folder = RunDir(machine.out or Path("runs") / name)  # only now: what cannot work leaves none behind
                held.enter_context(folder.locked())
                if machine.restart and ranks.rank == 0:
                    _forget(folder)
                folder.create(record(name, recipe, shapes.hash), shapes.title, dataclasses.asdict(table.find(name)))
                if ranks.rank == 0:
                    record_origin(folder, ranks.device)
                    _warn_of_one_batch(recipe, len(shapes))
                if not recipe.identical_views and ranks.rank == 0:
                    check_views(loader, "Try: --augmentation objects, or another that moves the points", partial(
                        warn_of_collapse, quiet=machine.quiet, title="IDENTICAL VIEWS"
                    ))
            # no rank comes here, and loads a state, before the folder is as all of them shall find it
            outcome = train(
                method, loader, recipe.training(), folder, device=ranks.device, on_epoch=probe, quiet=machine.quiet,
                tensorboard=machine.tensorboard,
            )
    finally:
        distributed.cleanup()
    return Run(folder, name, recipe), outcome


def _check_effect(recipe: ContrastRecipe, named: ContrastRecipe) -> None:
    """ConfigError for a field that was turned and changes nothing: who turns it believes that it does."""
    for field, reason in recipe.idle_fields().items():
        if getattr(recipe, field) not in (getattr(named, field), getattr(ContrastRecipe, field)):
            raise ConfigError(f"--{field.replace('_', '-')} changes nothing with {reason}: leave it out")


def _warn_of_one_batch(recipe: ContrastRecipe, count: int) -> None:
    if recipe.batch_size > count:
        warnings.warn(f"batch_size = {recipe.batch_size:,}, but there are {count:,} shapes: every batch is all of them",
                      stacklevel=3)


def _forget(folder: RunDir) -> None:
    """Remove everything of a former run, its recipe and results included."""
    folder.restart()
    for path in (folder.path / "recipe.json", folder.path / "report.html", *folder.path.glob("results/*.json")):
        path.unlink(missing_ok=True)


def next_commands(run: Run, outcome: Outcome, machine: Machine) -> list[str]:
    """What to type after a finished run; evaluations are for labelled shapes."""
    name = run.recipe.dataset
    on_disk = not datasets.is_yours(name) and not datasets.find(name).embedded
    root = ["--data-root", str(machine.data_root)] if on_disk else []
    verbs = (["evaluate", "linear"], ["report"]) if "knn_accuracy" in outcome.metrics else (["report"],)
    return [shlex.join(["contrast3d", *verb, str(run.path), *root]) for verb in verbs]
