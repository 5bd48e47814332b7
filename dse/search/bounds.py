"""What can no chip of a box beat? A lower bound on cost for boxes of design variables, each in one layout and format.

The family's own ``build`` is enclosed by intervals. From the enclosure the chip is taken that is best in every field at once: a step gets
no faster and no more frugal when a field worsens, so what ``performance`` says of that chip bounds every chip of the box. Only the closed
loop of serving is not monotone in the decoding time; its minimum over that time is taken in closed form.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse.chips import FAMILIES
from dse.equations import fabrication, power, silicon
from dse.equations import layout as cut
from dse.equations.serving import BUSIEST
from dse.evaluate import Performance, as_floats, money, performance, total_cost
from dse.search.designs import Shop
from dse.search.intervals import Interval, enclose, is_interval, kept_whole
from dse.search.layouts import Case, Grid, is_mixture, to_layout
from dse.types import SLACK_TOLERANCE, Chip, Number, Slacks, Store, named_format

SLACK = 1e-9  # relative, of every bound and limit: far more than what rounding adds up to
CHUNK = 4096  # boxes in one call: one compiled shape

# Which way functions of the families go, in the domain of the design variables; their formulas repeat arguments.
WHOLE = (
    (fabrication, {"dies_per_wafer": ((-1,),)}),  # up to dies of half a square around the wafer: 45,000 mm2 of 300 mm
    (power, {"slack": ((-1, +1),), "speed_at": ((+1,),)}),  # of a value that is not negative; of an exponent of at least 1
    (silicon, {"beachfront_m": ((+1, +1),)}),
)
FLOOR_PLAN = {"floor_plan": ((+1, +1), (+1, -1), (+1, +1))}  # by die area and edge blocks: die, what is left, overhead; in every family


# Bytes and multipliers of arrays of compute in memory: by area, design variables in alphabetical order (of which they use the bytes
# a multiplier stands for, and a choice), and clock.
_PER_MAC = sorted(v.name for v in FAMILIES["compute_in_memory"].variables).index("byte_per_mac")
_OTHERS = len(FAMILIES["compute_in_memory"].variables) - _PER_MAC - 1
ARRAY = {"array": tuple((+1, *(+1,) * _PER_MAC, way, *(+1,) * _OTHERS, -1) for way in (+1, -1))}


@dataclass(frozen=True)
class Problem:
    """One family, one case, one owner and one limit."""

    shop: Shop
    case: Case
    scenario: int
    limit_s: float
    grid: Grid  # its formats are those of the family


def _no_slower(near: Store, far: Store) -> Store:
    """A store that is at least as good as the next one, which bytes spill into; an empty next one does not matter."""
    none = far.capacity_byte <= 0.0

    def least(a: Number, b: Number) -> Number:
        return jnp.where(none, a, jnp.minimum(a, b))

    return replace(near, s_per_byte=least(near.s_per_byte, far.s_per_byte), j_per_byte=least(near.j_per_byte, far.j_per_byte))


def best_chip(low: Chip, high: Chip) -> Chip:
    """The chip that is fastest, roomiest and most frugal in every field of an enclosure; money is not in it."""

    def store(name: str) -> Store:
        a = getattr(low, name)
        seconds, joule = jnp.maximum(a.s_per_byte, 0.0), jnp.maximum(a.j_per_byte, 0.0)
        return Store(capacity_byte=getattr(high, name).capacity_byte, s_per_byte=seconds, j_per_byte=joule)

    memory = store("memory")
    sram = _no_slower(store("sram"), memory)
    # seen from the weight store the next one is SRAM, or memory where there is no SRAM
    weights = _no_slower(_no_slower(store("weight_store"), sram), memory)
    return replace(
        low,
        peak_flop_per_s=high.peak_flop_per_s,
        vector_flop_per_s=high.vector_flop_per_s,
        exp_per_s=high.exp_per_s,
        weight_store=weights,
        sram=sram,
        memory=memory,
        static_w=0.0 * low.static_w,
        tdp_w=high.tdp_w - low.static_w,
        slack=high.slack,
    )


def _hardwired_floor(chip: Chip) -> Chip:
    """The same chip with all work done in no time: what is left is the fixed time of its layers."""
    empty = {
        name: replace(getattr(chip, name), s_per_byte=0.0 * getattr(chip, name).s_per_byte)
        for name in ("weight_store", "sram", "memory", "scale_up", "scale_out")
    }
    endless = 1e30
    peak = jax.tree.map(lambda x: 0.0 * x + endless, chip.peak_flop_per_s)
    return replace(chip, peak_flop_per_s=peak, exp_per_s=0.0 * chip.exp_per_s + endless, **empty)


def _without_layer_time(chip: Chip) -> Chip:
    system = chip.kernels.system
    free = replace(system, layer_s=0.0 * system.layer_s, layer_token_s=0.0 * system.layer_token_s)
    return replace(chip, kernels=replace(chip.kernels, system=free))


def _performances(chip: Chip, case: Case, layout: Any, hardwired: bool) -> list[Performance]:
    """Of the best chip. Where a layer's fixed time hides its computing the sum is not monotone: two bounds, of which the larger holds."""
    chips = [_without_layer_time(chip), _hardwired_floor(chip)] if hardwired else [chip]
    return [performance(c, case.model, case.workload, layout) for c in chips]


def _closed_loop(weight: Number, fastest_s: Number, work_s: Number, prefill_s: Number) -> Number:
    """Least of ``weight u + prefill / (1 - min(work / u, busiest))`` over times per token u from ``fastest_s`` on."""

    def at(u: Number) -> Number:
        return weight * u + prefill_s / (1.0 - jnp.minimum(work_s / u, BUSIEST))

    turning = work_s + jnp.sqrt(prefill_s * work_s / weight)
    return jnp.minimum(at(fastest_s), at(jnp.maximum(fastest_s, turning)))


def _largest(values: Sequence[Number]) -> Number:
    result = values[0]
    for value in values[1:]:
        result = jnp.maximum(result, value)
    return result


def _case_bound(
    low: Chip, high: Chip, static_w: Number, problem: Problem, limit_s: Number, layout: Any, most: Number, hardwired: bool
) -> Number:
    """Least cost [USD per million output tokens] of an enclosed chip in a layout; infinite where a limit is surely broken.

    The layout has the smallest batch of the box: times, energies and caches only grow with it. ``most`` is the largest one.
    """
    case, prices = problem.case, problem.case.prices[problem.scenario]
    found = _performances(best_chip(low, high), case, layout, hardwired)
    p, s = found[0], low.kernels.system
    rank, tokens = cut.ranks(layout), case.workload.output_tokens
    share = _largest([f.time.prefill for f in found])
    decode = _largest([f.tpot_s - f.time.prefill for f in found])
    tpot, prefill = decode + share, _largest([f.prefill_time.total for f in found])
    joule = p.mean_w * p.chips * p.tpot_s  # of a token of every request; the best chip has no static power
    steps = s.pickup_steps + s.waiting * tokens / most  # before the first token, the wait for a place included
    each = steps + jnp.maximum(tokens - 1.0, 0.0)
    fixed = s.first_token_s + s.queue * (rank - 1.0) / 2.0 * prefill
    work = share / s.interference
    waited = fixed + _closed_loop(each, tpot, work, prefill)
    ttft = fixed + _closed_loop(steps, tpot, work, prefill)
    idle = total_cost(money(low, prices, replace(p, mean_w=static_w)))
    busy = total_cost(money(low, prices, replace(p, mean_w=static_w + joule / p.chips))) - idle
    usd = (idle * waited + busy * (each + (fixed + prefill) / limit_s)) / (most * tokens)
    slacks = [getattr(high.slack, f.name) for f in fields(Slacks)] + [p.slack.memory, p.slack.divisibility]
    broken = (tpot > limit_s * (1.0 + SLACK)) | (ttft > case.ttft_limit_s * (1.0 + SLACK))
    for slack in slacks:
        broken = broken | (slack < SLACK_TOLERANCE - SLACK)
    per_million = 1e6
    bound = usd * per_million * (1.0 - SLACK)
    return jnp.where(broken, jnp.inf, jnp.where(bound >= 0.0, bound, 0.0))


def _stacked(items: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *xs: jnp.asarray(np.array(xs, float)), *items)


def chip_of(problem: Problem, low: Number, high: Number) -> Chip:
    """Enclosure of the chips of boxes ``(n, d)``: a ``Chip`` whose leaves are intervals; choices are points."""
    shop = problem.shop
    columns: dict[str, Any] = {}
    for i, variable in enumerate(shop.space.variables):
        a, b = low[:, i], high[:, i]
        columns[variable.name] = a if variable.kind == "choice" else Interval(a, b)
    node = jnp.round(columns["node"]).astype(int)
    process = jax.tree.map(lambda x: x[node], _stacked(shop.processes))
    family = FAMILIES[shop.family]
    with contextlib.ExitStack() as stack:
        own = sys.modules[family.build.__module__]
        arrays = ((own, ARRAY),) if hasattr(own, "array") else ()
        for module, directions in (*WHOLE, (own, FLOOR_PLAN), *arrays):
            stack.enter_context(kept_whole(module, directions))
        return enclose(lambda v, p: family.build(v, p, shop.technology, shop.constants).chip, columns, process)


_last: dict[tuple[Any, ...], tuple[Problem, Callable]] = {}  # the function compiled last: limits share it


def _compiled(problem: Problem) -> Callable:
    """The bound as a jitted function of boxes and of the limit on time per token."""
    shop, grid = problem.shop, problem.grid  # ranges of variables and ways of cutting the model come with the boxes
    kinds = tuple((v.name, v.kind == "choice") for v in shop.space.variables)
    built = (shop.family, kinds, id(shop.processes), id(shop.technology), id(shop.constants))
    key = (*built, id(problem.case), problem.scenario, tuple(grid.formats), tuple(grid.batches))
    if key not in _last:
        _last.clear()
        _last[key] = (problem, _traced(problem))
    return _last[key][1]


def _traced(problem: Problem) -> Callable:
    kernels = problem.shop.constants.kernels
    if kernels is None:
        raise NotImplementedError(f"{problem.shop.family}: no kernel constants")
    system = kernels.system
    if not float(system.interference) > 0.0 or not 0.0 <= float(system.overlap) <= 1.0:
        raise NotImplementedError(f"{problem.shop.family}: no bound for these constants of serving")
    hot = _stacked([as_floats(named_format(f)) for f in problem.grid.formats])
    mixture, hardwired = is_mixture(problem.case.model), float(problem.shop.constants.layer_pipelined) > 0.0
    case = replace(problem.case, model=cut.trimmed(problem.case.model))
    solved = replace(problem, case=case)
    batches = np.asarray(problem.grid.batches, float)

    @jax.jit
    def call(low, high, rows, formats, limit_s):
        chip = chip_of(problem, low, high)
        least, most = (jnp.asarray(batches)[jnp.round(x[:, -1]).astype(int)] for x in (low, high))
        pick = [jax.tree.map(lambda x, side=side: jnp.asarray(x[side], float), chip, is_leaf=is_interval) for side in (0, 1)]
        layout = replace(_layout(rows, mixture), batch=least, format=jax.tree.map(lambda x: x[formats], hot))
        return _case_bound(pick[0], pick[1], pick[0].static_w, solved, limit_s, layout, most, hardwired)

    return call


def bounder(problem: Problem) -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """The bound as a function of boxes: low and high ``(n, d + 1)``, layout rows ``(n, 5)``, formats (positions, ``(n,)``) to USD ``(n,)``.

    A box of one point gives its cost (a little below it, at most by what the closed loop leaves).

    Raises:
        NotImplementedError: constants for which the bound is not argued.
    """
    call = _compiled(problem)

    def in_chunks(low: np.ndarray, high: np.ndarray, rows: np.ndarray, formats: np.ndarray) -> np.ndarray:
        found = np.empty(len(low))
        for start in range(0, len(low), CHUNK):
            at = np.minimum(np.arange(start, start + CHUNK), len(low) - 1)
            count = min(CHUNK, len(low) - start)
            found[start : start + count] = np.asarray(call(low[at], high[at], rows[at], formats[at], problem.limit_s))[:count]
        return found

    return in_chunks


def _layout(rows: Any, mixture: bool) -> Any:
    shape = to_layout(np.ones((1, 5)), None, mixture)
    tp, pp, dp, ep, batch = rows.T
    return replace(shape, tp=tp, pp=pp, dp=dp if mixture else None, ep=ep if mixture else None, batch=batch)
