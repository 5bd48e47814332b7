"""The pictures that answers share: lines with bands, pairs of marks, and maps of who is cheaper. Pure: data in, canvas out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from dse import glossary
from dse.report import draw as D
from dse.report import words as W
from dse.report.labels import Label, place

EXISTING = "existing"
EXISTING_LABEL = "Chips on the market"
Row = dict[str, Any]
BANDS = (
    " Brackets and bands: 90 % of samples of every uncertain input. Chips and layouts are held, but a chip that no longer holds its share "
    "of the weights may use more pipeline stages. Several inputs stand at their ideal and can only be worse: where a figure at the stated "
    "values falls outside of its range, the median of the samples takes its place, and the bracket says both."
)
STATED = "_stated"
RUNNING = ("load", "users")  # along which an answer is drawn as a line


@dataclass(frozen=True)
class Drawn:
    """One figure of an answer: drawing, caption, alternative text, the same as rows, and the glossary names that it shows."""

    name: str
    canvas: D.Canvas
    caption: str
    alt: str
    rows: list[Row]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """What one analysis says: the finding in a sentence, how it was found, figures, and further blocks of HTML."""

    sentence: str
    method: str
    drawn: tuple[Drawn, ...]
    blocks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """One line of a chart, with its band where there is one."""

    label: str
    family: str
    x: Any  # numbers
    y: Any
    low: Any = None
    high: Any = None
    style: str = "-"
    tips: Sequence[str] = ()


@dataclass(frozen=True)
class Axis:
    """An axis: its title, and whether it is logarithmic."""

    title: str
    log: bool = True
    least: float | None = None
    most: float | None = None


@dataclass
class Extra:
    """What is drawn behind the lines: (value, words) of horizontal and vertical lines."""

    across: list[tuple[float, str]] = field(default_factory=list)
    down: list[tuple[float, str]] = field(default_factory=list)


def label(family: str) -> str:
    """Name of a family for people; chips that exist are one of their own."""
    return EXISTING_LABEL if family == EXISTING else glossary.label(family)


def look(family: str) -> tuple[str, str]:
    """Colour and marker."""
    style = glossary.load().families.get(family)
    return (style.colour, style.marker) if style else (D.INK, "*") if family == EXISTING else (D.SOFT, ".")


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def likely(sub: xr.Dataset) -> xr.Dataset:
    """An answer whose figures lie inside of their ranges: where one at the stated values does not, the median of the samples stands for it.

    A line over demand is of one kind throughout. What was computed at the stated values stays under the name with ``_stated``.
    """
    out = sub.copy()
    for name in [str(n) for n in sub.data_vars if {f"{n}_low", f"{n}_mid", f"{n}_high"} <= set(sub.data_vars)]:
        stated = sub[name]
        low, middle, high = (
            sub[f"{name}_{e}"].reindex_like(stated).broadcast_like(stated).transpose(*stated.dims) for e in ("low", "mid", "high")
        )
        outside = ((stated < low) | (stated > high)) & np.isfinite(middle)
        outside = outside.any([d for d in RUNNING if d in stated.dims]) & np.isfinite(middle)  # else it would jump from one to the other
        out[name] = xr.where(outside, middle, stated).assign_attrs(stated.attrs)
        out[name + STATED] = stated
    return out


def as_stated(sub: xr.Dataset) -> xr.Dataset:
    """The answer of ``likely`` with every figure at the stated values again: for comparisons of which only a part was sampled."""
    return sub.assign({str(n).removesuffix(STATED): sub[n] for n in sub.data_vars if str(n).endswith(STATED)})


def spoken(value: float, low: float = math.nan, high: float = math.nan, stated: float = math.nan) -> str:
    """A value with its 90 % range where there is one; where it is not that of the stated values, with that too.

    >>> spoken(95.0, 60.0, 140.0), spoken(5.0), spoken(3.0, 0.9, 9.0, 0.5)
    ('95 [60 to 140]', '5', '3 [0.9 to 9; at the stated values 0.5]')
    """
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return W.number(value)
    outside = f"; at the stated values {W.number(stated)}" if math.isfinite(stated) and stated != value else ""
    return f"{W.number(value)} [{W.number(low)} to {W.number(high)}{outside}]"


def ranged(sub: xr.Dataset, name: str, **at: Any) -> str:
    """One number of an answer with its 90 % range where it is known."""
    return spoken(pick(sub, name, **at), *(pick(sub, f"{name}{e}", **at) for e in ("_low", "_high", STATED)))


def band(sub: xr.Dataset, name: str, **at: Any) -> dict[str, Any]:
    """Ends of the band of a variable, for a ``Line``; nothing where they are not known."""
    return {e: sub[f"{name}_{e}"].sel(at).values for e in ("low", "high")} if f"{name}_low" in sub else {}


def pick(sub: xr.Dataset, name: str, **at: Any) -> float:
    """One number of an answer, nan where the variable is missing."""
    return float(sub[name].sel(at)) if name in sub else float("nan")


def _finite(line: Line) -> np.ndarray:
    return np.isfinite(np.asarray(line.y, float)) & np.isfinite(np.asarray(line.x, float))


def lines(
    name: str, series: Sequence[Line], x: Axis, y: Axis, extra: Extra | None = None, size: tuple[float, float] = (8.6, 4.5)
) -> D.Canvas:
    """Lines with bands, each labelled at its end."""
    canvas, extra = D.Canvas(name, *size), extra or Extra()
    axes = canvas.figure.subplots()
    shown = [s for s in series if _finite(s).any()]
    labels, drawn = [], []
    for s in shown:
        hue, marker = look(s.family)
        ok = _finite(s)
        xs, ys = np.asarray(s.x, float)[ok], np.asarray(s.y, float)[ok]
        if s.low is not None and s.high is not None:
            low, high = np.asarray(s.low, float)[ok], np.asarray(s.high, float)[ok]
            axes.fill_between(xs, low, high, color=hue, alpha=0.13, lw=0, zorder=1)
        axes.plot(xs, ys, color=hue, lw=1.8, ls=s.style, zorder=3)
        tips = (
            np.asarray(s.tips, object)[ok]
            if len(s.tips)
            else [f"{s.label}: {W.number(a)}, {W.number(b)}" for a, b in zip(xs, ys, strict=True)]
        )
        for a, b, tip in zip(xs, ys, tips, strict=True):
            axes.plot([a], [b], marker=marker, ms=3.6, color=hue, ls="", zorder=4, gid=canvas.tip(str(tip)))
        key = {"marker": marker, "ms": 4.5, "mfc": hue, "mec": hue}
        labels.append(Label(float(xs[-1]), float(ys[-1]), s.label, 8, {"fontweight": "bold", "color": D.INK}, key))
        drawn.append(np.column_stack([xs, ys]))
    every = np.vstack([np.zeros((0, 2)), *drawn])
    _scale(axes, axes.xaxis, x, every[:, 0], room=0.22)
    _scale(axes, axes.yaxis, y, every[:, 1], room=0.0)
    axes.grid(True)
    for value, words in extra.across:
        axes.axhline(value, color=D.SOFT, lw=0.9, ls=(0, (4, 3)), zorder=1)
        axes.text(0.01, value, words, transform=axes.get_yaxis_transform(), color=D.SOFT, fontsize=7, va="bottom")
    for value, words in extra.down:
        axes.axvline(value, color=D.SOFT, lw=0.9, ls=(0, (4, 3)), zorder=1)
        axes.text(value, 0.99, f" {words}", transform=axes.get_xaxis_transform(), color=D.SOFT, fontsize=7, va="top")
    canvas.figure.draw_without_rendering()
    place(axes, labels, drawn)
    canvas.figure.set_layout_engine("none")
    return canvas


def _scale(axes: Any, axis: Any, spec: Axis, values: np.ndarray, room: float) -> None:
    """Limits, scale and title of one axis; ``room``: share of its length kept free at the end for labels."""
    low, high = float(values.min()), float(values.max())
    low, high = low if spec.least is None else spec.least, high if spec.most is None else spec.most
    way = "x" if axis is axes.xaxis else "y"
    if spec.log:
        span = high / low if high > low else 2.0
        axes.set(**{f"{way}scale": "log", f"{way}lim": (low / span**0.03, high * span ** (0.03 + room))})
        D._log_axis(axis, low, high)
    else:
        span = (high - low) or 1.0
        axes.set(**{f"{way}lim": (low - span * 0.03, high + span * (0.03 + room))})
    axes.set(**{f"{way}label": spec.title})


@dataclass(frozen=True)
class Pair:
    """Two marks of one family on a common axis, and what stands between them."""

    family: str
    hollow: float
    full: float
    words: str
    tip: str
    low: float | None = None  # of the hollow mark
    high: float | None = None


def pairs(name: str, rows: Sequence[Pair], x: Axis, extra: Extra | None = None) -> D.Canvas:
    """One line a family: a full mark, a hollow one with its band, and the factor between them."""
    canvas, extra = D.Canvas(name, 8.6, 0.95 + 0.44 * len(rows)), extra or Extra()
    axes = canvas.figure.subplots()
    for i, r in enumerate(rows):
        hue, _ = look(r.family)
        axes.plot([r.full, r.hollow], [i, i], color=hue, lw=2.2, alpha=0.55)
        if r.low is not None and r.high is not None:
            axes.plot([r.low, r.high], [i - 0.22, i - 0.22], color=hue, lw=3.6, alpha=0.3, solid_capstyle="butt")
        axes.plot([r.full], [i], marker="o", ms=7, color=hue, ls="", gid=canvas.tip(r.tip))
        axes.plot([r.hollow], [i], marker="o", ms=7, mfc=D.PAPER, mec=hue, mew=1.6, ls="", gid=canvas.tip(r.tip))
        middle = (float(np.sqrt(r.full * r.hollow)), i)
        axes.annotate(r.words, middle, xytext=(0, 5), textcoords="offset points", ha="center", fontsize=8)
    ends = [v for r in rows for v in (r.full, r.hollow, r.low, r.high) if v is not None and np.isfinite(v)]
    axes.set_yticks(range(len(rows)), [label(r.family) for r in rows])
    _scale(axes, axes.xaxis, x, np.array(ends + [v for v, _ in extra.down]), room=0.0)
    axes.set(ylim=(-0.6, len(rows) - 0.2))
    for value, words in extra.down:
        axes.axvline(value, color=D.SOFT, lw=0.9, ls=(0, (4, 3)), zorder=1)
        axes.text(value, 0.985, f" {words}", transform=axes.get_xaxis_transform(), color=D.SOFT, fontsize=7, va="top")
    axes.grid(True, axis="x")
    return canvas
