"""Can the imbalance be engineered away? One user's price against the batched one by speed, and what would close the gap."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import xarray as xr

from dse import glossary
from dse.report import tables as T
from dse.report import words as W
from dse.report.answers.charts import (
    BANDS,
    STATED,
    Axis,
    Drawn,
    Extra,
    Line,
    Pair,
    Section,
    band,
    label,
    lines,
    listed,
    pairs,
    pick,
    ranged,
)

esc = html.escape
STATED_RATIO = "ratio" + STATED
METHOD = (
    "Chips are bred for one user at each promised speed, and for any number of users. The ratio is the cost of a token for one user who "
    "keeps an instance busy over the least cost of the reference family at its best batch, at the same promise. Factors that close the "
    "gap: a parameter of the chip is scaled on the chip for one user alone, against the batched one as it is; prices that all owners face "
    "are scaled for both. Chips keep their layouts, and each side takes the chip that is then cheapest." + BANDS
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
    nearest = {f: _nearest(sub, f, facts["common"]) for f in served}
    close = [(f, *found) for f, found in nearest.items() if np.isfinite(found[1])]
    text = (
        f"{verdict} At {W.number(1 / head)} token/s/user the cheapest chip for one user alone, {label(first)}, asks "
        f"{_ratio(sub, first, head)} times what a token costs on a batched {against}; a {against} made for one user asks "
        f"{_ratio(sub, facts['against'], head)} times."
    )
    middle = {f: x for f in served if np.isfinite(x := pick(sub, "ratio_mid", family=f, limit=head))}
    likely = min(middle, key=lambda f: middle[f], default=first)
    if likely != first:
        text += f" By the medians of the samples it would be {label(likely)}, at {W.number(middle[likely])} times."
    if close and not away:
        f, parameter, factor = min(close, key=lambda x: abs(np.log(x[2])))
        text += f" The nearest single change that would do it: {glossary.label(parameter)} × {W.number(factor)} ({label(f)})."
    elif not away:
        text += f" No single parameter of the chip, changed by factors up to {W.number(facts['reach'])}, would do it"
        together = {f: x for f in served if np.isfinite(x := pick(sub, "together", family=f))}
        least = min(together, key=lambda f: together[f], default="")
        text += (
            f"; every parameter of {label(least)} improved at once by {W.number(together[least])} would (stated values)." if least else "."
        )
    return text


def _nearest(sub: xr.Dataset, family: str, common: list[str]) -> tuple[str, float]:
    """The parameter of the chip whose factor closes the gap with the least change."""
    row = np.where(np.isin(sub["changed"].values, common), np.nan, sub["closing"].sel(family=family).values)
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
    best = [min(((float(s.y[i]), s.family) for s in series if np.isfinite(s.y[i])), default=(np.nan, "")) for i in range(len(speed))]
    limits = [float(x) for x in sub["limit"].values]
    said = "; ".join(
        f"{_ratio(sub, who, limit)} ({label(who)}) at {W.number(1 / limit)} token/s/user"
        for (_, who), limit in zip(best, limits, strict=True)
        if who
    )
    caption = f"The least that one user alone pays, as a multiple of the price of a batched {against} at the same promise: {said}."
    return Drawn(
        f"{name}_speed",
        canvas,
        caption,
        f"Chart of one user's price over the batched price against speed, one line a family. {caption}",
        rows,
    )


def closing(sub: xr.Dataset, name: str, served: list[str], facts: dict[str, Any]) -> Drawn:
    """How far the best single change goes, by family, and by how much everything at once would have to improve."""
    head = float(sub["limit"].values[np.argmin(np.abs(np.log(sub["limit"].values / facts["tpot_s"])))])
    shown, said, rows = [], [], []
    for f in served:
        gains, now = sub["gain"].sel(family=f).values, pick(sub, STATED_RATIO if STATED_RATIO in sub else "ratio", family=f, limit=head)
        if not np.isfinite(gains).any():
            continue
        p = int(np.nanargmin(np.where(np.isin(sub["changed"].values, facts["common"]), np.inf, gains)))
        parameter, factor = str(sub["changed"].values[p]), float(sub["gain_at"].sel(family=f).values[p])
        words = f"{glossary.label(parameter)} × {W.number(factor)}"
        tip = f"{label(f)}: {W.number(now)} times the batched price; {W.number(float(gains[p]))} with {words}"
        shown.append(Pair(f, now, float(gains[p]), words, tip))
        together = pick(sub, "together", family=f)
        said.append(f"{label(f)} {W.number(together)}" if np.isfinite(together) else f"{label(f)} more than {W.number(facts['reach'])}")
    for f in served:
        for k in sub["changed"].values:
            at = {"family": f, "changed": str(k)}
            found = {n: pick(sub, n, **at) for n in ("closing", "gain", "gain_at")}
            rows.append({"family": f, "parameter": str(k), **found, "together": pick(sub, "together", family=f)})
    extra = Extra(down=[(1.0, "the batched price"), (facts["level"], f"{W.number(facts['level'])} times")])
    title = f"one user's price over that of a batched {label(facts['against'])}; hollow: stated values, full: best single change"
    canvas = pairs(f"{name}_closing", shown, Axis(title), extra)
    best = min(shown, key=lambda r: r.full)
    caption = (
        f"From the stated values the best single change within {W.number(facts['reach'])}, at {W.number(1 / head)} token/s/user: "
        f"{label(best.family)} with {best.words} comes to {W.number(best.full)} times the batched price. If every parameter of the chip "
        f"improved at once, these factors would bring one user to {W.number(facts['level'])} times: {'; '.join(said)}."
    )
    alt = f"Pairs of marks of the ratio, now and after the best single change, one line a family. {caption}"
    return Drawn(f"{name}_closing", canvas, caption, alt, rows)


def table(sub: xr.Dataset, served: list[str], head: float, facts: dict[str, Any]) -> str:
    """Cost and ratios of the families at the headline limit."""
    against = label(facts["against"])
    top = [
        "Family",
        "One user, USD/Mtoken (stated)",
        "Best batch, USD/Mtoken (stated)",
        "Its own ratio (stated)",
        f"Over a batched {against}",
    ]
    rows = []
    for f in served:
        at = {"family": f, "limit": head}
        rows.append([esc(label(f)), *(W.number(pick(sub, n, **at)) for n in ("alone", "best", "own_ratio")), esc(_ratio(sub, f, head))])
    return T.table(top, rows, "cases", esc(f"At {W.number(1 / head)} token/s/user or faster"))
