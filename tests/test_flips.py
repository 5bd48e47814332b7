"""Do break-evens follow the designs: is the envelope theorem obeyed, and is the root of re-optimised costs where the ranking turns?"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dse import certificates
from dse.analysis import flips as F
from dse.analysis import optima as O
from dse.analysis.breakeven import Flip, Lever, named_levers
from dse.analysis.inputs import records_of, scaled
from dse.analysis.optima import Start
from dse.catalog import load_catalog
from dse.questions import shop_of
from dse.study import read_study

STUDY, LIMIT_S, FAMILY = "gpu_vs_sram_vs_asic", 0.02, "hbm_gpu"
DESIGN = {
    "node": "n3", "die_area_mm2": 590.0, "dies": 4, "voltage_v": 0.8, "cooling": "liquid", "link_byte_per_s": 1.1e11, "memory": "hbm4",
    "stacks": 10, "datapath": "large-tile", "compute_share": 0.95,
}  # fmt: skip
LAYOUT = {"tp": 1.0, "pp": 1.0, "dp": 1.0, "ep": 1.0, "batch": 215.0, "format": "fp8"}
SHORT = ("HBM price", "logic density")  # a price, a variable of the chip
CHANGE = 2e-3  # of a lever, in logarithms


@pytest.fixture(scope="module")
def catalog():
    return load_catalog()


@pytest.fixture(scope="module")
def study(catalog):
    return read_study(STUDY, catalog)


@pytest.fixture(scope="module")
def asked(catalog, study):
    p = certificates.problem_of(study, catalog, FAMILY, LIMIT_S)
    return O.Asked(p.case, study.headline.scenario, LIMIT_S)


@pytest.fixture(scope="module")
def start(catalog, study):
    p = certificates.problem_of(study, catalog, FAMILY, LIMIT_S)
    grid = replace(p.grid, tp=(1, 2), pp=(1,), batches=(128, 181, 215, 256))
    return Start(FAMILY, lambda book: shop_of(FAMILY, study.families[FAMILY], book), (DESIGN,), grid)


@pytest.fixture(scope="module")
def best(start, catalog, asked):
    found = O.polished(start, catalog, asked, DESIGN, LAYOUT, rounds=1, each=0, cycles=2)
    return O.polished(start, catalog, asked, found.decisions, found.layout, rounds=1, each=0, cycles=2)


@pytest.fixture(scope="module")
def levers(catalog, study):
    return {x.name: x for x in named_levers(catalog, records_of(study, catalog))}


def reoptimised_slope(start, catalog, asked, best, lever):
    """Second way: the design polished again with the lever a little larger and a little smaller."""
    costs = [
        O.polished(start, scaled(catalog, lever.places, float(np.exp(s * CHANGE))), asked, best.decisions, best.layout, 1, 0, 1).cost
        for s in (1, -1)
    ]
    return np.log(costs[0] / costs[1]) / (2 * CHANGE)


def test_envelope_derivatives_are_those_of_designs_polished_again(start, catalog, asked, best, levers):
    exact, residual = O.slopes(start, catalog, asked, best, [levers[n].places for n in SHORT])
    assert residual < O.STATIONARY
    for name, slope in zip(SHORT, exact, strict=True):
        assert abs(slope) > 1e-3
        assert slope == pytest.approx(reoptimised_slope(start, catalog, asked, best, levers[name]), rel=0.02), name


@pytest.mark.long
def test_envelope_derivatives_of_all_levers(start, catalog, asked, best, levers):
    """Chip variables and prices alike, every lever that moves the cost by a thousandth of its own change."""
    exact, _ = O.slopes(start, catalog, asked, best, [x.places for x in levers.values()])
    moving = [(x, s) for x, s in zip(levers.values(), exact, strict=True) if abs(s) > 1e-3]
    assert len(moving) >= 10
    for lever, slope in moving:
        assert slope == pytest.approx(reoptimised_slope(start, catalog, asked, best, lever), rel=0.02), lever.name


def test_all_prices_together_have_slope_one(start, catalog, asked, best):
    """Cost is of degree one in everything that is paid in money; the design does not move if all of it doubles."""
    usd = [
        (k, i, n) for k, i in records_of(read_study(STUDY, catalog), catalog) for n, q in catalog.records[k][i].values.items()
        if "USD" in q.unit and q.value > 0
    ]  # fmt: skip
    (slope,), _ = O.slopes(start, catalog, asked, best, [usd])
    assert slope == pytest.approx(1.0, abs=1e-6)


# --- the root ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slopes", [True, False])
@pytest.mark.parametrize("first", [0.05, 0.5, 2.5])
def test_root_of_a_known_lead(first, slopes):
    def lead(x):
        return F.Lead(1.0 - x**3, -3 * x**2 if slopes else float("nan"))

    x, found = F.root(lead, first, 100.0)
    assert x == pytest.approx(1.0, abs=0.02) and abs(found.value) < F.BESIDE


def test_root_downwards_and_past_what_cannot_be_built():
    def lead(x):
        return F.Lead(np.inf if x < -2 else -np.inf if x > 0.5 else 1.0 + x, 1.0)

    assert F.root(lead, -0.3, 100.0)[0] == pytest.approx(-1.0, abs=1e-6)
    assert F.root(lambda x: F.Lead(1.0 + x / 100, 0.01), -0.3, 100.0) is None  # nothing within reach
    x, found = F.root(lead, 0.3, 100.0)  # the leader drops out without ever being dearer
    assert x == pytest.approx(0.5, abs=0.1) and found.value == -np.inf


# --- two families that are known ---------------------------------------------------------------------------------------------------


class Known(F.Pair):
    """A market of two whose best costs are formulas: leader x^2, rival 4 x^(1/2), even at 4^(2/3)."""

    stated = (None, None)

    def best(self, lever, multiple, known):
        return tuple(type("Best", (), {"cost": c})() for c in (multiple**2, 4 * multiple**0.5))

    def slope(self, lever, multiple, found):
        return 0.5 - 2.0

    def afresh(self, lever, multiple, limits_s):
        return float(np.log(4 * multiple**0.5 / multiple**2))


def test_a_flip_is_followed_and_confirmed_on_both_sides():
    family = type("Family", (), {"family": "sram"})()
    pair = Known(family, family, None, None, 0)
    lever = Lever("price", (("k", "i", "n"),), 0.5, 2.0, 100.0)
    found = F.found_anew(pair, lever, Flip("price", 1.5, "sram", True))
    assert found.multiple == pytest.approx(4 ** (2 / 3), rel=F.CLOSE) and found.confirmed is None
    sure = F.confirmed(pair, lever, found, ())
    assert sure.confirmed and sure.before[0] < found.multiple < sure.after[0]
    assert sure.before[1] == pytest.approx(F.BESIDE, rel=0.1) and sure.after[1] == pytest.approx(-F.BESIDE, rel=0.1)


def test_flips_go_into_the_dataset_and_the_report_says_them():
    import xarray as xr

    from dse.analysis import breakeven as B
    from dse.report import breakeven as told

    lever = Lever("price", (("k", "i", "n"),), 0.5, 2.0, 100.0)
    made = B.Ranking("families", "sram", (lever,), ((Flip("price", 1.5, "hbm_gpu", True),),), np.array([1.0, 2.0]), np.zeros((1, 2)))
    ds = B.into(xr.Dataset(), [made])
    (near,) = F.nearest_of(ds, "families")
    assert near.multiple == 1.5 and near.leader == "hbm_gpu"
    row = F.Reoptimised("price", 1.5, 2.0, -1.5, "sram", "hbm_gpu", (1.9, 0.05), (2.1, -0.03))
    out = F.into(ds, [row])
    assert out["flip_reoptimised"].sel(lever="price", way="up") == 2.0
    assert json.loads(out.attrs["flips_reoptimised"])[0]["confirmed"] is True
    text = told.checked(out)
    assert "price times 2 instead of times 1.5" in text and "confirm 1 of the 1 nearest" in text
    assert told.flips(out, "families").flips[0].anew == 2.0
    never = F.into(ds, [replace(row, multiple=float("nan"), before=(np.nan, np.nan))])
    assert "at no multiple within reach" in told.checked(never)
