"""Runs side by side: what each reached, and by how much they differ, paired over seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contrast3d.downstream.table import Cell, percent
from contrast3d.errors import ConfigError
from contrast3d.recipes.reporting import column_of, column_order
from contrast3d.recipes.runs import Run, load_recipe_run

Key = tuple[str, str, str]  # protocol, data set, column


@dataclass(frozen=True)
class Entry:
    """One row: a run, or runs of one recipe that differ by seed alone.

    scores: by protocol, data set and column, accuracy by seed: of the label draws for a single run, of the
    pre-training for several.
    """

    title: str
    scores: dict[Key, dict[int, float]]

    def cell(self, key: Key) -> Cell | None:
        return Cell(tuple(self.scores[key].values())) if self.scores.get(key) else None

    def gain(self, over: Entry, key: Key) -> Cell | None:
        """Mine minus theirs, seed by seed, over the seeds that both have; None where there is none."""
        mine, theirs = self.scores.get(key, {}), over.scores.get(key, {})
        shared = [s for s in mine if s in theirs]
        return Cell(tuple(mine[s] - theirs[s] for s in shared)) if shared else None


def compare(paths: Sequence[str | Path]) -> list[Entry]:
    """The entries of the runs, in the order given; the first is what the others are measured against.

    A ConfigError for fewer than two entries, and for runs that share no evaluation.
    """
    runs = [load_recipe_run(path) for path in paths]
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault((run.name, dataclasses.replace(run.recipe, seed=0)), []).append(run)
    entries = [_entry(group) for group in groups.values()]
    if len(entries) < 2:
        raise ConfigError(f"{len(entries)} to compare; expected two runs that differ in more than their seed")
    if not keys_of(entries):
        raise ConfigError("the runs share no evaluation. Try: contrast3d evaluate linear RUN, for each of them")
    return entries


def keys_of(entries: Sequence[Entry]) -> list[Key]:
    """What at least two of the entries were measured by, in the order of a table."""
    found = {key for entry in entries for key in entry.scores}
    shared = [key for key in found if sum(key in entry.scores for entry in entries) > 1]
    return sorted(shared, key=lambda key: (key[:2], column_order(key[2])))


def tables(entries: Sequence[Entry]) -> list:
    """Rich tables in per cent, one for each protocol and data set: accuracies, then differences from the first row."""
    from rich.table import Table

    made, keys = [], keys_of(entries)
    for place in dict.fromkeys(key[:2] for key in keys):
        columns = [key for key in keys if key[:2] == place]
        table = Table(title=f"{place[1]}: {place[0]}, accuracy in %", title_justify="left")
        table.add_column("run")
        for key in columns:
            table.add_column(key[2], justify="right")
        for entry in entries:
            table.add_row(entry.title, *(_text(entry.cell(key)) for key in columns))
        table.add_section()
        for entry in entries[1:]:
            gains = [_text(entry.gain(entries[0], key), "+") for key in columns]
            table.add_row(f"{entry.title} over {entries[0].title}", *gains, style="dim")
        made.append(table)
    return made


def plot(entries: Sequence[Entry], path: Path) -> Path:
    """Bars with their spread, a panel for each protocol and data set, as a picture file."""
    from matplotlib.figure import Figure

    keys = keys_of(entries)
    places = list(dict.fromkeys(key[:2] for key in keys))
    figure = Figure(figsize=(8, 3.2 * len(places)), layout="constrained")
    for axes, place in zip(figure.subplots(len(places), squeeze=False)[:, 0], places):
        columns = [key for key in keys if key[:2] == place]
        width = 0.8 / len(entries)
        for i, entry in enumerate(entries):
            cells = [entry.cell(key) for key in columns]
            at = [j - 0.4 + width * (i + 0.5) for j, cell in enumerate(cells) if cell]
            there = [cell for cell in cells if cell]
            axes.bar(at, [100 * c.mean for c in there], width, yerr=[100 * (c.std or 0) for c in there], capsize=2,
                     label=entry.title)
        axes.set_xticks(range(len(columns)), [key[2] for key in columns])
        axes.set(title=f"{place[1]}: {place[0]}", ylabel="accuracy in %")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    if path.suffix.lower().lstrip(".") not in figure.canvas.get_supported_filetypes():
        raise ConfigError(f"--out {path}; expected a picture, a name ending in .png, .svg or .pdf")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _entry(runs: list[Run]) -> Entry:
    if len(runs) == 1:
        return Entry(runs[0].title, {key: _by_draw(result) for key, result in _accuracies(runs[0]).items()})
    scores: dict[Key, dict[int, float]] = {}
    for run in runs:
        for key, result in _accuracies(run).items():
            scores.setdefault(key, {})[run.recipe.seed] = result["mean"]
    return Entry(f"{runs[0].title} and {len(runs) - 1} more seeds", scores)


def _by_draw(result: dict) -> dict[int, float]:
    return dict(zip(result["seeds"], result["values"]))


def _accuracies(run: Run) -> dict[Key, dict]:
    return {
        (r["protocol"], r["dataset"], column_of(r)): r for r in run.folder.results().values()
        if r.get("metric") == "accuracy"
    }


def _text(cell: Cell | None, sign: str = "") -> str:
    return "–" if cell is None else percent(cell.mean, cell.std, sign)
