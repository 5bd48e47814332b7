"""What can no chip of a box beat? A lower bound on cost for boxes of design variables, each in one layout and format.

The family's own ``build`` is enclosed by intervals. From the enclosure the chip is taken that is best in every field at once: a step gets
no faster and no more frugal when a field worsens, so what ``performance`` says of that chip bounds every chip of the box. Only the closed
loop of serving is not monotone in the decoding time; its minimum over that time is taken in closed form.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import deque
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
from dse.formats import computed_in
from dse.search.designs import Shop
from dse.search.grid import Case, Grid, is_mixture, to_layout
from dse.search.intervals import Interval, enclose, is_interval, kept_whole
from dse.types import SLACK_TOLERANCE, Chip, Number, Slacks, Store, named_format

SLACK = 1e-9  # relative, of every bound and limit: far more than what rounding adds up to
ENDLESS = 1e30  # of a capacity or a power
CHUNK = 4096  # boxes in one call: one compiled shape
AHEAD = 8  # calls on their way while the results of an earlier one are read: every core has work

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


def _unthrottled(chip: Chip) -> Chip:
    return replace(chip, tdp_w=0.0 * chip.tdp_w + ENDLESS)


def _without_layer_time(chip: Chip) -> Chip:
    system = chip.kernels.system
    free = replace(system, layer_s=0.0 * system.layer_s, layer_token_s=0.0 * system.layer_token_s)
    return replace(chip, kernels=replace(chip.kernels, system=free))


def _without_traffic(chip: Chip) -> Chip:
    """The same chip with weights and caches read in no time: computing hides behind the fixed time of a layer, or the other way round."""
    empty = {n: replace(getattr(chip, n), s_per_byte=0.0 * getattr(chip, n).s_per_byte) for n in ("weight_store", "sram", "memory")}
    return replace(_unthrottled(chip), **empty)


def _no_serial_terms(kernels: Any) -> bool:
    """Whether operators without traffic take exactly their time of computing and a constant."""
    gemms = [getattr(kernels.gemm, f.name).serial_s_per_k for f in fields(kernels.gemm)]
    caches = [getattr(kernels, n) for n in ("decode", "decode_fp8", "mla_decode")]
    decode = [x for c in caches for x in (c.head_s, c.latency_s, c.start_s)]
    prefill = [getattr(kernels, n).serial_s_per_token for n in ("prefill", "prefill_fp8", "mla_prefill")]
    return all(float(x) == 0.0 for x in (*gemms, *decode, *prefill))


def _held_in_place(chip: Chip, case: Case, layout: Any) -> Chip:
    """The same chip with weights and caches read as fast as they are in this layout, however large its batch becomes."""
    held = chip.kernels.system.kv_fill * case.workload.output_tokens
    fmt = computed_in(chip, layout.format)
    at = cut.place(chip, cut.weight_byte(case.model, layout, fmt), cut.all_caches_byte(case.model, case.workload, held, layout, fmt))
    none = 0.0 * at.kv_s_per_byte
    endless = ENDLESS + none
    return replace(
        chip,
        weight_store=Store(capacity_byte=endless, s_per_byte=at.weight_s_per_byte, j_per_byte=at.weight_j_per_byte),
        sram=Store(capacity_byte=none, s_per_byte=none, j_per_byte=none),
        memory=Store(capacity_byte=endless, s_per_byte=at.kv_s_per_byte, j_per_byte=at.kv_j_per_byte),
    )


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


@dataclass(frozen=True)
class _Pass:
    """The best chip in a layout: its times, and the energy of a token of every request.

    Where a layer's fixed time hides its computing the sum is not monotone. Then two bounds hold: all operators without the fixed time, or
    computing and fixed time, whichever is longer, and on top of that time what no computing hides (``beside_s``, of a decoding step).
    """

    performances: list[Performance]
    beside_s: Number = 0.0

    @property
    def share_s(self) -> Number:
        return _largest([f.time.prefill for f in self.performances])

    @property
    def tpot_s(self) -> Number:
        first, *more = [f.tpot_s - f.time.prefill for f in self.performances]
        return _largest([first, *(t + self.beside_s for t in more)]) + self.share_s

    @property
    def prefill_s(self) -> Number:
        return _largest([f.prefill_time.total for f in self.performances])

    @property
    def token_j(self) -> Number:
        p = self.performances[0]
        return p.mean_w * p.chips * p.tpot_s  # the best chip has no static power


def _pass(best: Chip, low: Chip, case: Case, layout: Any, hardwired: bool) -> _Pass:
    """``low``: the slowest computing of the box."""
    if not hardwired:
        return _Pass([performance(best, case.model, case.workload, layout)])
    bare = _without_layer_time(best)
    slow = replace(_unthrottled(bare), peak_flop_per_s=low.peak_flop_per_s, exp_per_s=low.exp_per_s)
    chips = (bare, _without_traffic(best), slow)
    whole, hidden, reading = (performance(c, case.model, case.workload, layout) for c in chips)
    # caches are read beside the fixed time as far as computing leaves of it: least of them with the slowest computing
    left = jnp.maximum(hidden.time.overhead - reading.time.overhead, 0.0)
    return _Pass([whole, hidden], jnp.minimum(reading.time.kv, left))


def _grows_no_faster(problem: Problem) -> bool:
    """Whether a step of twice the batch surely takes at most twice as long, the placement of the cache apart.

    Every operator is a constant and a norm of terms that grow no faster than the batch. Not so routed experts under uneven load, and a
    layer whose further tokens take longer than its first.
    """
    family = problem.shop.constants
    assert family.kernels is not None
    system = family.kernels.system
    own = float(family.layer_s) >= float(family.layer_token_s) and float(system.layer_s) >= float(system.layer_token_s)
    return own and not is_mixture(problem.case.model) and 0.0 <= float(system.overlap) <= 1.0


def _case_bound(
    low: Chip, high: Chip, static_w: Number, problem: Problem, limit_s: Number, layout: Any, most: Number, hardwired: bool
) -> Number:
    """Least cost [USD per million output tokens] of an enclosed chip in a layout; infinite where a limit is surely broken.

    The layout has the smallest batch of the box: times, energies and caches only grow with it, and limits are judged there. ``most`` is
    the largest one: time and energy a request only fall with the batch, if bytes stay where they lie with the smallest one.
    """
    case, prices = problem.case, problem.case.prices[problem.scenario]
    best = best_chip(low, high)
    least = many = _pass(best, low, case, layout, hardwired)
    if _grows_no_faster(problem):
        many = _pass(_held_in_place(best, case, layout), low, case, replace(layout, batch=most), hardwired)
    p, s = least.performances[0], low.kernels.system
    rank, tokens = cut.ranks(layout), case.workload.output_tokens
    steps = s.pickup_steps + s.waiting * tokens / most  # before the first token, the wait for a place included
    each = steps + jnp.maximum(tokens - 1.0, 0.0)
    queue = s.queue * (rank - 1.0) / 2.0 * least.prefill_s
    ttft = s.first_token_s + queue + _closed_loop(steps, least.tpot_s, least.share_s / s.interference, least.prefill_s)
    waited = s.first_token_s + queue * most / layout.batch
    waited = waited + _closed_loop(each, many.tpot_s, many.share_s / s.interference, many.prefill_s)
    idle = total_cost(money(low, prices, replace(p, mean_w=static_w)))
    busy = total_cost(money(low, prices, replace(p, mean_w=static_w + many.token_j / p.chips))) - idle
    usd = (idle * waited + busy * (each + (s.first_token_s + queue + least.prefill_s) / limit_s)) / (most * tokens)
    slacks = [getattr(high.slack, f.name) for f in fields(Slacks)] + [p.slack.memory, p.slack.divisibility]
    broken = (least.tpot_s > limit_s * (1.0 + SLACK)) | (ttft > case.ttft_limit_s * (1.0 + SLACK))
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
    mixture, hardwired = is_mixture(problem.case.model), float(problem.shop.constants.layer_pipelined) > 0.0
    if hardwired and not (float(system.overlap) == 0.0 and _no_serial_terms(kernels)):
        raise NotImplementedError(f"{problem.shop.family}: no bound for hardwired layers with overlap or serial terms")
    if not float(system.interference) > 0.0 or not 0.0 <= float(system.overlap) <= 1.0:
        raise NotImplementedError(f"{problem.shop.family}: no bound for these constants of serving")
    hot = _stacked([as_floats(named_format(f)) for f in problem.grid.formats])
    case = replace(problem.case, model=cut.trimmed(problem.case.model))
    solved = replace(problem, case=case)
    batches = np.asarray(problem.grid.batches, float)

    # six passes in one expression: the usual emitters repeat what they share many times over
    apart = {"xla_cpu_use_fusion_emitters": False} if hardwired and jax.default_backend() == "cpu" else None

    @functools.partial(jax.jit, compiler_options=apart)
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
        found, waiting = np.empty(len(low)), deque[tuple[int, jax.Array]]()

        def take() -> None:
            start, values = waiting.popleft()
            count = min(CHUNK, len(low) - start)
            found[start : start + count] = np.asarray(values)[:count]

        for start in range(0, len(low), CHUNK):
            at = np.minimum(np.arange(start, start + CHUNK), len(low) - 1)
            waiting.append((start, call(low[at], high[at], rows[at], formats[at], problem.limit_s)))
            if len(waiting) > AHEAD:
                take()
        while waiting:
            take()
        return found

    return in_chunks


def _layout(rows: Any, mixture: bool) -> Any:
    shape = to_layout(np.ones((1, 5)), None, mixture)
    tp, pp, dp, ep, batch = rows.T
    return replace(shape, tp=tp, pp=pp, dp=dp if mixture else None, ep=ep if mixture else None, batch=batch)
