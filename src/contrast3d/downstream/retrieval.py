"""Retrieval: each test shape looks for the others of its class among the test shapes. Nothing is fitted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream import baselines
from contrast3d.downstream.descriptors import geometric
from contrast3d.downstream.features import extract
from contrast3d.downstream.splits import labelled
from contrast3d.downstream.table import TRAINING_FREE, UNTRAINED, Cell, percent
from contrast3d.errors import ConfigError
from contrast3d.metrics.retrieval import mean_average_precision

METRIC = "mean_average_precision"


@dataclass
class Retrieval:
    """What each contestant reaches: fractions, one per seed; `ours` is what the others are baselines of."""

    dataset: str
    ours: str
    data_hash: str
    shapes: int
    wall_s: float = 0.0
    protocol: str = "retrieval"
    values: dict[str, list[float]] = field(default_factory=dict)

    def cell(self, contestant: str) -> Cell:
        return Cell(tuple(self.values[contestant]))

    def render(self):
        """A rich table in per cent."""
        from rich.table import Table

        table = Table(title=f"{self.dataset}: {self.protocol} among {self.shapes:,} shapes", title_justify="left")
        table.add_column("")
        table.add_column("mAP in %", justify="right")
        for contestant in self.values:
            cell = self.cell(contestant)
            style = "bold cyan" if contestant == self.ours else None
            table.add_row(contestant, percent(cell.mean, cell.std), style=style)
        return table

    def to_result(self, recipe: str, *, commit: str, command: str, device: str, seed: int = 0) -> dict:
        """One result, ready for results/*.json; see `table.Table.to_results`."""
        ours, others = self.cell(self.ours), {n: self.cell(n) for n in self.values if n != self.ours}
        return {
            "recipe": recipe, "protocol": self.protocol, "dataset": self.dataset, "metric": METRIC,
            "labels_per_class": None, "mean": ours.mean, "std": ours.std, "values": list(ours.values),
            "seeds": [seed], "pretraining_seed": seed,
            "baselines": {n: {"mean": c.mean, "std": c.std} for n, c in others.items()}, "paper": None, "chosen": [],
            "commit": commit, "data_hash": self.data_hash, "command": command, "wall_s": round(self.wall_s, 1),
            "device": device,
        }


def retrieval(
    encoder: nn.Module, data: Callable[[str], ShapeSet] | tuple[ShapeSet, ShapeSet] | ShapeSet, *,
    name: str = "pre-trained", draws: int = 3, seed: int = 0,
    make_untrained: baselines.MakeUntrained = None, batch_size: int = 64,
    on_progress: Callable[[str], None] | None = None,
) -> Retrieval:
    """Mean average precision of the frozen encoder on the test shapes, beside the baselines.

    data: the test shapes, (train, test), or a callable such as datasets.LDraw40; the training shapes are not used.
    draws: untrained encoders, of the seeds seed, seed + 1 and so on. make_untrained: as in `label_efficiency`.
    """
    if draws < 1:
        raise ConfigError(f"draws = {draws}; expected at least 1")
    started, tell = time.perf_counter(), on_progress or (lambda message: None)
    test = labelled(data("test") if callable(data) else data[1] if isinstance(data, tuple) else data)
    found = Retrieval(test.title.removesuffix(" test"), name, test.hash, len(test))
    tell(TRAINING_FREE)
    found.values[TRAINING_FREE] = [mean_average_precision(geometric(test), test.labels)]
    if make_untrained is not False:
        fresh = baselines.untrained_maker(encoder, make_untrained)
        tell(UNTRAINED)
        found.values[UNTRAINED] = [
            mean_average_precision(extract(fresh(s), test, batch_size), test.labels)
            for s in range(seed, seed + draws)
        ]
    tell(name)
    found.values[name] = [mean_average_precision(extract(encoder, test, batch_size), test.labels)]
    found.wall_s = time.perf_counter() - started
    return found
