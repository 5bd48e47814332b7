"""From which volume and model life do chips pay that die with their model? Ratio by volume, and break-even lives by way of writing."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from dse.report import draw as D
from dse.report import words as W
from dse.report.answers.charts import BANDS, Drawn, Section, as_stated, label, pick, ranged

METHOD = (
    "Performance does not depend on money, so each bred chip keeps its layout and is priced anew for every number of wafers of one "
    "model, every life and every way of writing the weights; the cheapest chip counts. Masks of a model are spread over its wafers and "
    "written off over its life, the base design over the owner's volume. A beam saves these masks and makes each wafer dearer." + BANDS
)
MONTHS, FAR, NEVER = 12, 1e9, "never"
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B4A9E")


def _at(values: Any, wanted: float) -> int:
    return int(np.argmin(np.abs(np.log(np.asarray(values, float) / wanted))))


def section(ds: xr.Dataset, sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Section:
    """The section of one analysis of volume."""
    return Section(sentence(sub, facts), METHOD, (needed(as_stated(sub), name, facts), by_life(sub, name, facts)), ())


def _own_way(sub: xr.Dataset, facts: dict[str, Any]) -> str:
    """The way whose masks are the family's own number; else the first."""
    ways = [str(w) for w in sub["way"].values]
    own = f"{facts['masks']:g} masks a die"
    return own if own in ways else ways[0]


def sentence(sub: xr.Dataset, facts: dict[str, Any]) -> str:
    """The finding at the owner's volume and life."""
    way, family, against = _own_way(sub, facts), label(facts["family"]), label(facts["against"])
    wafers, life = sub["wafers"].values, sub["life"].values
    w, y = _at(wafers, facts["wafers"]), _at(life, facts["life_year"])
    ratio = ranged(sub, "ratio", way=way, wafers=float(wafers[w]), life=float(life[y]))
    sub = as_stated(sub)  # ways of writing are compared there: one of them alone was sampled
    ends = [pick(sub, n, way=way, wafers=wafers[w]) for n in ("life_needed", "life_needed_low", "life_needed_high")]
    low, high = float(sub["life_needed"].sel(way=way).values[-1]), float(sub["life_needed"].sel(way=way).values[0])
    text = (
        f"At {W.number(1 / facts['tpot_s'])} token/s/user, {W.number(float(wafers[w]))} wafers and {W.number(float(life[y]))} year of "
        f"life, a token on {family} costs {ratio} times that on the best {against} design. At the stated values they "
        f"break even at {_life(ends[0])}{_sampled(*ends[1:])}, "
        f"with {W.number(float(wafers[0]))} wafers at {_life(high)}, with {W.number(float(wafers[-1]))} at {_life(low)}"
    )
    most = [str(v) for v in sub["way"].values][-1]
    full = max((str(v) for v in sub["way"].values if "masks" in str(v)), key=lambda v: float(v.split()[0]))
    costs = [float(sub["ratio"].sel(way=v).values[w, y]) for v in (full, most)]
    return text + f". {full} would make it {W.number(costs[0])} times, {most} {W.number(costs[1])} times."


def _life(value: float) -> str:
    """A break-even life in months; always and never as words."""
    if value == 0:
        return "any life tried"
    return f"{W.number(value * MONTHS)} months" if value < FAR else "no life tried"


def _sampled(low: float, high: float) -> str:
    """The 90 % range of a break-even life over the samples; empty where there is none."""
    ends = [NEVER if x > FAR else "0" if x == 0 else f"{W.number(x * MONTHS)} months" for x in (low, high) if not np.isnan(x)]
    return f" (over the samples {ends[0]} to {ends[1]})" if len(ends) > 1 else ""


def needed(sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Drawn:
    """Break-even life by volume, one line a way."""
    wafers, rows, series = sub["wafers"].values, [], []
    shortest = float(sub["life"].values[0])
    canvas = D.Canvas(f"{name}_life", 8.6, 4.4)
    axes = canvas.figure.subplots()
    for i, way in enumerate(str(v) for v in sub["way"].values):
        y = sub["life_needed"].sel(way=way).values
        shown = np.where(y == 0, shortest, np.where(np.isfinite(y), y, np.nan))
        axes.plot(wafers, shown, color=HUES[i % len(HUES)], lw=1.8, ls="--" if "beam" in way else "-", marker="o", ms=3.5, label=way)
        if "life_needed_low" in sub and way == _own_way(sub, facts):
            low, high = (
                np.clip(sub[f"life_needed_{e}"].sel(way=way).values, shortest, float(sub["life"].values[-1])) for e in ("low", "high")
            )
            axes.fill_between(wafers, low, high, color=HUES[i % len(HUES)], alpha=0.13, lw=0)
            middle = np.clip(sub["life_needed_mid"].sel(way=way).values, shortest, float(sub["life"].values[-1]))
            axes.plot(wafers, middle, color=HUES[i % len(HUES)], lw=1.2, ls=":", label="its median and 90 %\nof the samples")
        rows += [{"way": way, "wafers": float(a), "life_needed_year": float(b)} for a, b in zip(wafers, y, strict=True)]
        series.append(way)
    axes.set(xscale="log", yscale="log", xlabel="wafers of one model", ylabel="life of the model at break-even, years")
    D._log_axis(axes.xaxis, float(wafers[0]), float(wafers[-1]))
    D._log_axis(axes.yaxis, shortest, float(sub["life"].values[-1]))
    axes.set_ylim(shortest * 0.9, float(sub["life"].values[-1]) * 1.1)
    axes.plot([facts["wafers"]], [facts["life_year"]], marker="*", ms=13, mfc=D.PAPER, mec=D.INK, ls="", gid=canvas.tip("the owner's view"))
    axes.annotate(
        "the owner's view", (facts["wafers"], facts["life_year"]), xytext=(9, 5), textcoords="offset points", fontsize=8, color=D.INK
    )
    axes.grid(True)
    canvas.figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    ends = {v: sub["life_needed"].sel(way=v).values for v in series}
    first = min(series, key=lambda v: ends[v][0] if np.isfinite(ends[v][0]) else np.finfo(float).max)
    here = _at(wafers, facts["wafers"])
    said = "; ".join(f"{v} {_life(float(x[here]))}" for v, x in ends.items())
    caption = (
        f"At the stated values, above a line {label(facts['family'])} is cheaper than {label(facts['against'])}. "
        f"With {W.number(float(wafers[0]))} wafers the "
        f"least life is asked by {first}. At the owner's {W.number(float(wafers[here]))} wafers: {said}."
    )
    return Drawn(
        f"{name}_life",
        canvas,
        caption,
        f"Lines of break-even life against volume, one for each way of writing the weights. {caption}",
        rows,
    )


def by_life(sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Drawn:
    """Cost ratio by life, one line a volume, for the family's own masks."""
    way, life, wafers = _own_way(sub, facts), sub["life"].values, sub["wafers"].values
    canvas = D.Canvas(f"{name}_ratio", 8.6, 4.2)
    axes = canvas.figure.subplots()
    rows = []
    chosen = [0, len(wafers) // 4, len(wafers) // 2, len(wafers) - 1]
    for i, w in enumerate(dict.fromkeys(chosen)):
        y = sub["ratio"].sel(way=way).values[w]
        axes.plot(life, y, color=HUES[i], lw=1.8, marker="o", ms=3.5, label=f"{W.number(float(wafers[w]))} wafers")
    for w, row in zip(wafers, sub["ratio"].sel(way=way).values, strict=True):
        rows += [{"way": way, "wafers": float(w), "life_year": float(a), "ratio": float(b)} for a, b in zip(life, row, strict=True)]
    axes.axhline(1.0, color=D.SOFT, lw=0.9, ls=(0, (4, 3)))
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="life of the model, years",
        ylabel=f"cost of a token over that of the best {label(facts['against'])}",
    )
    values = sub["ratio"].sel(way=way).values[chosen]
    D._log_axis(axes.xaxis, float(life[0]), float(life[-1]))
    D._log_axis(axes.yaxis, float(np.nanmin(values)), float(np.nanmax(values)))
    axes.grid(True)
    canvas.figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    w, y = _at(wafers, facts["wafers"]), _at(life, facts["life_year"])
    longer = _at(life, facts["life_year"] * facts["update_life"])
    now, later = (float(sub["ratio"].sel(way=way).values[w, k]) for k in (y, longer))
    share = float(sub["share_rewritable"])
    caption = (
        f"With {way} and {W.number(float(wafers[w]))} wafers, {W.number(float(life[y]))} year of life gives {W.number(now)} times the cost "
        f"of the best {label(facts['against'])}; update layers in rewritable store (the best design has {W.percent(share)} of its weights' "
        f"size) that let a model live {W.number(float(life[longer]))} year would make it {W.number(later)}."
    )
    return Drawn(f"{name}_ratio", canvas, caption, f"Lines of the cost ratio against the life of a model, one a volume. {caption}", rows)
