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

    original (N, 3), first (M, 3), second (K, 3): points. first_index (M,), second_index (K,): the original point
    that each point of a view comes from (`Clouds.indices`); with them, points keep their colour through both views.
    """

    original: Float[np.ndarray, "n 3"]
    first: Float[np.ndarray, "m 3"]
    second: Float[np.ndarray, "k 3"]
    name: str = ""
    first_index: Int[np.ndarray, "m"] | None = None
    second_index: Int[np.ndarray, "k"] | None = None


def picture(image: np.ndarray, label: str) -> str:
    """One picture by itself."""
    return f'<img src="{data_uri(image, 80)}" width="{image.shape[1]}" height="{image.shape[0]}" alt="{text(label)}">'


def thumbnail(atlas: Atlas, row: int, label: str, extra: str = "", style: str = "") -> str:
    """One shape out of the page's atlas; its number lets the script show it large under the pointer."""
    x, y = atlas.position(row)
    return (f'<i class="th {extra}" data-s="{row}" role="img" aria-label="{text(label)}" '
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
        place = 0.22 + 0.7 * (np.asarray(pair.original, np.float32) - low) / extent
        colors = (place, *(None if i is None else place[i] for i in (pair.first_index, pair.second_index)))
        cells = "".join(
            f"<div>{picture(render_points(c, 220, color, frame), f'{pair.name}, {what}')}<span>{what}</span></div>"
            for c, color, what in zip(clouds, colors, ("original", "view 1", "view 2"))
        )
        rows.append(f'<figure class="pair"><h3>{text(pair.name)}</h3><div>{cells}</div></figure>')
    return f'<div class="pairs">{"".join(rows)}</div>' if rows else ""


def map_section(gallery: Gallery, atlas: Atlas) -> str:
    """t-SNE of the features: a dot per shape, thumbnails where there is room, a legend that highlights a class."""
    flat = embedding_map(gallery.unit_features())
    pixels = flat * (MAP_WIDTH - 120, -(MAP_HEIGHT - 110)) + (60, MAP_HEIGHT - 55)
    labels = np.full(len(gallery), -1) if gallery.labels is None else gallery.labels
    colors = [*class_colors(len(gallery.classes)), "var(--ink-3)"]
    wrong = np.zeros(len(gallery), bool) if gallery.predictions is None else (
        (labels >= 0) & (gallery.predictions != labels))
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" data-i="{i}" data-c="{label}" style="--c:{colors[label]}"'
        f'{" class=wrong" if bad else ""}/>' for i, ((x, y), label, bad) in enumerate(zip(pixels, labels, wrong))
    )
    order = np.random.default_rng(0).permutation(len(gallery))
    coarse = apart(pixels, (112, 112), order, [])
    shown = apart(pixels, (64, 64), order, coarse)
    pictures = "".join(
        thumbnail(atlas, i, gallery.name(i), "fine" if i not in coarse else "",
                  f";left:{pixels[i, 0] / MAP_WIDTH:.2%};top:{pixels[i, 1] / MAP_HEIGHT:.2%};--c:{colors[labels[i]]}")
        .replace("<i ", f'<i data-c="{labels[i]}" ', 1) for i in shown
    )
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
    return (f'<div class="card {mark}">{thumbnail(atlas, row, gallery.name(row))}'
            f"<span>{sign}{text(class_name or gallery.name(row))}</span>{below}</div>")


def confusion_section(gallery: Gallery, atlas: Atlas) -> str:
    """True class against predicted class, and the pairs most often confused with one mistaken shape each."""
    if gallery.labels is None or gallery.predictions is None:
        return ""
    table = confusion(gallery.labels, gallery.predictions, len(gallery.classes))
    used = [i for i in np.flatnonzero(table.sum(0) + table.sum(1))]
    order = np.array(sorted(used, key=lambda i: gallery.classes[i]), int)
    if not len(order):
        return ""
    names = [gallery.classes[i] for i in order]
    return (f'<div class="confusion"><div class="scroll">{_matrix(table[np.ix_(order, order)], names)}</div>'
            f"{_confused_pairs(gallery, atlas, table)}</div>")


def _matrix(table: Int[np.ndarray, "l l"], names: list[str]) -> str:
    """Row-normalised confusion matrix as SVG: right answers in blue on the diagonal, mistakes in orange."""
    cell = 15 if len(names) > 16 else 24 if len(names) > 8 else 40
    margin = 10 + 6.4 * max(len(n) for n in names)
    size = margin + cell * len(names)
    totals = table.sum(1)
    parts = []
    for i, name in enumerate(names):
        middle = margin + (i + 0.5) * cell
        parts.append(f'<text x="{margin - 6:.0f}" y="{middle + 4:.1f}" class="name">{text(name)}</text>'
                     f'<text transform="translate({middle + 4:.1f} {margin - 6:.0f}) rotate(-90)">{text(name)}</text>')
        for j in np.flatnonzero(table[i]):
            share = table[i, j] / totals[i]
            told = f"{name} → {names[j]}: {table[i, j]} of {totals[i]} ({share:.0%})"
            value = (f'<text class="value" x="{margin + (j + 0.5) * cell:.1f}" y="{middle + 4:.1f}">{share:.0%}</text>'
                     if cell == 40 else "")
            parts.append(f'<rect class="{"hit" if i == j else "miss"}" x="{margin + j * cell + 0.5:.1f}" '
                         f'y="{margin + i * cell + 0.5:.1f}" width="{cell - 1}" height="{cell - 1}" '
                         f'style="opacity:{0.12 + 0.88 * share:.2f}" data-tip="{text(told)}"/>{value}')
    frame = f'<rect class="frame" x="{margin}" y="{margin}" width="{size - margin}" height="{size - margin}"/>'
    return (f'<svg class="matrix" viewBox="0 0 {size + 2:.0f} {size + 2:.0f}" style="--w:{size:.0f}px" role="img" '
            f'aria-label="Confusion matrix of {len(names)} classes">{frame}{"".join(parts)}</svg>')


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
        mistaken = np.flatnonzero((gallery.labels == true) & (gallery.predictions == taken))[0]
        other = np.flatnonzero(gallery.labels == taken)
        beside = thumbnail(atlas, int(other[0]), gallery.name(int(other[0]))) if len(other) else ""
        out.append(f"<li>{thumbnail(atlas, int(mistaken), gallery.name(int(mistaken)))}<span>"
                   f"<b>{text(gallery.classes[true])}</b> taken for <b>{text(gallery.classes[taken])}</b><small>"
                   f"{table[true, taken]} of {table[true].sum()} shapes</small></span>{beside}</li>")
    return f'<div><h3>Most confused</h3><ol class="confused">{"".join(out)}</ol></div>' if out else ""


def hero(gallery: Gallery, atlas: Atlas, most: int = 14) -> str:
    """A strip of shapes, classes in turn, for the head of the page."""
    rows = _query_rows(gallery, most) if gallery.labels is not None else spread_rows(len(gallery), most)
    return f'<div class="hero">{"".join(thumbnail(atlas, int(i), gallery.name(int(i))) for i in rows)}</div>'
