"""Multiplications of a step of Point-MAE or ReCon on paper, and what exact savings take away; see recon_step.py."""

from __future__ import annotations

from dataclasses import dataclass

QUERIES = ("cls", "img", "text")
H, F, I = 128, 256, 512  # widths of the mini-PointNet


@dataclass(frozen=True)
class Sizes:
    """B clouds of N points in G patches of K, of which V are visible; C channels; teachers' widths."""

    b: int = 32
    n: int = 1024
    g: int = 64
    k: int = 32
    c: int = 384
    depth: int = 12
    decoder: int = 4
    img: int = 768
    text: int = 512
    square: int = 2048  # of the products

    @property
    def v(self) -> int:
        return self.g - int(0.6 * self.g)


QUICK = Sizes(b=4, n=64, g=8, k=8, c=128, depth=2, decoder=1, img=6, text=5, square=128)


def macs(s: Sizes, name: str) -> tuple[dict[str, float], dict[str, float]]:
    """By part, of the reference and of ours; what is not a product (grouping, Chamfer, norms, AdamW) is left out."""
    blocks = s.depth * two_stream_macs(s, name) if name != "point_mae" else s.depth * 3 * block_macs(s, s.v)
    rest = {
        "encoder": blocks, "decoder": s.decoder * 3 * block_macs(s, s.g),
        "positions and head": 3 * s.b * ((s.v + s.g) * H * (3 + s.c) + (s.g - s.v) * s.c * 3 * s.k),
    }
    if name == "recon":
        rest["projections"] = 3 * s.b * s.c * (s.img + s.text)
    return {"mini-PointNet": plain_embed_macs(s)} | rest, {"mini-PointNet": embed_macs(s)} | rest


def plain_embed_macs(s: Sizes) -> float:
    """Every layer on every point, thrice; the points need no gradient."""
    layers = 3 * H + H * F + 2 * F * I + I * s.c
    return s.b * s.g * s.k * (3 * layers - 3 * H)


def embed_macs(s: Sizes) -> float:
    """As ops/patch_embed.py: [max, point] split, W3 W2 one layer of H inputs, hidden patches only as far as the max."""
    patches, shown = s.b * s.g, s.b * s.v
    # All points: the first layer, twice; its products for the maxima and for its second moments, the latter's gradient.
    everywhere = patches * s.k * (2 * 3 * H + H * F + 2 * H * H + 4 * H) + patches * (2 * F * (F + H) + 2 * F * H)
    # Visible points: the third layer as one of H inputs, twice, and its two gradients; the last layer. Backward the
    # last one is a row of I for each channel's winner, twice. (Points that won nothing are spared: not counted.)
    visible = shown * s.k * (2 * 3 * H + 4 * H * I + I * s.c) + shown * (2 * s.c * I + 3 * F * I)
    return everywhere + visible + 4 * I * (F + H) ** 2  # the last: weights with covariances


def block_macs(s: Sizes, tokens: int) -> float:
    """A standard block, forward: 4 C^2 and 8 C^2 a token; scores and their sums."""
    return s.b * tokens * (12 * s.c**2 + 2 * tokens * s.c)


def two_stream_macs(s: Sizes, name: str) -> float:
    """Forward and backward. Keys and values send no gradient to the tokens; alone, Point-MAE's queries need none."""
    queries = s.b * len(QUERIES) * (10 * s.c**2 + 2 * s.v * s.c)
    keys = s.b * s.v * 2 * s.c**2
    return 3 * block_macs(s, s.v) + (3 * queries + 2 * keys if name == "recon" else queries + keys)


def paper(s: Sizes, name: str) -> str:
    """What the exact savings are worth if products were equally fast on both sides."""
    plain, ours = macs(s, name)
    saved = {part: f" to {2e-9 * ours[part]:.3g}" if plain[part] != ours[part] else "" for part in plain}
    parts = ", ".join(f"{part} {2e-9 * plain[part]:.3g}{saved[part]}" for part in plain)
    totals = sum(plain.values()), sum(ours.values())
    return (f"Products on paper, GFLOP: {parts}; in all {2e-9 * totals[0]:.3g} to {2e-9 * totals[1]:.3g}, which is "
            f"{totals[0] / totals[1]:.2f}x where products are equally fast.")
