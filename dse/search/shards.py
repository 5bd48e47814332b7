"""How is one shard (one family in one class of formats) searched? Rounds of chips: some asked from the sampler, most bred from the archive.

A shard needs nothing from another one, so shards run in any order and on any number of workers with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dse.search import explore
from dse.search import optuna_study as ledgers
from dse.search.optuna_study import Entry, Ledger
from dse.space import Space


@dataclass(frozen=True)
class Scores:
    """What the evaluation of a block of chips says: cost in every cell, the two values, named constraints."""

    costs: np.ndarray  # (n, cells): cost of every (case, owner, limit), then the fastest token of every case
    values: np.ndarray  # (n, 2): least cost and fastest token of the headline case, inf where none
    constraints: Mapping[str, np.ndarray]  # (n,), <= 0 is feasible
    evaluations: int


@dataclass(frozen=True)
class Plan:
    """How a shard is searched."""

    label: str
    space: Space
    cells: int
    chips: int  # to evaluate
    sampler: str
    explore: bool
    asked: int
    bred: int
    seed: int

    @property
    def block(self) -> int:
        """Chips of a round: every round has the same shape."""
        size = self.asked + (self.bred if self.explore else 0)
        return max(min(size, self.chips), 1)

    @property
    def rounds(self) -> int:
        return max(self.chips // self.block, 1)


def canonical(space: Space, cube: np.ndarray) -> tuple[list[dict[str, Any]], dict[str, np.ndarray], np.ndarray]:
    """Points of the cube as they will be read back from the ledger: decisions by name, values, and the points that these have."""
    decoded = space.decode(cube)
    named = [space.named(decoded, i) for i in range(len(cube))]
    return (named, *points_of(space, named))


def points_of(space: Space, named: Sequence[Mapping[str, Any]]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Values and points of the unit cube of designs written by name."""
    rows = [space.from_named(n) for n in named]
    values = {name: np.array([row[name] for row in rows]) for name in space.names}
    return values, space.encode(values)


def replay(plan: Plan, ledger: Ledger) -> explore.Archive:
    """The archive after the sealed rounds, from the ledger alone."""
    archive = explore.Archive.empty(plan.space.dimension, plan.cells, [v.size for v in plan.space.variables])
    for number in range(ledgers.sealed_rounds(ledger)):
        found = ledgers.entries(ledger, number)
        if found:
            _, points = points_of(plan.space, [e.decisions for e in found])
            archive, _ = explore.add(archive, points, np.array([e.front for e in found]), np.array([e.values[1] for e in found]))
    return archive


def propose(plan: Plan, ledger: Ledger, archive: explore.Archive, number: int) -> tuple[np.ndarray, int, tuple[str, int] | None]:
    """Points of a round: those asked from the sampler first, then those bred; the first round opens with the family's default design."""
    rng = ledgers.seed_of(plan.seed, plan.label, number)
    asked = min(plan.asked, plan.block) if plan.explore else plan.block
    decisions, generation = ledgers.ask(ledger, plan.sampler, int(rng.integers(2**31)), asked, alone=not plan.explore)
    fixed = {v.name: plan.space.named(plan.space.defaults())[v.name] for v in plan.space.variables}
    _, points = points_of(plan.space, [{**fixed, **d} for d in decisions])
    if number == 0:
        points[0] = points_of(plan.space, [fixed])[1][0]
    bred = explore.breed(archive, rng, plan.block - asked, plan.space.dimension)
    return np.concatenate([points, bred]), asked, generation


def run_shard(
    plan: Plan, ledger: Ledger, evaluate_block: Callable[[dict[str, np.ndarray]], Scores], tick: Callable[[int, int], None]
) -> explore.Archive:
    """Search a shard to its budget, from wherever the ledger stands.

    Args:
        plan: What and how much. ledger: Its Optuna study. evaluate_block: Values of a block of designs to ``Scores``.
        tick: Called after each round with chips and evaluations done in it.

    Returns: The archive: the best chips of every cell.
    """
    archive = replay(plan, ledger)
    done = ledgers.sealed_rounds(ledger)
    evaluations = int(ledger.study.user_attrs.get("evaluations", 0))
    for _ in range(min(done, plan.rounds)):
        tick(plan.block, 0)
    for number in range(done, plan.rounds):
        cube, asked, generation = propose(plan, ledger, archive, number)
        named, values, points = canonical(plan.space, cube)
        scores = evaluate_block(values)
        archive, entered = explore.add(archive, points, scores.costs, scores.values[:, 1])
        kept = sorted({*range(asked), *entered.tolist()})
        found = [
            Entry(
                decisions=named[i],
                values=(float(scores.values[i, 0]), float(scores.values[i, 1])),
                constraints={k: float(v[i]) for k, v in scores.constraints.items()},
                front=[float(x) for x in scores.costs[i]],
                origin="asked" if i < asked else "bred",
            )
            for i in kept
        ]
        evaluations += scores.evaluations
        screened = (number + 1) * plan.block
        ledgers.record(ledger, number, found, generation, {"chips_screened": screened, "evaluations": evaluations})
        tick(plan.block, scores.evaluations)
    return archive
