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
from contrast3d.downstream.finetune import Voting
from contrast3d.downstream.part_table import PartTable
from contrast3d.downstream.probes import Prediction
from contrast3d.downstream.registration import Registration
from contrast3d.downstream.released_svm import svm_released
from contrast3d.downstream.report_probe import report_probe
from contrast3d.downstream.results import provenance
from contrast3d.downstream.retrieval import METRIC, Retrieval, retrieval
from contrast3d.downstream.robustness import robustness
from contrast3d.downstream.segmentation_table import SegmentationTable
from contrast3d.downstream.splits import labelled, labelled_splits
from contrast3d.downstream.table import MAJORITY, UNTRAINED, Budget, Table, budget_name
from contrast3d.downstream.tuned_encoders import read_as
from contrast3d.downstream.tuning import Mode
from contrast3d.engine.distributed import pick_device
from contrast3d.errors import ConfigError
from contrast3d.recipes import datasets
from contrast3d.recipes.evaluate_flags import (
    DRAWS,
    MIN_OVERLAP,
    OF_SCENES,
    SHOTS,
    TRIALS,
    TUNED_LABELS,
    WAYS,
    check_kind,
    check_known,
    check_ranges,
    labels_of,
)
from contrast3d.recipes.evaluate_scenes import evaluate_registration, evaluate_segmentation
from contrast3d.recipes.evaluate_tuned import FEW, TunedOptions, splits_for, tuned, tuned_on_trials
from contrast3d.recipes.parts import evaluate_parts
from contrast3d.recipes.runs import Run
from contrast3d.recipes.shape_recipe import ShapeRecipe
from contrast3d.recipes.table import PROTOCOLS, check_protocol
from contrast3d.recipes.zero_shot import evaluate_zero_shot


def evaluate(
    protocol: str, run: Run, *, data_root: Path = Path("data"), labels_per_class: Sequence[Budget] | None = None,
    draws: int = DRAWS, seed: int = 0, supervised_seconds: float = 0.0, supervised_draws: int = 3,
    ways: Sequence[int] = WAYS, shots: Sequence[int] = SHOTS, trials: int = TRIALS, epochs: int = 0,
    dataset: str | None = None, up: Literal["z", "y", "x"] = "z", scenes: Sequence[str] = (), consecutive: bool = False,
    min_overlap: float = MIN_OVERLAP, pairs: Literal["overlap", "gt"] = "overlap", steps: int = 0,
    published: bool = False, mode: Mode = "full", voting: Voting = "none", augmentation: str = "",
    readout: Sequence[str] = (), device: str = "auto", on_progress: Callable[[str], None] | None = None,
) -> Table | Retrieval | Registration | SegmentationTable | PartTable:
    """Run one of table.PROTOCOLS on the run's encoder and save one result per table cell.

    labels_per_class: columns of the table; None in it is all labels, "10%" a share of each class. Default as
        evaluate_flags.LABELS_PER_CLASS and TUNED_LABELS have it.
    draws: of the labels (of the corruptions); every contestant sees the same ones.
    supervised_seconds: also train the same architecture on the labels alone for so long, with 10 labels per class
        and with all of them, on supervised_draws of the draws; 0 does not.
    ways, shots, trials: of few-shot and few-shot-finetune (see downstream/few_shot.py).
    dataset: other than the recipe's own: a name of the catalogue, or your own folder, whose sub-folders are the
        classes, or file. up: the axis that points up in yours.
    epochs, mode, augmentation, published: of fine-tuning (see downstream/tuning.py); voting: of finetune. 0 epochs
        takes its own, "" the recipe's augmentation. What finetune has finished at Ctrl-C is saved.
    readout: what probes, robustness and retrieval read of a patch transformer; () as the recipe has it.
    scenes, consecutive, min_overlap, pairs: of registration, steps, published: of segmentation; see
        recipes/evaluate_scenes.py.
    """
    check_protocol(protocol)
    check_kind(protocol, run)
    check_ranges(labels_per_class, draws, seed, supervised_seconds, epochs, steps)
    check_known(protocol, {
        "labels": (labels_per_class, None), "draws": (draws, DRAWS), "ways": (tuple(ways), WAYS),
        "shots": (tuple(shots), SHOTS), "trials": (trials, TRIALS), "epochs": (epochs, 0),
        "supervised-seconds": (supervised_seconds, 0.0), "scenes": (tuple(scenes), ()), "steps": (steps, 0),
        "published": (published, False), "mode": (mode, "full"), "voting": (voting, "none"),
        "augmentation": (augmentation, ""), "readout": (tuple(readout), ()), "consecutive": (consecutive, False),
        "min-overlap": (min_overlap, MIN_OVERLAP), "pairs": (pairs, "overlap"),
    })
    if protocol in OF_SCENES:
        if up != "z":
            raise ConfigError(f"{protocol} knows no --up: leave it out, scenes have z up")
        same = {"data_root": data_root, "dataset": dataset, "draws": draws, "seed": seed, "device": device,
                "on_progress": on_progress}
        if protocol == "registration":
            return evaluate_registration(
                run, scenes=scenes, consecutive=consecutive, min_overlap=min_overlap, pairs=pairs, **same)
        return evaluate_segmentation(run, labels=labels_per_class, steps=steps, published=published, **same)
    if protocol == "linear-report" and tuple(labels_per_class or (None,)) != (None,):
        raise ConfigError("linear-report knows no few labels, as the report did not: leave --labels out, or use linear")
    if protocol == "part-segmentation":
        if up != "z":
            raise ConfigError(f"{protocol} knows no --up: leave it out, the sets with parts have z up")
        return evaluate_parts(
            run, data_root=data_root, dataset=dataset, labels=labels_per_class, draws=draws, seed=seed, epochs=epochs,
            published=published, device=device, on_progress=on_progress,
        )
    labels = labels_of(protocol, labels_per_class, published)
    recipe, target = _recipe_on(run.recipe, dataset, up), pick_device(device)
    trained = run.trained()  # before the weights: should the run go on meanwhile, the results count as stale
    if protocol == "zero-shot":
        test = labelled(_unfitted(run, recipe, dataset, data_root))
        place = _place(test.title.removesuffix(" test"), test.hash, recipe is not run.recipe)
        return evaluate_zero_shot(run, test, place, data_root=data_root, draws=draws, seed=seed, device=device,
                                  on_progress=on_progress)
    encoder = run.reader().to(target)
    shared = {"name": run.title, "seed": seed, "make_untrained": run.make_reader, "on_progress": on_progress}
    if readout:
        encoder = read_as(encoder, readout)
        shared["make_untrained"] = lambda s: read_as(run.make_reader(s), readout)
    if protocol == "retrieval":
        found = retrieval(encoder, _unfitted(run, recipe, dataset, data_root), draws=draws, **shared)
        found.protocol += _of(readout)
        _save_retrieval(found, readout, run, target, trained, foreign=recipe is not run.recipe)
        return found
    data = splits_for(protocol, recipe, data_root, published)
    options = TunedOptions(mode, epochs, augmentation, published)
    keep = partial(save, protocol=_called(options.called(protocol), readout), run=run, device=target, trained=trained,
                   foreign=recipe is not run.recipe)
    if protocol == "linear-report":
        table = _report_table(run, encoder, data, draws, seed)
    elif protocol == "few-shot":
        table = few_shot(encoder, data, ways=ways, shots=shots, trials=trials, **shared)
    elif protocol == "robustness":
        table = robustness(encoder, data, draws=draws, **shared)
    elif protocol == "svm-released":
        table = svm_released(encoder, data, draws=draws, **shared)
    elif protocol in TUNED_LABELS:
        table = tuned(
            protocol, encoder, data, recipe, keep, options, labels=labels, draws=draws, voting=voting, **shared)
    elif protocol == FEW:
        table = tuned_on_trials(encoder, data, recipe, options, ways=ways, shots=shots, trials=trials, **shared)
    else:
        supervised = None
        if supervised_seconds:
            supervised = supervised_baseline(
                recipe, supervised_seconds, target, min(draws, supervised_draws), run.make_reader)
        table = label_efficiency(
            protocol, encoder, data, labels_per_class=labels, draws=draws, supervised=supervised, **shared,
        )
    table.protocol += _of(readout)
    keep(table)
    return table


def _of(readout: Sequence[str]) -> str:
    """What results say was read, where it is not the recipe's own."""
    return f", read from {', '.join(readout)}" if readout else ""


def _called(protocol: str, readout: Sequence[str]) -> str:
    """How files call the results; what was read is told where it is not the recipe's own."""
    return "-".join([protocol, *(_plain(part.replace("+", "_").replace("-", "_")) for part in readout)])


def _recipe_on(recipe: ShapeRecipe, dataset: str | None, up: Literal["z", "y", "x"]) -> ShapeRecipe:
    """The recipe with another data set to be evaluated on, whole and with all of its classes; itself on its own."""
    if up != "z" and not (dataset and datasets.is_yours(dataset)):
        raise ConfigError(f"--up {up} belongs to a --dataset of your own: leave it out, all others know theirs")
    if dataset is None or (_same(dataset, recipe.dataset) and up in ("z", recipe.up)):
        return recipe
    labels_from = "folders" if datasets.is_folder(dataset) else "none"
    return dataclasses.replace(recipe, dataset=dataset, up=up, labels_from=labels_from, categories=(), holdout=0)


def _unseen(recipe: ShapeRecipe, dataset: str | None) -> bool:
    """Whether the data set comes in one piece and the run did not train on it."""
    seen = (recipe.dataset, *recipe.extra_datasets)
    return dataset is not None and datasets.is_whole(dataset) and not any(_same(dataset, other) for other in seen)


def _unfitted(run: Run, recipe: ShapeRecipe, dataset: str | None, data_root: Path) -> ShapeSet:
    """The shapes to test what is not fitted on: the test split, or all where the run has seen none."""
    return recipe.shapes("all" if _unseen(run.recipe, dataset) else "test", data_root)


def _same(one: str, other: str) -> bool:
    return one == other or (
        datasets.is_yours(one) and datasets.is_yours(other) and Path(one).resolve() == Path(other).resolve())


def supervised_baseline(
    recipe, seconds: float, device: torch.device, draws: int, make_reader: Callable[[int], nn.Module] | None = None
) -> Supervised:
    """The recipe's encoder trained on the labels alone, under the recipe's own augmentation, for so many seconds."""
    transform = preset(recipe.augmentation, recipe.num_points)

    def fit(train: ShapeSet, test: ShapeSet, seed: int) -> Prediction:
        make = make_reader or recipe.make_reader
        return fit_classifier(make, train, test, transform, seconds=seconds, seed=seed, device=device)

    return Supervised(fit, draws=draws)


def _report_table(run: Run, encoder, data, draws: int, seed: int) -> Table:
    train, test = labelled_splits(data)
    seeds = tuple(range(seed, seed + draws))
    table = Table("linear-report probe", train.title.removesuffix(" train"), run.title, (None,), seeds,
                  f"{train.hash}-{test.hash}", test.labels, train.classes)
    table.add(MAJORITY, None, baselines.majority(train.labels, test.labels))
    for s in seeds:
        table.add(UNTRAINED, None, report_probe(run.make_reader(s), train, test, seed=s))
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
    shown = None in table.budgets and protocol in PROTOCOLS and protocol != "finetune-best-on-test" and not foreign
    most = table.predictions if shown else None
    if most is not None:
        run.folder.save_result(f"predictions-{protocol}", {
            "protocol": table.protocol, "labels_per_class": budget_name(None), **weights,
            "classes": most.tolist(),
        })
    return paths


def _save_retrieval(
    found: Retrieval, readout: Sequence[str], run: Run, device: torch.device, trained: dict[str, int | None],
    foreign: bool,
) -> Path:
    result = found.to_result(run.name, seed=run.recipe.seed, **provenance(device))
    name = f"{_called('retrieval', readout)}-{_place(found.dataset, found.data_hash, foreign)}-{METRIC}"
    return run.folder.save_result(name, {**result, "overrides": run.overrides(), **trained})


def _place(dataset: str, data_hash: str, foreign: bool) -> str:
    """Of a data set in a file's name; what is not the run's own may be called like it, and is told by its hash."""
    return _plain(dataset) + (f"-{data_hash[:6]}" if foreign else "")


def _plain(text: str) -> str:
    return "".join(c for c in text.lower().replace("%", "percent").replace(".", "_") if c.isalnum() or c == "_")
