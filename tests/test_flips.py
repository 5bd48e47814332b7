"""Do break-evens follow the designs: is the envelope theorem obeyed, and is the root of re-optimised costs where the ranking turns?"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dse import certificates
from dse.analysis import flips as F
from dse.analysis import optima as O
from dse.analysis import roots as R
from dse.analysis.anew import Anew
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
    found = O.polished(start, catalog, asked, DESIGN, LAYOUT, rounds=1, each=0, cycles=2, walk=0)
    return O.polished(start, catalog, asked, found.decisions, found.layout, rounds=1, each=0, cycles=2, walk=0)


@pytest.fixture(scope="module")
def levers(catalog, study):
    return {x.name: x for x in named_levers(catalog, records_of(study, catalog))}


def reoptimised_slope(start, catalog, asked, best, lever):
    """Second way: the design polished again with the lever a little larger and a little smaller."""
    books = [scaled(catalog, lever.places, float(np.exp(s * CHANGE))) for s in (1, -1)]
    costs = [O.polished(start, b, asked, best.decisions, best.layout, rounds=1, each=0, cycles=1, walk=0).cost for b in books]
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
        return R.Lead(1.0 - x**3, -3 * x**2 if slopes else float("nan"))

    x, found = R.root(lead, first, 100.0)
    assert x == pytest.approx(1.0, abs=0.02) and abs(found.value) < F.BESIDE


def test_root_downwards_and_past_what_cannot_be_built():
    def lead(x):
        return R.Lead(np.inf if x < -2 else -np.inf if x > 0.5 else 1.0 + x, 1.0)

    assert R.root(lead, -0.3, 100.0)[0] == pytest.approx(-1.0, abs=1e-6)
    assert R.root(lambda x: R.Lead(1.0 + x / 100, 0.01), -0.3, 100.0) is None  # nothing within reach
    x, found = R.root(lead, 0.3, 100.0)  # the leader drops out without ever being dearer
    assert x == pytest.approx(0.5, abs=0.1) and found.value == -np.inf


@pytest.mark.parametrize("slopes", [True, False])
@pytest.mark.parametrize("first", [-2.0, 0.2, 1.5])
def test_root_of_a_line_on_either_side_of_the_start(first, slopes):
    for sign in (1, -1):
        line = R.Line(first, 100.0, rising=sign > 0)
        while not line.done:
            line.tell(R.Lead(sign * (line.x - 0.7), sign * 1.0 if slopes else float("nan")))
        assert line.at[0] == pytest.approx(0.7, abs=0.02)
    never = R.Line(first, 100.0, rising=True)
    while not never.done:
        never.tell(R.Lead(1.0, 0.0))
    assert never.at is None


# --- designs made anew --------------------------------------------------------------------------------------------------------------


def test_a_catalogue_touches_whom_it_concerns(catalog, asked, start, levers):
    """What a family is not built with moves nothing of it: no search is made for that."""
    market = Anew(catalog, asked, {FAMILY: start}, 0)
    for name, touched in (("HBM price", True), ("logic density", True), ("energy price", True), ("bonded DRAM bandwidth", False)):
        assert market.touched(FAMILY, scaled(catalog, levers[name].places, 1.1)) is touched, name
    assert not market.touched(FAMILY, scaled(catalog, levers["HBM price"].places, 1.0)) and not market.made


@pytest.mark.long
def test_a_family_made_anew_is_no_dearer_than_its_design_polished(catalog, asked, start, best, levers):
    market = Anew(catalog, asked, {FAMILY: start}, 0)
    for name, multiple in (("HBM price", 0.5), ("HBM price", 2.0), ("logic density", 1.2)):
        book = scaled(catalog, levers[name].places, multiple)
        found = market.best(FAMILY, book, best)
        alone = O.polished(start, book, asked, best.decisions, best.layout, rounds=1, each=0, cycles=2)
        assert found.feasible and found.cost < alone.cost * 1.001, name


# --- two families that are known ---------------------------------------------------------------------------------------------------


class Known:
    """A design whose cost is known."""

    def __init__(self, log_cost):
        self.cost = float(np.exp(log_cost))


class KnownMarket:
    """A market of two whose best costs are formulas: leader x^2, rival 4 x^(1/2), even at 4^(2/3); a third that nothing touches."""

    above = 0.1  # of costs with designs held, times the logarithm of the multiple squared

    def __init__(self, catalog, lever):
        self.formulas = {"sram": (0.0, 2.0), "hbm_gpu": (np.log(4), 0.5), "burned_in": (np.log(9), 0.0)}
        self.catalog, self.starts, self.place = catalog, dict.fromkeys(self.formulas), lever.places[0]
        self.asked = []

    def x(self, book):
        kind, identity, name = self.place
        return float(np.log(book.records[kind][identity].values[name].value / self.catalog.records[kind][identity].values[name].value))

    def touched(self, family, book):
        return self.formulas[family][1] != 0

    def optimum(self, family):
        return Known(self.formulas[family][0])

    def best(self, family, book, known=None):
        a, b = self.formulas[family]
        self.asked.append(family)
        return Known(a + b * self.x(book))

    def slope(self, family, book, found, places):
        return self.formulas[family][1]

    def held(self, rows):
        x = np.log([next(iter(r.values())) for r in rows])
        return {f: a + b * x + self.above * (b != 0) * x**2 for f, (a, b) in self.formulas.items()} | {
            "real": np.full(len(rows), np.log(25.0))
        }


class KnownPair(F.Pair):
    """The same two for searches from nothing."""

    def afresh(self, lever, multiple, limits_s, kept=()):
        return float(np.log(4 * multiple**0.5 / multiple**2))


def test_flips_are_followed_and_confirmed_on_both_sides(catalog, levers):
    lever = levers["HBM price"]
    market = KnownMarket(catalog, lever)
    rivals = ("hbm_gpu", "burned_in")
    turns = [F.Turn(lever, np.log(1.5), rivals, 1.5), F.Turn(lever, np.log(1 / 100), rivals), F.Turn(lever, np.log(3), ("real",))]
    up, down, real = F.followed(market, "sram", turns, market.held)
    assert up.multiple == pytest.approx(4 ** (2 / 3), rel=2 * R.CLOSE) and up.leader == "hbm_gpu"
    assert up.envelope == pytest.approx(4 ** (2 / 3), rel=1e-6)  # straight lines: the first step of the envelope theorem is exact
    assert up.trials == 2 and "burned_in" not in market.asked  # nothing touches it
    assert np.isnan(down.multiple) and down.leader == "" and down.settled  # cheaper, the leader leads by more
    assert real.multiple == pytest.approx(5.0, rel=0.02) and real.leader == "real"
    family, other = (type("Family", (), {"family": f})() for f in ("sram", "hbm_gpu"))
    flip = F.Reoptimised("HBM price", 1.5, up.multiple, up.slope, "sram", "hbm_gpu")
    sure = F.confirmed(KnownPair(family, other, None, catalog, 0), market.held, lever, flip, ())
    assert sure.confirmed and sure.before[0] < up.multiple < sure.after[0]
    assert sure.before[1] == pytest.approx(F.BESIDE, rel=0.1) and sure.after[1] == pytest.approx(-F.BESIDE, rel=0.1)


def test_designs_of_the_front_stay_open_to_their_owner(catalog, levers):
    """Where the design held is the cheaper one, the flip is that of the design held, and its slope too."""
    lever = levers["HBM price"]
    market = KnownMarket(catalog, lever)
    market.above = -0.1
    (up,) = F.followed(market, "sram", [F.Turn(lever, np.log(1.5), ("hbm_gpu",), 1.5)], market.held)
    # 2 x - x^2 / 10 = log 4 + x / 2 - x^2 / 10
    assert up.multiple == pytest.approx(4 ** (2 / 3), rel=2 * R.CLOSE)
    assert up.slope == pytest.approx(-1.5, rel=1e-3)


def test_a_root_that_does_not_settle_leaves_the_flip_of_the_fronts_designs():
    b = R.Bracket(0.5, 100.0)
    while not b.done:
        b.tell(R.Lead(0.5 if b.x < 0.9 else -np.inf))
    assert b.unsettled == (b.at is None)
    never = R.Bracket(0.5, 100.0)
    while not never.done:
        never.tell(R.Lead(1.0, -1e-3))
    assert never.at is None and not never.unsettled  # looked at the end of the reach


def test_flips_go_into_the_dataset_and_the_report_says_them():
    import xarray as xr

    from dse.analysis import breakeven as B
    from dse.report import breakeven as told

    lever = Lever("price", (("k", "i", "n"),), 0.5, 2.0, 100.0)
    made = B.Ranking("families", "sram", (lever,), ((Flip("price", 1.5, "hbm_gpu", True),),), np.array([1.0, 2.0]), np.zeros((1, 2)))
    ds = B.into(xr.Dataset(), [made])
    (turn,) = F.turns_of(ds, "families", {"price": lever}, ("hbm_gpu",))
    assert turn.fixed == 1.5
    row = F.Reoptimised("price", 1.5, 2.0, -1.5, "sram", "hbm_gpu", (1.9, 0.05), (2.1, -0.03))
    out = F.into(ds, {"families": [F.Followed(turn, 2.0, -1.5, "hbm_gpu", 0.0, 3, 1.9)]}, [row], {})
    assert out["flip_reoptimised"].sel(against="families", lever="price", way="up") == 2.0
    assert json.loads(out.attrs["flips_reoptimised"])[0]["confirmed"] is True
    assert "confirm 1 of the 1 nearest" in told.checked(out)
    (flip,) = told.flips(out, "families").flips
    assert flip.multiple == 2.0 and flip.fixed == 1.5 and flip.envelope == 1.9 and flip.inside and flip.anew  # the interval ends at 2
    assert "price times 2 (HBM GPU would lead)" in told.flips(out, "families").caption
    told.draw_flips(told.flips(out, "families"))
    none = F.into(ds, {"families": [F.Followed(turn, float("nan"), np.nan, "", np.nan, 8)]}, [], {})
    assert not told.flips(none, "families").flips and told.checked(none) == ""


def test_a_flip_that_was_not_looked_for_again_is_told_as_one_of_the_fronts_designs():
    import xarray as xr

    from dse.analysis import breakeven as B
    from dse.report import breakeven as told

    levers = [Lever(n, (("k", "i", n),), 0.5, 2.0, 100.0) for n in ("price", "yield")]
    flips = ((Flip("price", 1.5, "hbm_gpu", True),), (Flip("yield", 0.1, "hbm_gpu", False),))
    made = B.Ranking("families", "sram", tuple(levers), flips, np.array([1.0, 2.0]), np.zeros((2, 2)))
    ds = B.into(xr.Dataset(), [made])
    near, far = sorted(F.turns_of(ds, "families", {x.name: x for x in levers}, ("hbm_gpu",)), key=lambda t: abs(t.first))
    assert (near.lever.name, far.lever.name) == ("price", "yield")
    out = F.into(ds, {"families": [F.Followed(near, float("nan"), 0.0, "", 0.0, 3)]}, [], {})
    (kept,) = told.flips(out, "families").flips  # the price flips nothing once designs follow it
    assert kept.lever == "yield" and kept.multiple == pytest.approx(0.1) and not kept.anew
    assert told.flips(out, "families").never == ("price",)
    assert "0 of these" in told.flips(out, "families").caption
