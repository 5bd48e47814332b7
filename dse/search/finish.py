"""How much cheaper can one good design become, and what is each of its limits worth? A constrained polish with exact gradients.

Real-valued design variables move inside their box (linear programs over gradients around the point, because optima sit on edges of maxima,
and SciPy's SLSQP in turn); named and whole-numbered ones stay. Every layout is then tried again on the chip found, until nothing changes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse.equations import layout as cut
from dse.evaluate import Metrics, as_floats, evaluate
from dse.search.designs import Shop, build_block, column
from dse.search.finalists import FINE_REACH, FINE_STEP
from dse.search.layouts import Case, Grid, is_mixture, layout_table, screen, to_layout
from dse.search.shadow import EXTRAS, Slopes, assess, shadow_prices
from dse.types import Chip, Deployment, Prices, named_format

MARGIN = 1e-8  # relative: polished designs keep this far from their limits, so that an exact evaluation finds them met
NO_LIMIT_S = 1e9
MET = -1e-9  # relative slack of a limit that counts as met: inside MARGIN and the tolerance of the model
EASE = 1e-4  # relative: by how much limits are eased while layouts are tried again on a chip that meets them exactly
LOOSE = (1.0, 1.03, 1.12)  # limits on time per token at which layouts are looked for, relative to the one that holds
AROUND = 31  # chips around the polished one on which layouts are tried again
REACH = 0.06  # how far those lie away, of the range of each variable
BUNDLE = 16  # points whose gradients stand for the edges of maxima near a point
BALL = 1e-4  # how far they lie away
STEPS = 12  # linear programs in a row
ROUNDS = 12  # of the smooth solver
CYCLES = 2  # of both solvers in turn, at most
TRUST = 0.02  # first trust region, of the range of each variable
MENDS = 5  # steps back inside the limits at most
INSIDE = 1e-9  # how far inside they aim
PENALTY = 30.0  # of a relative violation, in logarithms of cost: above the multipliers seen
LEAST_TRUST, WIDEST = 1e-7, 0.2  # ends of the trust region
ENOUGH = 1e-7  # relative gain below which a polish stops


@dataclass(frozen=True)
class Finished:
    """A polished design; money in USD per million output tokens."""

    decisions: dict[str, float | int | str]
    layout: dict[str, Any]  # tp, pp, dp, ep, batch, format
    metrics: Metrics  # in double precision, leaves of shape (1,)
    cost: float
    multipliers: dict[str, float]  # what one SI unit more of each limit or resource saves, see ``shadow.EXTRAS``
    box: dict[str, float]  # what one unit more of the range of a variable at its end saves
    residual: float  # of the conditions of optimality, relative to cost over the whole range of a variable
    iterations: int
    improved_from: float
    feasible: bool = True
    tried: int = field(default=0)  # layouts polished


@dataclass(frozen=True)
class _Task:
    """What stays fixed while a chip is polished; products of variables are straight lines in logarithms, and edges of maxima nearly so."""

    shop: Shop
    case: Case
    prices: Prices
    limit_s: float
    fixed: dict[str, float]
    free: tuple[int, ...]  # positions of the variables that move
    extra: np.ndarray  # added to limits and resources
    area_mm2: float  # of silicon, over which further heat is spread

    @property
    def ranges(self) -> tuple[tuple[str, float, float, bool], ...]:
        variables = self.shop.space.variables
        return tuple((variables[i].name, variables[i].low, variables[i].high, variables[i].low > 0.0) for i in self.free)


def _free(shop: Shop) -> tuple[int, ...]:
    return tuple(i for i, v in enumerate(shop.space.variables) if v.kind == "real" and v.low < v.high)


def _slopes(task: _Task, row: np.ndarray, fmt: str, points: np.ndarray) -> Slopes:
    """Values and gradients of cost and limits at points ``(k, free)`` of the cube."""
    mixture = is_mixture(task.case.model)
    layout = to_layout(row[None], fmt, mixture)
    layout = jax.tree.map(lambda x: np.asarray(x, float).reshape(()), layout)
    process = jax.tree.map(lambda *xs: np.asarray(xs, float)[int(task.fixed["node"])], *task.shop.processes)
    ttft_s = min(task.case.ttft_limit_s, NO_LIMIT_S)
    design = (task.fixed, process, task.shop.technology, task.shop.constants, task.area_mm2)
    question = (cut.trimmed(task.case.model), task.case.workload, layout, task.prices, task.limit_s * (1 - MARGIN), ttft_s * (1 - MARGIN))
    padded = np.concatenate([points, np.repeat(points[-1:], BUNDLE - len(points), axis=0)])
    found = assess(task.shop.family, task.ranges, padded, task.extra, design, question)
    return jax.tree.map(lambda x: x[: len(points)], found)


@dataclass(frozen=True)
class _Polished:
    """A point of the cube after a polish in one layout."""

    point: np.ndarray
    cost: float
    worst: float  # the tightest limit
    iterations: int


def _slsqp(task: _Task, row: np.ndarray, fmt: str, start: np.ndarray) -> _Polished:
    """SciPy's sequential least-squares programming from a point, on the logarithm of cost."""
    from scipy.optimize import minimize

    @functools.lru_cache(maxsize=4)
    def at(key: bytes) -> Slopes:
        return _slopes(task, row, fmt, np.frombuffer(key)[None])

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
    return _Polished(point, float(s.log_cost[0]), float(s.slack[0].min()), int(found.nit))


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


def _around(at: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A point and others in a small ball around it, inside the cube."""
    points = at + radius * rng.uniform(-1.0, 1.0, (BUNDLE, len(at)))
    points[0] = at
    return np.clip(points, 0.0, 1.0)


def _along_edges(task: _Task, row: np.ndarray, fmt: str, start: _Polished, rng: np.random.Generator) -> _Polished:
    """Linear programs over gradients in a shrinking trust region: goes along the edges where a smooth solver stops.

    A step may break a limit by a second-order amount, which the next one mends: steps are judged by an exact penalty.
    """

    def merit(cost: Any, worst: Any) -> Any:
        found = cost + PENALTY * np.maximum(-worst, 0.0)
        return np.where(np.isfinite(found), found, np.inf)

    at, cost, worst, trust = start.point, start.cost, start.worst, TRUST
    best, steps, idle = start, 0, 0
    while steps < STEPS and trust > LEAST_TRUST and idle < 3:
        steps += 1
        points = _around(at, min(BALL, trust / 4), rng)
        step = _linear_program(_slopes(task, row, fmt, points), points, at, trust)
        if step is None:
            trust *= 2 if worst < MET else 1 / 4
            continue
        trials = np.clip(at + np.outer(1 / 2.0 ** np.arange(BUNDLE), step), 0.0, 1.0)
        t = _slopes(task, row, fmt, trials)
        low = t.slack.min(axis=1)
        i = int(np.argmin(merit(t.log_cost, low)))
        gain = merit(cost, worst) - merit(t.log_cost[i], low[i])
        idle = idle + 1 if gain < ENOUGH else 0
        if gain <= 0.0:
            trust /= 4
            continue
        trust = min(2 * trust, WIDEST) if i == 0 else trust / 2
        at, cost, worst = trials[i], float(t.log_cost[i]), float(low[i])
        met = np.flatnonzero(low >= MET)
        if len(met):
            j = met[np.argmin(t.log_cost[met])]
            if best.worst < MET or t.log_cost[j] < best.cost:
                best = _Polished(trials[j], float(t.log_cost[j]), float(low[j]), 0)
    if cost < best.cost or best.worst < MET:
        mended = _mended(task, row, fmt, _Polished(at, cost, worst, 0), rng)
        if mended.worst >= MET and (best.worst < MET or mended.cost < best.cost):
            best = mended
    return replace(best, iterations=start.iterations + steps)


def _mended(task: _Task, row: np.ndarray, fmt: str, start: _Polished, rng: np.random.Generator) -> _Polished:
    """Newton steps back inside limits that are broken by a little."""
    at, found = start.point, start
    for _ in range(MENDS):
        if found.worst >= MET:
            break
        points = _around(at, min(BALL, abs(found.worst)), rng)
        step = _linear_program(_slopes(task, row, fmt, points), points, at, min(10 * abs(found.worst) + ENOUGH, WIDEST), INSIDE)
        if step is None:
            break
        at = np.clip(at + step, 0.0, 1.0)
        s = _slopes(task, row, fmt, at[None])
        found = _Polished(at, float(s.log_cost[0]), float(s.slack[0].min()), 0)
    return found


def _polish_in(task: _Task, row: np.ndarray, fmt: str, start: np.ndarray, rng: np.random.Generator, cycles: int = CYCLES) -> _Polished:
    """Both solvers in turn, until neither helps; without ``cycles`` the linear programs alone."""
    s = _slopes(task, row, fmt, start[None])
    best = _along_edges(task, row, fmt, _Polished(start, float(s.log_cost[0]), float(s.slack[0].min()), 0), rng)
    for _ in range(cycles):
        found = _along_edges(task, row, fmt, _slsqp(task, row, fmt, best.point), rng)
        gain = best.cost - found.cost if found.worst >= MET else -np.inf
        iterations = best.iterations + found.iterations
        best = replace(found if gain > 0.0 or best.worst < MET else best, iterations=iterations)
        if gain < ENOUGH and best.worst >= MET:
            break
    return best


# --- layouts again -----------------------------------------------------------------------------------------------------------


def _values(task: _Task, points: np.ndarray) -> dict[str, np.ndarray]:
    """Design values of points of the cube of free variables."""
    values = {name: np.full(len(points), x) for name, x in task.fixed.items()}
    for column_of, (name, low, high, log) in zip(points.T, task.ranges, strict=True):
        values[name] = low * (high / low) ** column_of if log else low + column_of * (high - low)
    return values


def _eased(chip: Chip) -> Chip:
    """The same chips with a little more of everything that a limit is set on: single precision decides which layouts come near."""
    slack = jax.tree.map(lambda x: x + EASE, chip.slack)
    stores = {n: replace(s, capacity_byte=s.capacity_byte * (1 + EASE)) for n in ("sram", "memory") for s in [getattr(chip, n)]}
    return replace(chip, slack=slack, **stores)


def _layouts(task: _Task, points: np.ndarray, grid: Grid, table: np.ndarray) -> list[tuple[float, np.ndarray, str]]:
    """Layouts that are best for any of the chips under any of the loosened limits: cost, row and format, cheapest first."""
    chips = column(_eased(build_block(task.shop, _values(task, points)).chip), len(points))
    case = replace(task.case, prices=(task.prices,) * max(len(task.case.prices), 1), ttft_limit_s=task.case.ttft_limit_s * (1 + EASE))
    best, _ = screen(chips, case, grid, table, [task.limit_s * x * (1 + EASE) for x in LOOSE])
    found: dict[tuple[int, int], float] = {}
    for cost, layout, form in zip(best.cost.ravel(), best.layout.ravel(), best.format.ravel(), strict=True):
        if layout >= 0:
            key = (int(layout), int(form))
            found[key] = min(found.get(key, np.inf), float(cost))
    return sorted(((c, table[i], grid.formats[f]) for (i, f), c in found.items()), key=lambda x: x[0])


def fine_batches(grid: Grid) -> tuple[int, ...]:
    """Every batch that the refinement of a winner's batch can reach from a (thinned) grid."""
    steps = FINE_STEP ** np.arange(-FINE_REACH, FINE_REACH + 1)
    return tuple(sorted({max(round(b * s), 1) for b in grid.batches for s in steps.tolist()}))


def _beside(row: np.ndarray, batches: Sequence[int], sign: int) -> np.ndarray | None:
    """The same layout with the next larger or smaller batch."""
    others = [b for b in batches if (b - row[4]) * sign > 0 and b >= row[2]]
    return np.r_[row[:4], float(min(others) if sign > 0 else max(others))] if others else None


def _finer(rows: Sequence[np.ndarray]) -> np.ndarray:
    """The same layouts with neighbouring batches."""
    grown = np.array(rows)[:, None, :].repeat(2 * FINE_REACH + 1, axis=1)
    grown[..., 4] = np.maximum(np.round(grown[..., 4] * FINE_STEP ** np.arange(-FINE_REACH, FINE_REACH + 1)), grown[..., 2])
    return np.unique(grown.reshape(-1, 5), axis=0)


def _candidates(task: _Task, at: np.ndarray, grid: Grid, table: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, str]]:
    """Layouts worth a polish from here, the most promising first."""
    points = np.clip(at + REACH * rng.standard_normal((AROUND + 1, len(at))), 0.0, 1.0)
    points[0] = at
    coarse = _layouts(task, points, grid, table)
    if not coarse:
        return []
    fine = _layouts(task, points, grid, _finer([row for _, row, _ in coarse]))
    return [(row, fmt) for _, row, fmt in fine]


def _start(task: _Task, values: Mapping[str, float]) -> np.ndarray:
    cube = [
        np.log(values[name] / low) / np.log(high / low) if log else (values[name] - low) / (high - low)
        for name, low, high, log in task.ranges
    ]
    return np.clip(np.array(cube), 0.0, 1.0)


def _row_of(layout: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    return np.array([float(layout.get(n, 1.0)) for n in ("tp", "pp", "dp", "ep", "batch")]), str(layout["format"])


def _same(a: tuple[np.ndarray, str], b: tuple[np.ndarray, str]) -> bool:
    return a[1] == b[1] and np.array_equal(a[0], b[0])


def polish(
    shop: Shop,
    decisions: Mapping[str, Any],
    case: Case,
    prices: Prices,
    limit_s: float,
    grid: Grid,
    layout: Mapping[str, Any] | None = None,
    extra: Mapping[str, float] | None = None,
    rounds: int = 4,
    each: int = 3,
    seed: int = 0,
    cycles: int = CYCLES,
    walk: bool = True,
) -> Finished | None:
    """Make one design as cheap as it can become, and say what its limits are worth.

    Args:
        shop: The family's space and what its chips are built with. decisions: The design, written with names.
        case: Model, workload and its limit on the time to first token. prices: The owner's. limit_s: On the mean time per output token [s].
        grid: The study's layouts (its formats are those that the design may use). layout: A good one, where it is known (tp, pp, dp, ep,
            batch, format). extra: Added to limits and resources (names and units of ``shadow.EXTRAS``): how a shadow price is checked.
        rounds: Of polish and layouts in turn, at most. each: Layouts polished in a round. seed: Of the points around a design.
        cycles: Of both solvers, at most; 0 takes an eighth of the time where the start is near the optimum. walk: Whether larger and
        smaller batches of the best layout are polished as well.

    Returns: ``Finished``; None where no layout comes near the limits.
    """
    space = shop.space
    free = _free(shop)
    values = space.from_named(decisions)
    fixed = {v.name: float(values[v.name]) for i, v in enumerate(space.variables) if i not in free}
    added = np.array([(extra or {}).get(name, 0.0) for name in EXTRAS])
    start = {name: np.array([x]) for name, x in values.items()}
    task = _Task(shop, as_case(case), as_floats(prices), limit_s, fixed, free, added, _area(shop, start))
    rng = np.random.default_rng(seed)
    grid = grid.thinned()  # batches between are tried around the best
    table, at, batches = layout_table(case.model, grid), _start(task, values), fine_batches(grid)
    known = None if layout is None else _row_of(layout)
    best: _Polished | None = None
    used: tuple[np.ndarray, str] | None = None
    before, iterations, tried = np.inf, 0, 0
    if known is not None:
        s = _slopes(task, *known, at[None])
        before = float(np.exp(s.log_cost[0])) if s.slack.min() >= -1e-6 else np.inf
    done: list[tuple[np.ndarray, str]] = []
    for _ in range(rounds):
        candidates = _candidates(task, at, grid, table, rng) if each else []
        first = [known] if known is not None and not done else []
        chosen = first + [c for c in candidates if not any(_same(c, d) for d in [*done, *first])][:each]
        changed = False
        for row, fmt in chosen:
            done.append((row, fmt))
            tried += 1
            found = _polish_in(task, row, fmt, at, rng, cycles)
            iterations += found.iterations
            if found.worst >= MET and (best is None or found.cost < best.cost - ENOUGH):
                best, used, changed = found, (row, fmt), True
        if best is None or used is None or not changed:
            break
        for sign in (1, -1) if walk else ():
            while (other := _beside(used[0], batches, sign)) is not None and not any(_same((other, used[1]), d) for d in done):
                done.append((other, used[1]))
                tried += 1
                found = _polish_in(task, other, used[1], best.point, rng, cycles)
                iterations += found.iterations
                if found.worst < MET or found.cost >= best.cost - ENOUGH:
                    break
                best, used = found, (other, used[1])
        at = best.point
    if best is None or used is None:
        return None
    return _finished(task, best, used, before, iterations, tried, rng)


def bundle(
    shop: Shop, decisions: Mapping[str, Any], case: Case, prices: Prices, limit_s: float, layout: Mapping[str, Any], seed: int = 0
) -> tuple[np.ndarray, Slopes]:
    """A polished design's place in the cube of its free variables, and values and gradients there and just around it.

    The same arguments with a shop and prices of another catalogue give the same points, so that differences hold the design.
    """
    values = shop.space.from_named(decisions)
    free = _free(shop)
    fixed = {v.name: float(values[v.name]) for i, v in enumerate(shop.space.variables) if i not in free}
    area = _area(shop, {name: np.array([x]) for name, x in values.items()})
    task = _Task(shop, as_case(case), as_floats(prices), limit_s, fixed, free, np.zeros(len(EXTRAS)), area)
    at = _start(task, values)
    return at, _slopes(task, *_row_of(layout), _around(at, BALL / 10, np.random.default_rng(seed)))


def _area(shop: Shop, values: Mapping[str, np.ndarray]) -> float:
    return float(np.ravel(sum(build_block(shop, values).area_mm2.values()))[0])


def as_case(case: Case) -> Case:
    """The same case in double precision."""
    return replace(case, model=as_floats(case.model), workload=as_floats(case.workload))


def _finished(
    task: _Task, best: _Polished, used: tuple[np.ndarray, str], before: float, iterations: int, tried: int, rng: np.random.Generator
) -> Finished:
    row, fmt = used
    values = _values(task, best.point[None])
    decisions = task.shop.space.named(values)
    m = exact(task.shop, values, task.case, task.prices, row, fmt)
    cost = float(np.exp(best.cost)) if task.extra.any() else float(np.ravel(m.usd_per_million_output_token)[0])
    points = _around(best.point, BALL / 10, rng)
    prices, box, residual = shadow_prices(
        _slopes(replace(task, area_mm2=_area(task.shop, values)), row, fmt, points), best.point, task.ranges, cost
    )
    layout = dict(zip(("tp", "pp", "dp", "ep", "batch"), row.tolist(), strict=True)) | {"format": fmt}
    return Finished(decisions, layout, m, cost, prices, box, residual, iterations, before, best.worst >= MET, tried)


def exact(shop: Shop, values: Mapping[str, np.ndarray], case: Case, prices: Prices, row: np.ndarray, fmt: str) -> Metrics:
    """The model itself on one design in one layout, leaves ``(1,)``."""
    chip = build_block(shop, values).chip
    hot = jax.tree.map(lambda x: np.array([float(x)]), named_format(*fmt.split("/")))
    layout = replace(to_layout(row[None], None, is_mixture(case.model)), format=hot)
    m = evaluate(Deployment(chip=chip, model=case.model, workload=case.workload, layout=layout, prices=prices))
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (1,)), m)
