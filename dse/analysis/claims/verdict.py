"""Does a claim hold? The verdict from our figure, the claim, the relation and the widths of the row, and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from dse.study.claims import ClaimRow

HOLDS, ABOUT, WRONG, DEPENDS = "holds", "holds within tolerance", "wrong", "depends"
VERDICTS = (HOLDS, ABOUT, WRONG, DEPENDS)
EXACT = 1e-9  # relative: rounding of double precision


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the model says of a row, in the row's unit; ``cases`` are the figures under other premises that the row names."""

    ours: float
    why: str
    calibrated: float | None = None  # beside an ideal ``ours``
    cases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A row with its answer."""

    row: ClaimRow
    finding: Finding
    ratio: float
    verdict: str


def judge(ours: float, row: ClaimRow) -> str:
    """Verdict of one figure.

    ``equal`` compares the ratio or its inverse, ``at_least`` and ``at_most`` only the side on which a claim can fail.
    """
    if not ours > 0.0:
        missed = math.inf if row.relation != "at_most" else 0.0
    elif math.isinf(ours):
        missed = math.inf if row.relation != "at_least" else 0.0
    else:
        ratio = ours / row.claim
        missed = {"equal": max(ratio, 1.0 / ratio), "at_least": 1.0 / ratio, "at_most": ratio}[row.relation] - 1.0
    if missed <= row.rounding + EXACT:
        return HOLDS
    return ABOUT if missed <= row.tolerance + EXACT else WRONG


def verdict(finding: Finding, row: ClaimRow) -> str:
    """Verdict of a row: that of our figure, or ``depends`` where some of the cases are right and others wrong."""
    own = judge(finding.ours, row)
    found = {judge(value, row) == WRONG for value in (finding.ours, *finding.cases.values())}
    return DEPENDS if len(found) > 1 else own


def settle(finding: Finding, row: ClaimRow) -> Settled:
    """A row with its ratio and verdict."""
    return Settled(row=row, finding=finding, ratio=finding.ours / row.claim, verdict=verdict(finding, row))
