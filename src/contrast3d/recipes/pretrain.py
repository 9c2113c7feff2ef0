"""Pre-train a recipe: where its method, its data and the engine meet."""

from __future__ import annotations

import dataclasses
import shlex
from contextlib import ExitStack
from pathlib import Path

from contrast3d.engine import distributed
from contrast3d.engine.loop import Outcome, train
from contrast3d.engine.run_dir import RunDir
from contrast3d.engine.schedule import Plan
from contrast3d.errors import ConfigError
from contrast3d.recipes import table
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.runs import Run, record, record_origin
from contrast3d.recipes.scene_contrast import SceneRecipe
from contrast3d.recipes.shape_recipe import ShapeRecipe

Recipe = ShapeRecipe | SceneRecipe


def pretrain(name: str, recipe: Recipe, machine: Machine | None = None) -> tuple[Run, Outcome]:
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
                task = recipe.task(machine, ranks)
                Plan(recipe.training(), len(task.loader))
                folder = RunDir(machine.out or Path("runs") / name)  # only now: what cannot work leaves none behind
                held.enter_context(folder.locked())
                if machine.restart and ranks.rank == 0:
                    _forget(folder)
                folder.create(record(name, recipe, task.data_hash), task.title, dataclasses.asdict(table.find(name)))
                if ranks.rank == 0:
                    record_origin(folder, ranks.device)
                    task.check()
            # no rank comes here, and loads a state, before the folder is as all of them shall find it
            outcome = train(
                task.method, task.loader, recipe.training(), folder, device=ranks.device, on_epoch=task.on_epoch,
                quiet=machine.quiet, tensorboard=machine.tensorboard,
            )
    finally:
        distributed.cleanup()
    return Run(folder, name, recipe), outcome


def _check_effect(recipe: Recipe, named: Recipe) -> None:
    """ConfigError for a field that was turned and changes nothing: who turns it believes that it does."""
    for field, reason in recipe.idle_fields().items():
        if getattr(recipe, field) not in (getattr(named, field), getattr(type(recipe), field)):
            raise ConfigError(f"--{field.replace('_', '-')} changes nothing with {reason}: leave it out")


def _forget(folder: RunDir) -> None:
    """Remove everything of a former run, its recipe and results included."""
    folder.restart()
    for path in (folder.path / "recipe.json", folder.path / "report.html", *folder.path.glob("results/*.json")):
        path.unlink(missing_ok=True)


def next_commands(run: Run, outcome: Outcome, machine: Machine) -> list[str]:
    """What to type after a finished run."""
    root = [] if run.recipe.is_embedded else ["--data-root", str(machine.data_root)]
    verbs = run.recipe.next_verbs(outcome.metrics)
    return [shlex.join(["contrast3d", *verb, str(run.path), *root]) for verb in verbs]
