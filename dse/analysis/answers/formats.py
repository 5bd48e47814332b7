"""Which number format pays? The front of each family with weights in one format alone, on the chips of the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.answers.bands import banded, draws_of
from dse.analysis.answers.ground import Ground, Kind, table
from dse.analysis.units import units_of
from dse.search.finalists import Finalist, best_of, together
from dse.search.grid import layout_table

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
    values: dict[str, Any] = {"cost": (("family", "format", "limit"), np.where(np.isfinite(found), found, np.nan))}
    values |= uncertain(ground, given["family"], values["cost"][1][families.index(given["family"])])
    ds = table(values, {"family": families, "format": list(formats), "limit": [float(x) for x in limits]}, WORDS)
    ds.attrs = {"family": given["family"], "tpot_s": ground.study.headline.tpot}
    return ds


def uncertain(ground: Ground, family: str, cost: np.ndarray) -> dict[str, Any]:
    """The widest format's cost over the cheapest's at the headline limit, with its band; nothing where only one format serves it."""
    limits = np.array(ground.study.limits.tpot)
    at = cost[:, int(np.argmin(np.abs(np.log(limits / ground.study.headline.tpot))))]
    if np.isfinite(at).sum() < 2:
        return {}
    draws, sampled = draws_of(ground, ground.study.seed), []
    for k in (int(np.nanargmax(at)), int(np.nanargmin(at))):
        fmt = ground.grid.formats[k]
        known = [replace(x, formats=(fmt,) if fmt in x.formats and x.family == family else ()) for x in ground.known]
        units = units_of(known, ground.case, ground.grid, ground.study.headline.tpot, ground.batches()[::2])
        if family not in units.families:
            return {}
        sampled.append(draws.cost(units, units.best(family)))
    return {"gain": ((), float(np.nanmax(at) / np.nanmin(at))), **banded("gain", (), sampled[0] / sampled[1])}


WORDS = {
    "gain": ("cost in the dearest format over that in the cheapest, at the headline limit", "1"),
    "family": ("family", "1"),
    "format": ("format of the weights", "1"),
    "limit": ("limit on the time per output token", "s"),
    "cost": ("least cost of a token with weights in one format", "USD/Mtoken"),
}
FORMATS = Kind(answer)
