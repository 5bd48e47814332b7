"""Which layout, format and batch is best for each chip? Every one of them is evaluated; the best per latency limit is kept.

Chips lie on one axis ``(n, 1)``, layouts on another ``(1, m)``, so that terms of one axis alone are computed once. A block of chips
meets the layouts in slices of one shape; a first jitted call gives times and costs, a second the best of each limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse.equations import layout as cut
from dse.errors import InfeasibleError, InputError
from dse.evaluate import Metrics, as_floats, evaluate, money, performance, total_cost, worst_slack
from dse.types import LLM, Chip, Deployment, Layout, Prices, Workload, named_format

LAYERS_PER_STAGE = (1, 2, 3, 4, 5, 8, 10, 16, 20, 27, 40)
SLICE = 1024  # layouts in one call: with 128 chips the arrays of a slice stay in the cache
MARGIN = 1e-5  # single precision keeps this far from a limit, so that the exact evaluation meets it
F32_TOLERANCE = -1e-6  # slack that a single-precision screening still takes for met; the final evaluation is exact


@dataclass(frozen=True)
class Grid:
    """Degrees, batches and formats to enumerate. Batches grow by half octaves; pipelines cut a model into whole layers a stage."""

    tp: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)
    dp: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128)
    batches: Sequence[float] = tuple(sorted({round(2 ** (k / 2)) for k in range(27)}))
    pp: Sequence[int] | None = None  # None: so many stages that each holds 1, 2, 3, ... whole layers
    ep: Sequence[str] = ("none", "full")
    formats: Sequence[str] = ("bf16", "fp8", "nvfp4")
    max_chips: float = 4096.0

    def thinned(self) -> Grid:
        """A coarser grid to search chips with: every second batch, tensor parallelism up to half of the widest."""
        tp = [t for t in self.tp if 2 * t <= max(self.tp)] or self.tp
        return replace(self, batches=tuple(self.batches[::2]), tp=tuple(tp))


@dataclass(frozen=True)
class Case:
    """One question put to every chip: a model, a workload, its limit on the time to first token, and owners' prices."""

    model_id: str
    workload_id: str
    model: LLM
    workload: Workload
    ttft_limit_s: float
    prices: tuple[Prices, ...]


@dataclass(frozen=True)
class Best:
    """Best layouts of a block of chips: arrays over (scenario, limit, chip)."""

    cost: np.ndarray  # USD per million output tokens, inf where nothing is feasible
    layout: np.ndarray  # row of ``layout_table``, -1 where nothing is feasible
    format: np.ndarray  # index of the grid's format


def layout_table(model: LLM, grid: Grid) -> np.ndarray:
    """All layouts of a grid for a model as rows (tp, pp, dp, ep, batch); attention ranks and expert parallelism for mixtures only.

    Expert parallelism is none or the whole stage. A batch gives every attention rank at least one request.
    """
    depth = int(float(cut.layers(model)))
    whole = {math.ceil(depth / k) for k in LAYERS_PER_STAGE if k < depth}
    stages = sorted({p for p in ({1, *whole} if grid.pp is None else grid.pp) if p <= depth})
    mixture = is_mixture(model)
    experts = max(float(g.ffn.experts or 0.0) for g in model.groups)
    rows = []
    for tp in grid.tp:
        for pp in stages:
            for dp in grid.dp if mixture else (1,):
                stage = tp * dp
                if stage * pp > grid.max_chips:
                    continue
                full = "full" in grid.ep and mixture and stage <= experts
                spreads = ({1} if "none" in grid.ep or not full else set()) | ({stage} if full else set())
                rows += [(tp, pp, dp, ep, b) for ep in sorted(spreads) for b in grid.batches if b >= dp]
    return np.asarray(rows, float)


def is_mixture(model: LLM) -> bool:
    """Whether a model has routed experts."""
    return any(g.ffn.experts is not None and float(g.ffn.experts) > 0 for g in model.groups)


def to_layout(rows: np.ndarray, fmt: str | None, mixture: bool = True, axis: int | None = None, dtype: Any = np.float64) -> Layout:
    """Rows of a layout table as one ``Layout``: leaves ``(m,)``, or ``(1, m)`` with ``axis`` 1. Dense models have no dp and ep."""
    columns = rows.T.astype(dtype)
    if axis == 1:
        columns = columns[:, None, :]
    tp, pp, dp, ep, batch = columns
    if not mixture:
        dp = ep = None
    numbers = None if fmt is None else jax.tree.map(lambda x: np.asarray(x, dtype), named_format(*fmt.split("/")))
    return Layout(tp=tp, pp=pp, cp=None, dp=dp, ep=ep, batch=batch, format=numbers)


# --- one slice -----------------------------------------------------------------------------------------------------------


@jax.jit
def _could_fit(chips: Chip, model: LLM, workload: Workload, layouts: Layout) -> jax.Array:
    """Which layouts any chip of the block could hold: weights alone against the stores, and the rules of division. Shape (m,)."""
    weights = cut.weight_byte(model, layouts, layouts.format)  # type: ignore[arg-type]
    held = chips.kernels.system.kv_fill * workload.output_tokens
    kv = cut.all_caches_byte(model, workload, held, layouts, layouts.format)  # type: ignore[arg-type]
    general = (chips.sram.capacity_byte + chips.memory.capacity_byte) * (1.0 - chips.kernels.system.reserve_share)
    fits = (kv <= general) & (weights + kv <= general + chips.weight_store.capacity_byte)
    return jnp.any(fits & (cut.shape_slack(model, layouts) >= F32_TOLERANCE), axis=0)


@jax.jit
def _slice(chips: Chip, model: LLM, workload: Workload, layouts: Layout, prices: tuple[Prices, ...], ttft: Any, allowed: Any):
    """Times per token, and cost of every owner (inf where a limit is broken): arrays (n, m)."""
    p = performance(chips, model, workload, layouts)
    ok = (worst_slack(p.slack) >= F32_TOLERANCE) & (p.ttft_s <= ttft) & (allowed > 0.5)
    costs = tuple(jnp.where(ok, total_cost(money(chips, view, p)) / p.output_token_per_s * 1e6, jnp.inf) for view in prices)
    return p.tpot_s, costs


@jax.jit
def _reduce(tpot: jax.Array, costs: tuple[jax.Array, ...], limits: jax.Array):
    """Least cost under every limit: array (scenario, limit, n). A plain minimum is vectorised; an argmin would not be."""
    return jnp.stack([jnp.stack([jnp.min(jnp.where(tpot <= limit, cost, jnp.inf), axis=1) for limit in limits]) for cost in costs])


@jax.jit
def _reduce_with_layout(tpot: jax.Array, costs: tuple[jax.Array, ...], limits: jax.Array):
    """Least cost and its layout under every limit: arrays (scenario, limit, n)."""
    masked = [[jnp.where(tpot <= limit, cost, jnp.inf) for limit in limits] for cost in costs]
    least = jnp.stack([jnp.stack([jnp.min(x, axis=1) for x in row]) for row in masked])
    where = jnp.stack([jnp.stack([jnp.argmin(x, axis=1) for x in row]) for row in masked])
    return least, where


def single(tree: Any) -> Any:
    """The same pytree in single precision."""
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


def screen(
    chips: Chip,
    case: Case,
    grid: Grid,
    table: np.ndarray,
    limits_s: Sequence[float],
    with_layout: bool = True,
    permitted: np.ndarray | None = None,
) -> tuple[Best, int]:
    """Best layout of every chip of a block for one case, over all layouts and formats of the grid.

    Args:
        chips: Leaves ``(n, 1)`` or scalars. case: The question. grid: What to enumerate; table: its ``layout_table`` for the model.
        limits_s: Limits on the mean time per output token [s].
        with_layout: False leaves out which layout is best: twice as fast.
        permitted: (n, formats), which chip may use which format of the grid (None: all).

    Returns: ``Best`` and the number of evaluations.
    """
    mixture = is_mixture(case.model)
    chips32, model, workload, prices = jax.device_put(
        (single(chips), single(cut.trimmed(case.model)), single(case.workload), single(case.prices))
    )
    limits = jnp.asarray(np.asarray(limits_s) * (1.0 - MARGIN), jnp.float32)
    n = max(np.size(x) for x in jax.tree.leaves(chips))
    shape = (len(case.prices), len(limits_s), n)
    best = Best(cost=np.full(shape, np.inf), layout=np.full(shape, -1), format=np.full(shape, -1))
    done = 0
    for f, name in enumerate(grid.formats):
        may = np.ones(n) if permitted is None else permitted[:, f]
        if not may.any():
            continue
        fits = np.asarray(_could_fit(chips32, model, workload, to_layout(table, name, mixture, axis=1, dtype=np.float32)))
        rows = np.flatnonzero(fits)
        for start in range(0, len(rows), SLICE):
            part = rows[start : start + SLICE]
            padded = np.concatenate([part, np.repeat(part[-1:], SLICE - len(part))])
            real = np.arange(SLICE) < len(part)
            allowed = (real[None, :] * may[:, None]).astype(np.float32)
            layouts = to_layout(table[padded], name, mixture, axis=1, dtype=np.float32)
            tpot, costs = _slice(chips32, model, workload, layouts, prices, np.float32(case.ttft_limit_s * (1.0 - MARGIN)), allowed)
            if with_layout:
                cost, where = (np.asarray(x) for x in _reduce_with_layout(tpot, costs, limits))
            else:
                cost, where = np.asarray(_reduce(tpot, costs, limits)), None
            better = cost < best.cost
            best.cost[better] = cost[better]
            if where is not None:
                best.layout[better] = padded[where[better]]
                best.format[better] = f
            done += n * len(part)
    return best, done


# --- one chip, exactly -----------------------------------------------------------------------------------------------------


def native_formats(chip: Chip, formats: Sequence[str]) -> tuple[str, ...]:
    """Those formats whose arithmetic the chip has, or that are widened inside the kernel."""
    kept = []
    for name in formats:
        fmt = named_format(name)
        has = sum(float(getattr(fmt.compute, k)) * float(np.max(getattr(chip.computes, k))) for k in ("fp32", "bf16", "fp8", "fp4", "int8"))
        if has > 0 or float(fmt.weight_only) > 0:
            kept.append(name)
    return tuple(kept)


def usual_formats(chip: Chip) -> tuple[str, ...]:
    """Formats that are worth trying on a chip: integers where it computes them or where weights never move."""
    integers = ("int8",) * (float(chip.computes.int8) > 0) + ("int4",) * (float(chip.weight_store.capacity_byte) > 0)
    return (*Grid().formats, *integers)


def best_layouts(
    chip: Chip,
    model: LLM,
    workload: Workload,
    prices: Prices,
    max_tpot: float | None = None,
    max_ttft: float | None = None,
    max_chips: float | None = None,
    grid: Grid | None = None,
) -> tuple[Layout, Metrics]:
    """The cheapest feasible layout of one chip, found by evaluating all of them.

    Args:
        max_tpot, max_ttft: Limits on the means [s]; None: no limit. max_chips: Of an instance.

    Returns: The layout and its metrics (float64).

    Raises:
        InfeasibleError: nothing fits; says which limit excludes every layout and by how much.
    """
    grid = grid or Grid(formats=usual_formats(chip))
    grid = replace(grid, formats=native_formats(chip, grid.formats), max_chips=max_chips or grid.max_chips)
    table = layout_table(model, grid)
    if not len(table):
        raise InputError(f"max_chips — found {max_chips:g}, allowed at least 1")
    case = Case("", "", as_floats(model), as_floats(workload), max_ttft or np.inf, (prices,))
    best, _ = screen(as_floats(chip), case, grid, table, [max_tpot or np.inf])
    if best.layout[0, 0, 0] < 0:
        raise InfeasibleError(why_nothing_fits(chip, case, grid, table, max_tpot or np.inf))
    row, fmt = table[best.layout[0, 0, 0]], grid.formats[best.format[0, 0, 0]]
    tp, pp, dp, ep, batch = (float(x) for x in row)
    layout = Layout(tp=tp, pp=pp, dp=dp, ep=ep, batch=batch, format=fmt)
    return layout, evaluate(Deployment(chip=chip, model=model, workload=workload, layout=layout, prices=prices))


def why_nothing_fits(chip: Chip, case: Case, grid: Grid, table: np.ndarray, max_tpot: float) -> str:
    """Which limit excludes every layout of a chip, and by how much it is missed at best."""
    least = {"tpot_s": np.inf, "ttft_s": np.inf, "memory": -np.inf, "chip": -np.inf}
    for name in grid.formats:
        d = Deployment(
            chip=chip,
            model=case.model,
            workload=case.workload,
            layout=to_layout(table, name, is_mixture(case.model)),
            prices=case.prices[0],
        )
        m = evaluate(d)
        fits, shape = np.asarray(m.slack.memory), np.asarray(m.slack.divisibility)
        least["memory"] = max(least["memory"], float(np.max(np.where(shape >= 0, fits, -np.inf))))
        ok = np.asarray(m.feasible)
        if ok.any():
            least["tpot_s"] = min(least["tpot_s"], float(np.asarray(m.tpot_s)[ok].min()))
            least["ttft_s"] = min(least["ttft_s"], float(np.asarray(m.ttft_s)[ok].min()))
    if least["memory"] < 0:
        return (
            f"memory excludes every layout: the roomiest within {grid.max_chips:g} chips lacks {-least['memory']:.1%} of a chip's capacity"
        )
    missed = []
    if least["tpot_s"] > max_tpot:
        missed.append(f"tpot {max_tpot * 1e3:g} ms excludes every layout: the fastest reaches {least['tpot_s'] * 1e3:.3g} ms")
    if least["ttft_s"] > case.ttft_limit_s:
        missed.append(f"ttft {case.ttft_limit_s:g} s excludes every layout: the fastest reaches {least['ttft_s']:.3g} s")
    if np.isinf(least["tpot_s"]):
        missed.append("a limit of the chip itself (reticle, beachfront, heat or package) excludes every layout")
    return "; ".join(missed) or "no single limit excludes every layout, but all of them together do: relax tpot or ttft"
