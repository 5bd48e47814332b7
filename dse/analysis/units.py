"""What can each chip of a result be deployed as? The cheapest instance of every chip at every number of requests at the same time.

A unit is one instance: so many chips in one layout, serving so many requests. Everything about demand, contexts and formats is read
from such units; a service of many users is a number of equal ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from dse.evaluate import Metrics
from dse.search.finalists import ROUNDING, Finalist, best_of, exact, together
from dse.search.grid import Case, Grid, is_mixture, layout_table, to_layout
from dse.types import Chip, Deployment, named_format

HYPOTHETICAL, EXISTING = "hypothetical", "existing"


@dataclass(frozen=True)
class Known:
    """A chip of the result, and the weight formats that it may use."""

    id: str
    family: str  # ``existing``: one can buy it
    name: str
    chip: Chip
    formats: tuple[str, ...]
    decisions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Units:
    """Cheapest instances: arrays (chip, batch); ``metrics`` have leaves of that shape, nan where nothing is feasible."""

    known: tuple[Known, ...]
    case: Case
    batches: tuple[float, ...]
    feasible: np.ndarray
    metrics: Metrics
    rows: np.ndarray  # (chip, batch, 5): tp, pp, dp, ep, batch
    formats: np.ndarray  # (chip, batch), names

    def cost(self) -> np.ndarray:
        """USD per million output tokens, inf where nothing is feasible."""
        return np.where(self.feasible, np.asarray(self.metrics.usd_per_million_output_token), np.inf)

    def of(self, family: str) -> np.ndarray:
        """Mask (chip,) of a family's chips."""
        return np.array([k.family == family for k in self.known])

    @property
    def families(self) -> tuple[str, ...]:
        """Families that have a feasible unit."""
        return tuple(f for f in dict.fromkeys(k.family for k in self.known) if self.feasible[self.of(f)].any())

    def curve(self, family: str) -> np.ndarray:
        """Least cost of a family at each batch."""
        return np.min(self.cost()[self.of(family)], axis=0, initial=np.inf)

    def best(self, family: str, batch: int | None = None) -> tuple[int, int]:
        """(chip, batch) of a family's cheapest unit, at one batch or at the best."""
        cost = np.where(self.of(family)[:, None], self.cost(), np.inf)
        if batch is not None:
            cost = np.where(np.arange(len(self.batches)) == batch, cost, np.inf)
        chip, at = np.unravel_index(int(np.argmin(cost)), cost.shape)
        return int(chip), int(at)

    def deployment(self, chip: int, batch: int) -> Deployment:
        """The deployment of one unit (scalars)."""
        layout = to_layout(self.rows[chip, batch][None], None, is_mixture(self.case.model))
        layout = replace(jax.tree.map(lambda x: float(x[0]), layout), format=named_format(str(self.formats[chip, batch])))
        return Deployment(
            chip=self.known[chip].chip, model=self.case.model, workload=self.case.workload, layout=layout, prices=self.case.prices[0]
        )


def value(m: Metrics, name: str) -> np.ndarray:
    """One metric of units; ``cost.energy`` is a part of the cost rate."""
    head, _, tail = name.partition(".")
    return np.asarray(getattr(m.cost_usd_per_s, tail) if head == "cost" else getattr(m, head))


def units_of(known: Sequence[Known], case: Case, grid: Grid, limit_s: float, batches: Sequence[float]) -> Units:
    """The cheapest layout and format of every chip at each batch, evaluated exactly.

    Args:
        known: Chips. case: Model, workload, one owner. grid: Layouts to try (its batches and formats are replaced).
        limit_s: Limit on the mean time per output token [s], inf for none. batches: Requests of one instance, ascending.
    """
    finalists = [Finalist(k.chip, k.formats) for k in known]
    formats = tuple(dict.fromkeys(f for k in known for f in k.formats))
    chips, shape = together(finalists), (len(known), len(batches))
    rows, chosen = np.ones((*shape, 5)), np.full(shape, -1)
    for b, batch in enumerate(batches):
        one = replace(grid, batches=(batch,), formats=formats)
        table = layout_table(case.model, one)
        if not len(table):
            continue
        best = best_of(case, finalists, chips, one, table, (limit_s,))
        met = best.layout[0, 0] >= 0
        rows[met, b] = table[best.layout[0, 0, met]]
        chosen[met, b] = best.format[0, 0, met]
    who, at = np.nonzero(chosen >= 0)
    feasible = np.zeros(shape, bool)
    if not len(who):
        who, at = np.zeros(1, int), np.zeros(1, int)
    m = exact(case, chips, who, rows[who, at], np.maximum(chosen[who, at], 0), formats, case.prices[0])
    kept = np.asarray(m.feasible) & (np.asarray(m.tpot_s) <= limit_s * (1 + ROUNDING))
    kept &= (np.asarray(m.ttft_s) <= case.ttft_limit_s * (1 + ROUNDING)) & (chosen[who, at] >= 0)
    feasible[who, at] = kept

    def spread(leaf: Any) -> np.ndarray:
        out = np.full(shape, np.nan)
        out[who[kept], at[kept]] = np.asarray(leaf, float)[kept]
        return out

    names = np.array([*formats, ""], object)[chosen]
    return Units(tuple(known), case, tuple(float(b) for b in batches), feasible, jax.tree.map(spread, m), rows, names)


def with_prices(case: Case, prices: Any) -> Case:
    """The same question of one other owner."""
    return replace(case, prices=(prices,))


def least(units: Units, families: Sequence[str]) -> Mapping[str, float]:
    """Least cost of each family over all batches."""
    return {f: float(units.curve(f).min()) for f in families}
