"""The report: one HTML page with everything inside, which opens offline, on a phone, in print."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from contrast3d.report import clusters, curves, shapes
from contrast3d.report.gallery import Gallery, spread_rows
from contrast3d.report.shapes import ViewPair
from contrast3d.report.tables import ResultTable, table_chart, table_html
from contrast3d.report.theme import script, style, text
from contrast3d.report.thumbnails import Atlas, data_uri

MOST_SHAPES = 1000
Section = tuple[str, str, str, str]  # anchor, heading, lead, body

VIEWS_LEAD = (
    "A shape and two random views of it. Training asks for the same feature from both, so whatever differs "
    "between view 1 and view 2 is what the encoder learns to ignore. Look for views that lost what you care "
    "about, and for views that hardly differ. Colour follows each point from the original where it is known."
)


def write_report(
    path: Path | str, *, title: str, summary: Mapping[str, object], metrics: Sequence[dict] = (),
    tables: Sequence[ResultTable] = (), views: Sequence[ViewPair] | None = None,
    gallery: Gallery | None = None, extra: Sequence[Section] = (),
) -> Path:
    """Write the page of one run to `path`, atomically, and return it. The same input gives the same bytes.

    title: the page's heading.
    summary: what was run, in words (recipe fields, machine, commit, wall time); its entry "command" stands
        under "How to reproduce".
    metrics: lines of metrics.jsonl, kind "train" (step, epoch, loss, lr, alignment: one line per epoch) and "epoch"
        (epoch, knn_accuracy, rankme, uniformity, feature_std: where an epoch was probed).
    tables: results, in the order in which they are to be read.
    views: pairs of views; a handful is enough.
    gallery: shapes, best of the test set; of more than 1,000 a fixed random 1,000 are shown.
    extra: further sections, those of report.scenes say; they follow the views.

    A section whose data is missing is left out.
    """
    if gallery is not None and len(gallery) > MOST_SHAPES:
        gallery = gallery.take(spread_rows(len(gallery), MOST_SHAPES))
    atlas = None if gallery is None else Atlas.of(np.asarray(gallery.points, np.float32))
    sections = [
        *_training_sections(summary, metrics, tables, gallery),
        ("views", "What the encoder is asked to ignore", VIEWS_LEAD, shapes.views_section(views or ())),
        *extra,
        *([] if gallery is None or atlas is None else _shape_sections(gallery, atlas)),
        ("reproduce", "How to reproduce", "", _command(summary)),
    ]
    head = curves.tiles(metrics)
    if gallery is not None and atlas is not None:
        head = shapes.hero(gallery, atlas) + head
    return _write(Path(path), _page(title, head, sections, gallery, atlas))


def views_figure(path: Path | str, views: Sequence[ViewPair], *, title: str = "Pairs of views") -> Path:
    """Write a page with nothing but pairs of views, atomically, and return its path."""
    body = ("views", "What the encoder is asked to ignore", VIEWS_LEAD, shapes.views_section(views))
    return _write(Path(path), _page(title, "", [body], None, None))


def write_sections(path: Path | str, sections: Sequence[Section], *, title: str) -> Path:
    """Write a page of nothing but these sections, atomically, and return its path."""
    return _write(Path(path), _page(title, "", sections, None, None))


def write_gallery(
    path: Path | str, gallery: Gallery, *, title: str, summary: Mapping[str, object], most: int = MOST_SHAPES
) -> Path:
    """Write a page about shapes alone, atomically, and return its path: clusters, neighbours, a map.

    Of more than `most` shapes a fixed random choice is shown; neighbours are among those shown.
    """
    gallery = gallery.take(spread_rows(len(gallery), most))
    atlas = Atlas.of(np.asarray(gallery.points, np.float32))
    sections = [
        ("clusters", "Clusters", "k-means on the features; each cluster begins with its most central shapes.",
         clusters.clusters_section(gallery, atlas)),
        ("neighbours", "Nearest neighbours", "Left a shape, then its nearest by cosine distance, printed below.",
         clusters.neighbour_table(gallery, atlas)),
        ("map", "Map", f"t-SNE of the features of {len(gallery)} {gallery.title}. Near means alike to the encoder; "
         "distances between far islands mean nothing.", shapes.map_section(gallery, atlas)),
    ]
    return _write(Path(path), _page(title, shapes.hero(gallery, atlas) + curves.run_section(summary), sections,
                                    gallery, atlas))


def _training_sections(
    summary: Mapping[str, object], metrics: Sequence[dict], tables: Sequence[ResultTable],
    gallery: Gallery | None,
) -> list[Section]:
    majority = None
    if gallery is not None and gallery.labels is not None and (gallery.labels >= 0).any():
        majority = float(np.bincount(gallery.labels[gallery.labels >= 0]).max() / (gallery.labels >= 0).sum())
    return [
        ("results", "Results", "Mean ± standard deviation over seeds. The best of each column is marked; "
         "baselines stand beside, because a number without them says little.",
         "".join(_result(t) for t in tables)),
        ("run", "What was run", "", curves.run_section(summary)),
        ("accuracy", "Accuracy while training", "", curves.accuracy_section(metrics, majority)),
        ("matching", "Matching while training", "", curves.matching_section(metrics)),
        ("loss", "Loss and learning rate", "", curves.loss_section(metrics)),
        ("health", "Health of the features", "Read without labels, on the training set.",
         curves.health_section(metrics)),
    ]


def _shape_sections(gallery: Gallery, atlas: Atlas) -> list[Section]:
    hollow = f" Hollow dots were misclassified by {gallery.predictor}." if gallery.predictions is not None else ""
    pick = " Choose a class below to see where it lies." if gallery.labels is not None else ""
    marks = " ✓ shares the query's class, ✗ does not." if gallery.labels is not None else ""
    return [
        ("map", "Map of the embedding", f"t-SNE of the features of {len(gallery)} {gallery.title}. Near "
         f"means alike to the encoder; distances between far islands mean nothing.{hollow}{pick}",
         shapes.map_section(gallery, atlas)),
        ("neighbours", "Nearest neighbours", "Left the query, then its nearest shapes by cosine distance, "
         f"printed below. Queries are drawn at random.{marks}",
         shapes.neighbours_section(gallery, atlas)),
        ("confusion", "Confusions", f"Rows are true classes, columns what {gallery.predictor} said; each row sums "
         "to 100 %. Blue is right, orange is wrong; look for orange cells that come in mirrored pairs.",
         shapes.confusion_section(gallery, atlas)),
    ]


def _result(table: ResultTable) -> str:
    chart = table_chart(table)
    note = f"<figcaption>{text(table.note)}</figcaption>" if table.note else ""
    beside = f"<div>{chart}</div>" if chart else ""
    return (f'<figure class="result {"wide" if chart else "narrow"}"><h3>{text(table.title)}</h3>'
            f"<div>{table_html(table)}{beside}</div>{note}</figure>")


def _command(summary: Mapping[str, object]) -> str:
    return f"<pre><code>{text(summary['command'])}</code></pre>" if summary.get("command") else ""


def _page(
    title: str, head: str, sections: Sequence[Section], gallery: Gallery | None, atlas: Atlas | None
) -> str:
    sections = [s for s in sections if s[3]]
    links = "".join(f'<a href="#{anchor}">{heading}</a>' for anchor, heading, _, _ in sections)
    body = "".join(
        f'<section id="{anchor}"><h2>{heading}</h2>' + (f'<p class="lead">{text(lead)}</p>' if lead else "")
        + f"{content}</section>" for anchor, heading, lead, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{style()}{_atlas_style(atlas)}</style></head><body>"
        f'<header><p class="brand">contrast3d</p><h1>{text(title)}</h1>{head}<nav>{links}</nav></header>'
        f'<main>{body}</main><div id="tip" hidden></div>'
        f'<script type="application/json" id="shapes">{_shape_data(gallery, atlas)}</script>'
        f"<script>{script()}</script></body></html>\n"
    )


def _atlas_style(atlas: Atlas | None) -> str:
    if atlas is None:
        return ""
    return (f".th{{background-image:url({data_uri(atlas.sheet)});"
            f"background-size:{100 * atlas.columns}% {100 * atlas.rows}%}}")


def _shape_data(gallery: Gallery | None, atlas: Atlas | None) -> str:
    """Names and classes for the tooltips, as JSON that cannot close its own script element."""
    if gallery is None or atlas is None:
        return "{}"
    listed = lambda v: None if v is None else np.asarray(v).tolist()  # noqa: E731
    data = {
        "columns": atlas.columns, "rows": atlas.rows, "names": [gallery.name(i) for i in range(len(gallery))],
        "classes": list(gallery.classes), "labels": listed(gallery.labels),
        "predictions": listed(gallery.predictions),
    }
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")


def _write(path: Path, content: str) -> Path:
    """Write the whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
