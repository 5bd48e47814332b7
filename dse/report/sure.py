"""How sure is the ranking? The section of the page, and where stated values stand in the bands of what was sampled."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from dse.report import draw as D
from dse.report import names as N
from dse.report import page as P
from dse.report import tables as T
from dse.report import uncertainty as U
from dse.report import view as V
from dse.report import words as W


def stated_winners(ds: xr.Dataset, case: V.Case) -> str:
    """At which speeds the family that wins at the stated values is not the likeliest one over the samples; empty where it always is."""
    v, said = V.view(ds, case), []
    for t in sorted(range(len(v.limits_s)), key=lambda t: -v.limits_s[t]):
        winners, likeliest = V.winners(v, t), U.ranking(ds, case, float(v.limits_s[t]))
        if winners and likeliest and likeliest[0][1] > 0 and winners[0][0] != likeliest[0][0]:
            stated, (name, p) = winners[0][0], likeliest[0]
            own = dict(likeliest).get(stated, 0.0)
            said.append(
                f"at {W.number(1 / v.limits_s[t])} token/s/user {U.label(name)} ({W.percent(p)}), not {U.label(stated)} ({W.percent(own)})"
            )
    if not said:
        return ""
    return f"Over the samples another family than at the stated values is the likeliest to be cheapest {'; '.join(said)}."


def optimism(ds: xr.Dataset) -> str:
    """Families whose stated cost is below their own band: by how much, and which values stated at an end of their interval do it."""
    case, limit_s = V.headline(ds)
    if not U.known(ds, case):
        return ""
    said = []
    for m in V.attr(ds, "middles", []):
        at = U.at_case(ds, "cost_quantile", case).sel(competitor=m["family"]).sel(tpot_limit=limit_s, method="nearest")
        low, middle = (float(at.sel(quantile=q)) for q in (0.05, 0.5))
        if m["stated"] < low:
            over = f" ({W.number(middle / m['stated'], 2)} times)" if np.isfinite(middle) else ""
            said.append(f"{U.label(m['family'])} {W.number(m['stated'])} stated, {W.number(middle)} in the median{over}")
    if not said:
        return ""
    return (
        f"Stated values are optimistic for {'; '.join(said)} USD/Mtoken: their cost as stated lies below their whole "
        f"90{W.NARROW}% band, because chips that nobody has measured are stated at ideals that can only be missed, "
        "and because designs were made for the stated values. Judge these families by the bands."
    )


def middles_table(ds: xr.Dataset) -> str:
    """Every family's cost as stated, with its one-sided values in the middle of their intervals, and over the samples."""
    case, limit_s = V.headline(ds)
    rows = []
    for m in V.attr(ds, "middles", []):
        at = U.at_case(ds, "cost_quantile", case).sel(competitor=m["family"]).sel(tpot_limit=limit_s, method="nearest")
        low, middle, high = (float(at.sel(quantile=q)) for q in (0.05, 0.5, 0.95))
        most = ", ".join(f"{N.assumption(n)} ({W.times(float(r))})" for n, r in m["most"]) or "none alone by 2 %"
        band = f"{W.number(low)} to {W.number(high)}" if np.isfinite(high) else f"{W.number(low)} to not feasible"
        shown = W.number(float(m["middle"])) if np.isfinite(float(m["middle"])) else "not feasible"
        rows.append([T.chip_of(m["family"]), W.number(m["stated"]), shown, W.number(middle), band, str(m["values"]), html.escape(most)])
    head = ["Family", "As stated", "One-sided values at their middle", "Median of the samples", "90 % band", "One-sided values of its own",
            "Those that move it most, alone"]  # fmt: skip
    title = "USD/Mtoken at the headline. One-sided: stated at an end of its interval, so that it can move to the other side alone"
    return T.table(head, rows, "cases", title) if rows else ""


def lean(page: P.Page, record: Any, drawer: Callable[[Any], D.Canvas]) -> str:
    """A figure without its folds: for the further cases."""
    drawing = D.svg(drawer(record), tooltips=False)
    page.files[f"figures/{record.name}.svg"] = D.file_svg(drawing)
    page.files[f"figures/{record.name}.csv"] = P.csv_text(record.rows)
    caption = f'{html.escape(record.caption)} <a href="figures/{record.name}.csv">{record.name}.csv</a>'
    return f'<figure><div class="drawing">{D.inline(drawing, record.alt)}</div><figcaption>{caption}</figcaption></figure>'


def section(page: P.Page) -> None:
    """How sure: probabilities, bands and shares of the headline case, the other cases folded."""
    ds = page.ds
    if not U.known(ds):
        return
    case, limit_s = V.headline(ds)
    page.add('<h2 id="sure-of-ranking">How sure is the ranking?</h2>')
    if U.known(ds, case):
        page.add(P.figure(page, U.chances(ds, case, "probability"), U.draw_chances, "probability", [V.COST, V.SPEED]))
        page.add(P.figure(page, U.bands(ds, case, "bands"), U.draw_bands, "bands", [V.COST, V.SPEED]))
        page.add(f"<p><b>{html.escape(optimism(ds))}</b></p>" if optimism(ds) else "", middles_table(ds))
        page.add(U.pairs_table(ds, case, limit_s))
    found = U.shares(ds)
    if found:
        page.add("<h3>Which uncertainty matters most?</h3>", P.figure(page, found, U.draw_shares, "variance", [V.COST]))
    others = [c for s in V.scenarios(ds) for c in V.cases(ds, s) if c != case and U.known(ds, c)]
    blocks = []
    for i, other in enumerate(others):
        record = U.bands(ds, other, f"bands-{i + 1}")
        head = f"<h4>{html.escape(V.case_name(ds, other))}; {html.escape(V.name_of(ds, other.scenario))}</h4>"
        blocks.append(head + lean(page, record, U.draw_bands) + f"<p>{html.escape(U.chance_sentence(ds, other, limit_s))}</p>")
    page.add(P.fold("Bands of the other cases and owners", "".join(blocks)) if blocks else "")
