"""How sure is an answer? Units of the chips under many values of every uncertain input, all at once; chips and layouts are held.

Chips that were made to hold a model to the last byte do not hold it where memory turns out less dense: a unit may then be cut into more
pipeline stages than the stated values ask for, whatever is cheapest. Every unit of an answer sees the same draws, so that ratios of two
units are known better than either.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from scipy.stats import qmc

from dse.analysis import compare
from dse.analysis.answers.ground import Ground
from dse.analysis.inputs import Sampler, factors_of
from dse.analysis.many import filled, measured
from dse.analysis.units import EXISTING, Units
from dse.catalog import Catalog
from dse.evaluate import Metrics, as_floats
from dse.search.grid import layout_table
from dse.types import Chip, Prices

SAMPLES = compare.SAMPLES  # one compiled shape
CUTS = 4  # numbers of pipeline stages that a unit may choose among
ENDS = (1 / 20, 1 / 2, 19 / 20)  # of the 90 % band, and its middle
At = tuple[int, int]


@dataclass(frozen=True)
class Draws:
    """The study's catalogue under many values of its uncertain inputs, and chips built from it."""

    ground: Ground
    catalog: Catalog

    @functools.cached_property
    def chips(self) -> dict[int, Chip]:
        """Chips drawn so far: position among the known to leaves (samples,)."""
        return {}

    def need(self, positions: Sequence[int]) -> None:
        """Build some chips, those of one family together."""
        known = self.ground.known
        missing = [i for i in dict.fromkeys(positions) if i not in self.chips]
        for i in (i for i in missing if known[i].family == EXISTING):
            self._keep([i], compare.chips_of(_competitor(self.ground, [i]), self.catalog, SAMPLES))
        for family in dict.fromkeys(known[i].family for i in missing if known[i].family != EXISTING):
            mine = [i for i in missing if known[i].family == family]
            for start in range(0, len(mine), compare.DESIGNS):
                some = mine[start : start + compare.DESIGNS]
                self._keep(some, compare.chips_of(_competitor(self.ground, some), self.catalog, SAMPLES))

    def _keep(self, positions: Sequence[int], chips: Chip) -> None:
        for j, i in enumerate(positions):
            self.chips[i] = jax.tree.map(lambda x: np.asarray(x, float)[:, min(j, x.shape[1] - 1)], chips)  # noqa: B023

    def metrics(self, units: Units, at: At, prices: Prices | None = None) -> Metrics:
        """Metrics of one unit under all draws, leaves (samples,); ``prices``: of another owner."""
        self.need([at[0]])
        owner = self.prices(self.ground.study.headline.scenario) if prices is None else prices
        held = as_floats(units.deployment(*at))
        cuts = [replace(held, chip=self.chips[at[0]], prices=owner, layout=replace(held.layout, pp=pp)) for pp in self._stages(units, at)]
        found = [measured(filled(d, SAMPLES)) for d in cuts]
        chosen = np.argmin([np.asarray(m.usd_per_million_output_token) for m in found], axis=0)
        return jax.tree.map(lambda *xs: np.asarray(xs)[chosen, np.arange(SAMPLES)], *found)

    def _stages(self, units: Units, at: At) -> list[float]:
        """Pipeline stages of a unit, and the next larger numbers of them that the grid of layouts has."""
        tp, held, dp, ep, batch = units.rows[at]
        table = layout_table(units.case.model, replace(self.ground.grid, batches=(batch,)))
        same = (table[:, 0] == tp) & (table[:, 2] == dp) & (table[:, 3] == ep) & (table[:, 1] >= held)
        return sorted(set(table[same, 1].tolist()) | {float(held)})[:CUTS]

    def prices(self, owner: str) -> Prices:
        """Prices of an owner under all draws."""
        return jax.tree.map(lambda x: np.broadcast_to(np.ravel(np.asarray(x, float)), (SAMPLES,)), as_floats(self.catalog.prices[owner]))

    def cost(self, units: Units, at: At, prices: Prices | None = None) -> np.ndarray:
        """Cost of one unit under all draws [USD per million output tokens]; limits on speed are those of the central values."""
        return np.asarray(self.metrics(units, at, prices).usd_per_million_output_token)


def draws_of(ground: Ground, seed: int) -> Draws:
    """Draws of everything uncertain that the study's chips and prices rest on (Sobol points)."""
    factors = factors_of(ground.study, ground.catalog)
    u = qmc.Sobol(len(factors), rng=np.random.default_rng(seed)).random(SAMPLES)
    u = np.clip(u, 1 / 2 / SAMPLES, 1 - 1 / 2 / SAMPLES)
    return Draws(ground, Sampler.of(ground.catalog, factors).catalog(ground.catalog, u))


def _competitor(ground: Ground, positions: Sequence[int]) -> Any:
    some = [ground.known[i] for i in positions]
    space = None if some[0].family == EXISTING else ground.spaces[some[0].family]
    name = some[0].id if space is None else some[0].family
    empty: Any = np.empty(0)
    return compare.Competitor(name, some[0].family, space, tuple(k.id for k in some), tuple(k.decisions for k in some), empty, empty, ())


def banded(name: str, dims: Any, samples: np.ndarray) -> Mapping[str, Any]:
    """Variables of an answer: ends of the 90 % band of samples (..., samples), and their median."""
    low, middle, high = np.quantile(samples, ENDS, axis=-1)
    return {f"{name}_low": (dims, low), f"{name}_mid": (dims, middle), f"{name}_high": (dims, high)}
