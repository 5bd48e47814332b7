"""How cheap do the best chips of one question become when the search goes on around them? Chip and batch together, on every batch there is.

The search of a study asks many questions on a thinned grid of layouts. Here only one is asked (the headline of a study): chips are bred
from the best ones, and each meets the few ways of cutting the model that are best so far with every batch that the refinement of winners
can reach: so few layouts cost next to nothing, and single precision, compiled for the search already, is exact enough. Design variables
that are driven over the end of their range stay there, because optima lie on ends. Without any chip to start from it is a quick first look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dse.search import explore
from dse.search.designs import Questions, Shop, alike, build_block, column, pad
from dse.search.finalists import fine_batches
from dse.search.kernel import SLICE
from dse.search.layouts import Case, Grid, Memo, layout_table, screen
from dse.search.shards import canonical

RENEW = 25  # rounds after which the ways of cutting the model are chosen anew
ENDS = 0.5  # share of the steps over the end of a range that stop there


@dataclass(frozen=True)
class Question:
    """What is minimised under every limit: the cost in one case, or the weighted mean over the cases of a mix, to one owner."""

    cases: tuple[tuple[Case, float], ...]  # each with the prices of one owner, and its weight
    limits_s: tuple[float, ...]


@dataclass(frozen=True)
class Refined:
    """Best chip of every limit: points of the unit cube (as a ledger gives them back), costs under every limit, what it took."""

    points: np.ndarray
    costs: np.ndarray
    chips: int
    evaluations: int


class _Bench:
    """A family's chips scored on one question: on the thinned grid, or on the few shapes of layouts that are looked at."""

    def __init__(self, shop: Shop, question: Question, grid: Grid, block: int) -> None:
        self.shop, self.question, self.block, self.evaluations = shop, question, block, 0
        self.thin = grid.thinned()
        self.batches = fine_batches(grid.thinned())
        self.wide = [layout_table(case.model, self.thin) for case, _ in question.cases]
        self.wide_memo, self.memo = Memo(), Memo()
        self.fine: list[tuple[Grid, np.ndarray]] = []

    def _chips(self, cube: np.ndarray):
        return alike(column(build_block(self.shop, pad(self.shop.space.decode(cube), self.block)).chip, self.block), self.block)

    def look(self, cube: np.ndarray, lead: np.ndarray) -> None:
        """Choose shapes and formats: those that are best for any of the chips under any limit, those of the chips in ``lead`` first."""
        votes: list[dict[tuple[float, ...], int]] = [{} for _ in self.question.cases]
        formats: list[dict[str, None]] = [{} for _ in self.question.cases]
        order = np.r_[lead, np.setdiff1d(np.arange(len(cube)), lead)].astype(int)
        for start in range(0, len(order), self.block):
            chosen = order[start : start + self.block]
            chips = self._chips(cube[chosen])
            for c, (case, _) in enumerate(self.question.cases):
                best, count = screen(chips, case, self.thin, self.wide[c], self.question.limits_s, memo=self.wide_memo)
                self.evaluations += count
                for row, form in zip(best.layout[0][:, : len(chosen)].ravel(), best.format[0][:, : len(chosen)].ravel(), strict=True):
                    if row >= 0:
                        shape = tuple(self.wide[c][row, :4])
                        votes[c][shape] = votes[c].get(shape, 0) + 1
                        formats[c][self.thin.formats[form]] = None
        self.fine = []
        for v, f in zip(votes, formats, strict=True):
            shapes = sorted(v, key=lambda s: -v[s])[: max(SLICE // max(len(self.batches), 1), 1)]
            rows = [(*s, float(b)) for s in shapes for b in self.batches if b >= s[2]]
            self.fine.append((replace(self.thin, formats=tuple(f)), np.array(rows, float).reshape(-1, 5)))
        self.memo = Memo()

    def score(self, cube: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Costs (n, limits) and fastest tokens (n,) of at most a block of chips on the chosen shapes."""
        chips, n = self._chips(cube), len(cube)
        costs, fastest = np.zeros((n, len(self.question.limits_s))), np.full(n, np.inf)
        for (case, weight), (grid, table) in zip(self.question.cases, self.fine, strict=True):
            best, count = screen(chips, case, grid, table, self.question.limits_s, with_layout=False, memo=self.memo)
            self.evaluations += count
            costs += weight * best.cost[0].T[:n]
            fastest = np.minimum(fastest, best.fastest[:n])
        return costs, fastest


def refine(
    shop: Shop,
    question: Question,
    grid: Grid,
    start: np.ndarray,
    rounds: int,
    rng: np.random.Generator,
    block: int = 32,
    watch: Callable[[int], None] = lambda _: None,
) -> Refined:
    """Breed chips for one question.

    Args:
        shop: The family's space and what its chips are built with. question: Case, owner, limits. grid: The study's layouts, with the
            formats that the chips may use. start: Points (n, d) of known chips. rounds: Of ``block`` chips each.
        rng: Of every draw. watch: Called with the chips of every round.
    """
    space, bench = shop.space, _Bench(shop, question, grid, block)
    limits = len(question.limits_s)

    def empty() -> explore.Archive:
        return explore.Archive.empty(space.dimension, limits, [v.size for v in space.variables])

    archive = empty()
    first = start if len(start) else rng.random((block, space.dimension))
    for number in range(rounds):
        if number % RENEW == 0:
            points = archive.points if len(archive) else first
            bench.look(points, explore.leaders(archive.costs))
            archive = empty()
            for a in range(0, len(points), block):
                archive, _ = explore.add(archive, points[a : a + block], *bench.score(points[a : a + block]))
        cube = explore.breed(archive, rng, block, space.dimension, ENDS)
        archive, _ = explore.add(archive, cube, *bench.score(cube))
        watch(block)
    lead = explore.leaders(archive.costs, keep=1)
    _, _, points = canonical(space, archive.points[lead])
    return Refined(points, archive.costs[lead], rounds * block, bench.evaluations)


def headline_question(questions: Questions) -> Question:
    """The headline of a study: its case, or the mix that it belongs to, to its owner."""
    at, owner = questions.headline_case, questions.headline_scenario
    weights = next((dict(m) for m in questions.mixes if at in dict(m)), {at: 1.0})
    cases = [(questions.cases[i], w) for i, w in weights.items()]
    return Question(tuple((replace(c, prices=(c.prices[owner],)), w) for c, w in cases), questions.limits_s)
