"""Do the hypothetical chips of all six families obey what must hold for any chip: directions, limits, slopes, utilisations?

Chips of a family are built in blocks of one shape, so that all families share the compiled model.
"""

from __future__ import annotations

from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dse
from dse.chips import FAMILIES
from dse.evaluate import as_floats, evaluate
from dse.questions import shop_of
from dse.search.designs import build_block, column
from dse.search.grid import Case, Grid, is_mixture, layout_table, to_layout
from dse.search.layouts import screen
from dse.space import take
from dse.types import Deployment, Layout, MemoryParts, Workload, named_format

N = 32  # designs of a block
FORMAT = {"burned_in": "int4"}  # of the weights; all others fp8
EXACT = 1e-9
few = settings(max_examples=2)
families = pytest.mark.parametrize("family", list(FAMILIES))
seeds = st.integers(0, 10**6)


@pytest.fixture(scope="module")
def cat():
    return dse.load_catalog()


@pytest.fixture(scope="module")
def shops(cat):
    return {family: shop_of(family, {}, cat) for family in FAMILIES}


def designs(shop, seed, n=N):
    """The default design, random designs and random corners of the design box."""
    rng = np.random.default_rng(seed)
    cube = rng.random((n, shop.space.dimension))
    cube[n // 2 :] = rng.integers(0, 2, (n - n // 2, shop.space.dimension))
    values = shop.space.decode(cube)
    return {name: np.concatenate([[shop.space.defaults()[name]], v[1:]]) for name, v in values.items()}


def flat(tree, n=N):
    """Every leaf (n,)."""
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, float), (n,)), tree)


def deployment(cat, family, chips, seed, prices="owner-2026", n=N):
    """Chips in layouts of all sizes, one each; feasible or not."""
    rng = np.random.default_rng([seed, 1])
    layout = Layout(
        tp=2.0 ** rng.integers(0, 6, n),
        pp=2.0 ** rng.integers(0, 6, n),
        batch=np.round(2.0 ** rng.uniform(0, 10, n)),
        format=flat(named_format(FORMAT.get(family, "fp8")), n),
        dp=None,
        ep=None,
    )
    work = as_floats(Workload(input_tokens=1024, output_tokens=1024))
    return Deployment(
        chip=flat(chips, n), model=as_floats(cat.models["llama-3-8b"]), workload=work, layout=layout, prices=cat.prices[prices]
    )


# --- directions ------------------------------------------------------------------------------------------------------------


@families
@few
@given(seed=seeds, factor=st.floats(1.01, 20.0))
def test_more_defects_are_never_cheaper(cat, shops, family, seed, factor):
    shop = shops[family]
    values = designs(shop, seed)
    process = take(shop.processes, values["node"])
    costs = []
    for scale in (1.0, factor):
        dirty = replace(process, defects_per_mm2=process.defects_per_mm2 * scale)
        built = FAMILIES[family].build(values, dirty, shop.technology, shop.constants)
        m = evaluate(deployment(cat, family, built.chip, seed))
        costs.append((np.broadcast_to(built.chip.unit_cost_usd, (N,)), np.asarray(m.usd_per_million_output_token)))
    for before, after in zip(*costs, strict=True):
        assert (after >= before * (1 - EXACT)).all()
    single = values.get("integration", np.zeros(N)) == 0  # a wafer is used whole: its yield is a constant of its own
    assert (costs[1][0] > costs[0][0])[single].all()


@families
@few
@given(seed=seeds, factor=st.floats(1.01, 8.0))
def test_more_bandwidth_is_never_slower(cat, shops, family, seed, factor):
    d = deployment(cat, family, build_block(shops[family], designs(shops[family], seed)).chip, seed)
    before = evaluate(d)
    for names in (("memory",), ("sram",), ("scale_up", "scale_out"), ("memory", "sram", "weight_store", "scale_up", "scale_out")):
        faster = {k: replace(getattr(d.chip, k), s_per_byte=getattr(d.chip, k).s_per_byte / factor) for k in names}
        after = evaluate(replace(d, chip=replace(d.chip, **faster)))
        assert (np.asarray(after.tpot_s) <= np.asarray(before.tpot_s) * (1 + EXACT)).all(), names
        # in a closed loop, faster decoding brings the next prompt sooner, so that the first token alone may wait; a request never does
        whole = [np.asarray(m.ttft_s + (d.workload.output_tokens - 1) * m.tpot_s) for m in (before, after)]
        assert (whole[1] <= whole[0] * (1 + EXACT)).all(), names
    assert (np.asarray(after.tpot_s) < np.asarray(before.tpot_s)).any()


@families
@few
@given(seed=seeds)
def test_chips_never_draw_more_than_their_thermal_design_power(cat, shops, family, seed):
    d = deployment(cat, family, build_block(shops[family], designs(shops[family], seed)).chip, seed)
    bare = replace(d.prices, pue_air=1.0, pue_liquid=1.0, conversion_air=0.0, conversion_liquid=0.0, host_w=0.0)
    m = evaluate(replace(d, prices=bare))
    mean_w = np.asarray(m.facility_power_w / m.chips)
    assert (mean_w >= np.asarray(d.chip.static_w)).all()
    assert (mean_w <= np.asarray(d.chip.tdp_w) * (1 + EXACT)).all()
    joule = np.asarray(m.j_per_output_token * m.output_token_per_s_per_chip)
    np.testing.assert_allclose(joule, mean_w, rtol=1e-9)


# --- slopes ------------------------------------------------------------------------------------------------------------------


def built(shop, family):
    """The chips of random designs as a function of their real-valued decisions, and these."""
    values = designs(shop, 5)
    process = take(shop.processes, values["node"])
    real = {v.name: values[v.name] for v in shop.space.variables if v.kind == "real"}
    fixed = {k: v for k, v in values.items() if k not in real}
    return lambda x: flat(FAMILIES[family].build({**fixed, **x}, process, shop.technology, shop.constants).chip), real


@pytest.fixture(scope="module")
def model_slopes(cat, shops):
    """For each family log cost and its slope in every leaf of its chips: all families in one call, which is not compiled."""
    chips = {family: function(real) for family, (function, real) in ((f, built(shops[f], f)) for f in FAMILIES)}
    each = [deployment(cat, family, chips[family], 5) for family in FAMILIES]
    every = jax.tree.map(lambda *x: jnp.concatenate(x) if np.shape(x[0]) == (N,) else x[0], *each)

    def log_cost(chip):
        return jnp.log(evaluate(replace(every, chip=chip)).usd_per_million_output_token)

    with jax.disable_jit():
        cost, back = jax.vjp(log_cost, every.chip)
        (slope,) = back(jnp.ones_like(cost))
    return {f: jax.tree.map(lambda x, i=i: x[i * N : (i + 1) * N], (cost, slope)) for i, f in enumerate(FAMILIES)}


@families
def test_the_slope_of_cost_is_finite_over_the_whole_design_box(shops, model_slopes, family):
    """Chain rule by hand: the model's slope in every leaf of the chip, then the family's own."""
    function, real = built(shops[family], family)
    chips, back = jax.vjp(function, real)
    cost, slope = model_slopes[family]
    assert np.isfinite(cost).all() and cost.shape == (N,)
    bad = [jax.tree_util.keystr(p) for p, x in jax.tree_util.tree_leaves_with_path(slope) if not np.isfinite(x).all()]
    assert not bad
    (slopes,) = back(jax.tree.map(lambda x, like: x.astype(like.dtype), slope, chips))
    for name, slope_ in slopes.items():
        assert np.isfinite(slope_).all(), name
        assert np.shape(slope_) == (N,)
    assert any(np.any(np.asarray(x) != 0) for x in slopes.values())


# --- best layouts ------------------------------------------------------------------------------------------------------------

GRID = Grid(tp=(1, 4, 16, 64), pp=(1, 4, 16, 32), dp=(1, 8), batches=(1, 8, 64, 512), ep=("none", "full"), max_chips=1024)
LIMITS = (0.1, 0.01)


@families
@pytest.mark.parametrize("model", ["llama-3-8b", "gpt-oss-120b"])
def test_at_its_best_layout_a_chip_fits_and_uses_no_more_than_there_is(cat, shops, family, model):
    shop = shops[family]
    values = designs(shop, 11)
    chips = build_block(shop, values).chip
    case = Case(model, "", as_floats(cat.models[model]), as_floats(Workload(input_tokens=1024, output_tokens=1024)), 2.0,
                (as_floats(cat.prices["owner-2026"]),))  # fmt: skip
    grid = replace(GRID, formats=(FORMAT.get(family, "fp8"),))
    table = layout_table(case.model, grid)
    best, _ = screen(column(chips, N), case, grid, table, LIMITS)
    limit, who = np.nonzero(best.layout[0] >= 0)
    assert len(who) > 0
    at = np.resize(np.arange(len(who)), 2 * N)  # one compiled shape
    limit, who = limit[at], who[at]
    rows = table[best.layout[0, limit, who]]
    layout = replace(to_layout(rows, None, is_mixture(case.model)), format=flat(named_format(grid.formats[0]), 2 * N))
    chip = jax.tree.map(lambda x: x[who], flat(chips))
    m = evaluate(Deployment(chip=chip, model=case.model, workload=case.workload, layout=layout, prices=case.prices[0]))
    assert np.asarray(m.feasible).all()
    np.testing.assert_allclose(np.asarray(m.usd_per_million_output_token), best.cost[0, limit, who], rtol=1e-3)
    assert (np.asarray(m.tpot_s) <= np.array(LIMITS)[limit]).all()
    assert (np.asarray(m.ttft_s) <= case.ttft_limit_s).all()
    for name in ("mfu", "mbu", "mfu_prefill"):
        used = np.asarray(getattr(m, name))
        assert (used >= 0).all(), name
        assert used.max() <= 1 + EXACT, name
    assert (np.asarray(m.mfu) > 0).all()
    held = [np.asarray(getattr(m.memory_byte_per_chip, f.name)) for f in fields(MemoryParts) if f.name != "capacity"]
    assert (sum(held) <= np.asarray(m.memory_byte_per_chip.capacity) * (1 + 1e-6)).all()
    reticle = shop.technology.packaging.reticle_mm2
    if family != "sram":  # a wafer is no die
        assert (values["die_area_mm2"][who] <= reticle * (1 + 1e-6)).all()


def best_areas(cat, shop, family, areas):
    """Die areas of the cheapest chip under a loose limit and under the tightest that any meets, and the slope that moves one to the other.

    In the layout of the tight limit: of the time where the loose area misses the limit, else of the cost (elasticities in the area).
    """
    values = {name: np.full(N, value) for name, value in shop.space.defaults().items()} | {"die_area_mm2": areas}
    chips, work = build_block(shop, values).chip, as_floats(Workload(input_tokens=1024, output_tokens=1024))
    case = Case("llama-3-8b", "", as_floats(cat.models["llama-3-8b"]), work, 2.0, (as_floats(cat.prices["owner-2026"]),))
    grid = replace(GRID, formats=(FORMAT.get(family, "fp8"),))
    table = layout_table(case.model, grid)

    def under(limit):
        best, _ = screen(column(chips, N), case, grid, table, (LIMITS[0], limit))
        return best.cost[0, 1], best.layout[0, 1]

    loose = int(np.argmin(under(LIMITS[0])[0]))
    low, high = np.log(1e-6), np.log(LIMITS[0])
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if np.isfinite(under(np.exp(middle))[0]).any() else (middle, high)
    limit = float(np.exp(high))
    cost, layout = under(limit)
    tight = int(np.argmin(cost))
    tp, pp, _, _, batch = table[layout[tight]]
    same = Layout(
        tp=np.full(N, tp), pp=np.full(N, pp), batch=np.full(N, batch), format=flat(named_format(grid.formats[0])), dp=None, ep=None
    )
    m = evaluate(Deployment(chip=flat(chips), model=case.model, workload=work, layout=same, prices=cat.prices["owner-2026"]))
    decides = m.tpot_s if float(m.tpot_s[loose]) > limit else m.usd_per_million_output_token
    return areas[loose], areas[tight], np.gradient(np.log(np.asarray(decides)), np.log(areas))[loose]


@families
def test_a_tighter_limit_moves_the_best_area_as_the_elasticities_say(cat, shops, family):
    """A chip that is too slow grows where area makes it faster; one that is fast enough at any area shrinks to what is cheapest."""
    loose, tight, slope = best_areas(cat, shops[family], family, np.linspace(250.0, 820.0, N))
    assert (tight - loose) * slope <= 0
