"""Sections about scenes: pairs of views with their correspondences, features as colours, segmented rooms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, UInt8

from contrast3d.report.shapes import picture
from contrast3d.report.splats import GREY, draw, height_colors, open_room, room_camera, scan_camera, typical_spacing
from contrast3d.report.theme import class_colors, text

WIDTH, HEIGHT, GAP = 440, 330, 24
FIRST_COLOR, SECOND_COLOR = (0.16, 0.45, 0.74), (0.87, 0.47, 0.17)  # told apart by the colour-blind too
IGNORE = 255
CAMERA, ROOM = "camera", "room"
Section = tuple[str, str, str, str]  # anchor, heading, lead, body
Image = UInt8[np.ndarray, "h w 4"]

PAIRS_LEAD = (
    "Two partial views of one scene, as training sees them. What both saw is coloured, the same place alike in both; "
    "what only one saw is grey. Training asks for the same feature at both ends of each line. Right, both laid over "
    "each other by their known poses: blue and orange surfaces that run side by side mean wrong poses."
)
FEATURES_LEAD = (
    "The feature of each point as a colour: the first three principal components, of all pictures here together, so "
    "that one colour means one kind of place throughout. Things of one kind should agree across scans; speckle is "
    "noise, one flat colour is collapse."
)
ROOMS_LEAD = "The room, what it is labelled with, and what the network says. Grey is unlabelled and does not count."


@dataclass(frozen=True)
class ScenePair:
    """Two views (N, 3) and (M, 3) in metres, each in its own frame; matches (P, 2) rows of points at one place.

    transform: (4, 4) takes the first view to the second, or None.
    frame: "camera" (x right, y down, z ahead) or "room" (z up).
    """

    first: Float[np.ndarray, "n 3"]
    second: Float[np.ndarray, "m 3"]
    matches: Integer[np.ndarray, "p 2"]
    transform: Float[np.ndarray, "4 4"] | None = None
    name: str = ""
    frame: str = CAMERA


@dataclass(frozen=True)
class FeatureScan:
    """Points (N, 3) with their features (N, C), and colours (N, 3) uint8 where the scan has them."""

    points: Float[np.ndarray, "n 3"]
    features: Float[np.ndarray, "n c"]
    colors: UInt8[np.ndarray, "n 3"] | None = None
    name: str = ""
    frame: str = CAMERA


@dataclass(frozen=True)
class SegmentedRoom:
    """Points (N, 3), z up, with predicted and true classes (N,), 255 for none; colours (N, 3) uint8 or None."""

    points: Float[np.ndarray, "n 3"]
    predicted: Integer[np.ndarray, "n"]
    labels: Integer[np.ndarray, "n"] | None = None
    colors: UInt8[np.ndarray, "n 3"] | None = None
    name: str = ""


def scene_sections(
    pairs: Sequence[ScenePair] = (), scans: Sequence[FeatureScan] = (), rooms: Sequence[SegmentedRoom] = (),
    classes: Sequence[str] = (),
) -> list[Section]:
    """Sections of the report page; the body of one whose data is missing is empty, and the page leaves it out."""
    return [
        ("scene-pairs", "What two views share", PAIRS_LEAD, pairs_section(pairs)),
        ("scene-features", "Features on scans", FEATURES_LEAD, features_section(scans)),
        ("scene-rooms", "Segmented rooms", ROOMS_LEAD, rooms_section(rooms, classes)),
    ]


def feature_colors(
    features: Sequence[Float[np.ndarray, "_ c"]], sample: int = 20_000
) -> list[Float[np.ndarray, "_ 3"]]:
    """Features (N_v, C) of several views -> colours (N_v, 3) in 0 to 1, of one basis: their first three components.

    The middle 96 % of each component fill its range. Equal features are all of one grey; so are those not finite.
    """
    if not len(features):
        return []
    rows = np.concatenate([np.asarray(f, float) for f in features])
    known = np.flatnonzero(np.isfinite(rows).all(1))
    if not len(known) or not rows.shape[1]:
        return [np.full((len(f), 3), 0.5) for f in features]
    some = rows[known[np.linspace(0, len(known) - 1, min(sample, len(known))).astype(int)]]
    mean = some.mean(0)
    values, vectors = np.linalg.eigh((some - mean).T @ (some - mean) / len(some))
    basis = vectors[:, ::-1][:, :3] * (values[::-1][:3] > 1e-12 * max(float((some**2).mean()), 1e-300))
    basis = basis * np.sign(basis[np.abs(basis).argmax(0), np.arange(basis.shape[1])])  # eigenvectors have no sign
    low, high = np.percentile((some - mean) @ basis, (2, 98), axis=0)
    wide = high - low > 1e-12
    flat = np.full((len(rows), 3), 0.5)
    placed = ((rows[known] - mean) @ basis - low) / np.where(wide, high - low, 1)
    flat[known, : basis.shape[1]] = np.where(wide, np.clip(placed, 0, 1), 0.5)
    flat = 0.06 + 0.88 * flat  # pure black and white would hide the shading
    return np.split(flat, np.cumsum([len(f) for f in features])[:-1])


def pair_picture(
    first: Float[np.ndarray, "n 3"], second: Float[np.ndarray, "m 3"], matches: Integer[np.ndarray, "p 2"],
    lines: int = 40, frame: str = CAMERA,
) -> Image:
    """Both views side by side, what they share in colours of place, joined by a sample of `lines` correspondences."""
    first, second = (np.asarray(v, float) for v in (first, second))
    camera_of = scan_camera if frame == CAMERA else room_camera
    cameras = [camera_of(v, WIDTH, HEIGHT) for v in (first, second)]
    colors = [np.tile(GREY, (len(v), 1)) for v in (first, second)]
    if len(matches):
        shared = first[matches[:, 0]]
        low, extent = shared.min(0), np.maximum(np.ptp(shared, axis=0), 1e-9)
        place = 0.2 + 0.72 * (shared - low) / extent
        colors[0][matches[:, 0]], colors[1][matches[:, 1]] = place, place
    images = [draw(v, c, camera) for v, c, camera in zip((first, second), colors, cameras)]
    image = np.concatenate([images[0], np.zeros((HEIGHT, GAP, 4), np.uint8), images[1]], 1)
    rows = _spread_matches(first, matches, lines)
    if not len(rows):
        return image
    ends = [camera.see(v[matches[rows, i]])[:, :2] for i, (camera, v) in enumerate(zip(cameras, (first, second)))]
    ends[1] = ends[1] + (WIDTH + GAP, 0)
    return _draw_lines(image, ends[0], ends[1], colors[0][matches[rows, 0]])


def _spread_matches(points: np.ndarray, matches: np.ndarray, most: int) -> np.ndarray:
    """Rows of `most` matches far from each other: each next one is the farthest from those taken so far."""
    some = np.random.default_rng(0).permutation(len(matches))[:4000]
    if not len(some) or most < 1:
        return some[:0]
    places = points[matches[some, 0]]
    taken, far = [0], np.full(len(some), np.inf)
    while len(taken) < min(most, len(some)):
        far = np.minimum(far, ((places - places[taken[-1]]) ** 2).sum(1))
        taken.append(int(far.argmax()))
    return some[taken]


def _draw_lines(image: Image, starts: np.ndarray, stops: np.ndarray, colors: np.ndarray) -> Image:
    from PIL import Image as Pictures
    from PIL import ImageDraw

    fine = 3
    layer = Pictures.new("RGBA", (fine * image.shape[1], fine * image.shape[0]))
    pen = ImageDraw.Draw(layer)
    for (ax, ay), (bx, by), color in zip(starts * fine, stops * fine, colors):
        if not np.isfinite((ax, ay, bx, by)).all():
            continue
        ink = tuple(int(255 * c) for c in 0.82 * np.clip(color, 0, 1))
        pen.line((ax, ay, bx, by), (*ink, 165), 3)
        for x, y in ((ax, ay), (bx, by)):
            pen.ellipse((x - 10, y - 10, x + 10, y + 10), (*ink, 255), (255, 255, 255, 255), 3)
    layer = layer.resize((image.shape[1], image.shape[0]), Pictures.Resampling.BOX)
    return np.asarray(Pictures.alpha_composite(Pictures.fromarray(image, "RGBA"), layer))


def overlay_picture(
    first: Float[np.ndarray, "n 3"], second: Float[np.ndarray, "m 3"], transform: Float[np.ndarray, "4 4"],
    frame: str = CAMERA,
) -> Image:
    """Both views in the frame of the second, the first blue and the second orange."""
    moved = np.asarray(first, float) @ transform[:3, :3].T + transform[:3, 3]
    points = np.concatenate([moved, np.asarray(second, float)])
    colors = np.repeat([FIRST_COLOR, SECOND_COLOR], (len(moved), len(second)), 0)
    if frame == CAMERA:
        camera = scan_camera(points, WIDTH, HEIGHT, tilt=24.0, back=2.5)
    else:
        camera = room_camera(points, WIDTH, HEIGHT)
    return draw(points, colors, camera)


def plain_colors(
    points: Float[np.ndarray, "n 3"], colors: UInt8[np.ndarray, "n 3"] | None, frame: str
) -> Float[np.ndarray, "n 3"]:
    """The scan's own colours in 0 to 1, or those of height."""
    if colors is not None:
        return np.asarray(colors, float) / 255
    return height_colors(points, np.array([0, -1.0, 0]) if frame == CAMERA else np.array([0, 0, 1.0]))


def feature_pictures(scan: FeatureScan, colors: Float[np.ndarray, "n 3"]) -> tuple[Image, Image]:
    """The scan in plain colours, and in those of its features."""
    points = np.asarray(scan.points, float)
    plain = plain_colors(points, scan.colors, scan.frame)
    if scan.frame == ROOM:
        shown = open_room(points)
        points, plain, colors = points[shown], plain[shown], colors[shown]
    camera = (scan_camera if scan.frame == CAMERA else room_camera)(points, WIDTH, HEIGHT)
    spacing = typical_spacing(points[np.isfinite(points).all(1)])
    return draw(points, plain, camera, spacing), draw(points, colors, camera, spacing)


def segmentation_picture(room: SegmentedRoom, classes: Sequence[str]) -> list[tuple[str, Image]]:
    """(caption, picture) of the input, the truth where it is known, and the prediction; the room cut open."""
    points = np.asarray(room.points, float)
    shown = open_room(points)
    camera = room_camera(points[shown], WIDTH, HEIGHT)
    spacing = typical_spacing(points[shown])
    painted = [("input", plain_colors(points, room.colors, ROOM))]
    if room.labels is not None:
        painted.append(("truth", label_colors(room.labels, len(classes))))
    painted.append(("prediction", label_colors(room.predicted, len(classes))))
    return [(name, draw(points[shown], colors[shown], camera, spacing)) for name, colors in painted]


def label_colors(labels: Integer[np.ndarray, "n"], count: int) -> Float[np.ndarray, "n 3"]:
    """Colours (N, 3) in 0 to 1 of classes (N,): those of the legend, grey where a label is none of the `count`."""
    palette = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in class_colors(count)]
    table = np.array([*palette, [0.74, 0.75, 0.77]])
    labels = np.asarray(labels, np.int64)
    return table[np.where((labels >= 0) & (labels < count), labels, count)]


def pairs_section(pairs: Sequence[ScenePair]) -> str:
    """A wide figure for each pair of views."""
    out = []
    for pair in pairs:
        wide = picture(pair_picture(pair.first, pair.second, pair.matches, frame=pair.frame),
                       f"{pair.name}: two views and their correspondences")
        cells, columns = f"<div>{wide}<span>view 1, view 2</span></div>", "1fr"
        if pair.transform is not None:
            both = picture(overlay_picture(pair.first, pair.second, pair.transform, pair.frame),
                           f"{pair.name}: both views aligned")
            cells, columns = cells + f"<div>{both}<span>aligned</span></div>", f"{(2 * WIDTH + GAP) / WIDTH:.3f}fr 1fr"
        note = f"{len(pair.matches):,} correspondences between {len(pair.first):,} and {len(pair.second):,} points."
        out.append(_figure(pair.name, cells, columns, note))
    return "".join(out)


def features_section(scans: Sequence[FeatureScan]) -> str:
    """Plain and feature colours of each scan side by side, one basis for all."""
    out = []
    for scan, colors in zip(scans, feature_colors([s.features for s in scans])):
        names = ("colours" if scan.colors is not None else "height", "features")
        cells = "".join(f"<div>{picture(image, f'{scan.name}: {what}')}<span>{what}</span></div>"
                        for what, image in zip(names, feature_pictures(scan, colors)))
        out.append(_figure(scan.name, cells, "1fr 1fr", kind="pair"))
    return f'<div class="pairs">{"".join(out)}</div>' if out else ""


def rooms_section(rooms: Sequence[SegmentedRoom], classes: Sequence[str]) -> str:
    """Input, truth and prediction of each room, and a legend of the classes that occur."""
    out, used = [], set()
    for room in rooms:
        pictures = segmentation_picture(room, classes)
        cells = "".join(f"<div>{picture(image, f'{room.name}: {what}')}<span>{what}</span></div>"
                        for what, image in pictures)
        note = ""
        if room.labels is not None:
            counts = np.asarray(room.labels) < len(classes)
            right = np.asarray(room.predicted) == np.asarray(room.labels)
            note = f"{right[counts].mean():.1%} of {counts.sum():,} labelled points right." if counts.any() else ""
        used |= {int(c) for v in (room.labels, room.predicted) if v is not None for c in np.unique(v)}
        out.append(_figure(room.name, cells, f"repeat({len(pictures)},1fr)", note))
    keys = "".join(f'<span><i style="--c:{color}"></i>{text(name)}</span>'
                   for i, (name, color) in enumerate(zip(classes, class_colors(len(classes)))) if i in used)
    return "".join(out) + (f'<p class="key">{keys}</p>' if out and keys else "")


def _figure(name: str, cells: str, columns: str, note: str = "", kind: str = "pair result") -> str:
    caption = f"<figcaption>{text(note)}</figcaption>" if note else ""
    return (f'<figure class="{kind}"><h3>{text(name)}</h3>'
            f'<div style="grid-template-columns:{columns}">{cells}</div>{caption}</figure>')
