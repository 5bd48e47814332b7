"""What do the analyses of a study stand on? Chips of its result, its headline case, owners' prices, the catalogue, the grid."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.niches import Niche
from dse.analysis.units import EXISTING, Known, Units, units_of, with_prices
from dse.catalog import Catalog
from dse.search.grid import Case, Grid
from dse.space import Space
from dse.study import Analysis, Study
from dse.types import Chip, Prices, Workload

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Ground:
    """One study's chips and questions."""

    study: Study
    catalog: Catalog
    known: tuple[Known, ...]
    case: Case  # the headline case, of its owner alone
    prices: Mapping[str, Prices]  # of every owner whom the study or one of its analyses names
    grid: Grid
    spaces: Mapping[str, Space]  # of the families
    result: xr.Dataset | None  # the Dataset so far
    rebuild: Callable[[Known, Catalog], Chip]  # a chip as another catalogue would build it
    kept: dict[tuple[Any, ...], Units] = field(default_factory=dict, compare=False)  # units that were asked for before

    def limit(self, given: Mapping[str, Any]) -> float:
        """The limit on the time per token of an analysis [s]: its own, or the headline's."""
        return float(given.get("tpot") or self.study.headline.tpot)

    def batches(self) -> tuple[float, ...]:
        """Requests of one instance: those of the study's grid."""
        return tuple(float(b) for b in self.study.layouts.batch)

    def units(self, limit_s: float, owner: str = "", workload: Workload | None = None) -> Units:
        """Units of all chips for the headline case, another owner or another workload; computed once."""
        key = (limit_s, owner, () if workload is None else (float(workload.input_tokens), float(workload.output_tokens)))
        if key not in self.kept:
            case = self.case if not owner else with_prices(self.case, self.prices[owner])
            case = case if workload is None else replace(case, workload=workload)
            self.kept[key] = units_of(self.known, case, self.grid, limit_s, self.batches())
        return self.kept[key]

    @functools.cached_property
    def families(self) -> tuple[str, ...]:
        """Families of the study, and ``existing`` where it names chips that one can buy."""
        return (*self.study.families, *((EXISTING,) if any(k.family == EXISTING for k in self.known) else ()))


@dataclass(frozen=True)
class Kind:
    """How one kind of analysis is done: questions to breed chips for, and the answer from all chips."""

    answer: Callable[[Ground, Mapping[str, Any]], xr.Dataset]
    niches: Callable[[Ground, Mapping[str, Any]], Sequence[Niche]] = lambda ground, given: ()


def table(values: Mapping[str, Any], coords: Mapping[str, Any], words: Mapping[str, tuple[str, str]]) -> xr.Dataset:
    """A Dataset of an answer. ``values``: name -> (dims, array); ``words``: name -> (what it is, unit)."""
    import xarray as xr

    ds = xr.Dataset(dict(values), coords={k: np.asarray(v, object) if isinstance(v[0], str) else v for k, v in coords.items()})
    for name in ds.variables:
        said, unit = words.get(str(name), (str(name).replace("_", " "), "1"))
        ds[name].attrs = {"long_name": said, "units": unit, "better": "none"}
    return ds


def prefixed(ds: xr.Dataset, analysis: Analysis) -> xr.Dataset:
    """The answer with its names under the analysis's own, so that it can lie in the Dataset of the study."""
    return ds.rename({str(n): f"{analysis.name}.{n}" for n in (*ds.variables, *(d for d in ds.dims if d not in ds.variables))})
