"""Results as a table: mean and standard deviation, the best of each column marked, baselines beside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contrast3d.errors import DataError
from contrast3d.report.plots import Series, legend, line_chart, percent
from contrast3d.report.theme import text

Cell = tuple[float | int, float | int | None] | None


@dataclass(frozen=True)
class ResultTable:
    """One table of results.

    title: what is measured, on which data.
    columns: heading of the names, then of each column of cells: ("", "5", "10", "all").
    rows: (name, cells); a cell is (mean, standard deviation or None), or None where nothing was run.
    note: how to read it: the protocol, the seeds, what the columns are.
    ours: names of the rows that stand out; the others are baselines.
    percent: cells are shares and shown times 100; False: shown as they are.
    higher_is_better: which end of a column is marked best. mark_best: False where rows are no rivals.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    note: str = ""
    ours: Sequence[str] = ()
    percent: bool = True
    higher_is_better: bool = True
    mark_best: bool = True

    def __post_init__(self):
        for name, cells in self.rows:
            if len(cells) != len(self.columns) - 1:
                expected = f"{len(self.columns) - 1}, one per column after the first"
                raise DataError(f"table {self.title!r}, row {name!r}", f"{len(cells)} cells", expected)

    def best(self, column: int) -> float | None:
        """The best mean of a column of cells, or None when it is empty or nothing is to be marked."""
        if not self.mark_best:
            return None
        means = [c[column][0] for _, c in self.rows if c[column] and math.isfinite(c[column][0])]
        return (max if self.higher_is_better else min)(means) if means else None


def _cell(cell: Cell, table: ResultTable, best: float | None) -> str:
    if cell is None or not math.isfinite(cell[0]):
        return '<td class="none">–</td>'
    scale, digits = (100, 1) if table.percent else (1, 3)
    mean, spread = cell
    mark = ' class="best"' if mean == best else ""
    known = spread is not None and math.isfinite(spread)
    tail = f" <small>± {scale * spread:.{digits}f}</small>" if known else ""
    return f"<td{mark}><b>{scale * mean:.{digits}f}</b>{tail}</td>"


def table_html(table: ResultTable) -> str:
    """The table alone."""
    best = [table.best(i) for i in range(len(table.columns) - 1)]
    head = "".join(f'<th scope="col">{text(c)}</th>' for c in table.columns)
    body = "".join(
        f'<tr class="{"ours" if name in table.ours else "baseline"}"><th scope="row">{text(name)}</th>'
        + "".join(_cell(c, table, b) for c, b in zip(cells, best)) + "</tr>"
        for name, cells in table.rows
    )
    return (f'<div class="scroll"><table class="results"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>")


_BASELINE_COLORS = ("var(--ink-3)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--c2)", "var(--c6)")


def table_chart(table: ResultTable) -> str:
    """Rows as lines over the columns, bars one standard deviation; "" unless the columns are amounts.

    An amount is a number or "all": a line from one amount to the next means something, from one metric to
    another it does not.
    """
    names = list(table.columns[1:])
    if len(names) < 2 or not all(n == "all" or n.replace(",", "").replace(".", "").isdigit() for n in names):
        return ""
    series, baselines = [], 0
    for name, cells in table.rows:
        ours = name in table.ours
        color = "var(--accent)" if ours else _BASELINE_COLORS[baselines % len(_BASELINE_COLORS)]
        baselines += not ours
        means = [c[0] if c else math.nan for c in cells]
        spreads = [c[1] if c and c[1] is not None else math.nan for c in cells]
        series.append(Series(name, list(range(len(names))), means, color, spreads, dashed=not ours))
    chart = line_chart(
        series, x_label=table.columns[0], title=table.title, x_ticks=list(enumerate(names)),
        **({"y_format": percent, "floor": 0.0} if table.percent else {}),
    )
    return chart and chart + legend(series)
