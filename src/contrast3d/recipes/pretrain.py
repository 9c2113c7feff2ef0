"""Pre-train a recipe: where its method, its data and the engine meet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contrast3d.data.loader import check_views
from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.online import OnlineProbe
from contrast3d.downstream.splits import folds
from contrast3d.engine import distributed
from contrast3d.engine.loop import Outcome, train
from contrast3d.engine.run_dir import RunDir
from contrast3d.engine.schedule import Plan
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.runs import Run, record
from contrast3d.recipes.simclr import SimCLRRecipe


def pretrain(name: str, recipe: SimCLRRecipe, machine: Machine | None = None) -> tuple[Run, Outcome]:
    """Train `recipe` into its run folder, or go on where it stopped; the Outcome tells whether it finished.

    Under torchrun every process calls this; the batch is shared among them.
    """
    machine = machine or Machine()
    machine.set_threads()
    ranks = distributed.setup(machine.device)
    try:
        loader = recipe.make_loader(recipe.pretraining_shapes(machine.data_root), ranks)
        method, probe = recipe.make_method(), online_probe(recipe, machine.data_root)
        Plan(recipe.training(), len(loader))
        folder = RunDir(machine.out or Path("runs") / name)  # only now: what cannot work leaves no folder behind
        if machine.restart and ranks.rank == 0:
            _forget(folder)
        folder.create(record(name, recipe))
        if not recipe.identical_views and ranks.rank == 0:
            check_views(loader)
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
    """kNN accuracy and health numbers on folds of the training split; the test split stays unseen."""
    shapes = recipe.shapes("train", data_root)
    # at the density of the views
    shapes = replace(shapes, points=shapes.points[:, : recipe.num_points], point_labels=None)
    train_part, val_part = _halves(shapes)
    return OnlineProbe(train_part, val_part, every=recipe.probe_every)


def _halves(shapes: ShapeSet) -> tuple[ShapeSet, ShapeSet]:
    if shapes.labels is None:
        return shapes, shapes
    train_rows, val_rows = folds(shapes.labels, shapes.groups, 5, seed=0)[0]
    return shapes.subset(train_rows), shapes.subset(val_rows)
