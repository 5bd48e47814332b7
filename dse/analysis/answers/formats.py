"""Which number format pays? The front of each family with weights in one format alone, on the chips of the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.answers.ground import Ground, Kind, table
from dse.search.finalists import Finalist, best_of, together
from dse.search.layouts import layout_table

if TYPE_CHECKING:
    import xarray as xr


def answer(ground: Ground, given: Mapping[str, Any]) -> xr.Dataset:
    """Least cost by family, format and limit."""
    limits, formats, families = tuple(ground.study.limits.tpot), tuple(ground.grid.formats), list(ground.families)
    found = np.full((len(families), len(formats), len(limits)), np.nan)
    for k, fmt in enumerate(formats):
        able = [x for x in ground.known if fmt in x.formats]
        if not able:
            continue
        finalists = [Finalist(x.chip, (fmt,)) for x in able]
        grid = replace(ground.grid, formats=(fmt,)).thinned()
        best = best_of(ground.case, finalists, together(finalists), grid, layout_table(ground.case.model, grid), limits)
        for f, family in enumerate(families):
            mine = [i for i, x in enumerate(able) if x.family == family]
            if mine:
                found[f, k] = best.cost[0][:, mine].min(axis=1)
    values = {"cost": (("family", "format", "limit"), np.where(np.isfinite(found), found, np.nan))}
    ds = table(values, {"family": families, "format": list(formats), "limit": [float(x) for x in limits]}, WORDS)
    ds.attrs = {"family": given["family"], "tpot_s": ground.study.headline.tpot}
    return ds


WORDS = {
    "family": ("family", "1"),
    "format": ("format of the weights", "1"),
    "limit": ("limit on the time per output token", "s"),
    "cost": ("least cost of a token with weights in one format", "USD/Mtoken"),
}
FORMATS = Kind(answer)
