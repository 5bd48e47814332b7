"""What do the breakdowns, the limits and the elasticities show? Pure data from the Dataset, with captions; tested, not drawn.

Every record has ``rows``: the figure as a table, which is written beside it as CSV. (Fronts: ``fronts``.)
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


@dataclass(frozen=True)
class Bar:
    """One stacked bar of shares; ``total`` in the shown unit."""

    family: str
    label: str
    total: float
    shares: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class BarsInfo:
    """Breakdowns of the families' winners, one panel a limit."""

    name: str
    quantity: str
    total_unit: str
    panels: tuple[tuple[str, tuple[Bar, ...]], ...]
    caption: str
    alt: str

    @property
    def rows(self) -> list[Row]:
        return [
            {"panel": title, "family": b.family, "design": b.label, f"total_{self.total_unit}": b.total, "component": c, "share": s}
            for title, bars in self.panels
            for b in bars
            for c, s in b.shares
        ]


@dataclass(frozen=True)
class StripInfo:
    """What limits: family by limit, the name of the largest part; empty where nothing is feasible."""

    name: str
    families: tuple[str, ...]
    limits_s: tuple[float, ...]
    bounds: tuple[tuple[str, ...], ...]
    winner: tuple[str, ...]
    caption: str

    @property
    def rows(self) -> list[Row]:
        return [
            {"family": f, "tpot_limit_s": t, "bound": b, "cheapest": int(f == w)}
            for f, line in zip(self.families, self.bounds, strict=True)
            for t, b, w in zip(self.limits_s, line, self.winner, strict=True)
        ]


@dataclass(frozen=True)
class TornadoInfo:
    """Elasticities of the cost at each family's winner, largest first: (family, ((parameter, elasticity), ...))."""

    name: str
    panels: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]
    caption: str
    alt: str

    @property
    def rows(self) -> list[Row]:
        return [{"family": f, "parameter": p, "elasticity": e} for f, lines in self.panels for p, e in lines]


MOST_BARS = 8  # parameters in one tornado: as many as can be read


# --- breakdowns ----------------------------------------------------------------------------------------------------


def shown_limits(ds: xr.Dataset) -> list[int]:
    """Indices of the headline limit and two others (a looser and a tighter one that something meets), loosest first."""
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    met = [int(i) for i in np.argsort(-v.limits_s) if V.winners(v, int(i))]
    here = V.limit_index(v, limit_s)
    if here not in met:
        return met[:: max(1, len(met) // 3)][:3]
    at = met.index(here)
    looser, tighter = met[:at][:1], met[at + 1 :][-1:] if len(met[at + 1 :]) < 3 else [met[at + 1 + len(met[at + 1 :]) // 2]]
    return [*looser, here, *tighter]


def _bar(v: V.CaseView, variable: str, unit_name: str, total_name: str, design: int, limit: int) -> Bar | None:
    values = {k: x for k, x in V.parts(v, variable, design, limit).items() if x > 0}
    whole = sum(values.values())
    if not values:
        return None
    total = V.cell(v, total_name, design, limit) if total_name else whole
    shares = tuple((k, x / whole) for k, x in values.items())
    return Bar(str(v.family[design]), W.design_name(v, design), (total if total is not None else whole) * glossary.scale(unit_name), shares)


def _bars_caption(quantity: str, lead: Bar | None, where: str) -> str:
    if lead is None:
        return "Nothing is feasible at these limits."
    ranked = sorted(lead.shares, key=lambda s: -s[1])
    parts = ", ".join(f"{glossary.part(c)} {W.percent(s)}" for c, s in ranked[:3])
    return f"{where}, the largest parts of the {quantity} of the winner ({lead.label}): {parts}."


def _breakdown(ds: xr.Dataset, name: str, variable: str, total_name: str, quantity: str) -> BarsInfo:
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    unit_name = total_name or variable
    panels, lead, where = [], None, ""
    for limit in shown_limits(ds):
        bars = tuple(b for _, d, _ in V.winners(v, limit) if (b := _bar(v, variable, unit_name, total_name, d, limit)))
        title = f"at most {W.quantity('tpot_limit', v.limits_s[limit])} per token"
        panels.append((title, bars))
        if limit == V.limit_index(v, limit_s) and bars:
            lead, where = bars[0], title[0].upper() + title[1:]
    caption = _bars_caption(quantity, lead, where)
    alt = f"Stacked bars of shares of {glossary.label(variable)}, one bar a family, {len(panels)} limits. {caption}"
    return BarsInfo(name, variable, glossary.unit(unit_name) or "1", tuple(panels), caption, alt)


def breakdowns(ds: xr.Dataset) -> list[BarsInfo]:
    """Where the time, the dollar and the die (and its cost) go, for each family's winner at up to three limits of the headline case."""
    wanted = [
        ("time", "time_s", "tpot_s", "time per token"),
        ("dollar", "cost_usd_per_s", V.COST, "cost"),
        ("die", "area_mm2", "", "die area"),
        ("chip_cost", "unit_cost_usd", "", "cost of one chip"),
    ]
    found = [
        _breakdown(ds, name, variable, total if total in ds else "", words) for name, variable, total, words in wanted if variable in ds
    ]
    return [info for info in found if any(bars for _, bars in info.panels)]


# --- what limits, what matters ---------------------------------------------------------------------------------------


def bound_strip(ds: xr.Dataset, case: V.Case) -> StripInfo:
    """What limits each family's best design at each limit of a case."""
    v = V.view(ds, case)
    order = [int(i) for i in np.argsort(-v.limits_s)]
    rankings = {t: V.winners(v, t) for t in order}
    names = V.families(ds)
    best = {t: {family: design for family, design, _ in rankings[t]} for t in order}
    lines = tuple(tuple(V.cell(v, "bound", best[t][f], t) or "" if f in best[t] else "" for t in order) for f in names)
    winner = tuple(rankings[t][0][0] if rankings[t] else "" for t in order)
    found = [(t, V.cell(v, "bound", rankings[t][0][1], t)) for t in order if rankings[t]]
    caption = f"{V.case_name(ds, case)}: nothing is feasible."
    if found:
        runs: list[list[Any]] = []
        for t, bound in found:
            if runs and runs[-1][0] == bound:
                runs[-1][2] = t
            else:
                runs.append([bound, t, t])
        said = [
            f"{glossary.part(b or '')} ({W.shown('tpot_limit', v.limits_s[a])}"
            + ("" if a == z else f" to {W.shown('tpot_limit', v.limits_s[z])}")
            + " ms)"
            for b, a, z in runs
        ]
        caption = (
            f"{V.case_name(ds, case)}: the cheapest design is limited by "
            + ", then ".join(said)
            + (" as the limit tightens." if len(said) > 1 else " throughout.")
        )
    return StripInfo("bound", tuple(names), tuple(float(v.limits_s[t]) for t in order), lines, winner, caption)


WANTED = ("memory_bandwidth_byte_per_s", "sram_bandwidth_byte_per_s", "scale_up_bandwidth_byte_per_s", "peak_flop_per_s", "tdp_w")


def tornado(ds: xr.Dataset) -> TornadoInfo | None:
    """Elasticities at the winners of the headline case; None where the Dataset has none."""
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    panels = []
    for family, _, _ in V.winners(v, V.limit_index(v, limit_s)):
        ranked = sorted(V.elasticities(ds, case, family).items(), key=lambda e: (-abs(e[1]), e[0]))[:MOST_BARS]
        if ranked:
            panels.append((family, tuple(ranked)))
    if not panels:
        return None
    family, lines = panels[0]
    name, slope = lines[0]
    caption = (
        f"{V.case_name(ds, case)}, at most {W.quantity('tpot_limit', limit_s)} per token: "
        f"what moves the winner ({glossary.label(family)}) most is {glossary.label(name)}: "
        f"1{W.NARROW}% more of it changes the cost by {W.number(slope, 2).replace('-', '−')}{W.NARROW}%."
    )
    wanted = [(n, e) for n, e in lines if n in WANTED and n != name]
    if wanted:
        said = ", ".join(f"{glossary.label(n)} {W.number(e, 2).replace('-', '−')}{W.NARROW}%" for n, e in wanted)
        caption += f" 1{W.NARROW}% more of what a designer can buy: {said}."
    ranges = V.effects(ds, case, family)
    if ranges:
        widest = max(ranges, key=lambda n: abs(ranges[n][1] - ranges[n][0]))
        ends = " to ".join(W.percent(x, signed=True) for x in sorted(ranges[widest]))
        said = widest.partition(": ")[2] or widest
        caption += f" Of all stated ranges (90{W.NARROW}%) that of {said} moves it most: {ends}."
    alt = f"Bars of elasticities of the cost, {len(panels)} families, up to {MOST_BARS} parameters each. {caption}"
    return TornadoInfo("elasticity", tuple(panels), caption, alt)
