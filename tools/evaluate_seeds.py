"""One table for runs of one recipe that differ by seed alone: mean and spread over pre-training seeds.

    contrast3d evaluate linear runs/s0
    python tools/evaluate_seeds.py linear runs/s0 runs/s1 runs/s2 --data-root data

The first run has been evaluated before; its baselines, which do not depend on the pre-training, stand for all.
Writes results/RECIPE-PROTOCOL-LABELS.json, one per number of labels, and prints the table in markdown.

    python tools/evaluate_seeds.py retrieval runs/s0 runs/s1 runs/s2 --dataset SweetHome3D

needs no evaluation before, and writes results/RECIPE-retrieval-DATASET.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from contrast3d.downstream.evaluate import label_efficiency
from contrast3d.downstream.results import provenance, write_json
from contrast3d.downstream.table import Cell, budget_name, percent
from contrast3d.errors import ConfigError
from contrast3d.recipes.evaluate import evaluate
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.reporting import column_of, column_order
from contrast3d.recipes.runs import Run, load_recipe_run


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    Machine(threads=options.threads).set_threads()
    runs = [load_recipe_run(path) for path in options.runs]
    _check(runs)
    if options.protocol == "retrieval":
        print(_retrieval(runs, options))
        return 0
    if options.dataset:
        raise ConfigError("--dataset goes with retrieval")
    cells = {c["labels_per_class"]: c for c in _cells(runs[0], options.protocol)}
    values = {labels: [cell["mean"]] for labels, cell in cells.items()}
    for run in runs[1:]:
        for labels, mean in _means(run, options, cells).items():
            values[labels].append(mean)
    for labels, cell in cells.items():
        ours = Cell(tuple(values[labels]))
        result = cell | {
            "mean": ours.mean, "std": ours.std,
            "values": values[labels], "seeds": [run.recipe.seed for run in runs], "label_draws": cell["seeds"],
            **provenance(),
        }
        for key in ("pretraining_seed", "chosen"):
            result.pop(key, None)
        write_json(Path("results") / f"{runs[0].name}-{options.protocol}-{labels}.json", result)
        cells[labels] = result
    print(_markdown(cells))
    return 0


def _retrieval(runs: list[Run], options: argparse.Namespace) -> str:
    """Mean average precision of all runs, one file, and the table in markdown."""
    found = [evaluate("retrieval", run, data_root=options.data_root, dataset=options.dataset) for run in runs]
    values = [f.cell(f.ours).mean for f in found]
    ours, first = Cell(tuple(values)), found[0]
    result = first.to_result(runs[0].name, **provenance()) | {
        "mean": ours.mean, "std": ours.std, "values": values, "seeds": [run.recipe.seed for run in runs],
        "overrides": runs[0].overrides(),
    }
    del result["pretraining_seed"], result["chosen"]
    name = "".join(c for c in first.dataset.lower() if c.isalnum())
    write_json(Path("results") / f"{runs[0].name}-retrieval-{name}.json", result)
    lines = [f"| {first.dataset}, {first.shapes:,} shapes | mAP in % |", "|---|---|"]
    lines += [f"| {name} | {_text(cell)} |" for name, cell in result["baselines"].items()]
    return "\n".join([*lines, f"| {result['recipe']}, {len(runs)} seeds | {_text(result)} |"])


def _check(runs: list[Run]) -> None:
    recipes = {dataclasses.replace(run.recipe, seed=0) for run in runs}
    if len(runs) < 2 or len(recipes) > 1 or len({run.recipe.seed for run in runs}) < len(runs):
        raise ConfigError("expected two or more runs of one recipe with the same fields and different seeds")


def _cells(run: Run, protocol: str) -> list[dict]:
    found = [r for r in run.folder.results().values() if r.get("metric") == "accuracy"
             and r["protocol"] == f"{protocol} probe"]
    if not found:
        raise ConfigError(f"{run.path} has no results; run contrast3d evaluate {protocol} {run.path} first")
    return sorted(found, key=lambda c: column_order(column_of(c)))


def _means(run: Run, options: argparse.Namespace, cells: dict[int | str, dict]) -> dict[int | str, float]:
    """By number of labels, those of the first run's `cells`: our accuracy, mean over the same label draws."""
    seeds = max((cell["seeds"] for cell in cells.values()), key=len)
    data = run.recipe.splits(options.data_root)
    table = label_efficiency(
        options.protocol, run.reader(), data, name=run.title, draws=len(seeds), seed=seeds[0], make_untrained=False,
        labels_per_class=[None if labels == "all" else labels for labels in cells],
        on_progress=lambda what: print(f"... {run.title}: {what}", file=sys.stderr),
    )
    names = {b: budget_name(b) if b is None else b for b in table.budgets}
    return {names[b]: table.cell(table.ours, b).mean for b in table.budgets}


def _markdown(cells: dict[int | str, dict]) -> str:
    first = next(iter(cells.values()))
    lines = [f"| labels per class | {' | '.join(map(str, cells))} |", f"|---|{'---|' * len(cells)}"]
    for name in first["baselines"]:
        lines.append(f"| {name} | {' | '.join(_text(c['baselines'][name]) for c in cells.values())} |")
    lines.append(f"| {first['recipe']}, {len(first['seeds'])} seeds | {' | '.join(map(_text, cells.values()))} |")
    return "\n".join(lines)


def _text(cell: dict) -> str:
    return percent(cell["mean"], cell["std"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("protocol", help="linear, svm, knn or retrieval")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; the first one evaluated")
    parser.add_argument("--dataset", help="of retrieval: other than the recipe's own")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--threads", type=int, default=0, help="0 takes all")
    return parser


if __name__ == "__main__":
    sys.exit(main())
