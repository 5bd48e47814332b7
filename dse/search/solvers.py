"""How does one chip in one layout become as cheap as it can? Two solvers with exact gradients, in turn.

Linear programs over gradients around the point, because optima sit on edges of maxima, and SciPy's SLSQP.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from dse.equations import layout as cut
from dse.search.designs import Shop
from dse.search.grid import Case, is_mixture, to_layout
from dse.search.shadow import Slopes, assess, differenced, filled, measure
from dse.types import Prices

MARGIN = 1e-8  # relative: polished designs keep this far from their limits, so that an exact evaluation finds them met
NO_LIMIT_S = 1e9
MET = -1e-9  # relative slack of a limit that counts as met: inside MARGIN and the tolerance of the model
BUNDLE = 16  # points whose gradients stand for the edges of maxima near a point
BALL = 1e-4  # how far they lie away
STEPS = 12  # linear programs in a row
ROUNDS = 12  # of the smooth solver
CYCLES = 2  # of both solvers in turn, at most
TRUST = 0.02  # first trust region, of the range of each variable
MENDS = 6  # steps back inside the limits at most
WIDER = 10.0  # times as far around, where a step back did not help
INSIDE = 1e-9  # how far inside they aim
PENALTY = 30.0  # of a relative violation, in logarithms of cost: above the multipliers seen
LEAST_TRUST, WIDEST = 1e-7, 0.2  # ends of the trust region
ENOUGH = 1e-7  # relative gain below which a polish stops
COARSE = 1e-5  # that below which one with differences does: what a front shows is coarser


@dataclass(frozen=True)
class Task:
    """What stays fixed while a chip is polished; products of variables are straight lines in logarithms, and edges of maxima nearly so."""

    shop: Shop
    case: Case
    prices: Prices
    limit_s: float
    fixed: dict[str, float]
    free: tuple[int, ...]  # positions of the variables that move
    extra: np.ndarray  # added to limits and resources
    area_mm2: float  # of silicon, over which further heat is spread
    many: bool = False  # whether so many designs are polished in this case that a longer compilation pays
    plain: bool = False  # whether differences stand for gradients: compiled in a tenth of the time
    kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)  # what was given before

    @property
    def ranges(self) -> tuple[tuple[str, float, float, bool], ...]:
        variables = self.shop.space.variables
        return tuple((variables[i].name, variables[i].low, variables[i].high, variables[i].low > 0.0) for i in self.free)


def free_of(shop: Shop) -> tuple[int, ...]:
    return tuple(i for i, v in enumerate(shop.space.variables) if v.kind == "real" and v.low < v.high)


def _given(task: Task, row: np.ndarray, fmt: str) -> tuple[Any, Any]:
    """What a chip is built with beside its free variables, and what it is asked, in a layout."""
    mixture = is_mixture(task.case.model)
    layout = to_layout(row[None], fmt, mixture)
    layout = jax.tree.map(lambda x: np.asarray(x, float).reshape(()), layout)
    process = jax.tree.map(lambda *xs: np.asarray(xs, float)[int(task.fixed["node"])], *task.shop.processes)
    ttft_s = min(task.case.ttft_limit_s, NO_LIMIT_S)
    design = (task.fixed, process, task.shop.technology, task.shop.constants, task.area_mm2)
    question = (cut.trimmed(task.case.model), task.case.workload, layout, task.prices, task.limit_s * (1 - MARGIN), ttft_s * (1 - MARGIN))
    return design, question


def _kept(task: Task, row: np.ndarray, fmt: str) -> tuple[Any, Any]:
    """What is given, from its first use on; on the device where much will be asked."""
    key = row.tobytes(), fmt, task.area_mm2
    if key not in task.kept:
        given = _given(task, row, fmt)
        task.kept[key] = jax.device_put(given) if task.many or task.plain else given
    return task.kept[key]


def _values_at(task: Task, row: np.ndarray, fmt: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of cost and the tightest limit at a bundle of points, without gradients."""
    some = filled(points) if task.plain else points
    found = measure(task.shop.family, task.ranges, some, task.extra, *_kept(task, row, fmt))[: len(points)]
    return found[:, 0], found[:, 1:].min(axis=1)


def slopes_at(task: Task, row: np.ndarray, fmt: str, points: np.ndarray) -> Slopes:
    """Values and gradients of cost and limits at points ``(k, free)`` of the cube."""
    design, question = _kept(task, row, fmt)
    padded = np.concatenate([points, np.repeat(points[-1:], BUNDLE - len(points), axis=0)])
    if task.plain:
        found = differenced(task.shop.family, task.ranges, padded, task.extra, design, question)
    else:
        found = assess(task.shop.family, task.ranges, padded, task.extra, design, question, task.many)
    return jax.tree.map(lambda x: x[: len(points)], found)


@dataclass(frozen=True)
class Polished:
    """A point of the cube after a polish in one layout."""

    point: np.ndarray
    cost: float
    worst: float  # the tightest limit
    iterations: int


def _slsqp(task: Task, row: np.ndarray, fmt: str, start: np.ndarray) -> Polished:
    """SciPy's sequential least-squares programming from a point, on the logarithm of cost."""
    from scipy.optimize import minimize

    @functools.lru_cache(maxsize=4)
    def at(key: bytes) -> Slopes:
        return slopes_at(task, row, fmt, np.frombuffer(key)[None])

    d = len(start)
    found = minimize(
        lambda x: float(at(x.tobytes()).log_cost[0]),
        start,
        jac=lambda x: at(x.tobytes()).log_cost_slope[0, :d],
        bounds=[(0.0, 1.0)] * d,
        constraints={
            "type": "ineq", "fun": lambda x: at(x.tobytes()).slack[0], "jac": lambda x: at(x.tobytes()).slack_slope[0, :, :d],
        },
        method="SLSQP",
        options={"maxiter": ROUNDS, "ftol": 1e-10},
    )  # fmt: skip
    point = np.clip(found.x, 0.0, 1.0)
    s = at(point.tobytes())
    return Polished(point, float(s.log_cost[0]), float(s.slack[0].min()), int(found.nit))


def _linear_program(s: Slopes, points: np.ndarray, at: np.ndarray, trust: float, inside: float = 0.0) -> np.ndarray | None:
    """Step that minimises the largest linear piece of the cost over all gradients, all pieces of the limits kept."""
    from scipy.optimize import linprog

    k, d = points.shape
    f = s.log_cost + np.einsum("kd,kd->k", s.log_cost_slope[:, :d], at - points)
    g = s.slack + np.einsum("kmd,kd->km", s.slack_slope[:, :, :d], at - points)
    above = np.concatenate([s.log_cost_slope[:, :d], -np.ones((k, 1))], axis=1)
    g = g - inside
    if not all(np.isfinite(x).all() for x in (f, g, above, s.slack_slope)):
        return None  # a chip that cannot be built here
    near = g.ravel() < 0.5
    within = np.concatenate([-s.slack_slope[:, :, :d].reshape(-1, d)[near], np.zeros((int(near.sum()), 1))], axis=1)
    low, high = np.maximum(-trust, -at), np.minimum(trust, 1.0 - at)
    found = linprog(
        np.r_[np.zeros(d), 1.0],
        A_ub=np.concatenate([above, within]),
        b_ub=np.r_[-f, g.ravel()[near]],
        bounds=[*zip(low, high, strict=True), (None, None)],
        method="highs",
    )
    return found.x[:d] if found.status == 0 else None


def around(at: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A point and others in a small ball around it, inside the cube."""
    points = at + radius * rng.uniform(-1.0, 1.0, (BUNDLE, len(at)))
    points[0] = at
    return np.clip(points, 0.0, 1.0)


def _along_edges(task: Task, row: np.ndarray, fmt: str, start: Polished, rng: np.random.Generator) -> Polished:
    """Linear programs over gradients in a shrinking trust region: goes along the edges where a smooth solver stops.

    A step may break a limit by a second-order amount, which the next one mends: steps are judged by an exact penalty.
    """

    def merit(cost: Any, worst: Any) -> Any:
        found = cost + PENALTY * np.maximum(-worst, 0.0)
        return np.where(np.isfinite(found), found, np.inf)

    at, cost, worst, trust = start.point, start.cost, start.worst, TRUST
    best, steps, idle = start, 0, 0
    patience, enough = (1, COARSE) if task.plain else (3, ENOUGH)
    while steps < STEPS and trust > LEAST_TRUST and idle < patience:
        steps += 1
        points = around(at, min(BALL, trust / 4), rng)
        step = _linear_program(slopes_at(task, row, fmt, points), points, at, trust)
        if step is None:
            trust *= 2 if worst < MET else 1 / 4
            continue
        trials = np.clip(at + np.outer(1 / 2.0 ** np.arange(BUNDLE), step), 0.0, 1.0)
        costs, low = _values_at(task, row, fmt, trials)
        i = int(np.argmin(merit(costs, low)))
        gain = merit(cost, worst) - merit(costs[i], low[i])
        idle = idle + 1 if gain < enough else 0
        if gain <= 0.0:
            trust /= 4
            continue
        trust = min(2 * trust, WIDEST) if i == 0 else trust / 2
        at, cost, worst = trials[i], float(costs[i]), float(low[i])
        met = np.flatnonzero(low >= MET)
        if len(met):
            j = met[np.argmin(costs[met])]
            if best.worst < MET or costs[j] < best.cost:
                best = Polished(trials[j], float(costs[j]), float(low[j]), 0)
    if cost < best.cost or best.worst < MET:
        mended = _mended(task, row, fmt, Polished(at, cost, worst, 0), rng)
        if mended.worst >= MET and (best.worst < MET or mended.cost < best.cost):
            best = mended
    return replace(best, iterations=start.iterations + steps)


def _mended(task: Task, row: np.ndarray, fmt: str, start: Polished, rng: np.random.Generator) -> Polished:
    """Newton steps back inside limits that are broken by a little; where one makes it worse an edge is near, and more is looked at."""
    at, found, wider = start.point, start, 1.0
    for _ in range(MENDS):
        if found.worst >= MET:
            break
        reach = wider * abs(found.worst)
        points = around(at, min(BALL, reach), rng)
        step = _linear_program(slopes_at(task, row, fmt, points), points, at, min(10 * reach + ENOUGH, WIDEST), INSIDE)
        if step is not None:
            trial = np.clip(at + step, 0.0, 1.0)
            costs, low = _values_at(task, row, fmt, np.repeat(trial[None], BUNDLE, axis=0))
            if float(low[0]) > found.worst:
                at, found = trial, Polished(trial, float(costs[0]), float(low[0]), 0)
                continue
        wider *= WIDER
    return found


def polish_in(task: Task, row: np.ndarray, fmt: str, start: np.ndarray, rng: np.random.Generator, cycles: int = CYCLES) -> Polished:
    """Both solvers in turn, until neither helps; without ``cycles`` the linear programs alone."""
    s = slopes_at(task, row, fmt, start[None])
    best = _along_edges(task, row, fmt, Polished(start, float(s.log_cost[0]), float(s.slack[0].min()), 0), rng)
    for _ in range(cycles):
        found = _along_edges(task, row, fmt, _slsqp(task, row, fmt, best.point), rng)
        gain = best.cost - found.cost if found.worst >= MET else -np.inf
        iterations = best.iterations + found.iterations
        best = replace(found if gain > 0.0 or best.worst < MET else best, iterations=iterations)
        if gain < ENOUGH and best.worst >= MET:
            break
    return best


def values_of(task: Task, points: np.ndarray) -> dict[str, np.ndarray]:
    """Design values of points of the cube of free variables."""
    values = {name: np.full(len(points), x) for name, x in task.fixed.items()}
    for column_of, (name, low, high, log) in zip(points.T, task.ranges, strict=True):
        values[name] = low * (high / low) ** column_of if log else low + column_of * (high - low)
    return values
