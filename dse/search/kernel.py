"""What is compiled to screen a block of chips: fronts of chips and of layouts, prices of every pair, and the least under every limit.

Times and costs are those of ``evaluate``'s own functions in single precision, regrouped (``rewrite``). A slice of layouts is sized so that
its rows stay in the cache and, an odd number of cache lines long, do not fall on the same lines of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse._jax import quickly
from dse.evaluate import money, performance, total_cost, worst_slack
from dse.search.rewrite import staged
from dse.types import LLM, Chip, Layout, Number, Prices, Workload

SLICE = 1008  # layouts in one call: 63 cache lines of single precision
F32_TOLERANCE = -1e-6  # slack that a single-precision screening still takes for met; the final evaluation is exact
VECTOR_BITS = 512  # XLA takes 256 by itself; wider ones halve the time where the processor has them and cost nothing where not


def priced(
    chips: Chip, model: LLM, workload: Workload, layouts: Layout, prices: tuple[Prices, ...], ttft: Number
) -> tuple[Number, tuple[Number, ...]]:
    """Times per token, and cost of every owner [USD/Mtoken] (inf where a limit is broken)."""
    p = performance(chips, model, workload, layouts)
    ok = (worst_slack(p.slack) >= F32_TOLERANCE) & (p.ttft_s <= ttft)
    return p.tpot_s, tuple(jnp.where(ok, total_cost(money(chips, view, p)) / p.output_token_per_s * 1e6, jnp.inf) for view in prices)


def least(tpot: Number, costs: tuple[Number, ...], limits: Number) -> tuple[Number, Number]:
    """Least cost under every limit, array (scenario, limit, n), and the fastest token of any cost (n,)."""
    within = tpot[None] <= limits[:, None, None]
    fastest = jnp.min(jnp.where(costs[0] < jnp.inf, tpot, jnp.inf), axis=1)
    return jnp.stack([jnp.min(jnp.where(within, cost[None], jnp.inf), axis=2) for cost in costs]), fastest


def compiled(function: Callable) -> Callable:
    """Jitted, with wide vectors where the processor is the device."""
    options = {"xla_cpu_prefer_vector_width": VECTOR_BITS} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options)


@dataclass(frozen=True)
class Kernel:
    """Compiled functions for one shape of block, slice, model and owners; each takes the leaves of ``priced``'s arguments."""

    chips: Callable[[Sequence[Any]], tuple[jax.Array, jax.Array]]
    layouts: Callable[[Sequence[Any]], jax.Array]
    both: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, tuple[jax.Array, ...]]]  # times, costs: (n, m)


reduced = jax.jit(least)
alone = jax.jit(priced)  # for a single chip


def repeated(model: LLM, first: int) -> tuple[tuple[int, int], ...]:
    """Leaves of later layer groups that equal the first group's, as pairs of positions counted from ``first``.

    Their work is done once. Groups differ in structure where a part is left out (``None``).
    """
    position = {tuple(map(str, path)): (first + i, float(x)) for i, (path, x) in enumerate(jax.tree_util.tree_flatten_with_path(model)[0])}
    found = []
    for path, (i, value) in position.items():
        if len(path) > 2 and path[0] == ".groups":
            earlier = position.get((path[0], "[0]", *path[2:]))
            if earlier is not None and earlier[0] != i and earlier[1] == value:
                found.append((i, earlier[0]))
    return tuple(found)


def kernel_of(arguments: tuple[Any, ...], n: int) -> Kernel:
    """The compiled functions for arguments of ``priced`` (of a first slice); ``n`` chips, more than one."""
    leaves, tree = jax.tree.flatten(arguments)
    first = len(jax.tree.leaves(arguments[0]))
    return _kernel(tree, tuple(np.shape(x) for x in leaves), n, repeated(arguments[1], first))


@functools.lru_cache(maxsize=64)
def _kernel(tree: Any, shapes: tuple[tuple[int, ...], ...], n: int, same: tuple[tuple[int, int], ...]) -> Kernel:
    examples = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(s, np.float32) for s in shapes])
    s = staged(priced, examples, (n, examples[3].batch.shape[1]), dict(same))
    return Kernel(quickly(s.chips), quickly(s.layouts), compiled(s.both))
