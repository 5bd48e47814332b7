"""In which slices do the layouts of a table meet a block of chips? What depends on layouts alone is kept from block to block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse._jax import quickly
from dse.equations import layout as cut
from dse.search.grid import Case, is_mixture, to_layout
from dse.search.kernel import F32_TOLERANCE, SLICE, Kernel, alone, kernel_of
from dse.types import LLM, Chip, Layout, Number, Workload

KEPT = 2**27  # bytes of what depends on layouts alone, kept for each format and case
WIDTHS = tuple(16 * lines for lines in range(47, 80, 2))  # of slices, odd numbers of cache lines near that of SLICE
WASTE = 0.05  # of the layouts: what a last slice may be filled up with before another width is taken
MARGIN = 1e-5  # single precision keeps this far from a limit, so that the exact evaluation meets it


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
