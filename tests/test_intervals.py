"""Intervals enclose: no value of a function at a random point of a random box lies outside of what is claimed for the box."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dse.equations import collectives, fabrication, finance, power, serving, silicon, smooth
from dse.search.bounds import WHOLE
from dse.search.intervals import Interval, enclose, kept_whole

PAIRS = 20_000
PRICE = 1e3

# name: (function, range of each argument, which is drawn log-uniformly)
NAMED = {
    "smooth_max": (lambda a, b, c: smooth.smooth_max(2, 1.0, a, b, c), ((1e-9, 1.0),) * 3),
    "smooth_min": (lambda a, b, c: smooth.smooth_min(16, 1.0, a, b, c), ((1e-6, 1e-2),) * 3),
    "shares": (lambda a, b: smooth.shares(2, a, b)[0], ((1e-6, 1.0),) * 2),
    "filled_share": (smooth.filled_share, ((1.0, 1e3), (1e-3, 1.0))),
    "present": (smooth.present, ((1.0, 8.0),)),
    "split_levels": (lambda n, d: collectives.split_levels(n, d)[1], ((1.0, 64.0), (1.0, 64.0))),
    "dies_per_wafer": (lambda a: fabrication.dies_per_wafer(a, 300.0), ((20.0, 1500.0),)),
    "negative_binomial_yield": (fabrication.negative_binomial_yield, ((1e-3, 2.0), (1.0, 5.0))),
    "murphy_yield": (fabrication.murphy_yield, ((1e-3, 2.0),)),
    "die_cost_usd": (fabrication.die_cost_usd, ((1e3, 3e4), (10.0, 600.0), (0.1, 1.0))),
    "annuity": (finance.annuity, ((0.01, 0.3), (1.0, 10.0))),
    "speed_at": (lambda v: power.speed_at(v, 0.3, 1.3), ((0.2, 1.1),)),
    "clock_hz": (lambda v: power.clock_hz(1e9, 1.1, v, 0.75, 0.3, 1.3), ((0.55, 0.95),)),
    "heat_limited_rate": (power.heat_limited_rate, ((1e2, 1e3), (1.0, 1e3), (1e-13, 1e-11), (1e13, 1e16))),
    "slack": (power.slack, ((1.0, 1e3), (10.0, 1e3))),
    "throttle": (power.throttle, ((1e-3, 1e3), (1e-3, 1.0), (1.0, 64.0), (1e2, 1e3), (1.0, 50.0))),
    "first_token_s": (serving.first_token_s, ((1e-3, 1.0), (1e-3, 0.1), (1e-3, 1.0), (0.01, 2.0), (0.01, 0.1), (1.0, 1e3))),
    "requests_per_s": (serving.requests_per_s, ((1.0, 1e3), (1e-2, 2.0), (1e-3, 0.1), (1.0, 1e3))),
    "sram_density": (silicon.sram_density_byte_per_mm2, ((1e6, 1e7), (4e3, 7e4), (5e3, 7e3))),
    "long_edge_m": (silicon.long_edge_m, ((50.0, 900.0), (1.0, 2.0))),
    "beachfront_m": (lambda a, n: silicon.beachfront_m(a, n, 33 / 26), ((50.0, 900.0), (1.0, 8.0))),
}


def _boxes(ranges, rng):
    """Random boxes and a point in each, from points to the whole range."""
    boxes, points = [], []
    for low, high in ranges:
        a, b = (low * (high / low) ** rng.random(PAIRS) for _ in range(2))
        b = a * (b / a) ** (rng.random(PAIRS) ** 4)
        box = Interval(np.minimum(a, b), np.maximum(a, b))
        boxes.append(box)
        points.append(np.clip(box.low + rng.random(PAIRS) * (box.high - box.low), *box))
    return boxes, points


@pytest.mark.parametrize("name", NAMED)
def test_no_value_lies_outside(name):
    function, ranges = NAMED[name]
    boxes, points = _boxes(ranges, np.random.default_rng(len(name)))
    found = jax.jit(lambda *xs: enclose(function, *xs))(*boxes)
    value = np.asarray(function(*points))
    known = ~np.isnan(np.asarray(found.low + found.high))
    assert known.mean() > 0.5
    assert not (value < np.asarray(found.low))[known].any()
    assert not (value > np.asarray(found.high))[known].any()


@pytest.mark.parametrize("module, name, outputs", [(m, n, o) for m, d in WHOLE for n, o in d.items()])
def test_functions_kept_whole_go_the_way_that_is_declared(module, name, outputs):
    rest = {"dies_per_wafer": (300.0,), "slack": (), "speed_at": (0.3, 1.3), "beachfront_m": (33 / 26,)}[name]
    ranges = {"dies_per_wafer": ((20.0, 40_000.0),), "slack": ((0.0, 1e3), (1.0, 1e3)), "speed_at": ((0.2, 1.1),)}
    rng = np.random.default_rng(0)
    points = [rng.uniform(a, b, PAIRS) for a, b in ranges.get(name, ((20.0, 1e3), (1.0, 8.0)))]
    function = getattr(module, name)
    for i, direction in enumerate(outputs[0]):
        further = [p + (0.1 * rng.random(PAIRS) * p if j == i else 0.0) for j, p in enumerate(points)]
        change = np.asarray(function(*further, *rest)) - np.asarray(function(*points, *rest))
        assert (direction * change >= -1e-9 * np.abs(np.asarray(function(*points, *rest)))).all()


def test_a_function_kept_whole_is_tight_and_put_back():
    before, area = fabrication.dies_per_wafer, Interval(100.0, 800.0)
    loose = enclose(lambda a: fabrication.dies_per_wafer(a, 300.0), area)
    with kept_whole(fabrication, {"dies_per_wafer": ((-1,),)}):
        tight = enclose(lambda a: fabrication.dies_per_wafer(a, 300.0), area)
    assert fabrication.dies_per_wafer is before
    assert float(tight.low) == pytest.approx(float(before(800.0, 300.0)))
    assert float(tight.high) == pytest.approx(float(before(100.0, 300.0)))
    assert float(loose.low) < float(tight.low)


def test_division_by_an_interval_with_zero_has_no_bound():
    found = enclose(lambda x: 1.0 / x, Interval(-1.0, 2.0))
    assert found.low == -np.inf
    assert found.high == np.inf


def test_an_undecided_choice_is_the_hull():
    found = enclose(lambda x: jnp.where(x > 1.0, 5.0, 2.0), Interval(np.array([0.0, 0.0, 2.0]), np.array([0.5, 3.0, 3.0])))
    np.testing.assert_allclose(found.low, [2.0, 2.0, 5.0])
    np.testing.assert_allclose(found.high, [2.0, 5.0, 5.0])


def test_an_operation_without_a_rule_is_refused():
    with pytest.raises(NotImplementedError, match="cos"):
        enclose(jnp.cos, Interval(0.0, 1.0))
