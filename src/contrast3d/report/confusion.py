"""A confusion matrix as a picture of its own."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Int

HIT, MISS = "#2a78b5", "#d9772b"


def confusion_picture(table: Int[np.ndarray, "l l"], names: Sequence[str], title: str) -> str:
    """SVG of counts (row = label, column = prediction): each row sums to 100 %, right answers are blue.

    Classes without shapes that were predicted for none are left out.
    """
    used = np.flatnonzero(table.sum(0) + table.sum(1))
    table, names = table[np.ix_(used, used)], [names[i] for i in used]
    cell = 14 if len(names) > 24 else 28
    margin = round(16 + 6.4 * max(map(len, [*names, ""])))
    wide, high = margin + cell * len(names) + 10, margin + cell * len(names) + 34
    parts = [f'<text x="10" y="18" font-size="13">{escape(title)}</text>']
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    for i, name in enumerate(names):
        middle = (i + 0.5) * cell + 4
        across = f"translate({margin + middle:.0f} {margin + 18}) rotate(-90)"
        parts.append(f'<text x="{margin - 6}" y="{margin + 24 + middle:.0f}" text-anchor="end">{escape(name)}</text>'
                     f'<text transform="{across}">{escape(name)}</text>')
        for j in np.flatnonzero(table[i]).tolist():
            x, y, share = margin + j * cell, margin + 24 + i * cell, float(shares[i, j])
            told = f"{escape(name)}: {table[i, j]} of {table[i].sum()} taken for {escape(names[j])}"
            parts.append(f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" '
                         f'fill="{HIT if i == j else MISS}" fill-opacity="{0.12 + 0.88 * share:.2f}">'
                         f"<title>{told}</title></rect>")
            if cell > 20:
                parts.append(f'<text x="{x + cell / 2:.0f}" y="{y + cell / 2 + 4:.0f}" text-anchor="middle">'
                             f"{100 * share:.0f}</text>")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
            'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
            f'{"".join(parts)}</svg>\n')
