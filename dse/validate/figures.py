"""How do predictions lie beside measurements? Small drawings in SVG: points as strokes of no length, so that thousands stay light."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8A8A2A", "#888888", "#5B4A9E", "#A6761D")
WIDE, HIGH = 300, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 24, 34
DECADES = 8  # gridlines beyond which only every second decade is named


@dataclass(frozen=True)
class Series:
    """Points of one colour: ``(x, y)`` in the units of the axes."""

    name: str
    colour: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Axis:
    """An axis with its range; logarithmic ones have positive ends."""

    title: str
    low: float
    high: float
    log: bool = True

    def at(self, value: float) -> float:
        """Place of a value between 0 and 1."""
        f = math.log10 if self.log else float
        return (f(value) - f(self.low)) / (f(self.high) - f(self.low))

    def ticks(self) -> list[float]:
        """Whole decades, or a few even steps."""
        if not self.log:
            span = self.high - self.low
            step = 10 ** math.floor(math.log10(span / 2)) if span > 0 else 1.0
            step *= next(k for k in (1, 2, 5) if span / (step * k) <= 5)
            first = math.ceil(self.low / step)
            return [round(i * step, 12) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        if last - first < 1:
            marks = [self.low * (self.high / self.low) ** (i / 2) for i in range(3)]
            return [float(f"{m:.1g}") for m in marks if self.low <= float(f"{m:.1g}") <= self.high]
        return [10.0**i for i in range(first, last + 1, 1 if last - first <= DECADES // 2 else 2)]


def plain(value: float) -> str:
    """A number on an axis.

    >>> plain(1000.0), plain(0.001), plain(1e6), plain(0.25)
    ('1000', '0.001', '1e6', '0.25')
    """
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:g}"


def span(values: Sequence[float], least: float = 1.5) -> tuple[float, float]:
    """A logarithmic range around positive values, at least a factor ``least`` wide."""
    low, high = min(values), max(values)
    if high / low < least:
        low, high = low / least, high * least
    room = (high / low) ** 0.04
    return low / room, high * room


def _point(x: Axis, y: Axis, px: float, py: float) -> tuple[float, float]:
    a = LEFT + (WIDE - LEFT - RIGHT) * min(max(x.at(px), 0.0), 1.0)
    b = HIGH - BOTTOM - (HIGH - TOP - BOTTOM) * min(max(y.at(py), 0.0), 1.0)
    return a, b


def _frame(title: str, x: Axis, y: Axis) -> list[str]:
    parts = [f'<text x="{LEFT}" y="14" class="t">{html.escape(title)}</text>']
    for v in x.ticks():
        a, b = _point(x, y, v, y.low)
        parts.append(f'<path class="g" d="M{a:.1f} {TOP}V{HIGH - BOTTOM}"/><text x="{a:.1f}" y="{b + 12:.1f}" class="c">{plain(v)}</text>')
    for v in y.ticks():
        a, b = _point(x, y, x.low, v)
        parts.append(
            f'<path class="g" d="M{LEFT} {b:.1f}H{WIDE - RIGHT}"/><text x="{a - 4:.1f}" y="{b + 3:.1f}" class="r">{plain(v)}</text>'
        )
    middle = (LEFT + WIDE - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HIGH - 6}" class="c">{html.escape(x.title)}</text>')
    height = (TOP + HIGH - BOTTOM) / 2
    parts.append(f'<text transform="translate(11 {height}) rotate(-90)" class="c">{html.escape(y.title)}</text>')
    return parts


def _marks(series: Sequence[Series], x: Axis, y: Axis) -> list[str]:
    parts = []
    for one in series:
        places = dict.fromkeys("M{:.1f} {:.1f}h0".format(*_point(x, y, *p)) for p in one.points)
        if places:
            parts.append(f'<path class="p" stroke="{one.colour}" d="{"".join(places)}"><title>{html.escape(one.name)}</title></path>')
    return parts


def _line(x: Axis, y: Axis, ends: Sequence[tuple[float, float]], name: str) -> str:
    (a, b), (c, d) = (_point(x, y, *e) for e in ends)
    return f'<path class="{name}" d="M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}"/>'


def _band(x: Axis, y: Axis, corners: Sequence[tuple[float, float]], opacity: float) -> str:
    path = "L".join("{:.1f} {:.1f}".format(*_point(x, y, *c)) for c in corners)
    return f'<path d="M{path}Z" fill="currentColor" opacity="{opacity}"/>'


def _svg(parts: Sequence[str], alt: str) -> str:
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{html.escape(alt)}">{inside}</svg>'


BANDS = ((0.25, 0.07), (0.10, 0.10))  # relative errors that are shaded, and how strongly


def against(title: str, unit: str, series: Sequence[Series]) -> str:
    """Predicted against measured, both logarithmic, with bands of 10 and 25 %."""
    values = [v for s in series for p in s.points for v in p]
    low, high = span(values)
    x, y = Axis(f"measured [{unit}]", low, high), Axis(f"predicted [{unit}]", low, high)
    parts = _frame(title, x, y)
    for error, opacity in BANDS:
        up, down = 1 + error, 1 - error
        corners = [(low, low * up), (high / up, high), (high, high), (high, high * down), (low / down, low), (low, low)]
        parts.append(_band(x, y, corners, opacity))
    parts.append(_line(x, y, [(low, low), (high, high)], "d"))
    return _svg([*parts, *_marks(series, x, y)], f"{title}: predicted against measured, {len(values) // 2} points")


RESIDUAL = 0.8  # signed relative error at which residual plots are cut


def residuals(title: str, name: str, series: Sequence[Series]) -> str:
    """Signed relative error against a size, with bands of 10 and 25 %; points beyond the frame lie on its edge."""
    low, high = span([p[0] for s in series for p in s.points])
    x, y = Axis(name, low, high), Axis("predicted / measured - 1", -RESIDUAL, RESIDUAL, log=False)
    parts = _frame(title, x, y)
    for error, opacity in BANDS:
        parts.append(_band(x, y, [(low, error), (high, error), (high, -error), (low, -error)], opacity))
    parts.append(_line(x, y, [(low, 0.0), (high, 0.0)], "d"))
    return _svg([*parts, *_marks(series, x, y)], f"{title}: error against {name}")


def lines(title: str, x_title: str, y_title: str, series: Sequence[Series]) -> str:
    """Few points joined by lines, from zero upwards."""
    points = [p for s in series for p in s.points]
    x = Axis(x_title, min(p[0] for p in points), max(p[0] for p in points), log=False)
    y = Axis(y_title, 0.0, 1.05 * max(p[1] for p in points), log=False)
    parts = _frame(title, x, y)
    for s in series:
        path = "L".join("{:.1f} {:.1f}".format(*_point(x, y, *p)) for p in s.points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{s.colour}" stroke-width="1.6"><title>{html.escape(s.name)}</title></path>')
    return _svg([*parts, *_marks(series, x, y)], title)


def legend(names: Sequence[tuple[str, str]]) -> str:
    """Names beside their colours."""
    items = "".join(f'<span class="family"><i style="background:{c}"></i>{html.escape(n)}</span> ' for n, c in names)
    return f'<p class="legend">{items}</p>'
