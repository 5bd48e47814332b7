"""How cheap does every family become under many catalogues at once? Designs polished in rows, one compiled batch for all of them.

A row is one family under one catalogue: there a start (a design in a layout) moves its real-valued variables and its batch to their best by
linear programs over gradients, as ``search.solvers`` does for one design; the programs of many rows are solved as one. Named and counted
variables and the way of cutting the model are changed one at a time (``neighbours``). Multipliers of the last program price what a lever
takes from the limits: the derivative by the envelope theorem.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse.catalog import Catalog
from dse.catalog.silicon import build_family
from dse.chips.common import NODES
from dse.equations import layout as cut
from dse.evaluate import as_floats
from dse.search.layouts import Case, is_mixture
from dse.search.shadow import EXTRAS, QUICK, Built, built_at, cost_and_slacks
from dse.search.solvers import BALL, MARGIN, MET, NO_LIMIT_S, PENALTY, WIDEST
from dse.space import Space
from dse.types import Layout, named_format

ROWS, POINTS = 64, 8  # of one compiled call
SOLVED = 16  # rows in one linear program
SCALES = np.array([0, 0, 0, 0, 1 / 16, 1 / 8, 1 / 4, 1 / 2])  # how far its points lie, of the trust region: edges near and far
MOVES = 8  # real-valued variables, filled up: one compiled shape for all families
TRUST = 0.05  # first trust region, of the range of each variable
NEAR = 0.5  # slack, as a logarithm, beyond which a limit is left out of a program
MOST_BATCH = 2.0**14  # end of the range of the batch
ENOUGH, LEAST_TRUST = 1e-5, 1e-5  # gain of a step, relative, and trust region, below which a row is left


# --- many catalogues at once ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Books:
    """What families are built with and owners pay under many catalogues: leaves ``(n,)``, processes ``(nodes, n)``."""

    n: int
    technology: Any
    processes: Any
    constants: Mapping[str, Any]  # by family
    prices: Any


def flat(tree: Any, n: int) -> Any:
    """Leaves ``(n,)`` of numbers and columns."""
    return jax.tree.map(lambda x: np.broadcast_to(np.asarray(x, float).reshape(-1), (n,)), tree)


def books_of(catalog: Catalog, n: int, families: Sequence[str], scenario: str) -> Books:
    """Catalogue with columns ``(n, 1)`` as books."""
    nodes = [flat(catalog.processes[x if x in catalog.processes else NODES[0]], n) for x in NODES if x in catalog.processes]
    where = [x for x in NODES if x in catalog.processes]
    table = [nodes[where.index(x)] if x in where else nodes[0] for x in NODES]
    constants = {f: flat(as_floats(build_family(catalog.records["families"][f], kernels=catalog.constants[f])), n) for f in families}
    return Books(
        n,
        flat(as_floats(catalog.technology), n),
        jax.tree.map(lambda *xs: np.stack(xs), *table),
        constants,
        flat(as_floats(catalog.prices[scenario]), n),
    )


# --- starts -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Starts:
    """Designs of one family in layouts, each in a row: arrays ``(k, ...)``."""

    space: Space
    row: np.ndarray  # position of the book
    values: np.ndarray  # (k, variables) of the space; the free ones are ignored
    point: np.ndarray  # (k, free + 1): the cube of free variables, then the logarithm of the batch over its range
    layout: np.ndarray  # (k, 4): tp, pp, dp, ep
    format: np.ndarray  # (k,) names
    capped: np.ndarray  # (k,): the design stays and its power is cut to what may leave as heat

    def __len__(self) -> int:
        return len(self.row)

    def at(self, index: Any) -> Starts:
        """Some of them."""
        return Starts(self.space, *(getattr(self, n)[index] for n in ("row", "values", "point", "layout", "format", "capped")))

    def rows(self, row: Any) -> Starts:
        """The same starts in other rows."""
        return replace(self, row=np.broadcast_to(np.asarray(row, int), self.row.shape))

    @property
    def free(self) -> tuple[int, ...]:
        """Positions of variables that move."""
        return free_of(self.space)

    @property
    def ranges(self) -> tuple[tuple[str, float, float, bool], ...]:
        """Name, ends and scale of the free variables."""
        variables = [self.space.variables[i] for i in self.free]
        return tuple((v.name, v.low, v.high, v.low > 0.0) for v in variables)

    @property
    def batch(self) -> np.ndarray:
        """Requests of each, real numbers."""
        return MOST_BATCH ** self.point[:, -1]


def free_of(space: Space) -> tuple[int, ...]:
    """Positions of the real-valued variables that may move."""
    return tuple(i for i, v in enumerate(space.variables) if v.kind == "real" and v.low < v.high)


def start(space: Space, named: Mapping[str, Any], layout: Sequence[float], fmt: str, capped: bool = False) -> Starts:
    """One design in a layout (tp, pp, dp, ep, batch), in row 0."""
    values = space.from_named(named)
    free = free_of(space)
    cube = []
    for i in free:
        v = space.variables[i]
        x = values[v.name]
        cube.append(np.log(x / v.low) / np.log(v.high / v.low) if v.low > 0 else (x - v.low) / (v.high - v.low))
    point = np.r_[np.clip(cube, 0.0, 1.0), np.log(max(layout[4], 1.0)) / np.log(MOST_BATCH)]
    row = np.array([float(values[n]) for n in space.names])
    return Starts(space, np.zeros(1, int), row[None], point[None], np.array([layout[:4]], float), np.array([fmt]), np.array([capped]))


def joined(parts: Sequence[Starts]) -> Starts:
    """All of some starts of a family."""
    names = ("row", "values", "point", "layout", "format", "capped")
    return Starts(parts[0].space, *(np.concatenate([getattr(p, n) for p in parts]) for n in names))


# --- values and slopes, compiled once a family and once for all -------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def _chips(family: str, ranges: Any, points: Any, fixed: Any, process: Any, technology: Any, constants: Any) -> Any:
    """Chips at points (rows, points, free) and how they change along each variable: leaves (rows, points[, MOVES])."""
    d, none = len(ranges), np.zeros(len(EXTRAS))
    directions = np.eye(MOVES, d)

    def row(us: Any, own: Any, node: Any, shared: Any, of_family: Any) -> Any:
        def build(u: Any) -> Any:
            return jax.tree.map(lambda x: jnp.asarray(x, float), built_at(family, ranges, u, none, own, node, shared, of_family, 1.0))

        return jax.vmap(lambda u: jax.vmap(lambda v: jax.jvp(build, (u,), (v,)), out_axes=(None, 0))(directions))(us)

    return jax.vmap(row)(points, fixed, process, technology, constants)


def _capped(b: Built, capped: Any) -> tuple[Built, Any]:
    """A chip that draws no more than may leave as heat and than the package takes, where that is asked; and the same with slack."""
    s = b.chip.slack
    power = (b.limit_w - b.chip.tdp_w) / b.limit_w
    share = jnp.minimum(1.0, 1.0 / (1.0 - jnp.minimum(jnp.minimum(s.heat, power), 0.0)))
    tdp = b.chip.tdp_w * jnp.where(capped, share, 1.0)
    heat = jnp.where(capped, jnp.maximum(s.heat, 0.0), s.heat)
    package = jnp.where(capped & (s.package >= power - 1e-12), jnp.maximum(s.package, 0.0), s.package)
    return replace(b, chip=replace(b.chip, tdp_w=tdp, slack=replace(s, heat=heat, package=package))), share


@functools.partial(jax.jit, compiler_options=QUICK)
def _scores(built: Any, changes: Any, batches: Any, layouts: Any, prices: Any, capped: Any, model: Any, workload: Any, limits: Any) -> Any:
    """Logarithm of cost and slacks (rows, points, 10) and slopes (rows, points, MOVES + 1, 10), last by batch."""

    def row(bs: Any, cs: Any, logs: Any, layout: Any, price: Any, cap: Any) -> Any:
        def f(b: Any, log: Any) -> Any:
            return cost_and_slacks(_capped(b, cap)[0], model, workload, replace(layout, batch=jnp.exp(log)), price, *limits)

        def one(b: Any, c: Any, log: Any) -> Any:
            moved = jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros((1, *x.shape[1:]))]), c)
            return jax.vmap(lambda v, w: jax.jvp(f, (b, log), (v, w)), out_axes=(None, 0))(moved, jnp.zeros(MOVES + 1).at[-1].set(1.0))

        return jax.vmap(one)(bs, cs, logs)

    return jax.vmap(row)(built, changes, batches, layouts, prices, capped)


@dataclass(frozen=True)
class Slopes:
    """At points (k, POINTS): logarithm of cost, slacks (.., limits), and their slopes (.., free + 1[, limits])."""

    cost: np.ndarray
    slack: np.ndarray
    cost_slope: np.ndarray
    slack_slope: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Who asks: the case, and the limit on the time per token [s]."""

    case: Case
    limit_s: float

    def slopes(self, books: Books, starts: Starts, points: np.ndarray) -> Slopes:
        """Values and slopes at points (k, POINTS, free + 1) of starts."""
        parts = []
        for begin in range(0, len(starts), ROWS):
            index = np.minimum(np.arange(begin, begin + ROWS), len(starts) - 1)
            parts.append(self._block(books, starts.at(index), points[index]))
        value, slope = (np.concatenate(x)[: len(starts)] for x in zip(*parts, strict=True))
        kept = [*range(len(starts.free)), MOVES]
        slope = slope[:, :, kept]
        slope[:, :, -1] *= np.log(MOST_BATCH)
        return Slopes(value[..., 0], value[..., 1:], slope[..., 0], slope[..., 1:])

    def _block(self, books: Books, s: Starts, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        own = s.row
        names = s.space.names
        fixed = {n: s.values[:, i] for i, n in enumerate(names) if i not in s.free}
        node = s.values[:, names.index("node")].astype(int)
        process = jax.tree.map(lambda x: x[node, own], books.processes)
        technology, constants, prices = (
            jax.tree.map(lambda x: x[own], t) for t in (books.technology, books.constants[s.space.family], books.prices)
        )
        built, changes = _chips(s.space.family, s.ranges, points[..., :-1], fixed, process, technology, constants)
        limits = (self.limit_s * (1 - MARGIN), min(self.case.ttft_limit_s, NO_LIMIT_S) * (1 - MARGIN))
        model, workload = cut.trimmed(as_floats(self.case.model)), as_floats(self.case.workload)
        found = _scores(
            built, changes, points[..., -1] * np.log(MOST_BATCH), self._layouts(s), prices, s.capped, model, workload, limits
        )  # fmt: skip
        return np.asarray(found[0]), np.array(found[1])

    def _layouts(self, s: Starts) -> Layout:
        """Layouts of starts, leaves (k,), batches left to the points."""
        tp, pp, dp, ep = s.layout.T
        if not is_mixture(self.case.model):
            dp = ep = None
        formats = [jax.tree.map(float, named_format(*str(f).split("/"))) for f in s.format]
        hot = jax.tree.map(lambda *xs: np.array(xs), *formats)
        return Layout(tp=tp, pp=pp, cp=None, dp=dp, ep=ep, batch=np.ones(len(s)), format=hot)


# --- linear programs of many rows ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """Steps (k, free + 1) of linear programs, and their multipliers: of the costs' pieces (k, POINTS), of the limits' (.., limits)."""

    step: np.ndarray
    cost: np.ndarray
    limits: np.ndarray


def programs(
    s: Slopes, points: np.ndarray, at: np.ndarray, trust: np.ndarray, frozen: np.ndarray, least: np.ndarray, whole: bool = False
) -> Program:
    """For every row the step that minimises the largest linear piece of the cost and of ``PENALTY`` times what a limit is missed by.

    Args:
        s, points: Slopes at points (k, POINTS, v). at: Where the step starts (k, v). trust: Largest step (k,).
        frozen: Rows whose design stays: only the batch moves. least: Smallest value of the last variable (k,).
        whole: Whether the last variable stays.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    k, p, v = points.shape
    away = at[:, None] - points
    f = s.cost + (s.cost_slope * away).sum(-1)
    g = s.slack + (s.slack_slope * away[..., None]).sum(-2)
    known = np.isfinite(f) & np.isfinite(s.cost_slope).all(-1) & np.isfinite(g).all(-1) & np.isfinite(s.slack_slope).all((-1, -2))
    near = known[..., None] & (g < NEAR)
    low, high = np.maximum(-trust[:, None], -at), np.minimum(trust[:, None], 1.0 - at)
    low[:, -1] = np.maximum(low[:, -1], np.minimum(least - at[:, -1], 0.0))
    low[frozen, :-1] = high[frozen, :-1] = 0.0
    if whole:
        low[:, -1] = high[:, -1] = 0.0
    width = v + 2  # step, largest piece, largest miss
    one, (two, three) = np.nonzero(known), np.nonzero(near)[::2]
    two_point = np.nonzero(near)[1]
    first, second = len(one[0]), len(two)
    columns_one = one[0][:, None] * width + np.arange(v + 1)
    columns_two = two[:, None] * width + np.r_[np.arange(v), v + 1]
    a_one = np.concatenate([s.cost_slope[one], -np.ones((first, 1))], axis=1)
    a_two = np.concatenate([-s.slack_slope[two, two_point, :, three], -np.ones((second, 1))], axis=1)
    rows = np.repeat(np.arange(first + second), v + 1)
    matrix = coo_array(
        (np.concatenate([a_one.ravel(), a_two.ravel()]), (rows, np.concatenate([columns_one.ravel(), columns_two.ravel()]))),
        shape=(first + second, k * width),
    ).tocsr()
    bounds = np.empty((k, width, 2))
    bounds[:, :v, 0], bounds[:, :v, 1] = low, high
    bounds[:, v], bounds[:, v + 1] = (-np.inf, np.inf), (0.0, np.inf)
    bounds[~known.any(-1), v] = 0.0  # a chip that cannot be built: the row stays
    found = linprog(
        np.tile(np.r_[np.zeros(v), 1.0, PENALTY], k),
        A_ub=matrix,
        b_ub=np.concatenate([-f[one], g[two, two_point, three]]),
        bounds=bounds.reshape(-1, 2),
        method="highs-ds",
    )
    step = np.zeros((k, v)) if found.x is None else found.x.reshape(k, width)[:, :v]
    cost, limits = np.zeros((k, p)), np.zeros(near.shape)
    if found.x is not None:
        cost[one] = -found.ineqlin.marginals[:first]
        limits[two, two_point, three] = -found.ineqlin.marginals[first:]
    return Program(step, cost, limits)


def merit(cost: Any, worst: Any) -> Any:
    """Cost and what limits are missed by, as one number; inf where nothing can be built."""
    found = cost + PENALTY * np.maximum(-worst, 0.0)
    return np.where(np.isfinite(found), found, np.inf)


@dataclass(frozen=True)
class Found:
    """Where starts have come: their logarithms of cost and tightest limits; cost is inf where a limit is missed."""

    starts: Starts
    cost: np.ndarray
    worst: np.ndarray

    def at(self, index: Any) -> Found:
        """Some of them."""
        return Found(self.starts.at(index), self.cost[index], self.worst[index])

    @property
    def met(self) -> np.ndarray:
        """Costs, inf where a limit is missed."""
        return np.where(self.worst >= MET, self.cost, np.inf)


def around(at: np.ndarray, radius: Any, rng: np.random.Generator) -> np.ndarray:
    points = at[:, None] + np.broadcast_to(radius, (len(at), POINTS))[..., None] * rng.uniform(-1.0, 1.0, (len(at), POINTS, at.shape[1]))
    points[:, 0] = at
    return np.clip(points, 0.0, 1.0)


def valued(scene: Scene, books: Books, starts: Starts) -> Found:
    """Starts as they are."""
    costs, worsts = [], []
    for begin in range(0, len(starts), POINTS * ROWS):  # points of a row may lie in one call only if its catalogue is one
        part = starts.at(slice(begin, begin + POINTS * ROWS))
        s = scene.slopes(books, part, np.repeat(part.point[:, None], POINTS, axis=1))
        costs.append(s.cost[:, 0])
        worsts.append(s.slack[:, 0].min(-1))
    cost, worst = np.concatenate(costs), np.concatenate(worsts)
    unknown = ~np.isfinite(cost) | ~np.isfinite(worst)
    return Found(starts, np.where(unknown, np.inf, cost), np.where(unknown, -np.inf, worst))


def improved(scene: Scene, books: Books, starts: Starts, steps: int, seed: int, trust: float = TRUST, whole: bool = False) -> Found:
    """Starts after some linear programs each; ``whole``: with the batch as it is."""
    rng = np.random.default_rng(seed)
    k = len(starts)
    least = np.log(np.maximum(starts.layout[:, 2], 1.0)) / np.log(MOST_BATCH)
    at, reach, idle = starts.point.copy(), np.full(k, trust), np.zeros(k, int)
    first = valued(scene, books, starts)
    cost, worst = first.cost.copy(), first.worst.copy()
    best, best_cost, best_worst = at.copy(), cost.copy(), worst.copy()
    for _ in range(steps):
        live = np.flatnonzero((reach > LEAST_TRUST) & (idle < 3))
        if not len(live):
            break
        some = starts.at(live)
        points = around(at[live], np.minimum(BALL, reach[live] / 4)[:, None] + np.outer(reach[live], SCALES), rng)
        s = scene.slopes(books, some, points)
        step = np.concatenate(
            [
                programs(
                    Slopes(s.cost[i], s.slack[i], s.cost_slope[i], s.slack_slope[i]), points[i], at[live][i], reach[live][i],
                    some.capped[i], least[live][i], whole,
                ).step
                for begin in range(0, len(live), SOLVED) for i in [np.arange(begin, min(begin + SOLVED, len(live)))]
            ]
        )  # fmt: skip
        trials = np.clip(at[live][:, None] + step[:, None] / 2.0 ** np.arange(POINTS)[:, None], 0.0, 1.0)
        t = scene.slopes(books, some, trials)
        low = t.slack.min(-1)
        merits = merit(t.cost, low)
        i = np.argmin(merits, axis=1)
        own = np.arange(len(live))
        before, after = merit(cost[live], worst[live]), merits[own, i]
        gain = np.where(np.isfinite(after), before - np.where(np.isfinite(after), after, 0.0), 0.0)
        idle[live] = np.where(gain < ENOUGH, idle[live] + 1, 0)
        took = gain > 0
        reach[live] = np.where(took, np.where(i == 0, np.minimum(2 * reach[live], WIDEST), reach[live] / 2), reach[live] / 4)
        moved = live[took]
        at[moved], cost[moved], worst[moved] = trials[own, i][took], t.cost[own, i][took], low[own, i][took]
        good = np.where(low >= MET, t.cost, np.inf)
        j = np.argmin(good, axis=1)
        better = (good[own, j] < np.where(best_worst[live] >= MET, best_cost[live], np.inf)) & np.isfinite(good[own, j])
        which = live[better]
        best[which], best_cost[which], best_worst[which] = trials[own, j][better], good[own, j][better], low[own, j][better]
    return Found(replace(starts, point=best), best_cost, best_worst)
