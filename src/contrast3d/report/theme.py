"""How the page looks: style sheet, script and class colours; and the escaping of everything a user named."""

from __future__ import annotations

import html
import math
from importlib import resources

# Okabe & Ito's colours for the colour-blind, darkened a little for thin marks on white.
_FEW = ("#0072b2", "#d55e00", "#009e73", "#c2649a", "#b8860b", "#4aa3df", "#7a5cc4", "#8a8f98")
_GOLDEN_ANGLE = 137.508


def style() -> str:
    """The style sheet."""
    return _asset("style.css")


def script() -> str:
    """The script: tooltips, the class legend, cross-hairs. The page is complete without it."""
    return _asset("script.js")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def text(value: object) -> str:
    """Any value as page text: nothing in it can open a tag or leave an attribute."""
    return html.escape(str(value), quote=True)


def class_colors(count: int) -> list[str]:
    """`count` colours, the same on every page for a class of the same number.

    Up to eight from a palette safe for the colour-blind; more than eight cannot all be told apart by colour,
    so lightness varies beside hue and the page always names the class too.
    """
    if count <= len(_FEW):
        return list(_FEW[:count])
    return [_oklch(0.56 + 0.09 * (i % 3), 0.135, 250 + i * _GOLDEN_ANGLE) for i in range(count)]


def _oklch(lightness: float, chroma: float, hue: float) -> str:
    """Björn Ottosson's OKLCH -> #rrggbb."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
    )
    linear = (min(max(c, 0.0), 1.0) for c in linear)
    gamma = (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055 for c in linear)
    return "#" + "".join(f"{round(255 * c):02x}" for c in gamma)
