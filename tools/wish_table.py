"""The wish of the SimCLR report answered: large batches, queues, memory banks and the rest at equal time.

    python tools/wish_table.py --data-root data --out runs/wish

Each variant trains once per seed for the same processor time: its pace is measured first, and its epochs are what
fits. Runs are resumed, finished ones reused; `--only` takes part of the work to another process. Writes
results/wish/VARIANT-LABELS.json and prints the table of docs/methods/relatives.md. The variant to prefer is chosen by
cross-validation within the training set, which is a column of the table, and not by the test columns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path

from torch import nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.features import extract
from contrast3d.downstream.probes import probe_few
from contrast3d.downstream.results import provenance, slug, write_json
from contrast3d.downstream.splits import few_labels
from contrast3d.downstream.table import Cell, percent
from contrast3d.engine import distributed
from contrast3d.engine.loop import train
from contrast3d.recipes.contrast import ContrastRecipe
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.pretrain import pretrain
from contrast3d.recipes.runs import overrides_of
from contrast3d.recipes.table import find

NAME = "simclr-ldraw40-pool"
VARIANTS: dict[str, dict] = {  # learning rates and momenta were set on moulds held out of the training set
    "SimCLR, batch 32": {"batch_size": 32, "lr": 1e-3},
    "SimCLR, batch 128": {},
    "SimCLR, batch 1,024 cached": {"batch_size": 1024, "micro_batch": 128, "lr": 4e-3},
    "MoCo": {"method": "moco", "momentum": 0.95, "queue_size": 2048},
    "memory bank": {"method": "instance-discrimination"},
    "BYOL": {"method": "byol", "momentum": 0.98},
    "Barlow Twins": {"method": "barlow-twins"},
    "VICReg": {"method": "vicreg"},
}
UNTRAINED = "untrained"
LABELS, DRAWS = (10, None), 3
PACE_SECONDS, PACE_ROUNDS = 10.0, 3


def recipe_of(variant: str, seed: int, epochs: int = 1) -> ContrastRecipe:
    base = dataclasses.replace(
        find(NAME), epochs=epochs, warmup_epochs=min(1.0, epochs / 10), probe_every=epochs, seed=seed,
    )
    return dataclasses.replace(base, **VARIANTS.get(variant, {}))


def epochs_within(options: argparse.Namespace) -> dict[str, int]:
    """Of each variant, the epochs that fit into `--minutes`; its pace is remembered, so that resuming keeps them."""
    path = options.out / "pace.json"
    if not path.exists():
        shapes = recipe_of(NAME, 0).pretraining_shapes(options.data_root)
        rounds = [{v: _seconds_per_epoch(recipe_of(v, 0), shapes) for v in VARIANTS}
                  for _ in range(PACE_ROUNDS)]
        write_json(path, {v: statistics.median(r[v] for r in rounds) for v in VARIANTS})
    paces = json.loads(path.read_text())
    return {v: max(1, round(60 * options.minutes / paces[v])) for v in VARIANTS}


def _seconds_per_epoch(recipe: ContrastRecipe, shapes: ShapeSet) -> float:
    """Processor seconds of all threads, so that a busy machine does not change the budget."""
    loader = recipe.make_loader(shapes, distributed.setup("cpu"))
    settings = dataclasses.replace(recipe.training(), max_seconds=PACE_SECONDS)
    start = time.process_time()
    done = train(recipe.make_method(len(shapes)), loader, settings, quiet=True)
    return (time.process_time() - start) / done.steps * len(loader)


def trained(variant: str, options: argparse.Namespace, seed: int, epochs: int) -> nn.Module:
    machine = Machine(data_root=options.data_root, out=options.out / f"{slug(variant)}-{seed}",
                      threads=options.threads)
    run, outcome = pretrain(NAME, recipe_of(variant, seed, epochs), machine)
    if outcome.status != "finished":
        sys.exit(outcome.exit_code)
    return run.reader()


def measured(encoder: nn.Module, data: tuple[ShapeSet, ShapeSet], path: Path) -> dict[str, float]:
    """Linear probes: cross-validated within the training set, and test accuracy by labels; kept beside the run."""
    if not path.exists():
        features, labels = tuple(extract(encoder, shapes) for shapes in data), data[0].labels

        draws = {n: range(DRAWS if n else 1) for n in LABELS}
        few = {n: [probe_few("linear", features, *data, few_labels(labels, n, d), d) for d in draws[n]] for n in LABELS}
        means = {str(n or "all"): statistics.mean(p.accuracy for p in few[n]) for n in LABELS}
        write_json(path, {"cross-validated": few[None][0].validation, **means})
    return json.loads(path.read_text())


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    Machine(threads=options.threads).set_threads()
    started, epochs = time.perf_counter(), epochs_within(options)
    data = recipe_of(NAME, 0).splits(options.data_root)
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in options.seeds:
        for name in options.only or (UNTRAINED, *VARIANTS):
            make = recipe_of(name, seed).make_reader if name == UNTRAINED else partial(
                trained, name, options, seed, epochs[name])
            read = measured(make().eval(), data, options.out / f"{slug(name)}-{seed}.json")
            rows.setdefault(name, []).append(read)
            print(f"{name:28} seed {seed}: " + ", ".join(f"{k} {v:.1%}" for k, v in read.items()), flush=True)
    if not options.only:
        _save(rows, options, epochs, data, time.perf_counter() - started)
        print(_markdown(rows, epochs))
    return 0


def _save(
    rows: dict[str, list[dict[str, float]]], options: argparse.Namespace, epochs: dict[str, int],
    data: tuple[ShapeSet, ShapeSet], wall_s: float,
) -> None:
    for name, reads in rows.items():
        if name == UNTRAINED:
            continue
        own = recipe_of(name, find(NAME).seed, epochs[name])
        for labels in (str(n or "all") for n in LABELS):
            ours, fresh = (Cell(tuple(r[labels] for r in rows[n])) for n in (name, UNTRAINED))
            write_json(Path("results/wish") / f"{slug(name)}-{labels}.json", {
                "recipe": NAME, "overrides": overrides_of(NAME, own),
                "protocol": "linear probe", "dataset": "LDraw-40", "metric": "accuracy", "labels_per_class": labels,
                "mean": ours.mean, "std": ours.std, "values": list(ours.values), "seeds": options.seeds, "paper": None,
                "cross_validated": [r["cross-validated"] for r in reads], "data_hash": "-".join(s.hash for s in data),
                "baselines": {"untrained encoder": {"mean": fresh.mean, "std": fresh.std}},
                "minutes": options.minutes, "wall_s": round(wall_s, 1), **provenance(),
            })


def _markdown(rows: dict[str, list[dict[str, float]]], epochs: dict[str, int]) -> str:
    columns = list(next(iter(rows.values()))[0])
    titles = [c if c == "cross-validated" else "all labels" if c == "all" else f"{c} labels" for c in columns]
    heads = ["", "epochs", *titles, f"over untrained, {titles[1]}"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, reads in rows.items():
        cells = [percent(c.mean, c.std) for c in (Cell(tuple(r[k] for r in reads)) for k in columns)]
        gain = Cell(tuple(r[columns[1]] - u[columns[1]] for r, u in zip(reads, rows[UNTRAINED])))
        more = "" if name == UNTRAINED else f"{100 * gain.mean:+.1f} ± {100 * gain.std:.1f}"
        lines.append("| " + " | ".join([name, str(epochs.get(name, 0)), *cells, more]) + " |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder of ldraw-pool.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/wish"), help="run folders go there")
    parser.add_argument("--minutes", type=float, default=4.0, help="of one processor, per run (default 4)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=(UNTRAINED, *VARIANTS), help="train and read these, no table")
    parser.add_argument("--threads", type=int, default=1, help="per run; more shorten the wait, not the budget")
    return parser


if __name__ == "__main__":
    sys.exit(main())
