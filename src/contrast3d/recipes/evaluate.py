"""Evaluate a run: a protocol on its frozen encoder, with the baselines, written to the run's results folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from contrast3d.data.presets import preset
from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream import baselines
from contrast3d.downstream.classification import fit_classifier
from contrast3d.downstream.evaluate import MAJORITY, Supervised, label_efficiency, labelled_splits
from contrast3d.downstream.few_shot import few_shot
from contrast3d.downstream.probes import Prediction
from contrast3d.downstream.report_probe import report_probe
from contrast3d.downstream.results import provenance
from contrast3d.downstream.retrieval import METRIC, Retrieval, retrieval
from contrast3d.downstream.robustness import robustness
from contrast3d.downstream.table import UNTRAINED, Budget, Table, budget_name
from contrast3d.engine.distributed import pick_device
from contrast3d.errors import ConfigError
from contrast3d.recipes.runs import Run
from contrast3d.recipes.table import check_protocol

LABELS_PER_CLASS = (5, 10, 20, None)


def evaluate(
    protocol: str, run: Run, *, data_root: Path = Path("data"),
    labels_per_class: Sequence[Budget] = LABELS_PER_CLASS, draws: int = 3, seed: int = 0,
    supervised_seconds: float = 0.0, supervised_draws: int = 3, ways: Sequence[int] = (5, 10),
    shots: Sequence[int] = (10, 20), trials: int = 10, device: str = "auto",
    on_progress: Callable[[str], None] | None = None,
) -> Table | Retrieval:
    """Run one of table.PROTOCOLS on the run's encoder and save one result per table cell.

    labels_per_class: columns of the table; None is all labels, "10%" a share of each class.
    draws: of the labels (of the corruptions); every contestant sees the same ones.
    supervised_seconds: also train the same architecture on the labels alone for so long, with 10 labels per class
        and with all of them, on supervised_draws of the draws; 0 does not.
    ways, shots, trials: of few-shot alone (see downstream/few_shot.py).
    """
    _check(protocol, labels_per_class, draws, seed, supervised_seconds)
    recipe, target = run.recipe, pick_device(device)
    trained = run.trained()  # before the weights: should the run go on meanwhile, the results count as stale
    encoder = run.reader().to(target)
    if protocol == "retrieval":
        found = retrieval(
            encoder, recipe.shapes("test", data_root), name=run.title, draws=draws, seed=seed,
            make_untrained=recipe.make_reader, on_progress=on_progress,
        )
        _save_retrieval(found, run, target, trained)
        return found
    data = recipe.shapes("train", data_root), recipe.shapes("test", data_root)
    shared = {"name": run.title, "seed": seed, "make_untrained": recipe.make_reader, "on_progress": on_progress}
    if protocol == "linear-report":
        table = _report_table(run, encoder, data, draws, seed)
    elif protocol == "few-shot":
        table = few_shot(encoder, data, ways=ways, shots=shots, trials=trials, **shared)
    elif protocol == "robustness":
        table = robustness(encoder, data, draws=draws, **shared)
    else:
        supervised = None
        if supervised_seconds:
            supervised = supervised_baseline(recipe, supervised_seconds, target, min(draws, supervised_draws))
        table = label_efficiency(
            protocol, encoder, data, labels_per_class=tuple(dict.fromkeys(labels_per_class)), draws=draws,
            supervised=supervised, **shared,
        )
    save(table, protocol, run, target, trained)
    return table


def _check(
    protocol: str, labels_per_class: Sequence[Budget], draws: int, seed: int, supervised_seconds: float
) -> None:
    check_protocol(protocol)
    if not labels_per_class or any(isinstance(n, int) and n < 1 for n in labels_per_class):
        raise ConfigError(f"labels per class {tuple(labels_per_class)}; expected numbers of at least 1, or all")
    if draws < 1 or seed < 0 or supervised_seconds < 0:
        raise ConfigError(
            f"draws = {draws}, seed = {seed}, supervised_seconds = {supervised_seconds:g}; "
            "expected at least 1 draw, and neither of the others below 0"
        )
    if protocol == "retrieval" and (tuple(labels_per_class) != LABELS_PER_CLASS or supervised_seconds):
        raise ConfigError("retrieval trains on no labels: leave --labels and --supervised-seconds out, or use knn")
    if protocol in ("few-shot", "robustness") and (tuple(labels_per_class) != LABELS_PER_CLASS or supervised_seconds):
        raise ConfigError(f"{protocol} knows no --labels and no --supervised-seconds: leave them out, or use linear")
    if protocol == "linear-report" and tuple(labels_per_class) not in (LABELS_PER_CLASS, (None,)):
        raise ConfigError("linear-report knows no few labels, as the report did not: leave --labels out, or use linear")


def supervised_baseline(recipe, seconds: float, device: torch.device, draws: int) -> Supervised:
    """The recipe's encoder trained on the labels alone, under the recipe's own augmentation, for so many seconds."""
    transform = preset(recipe.augmentation, recipe.num_points)

    def fit(train: ShapeSet, test: ShapeSet, seed: int) -> Prediction:
        return fit_classifier(recipe.make_reader, train, test, transform, seconds=seconds, seed=seed, device=device)

    return Supervised(fit, draws=draws)


def _report_table(run: Run, encoder, data, draws: int, seed: int) -> Table:
    train, test = labelled_splits(data)
    seeds = tuple(range(seed, seed + draws))
    table = Table("linear-report probe", train.title.removesuffix(" train"), run.title, (None,), seeds,
                  f"{train.hash}-{test.hash}", test.labels, train.classes)
    table.add(MAJORITY, None, baselines.majority(train.labels, test.labels))
    for s in seeds:
        table.add(UNTRAINED, None, report_probe(run.recipe.make_reader(s), train, test, seed=s))
        table.add(run.title, None, report_probe(encoder, train, test, seed=s))
    return table


def save(
    table: Table, protocol: str, run: Run, device: torch.device, trained: dict[str, int | None]
) -> list[Path]:
    """results/PROTOCOL-DATASET-COLUMN-METRIC.json and, where all labels were run, results/predictions-PROTOCOL.json.

    trained: step and epoch of the weights that were measured. The predictions are for the report's confusions.
    """
    paths, weights = [], {"overrides": run.overrides(), **trained}
    for result in table.to_results(run.name, seed=run.recipe.seed, **provenance(device)):
        column = result.get("labels_per_class", result.get("condition"))
        metric = "" if result["metric"] == "accuracy" else f"-{result['metric']}"
        name = f"{protocol}-{_plain(table.dataset)}-{_plain(str(column))}{metric}"
        paths.append(run.folder.save_result(name, {**result, **weights}))
    if None in table.budgets and table.predictions is not None:
        run.folder.save_result(f"predictions-{protocol}", {
            "protocol": table.protocol, "labels_per_class": budget_name(None), **weights,
            "classes": table.predictions.tolist(),
        })
    return paths


def _save_retrieval(
    found: Retrieval, run: Run, device: torch.device, trained: dict[str, int | None]
) -> Path:
    result = found.to_result(run.name, seed=run.recipe.seed, **provenance(device))
    name = f"retrieval-{_plain(found.dataset)}-{METRIC}"
    return run.folder.save_result(name, {**result, "overrides": run.overrides(), **trained})


def _plain(text: str) -> str:
    return "".join(c for c in text.lower().replace("%", "percent").replace(".", "_") if c.isalnum() or c == "_")
