"""One stated cluster against another: cost and speed of both, and their ratio."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import xarray as xr

from dse.report import tables as T
from dse.report import words as W
from dse.report.answers.charts import Axis, Drawn, Line, Section, lines, listed, pick

esc = html.escape
COST, TPOT, RATE = "usd_per_million_output_token", "tpot_s", "output_token_per_s_per_chip"
LOOKS = (("hbm_gpu", "-"), ("existing", "--"), ("sram", "-."), ("stacked_dram", ":"))
METHOD = (
    "Each cluster as it is stated: its chips, its layout, its formats. Batches in quarters of octaves; the cheapest that fits, without a "
    "limit and under each limit on the time per token, in the owner's view of the headline. No other layout is tried here; the fronts "
    "below are free in batch and format."
)


def section(ds: xr.Dataset, sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Section:
    """The section of one comparison of clusters."""
    tables = tuple(table(sub, str(w), facts) for w in sub["workload"].values)
    return Section(sentence(sub, facts), METHOD, (chart(sub, name, facts),), tables)


def _one(sub: xr.Dataset, **at: Any) -> str:
    form = str(sub["format"].sel(at).item())
    if not form:
        return ""
    return (
        f"{W.number(pick(sub, COST, **at))} USD a million tokens at {W.number(pick(sub, TPOT, **at) * 1e3)} ms a token "
        f"({form} weights, {W.number(pick(sub, 'batch', **at))} requests at once)"
    )


def _against(sub: xr.Dataset, clusters: list[str], **at: Any) -> str:
    """How the last cluster stands against the first: cost of a token, tokens a second of a user and of a chip."""
    first, last = ({"cluster": c, **at} for c in (clusters[0], clusters[-1]))
    cost, speed, rate = (pick(sub, n, **last) / pick(sub, n, **first) for n in (COST, TPOT, RATE))
    name = clusters[-1].split(",")[0]
    return (
        f"on {name} a token costs {W.number(1 / cost)} times less, its users wait {W.number(speed)} times as long "
        f"for it, and a chip gives {W.number(rate)} times as many"
    )


def sentence(sub: xr.Dataset, facts: dict[str, Any]) -> str:
    """The finding: cost and speed of every cluster at its cheapest, their ratio, and the same under the promise."""
    clusters, w = [str(c) for c in sub["cluster"].values], facts["workload"]
    free = {"workload": w, "limit": float("inf")}
    parts = [f"{c} {_one(sub, cluster=c, **free) or 'do not hold the model'}" for c in clusters]
    text = f"{facts['model']}, {w}, cheapest batch: {listed(parts)}"
    if all(np.isfinite(pick(sub, COST, cluster=c, **free)) for c in clusters):
        text += f": {_against(sub, clusters, **free)}"
    held = {"workload": w, "limit": float(sub["limit"].values[np.argmin(np.abs(sub["limit"].values - facts["tpot_s"]))])}
    ok = [c for c in clusters if np.isfinite(pick(sub, COST, cluster=c, **held))]
    promise = f"{W.number(facts['tpot_s'] * 1e3)} ms a token"
    if len(ok) == len(clusters):
        said = [f"{W.number(pick(sub, COST, cluster=c, **held))} USD on {c}" for c in clusters]
        return f"{text}. Within {promise} it is {listed(said)}."
    if ok:
        said = [f"{W.number(pick(sub, COST, cluster=c, **held))} USD" for c in ok]
        return f"{text}. Only {listed(ok)} can promise {promise}, for {listed(said)}."
    fastest = [f"{c} {W.number(float(np.nanmin(sub[TPOT].sel(workload=w, cluster=c))) * 1e3)} ms" for c in clusters]
    return f"{text}. Neither promises {promise}; at the least price under the tightest limit met: {listed(fastest)}."


def table(sub: xr.Dataset, workload: str, facts: dict[str, Any]) -> str:
    """Each cluster under each limit, for one workload."""
    head = [
        "Cluster",
        "Chips",
        "Weights, GB a chip",
        "Most requests",
        "Limit, ms",
        "Weights",
        "Requests",
        "ms a token",
        "Token/s a chip",
        "USD/Mtoken",
    ]
    rows = []
    for c in (str(x) for x in sub["cluster"].values):
        for limit in sub["limit"].values:
            at = {"workload": workload, "cluster": c, "limit": float(limit)}
            form = str(sub["format"].sel(at).item())
            first = not np.isfinite(limit)
            own = [esc(c), W.number(pick(sub, "chips", cluster=c)), W.number(pick(sub, "weights", workload=workload, cluster=c))]
            own.append(W.number(pick(sub, "most", workload=workload, cluster=c)))
            figures = [W.number(pick(sub, n, **at) * k) if form else "–" for n, k in (("batch", 1), (TPOT, 1e3), (RATE, 1), (COST, 1))]
            rows.append(
                [*(own if first else [""] * 4), "none" if first else W.number(float(limit) * 1e3), esc(form) or "not met", *figures]
            )
    return T.table(
        head, rows, "cases", esc(f"{facts['model']}, {workload}, {facts['scenario']}: cheapest batch and format of each cluster")
    )


def chart(sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Drawn:
    """Cost of a token against the promised speed, one line a cluster."""
    w = facts["workload"]
    mine = sub.sel(workload=w).isel(limit=np.flatnonzero(np.isfinite(sub["limit"].values)))
    series, rows = [], []
    for i, c in enumerate(str(x) for x in sub["cluster"].values):
        family, style = LOOKS[i % len(LOOKS)]
        cost, speed = mine[COST].sel(cluster=c).values, 1 / mine["limit"].values
        series.append(Line(c, family, speed, cost, style=style))
        rows += [
            {"cluster": c, "token_per_s_per_user": float(a), COST: float(b)} for a, b in zip(speed, cost, strict=True) if np.isfinite(b)
        ]
    canvas = lines(f"{name}_cost", series, Axis("promised speed, token/s/user, faster →"), Axis("USD per million output tokens"))
    spread = [f"{s.label} {W.number(float(np.nanmin(s.y)))} to {W.number(float(np.nanmax(s.y)))}" for s in series if np.isfinite(s.y).any()]
    caption = f"Cost of a million tokens of {w} in the stated clusters, by promised speed: {'; '.join(spread)} USD."
    return Drawn(f"{name}_cost", canvas, caption, f"Log-log chart of cost against speed, one line a cluster. {caption}", rows, (COST,))
