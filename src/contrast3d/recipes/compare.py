"""Runs side by side: what each reached, and by how much they differ, paired over seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contrast3d.downstream.table import Cell, percent
from contrast3d.errors import ConfigError
from contrast3d.recipes.looking import check_picture
from contrast3d.recipes.reporting import METRICS, column_of, column_order, is_stale
from contrast3d.recipes.runs import Run, load_recipe_run

COMPARED = (*METRICS, "feature_match_recall", "registration_recall", "mean_iou")

# protocol, data set, column, data_hash (titles alone may hide another split), metric
Key = tuple[str, str, str, str, str]


@dataclass(frozen=True)
class Entry:
    """One row: a run, or runs of one recipe that differ by seed alone.

    scores: by key, the key's metric by seed. over: what the seeds are of: "draws" for a single run, "pre-trainings" for
    several.
    """

    title: str
    over: str
    scores: dict[Key, dict[int, float]]

    def cell(self, key: Key) -> Cell | None:
        return Cell(tuple(self.scores[key].values())) if self.scores.get(key) else None

    def gain(self, over: Entry, key: Key) -> Cell | None:
        """Mine minus theirs, seed by seed; of the means alone where the seeds are not of the same thing."""
        mine, theirs = self.scores.get(key, {}), over.scores.get(key, {})
        if not mine or not theirs:
            return None
        shared = [s for s in mine if s in theirs] if self.over == over.over else []
        if shared:
            return Cell(tuple(mine[s] - theirs[s] for s in shared))
        return Cell((self.cell(key).mean - over.cell(key).mean,))


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
        raise ConfigError("the runs share no evaluation. Try: contrast3d evaluate linear RUN, or another, for each")
    return entries


def keys_of(entries: Sequence[Entry]) -> list[Key]:
    """What at least two of the entries were measured by, in the order of a table."""
    found = {key for entry in entries for key in entry.scores}
    shared = [key for key in found if sum(key in entry.scores for entry in entries) > 1]
    return sorted(shared, key=lambda key: (*_place(key), column_order(key[2])))


def tables(entries: Sequence[Entry]) -> list:
    """Rich tables in per cent, one for each protocol and data set: what was measured, then differences from the first.

    What was measured is the accuracy, and of retrieval the mean average precision.
    """
    from rich.table import Table

    made, keys = [], keys_of(entries)
    for place in dict.fromkeys(map(_place, keys)):
        columns = [key for key in keys if _place(key) == place]
        table = Table(title=f"{place[1]}: {place[0]}, {_in_percent(place)}", title_justify="left")
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

    check_picture(path)
    keys = keys_of(entries)
    places = list(dict.fromkeys(map(_place, keys)))
    figure = Figure(figsize=(8, 3.2 * len(places)), layout="constrained")
    for axes, place in zip(figure.subplots(len(places), squeeze=False)[:, 0], places):
        columns = [key for key in keys if _place(key) == place]
        width = 0.8 / len(entries)
        for i, entry in enumerate(entries):
            cells = [entry.cell(key) for key in columns]
            at = [j - 0.4 + width * (i + 0.5) for j, cell in enumerate(cells) if cell]
            there = [cell for cell in cells if cell]
            axes.bar(at, [100 * c.mean for c in there], width, yerr=[100 * (c.std or 0) for c in there], capsize=2,
                     label=entry.title)
        axes.set_xticks(range(len(columns)), [key[2] for key in columns])
        axes.set(title=f"{place[1]}: {place[0]}", ylabel=_in_percent(place))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _place(key: Key) -> tuple[str, str, str, str]:
    """What one table is of: everything but the column."""
    return key[0], key[1], *key[3:]


def _in_percent(place: tuple[str, str, str, str]) -> str:
    """"accuracy in %", "mean average precision in %"."""
    return f"{place[3].replace('_', ' ')} in %"


def _entry(runs: list[Run]) -> Entry:
    if len(runs) == 1:
        scores = {key: _by_draw(result) for key, result in _measured(runs[0]).items()}
        return Entry(runs[0].title, "draws", scores)
    if len({run.recipe.seed for run in runs}) < len(runs):
        raise ConfigError(f"two runs have the same recipe and the same seed: {', '.join(str(r.path) for r in runs)}")
    scores: dict[Key, dict[int, float]] = {}
    for run in runs:
        for key, result in _measured(run).items():
            scores.setdefault(key, {})[run.recipe.seed] = result["mean"]
    return Entry(f"{runs[0].title}, {len(runs)} seeds", "pre-trainings", scores)


def _by_draw(result: dict) -> dict[int, float]:
    return dict(zip(result["seeds"], result["values"]))


def _measured(run: Run) -> dict[Key, dict]:
    """Its results in COMPARED, without those of weights that the run has left behind."""
    step = run.trained()["step"] if (run.path / "encoder.safetensors").exists() else None
    return {
        (r["protocol"], r["dataset"], column_of(r), str(r.get("data_hash")), r["metric"]): r
        for r in run.folder.results().values() if r.get("metric") in COMPARED and not is_stale(r, step)
    }


def _text(cell: Cell | None, sign: str = "") -> str:
    return "–" if cell is None else percent(cell.mean, cell.std, sign)
