"""Which number format pays? Fronts of one family by format, and what each format saves on the others."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import xarray as xr

from dse.report import draw as D
from dse.report import tables as T
from dse.report import words as W
from dse.report.answers.charts import Drawn, Section, label, listed, pick, ranged

esc = html.escape
METHOD = (
    "The chips of the result, each with weights in one format alone, at its cheapest layout under every limit. They were found for the "
    "format that suits them best, so that a format which few of them compute is shown at its upper bound. What a format costs in accuracy "
    "is not priced; cache and arithmetic follow the glossary's table."
)


def section(ds: xr.Dataset, sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Section:
    """The section of one analysis of formats."""
    head = float(sub["limit"].values[np.argmin(np.abs(np.log(sub["limit"].values / facts["tpot_s"])))])
    return Section(sentence(sub, head, facts), METHOD, (chart(sub, name, head, facts),), (table(sub, head),))


def _served(sub: xr.Dataset, family: str, head: float) -> dict[str, float]:
    found = {str(f): pick(sub, "cost", family=family, format=str(f), limit=head) for f in sub["format"].values}
    return {f: x for f, x in found.items() if np.isfinite(x)}


def sentence(sub: xr.Dataset, head: float, facts: dict[str, Any]) -> str:
    """What the narrowest step saves on the family, and on which families it saves most."""
    at = _served(sub, facts["family"], head)
    if len(at) < 2:
        return f"{label(facts['family'])} serves this limit in one format only."
    order = sorted(at, key=lambda f: at[f])
    wide, best = order[-1], order[0]
    steps = "; ".join(f"{f} {W.number(at[f])}" for f in order)
    gain = {}
    for family in (str(f) for f in sub["family"].values):
        other = _served(sub, family, head)
        if wide in other and len(other) > 1:
            gain[family] = other[wide] / min(other.values())
    said = ranged(sub, "gain") if "gain" in sub else W.number(at[wide] / at[best])
    most = max(gain, key=lambda f: gain[f])
    return (
        f"At {W.number(1 / head)} token/s/user a token on {label(facts['family'])} designs costs {said} times as "
        f"much in {wide} as in {best} ({steps} USD a million): bits shift the imbalance by a factor and leave it; most is gained on "
        f"{label(most)} ({W.number(gain[most])} times)."
    )


def chart(sub: xr.Dataset, name: str, head: float, facts: dict[str, Any]) -> Drawn:
    """Fronts of the family by format."""
    speed, rows = 1 / sub["limit"].values, []
    canvas = D.Canvas(f"{name}_fronts", 8.6, 4.2)
    axes = canvas.figure.subplots()
    shown = []
    for i, fmt in enumerate(str(f) for f in sub["format"].values):
        y = sub["cost"].sel(family=facts["family"], format=fmt).values
        if not np.isfinite(y).any():
            continue
        axes.plot(speed, y, color=D.SPARE[i], lw=1.8, marker="o", ms=3.5, label=fmt)
        rows += [
            {"family": facts["family"], "format": fmt, "token_per_s_per_user": float(a), "usd_per_million": float(b)}
            for a, b in zip(speed, y, strict=True)
        ]
        shown += [float(v) for v in y if np.isfinite(v)]
    axes.set(xscale="log", yscale="log", xlabel="promised speed, token/s/user, faster →", ylabel="USD per million output tokens")
    D._log_axis(axes.xaxis, float(speed.min()), float(speed.max()))
    D._log_axis(axes.yaxis, min(shown), max(shown))
    axes.axvline(1 / head, color=D.SOFT, lw=0.9, ls=(0, (4, 3)))
    axes.grid(True)
    canvas.figure.legend(loc="outside right upper", frameon=False, fontsize=8, title="weights in")
    costs = sub["cost"].sel(family=facts["family"]).transpose("limit", "format").values
    met = np.isfinite(costs).any(axis=1)
    names = [str(f) for f in sub["format"].values]
    best = sorted({names[int(np.nanargmin(row))] for row in costs[met]})
    fast = float(speed[met].max())
    caption = (
        f"{label(facts['family'])} designs with weights in one format each; cheapest up to {W.number(fast)} token/s/user, the fastest that "
        f"the family reaches: {listed(best)}."
    )
    return Drawn(f"{name}_fronts", canvas, caption, f"Log-log chart of cost against speed, one line a weight format. {caption}", rows)


def table(sub: xr.Dataset, head: float) -> str:
    """Cost by family and format at the headline limit."""
    formats = [str(f) for f in sub["format"].values]
    rows = [
        [esc(label(str(f))), *(W.number(pick(sub, "cost", family=str(f), format=fmt, limit=head)) for fmt in formats)]
        for f in sub["family"].values
    ]
    return T.table(["Family", *formats], rows, "cases", esc(f"USD per million output tokens at {W.quantity('tpot_limit', head)} or less"))
