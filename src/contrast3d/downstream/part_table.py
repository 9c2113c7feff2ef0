"""`PartTable`: how well each contestant finds parts with each number of labels; printed, or written as results."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Int
from torch import Tensor

from contrast3d.data.parts import PartScheme
from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.table import LABELS, SCRATCH, Budget, Cell, budget_name, percent
from contrast3d.errors import ConfigError
from contrast3d.metrics.part_iou import instance_and_class_iou, part_ious, pooled_part_iou
from contrast3d.metrics.segmentation import IGNORE

MAJORITY_PART = "majority part of each class"
METRICS = {
    "instance_miou": "instance mIoU", "class_miou": "class mIoU", "part_miou": "mIoU of parts over all points",
    "accuracy": "accuracy of points",
}


@dataclass(frozen=True)
class PartScores:
    """Of one training: METRICS as fractions, and the IoU of each scored part over all points (None: never seen)."""

    instance_miou: float
    class_miou: float
    part_miou: float
    accuracy: float
    parts: dict[str, float | None]

    @classmethod
    def of(cls, predicted: Int[Tensor, "s n"], test: ShapeSet, scheme: PartScheme) -> PartScores:
        """Scores of the predicted parts of the test shapes' points."""
        labels = scheme.known(test.point_labels, IGNORE)
        ious = part_ious(predicted, labels, test.labels, scheme.allowed)
        pooled, each = pooled_part_iou(predicted, labels, len(scheme), scheme.scored)
        named = {scheme.names[i]: each[i].item() for i in scheme.scored}
        return cls(
            *instance_and_class_iou(ious, test.labels), pooled,
            (predicted == labels)[labels != IGNORE].double().mean().item(),
            {name: None if iou != iou else iou for name, iou in named.items()},
        )


@dataclass
class PartTable:
    """Rows are contestants, columns numbers of labelled shapes per class (None: all).

    scores: by (contestant, column), one per draw; draws are paired. shapes: labelled shapes in each column.
    """

    protocol: str
    dataset: str
    ours: str
    budgets: tuple[Budget, ...]
    seeds: tuple[int, ...]
    data_hash: str
    shapes: dict[Budget, int] = field(default_factory=dict)
    wall_s: float = 0.0
    scores: dict[tuple[str, Budget], list[PartScores]] = field(default_factory=dict)

    def __post_init__(self):
        if self.ours in (MAJORITY_PART, SCRATCH) or not self.ours:
            raise ConfigError(f"the encoder is called {self.ours!r}; expected a name that no baseline has. Try: rename "
                              "the run folder")

    def add(self, contestant: str, budget: Budget, scores: PartScores) -> None:
        self.scores.setdefault((contestant, budget), []).append(scores)

    @property
    def contestants(self) -> list[str]:
        """In the order in which they were added."""
        return list(dict.fromkeys(name for name, _ in self.scores))

    def cell(self, contestant: str, budget: Budget, metric: str = "instance_miou") -> Cell | None:
        """None where nothing was run."""
        found = self.scores.get((contestant, budget))
        return found and Cell(tuple(getattr(scores, metric) for scores in found))

    def gain(self, budget: Budget, metric: str = "instance_miou") -> Cell | None:
        """Ours over the network from scratch, draw by draw."""
        ours, theirs = self.cell(self.ours, budget, metric), self.cell(SCRATCH, budget, metric)
        return Cell(tuple(a - b for a, b in zip(ours.values, theirs.values))) if ours and theirs else None

    def render(self, metric: str = "instance_miou"):
        """A rich table in per cent."""
        from rich.table import Table

        table = Table(title=f"{self.dataset}: {self.protocol}, {METRICS[metric]} in %", title_justify="left")
        table.add_column(LABELS)
        for budget in self.budgets:
            table.add_column(f"{budget_name(budget)} ({self.shapes.get(budget, 0):,} shapes)", justify="right")
        for contestant in self.contestants:
            cells = [self.cell(contestant, budget, metric) for budget in self.budgets]
            row = [percent(c.mean, c.std) if c else "–" for c in cells]
            table.add_row(contestant, *row, style="cyan" if contestant == self.ours else None)
        gains = [self.gain(budget, metric) for budget in self.budgets]
        if any(gains):
            table.add_section()
            table.add_row(f"{self.ours} over {SCRATCH}", *(percent(g.mean, g.std, "+") if g else "–" for g in gains),
                          style="dim")
        return table

    def to_results(
        self, recipe: str, *, commit: str, command: str, device: str, seed: int = 0, paper: float | None = None
    ) -> list[dict]:
        """One result per number of labels and metric, ready for results/*.json; see `table.Table.to_results`.

        paper: the published instance mIoU with all labels.
        """
        results = []
        for budget, metric in ((b, m) for b in self.budgets for m in METRICS):
            ours = self.cell(self.ours, budget, metric)
            if ours is None:
                continue
            others = {n: self.cell(n, budget, metric) for n in self.contestants if n != self.ours}
            results.append({
                "recipe": recipe, "protocol": self.protocol, "dataset": self.dataset, "metric": metric,
                "labels_per_class": budget_name(budget), "mean": ours.mean, "std": ours.std,
                "values": list(ours.values), "seeds": list(self.seeds[: len(ours.values)]), "pretraining_seed": seed,
                "baselines": {n: {"mean": c.mean, "std": c.std} for n, c in others.items() if c},
                "parts": [s.parts for s in self.scores[self.ours, budget]] if metric == "part_miou" else None,
                "paper": paper if (metric, budget) == ("instance_miou", None) else None, "chosen": [],
                "commit": commit, "data_hash": self.data_hash, "command": command, "wall_s": round(self.wall_s, 1),
                "device": device,
            })
        return results
