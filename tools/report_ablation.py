"""Which defect of the SimCLR report costs how much: its recipe on LDraw-40, mended but for one, at equal budget.

    python tools/report_ablation.py --out runs/report-ablation

Every variant trains once per seed and is read by every probe. Runs are resumed, finished ones reused. Writes
results/report-ablation/VARIANT-PROBE.json and prints the table of docs/methods/simclr.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections import ChainMap
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream import baselines
from contrast3d.downstream.features import extract
from contrast3d.downstream.probes import Prediction, probe
from contrast3d.downstream.report_probe import report_probe
from contrast3d.downstream.results import provenance, slug, write_json
from contrast3d.downstream.table import Cell, percent
from contrast3d.recipes.contrast import ContrastRecipe
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.pretrain import pretrain
from contrast3d.recipes.runs import overrides_of
from contrast3d.recipes.table import find

NAME = "simclr-shapenetpart-corrected"
DEFECTS = {  # what each brings back into the corrected recipe
    "identical views": {"identical_views": True},
    "one draw per batch": {"shared_draws": True},
    "projection 10 wide": {"projection_dim": 10},
}
VARIANTS: dict[str, dict] = {"corrected": {}, **DEFECTS, "all three": dict(ChainMap(*DEFECTS.values()))}
ENCODINGS = 5  # of the training set, reused in turn by the training-mode probes; the notebook made 50
Probe = Callable[[nn.Module, ShapeSet, ShapeSet, int], Prediction]


def linear(encoder: nn.Module, train: ShapeSet, test: ShapeSet, seed: int) -> Prediction:
    """The project's own protocol: converged, C by cross-validation, features in evaluation mode."""
    train_x, test_x = extract(encoder, train), extract(encoder, test)
    return probe("linear", train_x, train.labels, test_x, test.labels, train.groups, seed)


def as_reported(encoder: nn.Module, train: ShapeSet, test: ShapeSet, seed: int, **switches: bool) -> Prediction:
    return report_probe(encoder, train, test, seed=seed, encodings=ENCODINGS, **switches)


PROBES: dict[str, Probe] = {
    "linear": linear,
    "SGD layer": partial(as_reported, sigmoid=False, train_mode=False),
    "+ sigmoid": partial(as_reported, sigmoid=True, train_mode=False),
    "+ train mode": partial(as_reported, sigmoid=False, train_mode=True),
    "+ both": partial(as_reported, sigmoid=True, train_mode=True),
}


def recipe_of(variant: str, options: argparse.Namespace, seed: int) -> ContrastRecipe:
    base = dataclasses.replace(
        find(NAME), dataset="LDraw40", categories=(), up="z", shape_points=options.points, num_points=options.points,
        epochs=options.epochs, probe_every=options.epochs, seed=seed,
    )
    return dataclasses.replace(base, **VARIANTS[variant])


def trained(variant: str, options: argparse.Namespace, seed: int) -> nn.Module:
    machine = Machine(out=options.out / f"{slug(variant)}-{seed}", threads=options.threads)
    run, outcome = pretrain(NAME, recipe_of(variant, options, seed), machine)
    if outcome.status != "finished":
        sys.exit(outcome.exit_code)
    return run.reader()


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    corrected = recipe_of("corrected", options, 0)
    train, test = corrected.splits(Path("data"))
    majority = baselines.majority(train.labels, test.labels).accuracy
    started, rows = time.perf_counter(), {}
    for name in ("untrained", *VARIANTS):
        readers = [trained(name, options, s) if name in VARIANTS else corrected.make_reader(s) for s in options.seeds]
        for kind, read in PROBES.items():
            cell = Cell(tuple(read(r.eval(), train, test, s).accuracy for r, s in zip(readers, options.seeds)))
            rows.setdefault(name, {})[kind] = cell
            print(f"{name:28} {kind:14} {percent(cell.mean, cell.std)}", flush=True)
            if name in VARIANTS:
                write_json(Path("results/report-ablation") / f"{slug(name)}-{slug(kind)}.json", {
                    "recipe": NAME, "overrides": overrides_of(NAME, recipe_of(name, options, find(NAME).seed)),
                    "protocol": f"{kind} probe",
                    "dataset": "LDraw-40", "metric": "accuracy", "mean": cell.mean, "std": cell.std,
                    "values": list(cell.values), "seeds": options.seeds, "paper": None,
                    "data_hash": f"{train.hash}-{test.hash}",
                    "baselines": {
                        "majority class": {"mean": majority, "std": None},
                        "untrained encoder": {"mean": rows["untrained"][kind].mean,
                                              "std": rows["untrained"][kind].std},
                    },
                    "wall_s": round(time.perf_counter() - started, 1), **provenance(),
                })
    print(_markdown(rows))
    return 0


def _markdown(rows: dict[str, dict[str, Cell]]) -> str:
    lines = [f"| training | {' | '.join(PROBES)} |", f"|---|{'---|' * len(PROBES)}"]
    text = lambda cell: percent(cell.mean, cell.std)  # noqa: E731
    lines += [f"| {name} | {' | '.join(text(cells[kind]) for kind in PROBES)} |" for name, cells in rows.items()]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/report-ablation"), help="run folders go there")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8, help="of every variant (default 8)")
    parser.add_argument("--points", type=int, default=256, help="per shape and view (default 256)")
    parser.add_argument("--threads", type=int, default=0, help="0 takes all")
    return parser


if __name__ == "__main__":
    sys.exit(main())
