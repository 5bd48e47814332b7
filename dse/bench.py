"""How fast is the model on this machine? Full evaluations a second, NumPy on the same text, the machine's limit, and a warm start.

One evaluation is prefill, decode and money of one chip, layout and case. ``evaluations_per_s`` counts chips x layouts, the best of each of
ten limits kept with its layout; the limit is what XLA's own count of operations would take at the measured peaks. All rates are the best of
short repeats; the median of those of the screening is given too.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse.catalog import Catalog, load_catalog
from dse.equations import layout as cut
from dse.evaluate import as_floats
from dse.questions import shop_of
from dse.search.deck import Memo, single
from dse.search.designs import build_block, column
from dse.search.grid import Case, Grid, is_mixture, layout_table, to_layout
from dse.search.kernel import SLICE, compiled, kernel_of, priced
from dse.search.layouts import screen
from dse.types import Chip

MODELS = ("llama-3-70b", "deepseek-r1")
LIMITS_S = (0.1, 0.05, 0.03, 0.02, 0.015, 0.01, 0.005, 0.003, 0.002, 0.001)
CHIPS = 64  # of a block
FLAT = 2**14  # configurations of a flat batch: they stay in the cache
REPEATS = 20  # of a measurement, most
AT_LEAST = 3  # whatever one takes
PEAK_CHAINS, PEAK_STEPS = 8, 64  # independent chains of multiply-adds, and links of each


@dataclass(frozen=True)
class Setting:
    """What is screened: a block of random chips of a family, one case, and all layouts in one format."""

    chips: Chip
    case: Case
    grid: Grid
    table: np.ndarray


def setting(catalog: Catalog, model: str, family: str = "hbm_gpu", fmt: str = "fp8", seed: int = 0, chips: int = CHIPS) -> Setting:
    """Random chips of a family, a model in chat, and the default grid of layouts."""
    shop = shop_of(family, {}, catalog)
    values = shop.space.decode(np.random.default_rng(seed).random((chips, shop.space.dimension)))
    workload, prices = as_floats(catalog.workloads["chat"]), (as_floats(catalog.prices["owner-2026"]),)
    case = Case(model, "chat", as_floats(catalog.models[model]), workload, np.inf, prices)
    grid = Grid(formats=(fmt,))
    return Setting(column(build_block(shop, values).chip, chips), case, grid, layout_table(case.model, grid))


def rates(count: Callable[[], float], seconds: float, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """What is counted, per second, in repeats of a twentieth of ``seconds`` each, or of one call."""
    count()
    found: list[float] = []
    begin = clock()
    while len(found) < AT_LEAST or clock() - begin < seconds:
        start, done = clock(), 0.0
        while clock() - start < seconds / REPEATS:
            done += count()
        found.append(done / (clock() - start))
    return found


def rate(count: Callable[[], float], seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """The best of these repeats: whatever else a machine does makes them slower, never faster."""
    return max(rates(count, seconds, clock))


def screening(s: Setting, with_layout: bool = True) -> Callable[[], float]:
    """Screens the block; counts evaluations."""
    memo = Memo()
    return lambda: float(screen(s.chips, s.case, s.grid, s.table, LIMITS_S, with_layout, memo=memo)[1])


def arguments(s: Setting, rows: np.ndarray, axis: int | None = 1) -> tuple[Any, ...]:
    """What the model takes for some layouts, in single precision."""
    model = single(cut.trimmed(s.case.model))
    layouts = to_layout(s.table[rows], s.grid.formats[0], is_mixture(s.case.model), axis=axis, dtype=np.float32)
    return single(s.chips), model, single(s.case.workload), layouts, single(s.case.prices), np.float32(np.inf)


def flat(s: Setting) -> Callable[[], float]:
    """One chip and layout at a time, nothing shared between them."""
    rng = np.random.default_rng(1)
    chips, *rest = arguments(s, rng.integers(len(s.table), size=FLAT), axis=None)
    who = rng.integers(CHIPS, size=FLAT)
    each = jax.tree.map(lambda x: x[who, 0] if np.size(x) > 1 else x, chips)
    inputs, run = jax.device_put((each, *rest)), compiled(priced)

    def once() -> float:
        jax.block_until_ready(run(*inputs))
        return FLAT

    return once


def plain_numpy(s: Setting) -> Callable[[], float]:
    """The same text on the same block and slice, every operation done by NumPy, with NumPy's broadcasting."""
    leaves, tree = jax.tree.flatten(arguments(s, np.arange(SLICE) % len(s.table)))
    closed = jax.make_jaxpr(lambda *xs: priced(*jax.tree.unflatten(tree, xs)))(*leaves)

    def once() -> float:
        with np.errstate(all="ignore"):
            by_numpy(closed.jaxpr, closed.consts, leaves)
        return CHIPS * SLICE

    return once


NUMPY: dict[str, Callable] = {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "max": np.maximum,
    "min": np.minimum, "pow": np.power, "square": np.square, "abs": np.abs, "exp": np.exp, "log": np.log, "log1p": np.log1p,
    "expm1": np.expm1, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "sign": np.sign, "tanh": np.tanh, "lt": np.less,
    "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal, "and": np.logical_and,
    "or": np.logical_or, "not": np.logical_not,
}  # fmt: skip


def by_numpy(jaxpr: Any, constants: Iterable[Any], inputs: Iterable[Any]) -> list[Any]:
    """Results of a jaxpr, operation by operation in NumPy."""
    known = dict(zip(jaxpr.constvars, constants, strict=True)) | dict(zip(jaxpr.invars, inputs, strict=True))
    for e in jaxpr.eqns:
        name, xs = e.primitive.name, [v.val if hasattr(v, "val") else known[v] for v in e.invars]
        inner = e.params.get("jaxpr") or e.params.get("call_jaxpr") or e.params.get("fun_jaxpr")
        if inner is not None:
            known.update(zip(e.outvars, by_numpy(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), xs), strict=True))
            continue
        (out,) = e.outvars
        if name in NUMPY:
            known[out] = NUMPY[name](*xs)
        elif name == "integer_pow":
            known[out] = xs[0] ** e.params["y"]
        elif name == "select_n":
            known[out] = np.where(xs[0], xs[2], xs[1])
        elif name == "clamp":
            known[out] = np.minimum(np.maximum(xs[1], xs[0]), xs[2])
        elif name == "convert_element_type":
            known[out] = np.asarray(xs[0]).astype(e.params["new_dtype"])
        elif name in ("broadcast_in_dim", "stop_gradient", "copy"):
            known[out] = xs[0]  # axes of one element broadcast by themselves
        else:
            raise NotImplementedError(f"{name}: no rule for NumPy")
    return [v.val if hasattr(v, "val") else known[v] for v in jaxpr.outvars]


def operations(s: Setting) -> tuple[float, float]:
    """Floating-point operations, and square roots and the like, that XLA counts in one evaluation."""
    given = arguments(s, np.arange(SLICE) % len(s.table))
    kernel, leaves = kernel_of(given, CHIPS), jax.tree.leaves(given)
    counted = kernel.both.lower(*kernel.chips(leaves), kernel.layouts(leaves)).compile().cost_analysis()  # type: ignore[attr-defined]
    return counted["flops"] / (CHIPS * SLICE), counted["transcendentals"] / (CHIPS * SLICE)


def peaks(seconds: float, clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """Most multiply-add FLOP and square roots a second that a compiled loop in the cache reaches here, single precision."""
    x = jnp.linspace(0.5, 1.0, FLAT, dtype=jnp.float32)

    def multiply_adds(v: Any) -> Any:
        chains = [v + np.float32(i) for i in range(PEAK_CHAINS)]
        for _ in range(PEAK_STEPS):
            chains = [c * v + v for c in chains]
        return functools.reduce(jnp.add, chains)

    def roots(v: Any) -> Any:
        chains = [v + np.float32(i) for i in range(PEAK_CHAINS)]
        for _ in range(PEAK_STEPS // PEAK_CHAINS):
            chains = [jnp.sqrt(c) for c in chains]
        return functools.reduce(jnp.add, chains)

    def counted(function: Callable, each: float) -> Callable[[], float]:
        run = compiled(function)

        def once() -> float:
            jax.block_until_ready(run(x))
            return each * FLAT

        return once

    flop = 2.0 * PEAK_CHAINS * PEAK_STEPS
    return rate(counted(multiply_adds, flop), seconds, clock), rate(counted(roots, PEAK_STEPS), seconds, clock)


def warm_start(repeats: int = 3) -> float:
    """Seconds of a whole ``dse eval`` process once its functions are in the compilation cache."""
    command = [sys.executable, "-m", "dse", "eval", "--chip", "nvidia-h100-sxm", "--model", "llama-3-70b", "--isl", "1024"]
    command += ["--osl", "1024", "--batch", "64", "--tp", "8", "--json"]
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def bench(seconds: float = 2.0, process: bool = True) -> dict[str, Any]:
    """All figures of ``dse bench``; ``seconds`` for each, compilation apart. ``process``: time a fresh process too."""
    catalog = load_catalog()
    peak_flop, peak_root = peaks(seconds)
    rows = {}
    for model in MODELS:
        s = setting(catalog, model)
        flop, root = operations(s)
        limit = 1.0 / (flop / peak_flop + root / peak_root)
        repeats = rates(screening(s), seconds)
        reduced = max(repeats)
        few = replace(s, table=s.table[:: max(len(s.table) // SLICE, 1)])
        rows[model] = {
            "evaluations_per_s": reduced,
            "median_evaluations_per_s": median(repeats),
            "flat_evaluations_per_s": rate(flat(s), seconds),
            "numpy_evaluations_per_s": rate(plain_numpy(few), seconds),
            "limit_evaluations_per_s": limit,
            "share_of_limit": reduced / limit,
            "flop_per_evaluation": flop,
            "roots_per_evaluation": root,
            "layouts": len(s.table),
        }
    keys = ("evaluations_per_s", "flat_evaluations_per_s", "numpy_evaluations_per_s", "limit_evaluations_per_s")
    return {
        **{key: min(row[key] for row in rows.values()) for key in keys},  # of the slower model
        "warm_start_s": warm_start() if process else None,
        "peak_flop_per_s": peak_flop,
        "peak_roots_per_s": peak_root,
        "models": rows,
        "limits": len(LIMITS_S),
        "chips": CHIPS,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__, "numpy": np.__version__, "python": sys.version.split()[0]},
    }
