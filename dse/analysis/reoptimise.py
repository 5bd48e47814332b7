"""What would a search have found, had some inputs been different? A search from the front's designs, under another catalogue.

Slow (chips are bred anew for every question), so it checks what ``compare`` says of the designs and layouts of the front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dse.analysis.niches import BLOCK, Niche, breed, costs_of
from dse.catalog import Catalog
from dse.evaluate import as_floats
from dse.search.designs import Shop, build_block, column, pad
from dse.search.layouts import Case, Grid
from dse.search.shards import canonical, points_of


@dataclass(frozen=True)
class Start:
    """A family as a search starts on it: how its shop is made under a catalogue, its designs on the front, layouts and formats."""

    family: str
    shop: Callable[[Catalog], Shop]
    designs: tuple[Mapping[str, Any], ...]
    grid: Grid


def searched(start: Start, catalog: Catalog, case: Case, scenario: str, limit_s: float, chips: int, seed: int) -> float:
    """Least cost that a search of a family finds under a catalogue [USD/Mtoken]; inf where nothing is feasible.

    Args:
        start: The family. catalog: With the inputs that count. case: Model, workload. scenario: Owner. limit_s: On the time per token.
        chips: Tried beside the designs of the front. seed: Of the search.
    """
    shop = start.shop(catalog)
    niche = Niche(replace(case, prices=(as_floats(catalog.prices[scenario]),)), (limit_s,))
    known = points_of(shop.space, [dict(d) for d in start.designs])[1]
    best = breed(shop, [niche], start.grid, known, chips, seed, "again")
    if not len(best):
        return float("inf")
    _, values, _ = canonical(shop.space, best)
    built = build_block(shop, pad(values, BLOCK)).chip
    fine = replace(start.grid, batches=_between(start.grid.batches))
    return float(costs_of(column(built, BLOCK), [niche], fine)[: len(best)].min())


def _between(batches: Sequence[float]) -> tuple[int, ...]:
    """Batches with those between them."""
    b = np.asarray(batches, float)
    return tuple(sorted({*map(int, b), *(round(float(x)) for x in np.sqrt(b[1:] * b[:-1]))}))


def compared(ds: Any, names: Sequence[str], chosen: np.ndarray, again: np.ndarray) -> Any:
    """The Dataset with costs of the same samples by both ways: ``cost_rechosen`` and ``cost_reoptimised``, (redesigned, resample).

    Args:
        ds: Dataset. names: Families. chosen, again: Costs, arrays (families, samples) [USD/Mtoken]; inf where nothing is feasible.
    """
    drop = [d for d in ("redesigned", "resample") if d in ds.dims]
    out = ds.drop_dims(drop).assign_coords(redesigned=list(names), resample=np.arange(chosen.shape[1]))
    said = {"cost_rechosen": "designs of the front, layouts chosen anew", "cost_reoptimised": "designs searched anew"}
    for name, values in (("cost_rechosen", chosen), ("cost_reoptimised", again)):
        attrs = {"units": "USD/Mtoken", "better": "lower", "long_name": f"cost of a sample, {said[name]}"}
        out[name] = (("redesigned", "resample"), np.where(np.isfinite(values), values, np.nan), attrs)
    for dim, text in (("redesigned", "family"), ("resample", "sample of all uncertain inputs")):
        out[dim].attrs = {"units": "1", "better": "none", "long_name": text}
    return out
