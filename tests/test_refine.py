"""Does the search of the headline alone find what is best there, and say what it costs? Exact costs, the certified grid, ends of ranges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dse.catalog import load_catalog
from dse.certificates import problem_of, refined
from dse.questions import grid_of, questions_of, row_of
from dse.search.designs import Questions, build_block
from dse.search.finalists import Finalist, fine_batches, place
from dse.search.refine import Question, headline_question, other_questions, refine
from dse.search.shards import FINISH, LOOK, ROUND, Plan, points_of
from dse.study import read_study

STUDY, FAMILY, LIMITS = "gpu_vs_sram_vs_asic", "stacked_dram", (0.02, 0.005)
ROUNDS = 75  # three quarters of what a study gives its headline


@pytest.fixture(scope="module")
def setting():
    catalog = load_catalog()
    study = read_study(STUDY, catalog)
    p = problem_of(study, catalog, FAMILY, LIMITS[0])
    case = replace(p.case, prices=(p.case.prices[p.scenario],))
    return p.shop, case, replace(grid_of(study, p.grid.formats), tp=(1, 2, 4), pp=(1, 2))


@pytest.fixture(scope="module")
def found(setting):
    shop, case, grid = setting
    return refine(shop, Question(((case, 1.0),), LIMITS), grid, np.empty((0, shop.space.dimension)), ROUNDS, np.random.default_rng(0))


def test_what_it_says_of_a_chip_is_what_the_model_says_exactly(setting, found):
    shop, case, grid = setting
    values = shop.space.decode(found.points)
    chips = [row_of(build_block(shop, values).chip, i) for i in range(len(found.points))]
    (placed,) = place(case, [Finalist(c, tuple(grid.formats)) for c in chips], grid, LIMITS, octave=True)
    exact = np.full((len(chips), len(LIMITS)), np.inf)
    exact[placed.who, placed.limit] = np.where(placed.valid, np.asarray(placed.metrics.usd_per_million_output_token), np.inf)
    np.testing.assert_allclose(exact.min(axis=0), found.costs.min(axis=0), rtol=1e-4)
    assert found.chips == ROUNDS * 32
    assert found.evaluations > found.chips


def test_it_leaves_little_to_a_search_ten_times_as_long(setting, found):
    """The first chips are drawn at random, and yet the optimum of another seed is met: both stand at the same ends of ranges."""
    shop, case, grid = setting
    question = Question(((case, 1.0),), LIMITS)
    start = found.points
    longer = refine(shop, question, grid, start, 200, np.random.default_rng(1))
    gain = found.costs.min(axis=0) / longer.costs.min(axis=0)
    assert (gain >= 1 - 1e-6).all()
    assert gain[0] < 1.03
    values = shop.space.decode(longer.points[longer.costs[:, 0].argmin()][None])
    assert values["link_byte_per_s"][0] == shop.space["link_byte_per_s"].low  # stopped at the end, not near it
    assert values["die_area_mm2"][0] > 0.98 * shop.space["die_area_mm2"].high


def test_every_batch_lies_in_the_grid_that_certificates_cover(setting):
    _, _, grid = setting
    assert fine_batches(grid.thinned()) == tuple(refined(grid).batches)
    assert set(grid.thinned().batches) <= set(fine_batches(grid.thinned()))


def test_the_headline_of_a_study_is_its_case_or_its_mix():
    catalog = load_catalog()
    study = read_study(STUDY, catalog)
    questions = questions_of(study, catalog)
    one = headline_question(questions)
    assert [(c.model_id, c.workload_id, w) for c, w in one.cases] == [("llama-3-70b", "chat", 1.0)]
    assert len(one.cases[0][0].prices) == 1
    mixed = replace(questions, mixes=(((0, 0.25), (1, 0.75)),))
    assert [(c.workload_id, w) for c, w in headline_question(mixed).cases] == [("chat", 0.25), ("long-context", 0.75)]
    assert questions.headline_cells == slice(0, 10)
    other = replace(questions, headline_case=1, headline_scenario=1)
    assert other.headline_cells == slice(30, 40)
    assert mixed.headline_cells == slice(80, 90)
    assert isinstance(questions, Questions)


@pytest.mark.parametrize("checks, steps", [(1, "lrrrrf"), (2, "lrrfrrf"), (4, "lrfrfrfrf"), (3, "lrrfrfrf")])
def test_finishes_are_spread_over_the_search(setting, checks, steps):
    plan = Plan("x", setting[0].space, 2, 64, "nsga2", True, 4, 12, 1, look=5, finish=7, checks=checks)
    letter = {LOOK: "l", ROUND: "r", FINISH: "f"}
    assert "".join(letter[s] for s in plan.steps) == steps
    assert replace(plan, look=0, finish=0).steps == (ROUND,) * 4


def test_designs_come_back_from_the_ledger_as_the_same_points(setting, found):
    space = setting[0].space
    values = space.decode(found.points)
    _, again = points_of(space, [space.named(values, i) for i in range(len(found.points))])
    np.testing.assert_allclose(again, found.points, atol=1e-12)


def test_for_two_owners_at_once_it_says_what_the_model_says_to_each(setting):
    shop, case, grid = setting
    energy = case.prices[0].energy_usd_per_j
    case = replace(case, prices=tuple(replace(case.prices[0], energy_usd_per_j=energy * k) for k in (1.0, 5.0)))
    points = np.random.default_rng(5).random((32, shop.space.dimension))
    got = refine(shop, Question(((case, 1.0),), LIMITS), grid, points, 30, np.random.default_rng(0))
    assert got.costs.shape == (len(got.points), 2 * len(LIMITS))
    values = shop.space.decode(got.points)
    chips = [row_of(build_block(shop, values).chip, i) for i in range(len(got.points))]
    exact = np.full((len(chips), 2 * len(LIMITS)), np.inf)
    for placed in place(case, [Finalist(c, tuple(grid.formats)) for c in chips], grid, LIMITS, octave=True):
        cost = np.where(placed.valid, np.asarray(placed.metrics.usd_per_million_output_token), np.inf)
        exact[placed.who, placed.scenario * len(LIMITS) + placed.limit] = cost
    np.testing.assert_allclose(exact.min(axis=0), got.costs.min(axis=0), rtol=1e-3)
    assert (got.costs.min(axis=0)[2:] > got.costs.min(axis=0)[:2]).all()


def test_the_other_questions_are_every_cell_but_those_of_the_headline():
    catalog = load_catalog()
    questions = questions_of(read_study(STUDY, catalog), catalog)
    for asked in (questions, replace(questions, headline_case=2, headline_scenario=1)):
        others = other_questions(asked)
        cells = np.concatenate([cells for _, cells in others])
        costs = np.arange(asked.cells - len(asked.cases))  # the last ones are fastest tokens
        np.testing.assert_array_equal(np.sort(np.r_[cells, costs[asked.headline_cells]]), costs)
        for question, mine in others:
            assert question.cells == len(mine)
            ((case, _),) = question.cases
            which = [(c.model_id, c.workload_id) for c in asked.cases].index((case.model_id, case.workload_id))
            assert set(mine.tolist()) <= set(costs[asked.cells_of(which)].tolist())
