"""Sections about the shapes: pairs of views, the embedding map, nearest neighbours, confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from contrast3d.report.gallery import Gallery, apart, confusion, embedding_map, nearest, spread_rows
from contrast3d.report.theme import class_colors, text
from contrast3d.report.thumbnails import Atlas, data_uri, fit_frame, render_points

MAP_WIDTH, MAP_HEIGHT = 1000, 680
NEIGHBOURS = 6


@dataclass(frozen=True)
class ViewPair:
    """A shape and the two views of it that an encoder is trained to give the same feature.

    original (N, 3), first (M, 3), second (K, 3): points.
    first_index (M,), second_index (K,): the original point that each point of a view comes from
    (`Clouds.indices`); with them, points keep their colour through both views.
    """

    original: Float[np.ndarray, "n 3"]
    first: Float[np.ndarray, "m 3"]
    second: Float[np.ndarray, "k 3"]
    name: str = ""
    first_index: Int[np.ndarray, "m"] | None = None
    second_index: Int[np.ndarray, "k"] | None = None


def picture(image: np.ndarray, label: str) -> str:
    """One picture by itself."""
    height, width, _ = image.shape
    return f'<img src="{data_uri(image, 80)}" width="{width}" height="{height}" alt="{text(label)}">'


def thumbnail(
    atlas: Atlas, row: int, label: str, extra: str = "", style: str = "", class_number: int | None = None
) -> str:
    """One shape out of the page's atlas; its number lets the script show it large under the pointer."""
    x, y = atlas.position(row)
    marked = "" if class_number is None else f' data-c="{class_number}"'
    return (f'<i class="th {extra}" data-s="{row}"{marked} role="img" aria-label="{text(label)}" '
            f'style="background-position:{x:.3f}% {y:.3f}%{style}"></i>')


def views_section(pairs: Sequence[ViewPair]) -> str:
    """Original and both views of each shape, all three drawn at one scale."""
    rows = []
    for pair in pairs:
        clouds = (pair.original, pair.first, pair.second)
        known = [c[np.isfinite(c).all(1)] for c in clouds]
        known = [np.asarray(c, np.float32) for c in known if len(c)]
        if not known:
            continue
        frame = fit_frame(*known)
        low, extent = known[0].min(0), np.maximum(np.ptp(known[0], axis=0), 1e-9)
        place = 0.34 + 0.6 * (np.asarray(pair.original, np.float32) - low) / extent
        colors = (place, *(None if i is None else place[i] for i in (pair.first_index, pair.second_index)))
        names = ("original", "view 1", "view 2")
        images = [render_points(c, 220, color, frame) for c, color in zip(clouds, colors)]
        cells = "".join(f"<div>{picture(image, f'{pair.name}, {what}')}<span>{what}</span></div>"
                        for image, what in zip(images, names))
        rows.append(f'<figure class="pair"><h3>{text(pair.name)}</h3><div>{cells}</div></figure>')
    return f'<div class="pairs">{"".join(rows)}</div>' if rows else ""


def map_section(gallery: Gallery, atlas: Atlas) -> str:
    """t-SNE of the features: a dot per shape, thumbnails where there is room, a legend to pick a class."""
    flat = embedding_map(gallery.unit_features())
    pixels = flat * (MAP_WIDTH - 120, -(MAP_HEIGHT - 110)) + (60, MAP_HEIGHT - 55)
    labels = np.full(len(gallery), -1) if gallery.labels is None else gallery.labels
    colors = [*class_colors(len(gallery.classes)), "var(--ink-3)"]
    wrong = np.zeros(len(gallery), bool) if gallery.predictions is None else (
        (labels >= 0) & (gallery.predictions != labels))
    dots = "".join(
        f'<circle class="{"wrong" if bad else "dot"}" cx="{x:.1f}" cy="{y:.1f}" r="5" data-c="{label}" '
        f'style="--c:{colors[label]}"/>' for (x, y), label, bad in zip(pixels, labels, wrong)
    )
    order = np.random.default_rng(0).permutation(len(gallery))
    coarse = apart(pixels, 112, order)  # enough for a phone; a wide page has room for more
    pictures = ""
    for i in apart(pixels, 76, order, coarse):
        x, y = pixels[i] / (MAP_WIDTH, MAP_HEIGHT)
        place = f";left:{x:.2%};top:{y:.2%};--c:{colors[labels[i]]}"
        kind = "" if i in coarse else "fine"
        pictures += thumbnail(atlas, i, gallery.name(i), kind, place, int(labels[i]))
    return (f'<div class="map"><svg viewBox="0 0 {MAP_WIDTH} {MAP_HEIGHT}" role="img" '
            f'aria-label="t-SNE map of {len(gallery)} shapes">{dots}</svg>{pictures}</div>'
            + _class_legend(gallery, labels, colors))


def _class_legend(gallery: Gallery, labels: np.ndarray, colors: list[str]) -> str:
    counts = np.bincount(labels[labels >= 0], minlength=len(gallery.classes))
    order = sorted((i for i in range(len(gallery.classes)) if counts[i]), key=lambda i: gallery.classes[i])
    keys = "".join(
        f'<button type="button" data-c="{i}" aria-pressed="false"><i style="--c:{colors[i]}"></i>'
        f"{text(gallery.classes[i])} <small>{counts[i]}</small></button>" for i in order
    )
    return f'<div class="legend">{keys}</div>' if keys else ""


def neighbours_section(gallery: Gallery, atlas: Atlas, queries: int = 8) -> str:
    """The nearest shapes of a few queries, one a class, drawn at random."""
    if len(gallery) < 2:
        return ""
    rows = _query_rows(gallery, queries)
    found, distances = nearest(gallery.unit_features(), rows, NEIGHBOURS)
    out = []
    for query, others, apart_by in zip(rows.tolist(), found.tolist(), distances.tolist()):
        cards = [_card(gallery, atlas, query, "query", gallery.class_name(query))]
        for row, distance in zip(others, apart_by):
            mark = ""
            if gallery.class_name(query) and gallery.class_name(row):
                mark = "right" if gallery.class_name(row) == gallery.class_name(query) else "wrong"
            cards.append(_card(gallery, atlas, row, mark, gallery.class_name(row), f"{max(distance, 0):.3f}"))
        out.append(f'<div class="row">{"".join(cards)}</div>')
    return f'<div class="neighbours">{"".join(out)}</div>'


def _query_rows(gallery: Gallery, queries: int) -> np.ndarray:
    """Rows of the queries: at random but always the same, no class twice while there are classes left."""
    order = np.random.default_rng(1).permutation(len(gallery))
    if gallery.labels is not None and (gallery.labels >= 0).any():
        known = order[gallery.labels[order] >= 0]
        first = np.sort(np.unique(gallery.labels[known], return_index=True)[1])
        order = np.concatenate([known[first], np.setdiff1d(known, known[first])])
    return order[:queries]


def _card(gallery: Gallery, atlas: Atlas, row: int, mark: str, class_name: str, distance: str = "") -> str:
    sign = {"right": "✓ ", "wrong": "✗ "}.get(mark, "")
    below = f"<small>{distance}</small>" if distance else "<small>query</small>"
    caption = text(class_name or gallery.name(row)).replace("_", "_<wbr>")
    return (f'<div class="card {mark}">{thumbnail(atlas, row, gallery.name(row))}'
            f"<span>{sign}{caption}</span>{below}</div>")


def confusion_section(gallery: Gallery, atlas: Atlas) -> str:
    """True class against predicted class, and the pairs most often confused with one mistaken shape each."""
    if gallery.labels is None or gallery.predictions is None:
        return ""
    table = confusion(gallery.labels, gallery.predictions, len(gallery.classes))
    used = np.flatnonzero(table.sum(0) + table.sum(1)).tolist()
    order = np.array(sorted(used, key=lambda i: gallery.classes[i]), int)
    if not len(order):
        return ""
    names = [gallery.classes[i] for i in order]
    return (f'<div class="confusion"><div class="scroll">{_matrix(table[np.ix_(order, order)], names)}</div>'
            f"{_confused_pairs(gallery, atlas, table)}</div>")


def _matrix(table: Int[np.ndarray, "l l"], names: list[str]) -> str:
    """Row-normalised confusion matrix as SVG: right answers in blue on the diagonal, mistakes in orange."""
    cell = 15 if len(names) > 16 else 24 if len(names) > 8 else 40
    margin = round(10 + 6.4 * max(len(n) for n in names))
    size = margin + cell * len(names)
    totals = table.sum(1)
    parts = [f'<path class="frame" d="M{margin} {margin}H{size}V{size}H{margin}Z"/>']
    for i, name in enumerate(names):
        middle = margin + (i + 0.5) * cell + 4
        turned = f'transform="translate({middle:.1f} {margin - 6}) rotate(-90)"'
        parts.append(f'<text class="name" x="{margin - 6}" y="{middle:.1f}">{text(name)}</text>'
                     f"<text {turned}>{text(name)}</text>")
        for j in np.flatnonzero(table[i]).tolist():
            told = f"{name} → {names[j]}: {table[i, j]} of {totals[i]} ({table[i, j] / totals[i]:.0%})"
            share, kind = float(table[i, j] / totals[i]), "hit" if i == j else "miss"
            parts.append(_matrix_cell(margin + j * cell, margin + i * cell, cell, share, kind, told))
    return (f'<svg class="matrix" viewBox="0 0 {size + 2} {size + 2}" style="--w:{size}px" role="img" '
            f'aria-label="Confusion matrix of {len(names)} classes">{"".join(parts)}</svg>')


def _matrix_cell(x: int, y: int, cell: int, share: float, kind: str, told: str) -> str:
    square = (f'<rect class="{kind}" x="{x + 0.5}" y="{y + 0.5}" width="{cell - 1}" height="{cell - 1}" '
              f'style="opacity:{0.12 + 0.88 * share:.2f}" data-tip="{text(told)}"/>')
    if cell < 40:
        return square
    return square + f'<text class="value" x="{x + cell / 2}" y="{y + cell / 2 + 4}">{100 * share:.0f}</text>'


def _confused_pairs(gallery: Gallery, atlas: Atlas, table: Int[np.ndarray, "l l"], most: int = 8) -> str:
    """The largest mistakes by share of the true class: a mistaken shape beside a true one of the class it was
    taken for."""
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    np.fill_diagonal(share, 0)
    out = []
    for flat in np.argsort(-share, axis=None, kind="stable")[:most]:
        true, taken = divmod(int(flat), len(table))
        if not share[true, taken]:
            break
        mistaken = int(np.flatnonzero((gallery.labels == true) & (gallery.predictions == taken))[0])
        others = np.flatnonzero(gallery.labels == taken)[:1].tolist()
        pictures = [thumbnail(atlas, i, gallery.name(i)) for i in (mistaken, *others)]
        out.append(f"<li>{pictures[0]}<span><b>{text(gallery.classes[true])}</b> taken for "
                   f"<b>{text(gallery.classes[taken])}</b><small>{table[true, taken]} of "
                   f"{table[true].sum()} shapes</small></span>{''.join(pictures[1:])}</li>")
    return f'<div><h3>Most confused</h3><ol class="confused">{"".join(out)}</ol></div>' if out else ""


def hero(gallery: Gallery, atlas: Atlas, most: int = 14) -> str:
    """A strip of shapes, classes in turn, for the head of the page."""
    rows = _query_rows(gallery, most) if gallery.labels is not None else spread_rows(len(gallery), most)
    return f'<div class="hero">{"".join(thumbnail(atlas, int(i), gallery.name(int(i))) for i in rows)}</div>'
