"""Which chips should be tried next? An archive of the best chip of every cell, and children bred from it.

A cell is one (case, owner, latency limit), or the fastest token of a case. The archive keeps the few best chips of each cell, and for
every value of a choice (a node, a way of cooling) the best chip that has it, so that no basin is lost to an early leader. Children are
crossings, differential steps and mutations of them in the unit cube of the design variables; whole numbers and choices are inherited, or
jump. Anytime, deterministic for a seed, and independent of how fast the machine is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

KEEP = 2  # chips kept for each cell
Mend = Callable[[np.ndarray, np.ndarray], np.ndarray]  # mothers and children (n, d) to better children


@dataclass(frozen=True)
class Archive:
    """Chips in the unit cube with their cost in every cell (inf where infeasible); only those that lead somewhere are kept."""

    points: np.ndarray  # (n, d)
    costs: np.ndarray  # (n, cells)
    tpot: np.ndarray  # (n,) fastest mean time per token of the headline case [s], inf if none
    sizes: np.ndarray | None = None  # (d,) number of values of each variable, inf for real ones; None: all are real
    each: bool = False  # whether every cell has ambassadors of its own: where there are few cells

    @staticmethod
    def empty(dimensions: int, cells: int, sizes: Sequence[float] | None = None, each: bool = False) -> Archive:
        """An archive without chips."""
        known = None if sizes is None else np.asarray(sizes, float)
        return Archive(np.empty((0, dimensions)), np.empty((0, cells)), np.empty(0), known, each)

    def __len__(self) -> int:
        return len(self.points)


def leaders(costs: np.ndarray, keep: int = KEEP) -> np.ndarray:
    """Rows that are among the ``keep`` cheapest of any cell; ties go to the earlier row.

    >>> leaders(np.array([[1.0, 9.0], [2.0, 8.0], [3.0, np.inf]]), keep=1)
    array([0, 1])
    """
    if not len(costs):
        return np.empty(0, int)
    order = np.argsort(costs, axis=0, kind="stable")[:keep]
    reached = np.isfinite(np.take_along_axis(costs, order, axis=0))
    return np.unique(order[reached])


def ambassadors(points: np.ndarray, costs: np.ndarray, sizes: np.ndarray | None, each: bool = False) -> np.ndarray:
    """For every value of every variable of few values, the row that has it and is nearest to the best costs over all cells.

    With ``each`` for every cell the cheapest that has it, too: what serves a tight limit best may be far from the best elsewhere.

    >>> points, costs = np.array([[0.1], [0.2], [0.9]]), np.array([[1.0, 8.0], [2.0, 7.0], [3.0, 9.0]])
    >>> ambassadors(points, costs, np.array([2.0])), ambassadors(points, costs, np.array([2.0]), each=True)
    (array([0, 2]), array([0, 1, 2]))
    """
    if sizes is None or not len(costs):
        return np.empty(0, int)
    best = costs.min(axis=0)
    reached = np.isfinite(best)
    if not reached.any():
        return np.empty(0, int)
    with np.errstate(invalid="ignore"):
        behind = np.minimum(np.log(costs[:, reached] / best[reached]), FAR).mean(axis=1)
    found = []
    for j in np.flatnonzero((sizes > 1) & (sizes <= FEW)):
        level = np.minimum((points[:, j] * sizes[j]).astype(int), int(sizes[j]) - 1)
        for value in np.unique(level):
            rows = np.flatnonzero((level == value) & (behind < FAR))
            found += [rows[np.argmin(behind[rows])]] if len(rows) else []
            if each:
                rows = np.flatnonzero(level == value)
                least = np.argmin(costs[rows], axis=0)
                found += rows[least[np.isfinite(costs[rows].min(axis=0))]].tolist()
    return np.unique(np.array(found, int))


def add(archive: Archive, points: np.ndarray, costs: np.ndarray, tpot: np.ndarray) -> tuple[Archive, np.ndarray]:
    """Archive with new chips, and which of them entered (indices into the new ones)."""
    points, costs = np.concatenate([archive.points, points]), np.concatenate([archive.costs, costs])
    tpot = np.concatenate([archive.tpot, tpot])
    kept = np.union1d(leaders(costs), ambassadors(points, costs, archive.sizes, archive.each)).astype(int)
    entered = kept[kept >= len(archive)] - len(archive)
    return replace(archive, points=points[kept], costs=costs[kept], tpot=tpot[kept]), entered


def breed(
    archive: Archive, rng: np.random.Generator, count: int, dimensions: int, ends: float = 0.0, mend: Mend | None = None
) -> np.ndarray:
    """Children in the unit cube: a differential step, a mutation at any scale, or a crossing with one, in equal parts; a few at random.

    Mothers are drawn among the chips that lead a cell, each as often, so that no chip that leads many crowds out the others; some are any
    chip of the archive. A step over the end of a range is reflected there, but for the share ``ends`` of them, which stop at the end.
    ``mend`` has the last word.
    """
    fresh = rng.random((count, dimensions))
    if not len(archive):
        return fresh
    finite = np.isfinite(archive.costs).any(axis=0)
    best = np.array(list(dict.fromkeys(np.argmin(archive.costs[:, finite], axis=0).tolist())) if finite.any() else [0])
    leading, *others = (
        archive.points[rng.choice(best, count)],
        *(archive.points[rng.integers(len(archive), size=count)] for _ in range(4)),
    )
    anyone, father, one, other = others
    mother = np.where(rng.random((count, 1)) < ANYONE, anyone, leading)

    def chance(p: float | np.ndarray) -> np.ndarray:
        return rng.random((count, dimensions)) < p

    always = np.arange(dimensions) == rng.integers(dimensions, size=(count, 1))  # one variable at least
    many, few = chance(rng.random((count, 1))) | always, chance(FEW_TOUCHED / dimensions) | always
    stretch = rng.choice(STRETCHES, (count, 1))
    towards = rng.choice([0.0, 1 / 2], (count, 1))
    differential = mother + many * (stretch * (one - other) + towards * (father - mother))
    step = np.exp(rng.uniform(np.log(STEPS[0]), np.log(STEPS[1]), (count, 1))) * rng.standard_normal((count, dimensions))
    mutated = mother + step * np.where(rng.random((count, 1)) < 1 / 2, few, many)
    crossed = np.where(chance(1 / 2), father, mother) + step * few
    way = rng.integers(3, size=(count, 1))
    children = np.where(way == 0, differential, np.where(way == 1, mutated, crossed))
    if archive.sizes is not None:
        whole = np.isfinite(archive.sizes)
        near = mother + np.where(chance(1 / 2), 1.0, -1.0) / np.where(whole, archive.sizes, 1.0)
        inherited = np.where(chance(1 / 4), father, mother)
        children = np.where(whole, np.where(chance(JUMP), np.where(chance(1 / 2), near, fresh), inherited), children)
    reflected = np.abs(children)
    reflected = np.where(reflected > 1.0, 2.0 - reflected, reflected)
    children = np.where(chance(ends), np.clip(children, 0.0, 1.0), reflected) if ends > 0.0 else reflected
    children = np.clip(np.where(rng.random((count, 1)) < RANDOM, fresh, children), 0.0, 1.0)
    return children if mend is None else mend(mother, children)


STEPS = (1e-3, 0.5)  # smallest and largest spread of a mutation in the unit cube: polish to explore
STRETCHES = (0.5, 0.8, 1.0)  # of the difference of two chips of the archive
FEW_TOUCHED = 1.5  # variables that a small mutation touches
JUMP = 0.15  # chance that a whole number or a choice changes
ANYONE = 0.25  # share of mothers that need not lead a cell
RANDOM = 0.05  # share of children that ignore the archive
FEW = 8  # a variable of so many values has an ambassador for each
FAR = 3.0  # logarithm of a cost ratio from which on all are equally far
