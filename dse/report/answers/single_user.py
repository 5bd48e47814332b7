"""Can the imbalance be engineered away? One user's price against the batched one by speed, and what would close the gap."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.ticker import FuncFormatter

from dse import glossary
from dse.report import draw as D
from dse.report import tables as T
from dse.report import words as W
from dse.report.answers.charts import Axis, Drawn, Extra, Line, Section, band, label, lines, listed, look, pick, ranged

esc = html.escape
METHOD = (
    "Chips are bred for one user at each promised speed, and for any number of users. The ratio is the cost of a token for one user who "
    "keeps an instance busy over the least cost of the reference family at its best batch, at the same promise. Factors that close the "
    "gap: a parameter of the chip is scaled on the chip for one user alone, against the batched one as it is; prices that all owners face "
    "are scaled for both. Chips keep their layouts, and each side takes the chip that is then cheapest. Bands: "
    "90 % of samples of the uncertain inputs, chips and layouts held."
)


def _ratio(sub: xr.Dataset, family: str, limit: float) -> str:
    return ranged(sub, "ratio", family=family, limit=limit)


def section(ds: xr.Dataset, sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Section:
    """The section of one analysis of a single user."""
    head = float(sub["limit"].values[np.argmin(np.abs(np.log(sub["limit"].values / facts["tpot_s"])))])
    ratio = {str(f): pick(sub, "ratio", family=str(f), limit=head) for f in sub["family"].values}
    served = sorted((f for f, x in ratio.items() if np.isfinite(x)), key=lambda f: ratio[f])
    return Section(
        sentence(sub, served, head, facts),
        METHOD,
        (by_speed(sub, name, facts), closing(sub, name, served, facts)),
        (table(sub, served, head, facts),),
    )


def sentence(sub: xr.Dataset, served: list[str], head: float, facts: dict[str, Any]) -> str:
    """The finding at the headline limit."""
    against = label(facts["against"])
    if not served:
        return f"No family serves one user within {W.quantity('tpot_limit', head)} per token."
    first = served[0]
    away = [f for f in served if pick(sub, "ratio", family=f, limit=head) <= facts["level"]]
    verdict = (
        f"Yes, within a factor of {W.number(facts['level'])}: {listed([label(f) for f in away])}."
        if away
        else f"No family brings one user within {W.number(facts['level'])} times the batched price."
    )
    close = [(f, *_nearest(sub, f)) for f in served if np.isfinite(_nearest(sub, f)[1])]
    text = (
        f"{verdict} At {W.number(1 / head)} token/s/user the cheapest chip for one user alone, {label(first)}, asks "
        f"{_ratio(sub, first, head)} times what a token costs on a batched {against}; a {against} made for one user asks "
        f"{_ratio(sub, facts['against'], head)} times."
    )
    if close and not away:
        f, parameter, factor = min(close, key=lambda x: abs(np.log(x[2])))
        text += f" The nearest single change that would do it: {glossary.label(parameter)} × {W.number(factor)} ({label(f)})."
    elif not away:
        text += f" No single parameter, changed by factors up to {W.number(facts['reach'])}, would."
    return text


def _nearest(sub: xr.Dataset, family: str) -> tuple[str, float]:
    """The parameter whose factor closes the gap with the least change."""
    row = sub["closing"].sel(family=family).values
    if not np.isfinite(row).any():
        return "", float("nan")
    i = int(np.nanargmin(np.abs(np.log(row))))
    return str(sub["changed"].values[i]), float(row[i])


def by_speed(sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Drawn:
    """Ratio by promised speed."""
    speed = 1 / sub["limit"].values
    series, rows = [], []
    for f in (str(x) for x in sub["family"].values):
        y = sub["ratio"].sel(family=f).values
        if not np.isfinite(y).any():
            continue
        tips = [f"{label(f)}: {W.number(b)} times the batched price at {W.number(a)} token/s/user" for a, b in zip(speed, y, strict=True)]
        series.append(Line(label(f), f, speed, y, **band(sub, "ratio", family=f), tips=tips))
        own = sub["own_ratio"].sel(family=f).values
        for i, x in enumerate(speed):
            cost = float(sub["alone"].sel(family=f).values[i])
            rows.append(
                {
                    "family": f,
                    "token_per_s_per_user": float(x),
                    "usd_per_million_alone": cost,
                    "ratio": float(y[i]),
                    "own_ratio": float(own[i]),
                }
            )
    extra = Extra(across=[(1.0, "the batched price"), (facts["level"], f"{W.number(facts['level'])} times")])
    least = min(0.8, *(float(np.nanmin(s.y)) for s in series)) if series else 0.8
    against = label(facts["against"])
    canvas = lines(
        f"{name}_speed",
        series,
        Axis("promised speed, token/s/user, faster →"),
        Axis(f"one user's price over that of a batched {against}", least=least),
        extra,
    )
    best = [min(((float(s.y[i]), s.label) for s in series if np.isfinite(s.y[i])), default=(np.nan, "")) for i in range(len(speed))]
    said = "; ".join(f"{W.number(r)} ({who}) at {W.number(v)} token/s/user" for (r, who), v in zip(best, speed, strict=True) if who)
    caption = f"The least that one user alone pays, as a multiple of the price of a batched {against} at the same promise: {said}."
    return Drawn(
        f"{name}_speed",
        canvas,
        caption,
        f"Chart of one user's price over the batched price against speed, one line a family. {caption}",
        rows,
    )


def closing(sub: xr.Dataset, name: str, served: list[str], facts: dict[str, Any]) -> Drawn:
    """Which single change closes the gap, by family: a dot for each parameter that does."""
    rows: list[dict[str, Any]] = [
        {
            "family": f,
            "parameter": str(p),
            "factor": float(sub["closing"].sel(family=f, changed=p)),
            "least_ratio_within_reach": float(sub["gain"].sel(family=f, changed=p)),
        }
        for f in served
        for p in sub["changed"].values
    ]
    names = [
        str(p) for p in sub["changed"].values if any(np.isfinite(r["factor"]) and r["factor"] != 1 for r in rows if r["parameter"] == p)
    ]
    canvas = D.Canvas(f"{name}_closing", 8.6, 1.2 + 0.3 * max(len(names), 1))
    axes = canvas.figure.subplots()
    for r in rows:
        if r["parameter"] in names and np.isfinite(r["factor"]):
            hue, marker = look(r["family"])
            tip = canvas.tip(f"{label(r['family'])}: {glossary.label(r['parameter'])} × {W.number(r['factor'])}")
            axes.plot([r["factor"]], [names.index(r["parameter"])], marker=marker, ms=6.5, color=hue, ls="", gid=tip)
    for f in served:
        hue, marker = look(f)
        axes.plot([], [], marker=marker, color=hue, ls="", label=label(f))
    axes.set_yticks(range(len(names)), [glossary.label(p) for p in names])
    axes.set(
        xscale="log",
        xlim=(1 / facts["reach"] / 1.2, facts["reach"] * 1.2),
        xlabel="factor on the parameter",
        ylim=(-0.6, max(len(names), 1) - 0.4),
    )
    axes.xaxis.set_major_formatter(FuncFormatter(D._plain))
    axes.axvline(1.0, color=D.SOFT, lw=0.9, ls=(0, (4, 3)))
    axes.grid(True)
    canvas.figure.legend(loc="outside right upper", frameon=False, fontsize=7.5)
    closers = {f: _nearest(sub, f) for f in served}
    said = [f"{label(f)}: {glossary.label(p)} × {W.number(x)}" for f, (p, x) in closers.items() if np.isfinite(x)]
    never = [label(f) for f, (_, x) in closers.items() if not np.isfinite(x)]
    caption = (
        f"Factors on a single parameter at which one user pays {W.number(facts['level'])} times the batched price of a "
        f"{label(facts['against'])} or less, at {W.number(1 / facts['tpot_s'])} token/s/user. Smallest change by family: "
        + ("; ".join(said) if said else "none")
        + (f". No single change up to {W.number(facts['reach'])} times does it for {listed(never)}." if never else ".")
    )
    return Drawn(f"{name}_closing", canvas, caption, f"Dots of break-even factors by parameter and family. {caption}", rows)


def table(sub: xr.Dataset, served: list[str], head: float, facts: dict[str, Any]) -> str:
    """Cost and ratios of the families at the headline limit."""
    against = label(facts["against"])
    top = ["Family", "One user, USD/Mtoken", "Best batch, USD/Mtoken", "Its own ratio", f"Over a batched {against}"]
    rows = []
    for f in served:
        at = {"family": f, "limit": head}
        rows.append([esc(label(f)), *(W.number(pick(sub, n, **at)) for n in ("alone", "best", "own_ratio")), esc(_ratio(sub, f, head))])
    return T.table(top, rows, "cases", esc(f"At {W.number(1 / head)} token/s/user or faster"))
