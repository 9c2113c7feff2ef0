"""Evaluate a run: a protocol on its encoder, with the baselines, written to the run's results folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from contrast3d.data.presets import preset
from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream import baselines
from contrast3d.downstream.classification import fit_classifier
from contrast3d.downstream.evaluate import Supervised, label_efficiency
from contrast3d.downstream.few_shot import few_shot
from contrast3d.downstream.finetune import finetune
from contrast3d.downstream.probes import Prediction
from contrast3d.downstream.registration import Registration
from contrast3d.downstream.report_probe import report_probe
from contrast3d.downstream.results import provenance
from contrast3d.downstream.retrieval import METRIC, Retrieval, retrieval
from contrast3d.downstream.robustness import robustness
from contrast3d.downstream.segmentation_table import SegmentationTable
from contrast3d.downstream.splits import labelled_splits
from contrast3d.downstream.table import LABELS, MAJORITY, UNTRAINED, Budget, Table, budget_name
from contrast3d.engine.distributed import pick_device
from contrast3d.errors import ConfigError
from contrast3d.recipes import datasets
from contrast3d.recipes.contrast import ContrastRecipe
from contrast3d.recipes.evaluate_scenes import evaluate_registration, evaluate_segmentation
from contrast3d.recipes.runs import Run
from contrast3d.recipes.scene_contrast import SceneRecipe
from contrast3d.recipes.table import PROTOCOLS, check_protocol

LABELS_PER_CLASS = (5, 10, 20, None)  # unless TUNED_LABELS has others
TUNED_LABELS = {"finetune": (10, None), "finetune-best-on-test": (None,)}  # trainings are dear
WAYS, SHOTS, TRIALS, DRAWS = (5, 10), (10, 20), 10, 3
PROBED = ("labels", "draws", "supervised-seconds")
KNOWS = {  # the flags that each protocol takes, of those that not all take
    "linear": PROBED, "svm": PROBED, "knn": PROBED, "few-shot": ("ways", "shots", "trials"), "robustness": ("draws",),
    "finetune": ("labels", "draws", "epochs"), "finetune-best-on-test": ("labels", "draws", "epochs"),
    "retrieval": ("draws",), "linear-report": ("labels", "draws"), "registration": ("draws", "scenes"),
    "segmentation": ("labels", "draws", "steps", "published"),
}
OF_SCENES = ("registration", "segmentation")


def evaluate(
    protocol: str, run: Run, *, data_root: Path = Path("data"), labels_per_class: Sequence[Budget] | None = None,
    draws: int = DRAWS, seed: int = 0, supervised_seconds: float = 0.0, supervised_draws: int = 3,
    ways: Sequence[int] = WAYS, shots: Sequence[int] = SHOTS, trials: int = TRIALS, epochs: int = 0,
    dataset: str | None = None, up: Literal["z", "y", "x"] = "z", scenes: Sequence[str] = (), steps: int = 0,
    published: bool = False,
    device: str = "auto", on_progress: Callable[[str], None] | None = None,
) -> Table | Retrieval | Registration | SegmentationTable:
    """Run one of table.PROTOCOLS on the run's encoder and save one result per table cell.

    labels_per_class: columns of the table; None in it is all labels, "10%" a share of each class. Default as
        LABELS_PER_CLASS and TUNED_LABELS have it.
    draws: of the labels (of the corruptions); every contestant sees the same ones.
    supervised_seconds: also train the same architecture on the labels alone for so long, with 10 labels per class
        and with all of them, on supervised_draws of the draws; 0 does not.
    ways, shots, trials: of few-shot alone (see downstream/few_shot.py).
    dataset: other than the recipe's own: a name of the catalogue, or your own folder, whose sub-folders are the
        classes, or file. up: the axis that points up in yours.
    epochs: of finetune alone (see downstream/finetune.py); 0 takes its own. What is finished at Ctrl-C is saved.
    scenes: of registration, steps, published: of segmentation; see recipes/evaluate_scenes.py.
    """
    check_protocol(protocol)
    _check_kind(protocol, run)
    _check_ranges(labels_per_class, draws, seed, supervised_seconds, epochs, steps)
    _check_known(protocol, {
        "labels": (labels_per_class, None), "draws": (draws, DRAWS), "ways": (tuple(ways), WAYS),
        "shots": (tuple(shots), SHOTS), "trials": (trials, TRIALS), "epochs": (epochs, 0),
        "supervised-seconds": (supervised_seconds, 0.0), "scenes": (tuple(scenes), ()), "steps": (steps, 0),
        "published": (published, False),
    })
    if protocol in OF_SCENES:
        if up != "z":
            raise ConfigError(f"{protocol} knows no --up: leave it out, scenes have z up")
        same = {"data_root": data_root, "dataset": dataset, "draws": draws, "seed": seed, "device": device,
                "on_progress": on_progress}
        if protocol == "registration":
            return evaluate_registration(run, scenes=scenes, **same)
        return evaluate_segmentation(run, labels=labels_per_class, steps=steps, published=published, **same)
    if protocol == "linear-report" and tuple(labels_per_class or (None,)) != (None,):
        raise ConfigError("linear-report knows no few labels, as the report did not: leave --labels out, or use linear")
    labels = tuple(dict.fromkeys(labels_per_class or TUNED_LABELS.get(protocol, LABELS_PER_CLASS)))
    recipe, target = _recipe_on(run.recipe, dataset, up), pick_device(device)
    trained = run.trained()  # before the weights: should the run go on meanwhile, the results count as stale
    encoder = run.reader().to(target)
    if protocol == "retrieval":
        found = retrieval(
            encoder, recipe.shapes("all" if _unseen(run.recipe, dataset) else "test", data_root), name=run.title,
            draws=draws, seed=seed, make_untrained=recipe.make_reader, on_progress=on_progress,
        )
        _save_retrieval(found, run, target, trained, foreign=recipe is not run.recipe)
        return found
    data = recipe.splits(data_root)
    shared = {"name": run.title, "seed": seed, "make_untrained": recipe.make_reader, "on_progress": on_progress}
    keep = partial(save, protocol=protocol, run=run, device=target, trained=trained, foreign=recipe is not run.recipe)
    if protocol == "linear-report":
        table = _report_table(run, encoder, data, draws, seed)
    elif protocol == "few-shot":
        table = few_shot(encoder, data, ways=ways, shots=shots, trials=trials, **shared)
    elif protocol == "robustness":
        table = robustness(encoder, data, draws=draws, **shared)
    elif protocol in TUNED_LABELS:
        table = _tuned(encoder, data, recipe, keep, labels_per_class=labels, draws=draws, epochs=epochs,
                       best_on_test=protocol == "finetune-best-on-test", **shared)
    else:
        supervised = None
        if supervised_seconds:
            supervised = supervised_baseline(recipe, supervised_seconds, target, min(draws, supervised_draws))
        table = label_efficiency(
            protocol, encoder, data, labels_per_class=labels, draws=draws, supervised=supervised, **shared,
        )
    keep(table)
    return table


def _recipe_on(recipe: ContrastRecipe, dataset: str | None, up: Literal["z", "y", "x"]) -> ContrastRecipe:
    """The recipe with another data set to be evaluated on, whole and with all of its classes; itself on its own."""
    if up != "z" and not (dataset and datasets.is_yours(dataset)):
        raise ConfigError(f"--up {up} belongs to a --dataset of your own: leave it out, all others know theirs")
    if dataset is None or (_same(dataset, recipe.dataset) and up in ("z", recipe.up)):
        return recipe
    labels_from = "folders" if datasets.is_folder(dataset) else "none"
    return dataclasses.replace(recipe, dataset=dataset, up=up, labels_from=labels_from, categories=(), holdout=0)


def _unseen(recipe: ContrastRecipe, dataset: str | None) -> bool:
    """Whether the data set comes in one piece and the run did not train on it."""
    seen = (recipe.dataset, *recipe.extra_datasets)
    return dataset is not None and datasets.is_whole(dataset) and not any(_same(dataset, other) for other in seen)


def _same(one: str, other: str) -> bool:
    return one == other or (
        datasets.is_yours(one) and datasets.is_yours(other) and Path(one).resolve() == Path(other).resolve())


def _check_ranges(
    labels_per_class: Sequence[Budget] | None, draws: int, seed: int, supervised_seconds: float, epochs: int,
    steps: int,
) -> None:
    if labels_per_class is not None and (
        not labels_per_class or any(isinstance(n, int) and n < 1 for n in labels_per_class)
    ):
        raise ConfigError(f"labels per class {tuple(labels_per_class)}; expected numbers of at least 1, or all")
    if draws < 1 or min(seed, supervised_seconds, epochs, steps) < 0:
        raise ConfigError(
            f"draws = {draws}, seed = {seed}, supervised_seconds = {supervised_seconds:g}, epochs = {epochs}, steps = "
            f"{steps}; expected at least 1 draw, and none of the others below 0"
        )


def _check_kind(protocol: str, run: Run) -> None:
    of_scenes = isinstance(run.recipe, SceneRecipe)
    if (protocol in OF_SCENES) != of_scenes:
        kinds = ("single shapes", "scenes")
        others = ", ".join(p for p in PROTOCOLS if (p in OF_SCENES) == of_scenes)
        raise ConfigError(f"{protocol} is about {kinds[not of_scenes]}, and {run.path} was trained on "
                          f"{kinds[of_scenes]}. Try: {others}")


def _check_known(protocol: str, flags: dict[str, tuple]) -> None:
    """flags: (value, default) by name; a ConfigError where one that the protocol does not take has been set."""
    foreign = [f"--{name}" for name, (value, default) in flags.items() if name not in KNOWS[protocol]
               and value != default]
    if foreign:
        known = ", ".join(f"--{name}" for name in KNOWS[protocol])
        raise ConfigError(f"{protocol} knows no {' and no '.join(foreign)}: leave it out; it knows {known}")


def _tuned(
    encoder: nn.Module, data: tuple[ShapeSet, ShapeSet], recipe: ContrastRecipe, keep: Callable[[Table], object], *,
    epochs: int, **options,
) -> Table:
    """`finetune` under the recipe's own augmentation; every finished column is kept at once."""
    finished: list[str] = []

    def column(table: Table) -> None:
        keep(table)
        finished[:] = [budget_name(b) for b in table.budgets if table.cell(table.ours, b)]

    try:
        return finetune(encoder, data, transform=preset(recipe.augmentation, recipe.num_points), on_column=column,
                        **({"epochs": epochs, "min_steps": 0} if epochs else {}), **options)
    except KeyboardInterrupt:
        saved = f"saved: {', '.join(finished)} {LABELS}" if finished else "no column was finished"
        raise KeyboardInterrupt(f"interrupted; {saved}; the same command begins again") from None


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
    table: Table, protocol: str, run: Run, device: torch.device, trained: dict[str, int | None], foreign: bool = False
) -> list[Path]:
    """results/PROTOCOL-DATASET-COLUMN-METRIC.json and, where all labels were run, results/predictions-PROTOCOL.json.

    trained: step and epoch of the weights that were measured. The predictions are for the report's confusions, which
    those selected on test are not, nor those of a foreign data set.
    """
    paths, weights = [], {"overrides": run.overrides(), **trained}
    for result in table.to_results(run.name, seed=run.recipe.seed, **provenance(device)):
        column = result.get("labels_per_class", result.get("condition"))
        metric = "" if result["metric"] == "accuracy" else f"-{result['metric']}"
        place = _place(table.dataset, table.data_hash, foreign)
        name = f"{protocol}-{place}-{_plain(str(column))}{metric}"
        paths.append(run.folder.save_result(name, {**result, **weights}))
    shown = None in table.budgets and protocol != "finetune-best-on-test" and not foreign
    most = table.predictions if shown else None
    if most is not None:
        run.folder.save_result(f"predictions-{protocol}", {
            "protocol": table.protocol, "labels_per_class": budget_name(None), **weights,
            "classes": most.tolist(),
        })
    return paths


def _save_retrieval(
    found: Retrieval, run: Run, device: torch.device, trained: dict[str, int | None], foreign: bool
) -> Path:
    result = found.to_result(run.name, seed=run.recipe.seed, **provenance(device))
    name = f"retrieval-{_place(found.dataset, found.data_hash, foreign)}-{METRIC}"
    return run.folder.save_result(name, {**result, "overrides": run.overrides(), **trained})


def _place(dataset: str, data_hash: str, foreign: bool) -> str:
    """Of a data set in a file's name; what is not the run's own may be called like it, and is told by its hash."""
    return _plain(dataset) + (f"-{data_hash[:6]}" if foreign else "")


def _plain(text: str) -> str:
    return "".join(c for c in text.lower().replace("%", "percent").replace(".", "_") if c.isalnum() or c == "_")
