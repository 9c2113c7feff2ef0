"""The shapes a report shows, and what it reads off their features: map, neighbours, confusion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from contrast3d.errors import DataError


@dataclass(frozen=True)
class Gallery:
    """S shapes with their features.

    points: (S, N, 3), z up.
    features: (S, D) of the frozen encoder.
    labels: (S,) class numbers, -1 where unknown; None without labels.
    classes: name of each class.
    names: one per shape, or empty.
    predictions: (S,) class numbers that a probe gave these shapes, or None. predictor: which probe that was, and
        how many labels it saw.
    title: what captions call the shapes.
    """

    points: Float[np.ndarray, "s n 3"]
    features: Float[np.ndarray, "_ d"]
    labels: Int[np.ndarray, "_"] | None = None
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    predictions: Int[np.ndarray, "_"] | None = None
    title: str = "test shapes"
    predictor: str = "the probe"

    def __post_init__(self):
        if len(self.points) == 0:
            raise DataError("gallery", "no shapes", "at least one")
        for attribute in ("features", "labels", "names", "predictions"):
            value = getattr(self, attribute)
            if value is not None and len(value) not in (0, len(self)):
                raise DataError("gallery", f"{len(value)} {attribute} for {len(self)} shapes", "as many")
        if not np.isfinite(self.features).all():
            raise DataError("gallery", "NaN or infinite features", "finite features", "check the encoder")
        for attribute in ("labels", "predictions"):
            value = getattr(self, attribute)
            if value is not None and len(value) and value.max() >= len(self.classes):
                raise DataError("gallery", f"{attribute} up to {value.max()}", f"{len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.points)

    def name(self, row: int) -> str:
        return self.names[row] if self.names else f"shape {row}"

    def class_name(self, row: int) -> str:
        """Name of a shape's class; empty when it has none."""
        return "" if self.labels is None or self.labels[row] < 0 else self.classes[self.labels[row]]

    def take(self, rows: np.ndarray) -> Gallery:
        """The shapes `rows`."""
        pick = lambda v: None if v is None else v[rows]  # noqa: E731
        names = tuple(self.names[i] for i in rows) if self.names else ()
        return Gallery(
            self.points[rows], self.features[rows], pick(self.labels), self.classes, names,
            pick(self.predictions), self.title, self.predictor,
        )

    def unit_features(self) -> Float[np.ndarray, "s d"]:
        """Features (S, D) of length one, so that dot products are cosines."""
        features = np.asarray(self.features, np.float32)
        return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def spread_rows(count: int, most: int, seed: int = 0) -> np.ndarray:
    """At most `most` of range(count), drawn at random but always the same, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def embedding_map(features: Float[np.ndarray, "s d"], seed: int = 0) -> Float[np.ndarray, "s 2"]:
    """t-SNE of unit features (S, D) -> (S, 2) in 0 to 1 (van der Maaten & Hinton, 2008).

    Starts from PCA and runs on one thread, so that the same features give the same map. Fewer than eight
    shapes have no neighbourhoods to keep: they are placed by PCA alone.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    count, width = features.shape
    flat = np.zeros((count, 2))
    with threadpool_limits(1):
        if count > 1:
            components = min(50, count, width)
            reduced = PCA(components, svd_solver="full").fit_transform(features.astype(np.float64))
            flat[:, : min(2, components)] = reduced[:, :2]
        if count >= 8 and np.ptp(flat, axis=0).max() > 0:
            start = flat / flat[:, 0].std() * 1e-4
            tsne = TSNE(perplexity=min(30, (count - 1) / 3), init=start, random_state=seed, n_jobs=1)
            flat = tsne.fit_transform(reduced)
    low, extent = flat.min(0), np.ptp(flat, axis=0)
    return np.where(extent > 0, (flat - low) / np.maximum(extent, 1e-12), 0.5)


def nearest(features: Float[np.ndarray, "s d"], rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k shapes nearest to each query by cosine, itself left out: rows and distances 1 - cos (Q, k)."""
    k = min(k, len(features) - 1)
    similarity = features[rows] @ features.T
    similarity[np.arange(len(rows)), rows] = -np.inf
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order, 1 - np.take_along_axis(similarity, order, 1)


def confusion(
    labels: Int[np.ndarray, "s"], predictions: Int[np.ndarray, "s"], count: int
) -> Int[np.ndarray, "l l"]:
    """How many shapes of class i (row) were taken for class j (column); unlabelled shapes are left out."""
    table = np.zeros((count, count), np.int64)
    known = (labels >= 0) & (predictions >= 0)
    np.add.at(table, (labels[known], predictions[known]), 1)
    return table


def apart(
    positions: Float[np.ndarray, "s 2"], size: float | int, order: np.ndarray, kept: list[int] | None = None
) -> list[int]:
    """`kept` and, in this order, every row whose square of `size` about its position overlaps none before."""
    kept = list(kept or [])
    for row in order.tolist():
        if row not in kept and all((np.abs(positions[row] - positions[i]) >= size).any() for i in kept):
            kept.append(row)
    return kept
