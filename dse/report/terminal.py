"""What does a person at the terminal see when a run ends? At most 25 lines: answer, best designs by limit, what limits, a small front."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from dse import glossary
from dse.report import view as V
from dse.report import words as W
from dse.report.answers import sentence

MOST_LINES = 25
MOST_LIMITS = 9
WIDTH, HEIGHT = 64, 8
MARKS = {"hbm_gpu": "G", "transformer_asic": "T", "sram": "S", "compute_in_memory": "C", "burned_in": "B", "stacked_dram": "D"}


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _spread(count: int) -> list[int]:
    """At most MOST_LIMITS positions out of ``count``, ends included."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, MOST_LIMITS))}) if count else []


def _best_lines(v: V.CaseView) -> list[str]:
    met = [int(t) for t in np.argsort(-v.limits_s) if V.winners(v, int(t))]
    lines = [f"{'limit':>7}  {'USD/Mtoken':>10}  {'token/s/user':>12}  {'family':<18} {'limited by':<12} layout"]
    for t in (met[i] for i in _spread(len(met))):
        family, design, cost = V.winners(v, t)[0]
        bound = glossary.part(V.cell(v, "bound", design, t) or "")
        speed = W.number(V.cell(v, V.SPEED, design, t))
        lines.append(
            f"{W.shown('tpot_limit', v.limits_s[t]):>4} ms  {W.number(cost):>10}  {speed:>12}  {_cut(glossary.label(family), 18):<18} "
            f"{_cut(bound, 12):<12} {_cut(W.layout(v, design, t), 48)}"
        )
    return lines


def _front_lines(v: V.CaseView) -> list[str]:
    """Cost (down is better) against speed (right is better), both logarithmic, one letter a family; cheapest on top of others."""
    points = [
        (float(v.grid(V.SPEED)[d, t]), float(v.grid(V.COST)[d, t]), str(v.family[d]))
        for family in sorted(set(v.family[v.candidate]))
        for d, t in V.front(v, v.candidate & (v.family == family), V.COST)
    ]
    if len(points) < 2:
        return []
    x, y = np.log([p[0] for p in points]), np.log([p[1] for p in points])
    column = np.round((x - x.min()) / max(np.ptp(x), 1e-9) * (WIDTH - 1)).astype(int)
    row = np.round((y.max() - y) / max(np.ptp(y), 1e-9) * (HEIGHT - 1)).astype(int)
    canvas = [[" "] * WIDTH for _ in range(HEIGHT)]
    for i in np.argsort(-y, kind="stable"):
        canvas[row[i]][column[i]] = MARKS.get(points[i][2], "*")
    marks = [f"{W.number(math.exp(y.max()))}", *[""] * (HEIGHT - 2), f"{W.number(math.exp(y.min()))}"]
    lines = [f"{mark:>7} │{''.join(line).rstrip()}" for mark, line in zip(marks, canvas, strict=True)]
    present = sorted({p[2] for p in points}, key=lambda f: list(MARKS).index(f) if f in MARKS else len(MARKS))
    left, right = W.number(math.exp(x.min())), W.number(math.exp(x.max()))
    key = ", ".join(f"{MARKS.get(f, '*')} {glossary.label(f)}" for f in present)
    return [*lines, f"{'':>7} └{left} {'─' * (WIDTH - len(left) - len(right) - 2)} {right} token/s/user", f"{'':>8} USD/Mtoken; {key}"]


def summary(ds: xr.Dataset) -> str:
    """At most 25 lines of text for the end of a run, for the headline case."""
    case, limit_s = V.headline(ds)
    v = V.view(ds, case)
    limit = V.limit_index(v, limit_s)
    finding = sentence(ds)
    head = [
        *([finding] if finding else []),
        f"{ds.attrs.get('title', 'Result')}: {V.case_name(ds, case)}, owner's view {V.name_of(ds, case.scenario)}",
        W.winner_sentence(ds, v, limit),
        W.existing_sentence(v, limit),
        "",
    ]
    lines = [*head, *_best_lines(v), "", *_front_lines(v)]
    return "\n".join(line.replace(W.NARROW, " ").rstrip() for line in lines[:MOST_LINES])
