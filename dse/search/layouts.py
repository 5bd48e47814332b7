"""Which layout, format and batch is best for each chip? Every one of them is evaluated; the best per latency limit is kept.

Chips lie on one axis ``(n, 1)``, layouts on another ``(1, m)``, so that terms of one axis alone are computed once. A block of chips
meets the layouts in slices of one shape: a compiled call gives times and costs, a second the least of each limit (``kernel``).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse._jax import quickly
from dse.equations import layout as cut
from dse.errors import InfeasibleError, InputError
from dse.evaluate import Metrics, as_floats, evaluate
from dse.search.kernel import F32_TOLERANCE, SLICE, Kernel, alone, kernel_of, reduced
from dse.types import LLM, Chip, Deployment, Layout, Number, Prices, Workload, named_format

LAYERS_PER_STAGE = (1, 2, 3, 4, 5, 8, 10, 16, 20, 27, 40)
KEPT = 2**27  # bytes of what depends on layouts alone, kept for each format and case
WIDTHS = tuple(16 * lines for lines in range(47, 80, 2))  # of slices, odd numbers of cache lines near that of SLICE
WASTE = 0.05  # of the layouts: what a last slice may be filled up with before another width is taken
AHEAD = 3  # slices on their way while the results of an earlier one are read
MARGIN = 1e-5  # single precision keeps this far from a limit, so that the exact evaluation meets it


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
    worth: Mapping[str, float] = field(default_factory=dict)  # of a token by format, as the user states it; 1 where nothing is said

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

    cost: np.ndarray  # USD per million output tokens of the stated worth (1 where none is), inf where nothing is feasible
    layout: np.ndarray  # row of ``layout_table``, -1 where nothing is feasible
    format: np.ndarray  # index of the grid's format
    fastest: np.ndarray  # (chip,) least time per output token of any cost [s], inf where nothing is feasible


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


# --- a block of chips ------------------------------------------------------------------------------------------------------


@quickly
def _needs(model: LLM, workload: Workload, layouts: Layout, held: Number) -> tuple[Number, Number, Number]:
    """Bytes of weights and of cache that a layout needs on a chip, and whether it keeps the rules of division. Shapes (m,)."""
    layouts = cut.planned(layouts, workload)
    weights = cut.weight_byte(model, layouts, layouts.format)  # type: ignore[arg-type]
    kv = cut.all_caches_byte(model, workload, held, layouts, layouts.format)  # type: ignore[arg-type]
    if layouts.offload is not None:
        kv = (1.0 - layouts.offload.share) * kv
    shaped = cut.shape_slack(model, layouts) >= F32_TOLERANCE
    return tuple(jnp.broadcast_to(x, jnp.shape(layouts.batch))[0] for x in (weights, kv, shaped))  # type: ignore[return-value]


def single(tree: Any) -> Any:
    """The same pytree in single precision."""
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)


class Deck:
    """All layouts of a table in one format for one case, smallest need of memory first, cut into slices of one shape.

    What depends on layouts alone is computed once for each slice, and kept (``KEPT`` bytes at most) for the next block of chips. All blocks
    share their numbers and differ in their columns alone (``Memo.renew``).
    """

    def __init__(self, case: Case, table: np.ndarray, fmt: str, held: float, fit: bool = True) -> None:
        self.case, self.table, self.fmt, self.held = case, table, fmt, held
        self.mixture = is_mixture(case.model)
        self.model, self.workload, self.prices = (single(x) for x in (cut.trimmed(case.model), case.workload, case.prices))
        parts = [self._layouts(np.minimum(np.arange(a, a + SLICE), len(table) - 1)) for a in range(0, len(table), SLICE)]
        needs = [_needs(self.model, self.workload, part, np.float32(held)) for part in parts]
        weights, kv, shaped = (np.concatenate([np.asarray(x[i]) for x in needs])[: len(table)] for i in range(3))
        rows = np.flatnonzero(shaped)
        self.rows = rows[np.argsort((weights + kv)[rows], kind="stable")]
        self.weights, self.kv = weights[self.rows], kv[self.rows]
        self.width = width(len(self.rows)) if fit else SLICE
        self._fronts: dict[int, jax.Array] = {}
        self._kernel: Kernel | None = None
        self._shared: list[Any] = []  # the kernel's arguments; None where the chips differ
        self._columns: list[int] = []  # which those are

    def _layouts(self, rows: np.ndarray) -> Layout:
        return to_layout(self.table[rows], self.fmt, self.mixture, axis=1, dtype=np.float32)

    def fitting(self, chips: Chip) -> np.ndarray:
        """Which layouts the roomiest chip of a block could hold: weights and cache against its stores."""
        stores = chips.sram.capacity_byte, chips.memory.capacity_byte, chips.weight_store.capacity_byte, chips.kernels.system.reserve_share
        sram, memory, fixed, reserve = single(stores)
        room = (sram + memory) * (1.0 - reserve) * (1.0 - F32_TOLERANCE)
        return (self.kv <= np.max(room)) & (self.weights + self.kv <= np.max(room + fixed))

    def part(self, start: int) -> np.ndarray:
        """Rows of the table in a slice; the last one is filled up with its last row, which changes no minimum."""
        return self.rows[np.minimum(np.arange(start, start + self.width), len(self.rows) - 1)]

    def arguments(self, chips: Chip, start: int) -> tuple[Any, ...]:
        """What ``priced`` takes for a slice."""
        ttft = np.float32(self.case.ttft_limit_s * (1.0 - MARGIN))
        return single(chips), self.model, self.workload, self._layouts(self.part(start)), self.prices, ttft

    def _compiled(self, chips: Chip, n: int) -> Kernel:
        """The kernel of this deck; what all blocks share is put where it computes."""
        if self._kernel is None:
            given = self.arguments(chips, 0)
            self._kernel = kernel_of(given, n)
            self._columns = [i for i, x in enumerate(jax.tree.leaves(chips)) if np.size(x) > 1]
            self._shared = jax.device_put(jax.tree.leaves(given))
        return self._kernel

    def dealt(self, chips: Chip, n: int) -> Iterator[tuple[int, int, Any]]:
        """Every slice that a chip of the block could hold: where it starts, how many of its layouts fit, times and costs (n, m)."""
        fits = self.fitting(chips)
        parts = [(start, int(fits[start : start + self.width].sum())) for start in range(0, len(fits), self.width)]
        parts = [(start, count) for start, count in parts if count]
        if not parts:
            return
        if n == 1:
            for start, count in parts:
                yield start, count, alone(*self.arguments(chips, start))
            return
        kernel = self._compiled(chips, n)
        given, leaves = list(self._shared), jax.tree.leaves(chips)
        for i in self._columns:
            given[i] = np.asarray(leaves[i], np.float32)
        fronts = kernel.chips(given)
        for start, count in parts:
            if start in self._fronts:
                front = self._fronts[start]
            else:
                front = kernel.layouts(jax.tree.leaves(self.arguments(chips, start)))
                if (len(self._fronts) + 1) * front.nbytes <= KEPT:
                    self._fronts[start] = front
            yield start, count, kernel.both(*fronts, front)


class Memo:
    """Decks kept from block to block, as long as what the chips of a family share stays the same.

    ``fit``: slices as wide as suits each table, a function compiled for each width; not for tables of passing interest.
    """

    def __init__(self, fit: bool = True) -> None:
        self.fit = fit
        self._decks: dict[Any, Deck] = {}
        self._leaves: list[Any] = []
        self.n = 0  # chips of a block

    def deck(self, case: Case, table: np.ndarray, fmt: str, chips: Chip) -> Deck:
        """The deck of a case and format."""
        held = float(np.min(single(chips.kernels.system.kv_fill))) * float(np.float32(case.workload.output_tokens))
        key = (id(case), id(table), fmt, held)
        if key not in self._decks:
            self._decks[key] = Deck(case, table, fmt, held, self.fit)
        return self._decks[key]

    def renew(self, chips: Chip) -> int:
        """Forget all decks if these chips share other numbers than those before. Returns how many chips a block has."""
        leaves = jax.tree.leaves(chips)
        if len(leaves) != len(self._leaves) or not all(a is b or _shared(a, b) for a, b in zip(leaves, self._leaves, strict=True)):
            self._decks, self.n = {}, max(np.size(x) for x in leaves)
        self._leaves = leaves
        return self.n


def _shared(a: Any, b: Any) -> bool:
    """Whether two leaves are the same number, or two columns of one length."""
    return np.shape(a) == np.shape(b) and (np.size(a) > 1 or np.asarray(a).tobytes() == np.asarray(b).tobytes())


def width(layouts: int) -> int:
    """Layouts of a slice: ``SLICE``, or near it the width that fills up its last slice best, where ``SLICE`` would waste much of that.

    >>> width(500), width(1000), width(2142), width(19000)
    (1008, 1008, 1072, 1008)
    """

    def wasted(m: int) -> int:
        return -layouts % m

    if layouts < SLICE or wasted(SLICE) <= WASTE * layouts:
        return SLICE
    return min(WIDTHS, key=lambda m: (wasted(m), -m))


def screen(
    chips: Chip,
    case: Case,
    grid: Grid,
    table: np.ndarray,
    limits_s: Sequence[float],
    with_layout: bool = True,
    permitted: np.ndarray | None = None,
    memo: Memo | None = None,
) -> tuple[Best, int]:
    """Best layout of every chip of a block for one case, over all layouts and formats of the grid.

    Args:
        chips: Leaves ``(n, 1)`` or scalars. case: The question. grid: What to enumerate; table: its ``layout_table`` for the model.
        limits_s: Limits on the mean time per output token [s].
        with_layout: False leaves out which layout is best.
        permitted: (n, formats), which chip may use which format of the grid (None: all).
        memo: Kept between blocks of the same case and table, it saves what depends on layouts alone.

    Returns: ``Best`` and the number of evaluations.
    """
    limits = np.asarray(np.asarray(limits_s) * (1.0 - MARGIN), np.float32)
    memo = Memo(fit=False) if memo is None else memo
    n = memo.renew(chips)
    shape = (len(case.prices), len(limits_s), n)
    best = Best(cost=np.full(shape, np.inf), layout=np.full(shape, -1), format=np.full(shape, -1), fastest=np.full(n, np.inf))
    done = 0
    waiting: deque[Any] = deque()
    for f, name in enumerate(grid.formats):
        may = np.ones(n, bool) if permitted is None else permitted[:, f] > 0
        if not may.any() or not len(table):
            continue
        deck = memo.deck(case, table, name, chips)
        for start, fitting, (tpot, costs) in deck.dealt(chips, n):
            waiting.append((tpot, costs, reduced(tpot, costs, limits), deck.part(start), f, may, np.float32(grid.worth.get(name, 1.0))))
            done += n * fitting
            if len(waiting) > AHEAD:
                _take(best, limits, with_layout, *waiting.popleft())
    for item in waiting:
        _take(best, limits, with_layout, *item)
    return best, done


def _take(
    best: Best,
    limits: np.ndarray,
    with_layout: bool,
    tpot: Any,
    costs: Any,
    least: Any,
    rows: np.ndarray,
    f: int,
    may: np.ndarray,
    worth: np.float32,
) -> None:
    """Take from a slice what is cheaper than all before it; which layout that is is looked up for those alone."""
    found = np.where(may, np.asarray(least[0]) / worth, np.inf)
    np.minimum(best.fastest, np.where(may, np.asarray(least[1]), np.inf), out=best.fastest)
    better = found < best.cost
    if with_layout and better.any():
        times = np.asarray(tpot)
        for scenario in np.flatnonzero(better.any(axis=(1, 2))):
            k, c = np.nonzero(better[scenario])
            prices = np.asarray(costs[scenario]) if worth == 1 else np.asarray(costs[scenario]) / worth
            best.layout[scenario, k, c] = rows[_where(prices, times, found[scenario, k, c], limits[k], c)]
        best.format[better] = f
    best.cost[better] = found[better]


def _where(costs: np.ndarray, times: np.ndarray, found: np.ndarray, limits: np.ndarray, chip: np.ndarray) -> np.ndarray:
    """The first layout of a slice that costs what was found for a chip and is within the limit; many limits have one answer."""
    pairs = chip.astype(np.int64) << 32 | found.astype(np.float32).view(np.int32)
    _, first, back = np.unique(pairs, return_index=True, return_inverse=True)
    at = (costs[chip[first]] == found[first, None]).argmax(axis=1)[back]
    slow = np.flatnonzero(times[chip, at] > limits)  # the first layout of this cost is not within this limit, another one is
    if len(slow):
        meets = (times[chip[slow]] <= limits[slow, None]) & (costs[chip[slow]] == found[slow, None])
        at[slow] = meets.argmax(axis=1)
    return at


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
