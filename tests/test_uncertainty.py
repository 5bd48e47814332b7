"""Are samples those of the stated intervals, are costs those of the model, and do probabilities and indices agree with other ways?"""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import stats

import dse
from dse.analyse import SAMPLES
from dse.analysis import compare as C
from dse.analysis import middles as A
from dse.analysis import uncertainty as U
from dse.analysis.inputs import Factor, Sampler, factors_of, is_uncertain, quantile, scaled, shape_of, triangle, with_values
from dse.catalog import Quantity
from dse.chips import FAMILIES
from dse.evaluate import as_floats, evaluate
from dse.questions import questions_of, shop_of
from dse.search.designs import build_block
from dse.study import read_study
from dse.types import Deployment, Layout

FAMILY_PAIR = ("hbm_gpu", "sram")
SCENARIO = "owner-2026"


def quantity(value, low, high, unit="USD"):
    return Quantity(value, unit, value, unit, low, high, "s", "estimate")


# --- distributions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [quantity(2, 1, 8), quantity(0.5, 0.4, 0.8, "1"), quantity(3, 0, 4), quantity(1e-9, 1e-10, 5e-9)])
def test_low_and_high_are_the_five_per_cent_quantiles(q):
    low, high = quantile(q, np.array([0.05, 0.95]))
    assert low == pytest.approx(q.low, rel=1e-6) or (q.low == 0 and low >= 0)
    assert high == pytest.approx(q.high, rel=1e-6)
    u = np.linspace(1e-4, 1 - 1e-4, 501)
    assert (np.diff(quantile(q, u)) > 0).all()


def test_triangle_is_that_of_scipy():
    q = quantity(0.5, 0.3, 0.6, "1")
    low, high = triangle(q)
    known = stats.triang(c=(q.value - low) / (high - low), loc=low, scale=high - low)
    u = np.linspace(0.01, 0.99, 33)
    assert quantile(q, u) == pytest.approx(known.ppf(u), rel=1e-9)
    assert known.cdf([q.low, q.high]) == pytest.approx([0.05, 0.95], abs=1e-6)


def test_lognormal_has_the_value_as_median_and_shares_stay_shares():
    assert quantile(quantity(2, 1, 8), np.array([0.5])) == pytest.approx(2)
    assert shape_of(quantity(0.6, 0.4, 0.8, "1")) == "triangular"
    ends = quantile(quantity(0.9, 0.5, 1.0, "1"), np.array([1e-9, 1 - 1e-9]))
    assert ends[0] >= 0 and ends[1] <= 1


@pytest.fixture(scope="module")
def cat():
    return dse.load_catalog()


@pytest.fixture(scope="module")
def study(cat):
    return read_study("gpu_vs_sram_vs_asic", cat)


def test_every_interval_of_the_chips_is_drawn(cat, study):
    factors = factors_of(study, cat)
    places = [p for f in factors for p in f.places]
    assert len(places) == len(set(places))
    for kind, identity in (
        ("families", "sram"),
        ("technology", "packaging"),
        ("memories", "hbm3e"),
        ("processes", "n5"),
        ("sites", "us-2026"),
    ):
        for name, q in cat.records[kind][identity].values.items():
            if is_uncertain(q) and not name.startswith("range."):
                assert (kind, identity, name) in places


def test_sampler_agrees_with_the_quantiles_one_by_one(cat, study):
    factors = factors_of(study, cat, {"fp8"})
    u = np.random.default_rng(0).random((5, len(factors)))
    sampler = Sampler.of(cat, factors)
    values = sampler.values(u)
    for i in range(0, len(sampler.places), 37):
        kind, identity, name = sampler.places[i]
        q = cat.records[kind][identity].values[name]
        assert values[i] == pytest.approx(quantile(q, u[:, sampler.follows[i]]), rel=1e-9)


# --- costs under other inputs -----------------------------------------------------------------------------------------------


def competitor(cat, study, family, node="n5"):
    shop = shop_of(family, study.families[family], cat)
    values = shop.space.defaults()
    named = shop.space.named(values) | {"node": node}
    rows = np.array([[8.0, 1.0, 1.0, 1.0, b] for b in (1.0, 8.0, 32.0)] + [[64.0, 10.0, 1.0, 1.0, b] for b in (1.0, 8.0, 32.0)])
    return C.Competitor(family, family, shop.space, ("x",), (named,), np.zeros(len(rows), int), rows, ("fp8",) * len(rows))


@pytest.fixture(scope="module")
def question(cat, study):
    q = questions_of(study, cat)
    return C.Question(q.cases[0], (0.1, 0.02), (SCENARIO,))


@pytest.fixture(scope="module")
def pair(cat, study):
    return [competitor(cat, study, f) for f in FAMILY_PAIR]


@pytest.fixture(scope="module")
def factors(cat, study, pair):
    return factors_of(study, cat, {k for c in pair for k in c.kernels})


def exact(cat, study, question, c, limit_s):
    """Least cost of a competitor by the plain way: one catalogue of numbers, the search's builder, and ``evaluate`` in double precision."""
    shop = shop_of(c.family, study.families[c.family], cat)
    values = {k: np.array([v]) for k, v in shop.space.from_named(c.decisions[0]).items()}
    chip = jax.tree.map(lambda x: float(np.ravel(x)[0]), build_block(shop, values).chip)
    chip = C.throttled(chip)
    best = np.inf
    for (tp, pp, _, _, batch), fmt in zip(c.rows, c.formats, strict=True):
        layout = Layout(tp=tp, pp=pp, dp=None, ep=None, batch=batch, format=fmt)
        m = evaluate(
            Deployment(
                chip=chip, model=question.case.model, workload=question.case.workload, layout=layout, prices=as_floats(cat.prices[SCENARIO])
            )
        )
        if bool(m.feasible) and float(m.tpot_s) <= limit_s and float(m.ttft_s) <= question.case.ttft_limit_s:
            best = min(best, float(m.usd_per_million_output_token))
    return best


def test_sampled_costs_are_those_of_the_model_sample_by_sample(cat, study, question, pair, factors):
    u = np.random.default_rng(3).random((4, len(factors)))
    sampler = Sampler.of(cat, factors)
    together = sampler.catalog(cat, u)
    values = sampler.values(u)
    for c in pair:
        costs = C.costs_of(c, question, together, len(u))[0]
        for s in range(2):
            alone = with_values(cat, {p: float(v[s]) for p, v in zip(sampler.places, values, strict=True)})
            for t, limit in enumerate(question.limits_s):
                assert costs[t, s] == pytest.approx(exact(alone, study, question, c, limit), rel=2e-5)


def test_costs_follow_prices_exactly(cat, question, pair):
    base = C.costs_of(pair[0], question, scaled(cat, [], 1.0), 2)
    power = ("sites", "us-2026", "electricity")
    dearer = C.costs_of(
        pair[0],
        question,
        with_values(cat, {power: np.array([[1.0], [2.0]]) * cat.records["sites"]["us-2026"].values["electricity"].value}),
        2,
    )
    assert dearer[..., 0] == pytest.approx(base[..., 0], rel=1e-6)
    assert (dearer[..., 1] > base[..., 1]).all()


# --- probabilities, bands, indices --------------------------------------------------------------------------------------------


def test_bands_and_probabilities_of_known_samples():
    costs = np.array([[1.0, 2.0, 3.0, np.inf], [2.0, 1.0, 4.0, 5.0]])
    assert U.bands(np.arange(101.0)).tolist() == pytest.approx([5, 25, 50, 75, 95])
    assert np.isnan(U.bands(np.array([1.0, np.inf]))[-1])
    assert U.beats(costs)[0, 1] == 0.5 and U.beats(costs)[1, 0] == 0.5  # what is infeasible loses
    assert U.cheapest(costs).tolist() == [0.5, 0.5]
    assert U.cheapest(np.full((2, 3), np.inf)).tolist() == [0, 0]


@pytest.fixture(scope="module")
def outputs(cat, factors, pair, question):
    return U.pair_outputs(cat, factors, [[c] for c in pair], question, 0, 0)


def groups_of(factors):
    """Three groups of inputs, and all others."""

    def pick(*starts):
        return np.array([k for k, f in enumerate(factors) if f.name.startswith(starts)])

    found = {
        "owner": pick("prices", "sites", "networks"),
        "sram": pick("families sram", "constants sram"),
        "gpu": pick("families hbm_gpu", "constants hbm_gpu"),
    }
    rest = np.setdiff1d(np.arange(len(factors)), np.concatenate(list(found.values())))
    return found | {U.REST: rest}


@pytest.mark.parametrize("output", [0, 1])
def test_sobol_indices_agree_with_brute_force(outputs, factors, output):
    """First-order indices against variances of conditional means by a double loop over plain random samples."""
    groups = groups_of(factors)
    found = {s.group: s for s in U.indices(outputs, len(factors), groups, 4096, 1)[output]}
    rng = np.random.default_rng(5)
    outer, inner = 256, 64
    for name in ("owner", "sram"):
        u = rng.random((outer, inner, len(factors)))
        u[:, :, groups[name]] = rng.random((outer, 1, len(groups[name])))
        y = outputs(u.reshape(outer * inner, -1))[output].reshape(outer, inner)
        noise = y.var(axis=1, ddof=1).mean() / inner  # of the inner means
        share = (y.mean(axis=1).var(ddof=1) - noise) / y.var(ddof=1)
        spread = np.sqrt(2 / outer) * (share + noise / y.var(ddof=1)) + 0.06
        assert found[name].first == pytest.approx(share, abs=2 * spread), name
    assert sum(s.first for s in found.values()) < 1.1
    for s in found.values():
        assert s.total > s.first - 0.1


def test_probabilities_agree_between_seeds_as_binomials_do(cat, study, question, pair):
    """Thin slice: two seeds within what so few samples allow; one point with all samples is the long test."""
    chance = []
    for seed in (1, 2):
        s = U.sample(study, cat, pair, question, 1024, seed)
        assert s.names == FAMILY_PAIR and s.costs.shape == (2, 1, 2, 1024)
        chance.append(U.beats(s.costs)[0, 1])
    assert np.abs(chance[0] - chance[1]).max() < 4 * np.sqrt(0.5 / 1024)


@pytest.mark.long
def test_probabilities_are_stable_to_one_point(cat, study, question, pair):
    chance = [U.beats(U.sample(study, cat, pair, question, SAMPLES, seed).costs)[0, 1] for seed in (1, 2)]
    assert np.abs(chance[0] - chance[1]).max() < 0.01


def test_too_hot_a_chip_is_throttled_and_no_other(cat, study):
    shop = shop_of("sram", study.families["sram"], cat)
    values = {k: np.array([v]) for k, v in shop.space.defaults().items()}
    chip = FAMILIES["sram"].build(values, jax.tree.map(lambda x: x, shop.processes[4]), shop.technology, shop.constants).chip
    cool = replace(chip, slack=replace(chip.slack, heat=0.1, package=0.0))
    hot = replace(chip, slack=replace(chip.slack, heat=-0.25, package=0.0))
    assert float(np.ravel(C.throttled(cool).tdp_w)[0]) == pytest.approx(float(np.ravel(chip.tdp_w)[0]))
    assert float(np.ravel(C.throttled(hot).tdp_w)[0]) == pytest.approx(float(np.ravel(chip.tdp_w)[0]) / 1.25)  # limit = use / (1 - slack)


def test_ladders_hold_the_batches_they_come_from():
    rungs = C.ladder([5.0, 64.0], least=2.0)
    assert {5.0, 64.0} <= set(rungs) and min(rungs) >= 2 and max(rungs) >= 128
    assert all(b == round(b) for b in rungs)


def test_factors_that_share_a_number_move_together(cat, study):
    by_name = {f.name: f for f in factors_of(study, cat)}
    factor = by_name["constants sram: gemm.*.compute_efficiency"]
    assert isinstance(factor, Factor) and len(factor.places) > 3


@pytest.mark.parametrize("samples", [64, 1024])
def test_sobol_indices_of_a_sum_are_known(samples):
    """y0 = 2 a + b: shares 4/5 and 1/5; y1 depends on the third group alone."""
    groups = {"a": np.array([0]), "b": np.array([1]), "c": np.array([2, 3])}
    first, second = U.indices(lambda u: np.stack([2 * u[:, 0] + u[:, 1], u[:, 2]]), 4, groups, samples, 0)
    assert [s.first for s in first] == pytest.approx([0.8, 0.2, 0.0], abs=0.02)
    assert [s.total for s in second] == pytest.approx([0.0, 0.0, 1.0], abs=0.02)


def test_options_that_never_lead_are_left_out_and_cost_nothing(cat, question, pair, factors):
    u = np.random.default_rng(4).random((C.SAMPLES, len(factors)))
    drawn = Sampler.of(cat, factors).catalog(cat, u)
    every = C.costs_of(pair[0], question, drawn, C.SAMPLES)
    fewer = C.leading(pair[0], question, [drawn], C.SAMPLES)
    assert 0 < len(fewer.who) <= len(pair[0].who)
    kept = C.costs_of(fewer, question, drawn, C.SAMPLES)
    assert (kept >= every).all()
    assert (kept > every).sum() < C.RARE * len(pair[0].who)  # each option that left led fewer than RARE times


def test_middles_move_one_sided_values_of_the_family_alone(cat, question, pair, factors):
    """Second way: the same values laid over the catalogue one by one."""
    (gpu, sram) = A.middles(cat, factors, pair, question, 0, 0)
    assert (gpu.family, sram.family) == FAMILY_PAIR
    mine = [f for f in factors if A.own(f, "sram") and A.is_at_end(f)]
    assert len(mine) == sram.values > 10
    values = {p: float(quantile(cat.records[p[0]][p[1]].values[p[2]], np.array(0.5)))
              for f in mine for p in f.places if is_uncertain(cat.records[p[0]][p[1]].values[p[2]])}  # fmt: skip
    moved = C.costs_of(pair[1], question, with_values(cat, values), 2)[0, 0, 0]
    assert sram.middle == pytest.approx(moved, rel=1e-5) and sram.middle != pytest.approx(sram.stated, rel=1e-3)
    assert all(abs(np.log(ratio)) > 0 for _, ratio in sram.most)
