"""How many operations for each byte? The balance that the search chose at every promised speed, beside chips that exist."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from dse.report import words as W
from dse.report.answers.charts import Axis, Drawn, Extra, Line, Section, band, label, lines, ranged

METHOD = (
    "Dense 8-bit peak over the bandwidth of the store that holds the weights, of the cheapest design of each family at every limit of the "
    "headline case; burned-in weights do not move and have no such figure. Dashed: chips that exist."
)


def section(ds: xr.Dataset, sub: xr.Dataset, name: str, facts: dict[str, Any]) -> Section:
    """The section of one analysis of balance."""
    head = float(sub["limit"].values[np.argmin(np.abs(np.log(sub["limit"].values / facts["tpot_s"])))])
    families = [str(f) for f in sub["family"].values if np.nanmax(sub["balance"].sel(family=str(f)).fillna(0).values) > 0]
    market = {str(n): float(x) for n, x in zip(sub["market_name"].values, sub["market_balance"].values, strict=True) if x > 0}
    return Section(sentence(sub, families, market, head), METHOD, (chart(sub, name, families, market),))


def sentence(sub: xr.Dataset, families: list[str], market: dict[str, float], head: float) -> str:
    """The balance of the best GPU at the promise, at the ends of the range, and of what is sold."""
    if not families:
        return "No design moves weights."
    gpu = "hbm_gpu" if "hbm_gpu" in families else families[0]
    x, y = 1 / sub["limit"].values, sub["balance"].sel(family=gpu).values
    ok = np.flatnonzero(np.isfinite(y))
    here = ranged(sub, "balance", family=gpu, limit=head)
    text = (
        f"The cheapest {label(gpu)} design at {W.number(1 / head)} token/s/user does {here} operations for each byte of memory "
        f"bandwidth; from {W.number(x[ok[0]])} to {W.number(x[ok[-1]])} token/s/user the best balance goes from {W.number(y[ok[0]])} to "
        f"{W.number(y[ok[-1]])}"
    )
    if market:
        low, high = min(market, key=lambda n: market[n]), max(market, key=lambda n: market[n])
        text += (
            f"; chips that one can buy have {W.number(market[low])} ({W.short(low)}) to {W.number(market[high])} ({W.short(high)}), of a "
            "thousand in the essay"
        )
    return text + "."


def chart(sub: xr.Dataset, name: str, families: list[str], market: dict[str, float]) -> Drawn:
    """Balance against promised speed."""
    speed, series, rows = 1 / sub["limit"].values, [], []
    for f in families:
        y = np.where(sub["balance"].sel(family=f).values > 0, sub["balance"].sel(family=f).values, np.nan)
        series.append(Line(label(f), f, speed, y, **band(sub, "balance", family=f)))
        rows += [{"family": f, "token_per_s_per_user": float(a), "flop_per_byte": float(b)} for a, b in zip(speed, y, strict=True)]
    rows += [{"family": n, "token_per_s_per_user": None, "flop_per_byte": x} for n, x in market.items()]
    order = sorted(market, key=lambda n: market[n])
    ends = dict.fromkeys([*order[:1], *order[-1:]])
    extra = Extra(across=[(market[n], W.short(n)) for n in ends])
    canvas = lines(
        f"{name}_speed",
        series,
        Axis("promised speed, token/s/user, faster →"),
        Axis("8-bit operations for each byte of weight bandwidth"),
        extra,
    )
    spread = {f: (np.nanmin(s.y), np.nanmax(s.y)) for f, s in zip(families, series, strict=True)}
    said = "; ".join(f"{label(f)} {W.number(float(a))} to {W.number(float(b))}" for f, (a, b) in spread.items())
    caption = f"Operations for each byte that the cheapest designs have over all promised speeds: {said}."
    return Drawn(f"{name}_speed", canvas, caption, f"Log-log chart of balance against speed, one line a family. {caption}", rows)
