"""The table of masked pre-training: frozen features of runs beside what they have to beat.

    python tools/masked_table.py ldraw40 "Point-MAE=runs/mae-s0,runs/mae-s1" "ReCon=runs/recon-s0@queries/max"

Each row is a name and runs of one recipe that differ by seed; @ says what is read of a patch transformer, otherwise
what the recipe reads. The linear SVM with all labels and n-way k-shot trials are run on each; mean and spread are over
runs (of baselines: over seeds of their weights). Untrained are the networks of the first row. What is measured is kept
in the runs and not measured again. Writes results/masked-DATASET-PROTOCOL.json and prints the table in markdown.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream import baselines
from contrast3d.downstream.features import extract
from contrast3d.downstream.few_shot import FRESH_ENCODERS, conditions_of, episode
from contrast3d.downstream.probes import Prediction, probe, probe_all, probe_few
from contrast3d.downstream.results import provenance, write_json
from contrast3d.downstream.splits import few_labels
from contrast3d.downstream.table import MAJORITY, SUPERVISED, TRAINING_FREE, UNTRAINED, percent
from contrast3d.downstream.tuned_encoders import read_as
from contrast3d.errors import ConfigError
from contrast3d.recipes.evaluate import supervised_baseline
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.runs import Run, load_recipe_run

SVM = "svm, all labels"
EPISODES = conditions_of((5, 10), (10, 20))
TRIALS, QUERIES = 10, 20


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    Machine(threads=options.threads).set_threads()
    rows, readouts = {}, {}
    for row in options.rows:
        name, _, rest = row.partition("=")
        paths, _, readout = rest.partition("@")
        rows[name] = [_finished(p) for p in paths.split(",")]
        readouts[name] = tuple(readout.split("/")) if readout else ()
    first = next(iter(rows.values()))[0]
    train, test = first.recipe.splits(options.data_root)
    began = time.perf_counter()
    table = {MAJORITY: [_majority(train, test)]}
    keep = partial(_kept, first, train, test)
    table[TRAINING_FREE] = [keep(TRAINING_FREE, lambda: _score(baselines.training_free(train, test), train, test))]
    table[UNTRAINED] = [
        keep(f"{UNTRAINED} {seed}", partial(_frozen, partial(first.recipe.make_reader, seed), (), train, test))
        for seed in range(FRESH_ENCODERS)]
    for name, runs in rows.items():
        read = readouts[name]
        table[name] = [_kept(run, train, test, f"frozen {'-'.join(read)}",
                             partial(_frozen, run.reader, read, train, test)) for run in runs]
        _tell(name, table[name])
    if options.supervised_seconds:
        table[SUPERVISED] = _supervised(first, train, test, options.supervised_seconds)
    _save(options.dataset, table, rows, train, test, time.perf_counter() - began)
    print(_markdown(table))
    return 0


def _finished(path: str) -> Run:
    run = load_recipe_run(path)
    if not run.finished():
        raise ConfigError(f"{path} is not finished; the same pretrain command goes on")
    return run


def _frozen(
    make: Callable[[], nn.Module], readout: tuple[str, ...], train: ShapeSet, test: ShapeSet
) -> dict[str, float]:
    reader = read_as(make(), readout) if readout else make()
    return _score((extract(reader, train), extract(reader, test)), train, test)


def _kept(
    run: Run, train: ShapeSet, test: ShapeSet, what: str, measure: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """The scores that the run holds of these weights and shapes, measured and kept where it holds none."""
    name, key = what.strip().replace(" ", "-"), {**run.trained(), "data_hash": f"{train.hash}-{test.hash}"}
    found = run.folder.results().get(name, {})
    if {k: found.get(k) for k in key} != key:
        found = {**key, "scores": measure()}
        run.folder.save_result(name, found)
    return found["scores"]


def _score(features: baselines.FeaturePair, train: ShapeSet, test: ShapeSet) -> dict[str, float]:
    """Accuracy by column: the SVM on all labels, and the mean over the trials of each kind."""
    rows = few_labels(train.labels, None, 0)
    scores = {SVM: probe_few("svm", features, train, test, rows, 0).accuracy}
    for column, (ways, shots) in EPISODES.items():
        jobs = [partial(_trial, features, train, test, ways, shots, seed) for seed in range(TRIALS)]
        scores[column] = statistics.fmean(p.accuracy for p in probe_all(jobs))
    return scores


def _trial(
    features: baselines.FeaturePair, train: ShapeSet, test: ShapeSet, ways: int, shots: int, seed: int
) -> Prediction:
    support, asked = episode(train.labels, test.labels, ways, shots, QUERIES, seed)
    groups = None if train.groups is None else train.groups[support]
    return probe("linear", features[0][support], train.labels[support], features[1][asked], test.labels[asked], groups,
                 seed)


def _majority(train: ShapeSet, test: ShapeSet) -> dict[str, float]:
    chance = {column: 1 / ways for column, (ways, _) in EPISODES.items()}
    return {SVM: baselines.majority(train.labels, test.labels).accuracy, **chance}


def _supervised(run: Run, train: ShapeSet, test: ShapeSet, seconds: float) -> list[dict[str, float]]:
    """The same network on all labels for so long: no frozen feature, so no trials. Kept in the run, like the others."""
    fit = supervised_baseline(run.recipe, seconds, next(run.encoder().parameters()).device, 1).fit

    def measure(seed: int) -> dict[str, float]:
        return {SVM: fit(train, test, seed).accuracy}

    return [_kept(run, train, test, f"{SUPERVISED} {seconds:g}s {seed}", partial(measure, seed))
            for seed in range(FRESH_ENCODERS)]


def _save(
    dataset: str, table: dict[str, list[dict[str, float]]], rows: dict[str, list[Run]], train: ShapeSet,
    test: ShapeSet, seconds: float,
) -> None:
    shared = {"dataset": train.title.removesuffix(" train"), "metric": "accuracy",
              "data_hash": f"{train.hash}-{test.hash}", "wall_s": round(seconds, 1), **provenance()}
    for column in (SVM, *EPISODES):
        cells = {name: _cell([scores[column] for scores in found]) for name, found in table.items()
                 if column in found[0]}
        runs = {name: {"recipe": found[0].name, "overrides": found[0].overrides(),
                       "seeds": [run.recipe.seed for run in found], "values": cells[name]["values"],
                       "minutes": [round(run.lines()[-1]["seconds"] / 60, 1) for run in found]}
                for name, found in rows.items()}
        name = column.replace(", all labels", "").replace(" ", "-")
        write_json(Path("results") / f"masked-{dataset}-{name}.json",
                   {"protocol": column, "cells": cells, "runs": runs, **shared})


def _cell(values: list[float]) -> dict:
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None,
            "values": values}


def _markdown(table: dict[str, list[dict[str, float]]]) -> str:
    columns = (SVM, *EPISODES)
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, found in table.items():
        cells = [_cell([scores[c] for scores in found]) if c in found[0] else None for c in columns]
        texts = [percent(c["mean"], c["std"]) if c else "–" for c in cells]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _tell(name: str, found: list[dict[str, float]]) -> None:
    print(f"... {name}: {', '.join(percent(scores[SVM], None) for scores in found)} %", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", help="what the files are called after")
    parser.add_argument("rows", nargs="+", metavar="NAME=RUN,RUN...")
    parser.add_argument("--supervised-seconds", type=float, default=0.0, help="also train on the labels for so long")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--threads", type=int, default=0, help="0 takes all")
    return parser


if __name__ == "__main__":
    sys.exit(main())
