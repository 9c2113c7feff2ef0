"""`SegmentationTable`: what each contestant reaches with each share of the training scenes; printed, or as results."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from contrast3d.downstream.segmenter import Scores
from contrast3d.downstream.table import MAJORITY, SCRATCH, Cell, percent
from contrast3d.errors import ConfigError

POINTWISE = "random forest on colour, height and shape"
BASELINES = (MAJORITY, POINTWISE, SCRATCH)
METRICS = ("mean_iou", "mean_accuracy", "overall_accuracy")
ON, AT = ("voxels", "points"), ("last", "best")


@dataclass(frozen=True)
class Outcome:
    """Of one training: the scores on the test scenes of the last weights and, where there were looks, of the best.

    step: after which the best ones were seen. scenes: (trained on, looked at).
    """

    last: Scores
    best: Scores | None = None
    step: int | None = None
    scenes: tuple[int, int] = (0, 0)


@dataclass
class SegmentationTable:
    """Rows are contestants, columns shares of the training scenes, each with its number of scenes.

    outcomes: by (contestant, share), one per draw, paired: draw d of each contestant saw the same scenes.
    best_of: what the best weights were chosen on. loaded, skipped: names of the pre-trained tensors that the encoder
    took, and of those that it has no place for.
    """

    protocol: str
    dataset: str
    ours: str
    shares: dict[float, int]
    seeds: tuple[int, ...]
    data_hash: str
    classes: tuple[str, ...]
    best_of: str = "validation"
    loaded: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    wall_s: float = 0.0
    outcomes: dict[tuple[str, float], list[Outcome]] = field(default_factory=dict)

    def __post_init__(self):
        if self.ours in (MAJORITY, POINTWISE) or not self.ours:
            raise ConfigError(f"the encoder is called {self.ours!r}; expected a name that no baseline has")

    def add(self, contestant: str, share: float, outcome: Outcome) -> None:
        self.outcomes.setdefault((contestant, share), []).append(outcome)

    @property
    def contestants(self) -> list[str]:
        """In the order in which they were added."""
        return list(dict.fromkeys(name for name, _ in self.outcomes))

    def scores(self, contestant: str, share: float, at: str = "last") -> list[Scores]:
        """One per draw; none where nothing was run or looked at."""
        found = [getattr(outcome, at) for outcome in self.outcomes.get((contestant, share), [])]
        return [] if any(scores is None for scores in found) else found

    def cell(
        self, contestant: str, share: float, metric: str = "mean_iou", on: str = "voxels", at: str = "last"
    ) -> Cell | None:
        """None where there is nothing."""
        found = self.scores(contestant, share, at)
        return Cell(tuple(scores.measure(metric, on) for scores in found)) if found else None

    def gain(self, over: str, share: float, metric: str = "mean_iou", on: str = "voxels", at: str = "last"):
        """Ours minus the contestant `over`, draw by draw: a Cell, or None."""
        ours, theirs = (self.cell(who, share, metric, on, at) for who in (self.ours, over))
        return Cell(tuple(a - b for a, b in zip(ours.values, theirs.values))) if ours and theirs else None

    def class_iou(
        self, contestant: str, share: float, on: str = "voxels", at: str = "last"
    ) -> dict[str, float | None]:
        """IoU of each class, the mean over the draws that have one."""
        draws = [scores.iou(on) for scores in self.scores(contestant, share, at)]
        return {
            name: statistics.fmean(known) if (known := [iou[c] for iou in draws if iou[c] is not None]) else None
            for c, name in enumerate(self.classes)
        }

    def column(self, share: float) -> str:
        """How tables call a share: "10% (4 scenes)"."""
        count = self.shares[share]
        return f"{100 * share:g}% ({count} scene{'s' * (count != 1)})"

    def render(self, metric: str = "mean_iou", on: str = "voxels", at: str = "last"):
        """A rich table in per cent."""
        from rich.table import Table

        what = f"{metric.replace('_', ' ')} of {on} in %, {at if at == 'last' else f'best on {self.best_of}'}"
        table = Table(title=f"{self.dataset}: {self.protocol}, {what}", title_justify="left")
        table.add_column("training scenes")
        for share in self.shares:
            table.add_column(self.column(share), justify="right")
        for contestant in self.contestants:
            cells = [self.cell(contestant, share, metric, on, at) for share in self.shares]
            row = [percent(c.mean, c.std) if c else "–" for c in cells]
            table.add_row(contestant, *row, style="cyan" if contestant == self.ours else None)
        gains = [self.gain(SCRATCH, share, metric, on, at) for share in self.shares]
        if self.ours != SCRATCH and any(gains):
            table.add_section()
            row = [percent(g.mean, g.std, "+") if g else "–" for g in gains]
            table.add_row(f"{self.ours} over {SCRATCH}", *row, style="dim")
        return table

    def render_classes(self, share: float, on: str = "voxels", at: str = "last"):
        """A rich table of the IoU of each class in per cent, at one share of the scenes."""
        from rich.table import Table

        state = "last" if at == "last" else f"best on {self.best_of}"
        table = Table(title=f"{self.dataset}: IoU of {on} in %, {self.column(share)}, {state}", title_justify="left")
        table.add_column("class")
        columns = {who: iou for who in self.contestants if (iou := self.class_iou(who, share, on, at))}
        for contestant in columns:
            table.add_column(contestant, justify="right")
        for name in self.classes:
            cells = [column[name] for column in columns.values()]
            table.add_row(name, *("–" if iou is None else percent(iou, None) for iou in cells))
        return table

    def pages(self) -> list:
        """What is printed: mean IoU of the last weights, of the best ones where there were looks, and of each class."""
        watched = any(self.scores(self.ours, share, "best") for share in self.shares)
        best = [self.render(at="best")] if watched else []
        # of a protocol that chooses on test the best weights are the result
        at = "best" if watched and self.best_of == "test" else "last"
        return [self.render(), *best, self.render_classes(max(self.shares), at=at)]

    def to_results(
        self, recipe: str, *, commit: str, command: str, device: str, seed: int = 0, paper: float | None = None
    ) -> list[dict]:
        """One result per share and number, ready for results/*.json; values are fractions.

        metric: mean_iou, mean_accuracy or overall_accuracy, with "_points" for original points and "_best" for the best
        weights instead of the last. seed: of the pre-training run. paper: the published mean IoU with all scenes.
        """
        results = []
        for share in self.shares:
            for metric, on, at in ((m, on, at) for at in AT for on in ON for m in METRICS):
                ours = self.cell(self.ours, share, metric, on, at)
                if ours is None:
                    continue
                others = {n: self.cell(n, share, metric, on, at) for n in self.contestants if n != self.ours}
                classes = {n: self.class_iou(n, share, on, at) if metric == "mean_iou" else None
                           for n in self.contestants}
                results.append({
                    "recipe": recipe, "protocol": self.protocol, "dataset": self.dataset,
                    "metric": metric + "_points" * (on == "points") + "_best" * (at == "best"),
                    "condition": self.column(share), "mean": ours.mean, "std": ours.std, "values": list(ours.values),
                    "seeds": list(self.seeds), "pretraining_seed": seed,
                    "baselines": {
                        n: {"mean": c.mean, "std": c.std, "classes": classes[n]} for n, c in others.items() if c},
                    "classes": classes[self.ours],
                    "paper": paper if (metric, on, share) == ("mean_iou", "voxels", 1.0) else None,
                    "chosen": [{"step": o.step, "on": self.best_of, "scenes": list(o.scenes)}
                               for o in self.outcomes[self.ours, share]],
                    "commit": commit, "data_hash": self.data_hash, "command": command,
                    "wall_s": round(self.wall_s, 1), "device": device,
                })
        return results
