"""Are break-evens where the costs cross, by formula and by root finding of another kind, and is the envelope theorem obeyed?"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq

import dse
from dse.analysis import breakeven as B
from dse.analysis.inputs import scaled
from dse.study import read_study

spec = importlib.util.spec_from_file_location("test_uncertainty", Path(__file__).with_name("test_uncertainty.py"))
assert spec and spec.loader
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)


def lever(name, most=100.0, low=0.5, high=2.0):
    return B.Lever(name, (("k", "i", name),), low, high, most)


# --- on curves that are known ---------------------------------------------------------------------------------------------------

A, C, SHARE = lever("a"), lever("b"), lever("c", most=1.25)


def known(rows):
    """Lead of a market of two: rival 8 a, leader 2 a^2 b: even at a = 4 / b."""
    a = np.array([row.get(A, 1.0) for row in rows])
    b = np.array([row.get(C, 1.0) for row in rows])
    return np.log(8 * a) - np.log(2 * a**2 * b), np.where(8 * a < 2 * a**2 * b, 1, 0)


def test_flips_of_a_known_market():
    found = B.flips(known, [A, C, SHARE], ("leader", "rival"))
    assert [len(f) for f in found] == [1, 1, 0]
    assert found[0][0].multiple == pytest.approx(4, rel=1e-3) and found[1][0].multiple == pytest.approx(4, rel=1e-3)
    assert found[0][0].leader == "rival" and not found[0][0].inside
    near = B.flips(known, [lever("b", high=5.0)], ("leader", "rival"))
    assert near == [[]]  # another lever of the same name moves nothing here


def test_an_interval_that_reaches_the_flip_says_so():
    wide = lever("a", low=0.2, high=6.0)

    def function(rows):
        return known([{A: row.get(wide, 1.0)} for row in rows])

    assert B.flips(function, [wide], ("leader", "rival"))[0][0].inside


def test_the_line_of_a_pair_is_the_hyperbola():
    xs = [0.5, 1.0, 2.0]
    assert B.line_of(known, C, A, ("leader", "rival"), xs) == pytest.approx([4 / x for x in xs], rel=1e-3)


def test_levers_that_move_nothing_are_dropped():
    assert B.moving(known, [A, C, SHARE]) == [A, C]


def test_a_lead_without_a_rival_is_infinite():
    assert B.lead(np.array([[1.0, np.inf], [np.inf, 2.0]]), 0, [1]).tolist() == [np.inf, -np.inf]


# --- on chips ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cat():
    return dse.load_catalog()


@pytest.fixture(scope="module")
def study(cat):
    return read_study("gpu_vs_sram_vs_asic", cat)


@pytest.fixture(scope="module")
def setting(cat, study):
    from dse.analysis.compare import Question
    from dse.questions import questions_of

    q = questions_of(study, cat)
    sides = {f: [shared.competitor(cat, study, f)] for f in shared.FAMILY_PAIR}
    return B.Setting(sides, Question(q.cases[0], (0.1, 0.02), (shared.SCENARIO,)), 0, 0)


def test_named_levers_are_numbers_of_the_catalogue(cat, study):
    from dse.analysis.inputs import records_of

    found = {x.name: x for x in B.named_levers(cat, records_of(study, cat))}
    assert set(found) == set(B.LEVERS)  # none has lost its numbers
    assert found["HBM price"].low < 1 < found["HBM price"].high
    assert found["utilisation"].most == pytest.approx(B.FULL / cat.records["prices"]["owner-2026"].values["utilisation"].value)


def test_a_flip_is_where_exact_costs_cross(cat, study, setting):
    """Second way: Brent's method on costs by the search's builder and ``evaluate`` in double precision."""
    from dse.analysis.inputs import records_of

    names = setting.names
    costs = B.costs_at(setting, cat, [{}])[:, 0]
    order = [names[i] for i in np.argsort(costs)]
    leader, rival = order
    turned = B.Lever("price of the leader", tuple(("families", leader, n) for n in ("mac", "design")), 0.5, 2.0, 100.0)
    candidates = [turned, *B.named_levers(cat, records_of(study, cat))]
    function = B.leads(B.Costs(setting, cat), leader, [rival])
    flips = [n for f in B.flips(function, candidates, names) if (n := B.nearest(f))]
    assert flips
    first = min(flips, key=lambda f: abs(np.log(f.multiple)))
    places = next(x for x in candidates if x.name == first.lever).places

    def gap(log_multiple):
        other = scaled(cat, places, float(np.exp(log_multiple)))
        one, two = (
            shared.exact(other, study, setting.question, setting.sides[n][0], setting.question.limits_s[0]) for n in (leader, rival)
        )
        return np.log(two / one)

    at = np.log(first.multiple)
    assert np.exp(brentq(gap, at - 0.05, at + 0.05, xtol=1e-3)) == pytest.approx(first.multiple, rel=5e-3)
    assert first.leader == rival


def test_envelope_of_a_problem_with_a_known_optimum():
    """cost = x / b + 1, time = x^2 b, time <= 1: the best batch is 1 / x^2, cost* = x^3 + 1, slope 3 x^3 / (x^3 + 1) = 1.5 at x = 1."""

    def logs(x, b):
        x, b = np.exp(x), np.exp(b)
        return np.log(x / b + 1), np.log(x**2 * b)

    assert B.envelope(logs, held=True) == pytest.approx(1.5, rel=1e-6)
    assert B.envelope(logs, held=False) == pytest.approx(0.5, rel=1e-6)


# --- what the report says of it ----------------------------------------------------------------------------------------------------


def test_the_flip_table_of_the_report_is_that_of_the_dataset():
    import xarray as xr

    from dse.report import breakeven as told

    found = tuple(tuple(f) for f in B.flips(known, [A, SHARE], ("stacked_dram", "sram")))
    multiples = np.array([0.5, 1.0, 2.0])
    curves = np.array([known([{A: x} for x in multiples])[0]])
    made = B.Ranking("families", "stacked_dram", (A, SHARE), found, multiples, curves, ("b", "a"), ((0.5, 8.0), (1.0, 4.0), (2.0, 2.0)))
    ds = B.into(xr.Dataset(), [made])
    again = B.into(ds, [made])  # a second analysis replaces the first
    assert again.equals(ds)
    record = told.flips(ds, "families")
    assert [f.lever for f in record.flips] == ["a"] and record.flips[0].multiple == pytest.approx(4, rel=1e-3)
    assert record.flips[0].leader == "sram" and "times 4" in record.caption
    assert told.pair(ds, "families").line == ((0.5, 8.0), (1.0, 4.0), (2.0, 2.0))
    told.draw_flips(record)
    told.draw_pair(told.pair(ds, "families"))


def test_redesigns_are_told_with_their_sign():
    import xarray as xr

    from dse.analysis.redesign import compared
    from dse.report import redesign

    chosen, again = np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 4.0]]), np.array([[0.5, 2.2, np.inf], [0.4, 1.0, 2.0]])
    record = redesign.redesign(compared(xr.Dataset(), ["sram", "hbm_gpu"], chosen, again))
    assert "changes in 2 of 3 samples" in record.caption  # one is cheaper the other way round; one search found nothing
    assert "in 1 of them only one of the two meets the limits" in record.caption
    assert record.rows[1]["cost_reoptimised"] == 2.2
    redesign.draw_redesign(record)
