"""What does each family cost at best under many catalogues? Pools of designs, the most promising of which are polished in every row.

A pool holds a family's designs on the front, polished, the neighbours of the best one in every named or counted variable and in the way of
cutting the model, and the designs of the front with their power capped, which stay open to whoever owns them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dse.analysis.compare import Competitor
from dse.analysis.inputs import scaled
from dse.analysis.together import (
    BALL,
    MOST_BATCH,
    Books,
    Found,
    Scene,
    Starts,
    around,
    books_of,
    improved,
    joined,
    merit,
    programs,
    start,
    valued,
)
from dse.catalog import Catalog

POOL, CHOSEN = 12, 2  # starts of a family that every row looks at, and of those the ones that are polished in it
MOST_POOL = 48  # starts of a pool with what rows have found
FIRST, LONG, SHORT = 8, 8, 1  # linear programs of a pool's members, of a row's chosen, of neighbours
SAME = 1e-9  # change of logarithms of cost below which a row is that of the stated values
STEP = 1e-4  # of the differences of the envelope, in logarithms of a lever
STATED = 16  # books of the stated catalogue
FACTORS = (1 / 2, 2)  # by which a degree of parallelism, or all counts, are changed at a time
COUNTS = (-2, -1, 1, 2)  # by which a counted variable is
LOOKED = 3  # neighbours that are polished on
MIXED, SPREAD = 8, 0.15  # neighbours with two changes, and how far their other variables are moved, of the range of each


def signature(s: Starts, i: int) -> tuple[Any, ...]:
    """What a polish does not change: named and counted variables, layout, format, cap."""
    held = [x for k, x in enumerate(s.values[i]) if k not in s.free]
    return (*held, *s.layout[i], str(s.format[i]), bool(s.capped[i]))


def distinct(f: Found, most: int) -> Found:
    """The best of every signature, the best first."""
    order = np.argsort(merit(f.cost, f.worst), kind="stable")
    seen: set[tuple[Any, ...]] = set()
    kept: list[int] = []
    for i in order.tolist():
        if (s := signature(f.starts, i)) not in seen and len(kept) < most:
            seen.add(s)
            kept.append(i)
    return f.at(np.array(kept, int))


def neighbours(s: Starts, formats: Sequence[str], stages: Sequence[float], mixture: bool, rng: np.random.Generator) -> Starts:
    """Starts that differ from one (the first of ``s``): in one variable, all counts, one degree or the format; mixed."""
    one, found = s.at(slice(0, 1)), []
    counted = [k for k, v in enumerate(s.space.variables) if v.kind == "int" and v.low < v.high]
    changes: list[dict[int, float]] = []
    for k, v in enumerate(s.space.variables):
        here = one.values[0, k]
        if v.kind == "choice":
            changes += [{k: float(v.choices.index(n))} for n in v.names if v.choices.index(n) != here]
        elif k in counted:
            near = {here + d for d in COUNTS} | {round(here * f) for f in FACTORS} | {v.low, v.high}
            changes += [{k: x} for x in sorted(near) if v.low <= x <= v.high and x != here]
    for f in FACTORS:
        ends = {k: (s.space.variables[k].low, s.space.variables[k].high) for k in counted}
        changes.append({k: float(np.clip(round(one.values[0, k] * f), *ends[k])) for k in counted})
    single = [c for c in changes if c]
    mixed = [single[i] | single[j] for i, j in rng.integers(0, len(single), (MIXED, 2))] if single else []
    for change in [*single, *mixed]:
        values = one.values.copy()
        for k, x in change.items():
            values[0, k] = x
        found.append(replace(one, values=canonical(s, values), point=one.point.copy()))
    for moved in found[len(single) :]:
        moved.point[...] = np.clip(moved.point + SPREAD * rng.standard_normal(moved.point.shape), 0.0, 1.0)
    tp, pp, dp, ep = one.layout[0]
    layouts = [(tp * f, pp, dp, ep) for f in FACTORS if tp * f >= 1]
    layouts += [(tp, x, dp, ep) for x in sorted(stages, key=lambda x: abs(np.log(x / pp)))[:3] if x != pp]
    layouts += [(tp, pp, dp * f, ep) for f in FACTORS if mixture and dp * f >= 1]
    found += [replace(one, layout=np.array([x], float)) for x in layouts]
    found += [replace(one, format=np.array([f])) for f in formats if f != one.format[0]]
    return joined(found)


def canonical(s: Starts, values: np.ndarray) -> np.ndarray:
    """Rows of values with what means nothing at its default."""
    named = s.space.canonical({n: values[:, i] for i, n in enumerate(s.space.names)})
    return np.stack([np.broadcast_to(named[n], len(values)) for n in s.space.names], axis=1).astype(float)


@dataclass(frozen=True)
class Best:
    """A family's optima in rows: logarithms of cost (inf: nothing feasible) of designs made anew and of capped ones of the front."""

    anew: Starts
    anew_cost: np.ndarray
    kept: Starts
    kept_cost: np.ndarray

    @property
    def cost(self) -> np.ndarray:
        """Logarithm of the least cost."""
        return np.minimum(self.anew_cost, self.kept_cost)

    @property
    def starts(self) -> Starts:
        """The cheaper ones."""
        index = np.where(self.anew_cost <= self.kept_cost, 0, len(self.anew_cost)) + np.arange(len(self.anew_cost))
        return joined([self.anew, self.kept]).at(index)

    def at(self, index: Any) -> Best:
        """Some rows."""
        return Best(self.anew.at(index), self.anew_cost[index], self.kept.at(index), self.kept_cost[index])


def stacked(parts: Sequence[Best]) -> Best:
    """Rows of several."""
    return Best(
        joined([b.anew for b in parts]),
        np.concatenate([b.anew_cost for b in parts]),
        joined([b.kept for b in parts]),
        np.concatenate([b.kept_cost for b in parts]),
    )


@dataclass
class Market:
    """Families that compete in one case, and what is known of their designs."""

    scene: Scene
    catalog: Catalog
    scenario: str
    competitors: Mapping[str, Competitor]
    seed: int
    stages: Sequence[float]  # numbers of pipeline stages that cut the model into whole layers
    mixture: bool
    pools: dict[str, Starts] = field(default_factory=dict)
    stated: dict[str, Found] = field(default_factory=dict)  # of the pools, at the stated values
    optimum: dict[str, Best] = field(default_factory=dict)  # the same
    programs: int = 0
    plain: Books = field(init=False)  # of the stated values

    def books(self, catalog: Catalog, n: int) -> Books:
        """Books of a catalogue with columns."""
        return books_of(catalog, n, list(self.competitors), self.scenario)

    def __post_init__(self) -> None:
        self.plain = books = self.books(scaled(self.catalog, [], 1.0), STATED)
        for family, c in self.competitors.items():
            assert c.space is not None
            every = joined([start(c.space, c.decisions[c.who[i]], c.rows[i], c.formats[i]) for i in range(len(c.who))])
            front = distinct(valued(self.scene, books, every), POOL).starts
            polished = distinct(self.improve(books, front, FIRST), POOL)
            beside = neighbours(
                polished.starts, tuple(dict.fromkeys(c.formats)), self.stages, self.mixture, np.random.default_rng(self.seed)
            )
            more = self.improve(books, distinct(self.improve(books, beside, SHORT), POOL).starts, FIRST)
            pool = distinct(_both(polished, more), POOL).starts
            self.pools[family] = joined([pool, replace(front, capped=np.ones(len(front), bool))])
            self.stated[family] = valued(self.scene, books, self.pools[family])
            self.optimum[family] = self.beside(family, books, [0], self.best(family, books, [0]))

    def learn(self, family: str, found: Best) -> None:
        """Optima of rows join the family's pool, one of each kind: what serves one row well may serve another."""
        pool = self.pools[family]
        kinds = {signature(pool, i) for i in range(len(pool))}
        new: list[int] = []
        for i in np.flatnonzero(np.isfinite(found.anew_cost)).tolist():
            kind = signature(found.anew, i)
            if kind not in kinds and len(pool) + len(new) < MOST_POOL:
                kinds.add(kind)
                new.append(i)
        if new:
            self.pools[family] = joined([pool, found.anew.at(np.array(new)).rows(0)])
            self.stated[family] = valued(self.scene, self.plain, self.pools[family])

    def improve(self, books: Books, starts: Starts, steps: int, whole: bool = False) -> Found:
        """Some linear programs for every start."""
        self.programs += steps * len(starts)
        return improved(self.scene, books, starts, steps, self.seed, whole=whole)

    def touched(self, family: str, books: Books, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Rows in which any design of a family's pool costs or weighs otherwise than at the stated values; logarithm of the pool's best."""
        v = valued(self.scene, books, joined([self.pools[family].rows(r) for r in rows]))
        here, stated = (merit(x.cost, x.worst).reshape(-1, len(self.pools[family])) for x in (v, self.stated[family]))
        with np.errstate(invalid="ignore"):
            moved = ~(np.nan_to_num(np.abs(here - stated), nan=0.0, posinf=1.0) < SAME).all(axis=1)
        return moved, v.met.reshape(here.shape).min(axis=1)

    def best(self, family: str, books: Books, rows: Sequence[int], known: Best | None = None, steps: int = LONG) -> Best:
        """The best design of a family in some rows of books, from its pool, and from what was best in the same rows before."""
        pool, n = self.pools[family], len(rows)
        tried = joined([pool.rows(r) for r in rows])
        v = valued(self.scene, books, tried)
        merits = merit(v.cost, v.worst).reshape(n, len(pool))
        offset = len(pool) * np.arange(n)[:, None]
        parts = []
        for capped, count in ((False, 1 if known else CHOSEN), (True, 1)):
            mine = np.flatnonzero(pool.capped == capped)
            order = mine[np.argsort(merits[:, mine], axis=1)[:, :count]]
            parts.append(tried.at((order + offset).ravel()))
        before = [x.rows(rows) for x in (known.anew, known.kept)] if known else []
        found = self.improve(books, joined([*parts, *before]), steps)
        return _least(found, rows)

    def beside(self, family: str, books: Books, rows: Sequence[int], best: Best) -> Best:
        """The best of a design made anew and its neighbours, polished, in every row."""
        c = self.competitors[family]
        formats, rng = tuple(dict.fromkeys(c.formats)), np.random.default_rng([self.seed, self.programs])
        parts = [neighbours(best.anew.at(slice(i, i + 1)), formats, self.stages, self.mixture, rng).rows(r) for i, r in enumerate(rows)]
        near = self.improve(books, joined(parts), SHORT)
        leading = [np.flatnonzero(near.starts.row == r) for r in rows]
        picked = [i[np.argsort(merit(near.cost[i], near.worst[i]))[:LOOKED]] for i in leading]
        again = self.improve(books, joined([best.anew.rows(rows), best.kept.rows(rows), near.starts.at(np.concatenate(picked))]), LONG)
        return _least(again, rows)

    def whole(self, books: Books, rows: Sequence[int], best: Best) -> Best:
        """The same optima with whole batches, the smaller or the larger."""
        ends = []
        for s in (best.anew, best.kept):
            for rounded in (np.floor, np.ceil):
                point = s.point.copy()
                point[:, -1] = np.log(np.maximum(rounded(s.batch), 1.0)) / np.log(MOST_BATCH)
                ends.append(replace(s, point=point, row=np.asarray(rows, int)))
        return _least(self.improve(books, joined(ends), SHORT, whole=True), rows)

    def slopes(self, up: Books, middle: Books, down: Books, best: Best, rows: Sequence[int]) -> np.ndarray:
        """d ln (optimal cost) / d ln (lever) of optima by the envelope theorem, of books at multiples by exp(STEP) on either side."""
        return slopes_of(self.scene, up, middle, down, best.starts.rows(rows), self.seed)


def slopes_of(scene: Scene, up: Books, middle: Books, down: Books, starts: Starts, seed: int = 0) -> np.ndarray:
    """The same of polished starts."""
    points = around(starts.point, BALL / 10, np.random.default_rng(seed))
    here, more, less = (scene.slopes(b, starts, points) for b in (middle, up, down))
    p = programs(here, points, starts.point, np.full(len(starts), BALL), starts.capped, np.zeros(len(starts)))
    with np.errstate(invalid="ignore"):  # what cannot be built on one side
        cost, slack = (more.cost - less.cost) / (2 * STEP), (more.slack - less.slack) / (2 * STEP)
        return np.nansum(p.cost * cost, axis=1) - np.nansum(p.limits * slack, axis=(1, 2))


def _both(a: Found, b: Found) -> Found:
    return Found(joined([a.starts, b.starts]), np.concatenate([a.cost, b.cost]), np.concatenate([a.worst, b.worst]))


def _least(found: Found, rows: Sequence[int]) -> Best:
    """The cheapest that meets the limits in every row, of each kind; the one that misses them least where none does."""
    met, score = found.met, merit(found.cost, found.worst)
    picked = []
    for capped in (False, True):
        for r in rows:
            mine = np.flatnonzero((found.starts.row == r) & (found.starts.capped == capped))
            at = mine[np.argmin(met[mine])]
            picked.append(at if np.isfinite(met[at]) else mine[np.argmin(score[mine])])
    anew, kept = np.array(picked[: len(rows)], int), np.array(picked[len(rows) :], int)
    return Best(found.starts.at(anew), met[anew], found.starts.at(kept), met[kept])
