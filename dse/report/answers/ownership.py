"""Rent, buy or build: total cost against lifetime tokens, and the tokens from which a chip of one's own pays."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import xarray as xr

from dse.report import tables as T
from dse.report import words as W
from dse.report.answers.charts import BANDS, STATED, Axis, Drawn, Extra, Line, Section, band, label, lines, pick

esc = html.escape
METHOD = (
    "Rent and purchase: the cheapest chip of the market at its best layout, every token the same. A chip of one's own: design and masks "
    "once over the horizon, with interest, and the cost of its tokens without them; each point takes the chip of the family whose total is "
    "least. Fleets are whole and busy as the owner's utilisation says; the least fleet of one instance is not charged." + BANDS
)
FAR, NEVER = 1e29, "never"
OPTIONS = {"rented": "Rent", "bought": "Buy"}


def section(ds: xr.Dataset, sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Section:
    """The section of one analysis of ownership."""
    return Section(sentence(sub, facts), METHOD, (chart(sub, name, facts),), (table(sub, facts),))


def _needed(sub: xr.Dataset, family: str, option: str) -> float:
    return pick(sub, "tokens_needed", family=family, option=option)


def _said(sub: xr.Dataset, family: str, option: str) -> str:
    at = {"family": family, "option": option}
    central, low, high = (pick(sub, f"tokens_needed{e}", **at) for e in ("", "_low", "_high"))
    ends = [NEVER if x >= FAR else W.number(x) for x in (low, high) if np.isfinite(x)]
    stated = pick(sub, f"tokens_needed{STATED}", **at)
    more = f"; at the stated values {W.number(stated)}" if np.isfinite(stated) and stated != central else ""
    return (W.number(central) if central < FAR else NEVER) + (f" [{ends[0]} to {ends[1]}{more}]" if ends else "")


def sentence(sub: xr.Dataset, facts: dict[str, Any]) -> str:
    """The finding: who pays first, from how many tokens on, and what the GPU needs."""
    families, options = [str(f) for f in sub["family"].values], [str(o) for o in sub["option"].values]
    if not options:
        return "No chip of the market meets the limit."
    cheap = min(options, key=lambda o: pick(sub, "market_cost", option=o))
    first = min(families, key=lambda f: _needed(sub, f, cheap))
    many = float(sub["tokens"].values[-1])
    best = min(families, key=lambda f: pick(sub, "own_total", family=f, tokens=many))
    per_day = 365 * facts["horizon_year"]
    text = (
        f"A chip of one's own pays from {_said(sub, first, cheap)} output tokens over {W.number(facts['horizon_year'])} years on "
        f"({label(first)}, against chips that are {cheap}, {facts['market_chips'][cheap]} at "
        f"{W.number(pick(sub, 'market_cost', option=cheap))} USD a million)"
    )
    if _needed(sub, first, cheap) < FAR:
        text += f", that is {W.number(_needed(sub, first, cheap) / per_day)} a day"
    if "hbm_gpu" in families and first != "hbm_gpu":
        text += f"; a GPU of one's own from {_said(sub, 'hbm_gpu', cheap)}"
    return text + (
        f". With {W.number(many)} tokens {label(best)} is cheapest, "
        f"{W.number(pick(sub, 'market_cost', option=cheap) * many / 1e6 / pick(sub, 'own_total', family=best, tokens=many))} times cheaper "
        f"than the market."
    )


def chart(sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Drawn:
    """Cost of a token in all, design included, against lifetime tokens: the same as total cost, on axes that can be read."""
    tokens, families = sub["tokens"].values, [str(f) for f in sub["family"].values]
    options = [str(o) for o in sub["option"].values]
    series, rows = [], []
    for f in families:
        whole = sub["own_total"].sel(family=f).values
        ends = {e: v / tokens * 1e6 for e, v in band(sub, "own_total", family=f).items()}
        tips = [
            f"{label(f)}: {W.number(t)} tokens cost {W.number(c / 1e6)} million USD in all, {W.number(n / 1e6)} of them design and masks"
            for t, c, n in zip(tokens, whole, sub["own_once"].sel(family=f).values, strict=True)
        ]
        series.append(Line(label(f), f, tokens, whole / tokens * 1e6, **ends, tips=tips))
        rows += [{"option": f, "tokens": float(t), "total_usd": float(c)} for t, c in zip(tokens, whole, strict=True)]
    extra = Extra(across=[(pick(sub, "market_cost", option=o), f"{OPTIONS.get(o, o)}: {facts['market_chips'][o]}") for o in options])
    for o in options:
        rows += [
            {"option": o, "tokens": float(t), "total_usd": float(c)}
            for t, c in zip(tokens, sub["market_total"].sel(option=o).values, strict=True)
        ]
    dear = max(pick(sub, "market_cost", option=o) for o in options) if options else 1.0
    canvas = lines(
        f"{name}_tokens",
        series,
        Axis("output tokens over the horizon"),
        Axis("USD per million output tokens, design and masks included", most=dear * 100),
        extra,
    )
    said = "; ".join(f"{label(f)} {_said(sub, f, o)} ({OPTIONS.get(o, o).lower()})" for f in families for o in options)
    caption = f"Tokens from which a chip of one's own costs less in all: {said}. Where a line falls, design and masks are being spread."
    return Drawn(
        f"{name}_tokens",
        canvas,
        caption,
        f"Log-log chart of cost against lifetime tokens, one line a family, market prices dashed. {caption}",
        rows,
    )


def table(sub: xr.Dataset, facts: dict[str, Any]) -> str:
    """Break-even tokens, design cost and marginal cost by family, at the break-even against buying."""
    options = [str(o) for o in sub["option"].values]
    last = float(sub["tokens"].values[-1])
    head = [
        "Family",
        *(f"Pays from, tokens ({OPTIONS.get(o, o).lower()})" for o in options),
        "Design and masks, million USD",
        "Without them, USD/Mtoken",
    ]
    rows = []
    for f in (str(x) for x in sub["family"].values):
        once, marginal = (pick(sub, n, family=f, tokens=last) for n in ("own_once", "own_marginal"))
        rows.append([esc(label(f)), *(_said(sub, f, o) for o in options), W.number(once / 1e6), W.number(marginal)])
    return T.table(head, rows, "cases", esc(f"By family; the last two columns for {W.number(last)} tokens"))
