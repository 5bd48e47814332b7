"""Which chips should be tried next? An archive of the best chip of every cell, and children bred from it.

A cell is one (case, owner, latency limit). The archive keeps the few cheapest chips of each cell; children are mutations and crossings
of them in the unit cube of the design variables. Anytime, deterministic for a seed, and independent of how fast the machine is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

KEEP = 2  # chips kept for each cell


@dataclass(frozen=True)
class Archive:
    """Chips in the unit cube with their cost in every cell (inf where infeasible); only those that lead somewhere are kept."""

    points: np.ndarray  # (n, d)
    costs: np.ndarray  # (n, cells)
    tpot: np.ndarray  # (n,) fastest mean time per token of the headline case [s], inf if none

    @staticmethod
    def empty(dimensions: int, cells: int) -> Archive:
        """An archive without chips."""
        return Archive(np.empty((0, dimensions)), np.empty((0, cells)), np.empty(0))

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


def add(archive: Archive, points: np.ndarray, costs: np.ndarray, tpot: np.ndarray) -> tuple[Archive, np.ndarray]:
    """Archive with new chips, and which of them entered (indices into the new ones)."""
    both = Archive(np.concatenate([archive.points, points]), np.concatenate([archive.costs, costs]), np.concatenate([archive.tpot, tpot]))
    kept = leaders(both.costs)
    entered = kept[kept >= len(archive)] - len(archive)
    return replace(both, points=both.points[kept], costs=both.costs[kept], tpot=both.tpot[kept]), entered


def breed(archive: Archive, rng: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    """Children in the unit cube: half of each parent pair crossed, then mutated at one of three scales; a tenth at random.

    Parents are drawn by cell, so that every cell (not only the cheapest) breeds.
    """
    fresh = rng.random((count, dimensions))
    if not len(archive):
        return fresh
    finite = np.isfinite(archive.costs).any(axis=0)
    best = np.argmin(archive.costs[:, finite], axis=0) if finite.any() else np.zeros(1, int)
    mothers = archive.points[rng.choice(best, count)]
    fathers = archive.points[rng.integers(len(archive), size=count)]
    crossed = np.where(rng.random((count, dimensions)) < 0.5 * (rng.random((count, 1)) < 0.5), fathers, mothers)
    scale = rng.choice(MUTATION_SCALES, (count, 1))
    touched = rng.random((count, dimensions)) < np.maximum(rng.random((count, 1)), 1.0 / dimensions)
    children = crossed + scale * rng.standard_normal((count, dimensions)) * touched
    # a choice moves to any other value: a small step inside its interval of the cube would change nothing
    jump = rng.random((count, dimensions)) < JUMP
    children = np.where(jump, fresh, children)
    children = np.abs(children)
    children = np.where(children > 1.0, 2.0 - children, children)
    random = rng.random((count, 1)) < RANDOM
    return np.clip(np.where(random, fresh, children), 0.0, 1.0)


MUTATION_SCALES = np.array([0.02, 0.08, 0.25])  # steps in the unit cube: polish, move, explore
JUMP = 0.03  # chance that a coordinate is drawn anew
RANDOM = 0.1  # share of children that ignore the archive
