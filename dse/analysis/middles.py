"""How much of a cost rests on values that are stated at an end of their interval? The same cost with these values at their middle.

Many constants of chips that nobody has measured stand at their ideal (no fill, no waste): their interval reaches to the bad side alone, so
that samples can only be dearer. The median of such a number's distribution says what it is when nothing favours the ideal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dse.analysis import compare
from dse.analysis.compare import Competitor, Question, costs_of
from dse.analysis.inputs import Factor, Sampler, with_values
from dse.catalog import Catalog

if TYPE_CHECKING:
    import xarray as xr

NAMED = 3  # values that are named, those that matter most
LEAST = 0.02  # change of a cost below which a value is not named


@dataclass(frozen=True)
class Middle:
    """One family: values at an end of their interval, its cost with all of them in the middle, and those that matter most alone."""

    family: str
    values: int
    stated: float  # USD/Mtoken
    middle: float  # inf: not feasible
    most: tuple[tuple[str, float], ...]  # name, ratio of the cost with this one in the middle


def is_at_end(f: Factor) -> bool:
    """Whether a number is stated at an end of its interval."""
    return f.quantity.value in (f.quantity.low, f.quantity.high)


def own(f: Factor, family: str) -> bool:
    """Whether a number belongs to a family alone."""
    return f.name.startswith((f"families {family}: ", f"constants {family}: "))


def middles(
    catalog: Catalog, factors: Sequence[Factor], competitors: Sequence[Competitor], question: Question, scenario: int, limit: int
) -> list[Middle]:
    """Every family with its own values at an end moved to the median of their distributions; layouts are chosen anew."""
    found = []
    for c in competitors:
        if c.space is None:
            continue
        mine = [f for f in factors if own(f, c.family) and is_at_end(f)]
        sampler = Sampler.of(catalog, mine)
        middle = sampler.values(np.full((1, len(mine)), 1 / 2))[:, 0]
        rows = np.repeat(sampler.value[:, None], 2 + len(mine), axis=1)  # row 0 as stated, row 1 all in the middle, then one at a time
        rows[:, 1] = middle
        rows[np.arange(len(middle)), 2 + sampler.follows] = middle
        books = [
            with_values(catalog, {p: x[at][:, None] for p, x in zip(sampler.places, rows, strict=True)})
            for at in compare.in_blocks(rows.shape[1])
        ]
        cost = np.concatenate([costs_of(c, question, book, compare.SAMPLES)[scenario, limit] for book in books])
        if not np.isfinite(cost[0]):
            continue
        ratio = cost[2 : 2 + len(mine)] / cost[0]
        order = [int(i) for i in np.argsort(-np.abs(np.log(ratio)))[:NAMED] if abs(np.log(ratio[i])) > LEAST]
        most = tuple((mine[i].name, float(ratio[i])) for i in order)
        found.append(Middle(c.family, len(mine), float(cost[0]), float(cost[1]), most))
    return found


def into(ds: xr.Dataset, found: Sequence[Middle]) -> xr.Dataset:
    """The Dataset with what was found as an attribute; costs that are not finite as words."""
    rows = [
        {
            "family": m.family,
            "values": m.values,
            "stated": m.stated,
            "middle": m.middle if np.isfinite(m.middle) else str(m.middle),
            "most": m.most,
        }
        for m in found
    ]
    out = ds.copy(deep=False)
    out.attrs["middles"] = json.dumps(rows)
    return out
