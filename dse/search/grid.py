"""Which layouts are there? Grids of degrees, batches and formats, as tables, and the questions that are put to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from dse.equations import layout as cut
from dse.types import LLM, Layout, Prices, Workload, named_format

LAYERS_PER_STAGE = (1, 2, 3, 4, 5, 8, 10, 16, 20, 27, 40)


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
