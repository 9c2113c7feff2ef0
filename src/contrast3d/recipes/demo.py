"""The whole story on the embedded data, in minutes: pre-train without labels, probe, compare, report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from contrast3d.downstream.features import extract
from contrast3d.downstream.table import Table
from contrast3d.engine.distributed import Ranks, pick_device
from contrast3d.engine.loop import Outcome
from contrast3d.recipes import simclr_ldraw40
from contrast3d.recipes.contrast import ContrastRecipe
from contrast3d.recipes.evaluate import evaluate
from contrast3d.recipes.machine import Machine, is_first_process
from contrast3d.recipes.pretrain import pretrain
from contrast3d.recipes.reporting import report

NAME = "simclr-ldraw40"
# The recipe of simclr_ldraw40.py, narrower and shorter, for a story of minutes.
RECIPE = dataclasses.replace(
    simclr_ldraw40.RECIPE, layers=(32, 64, 128), strides=(2, 2, 2), embed_dim=256, epochs=5, probe_every=2
)


def demo(machine: Machine, on_progress: Callable[[str], None]) -> tuple[Outcome, Table | None, Path | None]:
    """-> how training ended, the table of results and the path of the report (None where it was interrupted).

    The supervised contestant trains for as long as SimCLR did. Under torchrun all processes train, and the first
    one goes on alone.
    """
    machine = dataclasses.replace(machine, out=machine.out or Path("runs") / "demo")
    if pick_device(machine.device).type == "cpu":
        on_progress("compiling the kernels: half a minute the first time, then cached")
        compile_kernels(RECIPE, machine)
    run, outcome = pretrain(NAME, RECIPE, machine)
    if outcome.status != "finished" or not is_first_process():
        return outcome, None, None
    table = evaluate(
        "linear", run, data_root=machine.data_root, device=machine.device, on_progress=on_progress,
        supervised_seconds=outcome.seconds,
    )
    on_progress("report")
    return outcome, table, report(run, machine.data_root, device=machine.device)


def compile_kernels(recipe: ContrastRecipe, machine: Machine) -> None:
    """One throw-away step and one encoding, so that the clock of training and of its rival starts when all is ready."""
    machine.set_threads()
    shapes = recipe.shapes("train", machine.data_root).subset(torch.arange(4))
    loader = dataclasses.replace(recipe, batch_size=4).make_loader(shapes, Ranks(0, 1, 0, torch.device("cpu")))
    recipe.make_method(len(shapes)).train()(loader.batch(0, 0))["loss"].backward()
    extract(recipe.make_reader(), shapes)
