"""What is one unit more of a limit or a resource worth to a design? Cost, limits and their gradients, and multipliers from them.

At an optimum the gradient of cost is a positive combination of gradients of the active limits. Where a maximum has its edge (a chip just at
its thermal design power), gradients of points around stand for the pieces that meet there. The weights are the multipliers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse._jax import QUICK
from dse.chips import FAMILIES
from dse.equations.silicon import beachfront_m
from dse.evaluate import money, performance, total_cost
from dse.types import LLM, Chip, FamilyConstants, Layout, Number, Prices, Process, Technology, Workload, pytree

# What can be had more of, and its unit. Limits first; then resources, had at no cost in area, power or money.
EXTRAS: dict[str, str] = {
    "tpot": "s", "ttft": "s", "reticle": "mm2", "interposer": "mm2", "beachfront": "m", "power": "W", "heat": "W", "memory": "byte",
    "memory_bandwidth": "byte/s", "sram_bandwidth": "byte/s", "link_bandwidth": "byte/s", "peak": "FLOP/s",
}  # fmt: skip
LIMITS = ("tpot", "ttft", "reticle", "interposer", "beachfront", "heat", "power", "memory", "divisibility")
ACTIVE = 3e-5  # slack below which a limit takes part
WEIGHT = 1e3  # of the sum of the weights of the cost's gradients being one
STEP = 1e-6  # of a difference, of the range of a variable
ROWS = 128  # points at which differences are taken together: those around a bundle of 16 in up to seven variables
DIRECTIONS = 20  # free variables and extras, filled up: one compiled shape for all families
WELL = {"xla_backend_optimization_level": 1}  # six times as fast a call, for thousands of them
FAR = 1e-3  # value over limit below which a limit is out of sight
AT_END = 1e-6  # distance from the end of a range at which a variable counts as held by it


@pytree()
class Slopes:
    """Logarithm of cost (k,), slacks (k, limits) as logarithms of limit over value; their slopes by free variables, then by extras."""

    log_cost: np.ndarray
    slack: np.ndarray
    log_cost_slope: np.ndarray
    slack_slope: np.ndarray


def _eased(technology: Technology, e: dict[str, Number], area_mm2: Number) -> Technology:
    """Technology with wider limits."""
    t, k = technology.power, technology.packaging
    watt = {n: getattr(t, n) + e["power"] for n in ("package_liquid_w", "package_air_w")}
    heat = {n: getattr(t, n) + e["heat"] / area_mm2 for n in ("heat_liquid_w_per_mm2", "heat_air_w_per_mm2", "heat_stacked_w_per_mm2")}
    packaging = replace(
        k,
        reticle_mm2=k.reticle_mm2 + e["reticle"],
        interposer_max_mm2=k.interposer_max_mm2 + e["interposer"],
        wafer_scale_power_w=k.wafer_scale_power_w + e["power"],
    )
    return replace(technology, power=replace(t, **watt, **heat), packaging=packaging)


def _given(chip: Chip, e: dict[str, Number]) -> Chip:
    """A chip with more of some resources."""

    def faster(tree: Any, more: Number) -> Any:
        return replace(tree, s_per_byte=tree.s_per_byte / (1.0 + more * tree.s_per_byte))

    grown = 1.0 + e["peak"] / chip.peak_flop_per_s.bf16
    return replace(
        chip,
        memory=faster(chip.memory, e["memory_bandwidth"]),
        sram=faster(chip.sram, e["sram_bandwidth"]),
        scale_up=faster(chip.scale_up, e["link_bandwidth"]),
        peak_flop_per_s=jax.tree.map(lambda x: x * grown, chip.peak_flop_per_s),
    )


@pytree()
class Built:
    """What a family's build says: the chip, its die edge for memory (m) and its power limit (W), and what limits are eased by."""

    chip: Chip
    edge_m: Number
    limit_w: Number
    extra: dict[str, Number]


def _limit_w(values: Mapping[str, Number], technology: Technology, wafer: Number) -> Number:
    p, liquid = technology.power, values["cooling"]
    watt = liquid * p.package_liquid_w + (1 - liquid) * p.package_air_w
    return (1 - wafer) * watt + wafer * technology.packaging.wafer_scale_power_w


def built_at(
    family: str, ranges: Any, u: Number, extra: Number, fixed: Mapping[str, Number], process: Process, technology: Technology,
    constants: FamilyConstants, area_mm2: Number,
) -> Built:  # fmt: skip
    """The chip at a point of the cube of free variables."""
    e = dict(zip(EXTRAS, extra, strict=True))
    values = dict(fixed)
    for x, (name, low, high, log) in zip(u, ranges, strict=True):
        values[name] = low * (high / low) ** x if log else low + x * (high - low)
    eased = _eased(technology, e, area_mm2)
    built = FAMILIES[family].build(values, process, eased, constants)
    dies = values["dies"]
    edge = beachfront_m(sum(built.area_mm2.values()) / dies, dies, technology.packaging.aspect)
    wafer = jnp.clip(built.chip.system_usd, 0.0, 1.0)
    return Built(chip=_given(built.chip, e), edge_m=edge, limit_w=_limit_w(values, eased, wafer), extra=e)


def cost_and_slacks(b: Built, model: LLM, workload: Workload, layout: Layout, prices: Prices, tpot_s: Number, ttft_s: Number) -> Number:
    """Logarithm of cost, then every slack in the order of ``LIMITS``."""
    chip, e = b.chip, b.extra
    p = performance(chip, model, workload, layout)
    cost = total_cost(money(chip, prices, p)) / p.output_token_per_s * 1e6
    power = (b.limit_w - chip.tdp_w) / b.limit_w
    # the package's slack is the smaller one of area and power: where it is that of power, the other is out of the way
    interposer = jnp.where(chip.slack.package < power - 1e-12, chip.slack.package, 1.0)
    slack = (
        (tpot_s + e["tpot"] - p.tpot_s) / tpot_s,
        (ttft_s + e["ttft"] - p.ttft_s) / ttft_s,
        chip.slack.reticle,
        interposer,
        chip.slack.beachfront + e["beachfront"] / b.edge_m,
        chip.slack.heat,
        power,
        p.slack.memory + e["memory"] / p.memory.capacity,
        p.slack.divisibility,
    )
    # logarithm of limit over value: the same sign and slope at the limit, straighter
    return jnp.stack([jnp.log(cost), *(-jnp.log(jnp.maximum(1.0 - jnp.broadcast_to(x, ()), FAR)) for x in slack)])


def _all_floats(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, float), tree)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def _chips(family: str, ranges: Any, points: Any, extra: Any, *rest: Any) -> Any:
    """Chips at points, and how they change along each direction: leaves ``(k,)`` and ``(k, DIRECTIONS)``."""
    d, e = len(ranges), len(EXTRAS)
    directions = np.zeros((DIRECTIONS, d + e))
    directions[:d, :d], directions[DIRECTIONS - e :, d:] = np.eye(d), np.eye(e)

    def one(u):
        def build(x):
            return _all_floats(built_at(family, ranges, x[:d], x[d:], *rest))

        x = jnp.concatenate([u, extra])
        return build(x), jax.vmap(lambda v: jax.jvp(build, (x,), (v,))[1])(directions)

    return jax.vmap(one)(points)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def _plain_chips(family: str, ranges: Any, points: Any, extra: Any, *rest: Any) -> Any:
    """Chips at points alone."""
    return jax.vmap(lambda u: _all_floats(built_at(family, ranges, u, extra, *rest)))(points)


@functools.partial(jax.jit, compiler_options=QUICK)
def _plain_scores(built: Any, *rest: Any) -> Any:
    return jax.vmap(lambda b: cost_and_slacks(b, *rest))(built)


def _score(built: Any, changes: Any, *rest: Any) -> Any:
    """Cost and slacks of chips and their changes along each direction; the same compiled function for every family."""

    def one(b, change):
        def f(x):
            return cost_and_slacks(x, *rest)

        return f(b), jax.vmap(lambda v: jax.jvp(f, (b,), (v,))[1])(change)

    return jax.vmap(one)(built, changes)


_scores, _scores_well = (jax.jit(_score, compiler_options=options) for options in (QUICK, WELL))


def assess(
    family: str,
    ranges: Any,
    points: np.ndarray,
    extra: np.ndarray,
    design: Sequence[Any],
    question: Sequence[Any],
    many: bool = False,
) -> Slopes:
    """Cost, slacks and slopes at points ``(k, free)``.

    Args:
        design: Fixed variables, process, technology, constants, and the area over which further heat is spread [mm2].
        question: Model, workload, layout, prices, limits on time per token and to the first token [s].
        many: Whether so much will be asked that a longer compilation pays.
    """
    built, changes = _chips(family, ranges, points, extra, *design)
    value, slope = (np.asarray(x) for x in (_scores_well if many else _scores)(built, changes, *question))
    slope = np.moveaxis(slope, 1, 2)
    kept = [*range(len(ranges)), *range(DIRECTIONS - len(EXTRAS), DIRECTIONS)]
    return Slopes(log_cost=value[:, 0], slack=value[:, 1:], log_cost_slope=slope[:, 0][..., kept], slack_slope=slope[:, 1:][..., kept])


def measure(family: str, ranges: Any, points: np.ndarray, extra: np.ndarray, design: Sequence[Any], question: Sequence[Any]) -> np.ndarray:
    """Logarithm of cost, then every slack, at points ``(k, free)``: a tenth of the work of ``assess``."""
    return np.asarray(_plain_scores(_plain_chips(family, ranges, points, extra, *design), *question))


def filled(points: np.ndarray) -> np.ndarray:
    """Points with the last one repeated to a multiple of ``ROWS``: one compiled shape for all families."""
    return np.concatenate([points, np.repeat(points[-1:], -len(points) % ROWS, axis=0)])


def differenced(family: str, ranges: Any, points: np.ndarray, extra: np.ndarray, design: Sequence[Any], question: Sequence[Any]) -> Slopes:
    """What ``assess`` says, of the free variables alone, by differences of ``measure``: as fast, less exact, and compiled in a tenth of
    the time."""
    k, d = points.shape
    step = np.where(points > 1 / 2, -STEP, STEP)  # into the cube
    moved = points[None] + step[None] * np.eye(d)[:, None, :]
    found = measure(family, ranges, filled(np.concatenate([points[None], moved]).reshape(-1, d)), extra, design, question)
    found = found[: (d + 1) * k].reshape(d + 1, k, -1)
    slope = np.moveaxis((found[1:] - found[0]) / step.T[:, :, None], 0, -1)
    return Slopes(log_cost=found[0, :, 0], slack=found[0, :, 1:], log_cost_slope=slope[:, 0], slack_slope=slope[:, 1:])


@dataclass(frozen=True)
class Weights:
    """How gradients of cost and limits cancel at an optimum: weights of the points' cost gradients, of active limits, of ends of ranges."""

    cost: np.ndarray  # (k,), sum 1
    limits: np.ndarray  # (k, active)
    ends: np.ndarray  # of ``low``, then of ``high``
    active: np.ndarray  # positions among LIMITS
    low: np.ndarray  # variables at the low end of their range
    high: np.ndarray
    residual: float  # of the conditions of optimality, relative to cost over the whole range of a variable

    def slope(self, cost: np.ndarray, slack: np.ndarray) -> np.ndarray:
        """d ln (optimal cost) / d x by the envelope theorem, of slopes by x with the design held: (k, ...) and (k, limits, ...)."""
        return np.tensordot(self.cost, cost, 1) - np.tensordot(self.limits, slack[:, self.active], 2)


def weights(s: Slopes, at: np.ndarray) -> Weights:
    """Weights from gradients at a point of the cube (the first) and around it."""
    from scipy.optimize import nnls

    d, k = len(at), len(s.log_cost)
    active = np.flatnonzero(s.slack[0] < ACTIVE)
    low, high = np.flatnonzero(at <= AT_END), np.flatnonzero(at >= 1 - AT_END)
    cost_columns = s.log_cost_slope[:, :d].T
    limit_columns = -s.slack_slope[:, active, :d].reshape(k * len(active), d).T
    ends = np.concatenate([-np.eye(d)[:, low], np.eye(d)[:, high]], axis=1)
    matrix = np.concatenate([cost_columns, limit_columns, ends], axis=1)
    matrix = np.concatenate([matrix, WEIGHT * np.r_[np.ones(k), np.zeros(matrix.shape[1] - k)][None]])
    found, _ = nnls(matrix, np.r_[np.zeros(d), WEIGHT], maxiter=50 * matrix.shape[1])
    a, b, mu = found[:k], found[k : k + k * len(active)].reshape(k, len(active)), found[k + k * len(active) :]
    return Weights(a, b, mu, active, low, high, float(np.abs((matrix @ found)[:d]).max()))


def shadow_prices(
    s: Slopes, at: np.ndarray, ranges: Sequence[tuple[str, float, float, bool]], cost: float
) -> tuple[dict[str, float], dict[str, float], float]:
    """Multipliers from gradients at a point (the first) and around it.

    Args:
        s: Slopes at the bundle. at: The point, in the cube. ranges: Of the free variables. cost: There [USD/Mtoken].

    Returns: What one unit more of each of ``EXTRAS`` saves; what one unit more of a variable's range saves; residual of optimality.
    """
    w = weights(s, at)
    slope = w.slope(s.log_cost_slope[:, len(at) :], s.slack_slope[:, :, len(at) :])
    prices = {name: float(-cost * x) + 0.0 for name, x in zip(EXTRAS, slope, strict=True)}
    box = {}
    for j, m in zip([*w.low, *w.high], w.ends, strict=True):
        name, lo, hi, log = ranges[j]
        unit = (hi if j in w.high else lo) * np.log(hi / lo) if log else hi - lo
        box[name] = float(cost * m / unit) * (1.0 if j in w.high else -1.0) + 0.0
    return prices, box, w.residual
