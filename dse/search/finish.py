"""How much cheaper can one good design become, and what is each of its limits worth? A constrained polish with exact gradients.

Real-valued design variables move inside their box (linear programs over gradients around the point, because optima sit on edges of maxima,
and SciPy's SLSQP in turn); named and whole-numbered ones stay. Every layout is then tried again on the chip found, until nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse.evaluate import Metrics, as_floats, evaluate
from dse.search.deck import MARGIN
from dse.search.designs import Shop, build_block, column
from dse.search.finalists import FINE_REACH, FINE_STEP, fine_batches
from dse.search.grid import Case, Grid, is_mixture, layout_table, to_layout
from dse.search.layouts import screen
from dse.search.refine import Question, Refined
from dse.search.shadow import EXTRAS, Slopes, shadow_prices
from dse.search.solvers import BALL, CYCLES, ENOUGH, MET, Polished, Task, around, free_of, polish_in, slopes_at, values_of
from dse.types import Chip, Deployment, Prices, named_format

EASE = 1e-4  # relative: by how much limits are eased while layouts are tried again on a chip that meets them exactly
LOOSE = (1.0, 1.03, 1.12)  # limits on time per token at which layouts are looked for, relative to the one that holds
AROUND = 31  # chips around the polished one on which layouts are tried again
REACH = 0.06  # how far those lie away, of the range of each variable


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


# --- layouts again -----------------------------------------------------------------------------------------------------------


def _eased(chip: Chip) -> Chip:
    """The same chips with a little more of everything that a limit is set on: single precision decides which layouts come near."""
    slack = jax.tree.map(lambda x: x + EASE, chip.slack)
    stores = {n: replace(s, capacity_byte=s.capacity_byte * (1 + EASE)) for n in ("sram", "memory") for s in [getattr(chip, n)]}
    return replace(chip, slack=slack, **stores)


def _layouts(task: Task, points: np.ndarray, grid: Grid, table: np.ndarray) -> list[tuple[float, np.ndarray, str]]:
    """Layouts that are best for any of the chips under any of the loosened limits: cost, row and format, cheapest first."""
    chips = column(_eased(build_block(task.shop, values_of(task, points)).chip), len(points))
    case = replace(task.case, prices=(task.prices,) * max(len(task.case.prices), 1), ttft_limit_s=task.case.ttft_limit_s * (1 + EASE))
    best, _ = screen(chips, case, grid, table, [task.limit_s * x * (1 + EASE) for x in LOOSE])
    found: dict[tuple[int, int], float] = {}
    for cost, layout, form in zip(best.cost.ravel(), best.layout.ravel(), best.format.ravel(), strict=True):
        if layout >= 0:
            key = (int(layout), int(form))
            found[key] = min(found.get(key, np.inf), float(cost))
    return sorted(((c, table[i], grid.formats[f]) for (i, f), c in found.items()), key=lambda x: x[0])


def _beside(row: np.ndarray, batches: Sequence[int], sign: int) -> np.ndarray | None:
    """The same layout with the next larger or smaller batch."""
    others = [b for b in batches if (b - row[4]) * sign > 0 and b >= row[2]]
    return np.r_[row[:4], float(min(others) if sign > 0 else max(others))] if others else None


def _finer(rows: Sequence[np.ndarray]) -> np.ndarray:
    """The same layouts with neighbouring batches."""
    grown = np.array(rows)[:, None, :].repeat(2 * FINE_REACH + 1, axis=1)
    grown[..., 4] = np.maximum(np.round(grown[..., 4] * FINE_STEP ** np.arange(-FINE_REACH, FINE_REACH + 1)), grown[..., 2])
    return np.unique(grown.reshape(-1, 5), axis=0)


def _candidates(task: Task, at: np.ndarray, grid: Grid, table: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, str]]:
    """Layouts worth a polish from here, the most promising first."""
    points = np.clip(at + REACH * rng.standard_normal((AROUND + 1, len(at))), 0.0, 1.0)
    points[0] = at
    coarse = _layouts(task, points, grid, table)
    if not coarse:
        return []
    fine = _layouts(task, points, grid, _finer([row for _, row, _ in coarse]))
    return [(row, fmt) for _, row, fmt in fine]


def _start(task: Task, values: Mapping[str, float]) -> np.ndarray:
    cube = [
        np.log(values[name] / low) / np.log(high / low) if log else (values[name] - low) / (high - low)
        for name, low, high, log in task.ranges
    ]
    return np.clip(np.array(cube), 0.0, 1.0)


def _row_of(layout: Mapping[str, Any]) -> tuple[np.ndarray, str]:
    return np.array([float(layout.get(n, 1.0)) for n in ("tp", "pp", "dp", "ep", "batch")]), str(layout["format"])


def _same(a: tuple[np.ndarray, str], b: tuple[np.ndarray, str]) -> bool:
    return a[1] == b[1] and np.array_equal(a[0], b[0])


def _walked(
    task: Task,
    best: Polished,
    used: tuple[np.ndarray, str],
    batches: Sequence[int],
    rng: np.random.Generator,
    cycles: int,
    done: list[tuple[np.ndarray, str]],
    most: int | None = None,
) -> tuple[Polished, tuple[np.ndarray, str], int]:
    """A chip polished with larger and with smaller batches too, as long as that is cheaper (at most so many on each side).

    Returns: It, its layout, and how many iterations it took; what was tried joins ``done``.
    """
    iterations = 0
    for sign in (1, -1):
        end = np.inf if most is None else len(done) + most
        while len(done) < end and (other := _beside(used[0], batches, sign)) is not None:
            if any(_same((other, used[1]), d) for d in done):
                break
            done.append((other, used[1]))
            found = polish_in(task, other, used[1], best.point, rng, cycles)
            iterations += found.iterations
            if found.worst < MET or found.cost >= best.cost - ENOUGH:
                break
            best, used = found, (other, used[1])
    return best, used, iterations


def nearby(
    shop: Shop, case: Case, limit_s: float, grid: Grid, point: np.ndarray, way: tuple[np.ndarray, str]
) -> tuple[np.ndarray, float] | None:
    """A chip (a point of the cube) polished in its layout, and with the batches beside it, and its cost; None where no limit is met.

    Where memory holds just one batch, the next one needs many variables to move at once, which steps at random seldom do.
    """
    space, free = shop.space, free_of(shop)
    values = {name: np.ravel(x) for name, x in space.decode(point[None]).items()}
    fixed = {v.name: float(values[v.name][0]) for i, v in enumerate(space.variables) if i not in free}
    owner = as_floats(case.prices[0])
    task = Task(shop, as_case(case), owner, limit_s, fixed, free, np.zeros(len(EXTRAS)), _area(shop, values), plain=True)
    rng = np.random.default_rng(0)
    best = polish_in(task, *way, _start(task, {name: float(x[0]) for name, x in values.items()}), rng, 0)
    if best.worst < MET:
        return None
    best, _, _ = _walked(task, best, way, fine_batches(grid.thinned()), rng, 0, [way])
    found = point.copy()
    found[list(free)] = space.encode(values_of(task, best.point[None]))[0][list(free)]
    return found, float(np.exp(best.cost))


def polished(shop: Shop, question: Question, grid: Grid, found: Refined, before: np.ndarray | None = None) -> Refined:
    """What a search of one case and owner found with its best chips polished, each at the tightest limit under which it leads.

    Costs of the new chips are known under that limit and under looser ones. Chips that are among those ``before`` (n, d) are left out.
    """
    leads: dict[int, tuple[float, tuple[np.ndarray, str]]] = {}
    for limit_s, way in sorted(zip(question.limits_s, found.ways, strict=False), key=lambda x: -x[0]):
        if way is not None:
            leads[way[0]] = limit_s, way[1]
    points, costs, limits = [found.points], [found.costs], np.asarray(question.limits_s)
    for i, (limit_s, layout) in leads.items():
        if before is not None and len(before) and np.abs(before - found.points[i]).max(axis=1).min() < ENOUGH:
            continue
        near = nearby(shop, question.cases[0][0], limit_s * (1.0 - 2 * MARGIN), grid, found.points[i], layout)
        if near is not None:
            points.append(near[0][None])
            costs.append(np.where(limits >= limit_s, near[1], np.inf)[None])
    more = len(points) - 1
    return replace(found, points=np.concatenate(points), costs=np.concatenate(costs), chips=found.chips + more)


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
    walk: int | None = None,
    many: bool = False,
) -> Finished | None:
    """Make one design as cheap as it can become, and say what its limits are worth.

    Args:
        shop: The family's space and what its chips are built with. decisions: The design, written with names.
        case: Model, workload and its limit on the time to first token. prices: The owner's. limit_s: On the mean time per output token [s].
        grid: The study's layouts (its formats are those that the design may use). layout: A good one, where it is known (tp, pp, dp, ep,
            batch, format). extra: Added to limits and resources (names and units of ``shadow.EXTRAS``): how a shadow price is checked.
        rounds: Of polish and layouts in turn, at most. each: Layouts polished in a round. seed: Of the points around a design.
        cycles: Of both solvers, at most; 0 takes an eighth of the time where the start is near the optimum.
        walk: How many larger and smaller batches of the best layout are polished as well, at most (None: as long as that helps).
        many: Whether so many designs of this case are polished that a longer compilation pays.

    Returns: ``Finished``; None where no layout comes near the limits.
    """
    space = shop.space
    free = free_of(shop)
    values = space.from_named(decisions)
    fixed = {v.name: float(values[v.name]) for i, v in enumerate(space.variables) if i not in free}
    added = np.array([(extra or {}).get(name, 0.0) for name in EXTRAS])
    start = {name: np.array([x]) for name, x in values.items()}
    task = Task(shop, as_case(case), as_floats(prices), limit_s, fixed, free, added, _area(shop, start), many)
    rng = np.random.default_rng(seed)
    grid = grid.thinned()  # batches between are tried around the best
    table, at, batches = layout_table(case.model, grid), _start(task, values), fine_batches(grid)
    known = None if layout is None else _row_of(layout)
    best: Polished | None = None
    used: tuple[np.ndarray, str] | None = None
    before, iterations, tried = np.inf, 0, 0
    if known is not None:
        s = slopes_at(task, *known, at[None])
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
            found = polish_in(task, row, fmt, at, rng, cycles)
            iterations += found.iterations
            if found.worst >= MET and (best is None or found.cost < best.cost - ENOUGH):
                best, used, changed = found, (row, fmt), True
        if best is None or used is None or not changed:
            break
        count = len(done)
        best, used, more = _walked(task, best, used, batches, rng, cycles, done, walk)
        tried, iterations = tried + len(done) - count, iterations + more
        at = best.point
    if best is None or used is None:
        return None
    return _finished(task, best, used, before, iterations, tried, rng)


def bundle(
    shop: Shop,
    decisions: Mapping[str, Any],
    case: Case,
    prices: Prices,
    limit_s: float,
    layout: Mapping[str, Any],
    seed: int = 0,
    many: bool = False,
) -> tuple[np.ndarray, Slopes]:
    """A polished design's place in the cube of its free variables, and values and gradients there and just around it.

    The same arguments with a shop and prices of another catalogue give the same points, so that differences hold the design.
    """
    values = shop.space.from_named(decisions)
    free = free_of(shop)
    fixed = {v.name: float(values[v.name]) for i, v in enumerate(shop.space.variables) if i not in free}
    area = _area(shop, {name: np.array([x]) for name, x in values.items()})
    task = Task(shop, as_case(case), as_floats(prices), limit_s, fixed, free, np.zeros(len(EXTRAS)), area, many)
    at = _start(task, values)
    return at, slopes_at(task, *_row_of(layout), around(at, BALL / 10, np.random.default_rng(seed)))


def _area(shop: Shop, values: Mapping[str, np.ndarray]) -> float:
    return float(np.ravel(sum(build_block(shop, values).area_mm2.values()))[0])


def as_case(case: Case) -> Case:
    """The same case in double precision."""
    return replace(case, model=as_floats(case.model), workload=as_floats(case.workload))


def _finished(
    task: Task, best: Polished, used: tuple[np.ndarray, str], before: float, iterations: int, tried: int, rng: np.random.Generator
) -> Finished:
    row, fmt = used
    values = values_of(task, best.point[None])
    decisions = task.shop.space.named(values)
    m = exact(task.shop, values, task.case, task.prices, row, fmt)
    cost = float(np.exp(best.cost)) if task.extra.any() else float(np.ravel(m.usd_per_million_output_token)[0])
    points = around(best.point, BALL / 10, rng)
    prices, box, residual = shadow_prices(
        slopes_at(replace(task, area_mm2=_area(task.shop, values)), row, fmt, points), best.point, task.ranges, cost
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
