"""Which chips are best for questions that the study's own search did not ask? Bred from its designs, on the same space and model.

A niche is one owner's question at some numbers of requests: one user alone, say, or a run of a hundred wafers. The best chip of each
niche joins the designs of the result. Deterministic for a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dse.search import explore
from dse.search.deck import Memo
from dse.search.designs import Shop, build_block, column, pad
from dse.search.grid import Case, Grid, layout_table
from dse.search.layouts import screen
from dse.search.optuna_study import seed_of
from dse.search.shards import canonical

BLOCK = 32  # chips of a round: the shape that the search has compiled


@dataclass(frozen=True)
class Niche:
    """A question (one owner), the numbers of requests that an instance may have (None: those of the grid), limits on the time per token."""

    case: Case
    limits_s: tuple[float, ...]
    batches: tuple[float, ...] | None = None


class Scorer:
    """Scores chips in niches; what depends on layouts alone is kept from block to block."""

    def __init__(self, niches: Sequence[Niche], grid: Grid) -> None:
        grids = [grid if n.batches is None else replace(grid, batches=n.batches) for n in niches]
        self._asked = [(n, own, layout_table(n.case.model, own), Memo(fit=False)) for n, own in zip(niches, grids, strict=True)]

    def costs(self, chips: Any) -> np.ndarray:
        """Cost of every chip in every niche and limit: array (n, cells), inf where nothing is feasible. ``chips``: leaves (n, 1)."""
        found = [
            screen(chips, niche.case, grid, table, niche.limits_s, with_layout=False, memo=memo)[0].cost[0]
            for niche, grid, table, memo in self._asked
        ]
        return np.concatenate(found).T if found else np.empty((0, 0))


def breed(shop: Shop, niches: Sequence[Niche], grid: Grid, start: np.ndarray, chips: int, seed: int, label: str = "niches") -> np.ndarray:
    """Points of the unit cube of the best chip of every niche that any chip can fill.

    Args:
        shop: What the family is built with. niches: Questions. grid: Layouts and formats.
        start: Points (n, d) of known designs. chips: To try, in rounds of ``BLOCK``, beside the known ones. seed: Of the study.
    """
    cells = sum(len(n.limits_s) for n in niches)
    archive, scorer = explore.Archive.empty(shop.space.dimension, cells), Scorer(niches, grid)
    pending = [start[i : i + BLOCK] for i in range(0, len(start), BLOCK)]
    for number in range(len(pending) + chips // BLOCK):
        bred = number >= len(pending)
        rng = seed_of(seed, f"{shop.family}/{label}", number)
        cube = explore.breed(archive, rng, BLOCK, shop.space.dimension) if bred else pending[number]
        _, values, points = canonical(shop.space, cube)
        built = build_block(shop, pad(values, BLOCK)).chip
        costs = scorer.costs(column(built, BLOCK))[: len(points)]
        archive, _ = explore.add(archive, points, costs, np.full(len(points), np.inf))
    return archive.points[explore.leaders(archive.costs, keep=1)]
