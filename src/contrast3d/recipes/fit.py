"""`fit`, and `load` beside it: the library's own parts, or yours, without a recipe."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from contrast3d.data.loader import ViewLoader, check_views
from contrast3d.data.presets import preset
from contrast3d.data.shapes import ShapeSet
from contrast3d.data.transforms import Transform
from contrast3d.downstream.online import held_out_probe
from contrast3d.engine import distributed
from contrast3d.engine.collapse import warn_of_collapse
from contrast3d.engine.loop import Outcome, train
from contrast3d.engine.run_dir import RunDir
from contrast3d.engine.settings import Training
from contrast3d.errors import ConfigError
from contrast3d.nn.rebuild import describe
from contrast3d.recipes.datasets import load

__all__ = ["Fitted", "fit", "load"]


@dataclass(frozen=True)
class Fitted:
    """What `fit` returns: the trained method, its encoder, the run folder (None without `out`), how it ended."""

    method: nn.Module
    folder: RunDir | None
    outcome: Outcome

    @property
    def encoder(self) -> nn.Module:
        """In evaluation mode."""
        return self.method.encoder.eval()


def fit(
    method: nn.Module, shapes: ShapeSet, *, transform: Transform | str = "objects", num_points: int | None = None,
    batch_size: int = 64, out: str | Path | None = None, device: str = "auto", probe_every: int = 5,
    on_epoch: Callable[[int, nn.Module], dict[str, float]] | None = None, resume: bool = True, quiet: bool = False,
    **training,
) -> Fitted:
    """Pre-train `method` on `shapes`; a run in `out` that did not finish goes on where it stopped.

    transform: what makes the views, or the name of a preset. num_points: of each view; default half a shape's.
    probe_every: epochs between two looks at health numbers and, with labels, kNN accuracy; 0 for none.
    on_epoch: called as on_epoch(epochs done, method) -> numbers to log, in place of that probe.
    training: fields of `engine.settings.Training` (epochs, lr, weight_decay, precision, seed ...).

    Under torchrun every process calls this with the same arguments. `load_run(out)` reads the encoder back.
    """
    settings = Training(**training)
    if "dense" in getattr(method, "needs", ()):
        raise ConfigError(f"{type(method).__name__} learns from overlapping views of scenes, and fit makes views of "
                          "shapes. Try: contrast3d pretrain point-contrast-rooms, or engine.loop.train on a PairLoader")
    ranks = distributed.setup(device)
    try:
        with ExitStack() as held:
            with distributed.together():
                if isinstance(transform, str):
                    transform = preset(transform, num_points or max(1, shapes.num_points // 2))
                loader = ViewLoader(shapes, transform, getattr(method, "views", 2), batch_size, settings.seed,
                                    ranks.rank, ranks.world, ranks.device)
                views = loader.batch(0, 0)[0]
                density = views.dense.shape[1] if views.is_dense else shapes.num_points
                if on_epoch is None and probe_every and ranks.rank == 0:
                    on_epoch = held_out_probe(shapes, density, probe_every, settings.epochs)
                if ranks.rank == 0:
                    check_views(loader, "Try: another transform", partial(
                        warn_of_collapse, quiet=quiet, title="IDENTICAL VIEWS"
                    ))
                folder = RunDir(out) if out else None
                if folder is not None:
                    held.enter_context(folder.locked())
                    written = _record(method, shapes, transform, batch_size, density)
                    folder.create(_as_older(written, folder), shapes.title)
            outcome = train(method, loader, settings, folder, device=ranks.device, resume=resume, on_epoch=on_epoch,
                            quiet=quiet)
    finally:
        distributed.cleanup()
    return Fitted(method, folder, outcome)


def _record(method: nn.Module, shapes: ShapeSet, transform: Transform, batch_size: int, density: int) -> dict:
    """What recipe.json holds of a run without a recipe: its networks, and what tells it from another run.

    num_points: per view, which is how densely `runs.FittedRun.reader` reads shapes.
    """
    return {
        "recipe": None, "method": describe(method), "encoder": describe(method.encoder), "data_hash": shapes.hash,
        "transform": repr(transform), "batch_size": batch_size, "num_points": density,
    }


def _as_older(written: dict, folder: RunDir) -> dict:
    """`written` as a former version wrote it, which knew no arguments of methods, where such a run is to go on."""
    former = folder.recipe.get("method") if (folder.path / "recipe.json").exists() else None
    if isinstance(former, dict) and former.get("kwargs", {}) is None:
        return {**written, "method": {**written["method"], "kwargs": None}}
    return written
