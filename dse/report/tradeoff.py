"""What does less of a third objective cost? Cuts through the front of three objectives, one panel a promise. ``info`` and ``draw``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from dse import glossary
from dse.pareto import front
from dse.report import draw as D
from dse.report import page as P
from dse.report import view as V
from dse.report import words as W

METHOD = (
    "Each point is a chip of the result with a layout that no other point of its family beats in cost, time per token and the third "
    "objective together. A panel shows those that keep its promise and are best there in the two others. The search bred chips for "
    "owners who weigh the third objective more (or limit it more tightly); between points the lines guide the eye only."
)
PANELS = 3


@dataclass(frozen=True)
class Cut:
    """Points of a family that keep a promise: third objective and cost, in order."""

    family: str
    limit_s: float
    third: tuple[float, ...]
    cost: tuple[float, ...]
    design: tuple[str, ...]


@dataclass(frozen=True)
class TradeoffInfo:
    """Cuts of the front of three, by promise."""

    name: str
    third: str
    panels: tuple[tuple[float, tuple[Cut, ...]], ...]
    caption: str
    alt: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [
            {"tpot_limit_s": limit, "family": c.family, "design_id": d, self.third: x, V.COST: y}
            for limit, cuts in self.panels
            for c in cuts
            for d, x, y in zip(c.design, c.third, c.cost, strict=True)
        ]


def _limits(ds: xr.Dataset) -> list[float]:
    """The headline's promise, one that is looser and one that is tighter and still kept by somebody."""
    _, head = V.headline(ds)
    kept = [float(x) for x in ds["tpot_limit"].values if (ds["tradeoff_tpot_s"].values <= x * (1 + 1e-9)).any()]
    at = min(range(len(kept)), key=lambda i: abs(kept[i] - head))
    return [kept[i] for i in sorted({0, at, max(at, len(kept) - 1 - (len(kept) - 1 - at) // 2)})][:PANELS]


def info(ds: xr.Dataset) -> TradeoffInfo | None:
    """The cuts of a result that has a front of three."""
    if "tradeoff_design" not in ds or not ds.sizes["tradeoff"]:
        return None
    third = str(ds.attrs["objectives"]).split(",")[2]
    x, y, t = (ds[f"tradeoff_{n}"].values for n in (third, V.COST, "tpot_s"))
    family, design = ds["tradeoff_family"].values.astype(str), ds["tradeoff_design"].values.astype(str)
    panels = []
    for limit in _limits(ds):
        cuts = []
        for name in dict.fromkeys(family):
            at = np.flatnonzero((family == name) & (t <= limit * (1 + 1e-9)))
            chosen = at[front(x[at], y[at], "lower", "lower")]
            if len(chosen):
                cuts.append(Cut(name, limit, tuple(x[chosen].tolist()), tuple(y[chosen].tolist()), tuple(design[chosen].tolist())))
        panels.append((limit, tuple(cuts)))
    caption = _caption(ds, third, panels)
    alt = f"Cost against {glossary.label(third)}, one panel a promise. {caption}"
    return TradeoffInfo("tradeoff", third, tuple(panels), caption, alt)


def _caption(ds: xr.Dataset, third: str, panels: list[tuple[float, tuple[Cut, ...]]]) -> str:
    """What the cheapest family can save of the third objective, and at which cost."""
    _, head = V.headline(ds)
    limit, cuts = min(panels, key=lambda p: abs(p[0] - head))
    if not cuts:
        return f"No design keeps {1e3 * limit:g} ms."
    best = min(cuts, key=lambda c: min(c.cost))
    least, cheapest = int(np.argmin(best.third)), int(np.argmin(best.cost))
    saved, dearer = 1 - best.third[least] / best.third[cheapest], best.cost[least] / best.cost[cheapest] - 1
    case, _ = V.headline(ds)
    return (
        f"{V.case_name(ds, case)}, at most {1e3 * limit:g} ms per token: the cheapest family, {glossary.label(best.family)}, can have "
        f"{W.percent(saved)} less {glossary.label(third).lower()} for {W.percent(dearer)} more cost."
    )


def draw(record: TradeoffInfo) -> D.Canvas:
    """One panel a promise, all on the same axes."""
    canvas = D.Canvas(record.name, D.PANEL_INCH[0] * 2, D.PANEL_INCH[1])
    grid = canvas.figure.subplots(1, len(record.panels), squeeze=False, sharex=True, sharey=True)[0]
    x, y = ([v for _, cuts in record.panels for c in cuts for v in getattr(c, n)] for n in ("third", "cost"))
    x0, x1, y0, y1 = (min(x) / 1.2, max(x) * 1.2, min(y) / 1.3, max(y) * 1.3) if x else (1.0, 10.0, 1.0, 10.0)
    seen: dict[str, Any] = {}
    for axes, (limit, cuts) in zip(grid, record.panels, strict=True):
        axes.set(xscale="log", yscale="log", xlim=(x0, x1), ylim=(y0, y1), title=f"at most {1e3 * limit:g} ms per token")
        D._log_axis(axes.xaxis, x0, x1)
        D._log_axis(axes.yaxis, y0, y1)
        axes.grid(True)
        axes.set_xlabel(glossary.axis(record.third))
        for c in cuts:
            hue, marker = D._family(c.family)
            (line,) = axes.plot(c.third, c.cost, color=hue, marker=marker, ms=3.5, lw=1.0)
            seen[c.family] = line
            for px, py, name in zip(c.third, c.cost, c.design, strict=True):
                tip = canvas.tip(f"{name}: {W.number(py)} USD, {W.number(px)} {glossary.unit(record.third)}")
                axes.plot([px], [py], marker=marker, ms=6, ls="", alpha=0.0, gid=tip)
    grid[0].set_ylabel(glossary.axis(V.COST))
    canvas.figure.legend(
        list(seen.values()), [glossary.label(f) for f in seen], loc="outside lower center", ncols=min(6, max(len(seen), 1)), frameon=False
    )
    return canvas


def section(page: P.Page) -> None:
    """The section of the page, where a study has three objectives."""
    record = info(page.ds)
    if record is not None:
        title = glossary.label(record.third)
        page.add(
            f'<h2 id="tradeoff">What does less of a third objective cost? {title}</h2>',
            P.figure(page, record, draw, METHOD, [record.third, V.COST, "tpot_s"]),
        )
