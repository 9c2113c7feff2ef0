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


Numbers = Sequence[object] | np.ndarray


@dataclass(frozen=True)
class Series:
    """One line: values (n,) over positions (n,), gaps where a value is not finite.

    spread: (n,) half height of an error bar, or None.
    faint: a thin pale line. label: False keeps the line out of legend and read-out.
    """

    name: str
    x: Numbers
    y: Numbers
    color: str = "var(--accent)"
    spread: Numbers | None = None
    faint: bool = False
    dashed: bool = False
    label: bool = True


def finite(values: Numbers) -> np.ndarray:
    """Numbers of a log, None and text among them, as float64 (n,); NaN where there is no finite one."""
    return np.array([_finite(v) for v in values], float)


def _finite(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def ticks(low: float | int, high: float | int, count: int = 5) -> list[float]:
    """About `count` round numbers in low..high, 1, 2, 2.5 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(value: float | int, digits: int = 3) -> str:
    """A number as short as its size allows: 1,200, 3.42, 0.012, 3e−5; – when it is not finite."""
    if not math.isfinite(value):
        return "–"
    size, sign = abs(value), "−" if value < 0 else ""
    if size >= 10 ** (digits - 1):
        return f"{sign}{size:,.0f}"
    if size and size < 1e-3:
        mantissa, _, exponent = f"{size:.{digits - 2}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{sign}{mantissa}e−{abs(int(exponent))}"
    return f"{sign}{size:.{digits}g}"


def percent(value: float | int, digits: int = 3) -> str:
    """A share as a percentage: 50.2 %."""
    return f"{number(100 * value, digits)} %"


def _tick_names(values: list[float], form: Callable[..., str]) -> list[str]:
    """The values as text, with as many digits as it takes to tell them apart."""
    for digits in (3, 4, 5, 6):
        names = [form(value, digits) for value in values]
        if len(set(names)) == len(names):
            break
    return names


def thin(x: np.ndarray, y: np.ndarray, most: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """At most `most` points: means of equal pieces, so that no step of a long run is simply dropped."""
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


@dataclass(frozen=True)
class _Scale:
    """The rectangle of data that a chart shows, and where its values lie on the chart."""

    left: float
    right: float
    low: float
    high: float

    @classmethod
    def around(
        cls, series: Sequence[Series], floor: float | None, level: float | None, inset: bool
    ) -> _Scale:
        """All of `series` with their error bars, the y value `level`, and y down to `floor`."""
        spreads = [0 if s.spread is None else np.nan_to_num(finite(s.spread)) for s in series]
        ends = [finite(s.y) + sign * spread for s, spread in zip(series, spreads) for sign in (-1, 1)]
        ys = np.concatenate([*ends, [] if level is None else [level]])
        low, high = np.nanmin(ys), np.nanmax(ys)
        margin = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
        low, high = low - margin, high + margin
        if floor is not None:
            low = floor if low > floor - 2 * margin else low
        xs = np.concatenate([finite(s.x) for s in series])
        left, right = np.nanmin(xs), np.nanmax(xs)
        aside = 1.0 if left == right else 0.06 * (right - left) * inset
        return cls(left - aside, right + aside, low, high)

    def x(self, value: float | int) -> float:
        return LEFT + (value - self.left) / (self.right - self.left) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float | int) -> float:
        return HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def _paths(points: list[tuple[float, float]]) -> str:
    """SVG path data of a polyline that breaks at gaps."""
    out, pen_up = [], True
    for x, y in points:
        if math.isfinite(y):
            out.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
        pen_up = not math.isfinite(y)
    return "".join(out)


def line_chart(
    series: Sequence[Series], *, x_label: str, title: str, y_format: Callable[..., str] = number,
    floor: float | None = None, x_ticks: Sequence[tuple[float | int, str]] | None = None,
    guide: tuple[float, str] | None = None,
) -> str:
    """Lines over one axis as an SVG figure with a read-out under the pointer; "" when nothing is finite.

    floor: the y axis reaches down to it. x_ticks: (position, text) for categories. guide: a dashed level and
    its name.
    """
    series = [s for s in series if np.isfinite(finite(s.y)).any()]
    if not series:
        return ""
    scale = _Scale.around(series, floor, guide and guide[0], inset=bool(x_ticks))
    if x_ticks is None:
        xs = [x for x in ticks(scale.left, scale.right) if x == round(x)]  # half an epoch means nothing
        x_ticks = list(zip(xs, _tick_names(xs, number)))
    parts = [_axes(scale, x_ticks, y_format, x_label)]
    if guide is not None:
        level = scale.y(guide[0])
        parts.append(f'<path class="guide" d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}"/><text class="guide-name" '
                     f'x="{WIDTH - RIGHT}" y="{level - 5:.1f}">{text(guide[1])}</text>')
    parts.append(f'<path class="cross" data-reach="{TOP}V{HEIGHT - BOTTOM}" d=""/>')
    parts += [_line(s, scale) for s in series]
    read_out = [_read_out(s, scale, y_format, dict(x_ticks)) for s in series if s.label]
    data = text(json.dumps({"x": x_label, "s": read_out}, separators=(",", ":")))
    return (f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(title)}" '
            f'data-chart="{data}">{"".join(parts)}</svg>')


def _axes(
    scale: _Scale, x_ticks: Sequence[tuple[float | int, str]], y_format: Callable[..., str], x_label: str
) -> str:
    base, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    ys = ticks(scale.low, scale.high)
    for value, name in zip(ys, _tick_names(ys, y_format)):
        y = scale.y(value)
        parts.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{end}"/>'
                     f'<text class="ytick" x="{LEFT - 7}" y="{y + 4:.1f}">{text(name)}</text>')
    for value, name in x_ticks:
        x = scale.x(value)
        parts.append(f'<path class="axis" d="M{x:.1f} {base}v4"/>'
                     f'<text class="xtick" x="{x:.1f}" y="{base + 17}">{text(name)}</text>')
    return (f'{"".join(parts)}<path class="axis" d="M{LEFT} {base}H{end}"/>'
            f'<text class="xlabel" x="{end}" y="{HEIGHT - 4}">{text(x_label)}</text>')


def _line(s: Series, scale: _Scale) -> str:
    xs, ys = finite(s.x), finite(s.y)
    points = [(scale.x(x), scale.y(y)) for x, y in zip(xs, ys)]
    kind = "faint" if s.faint else "dashed line" if s.dashed else "line"
    parts = [f'<path class="{kind}" style="stroke:{s.color}" d="{_paths(points)}"/>']
    for x, y, spread in zip(xs, ys, finite(s.spread if s.spread is not None else [])):
        if math.isfinite(y) and math.isfinite(spread):
            ends = f"M{scale.x(x):.1f} {scale.y(y - spread):.1f}V{scale.y(y + spread):.1f}"
            parts.append(f'<path class="bar" style="stroke:{s.color}" d="{ends}"/>')
    if len(points) <= 30 and not s.faint:
        parts += [f'<circle style="fill:{s.color}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
                  for x, y in points if math.isfinite(y)]
    return "".join(parts)


def _read_out(s: Series, scale: _Scale, y_format: Callable[..., str], names: dict[float | int, str]) -> dict:
    """What the script shows under the pointer: name, colour, places and texts of the points."""
    rows = [(x, y) for x, y in zip(finite(s.x), finite(s.y)) if math.isfinite(y)]
    return {"n": s.name, "c": s.color, "p": [[round(scale.x(x), 1), round(scale.y(y), 1)] for x, y in rows],
            "t": [[names.get(x, number(x)), y_format(y)] for x, y in rows]}


def legend(series: Sequence[Series]) -> str:
    """Names and colours of the lines."""
    return '<p class="key">' + "".join(
        f'<span><i class="{"dash" if s.dashed else "dot"}" style="--c:{s.color}"></i>{text(s.name)}</span>'
        for s in series if s.label) + "</p>"
