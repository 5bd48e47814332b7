"""What does a token cost on each family's best designs, at every batch, limit and owner? One screening that many claims read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dse.catalog import Catalog
from dse.evaluate import as_floats, stack
from dse.search.grid import Case, Grid, layout_table
from dse.search.layouts import screen
from dse.study import Study
from dse.types import Chip, Prices

BLOCK = 32  # chips screened together: the shape that other screenings have compiled already
ALONE = 0  # position of the batch of one


@dataclass(frozen=True)
class Candidate:
    """A chip that stands for its family."""

    family: str
    name: str
    chip: Chip
    formats: tuple[str, ...]


@dataclass(frozen=True)
class FamilyCosts:
    """Least cost [USD per million output tokens], inf where nothing is feasible: array (owner, limit, batch, candidate)."""

    candidates: tuple[Candidate, ...]
    owners: tuple[str, ...]
    limits_s: tuple[float, ...]  # the first is no limit
    batches: tuple[float, ...]
    cost: np.ndarray
    workload: str

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c.family for c in self.candidates))

    def curve(self, family: str, limit_s: float = math.inf, owner: str = "owner") -> np.ndarray:
        """Least cost of a family by batch."""
        members = [i for i, c in enumerate(self.candidates) if c.family == family]
        table = self.cost[self.owners.index(owner), self._limit(limit_s)]
        return table[:, members].min(axis=1) if members else np.full(len(self.batches), np.inf)

    def least(self, family: str, limit_s: float = math.inf, owner: str = "owner") -> float:
        """Least cost of a family at its best batch."""
        return float(self.curve(family, limit_s, owner).min())

    def alone(self, family: str, limit_s: float = math.inf, owner: str = "owner") -> float:
        """Least cost of a family for one user."""
        return float(self.curve(family, limit_s, owner)[ALONE])

    def winner(self, family: str, limit_s: float = math.inf, owner: str = "owner") -> Candidate | None:
        """The candidate behind ``least``; None where the family meets no limit."""
        table = self.cost[self.owners.index(owner), self._limit(limit_s)].min(axis=0)
        members = [i for i, c in enumerate(self.candidates) if c.family == family and np.isfinite(table[i])]
        return self.candidates[min(members, key=lambda i: table[i])] if members else None

    def _limit(self, limit_s: float) -> int:
        return int(
            np.argmin([0.0 if a == limit_s else abs(math.log(a / limit_s)) if math.isfinite(a * limit_s) else 1e9 for a in self.limits_s])
        )


def owners_of(study: Study, catalog: Catalog) -> dict[str, Prices]:
    """The study's owner, the same without design cost, at street prices, and for other lives of a burned-in model."""
    owner = as_floats(catalog.prices[study.headline.scenario])
    rows = {row.id: row for row in study.rows}
    street = rows["train-spend"].given["street"] if "train-spend" in rows else study.headline.scenario
    lives = rows["update-layers"].given["lives_year"] if "update-layers" in rows else ()
    found = {"owner": owner, "no_nre": replace(owner, nre_share=0.0), "street": as_floats(catalog.prices[street])}
    return found | {f"life {life:g}": replace(owner, model_life_year=float(life)) for life in lives}


def family_costs(
    candidates: Sequence[Candidate], owners: Mapping[str, Prices], study: Study, catalog: Catalog, workload: str, limits_s: Sequence[float]
) -> FamilyCosts:
    """Screen every candidate at every batch of the study's grid, one batch at a time.

    Args:
        candidates: Chips with their families. owners: Views of money by name. study: Its headline model, layouts and most chips are taken.
        catalog: Models and workloads. workload: Id. limits_s: On the time per output token [s]; no limit is added.
    """
    t, head = study.layouts, study.headline
    grid = Grid(tp=t.tp, dp=(1,), ep=("none",), formats=t.formats, max_chips=study.limits.max_chips)
    model = as_floats(catalog.models[head.model])
    case = Case(head.model, workload, model, as_floats(catalog.workloads[workload]), math.inf, tuple(owners.values()))
    limits = (math.inf, *sorted(limits_s, reverse=True))
    cost = np.full((len(owners), len(limits), len(t.batch), len(candidates)), np.inf)
    for start in range(0, len(candidates), BLOCK):
        block = list(candidates[start : start + BLOCK])
        filled = block + [block[-1]] * (BLOCK - len(block))
        chips = stack([c.chip for c in filled], axis=0)
        permitted = np.array([[float(f in c.formats) for f in grid.formats] for c in filled])
        for b, batch in enumerate(t.batch):
            one = replace(grid, batches=(batch,))
            best, _ = screen(chips, case, one, layout_table(model, one), limits, with_layout=False, permitted=permitted)
            cost[:, :, b, start : start + len(block)] = best.cost[:, :, : len(block)]
    return FamilyCosts(tuple(candidates), tuple(owners), limits, tuple(float(b) for b in t.batch), cost, workload)
