"""What does demand buy? Cost of a token by load and by users, the centralisation ratio, users that are needed, a brain for contrast."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import xarray as xr

from dse.report import tables as T
from dse.report import words as W
from dse.report.answers.charts import BANDS, Axis, Drawn, Line, Pair, Section, band, label, lines, pairs, pick, ranged

esc = html.escape
METHOD = (
    "For each number of requests at the same time every chip of the study takes its cheapest layout that keeps the promised speed; chips "
    "were bred for each of these numbers, so that nobody is compared on a chip made for crowds. By load, an instance is always busy, and "
    "demand above its best batch takes more instances. By users, each uses the service for the stated time a day at the promised speed; "
    "whole instances are bought for the peak and paid around the clock (the owner's utilisation is replaced by what demand gives), energy "
    "is paid for tokens." + BANDS
)
POUND = "USD per million output tokens"


def section(ds: xr.Dataset, sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Section:
    """The section of one demand analysis."""
    families = [str(f) for f in sub["family"].values]
    ratio = {f: pick(sub, "ratio", family=f) for f in families}
    served = sorted((f for f in families if np.isfinite(ratio[f])), key=lambda f: ratio[f])
    return Section(
        sentence(sub, served),
        METHOD,
        (by_load(sub, name, served), by_users(sub, name, served, facts), ratios(sub, name, served)),
        (figures(sub, served), brain(ds, sub, served)),
    )


def _of(sub: xr.Dataset, name: str, family: str) -> str:
    return ranged(sub, name, family=family)


def sentence(sub: xr.Dataset, served: list[str]) -> str:
    """The finding: how far the ratio goes, and how many users are needed."""
    if not served:
        return "No family serves one user within the limit."
    low, high = served[0], served[-1]
    gpu = "hbm_gpu" if "hbm_gpu" in served else high
    text = (
        f"A user alone pays {_of(sub, 'ratio', gpu)} times the batched cost of a token on {label(gpu)} designs, from "
        f"{_of(sub, 'ratio', low)} ({label(low)}) to {_of(sub, 'ratio', high)} ({label(high)}) over the families, not a thousand times; "
        f"{W.number(pick(sub, 'load_needed', family=gpu))} requests at the same time bring a GPU token within twice its least cost"
    )
    needed = pick(sub, "users_needed", family=gpu)
    return text + (f", which takes {W.number(needed)} users with their hours." if np.isfinite(needed) else ".")


def _rows(sub: xr.Dataset, axis: str, names: tuple[str, ...], families: list[str]) -> list[dict[str, Any]]:
    there = [n for n in names if n in sub]
    return [
        {"family": f, axis: float(x), **{n: float(sub[n].sel(family=f).values[i]) for n in there}}
        for f in families
        for i, x in enumerate(sub[axis].values)
    ]


def by_load(sub: xr.Dataset, name: str, served: list[str]) -> Drawn:
    """Cost by requests at the same time."""
    loads = sub["load"].values
    series = [Line(label(f), f, loads, sub["load_cost"].sel(family=f).values, **band(sub, "load_cost", family=f)) for f in served]
    canvas = lines(f"{name}_load", series, Axis("requests at the same time"), Axis(POUND))
    needed = {f: pick(sub, "load_needed", family=f) for f in served}
    few, many = min(needed, key=lambda f: needed[f]), max(needed, key=lambda f: needed[f])
    alone, crowd = ({f: float(part(sub["load_cost"].sel(family=f).values)) for f in served} for part in (lambda x: x[0], np.nanmin))
    caption = (
        f"By load, instances always busy: twice the least cost of a token is reached with {_of(sub, 'load_needed', few)} requests at the "
        f"same time ({label(few)}) to {_of(sub, 'load_needed', many)} ({label(many)}); the lowest line is {_lowest(alone)} for one user "
        f"alone, {_lowest(crowd)} in a crowd."
    )
    rows = _rows(sub, "load", ("load_cost", "load_cost_low", "load_cost_high"), served)
    return Drawn(f"{name}_load", canvas, caption, f"Log-log chart of the cost of a token against load, one line a family. {caption}", rows)


def by_users(sub: xr.Dataset, name: str, served: list[str], facts: dict[str, Any]) -> Drawn:
    """Cost by users of the service."""
    users = sub["users"].values
    series = []
    for f in served:
        at = sub.sel(family=f)
        shown = (at[f"users_{n}"].values for n in ("cost", "instances", "chips", "utilisation"))
        tips = [
            f"{label(f)}: {W.number(u)} users, {W.number(c)} USD/Mtoken; {W.number(n)} instances, {W.number(k)} chips, "
            f"{W.percent(s)} of the capacity used"
            for u, c, n, k, s in zip(users, *shown, strict=True)
        ]
        series.append(Line(label(f), f, users, at["users_cost"].values, **band(sub, "users_cost", family=f), tips=tips))
    canvas = lines(f"{name}_users", series, Axis("users of the service"), Axis(POUND))
    needed = {f: x for f in served if np.isfinite(x := pick(sub, "users_needed", family=f))}
    cheap = [min(served, key=lambda f: float(sub["users_cost"].sel(family=f).values[i])) for i in range(len(users))]
    runs = _runs(cheap, users)
    caption = (
        f"By users, {W.number(facts['use_s'] / 60)} minutes each a day at {W.number(1 / facts['tpot_s'])} token/s with a peak "
        f"{W.number(facts['peak'])} times the mean: cheapest is {runs}."
    )
    if needed:
        few, many = min(needed, key=lambda f: needed[f]), max(needed, key=lambda f: needed[f])
        caption += (
            f" Twice the floor is reached at {_of(sub, 'users_needed', few)} users ({label(few)}) to "
            f"{_of(sub, 'users_needed', many)} ({label(many)})."
        )
    spare = cheap[len(users) // 2]
    where: dict[str, Any] = {"family": spare, "users": float(users[len(users) // 2])}
    energy = pick(sub, "users_energy", **where)
    caption += (
        f" With {W.number(where['users'])} users ({label(spare)}) one more token costs {W.number(energy)} USD a million, its energy, while "
        f"the instance has room; the average one {ranged(sub, 'users_cost', **where)}."
    )
    names = ("users_cost", "users_instances", "users_chips", "users_peak_batch", "users_utilisation", "users_energy")
    rows = _rows(sub, "users", names, served)
    return Drawn(
        f"{name}_users", canvas, caption, f"Log-log chart of the cost of a token against users, one line a family. {caption}", rows
    )


def _lowest(costs: dict[str, float]) -> str:
    """Who is cheapest, with the cost."""
    family = min(costs, key=lambda f: costs[f])
    return f"{label(family)} ({W.number(costs[family])} USD)"


def _runs(cheap: list[str], users: np.ndarray) -> str:
    """Who is cheapest from how many users on."""
    said, last = [], ""
    for f, u in zip(cheap, users, strict=True):
        if f != last:
            said.append(f"{label(f)} from {W.number(float(u))}" if last else label(f))
            last = f
    return ", ".join(said) + (" users on" if len(said) > 1 else " throughout")


def ratios(sub: xr.Dataset, name: str, served: list[str]) -> Drawn:
    """The centralisation ratio of every family."""
    rows = []
    for f in served:
        alone, best = pick(sub, "alone_cost", family=f), pick(sub, "best_cost", family=f)
        words = f"{_of(sub, 'ratio', f)} ×"
        tip = f"{label(f)}: {W.number(best)} USD/Mtoken at the best batch, {W.number(alone)} for one user, {words}"
        rows.append(Pair(f, alone, best, words, tip))
    canvas = pairs(f"{name}_ratio", rows, Axis(f"{POUND}; full: best batch, hollow: one user alone (stated values)"))
    low, high = served[0], served[-1]
    caption = (
        f"The centralisation ratio, cost for one user who keeps an instance busy over cost at the best batch: {_of(sub, 'ratio', low)} "
        f"({label(low)}) to {_of(sub, 'ratio', high)} ({label(high)}); brackets: 90 % range where it is known."
    )
    table = [
        {"family": f, **{n: pick(sub, n, family=f) for n in ("alone_cost", "best_cost", "ratio", "ratio_low", "ratio_high") if n in sub}}
        for f in served
    ]
    return Drawn(f"{name}_ratio", canvas, caption, f"Pairs of marks on a cost axis, one line a family. {caption}", table)


def figures(sub: xr.Dataset, served: list[str]) -> str:
    """The table under the figures."""
    head = ["Family", "Alone, USD/Mtoken (stated)", "Best batch, USD/Mtoken (stated)", "Ratio",
            "Requests for twice the floor", "Users for twice the floor",
            "Chips of the smallest instance", "J per token, alone", "J per token, best batch"]  # fmt: skip
    names = ("alone_cost", "best_cost", "ratio", "load_needed", "users_needed", "smallest_chips", "alone_j", "best_j")
    rows = [[esc(label(f)), *(esc(_of(sub, n, f)) for n in names)] for f in served]
    return T.table(head, rows, "cases", "By family")


def brain(ds: xr.Dataset, sub: xr.Dataset, served: list[str]) -> str:
    """What stands beside the families for contrast: energy of a token for one user."""
    names = [str(c) for c in sub["contrast"].values if c != "none"]
    if not names or not served:
        return ""
    least = min(served, key=lambda f: pick(sub, "alone_j", family=f))
    said = []
    for c in names:
        joule, ours = pick(sub, "contrast_j", contrast=c), pick(sub, "alone_j", family=least)
        best = min(pick(sub, "best_j", family=f) for f in served)
        said.append(
            f"{c.replace('-', ' ').capitalize()}, for contrast: {W.number(pick(sub, 'contrast_balance', contrast=c))} operations for each "
            f"byte of its store, {W.number(pick(sub, 'contrast_w', contrast=c))} W, one request at a time. If it computed this model at "
            f"its ideal rate a token would take {W.number(joule * 1e3)} mJ; the best chip for one user, {label(least)}, takes "
            f"{W.number(ours)} J ({W.number(ours / joule, 2)} times as much), the best batched one {W.number(best)} J "
            f"({W.number(best / joule, 2)} times). Estimates of its rate differ by six orders of magnitude."
        )
    return "".join(f'<p class="under">{esc(x)}</p>' for x in said)
