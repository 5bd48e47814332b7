"""Does the quick screening say what the model says, in every family, and does the benchmark count what it claims to?"""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import jax
import numpy as np
import pytest

from dse import bench
from dse.catalog import load_catalog
from dse.chips import FAMILIES
from dse.evaluate import as_floats
from dse.questions import shop_of
from dse.search.deck import Memo
from dse.search.designs import alike, build_block, column
from dse.search.grid import Case, Grid, is_mixture, layout_table, to_layout
from dse.search.kernel import priced
from dse.search.layouts import screen
from dse.search.rewrite import staged

N = 24
LOSS = 1e-3  # of the cost, that single precision may lose on a front
APART = 1 - 2e-5  # of a limit: what lies nearer to it the screening may leave out
LIMITS = (0.1, 0.03, 0.01, 0.003)
GRID = Grid(tp=(1, 4, 16, 64), dp=(1, 8), batches=(1, 8, 64, 512), max_chips=2048)
FORMAT = {"burned_in": "int4", "compute_in_memory": "int8"}


@pytest.fixture(scope="module")
def cat():
    return load_catalog()


def block(cat, family, seed=5):
    shop = shop_of(family, {}, cat)
    return column(build_block(shop, shop.space.decode(np.random.default_rng(seed).random((N, shop.space.dimension)))).chip, N)


def case_of(cat, model):
    return Case(model, "chat", as_floats(cat.models[model]), as_floats(cat.workloads["chat"]), 2.0, (as_floats(cat.prices["owner-2026"]),))


EXACT = jax.jit(priced)


@pytest.mark.parametrize("model", ["llama-3-70b", "gpt-oss-120b"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_single_precision_loses_no_design_of_the_front(cat, family, model):
    """Costs of the layouts that the screening picks, in double precision, against the best that double precision finds."""
    case, grid = case_of(cat, model), replace(GRID, formats=(FORMAT.get(family, "fp8"),))
    table, chips, memo = layout_table(case.model, grid), block(cat, family), Memo()
    best, count = screen(chips, case, grid, table, LIMITS, memo=memo)
    again, same = screen(chips, case, grid, table, LIMITS, memo=memo)  # from what was kept of the layouts
    np.testing.assert_array_equal(best.cost, again.cost)
    np.testing.assert_array_equal(best.layout, again.layout)
    assert same == count <= N * len(table)
    layouts = to_layout(table, grid.formats[0], is_mixture(case.model), axis=1)
    asked = chips, case.model, case.workload, layouts, case.prices
    tpot, (cost,) = EXACT(*asked, case.ttft_limit_s)
    _, (inside,) = EXACT(*asked, case.ttft_limit_s * APART)  # the screening keeps a margin from the limits
    tpot, cost, inside = np.asarray(tpot), np.asarray(cost), np.asarray(inside)
    for k, limit in enumerate(LIMITS):
        found = best.layout[0, k]
        least = np.where(tpot <= limit * APART, inside, np.inf).min(axis=1)
        has = found >= 0
        assert (has | ~np.isfinite(least)).all(), limit
        picked = cost[np.arange(N), found][has]
        assert (tpot[np.arange(N), found][has] <= limit).all()
        assert (picked <= least[has] * (1 + LOSS)).all(), (limit, (picked / least[has]).max())
        np.testing.assert_allclose(best.cost[0, k][has], picked, rtol=LOSS)
    assert np.isfinite(best.cost).any()


def test_regrouping_changes_nothing_but_rounding():
    rng = np.random.default_rng(2)
    a, b, c = rng.uniform(1, 2, (5, 1)), rng.uniform(1, 2, (1, 7)), np.float64(3.0)

    def f(a, b, c):
        root = jax.numpy.sqrt(a * b + c)
        return a * b / c - root * root / (a + b) + (a - c) * b / a, jax.numpy.maximum(root / b, jax.numpy.minimum(a, c * b)) * (1 / (a + b))

    s = staged(f, (a, b, c), (5, 7))
    for found, plain in zip(s.both(*s.chips([a, b, c]), s.layouts([a, b, c])), f(a, b, c), strict=True):
        np.testing.assert_allclose(found, plain, rtol=1e-13)


def test_leaves_that_are_said_to_be_equal_are_computed_once():
    x, y = np.ones((3, 1)), np.ones((1, 2))

    def f(p, q, y):
        return (p * y + 1.0) * (q * y + 1.0)

    s = staged(f, (x, x, y), (3, 2), {1: 0})
    ones, twice, thrice = [x, 2 * x, y], [x, x, y], [2 * x, x, y]
    np.testing.assert_array_equal(s.both(*s.chips(ones), s.layouts(ones)), f(*twice))
    np.testing.assert_array_equal(s.both(*s.chips(thrice), s.layouts(thrice)), f(2 * x, 2 * x, y))


def test_numpy_runs_the_same_text(cat):
    s = replace(bench.setting(cat, "llama-3-8b"), table=layout_table(as_floats(cat.models["llama-3-8b"]), GRID))
    given = bench.arguments(s, np.arange(len(s.table)))
    leaves, tree = jax.tree.flatten(given)
    closed = jax.make_jaxpr(lambda *xs: priced(*jax.tree.unflatten(tree, xs)))(*leaves)
    with np.errstate(all="ignore"):
        tpot, cost = bench.by_numpy(closed.jaxpr, closed.consts, leaves)
    exact_tpot, (exact_cost,) = jax.jit(priced)(*given)
    np.testing.assert_allclose(tpot, exact_tpot, rtol=1e-4)
    finite = np.isfinite(exact_cost)
    assert finite.mean() > 0.05
    np.testing.assert_allclose(cost[finite], np.asarray(exact_cost)[finite], rtol=1e-3)


def test_a_rate_is_what_was_counted_over_the_time_that_it_took():
    now = [0.0]

    def once():
        now[0] += 0.5
        return 10.0

    assert bench.rate(once, 4.0, lambda: now[0]) == pytest.approx(20.0)

    waits = cycle((0.5, 0.5, 0.5, 0.5, 3.0))

    def disturbed():
        now[0] += next(waits)
        return 10.0

    found = bench.rates(disturbed, 40.0, lambda: now[0])
    assert len(found) >= 3
    assert min(found) < bench.rate(disturbed, 40.0, lambda: now[0]) <= 20.0  # disturbances make no rate better


def test_families_share_their_compiled_functions_and_costs_stay(cat):
    case, grid = case_of(cat, "llama-3-70b"), replace(GRID, formats=("fp8",), batches=(8, 64))
    table, shapes = layout_table(case.model, grid), set()
    for family in ("hbm_gpu", "sram"):
        chips = block(cat, family)
        spread = alike(chips, N)
        shapes.add(tuple(np.shape(x) for x in jax.tree.leaves(spread)))
        one, other = (screen(c, case, grid, table, LIMITS)[0] for c in (chips, spread))
        np.testing.assert_allclose(one.cost, other.cost, rtol=1e-5)
        np.testing.assert_allclose(one.fastest, other.fastest, rtol=1e-5)
    assert len(shapes) == 1
