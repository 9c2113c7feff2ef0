"""Line charts as hand-written SVG: no library, sharp on any screen, coloured by the page's own variables."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from contrast3d.report.theme import text

WIDTH, HEIGHT = 440, 236
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 14, 38


@dataclass(frozen=True)
class Series:
    """One line: values (n,) over positions (n,), gaps where a value is not finite.

    spread: (n,) half height of an error bar, or None. `faint` draws a thin pale line behind the others, `label`
    False keeps it out of the read-out.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str = "var(--accent)"
    spread: Sequence[float] | None = None
    faint: bool = False
    dashed: bool = False
    label: bool = True


def finite(values: Sequence[object]) -> np.ndarray:
    """Numbers of a log (None, strings and infinities among them) as float64, NaN where there is no finite one."""
    def number(value: object) -> float:
        try:
            value = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return math.nan
        return value if math.isfinite(value) else math.nan

    return np.array([number(v) for v in values], float)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) that lie in low..high, about `count` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number as short as its size allows: 1,200, 3.42, 0.012, 3e-05."""
    if not math.isfinite(value):
        return "–"
    size, sign = abs(value), "−" if value < 0 else ""
    if size >= 100:
        return f"{sign}{size:,.0f}"
    if size and size < 1e-3:
        mantissa, _, exponent = f"{size:.1e}".partition("e")
        return f"{sign}{mantissa.removesuffix('.0')}e−{abs(int(exponent))}"
    return f"{sign}{size:.3g}"


def percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def thin(x: np.ndarray, y: np.ndarray, most: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """At most about `most` points: means of equal pieces, so that no step of a long run is simply dropped."""
    if len(x) <= most:
        return x, y
    pieces = np.array_split(np.arange(len(x)), most)

    def mean(part: np.ndarray) -> float:
        known = y[part][np.isfinite(y[part])]
        return float(known.mean()) if len(known) else math.nan

    return np.array([x[p].mean() for p in pieces]), np.array([mean(p) for p in pieces])


def smooth(y: np.ndarray, share: float = 0.04) -> np.ndarray:
    """Running mean over a share of the whole length, gaps skipped; ends use what they have."""
    reach = max(int(len(y) * share / 2), 1)
    known = np.isfinite(y)
    sums = np.concatenate([[0], np.where(known, y, 0).cumsum()])
    counts = np.concatenate([[0], known.cumsum()])
    high = np.minimum(np.arange(len(y)) + reach + 1, len(y))
    low = np.maximum(np.arange(len(y)) - reach, 0)
    total = counts[high] - counts[low]
    return np.where(total > 0, (sums[high] - sums[low]) / np.maximum(total, 1), np.nan)


def _limits(series: Sequence[Series], floor: float | None) -> tuple[float, float]:
    parts = [finite(s.y) + sign * (0 if s.spread is None else np.nan_to_num(finite(s.spread)))
             for s in series for sign in (-1, 1)]
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    low, high = values.min(), values.max()
    if floor is not None:
        low = min(floor, low)
    margin = 0.06 * (high - low) or max(abs(high) * 0.1, 0.1)
    return (low if floor is not None and low == floor else low - margin), high + margin


def _paths(points: list[tuple[float, float]]) -> str:
    """SVG path data of a polyline that breaks at gaps."""
    out, pen_up = [], True
    for x, y in points:
        if math.isfinite(y):
            out.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
        pen_up = not math.isfinite(y)
    return "".join(out)


def line_chart(
    series: Sequence[Series], *, x_label: str, title: str, y_format: Callable[[float], str] = number,
    floor: float | None = None, x_ticks: Sequence[tuple[float, str]] | None = None,
    guide: tuple[float, str] | None = None,
) -> str:
    """Lines over one axis as an SVG figure with a read-out under the pointer; "" when nothing is finite.

    floor: lowest value the y axis must show. x_ticks: (position, text) for categories. guide: a dashed level
    with its name.
    """
    series = [s for s in series if np.isfinite(finite(s.y)).any()]
    if not series:
        return ""
    low, high = _limits(series, floor)
    if guide is not None:
        low, high = min(low, guide[0]), max(high, guide[0])
    xs = np.concatenate([finite(s.x) for s in series])
    left, right = np.nanmin(xs), np.nanmax(xs)
    if left == right:
        left, right = left - 1, right + 1
    elif x_ticks:
        margin = 0.06 * (right - left)
        left, right = left - margin, right + margin

    def px(x: float) -> float:
        return LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def py(y: float) -> float:
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_axes(px, py, ticks(low, high), x_ticks or [(t, number(t)) for t in ticks(left, right)],
                   y_format, x_label)]
    if guide is not None:
        parts.append(f'<path class="guide" d="M{LEFT} {py(guide[0]):.1f}H{WIDTH - RIGHT}"/>'
                     f'<text class="guide-name" x="{WIDTH - RIGHT}" y="{py(guide[0]) - 5:.1f}">{text(guide[1])}</text>')
    parts += [_line(s, px, py) for s in series]
    read_out = [_read_out(s, px, py, y_format, dict(x_ticks or [])) for s in series if s.label]
    data = text(json.dumps({"x": x_label, "s": read_out}, separators=(",", ":")))
    return (f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(title)}" '
            f'data-chart="{data}">{"".join(parts)}</svg>')


def _axes(px: Callable, py: Callable, ys: list[float], xs: Sequence[tuple[float, str]], y_format: Callable,
          x_label: str) -> str:
    base = HEIGHT - BOTTOM
    grid = "".join(f'<path class="grid" d="M{LEFT} {py(y):.1f}H{WIDTH - RIGHT}"/>'
                   f'<text class="ytick" x="{LEFT - 7}" y="{py(y) + 4:.1f}">{text(y_format(y))}</text>' for y in ys)
    marks = "".join(f'<path class="axis" d="M{px(x):.1f} {base}v4"/>'
                    f'<text class="xtick" x="{px(x):.1f}" y="{base + 17}">{text(name)}</text>' for x, name in xs)
    return (f'{grid}<path class="axis" d="M{LEFT} {base}H{WIDTH - RIGHT}"/>{marks}'
            f'<text class="xlabel" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}">{text(x_label)}</text>')


def _line(s: Series, px: Callable, py: Callable) -> str:
    points = [(px(x), py(y)) for x, y in zip(finite(s.x), finite(s.y))]
    kind = "faint" if s.faint else "dashed line" if s.dashed else "line"
    out = f'<path class="{kind}" style="stroke:{s.color}" d="{_paths(points)}"/>'
    if s.spread is not None:
        bars = zip(finite(s.x), finite(s.y), finite(s.spread))
        out += "".join(f'<path class="bar" style="stroke:{s.color}" d="M{px(x):.1f} {py(y - e):.1f}V{py(y + e):.1f}"/>'
                       for x, y, e in bars if math.isfinite(y) and math.isfinite(e))
    if len(points) <= 30 and not s.faint:
        out += "".join(f'<circle style="fill:{s.color}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
                       for x, y in points if math.isfinite(y))
    return out


def _read_out(s: Series, px: Callable, py: Callable, y_format: Callable, names: dict[float, str]) -> dict:
    rows = [(x, y) for x, y in zip(finite(s.x), finite(s.y)) if math.isfinite(y)]
    return {"n": s.name, "c": s.color, "p": [[round(px(x), 1), round(py(y), 1)] for x, y in rows],
            "t": [[names.get(x, number(x)), y_format(y)] for x, y in rows]}


def legend(series: Sequence[Series]) -> str:
    """Names and colours of the lines."""
    return '<p class="key">' + "".join(
        f'<span><i class="{"dash" if s.dashed else "dot"}" style="--c:{s.color}"></i>{text(s.name)}</span>'
        for s in series if s.label) + "</p>"
