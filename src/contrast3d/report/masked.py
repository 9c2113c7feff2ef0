"""Sections about masked training: what was hidden and reconstructed, what queries attend to, maps of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from contrast3d.errors import DataError
from contrast3d.report.gallery import embedding_map, nearest, spread_rows
from contrast3d.report.shapes import picture
from contrast3d.report.splats import draw, room_camera, typical_spacing
from contrast3d.report.theme import class_colors, text
from contrast3d.report.thumbnails import CLAY, camera

SIZE = 220
PREDICTED = (0.90, 0.47, 0.13)
ASKING = (0.13, 0.42, 0.80)
RAMP = np.array([[0.80, 0.82, 0.86], [0.93, 0.83, 0.55], [0.93, 0.56, 0.22], [0.72, 0.10, 0.16], [0.40, 0.02, 0.16]])
LEAST_RANGE = 0.1  # of the mean attention: what differs by less is shown as one colour, not as a pattern
MAP_WIDTH, MAP_HEIGHT = 440, 330
MOST_DOTS = 1000
Image = UInt8[np.ndarray, "h w 4"]
Section = tuple[str, str, str, str]  # anchor, heading, lead, body

RECONSTRUCTION_LEAD = (
    "A shape, what is left of it when most patches are hidden, and what the network makes of that: grey is what it was "
    "shown, orange what it added. Orange that follows the shape beyond the nearest grey points means that something "
    "about shapes was learnt; orange blobs at the right places mean that only the centers, which it is told, were."
)
ATTENTION_LEAD = (
    "Where the last block looks: each point is coloured by the attention paid to its patches, from pale (least) to "
    "dark red (most); below, how many times the mean the most attended patch gets. The token that asks in the last "
    "picture is blue. Even colour means that a query averages the whole shape; queries of different teachers that look "
    "alike have learnt nothing apart."
)
RENDERS_LEAD = (
    "Shaded renders of the points. The network that looks at them knows photographs: what cannot be recognised here, "
    "it cannot teach."
)
MAPS_LEAD = (
    "t-SNE of several features of the same shapes. Near means alike; distances between far islands, and the axes, mean "
    "nothing. Below each, how often the nearest shape by cosine is of the same class, in the features themselves."
)


@dataclass(frozen=True)
class Reconstructions:
    """B shapes: points (B, N, 3), z up; centers (B, G, 3) and rows (B, G, K) of their patches; mask (B, G), True =
    hidden; predicted (B, M, K, 3) points of the hidden patches in order, relative to their centers."""

    points: Float[np.ndarray, "b n 3"]
    centers: Float[np.ndarray, "b g 3"]
    index: Integer[np.ndarray, "b g k"]
    mask: Bool[np.ndarray, "b g"]
    predicted: Float[np.ndarray, "b m k 3"]
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Attentions:
    """B shapes with the attention over tokens: (B, G) of each query by name, and (B, G, G) of each token by row."""

    points: Float[np.ndarray, "b n 3"]
    centers: Float[np.ndarray, "b g 3"]
    index: Integer[np.ndarray, "b g k"]
    queries: Mapping[str, Float[np.ndarray, "b g"]] = field(default_factory=dict)
    tokens: Float[np.ndarray, "b g g"] | None = None
    names: Sequence[str] = ()


def masked_sections(
    reconstructions: Reconstructions | None = None, attentions: Attentions | None = None,
    features: Mapping[str, Float[np.ndarray, "s _"]] | None = None, labels: Integer[np.ndarray, "s"] | None = None,
    classes: Sequence[str] = (),
) -> list[Section]:
    """Sections of the report page; the body of one whose data is missing is empty, and the page leaves it out.

    features: of the same S shapes, by the name of what reads them. labels: (S,) class numbers, -1 where unknown.
    """
    return [
        ("masked-shapes", "What was hidden, and what was made of it", RECONSTRUCTION_LEAD,
         reconstruction_section(reconstructions)),
        ("masked-attention", "What is looked at", ATTENTION_LEAD, attention_section(attentions)),
        ("masked-maps", "Maps of the features", MAPS_LEAD, maps_section(features or {}, labels, classes)),
    ]


def renders_section(
    images: Float[np.ndarray, "b k 3 h w"], names: Sequence[str] = (), size: int = 112
) -> Section:
    """What an image teacher is shown of some shapes: K renders of each, values from 0 to 1."""
    step = max(1, images.shape[-1] // size)
    rgb = (255 * np.clip(images[..., ::step, ::step], 0, 1)).astype(np.uint8).transpose(0, 1, 3, 4, 2)
    opaque = np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], -1)
    figures = [_figure(_name(names, i), [(f"view {k + 1}", view) for k, view in enumerate(views)], 4, "")
               for i, views in enumerate(opaque)]
    body = f'<div class="pairs">{"".join(figures)}</div>'
    return "teacher-views", "What the image teacher sees", RENDERS_LEAD, body


def reconstruction_picture(
    points: Float[np.ndarray, "n 3"], centers: Float[np.ndarray, "g 3"], index: Integer[np.ndarray, "g k"],
    mask: Bool[np.ndarray, "g"], predicted: Float[np.ndarray, "m k 3"], size: int = SIZE,
) -> list[tuple[str, Image]]:
    """(caption, picture) of a shape, of its visible patches, and of those with the predicted ones, all at one scale.

    Points that lie in no visible patch are not shown in the second: the network does not see them either.
    """
    if len(predicted) != mask.sum():
        raise DataError("reconstruction", f"{len(predicted)} predicted patches", f"{mask.sum()}, as many as are hidden")
    points = np.asarray(points, float)
    paint = _painter(points, size)
    seen = points[np.unique(index[~mask])]
    added = (centers[mask][:, None] + predicted).reshape(-1, 3)
    colors = np.repeat([CLAY, PREDICTED], (len(seen), len(added)), 0)
    return [
        ("input", paint(points, np.tile(CLAY, (len(points), 1)))),
        (f"{1 - mask.mean():.0%} visible", paint(seen, colors[: len(seen)])),
        ("reconstructed", paint(np.concatenate([seen, added]), colors)),
    ]


def _painter(points: Float[np.ndarray, "n 3"], size: int) -> Callable[[np.ndarray, np.ndarray], Image]:
    """(points, colours) -> picture, at the scale and with the discs that suit these points."""
    view = room_camera(points, size, size)
    view = replace(view, scale=0.88 * view.scale)  # room for discs, and for points predicted beside the shape
    spacing = 0.8 * typical_spacing(points[np.isfinite(points).all(1)])
    return lambda some, colors: draw(some, colors, view, spacing)


def patch_attention(
    points: Float[np.ndarray, "n 3"], centers: Float[np.ndarray, "g 3"], index: Integer[np.ndarray, "g k"],
    attention: Float[np.ndarray, "g"],
) -> Float[np.ndarray, "n"]:
    """Attention of points (N,), of a mean near 1: the mean over the patches of a point, or its nearest one's.

    1 is what each patch gets where all get the same.
    """
    share = np.asarray(attention, float)
    share = share / max(share.mean(), 1e-30)
    count = np.bincount(index.ravel(), minlength=len(points))
    total = np.bincount(index.ravel(), np.repeat(share, index.shape[1]), len(points))
    squared = ((np.asarray(points, float)[:, None] - centers) ** 2).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), share[squared.argmin(1)])


def attention_colors(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n 3"]:
    """Colours (N, 3) in 0 to 1 along the ramp; the middle 96 % of the values fill it, unless they hardly differ."""
    low, high = np.percentile(values, (2, 98))
    place = np.clip((values - low) / max(high - low, LEAST_RANGE), 0, 1) * (len(RAMP) - 1)
    return np.stack([np.interp(place, np.arange(len(RAMP)), RAMP[:, i]) for i in range(3)], 1)


def attention_picture(
    points: Float[np.ndarray, "n 3"], centers: Float[np.ndarray, "g 3"], index: Integer[np.ndarray, "g k"],
    queries: Mapping[str, Float[np.ndarray, "g"]], tokens: Float[np.ndarray, "g g"] | None = None,
    asking: int | None = None, size: int = SIZE,
) -> list[tuple[str, Image]]:
    """(caption, picture) of the attention of each query, and of one token, `asking`, whose own patch is blue.

    asking: a patch; by default the one nearest to the viewer, which nothing hides.
    """
    points = np.asarray(points, float)
    paint = _painter(points, size)
    asked = [(name, given, None) for name, given in queries.items()]
    if tokens is not None:
        if asking is None:
            asking = int((centers @ camera()[2]).argmax())
        asked.append(("token (blue)", tokens[asking], index[asking]))
    out = []
    for name, given, own in asked:
        values = patch_attention(points, centers, index, given)
        colors = attention_colors(values)
        if own is not None:
            colors[own] = ASKING
        most = float(np.max(given) / max(float(np.mean(given)), 1e-30))
        out.append((f"{name}: {most:.1f} × mean", paint(points, colors)))
    return out


def tsne_picture(
    features: Float[np.ndarray, "s d"], labels: Integer[np.ndarray, "s"] | None = None, classes: Sequence[str] = (),
    most: int = MOST_DOTS,
) -> str:
    """t-SNE of features (S, D) as SVG: a dot per shape in the colour of its class, grey where it is unknown.

    Of more than `most` shapes a fixed random choice is shown. The same features give the same map.
    """
    rows = spread_rows(len(features), most)
    flat = embedding_map(_unit(features[rows]))
    labels = np.full(len(features), -1) if labels is None else labels
    colors = [*class_colors(len(classes)), "var(--ink-3)"]
    dots = []
    for (x, y), row in zip(flat * (MAP_WIDTH - 16, 16 - MAP_HEIGHT) + (8, MAP_HEIGHT - 8), rows):
        label = int(labels[row]) if 0 <= labels[row] < len(classes) else -1
        tip = f' data-tip="{text(classes[label])}"' if label >= 0 else ""
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" style="fill:{colors[label]};opacity:.8"{tip}/>')
    return (f'<svg viewBox="0 0 {MAP_WIDTH} {MAP_HEIGHT}" style="display:block;width:100%;height:auto" role="img" '
            f'aria-label="t-SNE map of {len(rows)} shapes">{"".join(dots)}</svg>')


def reconstruction_section(shapes: Reconstructions | None) -> str:
    """A triptych of each shape, and how far its hidden patches were missed."""
    if shapes is None or not len(shapes.points):
        return ""
    out = []
    for i in range(len(shapes.points)):
        parts = reconstruction_picture(*(v[i] for v in (
            shapes.points, shapes.centers, shapes.index, shapes.mask, shapes.predicted)))
        name = _name(shapes.names, i)
        note = f"Chamfer-L2 of the hidden patches, times 1,000: {1000 * _missed(shapes, i):.2f}"
        out.append(_figure(name, parts, 3, note))
    return f'<div class="pairs">{"".join(out)}</div>'


def _missed(shapes: Reconstructions, i: int) -> float:
    import torch

    from contrast3d.losses.chamfer import chamfer_l2

    mask, hidden = shapes.mask[i], shapes.index[i][shapes.mask[i]]
    true = shapes.points[i][hidden] - shapes.centers[i][mask][:, None]
    predicted, true = (torch.from_numpy(np.asarray(v, np.float32)) for v in (shapes.predicted[i], true))
    return float(chamfer_l2(predicted, true))


def attention_section(shapes: Attentions | None) -> str:
    """A picture for each query, and one for a token, of each shape."""
    if shapes is None or not len(shapes.points):
        return ""
    out = []
    for i in range(len(shapes.points)):
        parts = attention_picture(
            shapes.points[i], shapes.centers[i], shapes.index[i], {k: v[i] for k, v in shapes.queries.items()},
            None if shapes.tokens is None else shapes.tokens[i])
        if parts:
            out.append(_figure(_name(shapes.names, i), parts, len(parts)))
    return f'<div class="pairs">{"".join(out)}</div>' if out else ""


def maps_section(
    features: Mapping[str, Float[np.ndarray, "s _"]], labels: Integer[np.ndarray, "s"] | None = None,
    classes: Sequence[str] = (),
) -> str:
    """A map of each of the features side by side, and a legend of the classes."""
    figures = []
    for name, values in features.items():
        note = ""
        if labels is not None and (labels >= 0).sum() > 1:
            note = f"The nearest shape is of the same class for {_agreement(values, labels):.1%}."
        caption = f"<figcaption>{text(note)}</figcaption>" if note else ""
        figures.append(f"<figure><h3>{text(name)}</h3>{tsne_picture(values, labels, classes)}{caption}</figure>")
    if not figures:
        return ""
    used = set() if labels is None else set(np.unique(labels).tolist())
    keys = "".join(f'<span><i style="--c:{color}"></i>{text(name)}</span>'
                   for i, (name, color) in enumerate(zip(classes, class_colors(len(classes)))) if i in used)
    return f'<div class="pairs">{"".join(figures)}</div>' + (f'<p class="key">{keys}</p>' if keys else "")


def _agreement(features: Float[np.ndarray, "s d"], labels: Integer[np.ndarray, "s"]) -> float:
    """Share of labelled shapes whose nearest labelled one, of at most 4,000, is of the same class."""
    known = np.flatnonzero(labels >= 0)
    known = known[spread_rows(len(known), 4 * MOST_DOTS)]
    found, _ = nearest(_unit(features[known]), np.arange(len(known)), 1)
    return float((labels[known][found[:, 0]] == labels[known]).mean())


def _unit(features: Float[np.ndarray, "s d"]) -> Float[np.ndarray, "s d"]:
    features = np.asarray(features, np.float32)
    if not np.isfinite(features).all():
        raise DataError("maps", "NaN or infinite features", "finite features", "check the encoder")
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _name(names: Sequence[str], i: int) -> str:
    return names[i] if i < len(names) else f"shape {i}"


def _figure(name: str, parts: Sequence[tuple[str, Image]], columns: int, note: str = "") -> str:
    cells = "".join(f"<div>{picture(image, f'{name}: {what}')}<span>{text(what)}</span></div>" for what, image in parts)
    caption = f"<figcaption>{text(note)}</figcaption>" if note else ""
    return (f'<figure class="pair"><h3>{text(name)}</h3><div style="grid-template-columns:repeat({columns},1fr)">'
            f"{cells}</div>{caption}</figure>")
