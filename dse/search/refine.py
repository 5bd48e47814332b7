"""How cheap do the best chips of one question become when the search goes on around them? Chip and batch together, on every batch there is.

The search of a study asks many questions on a thinned grid of layouts. Here only one is asked (the headline of a study): chips are bred
from the best ones, and each meets the few ways of cutting the model that are best so far with every batch that the refinement of winners
can reach: so few layouts cost next to nothing, and single precision, compiled for the search already, is exact enough. Design variables
that are driven over the end of their range stay there, because optima lie on ends. Without any chip to start from it is a quick first look.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dse.search import explore
from dse.search.deck import Memo
from dse.search.designs import Builder, Questions, Shop
from dse.search.finalists import fine_batches, nearest
from dse.search.grid import Case, Grid, layout_table
from dse.search.kernel import SLICE
from dse.search.layouts import screen
from dse.search.mend import mended
from dse.search.shards import canonical

RENEW = 25  # rounds after which the ways of cutting the model are chosen anew
SLICES = 2  # of layouts that every chip meets
NEAR = 3.0  # ratio of batches that are tried around a leading one
ENDS = 0.5  # share of the steps over the end of a range that stop there


@dataclass(frozen=True)
class Question:
    """What is minimised under every limit, for each owner: the cost in one case, or the weighted mean over the cases of a mix."""

    cases: tuple[tuple[Case, float], ...]  # each with the prices of the same owners, and its weight
    limits_s: tuple[float, ...]

    @property
    def cells(self) -> int:
        """Owners and limits."""
        return len(self.cases[0][0].prices) * len(self.limits_s)


@dataclass(frozen=True)
class Refined:
    """Best chip of every cell: points of the unit cube (as a ledger gives them back), costs in every cell (by owner, then limit)."""

    points: np.ndarray
    costs: np.ndarray
    chips: int
    evaluations: int
    ways: tuple[tuple[int, tuple[np.ndarray, str]] | None, ...] = ()  # best chip of every cell (a row) and its layout; of one case alone


class _Bench:
    """A family's chips scored on one question: on the thinned grid, or on the few shapes of layouts that are looked at."""

    def __init__(self, shop: Shop, question: Question, grid: Grid, block: int) -> None:
        self.shop, self.question, self.block, self.evaluations = shop, question, block, 0
        self.build = Builder(shop, block)
        self.thin = grid.thinned()
        self.batches = fine_batches(grid.thinned())
        self.wide = [layout_table(case.model, self.thin) for case, _ in question.cases]
        self.wide_memo, self.memo = Memo(), Memo(fit=False)
        self.fine: list[tuple[Grid, np.ndarray]] = []

    def _chips(self, cube: np.ndarray):
        return self.build(self.shop.space.decode(cube))

    def look(self, cube: np.ndarray) -> None:
        """Choose layouts and formats: around those of the best chip under each limit, then around those that are best for most chips."""
        count = len(self.question.cases)
        votes: list[dict[int, int]] = [{} for _ in range(count)]  # by row
        formats: list[dict[str, None]] = [{} for _ in range(count)]
        least: list[dict[int, tuple[float, int]]] = [{} for _ in range(count)]  # of each cell: cost, row
        for start in range(0, len(cube), self.block):
            n = min(self.block, len(cube) - start)
            chips = self._chips(cube[start : start + n])
            for c, (case, _) in enumerate(self.question.cases):
                best, evaluations = screen(chips, case, self.thin, self.wide[c], self.question.limits_s, memo=self.wide_memo)
                self.evaluations += evaluations
                rows, used, costs = (x[..., :n].reshape(self.question.cells, n) for x in (best.layout, best.format, best.cost))
                cell, who = np.nonzero(rows >= 0)
                for t, i in zip(cell.tolist(), who.tolist(), strict=True):
                    row = int(rows[t, i])
                    votes[c][row] = votes[c].get(row, 0) + 1
                    formats[c][self.thin.formats[used[t, i]]] = None
                    least[c][t] = min(least[c].get(t, (np.inf, row)), (float(costs[t, i]), row))
        self.fine = []
        for c in range(count):
            leading = list(dict.fromkeys(row for _, row in least[c].values()))
            others = [row for row in sorted(votes[c], key=votes[c].__getitem__, reverse=True) if row not in leading]
            rows = self._around(self.wide[c], leading, others)
            self.fine.append((replace(self.thin, formats=tuple(formats[c])), rows))
        self.memo = Memo(fit=False)

    def _around(self, table: np.ndarray, leading: Sequence[int], others: Sequence[int]) -> np.ndarray:
        """Rows with every batch near those given, and for the leading ones with the next narrower and wider cuts too: a batch between
        those of the table may make another cut the best."""
        ways = {tuple(x) for x in table[:, :4].tolist()}
        steps = [sorted(set(column.tolist())) for column in table[:, :3].T]
        found: dict[tuple[float, ...], None] = {}

        def add(way: Sequence[float], batch: float, reach: float) -> None:
            if tuple(way) in ways:
                found.update(
                    dict.fromkeys((*way, float(b)) for b in self.batches if batch <= reach * b and b <= reach * batch and b >= way[2])
                )

        beside = [[(a, b, c, a * c if ep > 1 else ep) for a, b, c in nearest(way, steps)] for *way, ep in table[leading][:, :4].tolist()]
        for nth in itertools.zip_longest(*beside):  # the nearest of every limit, then the next ones: none is crowded out by those before it
            for i, way in zip(leading, nth, strict=True):
                if way is not None:
                    add(way, table[i, 4], NEAR)
        for i in others:
            if len(found) >= SLICES * SLICE:
                break
            add(table[i, :4].tolist(), table[i, 4], 2.0)
        return np.array(list(found)[: SLICES * SLICE], float).reshape(-1, 5)

    def score(self, cube: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Costs (n, cells) and fastest tokens (n,) of at most a block of chips on the chosen shapes."""
        n = len(cube)
        if not all(len(table) for _, table in self.fine):
            return np.full((n, self.question.cells), np.inf), np.full(n, np.inf)
        chips = self._chips(cube)
        costs, fastest = np.zeros((n, self.question.cells)), np.full(n, np.inf)
        for (case, weight), (grid, table) in zip(self.question.cases, self.fine, strict=True):
            best, count = screen(chips, case, grid, table, self.question.limits_s, with_layout=False, memo=self.memo)
            self.evaluations += count
            costs += weight * best.cost.reshape(self.question.cells, -1).T[:n]
            fastest = np.minimum(fastest, best.fastest[:n])
        return costs, fastest

    def ways(self, cube: np.ndarray) -> tuple[tuple[int, tuple[np.ndarray, str]] | None, ...]:
        """Of at most a block of chips the cheapest in every cell of one case, and the layout with its format in which it is."""
        ((case, _),), ((grid, table),) = self.question.cases, self.fine
        best, _ = screen(self._chips(cube), case, grid, table, self.question.limits_s, memo=self.memo)
        cost, layout, form = (x[..., : len(cube)].reshape(self.question.cells, -1) for x in (best.cost, best.layout, best.format))
        lead = [(i, row.argmin()) for i, row in enumerate(cost)]
        return tuple((int(c), (table[layout[i, c]], grid.formats[form[i, c]])) if layout[i, c] >= 0 else None for i, c in lead)


def refine(
    shop: Shop,
    question: Question,
    grid: Grid,
    start: np.ndarray,
    rounds: int,
    rng: np.random.Generator,
    block: int = 32,
    fresh: float = 0.0,
) -> Refined:
    """Breed chips for one question.

    Args:
        shop: The family's space and what its chips are built with. question: Case, owners, limits. grid: The study's layouts, with the
            formats that the chips may use. start: Points (n, d) of known chips. rounds: Of ``block`` chips each.
        rng: Of every draw. fresh: Share of the rounds in which chips are bred from nothing; the best of them then join the known ones,
            which may all lie in one basin.
    """
    alone = round(fresh * rounds)
    other = refine(shop, question, grid, start[:0], alone, rng, block) if alone else None
    if other is not None:
        start, rounds = np.concatenate([start, other.points]), rounds - alone
    space, bench = shop.space, _Bench(shop, question, grid, block)

    def empty() -> explore.Archive:
        return explore.Archive.empty(space.dimension, question.cells, [v.size for v in space.variables], each=True)

    archive = empty()
    points = start if len(start) else rng.random((block, space.dimension))
    for number in range(rounds):
        if number % RENEW == 0 or not len(archive):  # without any chip that serves, new ones are drawn until there is one
            points = archive.points if len(archive) else points
            bench.look(points)
            archive = empty()
            for a in range(0, len(points), block):
                archive, _ = explore.add(archive, points[a : a + block], *bench.score(points[a : a + block]))
            points = rng.random((block, space.dimension))
        cube = explore.breed(archive, rng, block, space.dimension, ENDS, functools.partial(mended, shop))
        archive, _ = explore.add(archive, cube, *bench.score(cube))
    lead = explore.leaders(archive.costs, keep=1)
    _, _, points = canonical(space, archive.points[lead])
    before = other or Refined(points[:0], archive.costs[:0], 0, 0)
    known = bench.ways(points) if len(bench.fine) == 1 and len(bench.fine[0][1]) and 0 < len(points) <= block else ()
    return Refined(points, archive.costs[lead], before.chips + rounds * block, before.evaluations + bench.evaluations, known)


def headline_question(questions: Questions) -> Question:
    """The headline of a study: its case, or the mix that it belongs to, to its owner."""
    at, owner = questions.headline_case, questions.headline_scenario
    weights = next((dict(m) for m in questions.mixes if at in dict(m)), {at: 1.0})
    cases = [(questions.cases[i], w) for i, w in weights.items()]
    return Question(tuple((replace(c, prices=(c.prices[owner],)), w) for c, w in cases), questions.limits_s)


def other_questions(questions: Questions) -> list[tuple[Question, np.ndarray]]:
    """What a study asks beside its headline: every case with the owners that are left, and where their costs stand among the cells."""
    found, limits = [], len(questions.limits_s)
    mixed = {i for mix in questions.mixes if questions.headline_case in dict(mix) for i, _ in mix}
    for i, case in enumerate(questions.cases):
        asked = i == questions.headline_case or i in mixed
        owners = [k for k in range(len(case.prices)) if not (asked and k == questions.headline_scenario)]
        if owners:
            first = questions.cells_of(i).start
            cells = np.concatenate([first + k * limits + np.arange(limits) for k in owners])
            some = replace(case, prices=tuple(case.prices[k] for k in owners))
            found.append((Question(((some, 1.0),), questions.limits_s), cells))
    return found
