"""Which fronts does a figure show? Cost or throughput over promised speed: families, chips that exist, measurements; pure data, tested.

``FrontInfo.rows`` is the figure as a table, which is written beside it as CSV.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from dse import glossary
from dse.report import view as V
from dse.report import words as W

Row = dict[str, Any]
MOST_NAMED = 6  # chips that carry a name in one of several panels: as many as can be read
MOST_NAMED_ALONE = 12  # the same in a figure of one panel


@dataclass(frozen=True)
class Point:
    """One mark: shown values and its tooltip."""

    x: float
    y: float
    tip: str
    design_id: str
    limit_s: float | None


@dataclass(frozen=True)
class Series:
    """A line of marks. ``kind``: front, below_4_bit, real, claim, unnamed (a real chip without label), or measured."""

    kind: str
    label: str
    family: str
    points: tuple[Point, ...]
    named: int  # index of the point that carries the label


@dataclass(frozen=True)
class Band:
    """What a certificate leaves open under the front of a family: from the bound to the best design found, at each promised speed."""

    family: str
    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class FrontPanel:
    """One case."""

    title: str
    series: tuple[Series, ...]
    promise_x: float | None  # promised speed, drawn as a vertical line
    bands: tuple[Band, ...] = ()


@dataclass(frozen=True)
class FrontInfo:
    """Fronts of all families over promised speed, one panel a case."""

    name: str
    x: str
    y: str
    columns: int
    panels: tuple[FrontPanel, ...]
    caption: str
    alt: str

    @property
    def rows(self) -> list[Row]:
        return [
            {
                "panel": p.title,
                "series": s.label,
                "kind": s.kind,
                "family": s.family,
                "design_id": q.design_id,
                "tpot_limit_s": q.limit_s,
                self.x: q.x,
                self.y: q.y,
            }
            for p in self.panels
            for s in p.series
            for q in s.points
        ]


def _point(v: V.CaseView, design: int, limit: int, y: str) -> Point:
    x_value, y_value = float(v.grid(V.SPEED)[design, limit]), float(v.grid(y)[design, limit])
    tip = (
        f"{W.design_name(v, design)}: {W.quantity(V.SPEED, x_value)}, {W.quantity(V.COST, float(v.grid(V.COST)[design, limit]))}; "
        f"{W.layout(v, design, limit)}"
    )
    return Point(x_value * glossary.scale(V.SPEED), y_value * glossary.scale(y), tip, str(v.ids[design]), float(v.limits_s[limit]))


def _line(v: V.CaseView, kind: str, label: str, family: str, cells: list[tuple[int, int]], y: str, named: int = -1) -> list[Series]:
    if not cells:
        return []
    return [Series(kind, label, family, tuple(_point(v, d, t, y) for d, t in cells), named % len(cells))]


def _family_series(v: V.CaseView, family: str, y: str) -> list[Series]:
    among = v.candidate & (v.family == family)
    cells = V.front(v, among, y)
    below = V.front(v, among, y, below_4_bit=True)
    best = {t: float(v.grid(y)[d, t]) for d, t in cells}
    sign = 1 if glossary.better(y) == "lower" else -1
    gains = [(d, t) for d, t in below if t not in best or sign * float(v.grid(y)[d, t]) < sign * best[t]]
    return _line(v, "front", glossary.label(family), family, cells, y) + _line(
        v, "below_4_bit", f"{glossary.label(family)}, < 4 bit", family, gains, y
    )


def _label_order(v: V.CaseView, y: str, limit: int) -> list[int]:
    """Chips that are not hypothetical, those most worth a name first: the user's own, those on their common front, then the best here."""
    real = (v.status != "hypothetical") & (v.family != V.OTHER) & v.feasible.any(axis=1)
    together = {d for d, _ in V.front(v, real, y)}
    sign = 1 if glossary.better(y) == "lower" else -1
    here = np.where(v.feasible[:, limit], sign * v.grid(y)[:, limit].astype(float), np.inf)
    mine = v.status == "proposed"
    return sorted((int(d) for d in np.flatnonzero(real)), key=lambda d: (not mine[d], d not in together, here[d], str(v.ids[d])))


def _real_series(v: V.CaseView, y: str, limit: int, most_named: int) -> list[Series]:
    """Chips that are not hypothetical, the first ``most_named`` with a name; the mark is the point nearest to the headline limit."""
    series: list[Series] = []
    for place, design in enumerate(_label_order(v, y, limit)):
        kind = ("claim" if v.status[design] == "claim" else "real") if place < most_named else "unnamed"
        alone = np.arange(len(v.ids)) == design
        cells = V.front(v, alone, y) or V.front(v, alone, y, below_4_bit=True)
        named = min(range(len(cells)), key=lambda i: abs(np.log(v.limits_s[cells[i][1]] / v.limits_s[limit]))) if cells else 0
        suffix = {"claim": " (claim)", "announced": " (announced)", "proposed": " (proposed)"}.get(str(v.status[design]), "")
        series += _line(v, kind, W.short(str(v.chip[design]) or str(v.ids[design])) + suffix, str(v.family[design]), cells, y, named)
    return series


def _chip_hour_usd(v: V.CaseView, chip: str) -> float | None:
    """Median cost of a chip-hour of a chip over the limits of a case, or None."""
    if "usd_per_chip_hour" not in v.data or chip not in v.ids:
        return None
    values = v.grid("usd_per_chip_hour")[int(np.flatnonzero(v.ids == chip)[0])].astype(float)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _measured_series(ds: xr.Dataset, v: V.CaseView, y: str) -> list[Series]:
    """Measured points of a case, one series a chip; their cost is the measured throughput at this model's price of a chip-hour."""
    found: dict[str, list[Point]] = {}
    for row in V.attr(ds, "measured", []):
        if (row.get("model"), row.get("workload")) != (v.case.model, v.case.workload):
            continue
        rate, value = float(row[V.THROUGHPUT]), None
        hour = _chip_hour_usd(v, row["chip"])
        if y == V.THROUGHPUT:
            value = rate
        elif y == V.COST and hour is not None:
            value = hour / 3600 / rate * 1e6
        if value is None:
            continue
        label = row.get("label") or f"{row['chip']}, measured"
        tip = f"{label}: {W.quantity(V.SPEED, row[V.SPEED])}, {W.quantity(V.THROUGHPUT, rate)} (measured; {row.get('source', '')})"
        point = Point(float(row[V.SPEED]), value * glossary.scale(y), tip, row["chip"], None)
        found.setdefault(row["chip"], []).append(point)
    series = []
    for chip, points in found.items():
        here = np.flatnonzero(v.ids == chip)
        family = str(v.family[here[0]]) if len(here) else ""
        name = W.short(str(v.chip[here[0]])) if len(here) else chip
        series.append(Series("measured", f"{name}, measured", family, tuple(sorted(points, key=lambda p: (p.x, p.y))), len(points) - 1))
    return series


def _bands(ds: xr.Dataset, v: V.CaseView, y: str) -> tuple[Band, ...]:
    """Bands under the fronts of the headline case, where bounds are certified: at a speed, no design is cheaper than the bounds of all
    limits that this speed meets."""
    if y != V.COST or v.case != V.headline(ds)[0]:
        return ()
    bounds: dict[str, list[tuple[float, float]]] = {}
    for r in V.attr(ds, "certificates", []):
        if r.get("lower_bound"):
            bounds.setdefault(r["family"], []).append((float(r["tpot_limit_s"]), float(r["lower_bound"]) * glossary.scale(y)))
    found = []
    for family in V.families(ds):
        cells = V.front(v, v.candidate & (v.family == family), y)
        points, low = [], []
        for d, t in cells:
            met = [bound for limit_s, bound in bounds.get(family, []) if v.grid(V.SPEED)[d, t] * limit_s >= 1]
            if met:
                points.append(_point(v, d, t, y))
                low.append(min(max(met), points[-1].y))
        if points:
            found.append(Band(family, tuple(p.x for p in points), tuple(low), tuple(p.y for p in points)))
    return tuple(found)


def _front_caption(ds: xr.Dataset, y: str, v: V.CaseView, limit: int) -> str:
    if y == V.COST:
        return W.winner_sentence(ds, v, limit) + " " + W.existing_sentence(v, limit)
    best = [
        (family, max(float(v.grid(y)[d, t]) for d, t in cells))
        for family in V.families(ds)
        if (cells := [c for c in V.front(v, v.candidate & (v.family == family), y) if v.grid(V.SPEED)[c] * v.limits_s[limit] >= 1])
    ]
    if not best:
        return f"{V.case_name(ds, v.case)}: no design meets the limit."
    best.sort(key=lambda row: -row[1])
    text = (
        f"{V.case_name(ds, v.case)}, at {W.number(1 / v.limits_s[limit])} token/s/user or faster: most per chip is "
        f"{W.quantity(y, best[0][1])} ({glossary.label(best[0][0])})"
    )
    return text + (f"; least of the families {W.quantity(y, best[-1][1])} ({glossary.label(best[-1][0])})." if len(best) > 1 else ".")


def fronts(ds: xr.Dataset, y: str, scenario: str, only: V.Case | None = None, name: str = "") -> FrontInfo:
    """Fronts of ``y`` over interactivity: one panel for each case of an owner's view (or one case only)."""
    first, limit_s = V.headline(ds)
    chosen = [only] if only else V.cases(ds, scenario)
    panels = []
    for case in chosen:
        v = V.view(ds, case)
        limit = V.limit_index(v, limit_s)
        series = [s for family in V.families(ds) for s in _family_series(v, family, y)] if (v.status == "hypothetical").any() else []
        series += _real_series(v, y, limit, MOST_NAMED_ALONE if only else MOST_NAMED) + _measured_series(ds, v, y)
        panels.append(FrontPanel(V.case_name(ds, case), tuple(series), 1 / limit_s, _bands(ds, v, y)))
    lead = V.view(ds, V.Case(first.model, first.workload, scenario) if only is None else only)
    caption = _front_caption(ds, y, lead, V.limit_index(lead, limit_s))
    lines = sorted({s.label for p in panels for s in p.series if s.kind == "front"})
    alt = (
        f"Log-log chart of {glossary.axis(y)} against {glossary.axis(V.SPEED)}, {len(panels)} panels, "
        f"one line each for {', '.join(lines)}. {caption}"
    )
    columns = 1 if only else min(len(ds["workload"]), len(chosen))
    return FrontInfo(name or f"front_{y}_{scenario}", V.SPEED, y, columns, tuple(panels), caption, alt)
