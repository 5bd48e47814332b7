"""A polish: cheaper or equal, feasible, stationary; multipliers are what re-solved problems say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse import certificates
from dse.catalog import load_catalog
from dse.evaluate import as_floats
from dse.search.designs import build_block
from dse.search.finish import as_case, bundle, nearby, polish
from dse.search.shadow import EXTRAS
from dse.search.solvers import BALL, Task, around, free_of, slopes_at
from dse.study import read_study

STUDY, LIMIT_S = "gpu_vs_sram_vs_asic", 0.02
FAMILY = "hbm_gpu"
SMALL = 1e-5  # change of cost by which a problem is eased, relative: above what a polish leaves, inside one piece of the maxima
# amounts of each limit or resource of which a hundredth of the cost would be noticed
WORTH = {
    "tpot": 1e-2, "ttft": 1.0, "reticle": 100.0, "interposer": 1000.0, "beachfront": 0.05, "power": 1e3, "heat": 1e3, "memory": 1e11,
    "memory_bandwidth": 1e13, "sram_bandwidth": 1e14, "link_bandwidth": 1e12, "peak": 1e15,
}  # fmt: skip
TRIES = 3  # polishes of an eased problem: one alone may stop before it has gained so little
DRAWS = 16  # blocks of random neighbours
START = {
    "node": "n3", "die_area_mm2": 590.0, "dies": 4, "voltage_v": 0.8, "cooling": "liquid", "link_byte_per_s": 1.1e11, "memory": "hbm4",
    "stacks": 10, "datapath": "large-tile", "compute_share": 0.95,
}  # fmt: skip
LAYOUT = {"tp": 1.0, "pp": 1.0, "dp": 1.0, "ep": 1.0, "batch": 215.0, "format": "fp8"}


@pytest.fixture(scope="module")
def question():
    catalog = load_catalog()
    p = certificates.problem_of(read_study(STUDY, catalog), catalog, FAMILY, LIMIT_S)
    grid = replace(p.grid, tp=(1, 2, 4), pp=(1,), batches=(128, 181, 256))
    return {"shop": p.shop, "case": p.case, "prices": p.case.prices[p.scenario], "limit_s": LIMIT_S, "grid": grid}


@pytest.fixture(scope="module")
def finished(question):
    return polish(decisions=START, layout=LAYOUT, rounds=2, each=1, **question)


def test_a_polished_design_meets_all_limits_and_stays_where_it_is_when_polished_again(question, finished):
    assert bool(finished.metrics.feasible[0])
    assert float(finished.metrics.tpot_s[0]) <= LIMIT_S * (1 + 1e-9)
    assert finished.cost == pytest.approx(float(finished.metrics.usd_per_million_output_token[0]))
    assert finished.cost < finished.improved_from
    assert finished.residual < 1e-3
    for name in ("node", "memory", "stacks", "dies", "datapath", "cooling"):
        assert finished.decisions[name] == START[name]


def test_no_random_neighbour_in_the_same_layout_is_cheaper(question, finished):
    from dse.search.certify import EXACT, exact

    catalog = load_catalog()
    p = certificates.problem_of(read_study(STUDY, catalog), catalog, FAMILY, LIMIT_S)
    space, n = p.shop.space, EXACT
    values = space.from_named(finished.decisions)
    cube = space.encode({k: np.full(n, v) for k, v in values.items()})
    real = np.array([v.kind == "real" for v in space.variables])
    rng = np.random.default_rng(0)
    row = np.array([[finished.layout[k] for k in ("tp", "pp", "dp", "ep", "batch")]] * n)
    form = np.full(n, p.grid.formats.index(finished.layout["format"]))
    costs = []
    for _ in range(DRAWS):  # the optimum lies where several limits meet: few neighbours keep them all
        moved = np.clip(cube + real * rng.standard_normal(cube.shape) * 10.0 ** rng.uniform(-4, -1, (n, 1)), 0, 1)
        points = np.stack([space.decode(np.where(real, moved, cube))[k] for k in space.names], axis=1)
        costs.append(exact(p, points, row, form))
    assert np.isfinite(costs).sum() > n // 10
    assert np.min(costs) >= finished.cost * (1 - 2e-6)


@pytest.mark.parametrize("name, change", [("tpot", 2e-6), ("peak", 1e12)])
def test_shadow_prices_are_what_problems_with_a_little_more_say(question, finished, name, change):
    def cost(sign):
        again = polish(decisions=finished.decisions, layout=finished.layout, extra={name: sign * change}, rounds=1, each=0, **question)
        return again.cost

    slope = (cost(-1) - cost(1)) / (2 * change)
    assert slope == pytest.approx(finished.multipliers[name], rel=0.02, abs=1e-7 * finished.cost / change)
    assert finished.multipliers[name] >= 0.0


def test_the_polish_of_a_search_reaches_the_optimum_from_a_smaller_batch(question, finished):
    """Memory that holds just one batch keeps steps at random from the next one; a walk over batches finds what the whole polish finds."""
    shop, way = question["shop"], ({**finished.layout, "batch": 181.0})
    values = {k: np.array([v]) for k, v in shop.space.from_named(START).items()}
    row = np.array([way[k] for k in ("tp", "pp", "dp", "ep", "batch")])
    case = replace(question["case"], prices=(question["prices"],))
    found = nearby(shop, case, LIMIT_S, question["grid"], shop.space.encode(values)[0], (row, way["format"]))
    assert found is not None
    point, cost = found
    decisions = shop.space.named({k: float(np.ravel(v)[0]) for k, v in shop.space.decode(point[None]).items()})
    assert cost == pytest.approx(finished.cost, rel=1e-3)
    again = polish(decisions=decisions, layout=finished.layout, rounds=1, each=0, cycles=0, walk=0, **question)
    assert again.improved_from == pytest.approx(finished.cost, rel=1e-3)  # in the batch of the optimum, as it stands
    assert decisions["node"] == START["node"]


def test_differences_are_gradients(question, finished):
    """What the polish of a search takes for gradients, against exact ones at the same points."""
    shop = question["shop"]
    values = {k: np.array([v]) for k, v in shop.space.from_named(finished.decisions).items()}
    at, slopes = bundle(shop, finished.decisions, question["case"], question["prices"], LIMIT_S, finished.layout)
    free = free_of(shop)
    fixed = {v.name: float(values[v.name][0]) for i, v in enumerate(shop.space.variables) if i not in free}
    area = float(np.ravel(sum(build_block(shop, values).area_mm2.values()))[0])
    task = Task(
        shop, as_case(question["case"]), as_floats(question["prices"]), LIMIT_S, fixed, free, np.zeros(len(EXTRAS)), area, plain=True
    )
    row = np.array([finished.layout[k] for k in ("tp", "pp", "dp", "ep", "batch")])
    points = around(at, BALL / 10, np.random.default_rng(0))
    plain = slopes_at(task, row, finished.layout["format"], points)
    d = len(at)
    assert np.allclose(plain.log_cost, slopes.log_cost, rtol=1e-12)
    assert np.allclose(plain.log_cost_slope, slopes.log_cost_slope[:, :d], atol=1e-4)
    near = slopes.slack < 0.5  # what a polish looks at
    assert np.allclose(plain.slack_slope[near], slopes.slack_slope[:, :, :d][near], atol=1e-3)


def test_a_polish_returns_to_the_optimum_from_beside_it(question, finished):
    worse = dict(finished.decisions, voltage_v=finished.decisions["voltage_v"] * 0.97)
    again = polish(decisions=worse, layout=finished.layout, rounds=1, each=0, **question)
    assert again.cost == pytest.approx(finished.cost, rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("family", ["hbm_gpu", "transformer_asic", "sram", "compute_in_memory", "burned_in", "stacked_dram"])
def test_shadow_prices_of_every_family_are_what_problems_with_a_little_more_say(family):
    """The dearest limit and the dearest resource, at the optimum of the committed certificate for the headline's limit."""
    catalog = load_catalog()
    study = read_study(STUDY, catalog)
    path = Path(__file__).parent.parent / "reports" / "certificates" / f"{STUDY}-{family}-20ms.json"
    c, p = certificates.read(path), certificates.problem_of(study, catalog, family, LIMIT_S)
    question = {"shop": p.shop, "case": p.case, "prices": p.case.prices[p.scenario], "limit_s": LIMIT_S, "grid": p.grid}
    best = polish(decisions=c.design, layout=c.layout, rounds=1, each=0, **question)
    assert best.residual < certificates.STATIONARY
    known = {k: v for k, v in best.multipliers.items() if v * WORTH[k] > 1e-3 * best.cost}
    assert known
    for name in sorted(known, key=lambda k: -known[k] * WORTH[k])[:2]:
        change = SMALL * best.cost / known[name]

        def cost(sign, name=name, change=change):
            more = {name: sign * change}
            found = [
                polish(decisions=best.decisions, layout=best.layout, extra=more, rounds=1, each=0, seed=s, **question) for s in range(TRIES)
            ]
            return min((x.cost for x in found if x is not None), default=None)

        less, more = cost(-1), cost(1)  # with less of it there may be no way on: everything else is at its end
        slope = (best.cost - more) / change if less is None else (less - more) / (2 * change)
        assert slope == pytest.approx(known[name], rel=0.02), name
