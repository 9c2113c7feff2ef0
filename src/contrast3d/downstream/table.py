"""`Table`: what each contestant reaches with each number of labels; printed, or written as results."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from jaxtyping import Int
from torch import Tensor

from contrast3d.downstream.probes import Prediction
from contrast3d.errors import ConfigError

MAJORITY, SUPERVISED, TRAINING_FREE, UNTRAINED = "majority class", "supervised", "training-free", "untrained encoder"
FROZEN, SCRATCH = "linear probe, frozen", "from scratch"
SCRATCH_LAST, TUNED_LAST = "from scratch, last epoch", "fine-tuned, last epoch"  # beside the best ones on test
UNTRAINED_LAST = "untrained encoder, last epoch"
VOTED = {  # by the kind of vote
    "mean": "fine-tuned, mean of 10 passes", "published": "fine-tuned, best vote of 10 passes on test",
}
BASELINES = (MAJORITY, SUPERVISED, TRAINING_FREE, UNTRAINED, FROZEN, SCRATCH, SCRATCH_LAST, TUNED_LAST, UNTRAINED_LAST,
             *VOTED.values())
COMPARED = (TRAINING_FREE, UNTRAINED, FROZEN, SCRATCH)  # what has to be beaten; tables show by how much
METRICS = ("accuracy", "balanced_accuracy")
LABELS = "labels per class"
Budget = int | str | None  # labels per class: a number, a share such as "10%", None for all; or another condition


@dataclass(frozen=True)
class Cell:
    """One contestant with one number of labels: a value per draw, as fractions between 0 and 1."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the draws; None for a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass
class Table:
    """Rows are contestants, columns numbers of labels per class (None: all labels) or other conditions.

    ours: the contestant that the others are baselines of. scores: by (contestant, column), one Prediction per
    draw; draws are paired: draw d of each contestant saw the same labels. heading: what the columns are.
    """

    protocol: str
    dataset: str
    ours: str
    budgets: tuple[Budget, ...]
    seeds: tuple[int, ...]
    data_hash: str
    test_labels: Int[Tensor, " s"]
    classes: tuple[str, ...] = ()
    wall_s: float = 0.0
    heading: str = LABELS
    scores: dict[tuple[str, Budget], list[Prediction]] = field(default_factory=dict)

    def __post_init__(self):
        if self.ours in BASELINES or not self.ours:
            raise ConfigError(
                f"the encoder is called {self.ours!r}; expected a name that no baseline has ({', '.join(BASELINES)}). "
                "Try: rename the run folder"
            )

    def add(self, contestant: str, budget: Budget, prediction: Prediction) -> None:
        self.scores.setdefault((contestant, budget), []).append(prediction)

    @property
    def contestants(self) -> list[str]:
        """In the order in which they were added."""
        return list(dict.fromkeys(name for name, _ in self.scores))

    def cell(self, contestant: str, budget: Budget, metric: str = "accuracy") -> Cell | None:
        """None where nothing was run."""
        predictions = self.scores.get((contestant, budget))
        return predictions and Cell(tuple(getattr(p, metric) for p in predictions))

    def gain(self, over: str, budget: Budget, metric: str = "accuracy") -> Cell | None:
        """Ours minus the contestant `over`, draw by draw; a single value of either counts for every draw."""
        ours, theirs = self.cell(self.ours, budget, metric), self.cell(over, budget, metric)
        if not ours or not theirs:
            return None
        draws = max(len(ours.values), len(theirs.values))
        a, b = (c.values * draws if len(c.values) == 1 else c.values for c in (ours, theirs))
        return Cell(tuple(x - y for x, y in zip(a, b)))

    @property
    def predictions(self) -> Int[Tensor, " s"] | None:
        """Our predictions of the test set from the most labels, for a confusion matrix."""
        numbers = [b for b in self.budgets if not isinstance(b, str)]
        most = max(numbers, key=lambda b: float("inf") if b is None else b, default=None)
        found = self.scores.get((self.ours, most))
        return found[0].predictions if found else None

    def render(self, metric: str = "accuracy"):
        """A rich table in per cent; the best of each column is bold."""
        from rich.table import Table as RichTable

        name = metric.replace("_", " ")
        table = RichTable(title=f"{self.dataset}: {self.protocol}, {name} in %", title_justify="left")
        table.add_column(self.heading)
        for budget in self.budgets:
            table.add_column(budget_name(budget), justify="right")
        best = [max((c.mean for c in column if c), default=None) for column in self._columns(metric)]
        for contestant in self.contestants:
            cells = [self.cell(contestant, budget, metric) for budget in self.budgets]
            style = "cyan" if contestant == self.ours else None
            table.add_row(contestant, *map(_text, cells, best), style=style)
        table.add_section()
        for contestant in self.contestants:
            if contestant in COMPARED:
                gains = [self.gain(contestant, budget, metric) for budget in self.budgets]
                cells = [percent(g.mean, g.std, "+") if g else "–" for g in gains]
                table.add_row(f"{self.ours} over {contestant}", *cells, style="dim")
        return table

    def _columns(self, metric: str) -> list[list[Cell | None]]:
        return [[self.cell(name, budget, metric) for name in self.contestants] for budget in self.budgets]

    def to_results(
        self, recipe: str, *, commit: str, command: str, device: str, seed: int = 0,
        paper: dict[Budget, float] | None = None,
    ) -> list[dict]:
        """One result per number of labels and metric, ready for results/*.json; values are fractions.

        seed: of the pre-training run. paper: published accuracies by labels per class.
        """
        results = []
        for budget in self.budgets:
            for metric in METRICS:
                ours = self.cell(self.ours, budget, metric)
                if ours is None:
                    continue
                others = {n: self.cell(n, budget, metric) for n in self.contestants if n != self.ours}
                results.append({
                    "recipe": recipe, "protocol": self.protocol, "dataset": self.dataset, "metric": metric,
                    "labels_per_class" if self.heading == LABELS else "condition": "all" if budget is None else budget,
                    "mean": ours.mean, "std": ours.std, "values": list(ours.values),
                    "seeds": list(self.seeds[: len(ours.values)]), "pretraining_seed": seed,
                    "baselines": {n: {"mean": c.mean, "std": c.std} for n, c in others.items() if c},
                    "paper": (paper or {}).get(budget) if metric == "accuracy" else None,
                    "chosen": [p.chosen for p in self.scores[self.ours, budget]],
                    "commit": commit, "data_hash": self.data_hash, "command": command,
                    "wall_s": round(self.wall_s, 1), "device": device,
                })
        return results


def budget_name(budget: Budget) -> str:
    """How tables and files call a number of labels per class: "all" for None."""
    return "all" if budget is None else str(budget)


def percent(mean: float, std: float | None, sign: str = "") -> str:
    """Fractions in per cent, with their spread where there is one: "40.1 ± 1.4"; sign "+" for differences."""
    return f"{100 * mean:{sign}.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def _text(cell: Cell | None, best: float | None) -> str:
    if cell is None:
        return "–"
    mean, *spread = percent(cell.mean, cell.std).split(" ", 1)
    return " ".join([f"[bold]{mean}[/bold]" if cell.mean == best else mean, *spread])
