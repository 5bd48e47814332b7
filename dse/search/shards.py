"""How is one shard (one family in one class of formats) searched? Rounds of chips: some asked from the sampler, most bred from the archive.

Before the rounds stands a quick look at the headline question alone, after them its finish (``refine``); what they find is recorded as a
round each. A shard needs nothing from another one, so shards run in any order and on any number of workers with the same result.
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

LOOK, ROUND, FINISH = "look", "round", "finish"
ENDED = "ended_by_gap"  # attribute of a ledger whose search need not go on
ORIGIN = {LOOK: "looked", FINISH: "finished"}  # of the chips that the headline's own search found
# points, their costs (those of an archive, where it has any), rounds, draws: better points, chips and evaluations that it took
Polish = Callable[[np.ndarray, np.ndarray | None, int, np.random.Generator], tuple[np.ndarray, int, int]]


@dataclass(frozen=True)
class Scores:
    """What the evaluation of a block of chips says: cost in every cell, the two values, named constraints."""

    costs: np.ndarray  # (n, cells): cost of every (case, owner, limit), then the fastest token of every case
    values: np.ndarray  # (n, objectives): least cost, fastest token and what else is asked of the headline case, inf where none
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
    look: int = 0  # rounds on the headline question alone, before the search
    finish: int = 0  # and after it
    checks: int = 1  # finishes, evenly spread over the search, the last at its end

    @property
    def block(self) -> int:
        """Chips of a round: every round has the same shape."""
        size = self.asked + (self.bred if self.explore else 0)
        return max(min(size, self.chips), 1)

    @property
    def rounds(self) -> int:
        return max(self.chips // self.block, 1)

    @property
    def steps(self) -> tuple[str, ...]:
        """What is done in turn, each recorded as one round of the ledger."""
        ends = {-(-self.rounds * (k + 1) // self.checks) for k in range(self.checks)} if self.finish else set()
        found = [LOOK] if self.look else []
        for number in range(self.rounds):
            found += [ROUND, FINISH] if number + 1 in ends else [ROUND]
        return tuple(found)


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


def _fastest(values: Sequence[float]) -> float:
    """The second objective, where there is one."""
    return float(values[min(1, len(values) - 1)])


def replay(plan: Plan, ledger: Ledger) -> explore.Archive:
    """The archive after the sealed rounds, from the ledger alone."""
    archive = explore.Archive.empty(plan.space.dimension, plan.cells, [v.size for v in plan.space.variables])
    for number in range(ledgers.sealed_rounds(ledger)):
        found = ledgers.entries(ledger, number)
        if found:
            _, points = points_of(plan.space, [e.decisions for e in found])
            archive, _ = explore.add(archive, points, np.array([e.front for e in found]), np.array([_fastest(e.values) for e in found]))
    return archive


def propose(plan: Plan, ledger: Ledger, archive: explore.Archive, number: int) -> tuple[np.ndarray, ledgers.Asked]:
    """Points of a round: those asked from the sampler first, then those bred; the first round opens with the family's default design."""
    rng = ledgers.seed_of(plan.seed, plan.label, number)
    asked = min(plan.asked, plan.block) if plan.explore else plan.block
    found = ledgers.ask(ledger, plan.sampler, int(rng.integers(2**31)), asked, alone=not plan.explore)
    fixed = _defaults(plan.space)
    _, points = points_of(plan.space, [{**fixed, **d} for d in found.decisions])
    if number == 0:
        points[0] = points_of(plan.space, [fixed])[1][0]
    bred = explore.breed(archive, rng, plan.block - asked, plan.space.dimension)
    return np.concatenate([points, bred]), found


def _defaults(space: Space) -> dict[str, Any]:
    """The family's default design, written by name."""
    return space.named(space.defaults())


def scored(
    plan: Plan, evaluate_block: Callable[[dict[str, np.ndarray]], Scores], points: np.ndarray
) -> tuple[list[dict[str, Any]], Scores]:
    """Any number of chips scored block by block; their decisions by name."""
    named, values, _ = canonical(plan.space, points)
    parts = []
    for start in range(0, len(points), plan.block):
        parts.append(evaluate_block({k: v[start : start + plan.block] for k, v in values.items()}))
    return named, Scores(
        costs=np.concatenate([p.costs for p in parts]),
        values=np.concatenate([p.values for p in parts]),
        constraints={k: np.concatenate([p.constraints[k] for p in parts]) for k in parts[0].constraints},
        evaluations=sum(p.evaluations for p in parts),
    )


def run_shard(
    plan: Plan,
    ledger: Ledger,
    evaluate_block: Callable[[dict[str, np.ndarray]], Scores],
    tick: Callable[[int, int], None],
    polish: Polish | None = None,
    start: np.ndarray | None = None,
    until: int | None = None,
    enough: Callable[[list[Entry]], bool] = lambda _: False,
) -> explore.Archive:
    """Search a shard to its budget, from wherever the ledger stands.

    Args:
        plan: What and how much. ledger: Its Optuna study. evaluate_block: Values of a block of designs to ``Scores``.
        tick: Called after each step with chips and evaluations done in it.
        polish: Searches the headline question alone, and after the search the others (needed where the plan looks or finishes).
        start: Points of chips of an earlier study. until: Stop after so many steps. enough: Asked after each finish, with what it found:
            whether the search may end there.

    Returns: The archive: the best chips of every cell.
    """
    archive = replay(plan, ledger)
    done = ledgers.sealed_rounds(ledger)
    counts = {k: int(ledger.study.user_attrs.get(k, 0)) for k in ("chips_screened", "chips_refined", "evaluations")}
    steps = plan.steps[:until]
    for kind in steps[:done]:
        tick(plan.block if kind == ROUND else 0, 0)
    ended = bool(ledger.study.user_attrs.get(ENDED, 0))
    for number in range(done, len(steps)):
        if ended:
            break
        kind = steps[number]
        if kind == ROUND:
            cube, proposal = propose(plan, ledger, archive, number - bool(plan.look))
            asked, chips = len(proposal.decisions), plan.block
            if start is not None and number == 0:  # no look before it that would have taken them
                cube[1 : 1 + len(start)] = start[: len(cube) - 1]
        else:
            assert polish is not None
            rounds = plan.look if kind == LOOK else plan.finish
            known = archive.points if len(archive) else points_of(plan.space, [_defaults(plan.space)])[1]
            known = known if start is None or kind != LOOK else np.concatenate([known, start])
            costs = archive.costs if kind == FINISH and len(archive) else None
            cube, chips, evaluations = polish(known, costs, rounds, ledgers.seed_of(plan.seed, f"{plan.label}/{kind}", number))
            counts["chips_refined"] += chips
            cube = cube if kind != LOOK or start is None else np.concatenate([cube, start])
            cube = cube if len(cube) else known[:1]
            asked, chips, proposal = len(cube), 0, ledgers.Asked([], None, [])
            counts["evaluations"] += evaluations
        named, scores = scored(plan, evaluate_block, cube)
        _, points = points_of(plan.space, named)
        archive, entered = explore.add(archive, points, scores.costs, np.array([_fastest(v) for v in scores.values]))
        kept = sorted({*range(asked), *entered.tolist()})
        found = [
            Entry(
                decisions=named[i],
                values=tuple(float(x) for x in scores.values[i]),
                constraints={k: float(v[i]) for k, v in scores.constraints.items()},
                front=[float(x) for x in scores.costs[i]],
                origin=ORIGIN.get(kind, "asked" if i < asked else "bred"),
                system=proposal.system[i] if i < len(proposal.system) else {},
            )
            for i in kept
        ]
        counts["evaluations"] += scores.evaluations
        counts["chips_screened"] += chips
        ended = kind == FINISH and number + 1 < len(plan.steps) and enough(found)
        ledgers.record(ledger, number, found, proposal.generation, {**counts, **({ENDED: 1} if ended else {})})
        tick(chips, scores.evaluations)
    return archive


def finished(ledger: Ledger) -> list[Entry]:
    """Chips that the finish found, the last one alone: they go into the result whatever else leads on the thinned grid."""
    for number in reversed(range(ledgers.sealed_rounds(ledger))):
        found = [e for e in ledgers.entries(ledger, number) if e.origin == ORIGIN[FINISH]]
        if found:
            return found
    return []
