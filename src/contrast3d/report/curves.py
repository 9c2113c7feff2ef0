"""Sections about the run itself: what was run, its loss, its health, its accuracy over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from contrast3d.report.plots import Series, finite, legend, line_chart, number, percent, smooth, thin
from contrast3d.report.theme import text

HEALTH = (  # key in the log, name, what is healthy
    ("rankme", "RankMe", "Effective number of dimensions in use. Healthy: climbs early, then settles. A "
     "fall towards 1 is collapse."),
    ("alignment", "Alignment", "Squared distance between the projections of two views of one shape, mean over "
     "the batches of an epoch. Healthy: falls and stays above zero. At zero from the start, the views are "
     "identical or the features constant."),
    ("uniformity", "Uniformity", "How evenly features cover the sphere. Healthy: falls towards −4. "
     "Rising towards 0, everything lands in one place."),
    ("feature_std", "Feature spread", "Standard deviation of unit features, times √D. Healthy: near 1. "
     "Towards 0 all shapes get the same feature."),
)


def lines_of(metrics: Sequence[dict], kind: str) -> list[dict]:
    """The lines of metrics.jsonl of one kind: "train" or "epoch"."""
    return [line for line in metrics if line.get("kind") == kind]


def column(lines: Sequence[dict], key: str) -> np.ndarray:
    """Values (n,) of one key, NaN where a line has none or none that is finite."""
    return finite([line.get(key) for line in lines])


def holding(lines: Sequence[dict], key: str) -> list[dict]:
    """The lines that hold a key: not every epoch is probed."""
    return [line for line in lines if key in line]


def last(values: np.ndarray) -> float:
    """The last finite value, or NaN."""
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else float("nan")


def _counted(lines: Sequence[dict], key: str) -> np.ndarray:
    """Where the lines stand on the x axis: their own step or epoch, or one after the other."""
    values = column(lines, key)
    return values if np.isfinite(values).all() else np.arange(1, len(lines) + 1, dtype=float)


def _figure(title: str, chart: str, caption: str, key: str = "") -> str:
    heading = f"<h3>{text(title)}</h3>" if title else ""
    kind = "" if title else ' class="aside"'
    return f"<figure{kind}>{heading}<div>{chart}{key}</div><figcaption>{caption}</figcaption></figure>"


def _left_out(values: np.ndarray) -> str:
    count = int((~np.isfinite(values)).sum())
    return f' <span class="warn">{count} of {len(values)} values are not finite.</span>' if count else ""


def tiles(metrics: Sequence[dict]) -> str:
    """The last numbers of the run, large."""
    train, epochs = lines_of(metrics, "train"), lines_of(metrics, "epoch")
    accuracy, rank = last(column(epochs, "knn_accuracy")), last(column(epochs, "rankme"))
    loss = last(column(train, "loss"))
    done = last(column([*epochs, *train], "epoch"))
    steps = f"{number(_counted(train, 'step').max())} steps" if train else ""
    found = [
        ("kNN accuracy", percent(accuracy), "when last probed, features frozen", np.isfinite(accuracy)),
        ("RankMe", number(rank), "dimensions in use", np.isfinite(rank)),
        ("Loss", number(loss), "mean of the last epoch", np.isfinite(loss)),
        ("Epochs", number(done), steps, np.isfinite(done)),
    ]
    cards = "".join(f"<div><dt>{name}</dt><dd>{value}</dd>"
                    f'<dd class="note">{note}</dd></div>'
                    for name, value, note, known in found if known)
    return f'<dl class="tiles">{cards}</dl>' if cards else ""


def run_section(summary: Mapping[str, object]) -> str:
    """What was run: every field of the summary."""
    facts = {name: value for name, value in summary.items() if name != "command"}
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def loss_section(metrics: Sequence[dict]) -> str:
    """Loss and learning rate over steps, one value per epoch."""
    train = lines_of(metrics, "train")
    if not train:
        return ""
    step, loss, lr = _counted(train, "step"), column(train, "loss"), column(train, "lr")
    raw, mean = thin(step, loss), thin(step, smooth(loss))
    parts = []
    lines = [Series("each epoch", *raw, faint=True, label=False), Series("loss", *mean)]
    if chart := line_chart(lines, x_label="step", title="Loss"):
        parts.append(_figure("Loss", chart, "Pale: the mean of each epoch; strong: its running mean. A contrastive "
                             "loss starts near the log of the number of candidates and falls slowly to the end."
                             + _left_out(loss)))
    if chart := line_chart([Series("learning rate", *thin(step, lr), "var(--c2)")], x_label="step",
                           title="Learning rate", floor=0.0):
        parts.append(_figure("Learning rate", chart, "Warm-up and decay, as scheduled. A kink in the loss "
                             "without one here is not the schedule's doing."))
    return f'<div class="grid">{"".join(parts)}</div>' if parts else ""


def health_section(metrics: Sequence[dict]) -> str:
    """Label-free health numbers over the epochs: what the probe measured, else what the method logs itself."""
    epochs, train = lines_of(metrics, "epoch"), lines_of(metrics, "train")
    parts = []
    for key, name, caption in HEALTH:
        lines = holding(epochs, key) or holding(train, key)
        values = column(lines, key)
        if chart := line_chart([Series(name, _counted(lines, "epoch"), values)], x_label="epoch", title=name):
            parts.append(_figure(name, chart, caption + _left_out(values)))
    return f'<div class="grid">{"".join(parts)}</div>' if parts else ""


def accuracy_section(metrics: Sequence[dict], majority: float | None) -> str:
    """Accuracy of the online probe over the epochs; the share of the largest class as the line to beat."""
    epochs = lines_of(metrics, "epoch")
    keys = sorted({k for line in epochs for k in line if k.endswith("_accuracy")})
    colors = ("var(--accent)", "var(--c2)", "var(--c3)", "var(--c4)")
    names = [k.removesuffix("_accuracy").replace("_", " ").replace("knn", "kNN") for k in keys]
    probed = [holding(epochs, k) for k in keys]
    series = [Series(name, _counted(lines, "epoch"), column(lines, k), color)
              for name, k, lines, color in zip(names, keys, probed, colors)]
    chart = line_chart(series, x_label="epoch", title="Probe accuracy", y_format=percent, floor=0.0,
                       guide=None if majority is None else (majority, "largest class"))
    if not chart:
        return ""
    key = legend(series) if len(series) > 1 else ""
    return _figure("", chart, "A probe on frozen features. Labels are used to read the features, never "
                   "to train them. Still climbing at the end: train longer. Falling while the loss falls: "
                   "the views throw away what tells classes apart.", key)


def matching_section(metrics: Sequence[dict]) -> str:
    """How features of points match on held-out views, and how far matches and strangers lie apart."""
    epochs, train = lines_of(metrics, "epoch"), lines_of(metrics, "train")
    parts = []
    keys = (("held_out_feature_match_recall", "feature-match recall", "var(--accent)"),
            ("held_out_inlier_ratio", "inlier ratio", "var(--c2)"))
    series = [Series(name, _counted(lines, "epoch"), column(lines, key), color)
              for key, name, color in keys if (lines := holding(epochs, key))]
    if chart := line_chart(series, x_label="epoch", title="Matches of held-out views", y_format=percent, floor=0.0):
        parts.append(_figure("Matches of held-out views", chart, "Inlier ratio: the share of nearest features that are "
                             "the same place. Recall: the share of pairs of views where that is more than 5 %.",
                             legend(series)))
    keys = (("positive_distance", "same place", "var(--accent)"), ("negative_distance", "other places", "var(--c2)"))
    series = [Series(name, _counted(lines, "epoch"), column(lines, key), color)
              for key, name, color in keys if (lines := holding(train, key))]
    if chart := line_chart(series, x_label="epoch", title="Distance of features", floor=0.0):
        parts.append(_figure("Distance of features", chart, "Of unit features. Healthy: the two part. Both at zero is "
                             "collapse.", legend(series)))
    return f'<div class="grid">{"".join(parts)}</div>' if parts else ""
