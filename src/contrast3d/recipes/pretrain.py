"""Pre-train a recipe: where its method, its data and the engine meet."""

from __future__ import annotations

import shlex
import warnings
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from contrast3d.data.loader import check_views
from contrast3d.downstream.online import OnlineProbe
from contrast3d.downstream.splits import folds
from contrast3d.engine import distributed
from contrast3d.engine.collapse import warn_of_collapse
from contrast3d.engine.loop import Outcome, train
from contrast3d.engine.run_dir import RunDir
from contrast3d.engine.schedule import Plan
from contrast3d.errors import DataError
from contrast3d.recipes import datasets
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.runs import Run, record, record_origin
from contrast3d.recipes.simclr import SimCLRRecipe


def pretrain(name: str, recipe: SimCLRRecipe, machine: Machine | None = None) -> tuple[Run, Outcome]:
    """Train `recipe` into its run folder, or go on where it stopped; the Outcome tells whether it finished.

    Under torchrun every process calls this; the batch is shared among them.
    """
    machine = machine or Machine()
    machine.set_threads()
    ranks = distributed.setup(machine.device)
    try:
        with ExitStack() as held:
            with distributed.together():
                shapes = recipe.pretraining_shapes(machine.data_root)
                loader, method = recipe.make_loader(shapes, ranks), recipe.make_method()
                Plan(recipe.training(), len(loader))
                probe = online_probe(recipe, machine.data_root) if ranks.rank == 0 else None
                folder = RunDir(machine.out or Path("runs") / name)  # only now: what cannot work leaves none behind
                held.enter_context(folder.locked())
                if machine.restart and ranks.rank == 0:
                    _forget(folder)
                folder.create(record(name, recipe, shapes.hash), shapes.title)
                if ranks.rank == 0:
                    record_origin(folder, ranks.device)
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


def _forget(folder: RunDir) -> None:
    """Remove everything of a former run, its recipe and results included."""
    folder.restart()
    for path in (folder.path / "recipe.json", folder.path / "report.html", *folder.path.glob("results/*.json")):
        path.unlink(missing_ok=True)


def online_probe(recipe: SimCLRRecipe, data_root: Path) -> OnlineProbe:
    """kNN accuracy and health numbers on folds of the training split; the test split stays unseen.

    Health numbers alone, with a warning, where there are too few labelled shapes to hold some out.
    """
    shapes = recipe.shapes("train", data_root)
    # at the density of the views
    shapes = replace(shapes, points=shapes.points[:, : recipe.num_points], point_labels=None)
    every = {"every": recipe.probe_every, "last": recipe.epochs}
    if shapes.labels is not None:
        try:
            train_rows, val_rows = folds(shapes.labels, shapes.groups, 5, seed=0)[0]
            return OnlineProbe(shapes.subset(train_rows), shapes.subset(val_rows), **every)
        except DataError as error:
            warnings.warn(f"training goes on without the kNN probe of the labels: {error}", stacklevel=2)
            shapes = replace(shapes, labels=None)
    return OnlineProbe(shapes, shapes, **every)


def next_commands(run: Run, outcome: Outcome, machine: Machine) -> list[str]:
    """What to type after a finished run; evaluations are for labelled shapes."""
    name = run.recipe.dataset
    on_disk = not datasets.is_file(name) and not datasets.find(name).embedded
    root = ["--data-root", str(machine.data_root)] if on_disk else []
    verbs = (["evaluate", "linear"], ["report"]) if "knn_accuracy" in outcome.metrics else (["report"],)
    return [shlex.join(["contrast3d", *verb, str(run.path), *root]) for verb in verbs]
