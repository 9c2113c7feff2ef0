"""Put the report page of a run together: curves, tables, pairs of views, and a gallery of shapes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from contrast3d.data.loader import ViewLoader
from contrast3d.data.presets import preset
from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.features import extract
from contrast3d.downstream.retrieval import METRIC
from contrast3d.engine.distributed import pick_device
from contrast3d.recipes.masked import MaskedRecipe
from contrast3d.recipes.runs import Run
from contrast3d.recipes.scene_contrast import SceneRecipe
from contrast3d.recipes.scene_report import pairs_page, report_scenes
from contrast3d.recipes.shape_recipe import ShapeRecipe
from contrast3d.recipes.table import PROTOCOLS
from contrast3d.report.confusion import confusion_picture
from contrast3d.report.gallery import Gallery
from contrast3d.report.page import Section, views_figure, write_report
from contrast3d.report.shapes import ViewPair
from contrast3d.report.tables import ResultTable

VIEW_PAIRS = 8
METRICS = {  # what tables show, and how their notes begin
    "accuracy": "Accuracy in %",
    METRIC: "Mean average precision in %; nothing is fitted; ± over untrained encoders of several seeds.",
}


def report(
    run: Run, data_root: Path = Path("data"), path: Path | None = None, device: str = "auto"
) -> Path:
    """Write report.html of a run; what the run has not measured yet is left out of the page."""
    if isinstance(run.recipe, SceneRecipe):
        return report_scenes(run, data_root, path, device)
    recipe, target = run.recipe, pick_device(device)
    step = run.trained()["step"]
    train, test = recipe.splits(data_root)
    kind = "training shapes" if test.hash == train.hash else "test shapes"  # without labels a file is not split
    features = extract(run.reader().to(target), test)
    results = run.folder.results()
    predicted, predictor = predictions(results, len(test), step)
    return write_report(
        path or run.path / "report.html",
        title=f"{run.title}: {recipe.method_title} on {recipe.dataset}",
        summary=summary(run, test, kind),
        metrics=run.folder.metrics(),
        tables=result_tables(results, step),
        views=view_pairs(recipe, train) if recipe.views > 1 else (),
        extra=[*_own_sections(run, test, features, device), *zero_shot_sections(results, step)],
        gallery=Gallery(
            points=test.points.numpy(), features=features.numpy(),
            labels=None if test.labels is None else test.labels.numpy(), classes=test.classes, names=test.names,
            predictions=predicted, predictor=predictor, title=kind,
        ),
    )


def _own_sections(run: Run, shapes: ShapeSet, features: torch.Tensor, device: str) -> list[Section]:
    """Sections that runs of this kind of recipe have alone."""
    if not isinstance(run.recipe, MaskedRecipe):
        return []
    from contrast3d.recipes.masked_report import sections_of

    return sections_of(run, shapes, features, device)


def zero_shot_sections(results: dict[str, dict], step: int | None = None) -> list[Section]:
    """What was named without labels was taken for what, of each data set and query; with the prompts summed."""
    shown = [r for r in results.values() if "confusion" in r and r["metric"] == "accuracy"
             and r["condition"].endswith("_ensemble")]
    if not shown:
        return []
    pictures = [confusion_picture(
        np.array(r["confusion"]), r["classes"], f"{r['dataset']}, {r['condition']}: {100 * r['mean']:.1f} % right")
        for r in shown]
    lead = ("Shapes named by what a text teacher says of the names of classes, without a label. Rows are true classes, "
            "columns what they were taken for; each row sums to 100 %, right answers are blue.")
    lead += stale_note(shown, [f"{r['dataset']}, {r['condition']}" for r in shown], step)
    body = "".join(f'<figure><div class="scroll">{picture}</div></figure>' for picture in pictures)
    return [("zero-shot", "Named without labels", lead, body)]


def views_page(recipe: ShapeRecipe | SceneRecipe, path: Path, data_root: Path = Path("data")) -> Path:
    """A page of nothing but pairs of views under the recipe's augmentation; needs no training."""
    if isinstance(recipe, SceneRecipe):
        return pairs_page(recipe, path, data_root)
    return views_figure(
        path, view_pairs(recipe, recipe.shapes("train", data_root)), title=f"Views under '{recipe.augmentation}'"
    )


def view_pairs(recipe: ShapeRecipe, shapes: ShapeSet, count: int = VIEW_PAIRS) -> list[ViewPair]:
    """Shapes spread over the set, each with two views as training draws them."""
    rows = torch.linspace(0, len(shapes) - 1, count).long().unique()
    chosen = shapes.subset(rows)
    loader = ViewLoader(
        chosen, preset(recipe.augmentation, recipe.num_points), 2, len(chosen), recipe.seed, **recipe.how_views_differ,
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


def summary(run: Run, shown: ShapeSet, kind: str) -> dict[str, str]:
    """What was run, in words, for the head of the page. kind: what captions call the shapes shown."""
    recipe, lines, origin = run.recipe, run.lines(), run.origin()
    encoder = run.make_encoder()
    size = sum(p.numel() for p in encoder.parameters())
    text = {
        "recipe": run.name,
        "data": f"{recipe.dataset}; {len(shown)} {kind} of {shown.num_points} points",
        "encoder": f"{recipe.network}, {size:,} parameters, {encoder.embed_dim}-d features",
        "views": f"{recipe.augmentation}, {recipe.num_points} points each",
        "training": f"{recipe.epochs} epochs, batch {recipe.batch_size}, {recipe.optimizer}, lr {recipe.lr:g}, "
                    f"{recipe.knobs()}{recipe.precision}, seed {recipe.seed}",
    }
    if lines:
        text["trained"] = f"{lines[-1]['epoch']} epochs in {lines[-1]['seconds'] / 60:.1f} minutes"
    if not run.finished():
        text["trained"] = f"{text.get('trained', '0 epochs')}: unfinished, {recipe.epochs} epochs planned"
    text |= {name: origin[key] for name, key in (("machine", "device"), ("commit", "commit")) if key in origin}
    return {**text, "command": command_of(run)}


def command_of(run: Run) -> str:
    """The command that repeats the run: its recipe, and the fields that differ from the recipe's own."""
    words = ["contrast3d", "pretrain", run.name]
    for field, value in run.overrides().items():
        flag = field.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def result_tables(results: dict[str, dict], step: int | None = None) -> list[ResultTable]:
    """One table per protocol, of its first metric only: contestants in rows, labels per class in columns.

    step: of the run's weights; a note marks what was measured on others.
    """
    cells: dict[tuple[str, str | None], list[dict]] = {}
    for result in results.values():
        if result.get("metric") in METRICS:
            title = f"{result['dataset']}: {result['protocol']}"
            cells.setdefault((title, result.get("data_hash")), []).append(result)
    return [_result_table(title, columns, step) for (title, _), columns in cells.items()]


def _result_table(title: str, columns: list[dict], step: int | None) -> ResultTable:
    columns = sorted(columns, key=lambda c: column_order(column_of(c)))
    names = list(dict.fromkeys(name for c in columns for name in c["baselines"]))
    ours = columns[0]["recipe"]
    rows = [(name, [_cell(c["baselines"].get(name)) for c in columns]) for name in names]
    rows.append((ours, [_cell(c) for c in columns]))
    note = METRICS[columns[0]["metric"]]
    if columns[0]["metric"] == "accuracy":
        note += f", mean ± standard deviation over {len(columns[0]['values'])} draws"
        note += " of the labels; columns: labels per class." if "labels_per_class" in columns[0] else "."
    note += stale_note(columns, [column_of(c) for c in columns], step)
    return ResultTable(
        title, ("", *map(column_of, columns)), rows, note=note, ours=(ours,)
    )


def column_of(result: dict) -> str:
    """What a table calls the column: a number of labels per class, the condition of the protocol, or the metric."""
    if result.get("metric") == METRIC:
        return "mAP"
    if str(result.get("protocol")).partition(" ")[0] == "registration":  # what follows is which pairs, if not the usual
        return "all pairs"
    return str(result.get("labels_per_class", result.get("condition")))


def column_order(name: str) -> tuple:
    """Numbers of labels by size, shares and conditions by the numbers in their names, all labels last."""
    return name == "all", [int(n) for n in re.findall(r"\d+", name)], name


def _cell(cell: dict | None) -> tuple[float, float | None] | None:
    return None if cell is None else (cell["mean"], cell["std"])


def is_stale(result: dict, step: int | None) -> bool:
    """Whether a result is known to be of other weights than those of `step`; older results do not tell."""
    return None not in (step, result.get("step")) and result["step"] != step


def stale_note(columns: Sequence[dict], headings: Sequence[str], step: int | None) -> str:
    """Which columns of a table are of other weights than those of `step`; nothing where none is."""
    stale = [(heading, c["step"]) for heading, c in zip(headings, columns) if is_stale(c, step)]
    told = "".join(f" Stale: '{heading}' is of step {at}." for heading, at in stale)
    return f"{told} The run has gone on to step {step}; evaluate it again." if stale else ""


def predictions(results: dict[str, dict], count: int, step: int | None = None) -> tuple[np.ndarray | None, str]:
    """Saved predictions that fit the test set, of the first in PROTOCOLS that has some, and whose they are."""
    for protocol in PROTOCOLS:
        saved = results.get(f"predictions-{protocol}")
        if saved is None or len(saved["classes"]) != count:
            continue
        # older files say "all" whatever the number of labels was, and do not name their protocol
        labels = "all labels" if "protocol" in saved else "number of labels not recorded"
        stale = f"; stale: of step {saved['step']}" if is_stale(saved, step) else ""
        whose = "the fine-tuned network" if protocol == "finetune" else f"the {protocol} probe"
        return np.array(saved["classes"]), f"{whose} ({labels}{stale})"
    return None, "the probe"
