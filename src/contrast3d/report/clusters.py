"""Sections of a gallery page: shapes sorted into clusters, and shapes with their nearest neighbours."""

from __future__ import annotations

import numpy as np

from contrast3d.report.gallery import Gallery, nearest
from contrast3d.report.shapes import NEIGHBOURS, thumbnail
from contrast3d.report.theme import text
from contrast3d.report.thumbnails import Atlas

SHOWN = 24  # shapes of a cluster


def cluster_rows(features: np.ndarray, count: int, seed: int = 0) -> list[np.ndarray]:
    """k-means on unit features (S, D): the rows of each cluster, the most central first, largest cluster first."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # more threads sum in another order: the same page would not come out again
        found = KMeans(min(count, len(features)), n_init=3, random_state=seed).fit(features)
    distances = np.linalg.norm(features - found.cluster_centers_[found.labels_], axis=1)
    order = np.argsort(distances, kind="stable")
    clusters = [order[found.labels_[order] == number] for number in range(len(found.cluster_centers_))]
    return sorted((rows for rows in clusters if len(rows)), key=lambda rows: (-len(rows), rows[0]))


def clusters_section(gallery: Gallery, atlas: Atlas, count: int | None = None) -> str:
    """A card per cluster, its most central shapes first. count: of clusters; by default about sqrt(S / 2)."""
    if len(gallery) < 4:
        return ""
    count = count or max(2, round((len(gallery) / 2) ** 0.5))
    cards = []
    for rows in cluster_rows(gallery.unit_features(), count):
        pictures = "".join(thumbnail(atlas, int(i), gallery.name(int(i))) for i in rows[:SHOWN])
        more = f" <small>the {SHOWN} most central of {len(rows)}</small>" if len(rows) > SHOWN else ""
        kind = "shape" if len(rows) == 1 else "shapes"
        cards.append(f"<figure><h3>{len(rows)} {kind} about {text(gallery.name(int(rows[0])))}{more}</h3>{pictures}"
                     "</figure>")
    return f'<div class="grid">{"".join(cards)}</div>'


def neighbour_table(gallery: Gallery, atlas: Atlas, most: int = 60) -> str:
    """Shapes spread over the gallery, each with its nearest others and their cosine distances."""
    if len(gallery) < 2:
        return ""
    rows = np.unique(np.linspace(0, len(gallery) - 1, most).round().astype(int))
    found, distances = nearest(gallery.unit_features(), rows, NEIGHBOURS)
    out = []
    for query, others, apart in zip(rows.tolist(), found.tolist(), distances.tolist()):
        cards = [_card(gallery, atlas, query, "", "query")]
        cards += [_card(gallery, atlas, row, f"{max(d, 0):.3f}") for row, d in zip(others, apart)]
        out.append(f'<div class="row">{"".join(cards)}</div>')
    return f'<div class="neighbours">{"".join(out)}</div>'


def _card(gallery: Gallery, atlas: Atlas, row: int, below: str, kind: str = "") -> str:
    name = gallery.name(row).replace("\\", "/").rsplit("/", 1)[-1]
    return (f'<div class="card {kind}">{thumbnail(atlas, row, gallery.name(row))}'
            f'<span>{text(name).replace("_", "_<wbr>")}</span><small>{text(below)}</small></div>')
