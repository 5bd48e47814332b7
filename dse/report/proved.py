"""How far at most is each family's cheapest design from the optimum of the model? Certified bounds, as a sentence and tables."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import xarray as xr

from dse import glossary
from dse.report import page as P
from dse.report import tables as T
from dse.report import view as V
from dse.report import words as W

CLOSED = 0.01  # gap below which a question counts as settled

Row = dict[str, Any]


def _known(row: Row) -> float:
    """Least cost known, of the study or of the certificate; nan where no design is feasible."""
    found = [row[k] for k in ("found_by_the_study", "found_by_the_certificate") if row.get(k) is not None]
    return min(found, default=math.nan)


def sentence(rows: list[Row], family: str, limit_s: float) -> str:
    """What is settled, of the winner at the headline limit first.

    >>> row = {"family": "sram", "tpot_limit_s": 0.02, "found_by_the_study": 1.0, "lower_bound": 0.99, "optimality_gap": 0.01}
    >>> sentence([row], "sram", 0.02)[:74]
    'At most 20 ms per token the design found of SRAM machine costs at most 1.0'
    """
    open_ = [r for r in rows if math.isfinite(_known(r)) and r.get("optimality_gap") is not None]
    mine = next((r for r in open_ if r["family"] == family and math.isclose(r["tpot_limit_s"], limit_s, rel_tol=1e-6)), None)
    said = ""
    if mine is not None:
        said = (
            f"At most {W.quantity('tpot_limit', limit_s)} per token the design found of {glossary.label(family)} costs at most "
            f"{mine['optimality_gap']:.1%} more than the least that any design of its box can, in this model. "
        )
    if not open_:
        return said
    closed = sum(r["optimality_gap"] <= CLOSED for r in open_)
    widest = max(open_, key=lambda r: r["optimality_gap"])
    said += f"Of {len(open_)} questions that have an answer {closed} are settled to {CLOSED:.0%}"
    if closed < len(open_):
        said += (
            f"; the widest gap is {widest['optimality_gap']:.0%} "
            f"({glossary.label(widest['family'])}, at most {W.quantity('tpot_limit', widest['tpot_limit_s'])})"
        )
    return said + "."


def _cell(row: Row | None) -> str:
    if row is None or not math.isfinite(_known(row)):
        return "–"
    gap = row.get("optimality_gap")
    return escape(W.number(_known(row))) + (f" ({gap:.1%})" if gap is not None else "")


def of(ds: xr.Dataset) -> str:
    """The sentence of a result; empty where no certificate exists."""
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    ranking = V.winners(v, V.limit_index(v, limit_s))
    rows: list[Row] = V.attr(ds, "certificates", [])
    return sentence(rows, ranking[0][0] if ranking else "", limit_s)


def section(ds: xr.Dataset) -> str:
    """Cost and gap by family and limit, every certificate in a fold; nothing where no certificate exists."""
    rows: list[Row] = V.attr(ds, "certificates", [])
    if not rows:
        return ""
    limits = sorted({float(r["tpot_limit_s"]) for r in rows}, reverse=True)
    families = list(dict.fromkeys(r["family"] for r in rows))
    by = {(r["family"], float(r["tpot_limit_s"])): r for r in rows}
    grid = T.table(
        [escape(glossary.label("family")), *(escape(W.quantity("tpot_limit", t)) for t in limits)],
        [[T.chip_of(f), *(_cell(by.get((f, t))) for t in limits)] for f in families],
    )
    columns = ("found_by_the_study", "found_by_the_certificate", "lower_bound")
    every = T.table(
        [escape(glossary.label("family")), "Limit", *(T.term(c) for c in columns), "Gap", "Boxes", "Seconds"],
        [
            [
                T.chip_of(r["family"]),
                escape(W.quantity("tpot_limit", r["tpot_limit_s"])),
                *("–" if r.get(c) is None else escape(W.number(r[c])) for c in columns),
                "–" if r.get("optimality_gap") is None else f"{r['optimality_gap']:.2%}",
                f"{r['boxes']:,}",
                escape(W.number(r["seconds"])),
            ]
            for f in families
            for t in limits
            if (r := by.get((f, t))) is not None
        ],
    )
    return (
        f"<h3>How near to the optimum?</h3><p>{escape(of(ds))}</p>{grid}"
        '<p class="under">Least cost known, USD per million output tokens, and the most that a better design could save; – where no design '
        f"is feasible. Branch and bound over intervals of the same equations, verified by <code>dse certify --check</code>.</p>"
        f"{P.fold('Every certificate', every)}"
    )
