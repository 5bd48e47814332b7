"""How sure is the ranking? Bands of cost by family, probability of being cheapest, and what the variance comes from. ``info`` and ``draw``.

All numbers come from the Dataset (``cost_quantile``, ``probability_*``, ``variance_*``); without them there is no section.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from dse import glossary
from dse.report import draw as D
from dse.report import names as N
from dse.report import tables as T
from dse.report import view as V
from dse.report import words as W
from dse.report.labels import Label, place

Row = dict[str, Any]
SEEN = 0.005  # share of the variance below which an input is left out of a panel
KINDS = {"estimate": "#0072B2", "fit": "#009E73", "assumption": "#D55E00", "claim": "#CC79A7", "": "#888888"}
EXISTING, REST = "existing", "all others"
SURE = 0.9  # probability from which a ranking is called sure


def label(name: str) -> str:
    """Name of a competitor for people.

    >>> label("existing")
    'cheapest existing chip'
    """
    return "cheapest existing chip" if name == EXISTING else glossary.label(name)


@dataclass(frozen=True)
class Band:
    """Quantiles of one competitor's cost: arrays (limits) of speed [token/s/user], (limits, quantiles) of cost [USD/Mtoken]."""

    name: str
    speed: tuple[float, ...]
    cost: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class BandsInfo:
    """Bands of all competitors of one case."""

    name: str
    bands: tuple[Band, ...]
    quantiles: tuple[float, ...]
    promise: float
    caption: str
    alt: str

    @property
    def rows(self) -> list[Row]:
        return [
            {"competitor": b.name, "token_per_s_per_user": s, **{f"q{q:g}": c for q, c in zip(self.quantiles, cost, strict=True)}}
            for b in self.bands
            for s, cost in zip(b.speed, b.cost, strict=True)
        ]


@dataclass(frozen=True)
class ChanceInfo:
    """Probability of being the cheapest family by speed: (family, ((speed, probability), ...))."""

    name: str
    lines: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]
    promise: float
    caption: str
    alt: str

    @property
    def rows(self) -> list[Row]:
        return [{"family": f, "token_per_s_per_user": s, "probability_cheapest": p} for f, line in self.lines for s, p in line]


@dataclass(frozen=True)
class SharesInfo:
    """Sobol indices: panels (output, ((input, kind, first, total), ...))."""

    name: str
    panels: tuple[tuple[str, tuple[tuple[str, str, float, float], ...]], ...]
    caption: str
    alt: str

    @property
    def rows(self) -> list[Row]:
        return [{"output": o, "input": n, "kind": k, "first_order": f, "total": t} for o, lines in self.panels for n, k, f, t in lines]


def known(ds: xr.Dataset, case: V.Case | None = None) -> bool:
    """Whether a Dataset holds samples (of a case)."""
    if "cost_quantile" not in ds:
        return False
    return case is None or bool(np.isfinite(at_case(ds, "probability_feasible", case).values).any())


def at_case(ds: xr.Dataset, name: str, case: V.Case) -> xr.DataArray:
    """A variable of one case."""
    return ds[name].sel(model=case.model, workload=case.workload, scenario=case.scenario)


def bands(ds: xr.Dataset, case: V.Case, name: str) -> BandsInfo:
    """Quantiles of the cost of every family, and of the cheapest chip that exists, at every promised speed of a case."""
    table = at_case(ds, "cost_quantile", case).transpose("competitor", "tpot_limit", "quantile")
    quantiles = tuple(float(q) for q in table["quantile"].values)
    middle = quantiles.index(0.5)
    order = np.argsort(-ds["tpot_limit"].values)
    found = []
    for c in table["competitor"].values:
        values = table.sel(competitor=c).values[order]
        keep = np.isfinite(values[:, middle])
        if keep.any():
            speed = tuple(float(1 / t) for t in ds["tpot_limit"].values[order][keep])
            found.append(Band(str(c), speed, tuple(tuple(float(x) for x in row) for row in values[keep])))
    _, limit_s = V.headline(ds)
    caption = _bands_caption(ds, case, found, quantiles, limit_s)
    return BandsInfo(name, tuple(found), quantiles, 1 / limit_s, caption, f"Bands of cost against speed, {len(found)} panels. {caption}")


def _bands_caption(ds: xr.Dataset, case: V.Case, found: list[Band], quantiles: tuple[float, ...], limit_s: float) -> str:
    here = [(b, b.cost[i]) for b in found for i, s in enumerate(b.speed) if abs(s * limit_s - 1) < 1e-6]
    if not here:
        return f"{V.case_name(ds, case)}: no family meets the promise in half of the samples."
    here.sort(key=lambda x: x[1][quantiles.index(0.5)])
    middle = quantiles.index(0.5)
    said = [
        f"{label(b.name)} {W.number(c[middle])} ({W.number(c[0])} to {W.number(c[-1]) if np.isfinite(c[-1]) else 'not feasible'})"
        for b, c in here
    ]
    where = f"{V.case_name(ds, case)}, at {W.number(1 / limit_s)} token/s/user"
    text = f"{where}: median cost and 90{W.NARROW}% band in USD/Mtoken: {'; '.join(said)}."
    return f"{text}{_stated(ds, case, here[0][0].name, limit_s)}{premium(ds, case, limit_s)}"


def premium(ds: xr.Dataset, case: V.Case, limit_s: float) -> str:
    """What twice the speed costs, with its 90 % band; empty without samples."""
    if "speed_premium" not in ds:
        return ""
    low, middle, high = (float(at_case(ds, "speed_premium", case).sel(quantile=q)) for q in (0.05, 0.5, 0.95))
    ends = f"{W.number(low)} to {W.number(high) if np.isfinite(high) else 'not feasible'}"
    return f" Twice the speed costs {W.number(middle)} times as much ({ends}), each with its cheapest family."


def _stated(ds: xr.Dataset, case: V.Case, name: str, limit_s: float) -> str:
    """Where the cost at the stated values lies among the samples of a family."""
    if "probability_below_stated" not in ds or name == EXISTING:
        return ""
    below = float(at_case(ds, "probability_below_stated", case).sel(competitor=name).sel(tpot_limit=limit_s, method="nearest"))
    return (
        f" The stated values give {label(name)} a lower cost than {W.percent(1 - below)} of the samples do: designs were made for them, "
        "and intervals reach further to the bad side."
    )


def chances(ds: xr.Dataset, case: V.Case, name: str) -> ChanceInfo:
    """Which family is probably the cheapest, by promised speed."""
    table = at_case(ds, "probability_cheapest", case).transpose("competitor", "tpot_limit")
    order = np.argsort(-ds["tpot_limit"].values)
    speed = 1 / ds["tpot_limit"].values[order]
    lines = []
    for c in table["competitor"].values:
        p = table.sel(competitor=c).values[order]
        if c != EXISTING and np.nanmax(p, initial=0) > 0:
            lines.append((str(c), tuple((float(s), float(x)) for s, x in zip(speed, p, strict=True) if np.isfinite(x))))
    _, limit_s = V.headline(ds)
    caption = chance_sentence(ds, case, limit_s)
    return ChanceInfo(name, tuple(lines), 1 / limit_s, caption, f"Probability of being the cheapest family against speed. {caption}")


def ranking(ds: xr.Dataset, case: V.Case, limit_s: float) -> list[tuple[str, float]]:
    """Families by their probability of being the cheapest at a limit, the likeliest first."""
    table = at_case(ds, "probability_cheapest", case).sel(tpot_limit=limit_s, method="nearest")
    pairs = [(str(c), float(p)) for c, p in zip(table["competitor"].values, table.values, strict=True) if c != EXISTING and np.isfinite(p)]
    return sorted(pairs, key=lambda x: -x[1])


def chance_sentence(ds: xr.Dataset, case: V.Case, limit_s: float) -> str:
    """Who is probably cheapest at a limit, and at which speeds the ranking is sure."""
    found = ranking(ds, case, limit_s)
    if not found or found[0][1] <= 0:
        return "No family meets the limit in any sample."
    facts = V.attr(ds, "uncertainty", {})
    said = ", ".join(f"{label(f)} {W.percent(p)}" for f, p in found if p >= 0.005)
    sure = []
    for t in sorted(ds["tpot_limit"].values, reverse=True):
        first = ranking(ds, case, float(t))
        if first and first[0][1] >= SURE:
            sure.append(f"{W.number(1 / t)} ({label(first[0][0])})")
    count = f" ({facts['inputs']:,} uncertain inputs, {facts['samples']:,} samples, {accuracy(facts['samples'])})" if facts else ""
    text = f"{V.case_name(ds, case)}, at {W.number(1 / limit_s)} token/s/user: probability of being the cheapest family{count}: {said}. "
    if sure:
        return text + f"The ranking is sure to {W.percent(SURE)} at {', '.join(sure)} token/s/user."
    return text + f"At no promised speed is one family the cheapest with {W.percent(SURE)} probability."


def accuracy(samples: int) -> str:
    """How far a probability may lie off for the number of samples: two standard deviations at one half; Sobol points do better.

    >>> accuracy(16384).replace(W.NARROW, " ")
    'to 0.8 points'
    """
    return f"to {W.number(100 / samples ** (1 / 2), 1)} points"


def cost_sentence(ds: xr.Dataset, case: V.Case, limit_s: float) -> str:
    """What the likeliest family costs over the samples, beside its cost at the stated values."""
    first = ranking(ds, case, limit_s)
    if not first:
        return ""
    name = first[0][0]
    at = at_case(ds, "cost_quantile", case).sel(competitor=name).sel(tpot_limit=limit_s, method="nearest")
    low, middle, high = (float(at.sel(quantile=q)) for q in (0.05, 0.5, 0.95))
    v = V.view(ds, case)
    stated = next((cost for family, _, cost in V.winners(v, V.limit_index(v, limit_s)) if family == name), float("nan"))
    if not np.isfinite(middle) or not np.isfinite(stated):
        return ""
    ends = f"{W.number(low)} to {W.number(high)}" if np.isfinite(high) else f"{W.number(low)} to not feasible"
    text = f"Over the samples {label(name)} costs {W.number(middle)} USD/Mtoken in the median (90{W.NARROW}%: {ends})"
    if stated < low:
        return text + (
            f"; {W.number(stated)} is what it costs at the stated values, several of which are ideals that can only be missed, "
            "and for which the design was made."
        )
    return text + f"; {W.number(stated)} at the stated values."


def shares(ds: xr.Dataset) -> SharesInfo | None:
    """Which inputs the variance of the winner's cost, and of its lead, comes from."""
    if "variance_first_input" not in ds:
        return None
    kinds = {r["name"]: r["kind"] for r in V.attr(ds, "uncertain_inputs", [])}
    panels = []
    for o in ds["output"].values:
        first, total = (ds[f"variance_{which}_input"].sel(output=o).values for which in ("first", "total"))
        names = [str(i) for i in ds["input"].values]
        rows = [(n, kinds.get(n, ""), float(f), float(t)) for n, f, t in zip(names, first, total, strict=True)]
        rows = [r for r in rows if r[0] == REST or max(r[2], r[3]) >= SEEN]
        panels.append((output_label(str(o)), tuple(sorted(rows, key=lambda r: (r[0] == REST, -r[3])))))
    lead, lines = panels[min(1, len(panels) - 1)]
    name, _, alone, _ = next(r for r in lines if r[0] != REST)
    source = _strongest_source(ds)
    caption = (
        f"Of the variance of the lead ({lead}), {N.assumption(name)} explains most of all single inputs: {W.percent(max(alone, 0.0))}."
    )
    caption += f" By source (keys as under Sources) it is {source[0]} with {W.percent(source[1])}." if source else ""
    return SharesInfo("variance", tuple(panels), caption, f"Bars of Sobol indices, {len(panels)} panels. {caption}")


def _strongest_source(ds: xr.Dataset) -> tuple[str, float] | None:
    if "variance_first_input_source" not in ds:
        return None
    row = ds["variance_first_input_source"].isel(output=min(1, ds.sizes["output"] - 1))
    pairs = [(str(s), float(x)) for s, x in zip(row["input_source"].values, row.values, strict=True) if s != REST]
    return max(pairs, key=lambda x: x[1])


def output_label(name: str) -> str:
    """Name of an output for people.

    >>> output_label("sram against hbm_gpu")
    'SRAM machine against HBM GPU'
    """
    if name.startswith("cost of "):
        return f"cost of {label(name.removeprefix('cost of '))}"
    one, _, other = name.partition(" against ")
    return f"{label(one)} against {label(other)}"


def pairs_table(ds: xr.Dataset, case: V.Case, limit_s: float) -> str:
    """Probability that the row is cheaper than the column, at one limit."""
    table = at_case(ds, "probability_cheaper", case).sel(tpot_limit=limit_s, method="nearest").transpose("competitor", "other")
    names = [str(c) for c in table["competitor"].values]
    body = [[html.escape(label(a)), *("–" if a == b else W.percent(float(table.sel(competitor=a, other=b))) for b in names)] for a in names]
    return T.table(
        ["cheaper than →", *(html.escape(label(n)) for n in names)], body, "cases", "Probability that the row is cheaper than the column"
    )


# --- drawing -----------------------------------------------------------------------------------------------------------


def draw_bands(record: BandsInfo) -> D.Canvas:
    """One panel a competitor: 90 % and 50 % band and median; the medians of the others in grey."""
    columns = min(4, len(record.bands))
    rows = -(-len(record.bands) // columns)
    canvas = D.Canvas(record.name, 11.2, 2.45 * rows)
    grid = canvas.figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    n = len(record.quantiles)
    finite = [x for b in record.bands for c in b.cost for x in c if np.isfinite(x)]
    speeds = [s for b in record.bands for s in b.speed]
    middle = record.quantiles.index(0.5)
    for axes, band in zip(grid.flat, record.bands, strict=False):
        hue = D._family(band.name)[0] if band.name != EXISTING else "#555555"
        top = max(finite)
        cost = np.array(band.cost)
        filled = np.where(np.isfinite(cost), cost, top * 10)
        for low in range(n // 2):
            axes.fill_between(band.speed, filled[:, low], filled[:, n - 1 - low], color=hue, alpha=0.16 + 0.2 * low, lw=0)
        for other in record.bands:
            if other is not band:
                axes.plot(other.speed, [c[middle] for c in other.cost], color=D.GRID, lw=0.9, zorder=1)
        axes.plot(band.speed, cost[:, middle], color=hue, lw=1.8, zorder=3)
        axes.axvline(record.promise, color=D.SOFT, lw=0.8, ls=(0, (4, 3)))
        axes.set(xscale="log", yscale="log", xlim=(min(speeds) / 1.1, max(speeds) * 1.1), ylim=(min(finite) / 1.2, top * 1.2))
        axes.set_title(label(band.name))
        D._log_axis(axes.xaxis, min(speeds), max(speeds))
        D._log_axis(axes.yaxis, min(finite), top)
        axes.grid(True)
    for axes in list(grid.flat)[len(record.bands) :]:
        axes.set_axis_off()
    canvas.figure.supxlabel(f"{glossary.axis(V.SPEED)}, at least; faster →", fontsize=8.5)
    canvas.figure.supylabel(f"{glossary.unit(V.COST)}, lower is better", fontsize=8.5)
    return canvas


def draw_chances(record: ChanceInfo) -> D.Canvas:
    """Probabilities as lines, labelled where each is highest."""
    canvas = D.Canvas(record.name, 7.6, 3.4)
    axes = canvas.figure.subplots()
    labels: list[Label] = []
    for family, line in record.lines:
        hue, marker = D._family(family)
        x, y = [p[0] for p in line], [100 * p[1] for p in line]
        axes.plot(x, y, color=hue, lw=1.8, marker=marker, ms=4)
        at = int(np.argmax(y))
        labels.append(Label(x[at], y[at], label(family), 7.5, {"color": D.INK}))
    speeds = [p[0] for _, line in record.lines for p in line]
    axes.axvline(record.promise, color=D.SOFT, lw=0.8, ls=(0, (4, 3)))
    axes.set(xscale="log", ylim=(0, 105), xlim=(min(speeds) / 1.1, max(speeds) * 1.9))
    D._log_axis(axes.xaxis, min(speeds), max(speeds))
    axes.set_xlabel(f"{glossary.axis(V.SPEED)}, at least; faster →")
    axes.set_ylabel("probability of being the cheapest family (%)")
    axes.grid(True)
    canvas.figure.draw_without_rendering()
    place(axes, labels, [np.array([(s, 100 * p) for s, p in line]) for _, line in record.lines])
    canvas.figure.set_layout_engine("none")
    return canvas


def draw_shares(record: SharesInfo) -> D.Canvas:
    """First-order index as a bar, total as a tick, colour by kind of the source."""
    most = max(len(lines) for _, lines in record.panels)
    canvas = D.Canvas(record.name, 11.2, (0.8 + 0.19 * most) * len(record.panels))
    grid = canvas.figure.subplots(len(record.panels), 1, squeeze=False)[:, 0]
    for axes, (output, lines) in zip(grid, record.panels, strict=True):
        for i, (name, kind, first, total) in enumerate(lines):
            bar = axes.barh(i, 100 * max(first, 0.0), height=0.66, color=KINDS.get(kind, KINDS[""]))[0]
            bar.set_gid(canvas.tip(f"{name}: alone {100 * first:.1f} %, with interactions {100 * total:.1f} %"))
            axes.plot([100 * max(total, 0.0)] * 2, [i - 0.33, i + 0.33], color=D.INK, lw=1.1)
        axes.set(title=output, ylim=(len(lines) - 0.4, -0.6))
        axes.set_xlim(left=0)
        axes.set_yticks(range(len(lines)), [N.assumption(n) for n, *_ in lines], fontsize=6.8)
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")
    grid[-1].set_xlabel("share of the variance of the logarithm (%): bar alone, tick with interactions")
    used = dict.fromkeys(k for _, lines in record.panels for _, k, _, _ in lines)
    handles = [D.mpl.patches.Patch(color=KINDS.get(k, KINDS[""]), label=k or "all others together") for k in used]
    canvas.figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=7.5)
    return canvas
