"""Which layout, format and batch is best for each chip? Every one of them is evaluated; the best per latency limit is kept.

Chips lie on one axis ``(n, 1)``, layouts on another ``(1, m)``, so that terms of one axis alone are computed once. A block of chips
meets the layouts in slices of one shape: a compiled call gives times and costs, a second the least of each limit (``kernel``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dse.errors import InfeasibleError, InputError
from dse.evaluate import Metrics, as_floats, evaluate
from dse.search.deck import MARGIN, Memo
from dse.search.grid import Case, Grid, is_mixture, layout_table, to_layout
from dse.search.kernel import reduced
from dse.types import LLM, Chip, Deployment, Layout, Prices, Workload, named_format

AHEAD = 3  # slices on their way while the results of an earlier one are read


@dataclass(frozen=True)
class Best:
    """Best layouts of a block of chips: arrays over (scenario, limit, chip)."""

    cost: np.ndarray  # USD per million output tokens of the stated worth (1 where none is), inf where nothing is feasible
    layout: np.ndarray  # row of ``layout_table``, -1 where nothing is feasible
    format: np.ndarray  # index of the grid's format
    fastest: np.ndarray  # (chip,) least time per output token of any cost [s], inf where nothing is feasible


# --- a block of chips ------------------------------------------------------------------------------------------------------


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
