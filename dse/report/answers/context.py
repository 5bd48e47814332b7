"""What does context cost? Cost of a token, requests for each chip and the cache's share of memory, by context and family."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from dse.report import words as W
from dse.report.answers.charts import BANDS, Axis, Drawn, Line, Section, band, label, lines, pick

METHOD = (
    "For each context chips of every family were bred, and each takes its cheapest layout, format and number of requests that keep the "
    "promised speed and the time to first token. The cost is of output tokens and holds that of reading the prompt." + BANDS
)


def section(ds: xr.Dataset, sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Section:
    """The section of one analysis of context."""
    families = [str(f) for f in sub["family"].values if np.isfinite(sub["cost"].sel(family=str(f)).values).any()]
    drawn = (
        _chart(sub, name, families, "cost", "USD per million output tokens", cost_caption(sub, families, facts)),
        _chart(sub, name, families, "batch_per_chip", "requests at the same time for each chip", batch_caption(sub, families)),
        _chart(sub, name, families, "kv_share", "share of the memory that the cache takes", share_caption(sub, families), log=False),
    )
    return Section(sentence(sub, families, facts), METHOD, drawn)


def _ends(sub: xr.Dataset, name: str, family: str) -> tuple[float, float, float, float]:
    """Context and value at the first and at the last context that the family serves."""
    x, y = sub["context"].values, sub[name].sel(family=family).values
    ok = np.flatnonzero(np.isfinite(y))
    return float(x[ok[0]]), float(y[ok[0]]), float(x[ok[-1]]), float(y[ok[-1]])


def sentence(sub: xr.Dataset, families: list[str], facts: dict[str, Any]) -> str:
    """The finding: how cost and batch change over the contexts, and who is cheapest at the ends."""
    gpu = "hbm_gpu" if "hbm_gpu" in families else families[0]
    x0, c0, x1, c1 = _ends(sub, "cost", gpu)
    _, b0, _, b1 = _ends(sub, "batch_per_chip", gpu)
    last = float(sub["context"].values[-1])
    at = {f: pick(sub, "cost", family=f, context=last) for f in families}
    held = {f: x for f, x in at.items() if np.isfinite(x)}
    best = min(held, key=lambda f: held[f]) if held else gpu
    first = min(families, key=lambda f: _ends(sub, "cost", f)[1])
    spread = ""
    if "cost_low" in sub:
        low, high = (pick(sub, f"cost_{e}", family=gpu, context=x1) for e in ("low", "high"))
        spread = f" [{W.number(low)} to {W.number(high)} USD a million at the end]"
    return (
        f"From {W.number(x0)} to {W.number(x1)} tokens of context an output token becomes {W.number(c1 / c0)} times as dear on "
        f"{label(gpu)} designs{spread}, and a chip holds {W.number(b1)} requests instead of {W.number(b0)}; cheapest is {label(first)} "
        f"at the short end and {label(best)} at the long one ({W.number(held.get(best))} USD a million)."
    )


def cost_caption(sub: xr.Dataset, families: list[str], facts: dict[str, Any]) -> str:
    """How much dearer a token gets, by family."""
    factor = {f: _ends(sub, "cost", f)[3] / _ends(sub, "cost", f)[1] for f in families}
    least, most = min(factor, key=lambda f: factor[f]), max(factor, key=lambda f: factor[f])
    missing = [label(f) for f in families if not np.isfinite(sub["cost"].sel(family=f).values[-1])]
    return (
        f"A token at the longest context that a family serves costs {W.number(factor[least])} times as much as at the shortest "
        f"({label(least)}) to {W.number(factor[most])} times ({label(most)}), at {W.number(1 / facts['tpot_s'])} token/s/user and at most "
        f"{W.number(facts['ttft_s'])} s to the first token."
        + (f" Not served at the longest context: {', '.join(missing)}." if missing else "")
    )


def batch_caption(sub: xr.Dataset, families: list[str]) -> str:
    """How many requests a chip holds."""
    rows = [(f, _ends(sub, "batch_per_chip", f)) for f in families]
    said = "; ".join(f"{label(f)} {W.number(e[1])} to {W.number(e[3])}" for f, e in rows)
    return f"Requests at the same time for each chip of the cheapest instance, shortest to longest context: {said}."


def share_caption(sub: xr.Dataset, families: list[str]) -> str:
    """How much of the memory the cache takes."""
    byte = next(x for f in families if np.isfinite(x := _ends(sub, "kv_byte", f)[3]))
    said = "; ".join(f"{label(f)} {W.percent(_ends(sub, 'kv_share', f)[1])} to {W.percent(_ends(sub, 'kv_share', f)[3])}" for f in families)
    gpu = "hbm_gpu" if "hbm_gpu" in families else families[0]
    _, prompt0, _, prompt1 = _ends(sub, "prefill_time_share", gpu)
    return (
        f"Share of the memory that the cache takes: {said}. At the longest context one request holds {W.physical(byte, 'byte')}. Of a "
        f"token's time on {label(gpu)} {W.percent(prompt0)} go to the prompts of others at the shortest context, {W.percent(prompt1)} at "
        f"the longest: reading the prompt costs more than keeping it."
    )


def _chart(sub: xr.Dataset, name: str, families: list[str], variable: str, title: str, caption: str, log: bool = True) -> Drawn:
    x = sub["context"].values
    series, rows = [], []
    for f in families:
        y = sub[variable].sel(family=f).values
        series.append(Line(label(f), f, x, y, **band(sub, variable, family=f)))
        rows += [{"family": f, "context": float(a), variable: float(b)} for a, b in zip(x, y, strict=True)]
    canvas = lines(f"{name}_{variable}", series, Axis("input tokens of a request"), Axis(title, log=log))
    return Drawn(f"{name}_{variable}", canvas, caption, f"Chart of {title} against context, one line a family. {caption}", rows)
