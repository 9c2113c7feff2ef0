"""Pictures of masked training: which points are shown, in which colours, and the sections of the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from contrast3d.errors import DataError
from contrast3d.nn.patches import group
from contrast3d.report import masked
from contrast3d.report.masked import (
    Attentions,
    Reconstructions,
    attention_colors,
    attention_picture,
    masked_sections,
    patch_attention,
    reconstruction_picture,
    tsne_picture,
)

RNG = np.random.default_rng(0)
G, K = 16, 60  # they cover the box and overlap


def box(n=400):
    """n points of the surface of a box, its patches and the truth about them."""
    points = RNG.uniform(-1, 1, (n, 3))
    axis = RNG.integers(0, 3, n)
    points[np.arange(n), axis] = np.sign(points[np.arange(n), axis])
    points = (points * (1, 0.6, 0.5)).astype(np.float32)
    made = group(torch.from_numpy(points)[None], G, K)
    return points, made.centers[0].numpy(), made.index[0].numpy(), made.points[0].numpy()


def ink(image, color):
    """How many pixels are of about this hue."""
    rgb = image[image[..., 3] > 200][:, :3].astype(float) / 255
    unit = rgb / np.maximum(np.linalg.norm(rgb, axis=1, keepdims=True), 1e-9)
    return int((unit @ (np.array(color) / np.linalg.norm(color)) > 0.985).sum())


def covered(image):
    return int((image[..., 3] > 200).sum())


# What was hidden.


def test_a_true_reconstruction_closes_what_was_hidden():
    points, centers, index, relative = box()
    mask = centers[:, 0] > 0.1
    (a, full), (b, left), (c, again) = reconstruction_picture(points, centers, index, mask, relative[mask])
    assert (a, b, c) == ("input", f"{1 - mask.mean():.0%} visible", "reconstructed")
    assert full.shape == left.shape == again.shape == (masked.SIZE, masked.SIZE, 4)
    assert covered(left) < 0.85 * covered(full)
    assert covered(again) > 0.95 * covered(full)
    assert ink(full, masked.PREDICTED) == ink(left, masked.PREDICTED) == 0
    assert ink(again, masked.PREDICTED) > 0.2 * covered(again)


def test_points_of_hidden_patches_alone_are_not_shown():
    points, centers, index, relative = box()
    mask = np.ones(G, bool)
    mask[3] = False
    (_, full), (_, left), _ = reconstruction_picture(points, centers, index, mask, relative[mask])
    assert 0 < covered(left) < 0.4 * covered(full)


def test_a_wrong_prediction_is_drawn_where_it_is():
    points, centers, index, relative = box()
    mask = np.arange(G) < 8
    right = reconstruction_picture(points, centers, index, mask, relative[mask])[2][1]
    wrong = reconstruction_picture(points, centers, index, mask, relative[mask] + (0, 0, 9.0))[2][1]
    assert ink(right, masked.PREDICTED) > 500
    assert ink(wrong, masked.PREDICTED) == 0  # it is above the picture, whose scale is the input's
    np.testing.assert_array_equal(
        reconstruction_picture(points, centers, index, mask, relative[mask])[0][1],
        reconstruction_picture(points, centers, index, mask, relative[mask] + 9)[0][1])


def test_as_many_patches_are_predicted_as_are_hidden():
    points, centers, index, relative = box()
    with pytest.raises(DataError, match="5 predicted patches; expected 8, as many as are hidden"):
        reconstruction_picture(points, centers, index, np.arange(G) < 8, relative[:5])


# What is looked at.


def test_points_take_the_mean_of_their_patches():
    points = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [9, 0, 0]], float)
    centers, index = points[[0, 2]], np.array([[0, 1], [1, 2]])
    values = patch_attention(points, centers, index, np.array([0.3, 0.1]))
    np.testing.assert_allclose(values, [1.5, 1.0, 0.5, 0.5])  # the last is in no patch, and nearest to the second


def test_attention_is_a_ramp_and_noise_is_no_pattern():
    colors = attention_colors(np.linspace(0.2, 5, 100))
    np.testing.assert_allclose(colors[[0, -1]], masked.RAMP[[0, -1]])
    assert (np.diff(colors[:, 2]) <= 1e-9).all() or np.ptp(colors[:, 2]) > 0.5
    flat = attention_colors(1 + 1e-3 * RNG.normal(size=500))
    assert np.ptp(flat, axis=0).max() < 0.1
    np.testing.assert_allclose(attention_colors(np.ones(4)), masked.RAMP[[0] * 4])


def test_queries_and_a_token_are_painted():
    points, centers, index, _ = box()
    towards = np.exp(4 * centers[:, 2])  # attention to the top
    tokens = np.full((G, G), 1 / G)
    told = attention_picture(points, centers, index, {"img": towards, "text": np.ones(G)}, tokens, asking=2)
    assert [name for name, _ in told] == [
        f"img: {towards.max() / towards.mean():.1f} × mean", "text: 1.0 × mean", "token (blue): 1.0 × mean"]
    (_, img), (_, even), (_, token) = told
    dark = masked.RAMP[3]
    assert ink(img, dark) > 100
    assert ink(even, dark) == ink(token, dark) == 0
    assert ink(img, masked.ASKING) == ink(even, masked.ASKING) == 0
    assert ink(token, masked.ASKING) > 0
    half = masked.SIZE // 2
    assert ink(img[:half], dark) > 2 * ink(img[half:], dark)


def test_the_token_that_asks_is_seen():
    for _ in range(3):
        points, centers, index, _ = box()
        ((_, image),) = attention_picture(points, centers, index, {}, np.full((G, G), 1 / G))
        assert ink(image, masked.ASKING) > 200


@pytest.mark.parametrize("given", [np.zeros(G), np.full(G, 1e-12)], ids=["none", "tiny"])
def test_any_attention_is_drawn(given):
    points, centers, index, _ = box(60)
    ((name, image),) = attention_picture(points, centers, index, {"cls": given})
    assert name.startswith("cls: ")
    assert covered(image) > 1000


# Maps.


def clusters(n=90, classes=3):
    labels = np.arange(n) % classes
    return (4 * np.eye(classes)[labels] + 0.3 * RNG.normal(size=(n, classes))).astype(np.float32), labels


def places(svg):
    return np.array([[float(x), float(y)] for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', svg)])


def test_maps_keep_classes_together_and_repeat():
    features, labels = clusters()
    svg = tsne_picture(features, labels, ["a", "b", "<c>"])
    where = places(svg)
    assert where.shape == (90, 2)
    assert (where >= 0).all()
    assert (where <= (masked.MAP_WIDTH, masked.MAP_HEIGHT)).all()
    middles = np.stack([where[labels == i].mean(0) for i in range(3)])
    nearest = np.linalg.norm(where[:, None] - middles, axis=2).argmin(1)
    assert (nearest == labels).mean() > 0.95
    assert svg == tsne_picture(features, labels, ["a", "b", "<c>"])
    assert svg.count('data-tip="&lt;c&gt;"') == 30
    assert len(set(re.findall("fill:([^;]+);", svg))) == 3


def test_large_sets_are_sampled_and_unknown_classes_are_grey():
    features, labels = clusters(200)
    labels = np.where(labels == 2, -1, labels)
    svg = tsne_picture(features, labels, ["a", "b"], most=60)
    assert len(places(svg)) == 60
    assert "fill:var(--ink-3)" in svg
    assert len(places(tsne_picture(features[:12]))) == 12
    with pytest.raises(DataError, match="NaN or infinite features"):
        tsne_picture(np.full((9, 2), np.nan))


def test_agreement_is_that_of_the_features():
    features, labels = clusters()
    assert "of the same class for 100.0%" in masked.maps_section({"f": features}, labels, ["a", "b", "c"])
    assert "class for" not in masked.maps_section({"f": features})
    mixed = np.repeat(RNG.normal(size=(4, 8)), 2, 0) + 1e-4 * RNG.normal(size=(8, 8))  # pairs of alike shapes
    assert masked._agreement(mixed, np.array([0, 0, 1, 0, 1, 1, 2, 3])) == 0.5
    assert masked._agreement(mixed, np.array([0, 0, 1, 1, -1, -1, -1, -1])) == 1


# The page.


class Checker(HTMLParser):
    """Tags must nest; pictures must be inside of the page."""

    def __init__(self):
        super().__init__()
        self.open, self.pictures = [], 0

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.pictures += 1
            assert attributes["src"].startswith("data:image/webp;base64,")
            assert attributes["alt"]
        elif tag != "circle":
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "circle":
            assert self.open.pop() == tag


def shapes(count=2):
    points, centers, index, relative = (np.stack(v) for v in zip(*(box() for _ in range(count))))
    mask = np.arange(G) % 2 == np.zeros(count, int)[:, None]
    return points, centers, index, mask, np.stack([r[m] for r, m in zip(relative, mask)])


def test_sections_are_well_formed_and_escaped():
    made = shapes()
    features, labels = clusters()
    queries = {"img": np.ones((2, G)), "text": RNG.random((2, G))}
    sections = masked_sections(
        Reconstructions(*made, ['a <script> "shape"']), Attentions(*made[:3], queries, RNG.random((2, G, G))),
        {"trained": features, "<untrained>": features[:, :2]}, labels, ["a", "b", "<c>"])
    for (anchor, heading, lead, body), count in zip(sections, (6, 6, 0), strict=True):
        assert anchor.startswith("masked-")
        assert heading
        assert lead
        checker = Checker()
        checker.feed(body)
        assert not checker.open
        assert checker.pictures == count
        assert "<script>" not in body
        assert "<untrained>" not in body
    assert "times 1,000: 0.00" in sections[0][3]  # what is predicted here is the truth
    assert "shape 1" in sections[0][3]
    assert sections[2][3].count("<svg") == 2
    assert "&lt;c&gt;</span>" in sections[2][3]


def test_missed_patches_are_measured():
    points, centers, index, mask, predicted = shapes(1)
    body = masked.reconstruction_section(Reconstructions(points, centers, index, mask, predicted + (0, 0, 50.0)))
    (told,) = re.findall(r"times 1,000: ([\d.]+)", body)
    assert float(told) == pytest.approx(2 * 1000 * 50**2, rel=0.05)


def test_missing_data_leaves_sections_empty():
    assert [body for *_, body in masked_sections()] == ["", "", ""]
    made = shapes(1)
    assert masked.attention_section(Attentions(*made[:3])) == ""
    assert masked.reconstruction_section(Reconstructions(*(v[:0] for v in made))) == ""


@pytest.mark.shared
def test_a_real_method_on_real_shapes(shared):
    from contrast3d.methods.point_mae import PointMAE
    from contrast3d.nn.patch_transformer import PatchTransformer
    from contrast3d.types import Clouds

    path = shared / "data" / "ldraw40_2048.npz"
    if not path.is_file():
        pytest.skip("no LDraw-40")
    with np.load(path, allow_pickle=False) as file:
        points = file["points"][[3, 900], :512].astype(np.float32)
    encoder = PatchTransformer(width=24, depth=2, num_heads=2, num_patches=G, patch_size=K)
    method = PointMAE(encoder, decoder_depth=1).eval()
    clouds = Clouds.from_dense(torch.from_numpy(points))
    found, (queries, tokens) = method.reconstruct(clouds), encoder.attention(encoder.patches(clouds))
    where = (points, found.patches.centers.numpy(), found.patches.index.numpy())
    sections = masked_sections(
        Reconstructions(*where, found.mask.numpy(), found.hidden.numpy()),
        Attentions(*where, {name: of.numpy() for name, of in queries.items()}, tokens.numpy()))
    assert sections[0][3].count("<img") == 6
    assert sections[1][3].count("<img") == 8


def test_renders_are_shown_smaller():
    images = np.linspace(0, 1, 2 * 3 * 3 * 64).reshape(2, 3, 3, 8, 8)
    *_, body = masked.renders_section(images, ("a<b", "c"), 4)
    assert body.count("<img") == 6
    assert body.count('width="4"') == 6
    assert "a&lt;b" in body
