"""Put the report page of a run together: curves, tables, pairs of views, and a gallery of test shapes."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import numpy as np
import torch

from contrast3d.data.loader import ViewLoader
from contrast3d.data.presets import preset
from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.features import extract
from contrast3d.downstream.results import commit, device_name
from contrast3d.recipes.runs import Run
from contrast3d.recipes.simclr import SimCLRRecipe
from contrast3d.report.gallery import Gallery
from contrast3d.report.page import views_figure, write_report
from contrast3d.report.shapes import ViewPair
from contrast3d.report.tables import ResultTable

VIEW_PAIRS = 8


def report(run: Run, data_root: Path = Path("data"), path: Path | None = None) -> Path:
    """Write report.html of a run; what the run has not measured yet is left out of the page."""
    recipe = run.recipe
    test = recipe.shapes("test", data_root)
    features = extract(run.reader(), test)
    results = run.folder.results()
    return write_report(
        path or run.path / "report.html",
        title=f"{run.title}: SimCLR on {recipe.dataset}",
        summary=summary(run, test),
        metrics=run.folder.metrics(),
        tables=result_tables(results),
        views=view_pairs(recipe, recipe.shapes("train", data_root)),
        gallery=Gallery(
            points=test.points.numpy(), features=features.numpy(),
            labels=None if test.labels is None else test.labels.numpy(), classes=test.classes, names=test.names,
            predictions=predictions(results, len(test)),
        ),
    )


def views_page(recipe: SimCLRRecipe, path: Path, data_root: Path = Path("data")) -> Path:
    """A page of nothing but pairs of views under the recipe's augmentation; needs no training."""
    return views_figure(
        path, view_pairs(recipe, recipe.shapes("train", data_root)), title=f"Views under '{recipe.augmentation}'"
    )


def view_pairs(recipe: SimCLRRecipe, shapes: ShapeSet, count: int = VIEW_PAIRS) -> list[ViewPair]:
    """Shapes spread over the set, each with two views as training draws them."""
    rows = torch.linspace(0, len(shapes) - 1, count).long().unique()
    chosen = shapes.subset(rows)
    loader = ViewLoader(
        chosen, preset(recipe.augmentation, recipe.num_points), 2, len(chosen), recipe.seed,
        draws="per-batch" if recipe.shared_draws else "per-sample", identical=recipe.identical_views,
    )
    order = loader.order(0).tolist()
    first, second = (_each(view) for view in loader.batch(0, 0))
    return [
        ViewPair(chosen.points[row].numpy(), *points, _caption(chosen, row), *indices)
        for row, points, indices in (
            (row, (first[0][i], second[0][i]), (first[1][i], second[1][i])) for i, row in enumerate(order)
        )
    ]


def _each(view) -> tuple[list[np.ndarray], list[np.ndarray]]:
    lengths = view.lengths.tolist()
    points, indices = ([t.numpy() for t in values.split(lengths)] for values in (view.points, view.indices))
    return points, indices


def _caption(shapes: ShapeSet, row: int) -> str:
    return shapes.descriptions[row] if shapes.descriptions else shapes.name(row)


def summary(run: Run, test: ShapeSet) -> dict[str, str]:
    """What was run, in words, for the head of the page."""
    recipe, lines = run.recipe, [m for m in run.folder.metrics() if m["kind"] == "train"]
    encoder = recipe.make_encoder()
    size = sum(p.numel() for p in encoder.parameters())
    text = {
        "recipe": run.name,
        "data": f"{recipe.dataset}; {len(test)} test shapes of {test.num_points} points",
        "encoder": f"{recipe.encoder}, {size:,} parameters, {encoder.embed_dim}-d features",
        "views": f"{recipe.augmentation}, {recipe.num_points} points each",
        "training": f"{recipe.epochs} epochs, batch {recipe.batch_size}, {recipe.optimizer}, lr {recipe.lr:g}, "
                    f"temperature {recipe.temperature:g}, {recipe.precision}, seed {recipe.seed}",
    }
    if lines:
        text["trained"] = f"{lines[-1]['epoch']} epochs in {lines[-1]['seconds'] / 60:.1f} minutes"
    text |= {"machine": device_name(), "commit": commit(), "command": command_of(run)}
    return text


def command_of(run: Run) -> str:
    """The command that repeats the run: its recipe, and the fields that differ from the recipe's own."""
    from contrast3d.recipes.table import find

    default = find(run.name)
    words = ["contrast3d", "pretrain", run.name]
    for field in dataclasses.fields(default):
        value = getattr(run.recipe, field.name)
        if value == getattr(default, field.name):
            continue
        flag = field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def result_tables(results: dict[str, dict]) -> list[ResultTable]:
    """One table per protocol, accuracy only: contestants in rows, labels per class in columns."""
    cells: dict[str, list[dict]] = {}
    for result in results.values():
        if result.get("metric") == "accuracy":
            cells.setdefault(f"{result['dataset']}: {result['protocol']}", []).append(result)
    return [_result_table(title, columns) for title, columns in cells.items()]


def _result_table(title: str, columns: list[dict]) -> ResultTable:
    columns = sorted(columns, key=lambda c: float("inf") if c["labels_per_class"] == "all" else c["labels_per_class"])
    names = list(dict.fromkeys(name for c in columns for name in c["baselines"]))
    ours = columns[0]["recipe"]
    rows = [(name, [_cell(c["baselines"].get(name)) for c in columns]) for name in names]
    rows.append((ours, [_cell(c) for c in columns]))
    draws = len(columns[0]["values"])
    note = f"Accuracy in %, mean ± standard deviation over {draws} draws of the labels; columns: labels per class."
    return ResultTable(
        title, ("", *(str(c["labels_per_class"]) for c in columns)), rows, note=note, ours=(ours,)
    )


def _cell(cell: dict | None) -> tuple[float, float | None] | None:
    return None if cell is None else (cell["mean"], cell["std"])


def predictions(results: dict[str, dict], count: int) -> np.ndarray | None:
    """The saved predictions of the first protocol that was run with all labels, if they fit the test set."""
    saved = [r["classes"] for name, r in results.items() if name.startswith("predictions-")]
    return next((np.array(p) for p in saved if len(p) == count), None)
