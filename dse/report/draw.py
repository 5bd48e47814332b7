"""How are the figures drawn? Matplotlib SVG from the records of ``info``: no date, fixed salt, same record, same bytes.

Ink, grid and paper are three stand-in colours; inside the page they become the page's colours (light and dark), in files black on white.
"""

from __future__ import annotations

import html
import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from dse import glossary
from dse.report import fronts as F
from dse.report import info as I
from dse.report import words as W
from dse.report.labels import Label, place

INK, GRID, PAPER, SOFT = "#0a0b0c", "#d7d8d9", "#fdfefe", "#6a6b6c"
ON_PAGE = {INK: "currentColor", GRID: "var(--grid)", PAPER: "var(--paper)", SOFT: "var(--soft)"}
SPARE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#888888", "#5B4A9E", "#A6761D", "#1B9E9E", "#B22262")
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.linewidth": 0.7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.axisbelow": True,
}
MANY = 1e7  # from which a tick is written with an exponent
PANEL_INCH = (5.6, 4.2)
ROOM, ROOM_ALONE = 0.38, 0.2  # share of the data's width kept free at the right for labels, in many panels and in one
BETTER_BOX = {"lower": (0.8, 0.0, 1.0, 0.15), "higher": (0.8, 0.85, 1.0, 1.0)}  # axes fractions that the arrow "better" takes


NARROW_PT, SCALE = 460.0, 1.45  # width of a figure below which it keeps its size on the page, and pixels a point there


class Canvas:
    """A figure and the tooltips of its marks (id in the drawing -> text)."""

    def __init__(self, name: str, width: float, height: float):
        self.name, self.tips = name, {}  # type: str, dict[str, str]
        self.figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(self.figure)

    def tip(self, text: str) -> str:
        """A new id whose mark will carry ``text``."""
        key = f"{self.name}-m{len(self.tips)}"
        self.tips[key] = text
        return key


def colour(component: str, index: int = 0) -> str:
    """Colour of a component: the glossary's, or one of the spare ones by position."""
    known = glossary.load().components.get(component)
    return known.colour if known else SPARE[index % len(SPARE)]


def colours(components: list[str]) -> dict[str, str]:
    """Distinct colours of the components of one figure: the glossary's, the others from what is left."""
    known = {c: glossary.load().components[c].colour for c in components if c in glossary.load().components}
    spare = [s for s in SPARE if s not in known.values()] or list(SPARE)
    others = [c for c in components if c not in known]
    return known | {c: spare[i % len(spare)] for i, c in enumerate(others)}


def _family(family: str) -> tuple[str, str]:
    style = glossary.load().families.get(family)
    return (style.colour, style.marker) if style else (SOFT, ".")


def _plain(value: float, _: Any) -> str:
    if value >= MANY:
        return f"{value:.0e}".replace("e+", "e")
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _log_axis(axis: Any, low: float, high: float) -> None:
    """Decade and 2-5 ticks with plain numbers; over more than three decades, decades only."""
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if high / low < 2e3 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


# --- fronts --------------------------------------------------------------------------------------------------------


def _draw_front(canvas: Canvas, axes: Axes, series: F.Series) -> None:
    hue, marker = _family(series.family)
    x, y = [p.x for p in series.points], [p.y for p in series.points]
    look: dict[str, dict[str, Any]] = {
        "front": {"lw": 1.9, "ls": "-", "alpha": 1.0},
        "below_4_bit": {"lw": 1.2, "ls": (0, (3, 2)), "alpha": 0.9},
        "real": {"lw": 0.8, "ls": "-", "alpha": 0.75},
        "claim": {"lw": 0.8, "ls": (0, (1, 1.5)), "alpha": 0.75},
        "unnamed": {"lw": 0},
        "measured": {"lw": 0},
    }
    axes.plot(x, y, color=hue, zorder=3 if series.kind == "front" else 2, **look[series.kind])
    for i, point in enumerate(series.points):
        if series.kind in ("front", "below_4_bit"):
            axes.plot(
                [point.x],
                [point.y],
                marker=marker,
                ms=4,
                mfc=hue if series.kind == "front" else PAPER,
                mec=hue,
                ls="",
                zorder=4,
                gid=canvas.tip(point.tip),
            )
        elif series.kind == "measured":
            axes.plot([point.x], [point.y], marker="*", ms=8.5, mfc=PAPER, mec=INK, mew=0.9, ls="", zorder=6, gid=canvas.tip(point.tip))
        elif i == series.named:
            size = 3.5 if series.kind == "unnamed" else 6
            edge: Any = {"mec": hue, "mew": size / 4.6, "mfc": PAPER}
            axes.plot([point.x], [point.y], marker=marker, ms=size, ls="", zorder=5, gid=canvas.tip(point.tip), **edge)


def _label(series: F.Series) -> Label:
    point = series.points[series.named]
    weight = "bold" if series.kind == "front" else "normal"
    slant = "italic" if series.kind in ("measured", "claim", "below_4_bit") else "normal"
    hue, marker = _family(series.family)
    key = {"marker": marker, "ms": 4.5, "mfc": hue, "mec": hue} if series.kind == "front" else None
    return Label(
        point.x,
        point.y,
        series.label,
        8 if series.kind == "front" else 6.6,
        {"fontweight": weight, "fontstyle": slant, "color": INK},
        key,
        3.0 if series.kind == "measured" else 0.0,
    )


def _limits(panels: tuple[F.FrontPanel, ...], room: float) -> tuple[float, float, float, float]:
    """Shared limits of all panels, with room at the right for labels, as a share of the width of the data."""
    shown = [s for panel in panels for s in panel.series if s.kind != "unnamed"]
    x, y = [p.x for s in shown for p in s.points], [p.y for s in shown for p in s.points]
    if not x:
        return 1.0, 10.0, 1.0, 10.0
    return min(x) / 1.3, max(x) * (max(x) / min(x)) ** room, min(y) / 1.35, max(y) * 1.35


def _better(axes: Axes, y: str) -> None:
    """An arrow into the corner where the good designs are."""
    down = glossary.better(y) == "lower"
    corner, tail = (0.985, 0.03 if down else 0.97), (0.91, 0.12 if down else 0.88)
    axes.annotate("", corner, xytext=tail, xycoords="axes fraction", arrowprops={"arrowstyle": "->", "color": SOFT, "lw": 1.2})
    axes.text(tail[0] - 0.005, tail[1], "better", transform=axes.transAxes, color=SOFT, fontsize=7, ha="right", va="center")


def front(record: F.FrontInfo) -> Canvas:
    """Fronts, one panel a case; all panels on the same axes."""
    columns = record.columns
    rows = -(-len(record.panels) // columns)
    wide, high = (1.8, 1.2) if columns == 1 and rows == 1 else (1.0, 1.0)
    canvas = Canvas(record.name.replace(".", "-"), PANEL_INCH[0] * columns * wide, PANEL_INCH[1] * rows * high)
    grid = canvas.figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    x0, x1, y0, y1 = _limits(record.panels, ROOM_ALONE if columns == 1 else ROOM)
    for axes, panel in zip(grid.flat, record.panels, strict=False):
        axes.set(xscale="log", yscale="log", xlim=(x0, x1), ylim=(y0, y1), title=panel.title)
        _log_axis(axes.xaxis, x0, x1)
        _log_axis(axes.yaxis, y0, y1)
        axes.grid(True)
        axes.tick_params(labelbottom=True, labelleft=True)
        axes.set_xlabel(f"{glossary.axis(record.x)}, faster →")
        axes.set_ylabel(glossary.axis(record.y))
        if panel.promise_x:
            axes.axvline(panel.promise_x, color=SOFT, lw=0.9, ls=(0, (4, 3)), zorder=1)
            axes.text(panel.promise_x, y1, f" {W.number(panel.promise_x)} token/s/user", color=SOFT, fontsize=6.5, va="top", ha="left")
        for band in panel.bands:  # what certified bounds leave open
            axes.fill_between(band.x, band.low, band.high, color=_family(band.family)[0], alpha=0.22, lw=0, zorder=1)
        for series in panel.series:
            _draw_front(canvas, axes, series)
        _better(axes, record.y)
    for axes in list(grid.flat)[len(record.panels) :]:
        axes.set_axis_off()
    canvas.figure.draw_without_rendering()
    for axes, panel in zip(grid.flat, record.panels, strict=False):
        order = sorted(panel.series, key=lambda s: ("front", "measured", "real", "claim", "below_4_bit", "unnamed").index(s.kind))
        place(
            axes,
            [_label(s) for s in order if s.kind != "unnamed"],
            [np.array(line) for s in panel.series for line in _drawn(s)],
            np.array([BETTER_BOX[glossary.better(record.y)], _promise_box(panel, x0, x1)]),
        )
    canvas.figure.set_layout_engine("none")
    return canvas


def _drawn(series: F.Series) -> list[list[tuple[float, float]]]:
    """What labels keep off: the line of a series, or each of its marks where no line is drawn."""
    points = [(p.x, p.y) for p in series.points]
    if series.kind == "unnamed":
        return []
    return [[p] for p in points] if series.kind == "measured" else [points]


def _promise_box(panel: F.FrontPanel, x0: float, x1: float) -> tuple[float, float, float, float]:
    """Axes fractions that the words at the promised speed take."""
    at = float(np.log((panel.promise_x or x0) / x0) / np.log(x1 / x0))
    return at, 0.95, at + 0.16, 1.0


# --- bars ----------------------------------------------------------------------------------------------------------


def _components(record: I.BarsInfo) -> list[str]:
    return list(dict.fromkeys(c for _, bars in record.panels for b in bars for c, _ in b.shares))


def bars(record: I.BarsInfo) -> Canvas:
    """Stacked bars of shares, one panel a limit; totals at the right; the cheapest family on top."""
    panels = [p for p in record.panels if p[1]]
    most = max(len(b) for _, b in panels)
    names = _components(record)
    canvas = Canvas(record.name, PANEL_INCH[0] * 2, 1.1 + 0.34 * most + 0.2 * -(-len(names) // 7))
    grid = canvas.figure.subplots(1, len(panels), squeeze=False)[0]
    hues = colours(names)
    for axes, (title, rows) in zip(grid, panels, strict=True):
        for i, bar in enumerate(rows):
            left = 0.0
            for component, share in bar.shares:
                tip = canvas.tip(f"{bar.label}: {glossary.part(component)} {W.percent(share)}")
                axes.barh(i, share, left=left, height=0.72, color=hues[component], edgecolor=PAPER, linewidth=0.6)[0].set_gid(tip)
                if share > 0.11:
                    axes.text(left + share / 2, i, f"{share * 100:.0f}", ha="center", va="center", fontsize=7, color="#111111")
                left += share
            axes.text(1.02, i, W.number(bar.total), va="center", fontsize=7.5)
        axes.set(title=title, xlim=(0, 1), ylim=(most - 0.5, -0.5), xticks=[])
        axes.set_yticks(range(len(rows)), [glossary.label(b.family) for b in rows], fontsize=7.5)
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.text(1.02, -0.55, record.total_unit, fontsize=6.8, color=SOFT, va="bottom")
    handles = [mpl.patches.Patch(color=hues[c], label=glossary.part(c)) for c in names]
    canvas.figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(7, len(names)),
        frameon=False,
        fontsize=7.5,
        handlelength=1,
        columnspacing=1.3,
    )
    return canvas


def tornado(record: I.TornadoInfo) -> Canvas:
    """Elasticities, one panel a family."""
    columns = min(3, len(record.panels))
    rows = -(-len(record.panels) // columns)
    most = max(len(lines) for _, lines in record.panels)
    canvas = Canvas(record.name, PANEL_INCH[0] * 2, (0.75 + 0.22 * most) * rows)
    grid = canvas.figure.subplots(rows, columns, squeeze=False, sharex=True)
    reach = 1.15 * max(abs(e) for _, lines in record.panels for _, e in lines)
    for axes, (family, lines) in zip(grid.flat, record.panels, strict=False):
        for i, (name, slope) in enumerate(lines):
            axes.barh(i, slope, height=0.66, color="#D55E00" if slope > 0 else "#0072B2")[0].set_gid(
                canvas.tip(f"{glossary.label(name)}: {slope:+.3g}")
            )
            axes.text(slope, i, f" {slope:+.2f} ".replace("-", "−"), va="center", ha="left" if slope > 0 else "right", fontsize=6.5)
        axes.axvline(0, color=SOFT, lw=0.8)
        axes.set(title=glossary.label(family), xlim=(-reach * 1.15, reach * 1.15), ylim=(most - 0.4, -0.6))
        axes.set_yticks(range(len(lines)), [glossary.label(name) for name, _ in lines], fontsize=6.8)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    for axes in list(grid.flat)[len(record.panels) :]:
        axes.set_axis_off()
    canvas.figure.supxlabel(f"{glossary.label('elasticity')} ({glossary.unit('elasticity')})", fontsize=8.5)
    return canvas


# --- writing -------------------------------------------------------------------------------------------------------


def svg(canvas: Canvas, tooltips: bool = True) -> str:
    """The drawing as SVG text, tooltips inside the marks."""
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": canvas.name}):
        canvas.figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = re.sub(r"\s*<metadata>.*?</metadata>", "", text.getvalue(), flags=re.S)
    if tooltips:
        drawing = re.sub(
            r'<g id="([^"]+)">',
            lambda m: m[0] + (f"<title>{html.escape(canvas.tips[m[1]])}</title>" if m[1] in canvas.tips else ""),
            drawing,
        )
    return re.sub(r"[ \t]+\n", "\n", drawing)


def inline(drawing: str, alt: str) -> str:
    """An SVG for the page: no XML head, colours of the page, alternative text, no addresses."""
    body = drawing[drawing.index("<svg") :]
    body = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", body)

    def head(m: re.Match[str]) -> str:
        width = float(m[1].split()[2])
        kept = f' style="max-width:{width * SCALE:.0f}px;min-width:0"' if width < NARROW_PT else ""  # small pictures are not blown up
        return f'<svg role="img" aria-label="{html.escape(alt)}"{kept} viewBox="{m[1]}">'

    body = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', head, body, count=1)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.S)
    for stand_in, page in ON_PAGE.items():
        body = body.replace(stand_in, page)
    used = set(re.findall(r"""(?:url\(|xlink:href=")#([^)"]+)""", body))
    body = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", body)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return _compact(body.strip())


def _compact(body: str) -> str:
    """The same picture in fewer bytes: coordinates to a tenth of a point, no turns by nothing, no groups around one element."""
    body = re.sub(r'( (?:d|x|y)=")([^"]*)"', lambda m: m[1] + re.sub(r"(\d\.\d)\d+", r"\1", m[2]).replace("\n", " ") + '"', body)
    body = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", body)
    once = re.compile(r"<g>\n(<(?:path|use|text)\b[^>]*(?:/>|>[^<]*</text>))\n</g>")
    while (less := once.sub(r"\1", body)) != body:
        body = less
    return body


def share_styles(page: str) -> tuple[str, str]:
    """A page whose drawings name their styles by class, and the rules of these classes: every style is written once."""
    names: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        return re.sub(r' style="([^"]*)"', lambda m: f' class="{names.setdefault(m[1], f"k{len(names)}")}"', match[0])

    body = re.sub(r"<svg role=.*?</svg>", named, page, flags=re.S)
    return body, "\n".join(f".{name} {{ {style} }}" for style, name in names.items())


def file_svg(drawing: str) -> str:
    """An SVG to stand alone: on white paper."""
    return re.sub(r"(<svg [^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', drawing.replace(PAPER, "#ffffff"), count=1)


def png(canvas: Canvas, dots_per_inch: int = 130) -> bytes:
    """The drawing as PNG on white."""
    buffer = io.BytesIO()
    canvas.figure.savefig(buffer, format="png", dpi=dots_per_inch, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
