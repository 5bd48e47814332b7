"""Are the analyses of a study computed as they say, and does the report say what they found?"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from dse.analysis import demand as formulas
from dse.analysis.answers import bands, context, demand, ownership, single_user, volume
from dse.analysis.elasticity import PARAMETERS
from dse.analysis.niches import Niche, Scorer, breed
from dse.answers import ground_of
from dse.catalog import load_catalog
from dse.cli import main
from dse.errors import InputError
from dse.evaluate import as_floats, evaluate
from dse.questions import built_winners, real_chips, shop_of
from dse.report import answers as told
from dse.report.answers.charts import likely
from dse.results import load
from dse.run import run_study
from dse.search.designs import build_block, column, pad
from dse.search.shards import points_of
from dse.study import parse_study, shipped_studies

ROOT = Path(__file__).resolve().parent.parent
STUDY = """
name = "small"
title = "Demand, small"
seed = 3
budget = 64
models = ["llama-3-8b"]
workloads = ["chat"]
scenarios = ["owner-2026"]
real_chips = ["nvidia-h100-sxm"]
[limits]
tpot = ["50 ms", "10 ms"]
max_chips = 64
[headline]
tpot = "50 ms"
analysis = "demand"
[families.hbm_gpu]
nodes = ["n5"]
[families.burned_in]
nodes = ["n6"]
[layouts]
tp = [1, 2, 4]
pp = [1, 4]
dp = [1]
ep = ["none"]
batch = [1, 4, 16, 64, 256]
formats = ["fp8", "int4"]
[search]
asked = 4
bred = 28
[[analyses]]
kind = "demand"
name = "demand"
title = "What demand buys"
bred = 32
use_time = "10 min"
peak = 3.0
users = [1, 100, 1e4, 1e6, 1e8]
contrast = ["human-brain"]
"""


@pytest.fixture(scope="module")
def catalog():
    return load_catalog()


@pytest.fixture(scope="module")
def study(catalog):
    return parse_study(STUDY, Path("small.toml"), "small.toml", catalog)


@pytest.fixture(scope="module")
def winners(study, catalog):
    """The default design of each family, and the chip that exists."""
    found = []
    for family in study.families:
        shop = shop_of(family, study.families[family], catalog)
        _, points = points_of(shop.space, [shop.space.named(shop.space.defaults())])
        formats = tuple(f for f in study.layouts.formats if f in catalog.records["families"][family].meta["formats"])
        found += built_winners(family, points, formats, False, study, catalog)
    return [*found, *real_chips(study, catalog, ())]


@pytest.fixture(scope="module")
def ground(study, catalog, winners):
    return ground_of(study, catalog, winners)


# --- the study file --------------------------------------------------------------------------------------------------


def test_mistakes_in_analyses_are_named_all_at_once(tmp_path, catalog):
    text = (
        STUDY.replace("peak = 3.0", "peek = 3.0")
        .replace('use_time = "10 min"', 'use_time = "ten"')
        .replace('analysis = "demand"', 'analysis = "demant"')
    )
    text += '[[analyses]]\nkind = "dmand"\ntitle = "x"\n'
    with pytest.raises(InputError) as caught:
        parse_study(text, tmp_path / "x.toml", "x.toml", catalog)
    problems = "\n".join(caught.value.problems)
    for part in (
        "analyses[0].peek",
        "did you mean 'peak'",
        "analyses[0].peak",
        "analyses[0].use_time",
        "analyses[1].kind",
        "headline.analysis",
    ):
        assert part in problems, part
    with pytest.raises(InputError, match=r"analyses\[0\] — found 'human-brian'.*human-brain"):
        parse_study(STUDY.replace("human-brain", "human-brian"), tmp_path / "x.toml", "x.toml", catalog)


# --- demand ------------------------------------------------------------------------------------------------------------


def test_a_line_over_demand_does_not_jump_from_stated_values_to_medians():
    x = xr.Dataset(coords={"family": ["a", "b"], "load": [1.0, 2.0, 3.0]})
    x["load_cost"] = (("family", "load"), np.array([[1.0, 1.0, 1.0], [5.0, 5.0, 5.0]]))
    for name, rows in (("low", [[0.5, 0.5, 1.5], [4, 4, 4]]), ("mid", [[2, 2, 2], [6, 6, 6]]), ("high", [[3, 3, 3], [9, 9, 9]])):
        x[f"load_cost_{name}"] = (("family", "load"), np.array(rows, float))
    found = likely(x)["load_cost"]
    assert found.sel(family="a").values.tolist() == [2.0, 2.0, 2.0]  # one point lies outside of its range
    assert found.sel(family="b").values.tolist() == [5.0, 5.0, 5.0]


def test_units_are_the_cheapest_layouts_and_evaluate_to_their_cost(ground):
    units = ground.units(0.05)
    cost = units.cost()
    for chip, batch in zip(*np.nonzero(units.feasible), strict=True):
        m = evaluate(units.deployment(int(chip), int(batch)))
        assert float(m.usd_per_million_output_token) == pytest.approx(cost[chip, batch], rel=1e-9)
        assert bool(m.feasible) and float(m.tpot_s) <= 0.05 * (1 + 1e-9) and float(m.batch) == units.batches[batch]
    # by another way: the grid enumerated one layout at a time
    h100 = [k.id for k in ground.known].index("nvidia-h100-sxm")
    base = units.deployment(h100, 0)
    every = [
        evaluate(replace(base, layout=replace(base.layout, tp=float(tp), pp=float(pp)))) for tp in ground.grid.tp for pp in ground.grid.pp
    ]
    met = [float(m.usd_per_million_output_token) for m in every if bool(m.feasible) and float(m.tpot_s) <= 0.05]
    assert cost[h100, 0] == pytest.approx(min(met), rel=1e-9)


def test_demand_falls_to_its_floor_and_never_below(ground, study):
    found = demand.answer(ground, study.analyses[0].given)
    load = found["load_cost"].values
    assert np.all(np.diff(load, axis=1) <= 0)  # more requests never cost more a token
    users = found["users_cost"].values
    assert np.all(users >= found["users_floor"].values[:, None] * (1 - 1e-9))
    assert users[:, -1] == pytest.approx(found["users_floor"].values, rel=0.02)  # whole instances do not matter to millions
    assert found["ratio"].values == pytest.approx(found["alone_cost"].values / found["best_cost"].values)
    # conservation: capacity in use x capacity = what is asked for, at the mean of the day
    assert np.all(found["users_utilisation"].values <= 1 / study.analyses[0].given["peak"] + 1e-9)


def test_ten_times_the_instances_serve_ten_times_the_users_at_the_same_price(ground, study):
    units, rate = ground.units(0.05), np.array([1e6, 1e7])
    served = demand.service(units, "hbm_gpu", rate, 3.0)
    assert served["instances"][1] == pytest.approx(10 * served["instances"][0], rel=0.01)
    assert served["cost"][1] == pytest.approx(served["cost"][0], rel=0.01)
    assert served["instances"][0] * served["utilisation"][0] == pytest.approx(served["instances"][1] * served["utilisation"][1] / 10)


def test_users_needed_solve_the_curve():
    users, cost = np.array([1.0, 10.0, 100.0]), np.array([100.0, 10.0, 2.0])
    assert demand.users_within(users, cost, 1.0) == pytest.approx(100.0)
    assert demand.users_within(users, cost, 5.0) == pytest.approx(10.0)
    between = demand.users_within(users, cost, 2.5)
    assert 10 < between < 100 and np.exp(np.interp(np.log(between), np.log(users), np.log(cost))) == pytest.approx(5.0)
    assert np.isnan(demand.users_within(users, cost, 0.5))
    assert formulas.concurrent_of(100.0, 600.0, 3.0) == pytest.approx(100 * 600 / 86400 * 3)


# --- one user, volume, context, ownership ------------------------------------------------------------------------------


def test_a_crossing_is_where_the_curve_meets_the_level():
    factors = np.array([0.1, 1.0, 10.0])
    assert single_user.crossing(factors, np.array([400.0, 20.0, 1.0]), 2.0) == pytest.approx(10 ** (np.log(10) / np.log(20)))
    assert single_user.crossing(factors, np.array([1.0, 20.0, 400.0]), 2.0) == pytest.approx(10 ** -(np.log(10) / np.log(20)))
    assert np.isnan(single_user.crossing(factors, np.array([9.0, 8.0, 7.0]), 2.0))
    assert volume.shortest_life(factors, np.array([4.0, 2.0, 0.5])) == pytest.approx(10**0.5)
    assert volume.shortest_life(factors, np.array([0.9, 0.8, 0.5])) == 0.0 and np.isinf(
        volume.shortest_life(factors, np.array([9.0, 8.0, 7.0]))
    )


def test_break_even_factors_close_the_gap_when_the_chip_is_evaluated_again(ground):
    """The factor found on a grid is put into the deployment itself: one user then pays the level."""
    units = ground.units(0.05)
    batched = units.curve("hbm_gpu").min()
    level = 0.8 * units.curve("hbm_gpu")[0] / batched
    found = single_user.answer(ground, {"against": "hbm_gpu", "level": level, "reach": 100.0})
    closed = found["closing"].sel(family="hbm_gpu")
    own = [str(p) for p in closed["changed"].values if np.isfinite(float(closed.sel(changed=p))) and str(p) not in single_user.COMMON]
    assert own  # some change of the chip does it
    for name in own:
        d = PARAMETERS[name](as_floats(units.deployment(*units.best("hbm_gpu", 0))), float(closed.sel(changed=name)))
        assert float(evaluate(d).usd_per_million_output_token) / batched == pytest.approx(level, rel=0.05)  # a power law between points
    assert np.all(found["ratio"].sel(family="hbm_gpu") >= found["own_ratio"].sel(family="hbm_gpu") * (1 - 1e-9))
    low, high = (found[f"ratio_{e}"].values for e in ("low", "high"))
    assert np.all(low <= high, where=np.isfinite(low))


def test_masks_wafers_and_life_move_burned_in_chips_as_money_says(ground):
    given = {"family": "burned_in", "against": "hbm_gpu", "wafers": (10.0, 1e3, 1e5), "lives": (1e7, 3e7, 1e8), "masks": (4.0, 40.0)}
    given |= {"beam_rates": (1.0,), "update_life": 2.0}
    found = volume.answer(ground, given)
    ratio = found["ratio"].values
    assert np.all(np.diff(ratio, axis=2) <= 0) and np.all(np.diff(ratio[:2], axis=1) < 0)  # longer lives, more wafers: cheaper
    assert np.all(ratio[1] > ratio[0])  # more masks: dearer
    assert ratio[2, 0] == pytest.approx(ratio[2, 2])  # a beam needs no volume
    # by another way: the price of masks alone, worked out from the finance equations
    units = ground.units(0.05)
    at = units.best("burned_in")
    d = units.deployment(*at)
    prices = volume.priced(d.prices, 10.0, 1e7 / 31536000.0)
    cost = float(evaluate(replace(d, prices=prices)).usd_per_million_output_token)
    assert cost / units.curve("hbm_gpu").min() == pytest.approx(ratio[0, 0, 0])


def test_longer_contexts_cost_more_and_hold_fewer(ground):
    found = context.answer(ground, {"contexts": (512, 4096)})
    gpu = found.sel(family="hbm_gpu")
    assert gpu["cost"].values[1] > gpu["cost"].values[0] and gpu["kv_byte"].values[1] > 2 * gpu["kv_byte"].values[0]
    short = ground.units(0.05, workload=replace(ground.case.workload, input_tokens=512.0))
    assert gpu["cost"].values[0] == pytest.approx(float(short.curve("hbm_gpu").min()))


def test_a_chip_of_ones_own_pays_once_its_design_is_spread(ground):
    tokens = tuple(float(x) for x in np.geomspace(1e12, 1e19, 15))
    given = {"made": "owner-2026", "bought": "owner-2026", "rented": "owner-2026", "horizon": 4 * 31536000.0, "tokens": tokens}
    found = ownership.answer(ground, given)
    own = found.sel(family="hbm_gpu")
    assert np.all(np.diff(own["own_total"].values) > 0) and np.all(np.diff(own["own_total"].values / np.array(tokens)) <= 0)
    assert own["own_total"].values == pytest.approx(own["own_once"].values + own["own_marginal"].values * np.array(tokens) / 1e6)
    # annuity by hand: 10 % over 4 years pays 0.3155 a year
    unit = next(k for k in ground.known if k.family == "hbm_gpu")
    assert own["own_once"].values[0] == pytest.approx(float(unit.chip.nre_usd) * 0.31547 * 4, rel=1e-3)


# --- bands ---------------------------------------------------------------------------------------------------------------


def test_draws_at_the_central_catalogue_give_the_central_costs(ground):
    draws, units = bands.Draws(ground, ground.catalog), ground.units(0.05)
    for family in units.families:
        at = units.best(family)
        assert draws.cost(units, at) == pytest.approx(units.cost()[at], rel=1e-9)


def test_two_units_see_the_same_draws(ground):
    draws, units = bands.draws_of(ground, 1), ground.units(0.05)
    one, other = (draws.cost(units, units.best("hbm_gpu", b)) for b in (0, 3))
    spread = [np.std(np.log(x)) for x in (one, other, one / other)]
    assert spread[2] < spread[0] and spread[2] < spread[1]  # a ratio is known better than either
    again = bands.draws_of(ground, 1).cost(units, units.best("hbm_gpu", 0))
    np.testing.assert_array_equal(one, again)


# --- the run and its report --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.toml").write_text(STUDY, encoding="utf-8")
    assert main(["run", str(folder / "small.toml"), "--out", str(folder / "out")]) == 0
    return folder


def test_the_report_leads_with_the_finding_and_holds_its_figures(run):
    ds, page = load(run / "out"), (run / "out" / "report.html").read_text()
    (answer,) = told.answers(ds)
    said = answer.section.sentence
    assert page.index(said[:60]) < page.index("<figure>") and "What demand buys" in page
    for drawn in answer.section.drawn:
        assert drawn.caption[:40] in page and (run / "out" / "figures" / f"{drawn.name}.csv").exists()
    ratio = float(ds["demand.ratio"].sel({"demand.family": "hbm_gpu"}))
    assert re.search(rf"{ratio:.3g} \[\S+ to \S+\] times", said)  # with its band
    assert (run / "out" / "figures" / "headline.png").read_bytes()[:4] == b"\x89PNG"


def test_the_same_seed_gives_the_same_answers(run):
    again = run_study(run / "small.toml")
    first = load(run / "out")
    for name in (n for n in first.data_vars if str(n).startswith("demand.")):
        np.testing.assert_array_equal(first[name].values, again[name].values)
    assert json.loads(again.attrs["analyses"]) == json.loads(first.attrs["analyses"])


def test_bred_chips_lead_their_niches(ground, study, catalog):
    """What is bred for one user is never dearer for one user than where it started."""
    shop = shop_of("hbm_gpu", study.families["hbm_gpu"], catalog)
    _, start = points_of(shop.space, [shop.space.named(shop.space.defaults())])
    grid = replace(ground.grid, formats=("fp8",))
    asked = [Niche(ground.case, (0.05,), (1.0,)), Niche(ground.case, (0.05,), (64.0,))]

    def costs(points):
        values, _ = points_of(shop.space, [shop.space.named(shop.space.decode(points), i) for i in range(len(points))])
        return Scorer(asked, grid).costs(column(build_block(shop, pad(values, 32)).chip, 32))[: len(points)].min(axis=0)

    found = breed(shop, asked, grid, start, 64, seed=1)
    assert 1 <= len(found) <= 2 and np.all(costs(found) <= costs(start)) and np.any(costs(found) < costs(start))
    np.testing.assert_array_equal(found, breed(shop, asked, grid, start, 64, seed=1))


# --- the questions of readers --------------------------------------------------------------------------------------------


def test_thirty_questions_have_an_answer_a_command_or_a_reason(run):
    spec = importlib.util.spec_from_file_location("questions", ROOT / "tools" / "questions.py")
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    asked = tool.read()
    assert len(asked) == 30 and {q["reader"] for q in asked} == {"Hardware architect", "Infrastructure strategist", "Research economist"}
    assert all(q.get("study") or q.get("why") for q in asked)
    for reader in {q["reader"] for q in asked}:
        assert sum(bool(q.get("study")) for q in asked if q["reader"] == reader) >= 4
    assert {q["study"] for q in asked if q.get("study")} <= set(shipped_studies())
    # a question that names a figure of a report quotes the report
    found = tool.answers(run)
    page = tool.page([{"reader": "x", "number": 1, "text": "t", "study": "out", "figure": "demand_load", "analysis": "demand"}], found)
    assert found["out"]["answer"] == found["out"]["analyses"]["demand"] and found["out"]["answer"] in page
