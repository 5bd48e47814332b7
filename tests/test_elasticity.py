"""Are the elasticities those of the model itself: central differences of re-evaluated deployments, and shares of the money?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dse
from dse.analysis.elasticity import (
    FIXED,
    LIMITS,
    MONEY,
    PARAMETERS,
    RATES,
    elasticities,
    limit_elasticities,
    log_cost,
    log_tpot,
    time_elasticities,
)
from dse.evaluate import as_floats
from dse.types import Deployment, Layout, Workload

STEP = 1e-4  # relative step of the central difference
AGREES = 1e-4
CASES = {  # chip: layout, format, owner; away from the kinks of tpot and power
    "nvidia-h100-sxm": (Layout(tp=4, batch=48, format="fp8"), "owner-2026"),
    "nvidia-b200-sxm": (Layout(tp=8, pp=2, batch=200, format="fp8"), "street-2026"),
    "groq-lpu-v1": (Layout(tp=64, pp=16, batch=16, format="fp8"), "owner-2026"),
    "taalas-hc1": (Layout(tp=1, pp=1, batch=4, format="int3"), "owner-2026"),
}


@pytest.fixture(scope="module")
def deployments():
    cat = dse.load_catalog()
    work = Workload(input_tokens=1024, output_tokens=1024)
    return [
        Deployment(chip=cat.chips[c], model=cat.models["llama-3-8b"], workload=work, layout=layout, prices=cat.prices[prices])
        for c, (layout, prices) in CASES.items()
    ]


@pytest.fixture(scope="module")
def found(deployments):
    return elasticities(deployments)


def test_they_are_central_differences_of_the_model(deployments, found):
    assert found.shape == (len(CASES), len(PARAMETERS))
    assert np.isfinite(found).all()
    for row, d in zip(found, deployments, strict=True):
        plain = as_floats(d)
        for exact, name in zip(row, PARAMETERS, strict=True):
            up, down = (float(log_cost({name: s * STEP}, plain)) for s in (1, -1))
            assert exact == pytest.approx((up - down) / (2 * STEP), abs=AGREES), name


def test_they_have_the_signs_that_economists_expect(found):
    of = dict(zip(PARAMETERS, found.T, strict=True))
    for name in ("peak_flop_per_s", "memory_bandwidth_byte_per_s", "sram_bandwidth_byte_per_s", "scale_up_bandwidth_byte_per_s"):
        assert (of[name] <= 1e-12).all(), name
    for name in ("unit_cost_usd", "nre_usd", "energy_usd_per_j", "facility_usd_per_j", "server_usd", "discount_per_year", "host_time_s"):
        assert (of[name] >= -1e-12).all(), name
    for name in ("life_year", "utilisation", "volume_wafer"):
        assert (of[name] <= 1e-12).all(), name
    assert (of["memory_bandwidth_byte_per_s"][:2] < -0.05).all()
    assert of["memory_bandwidth_byte_per_s"][2] == pytest.approx(0, abs=1e-12)  # that chip has no memory beside its SRAM


def test_elasticities_of_prices_are_shares_of_the_money(deployments, found):
    """Cost is linear in prices, so the elasticity of a price is its share; idle time carries its part of all but energy."""
    of = dict(zip(PARAMETERS, found.T, strict=True))
    for i, d in enumerate(deployments):
        m = dse.evaluate(d)
        parts = {k: float(getattr(m.cost_usd_per_s, k)) for k in ("capital", "system", "nre", "energy", "site", "idle")}
        whole = sum(parts.values())
        loaded = 1 + (1 - float(d.prices.utilisation)) / float(d.prices.utilisation)
        assert parts["idle"] == pytest.approx((loaded - 1) * (whole - parts["energy"] - parts["idle"]), rel=1e-9)
        assert of["energy_usd_per_j"][i] == pytest.approx(parts["energy"] / whole, rel=1e-9)
        assert of["facility_usd_per_j"][i] == pytest.approx(parts["site"] * loaded / whole, rel=1e-9)
        assert of["unit_cost_usd"][i] == pytest.approx(parts["capital"] * loaded / whole, rel=1e-9)
        assert of["nre_usd"][i] == pytest.approx(parts["nre"] * loaded / whole, rel=1e-9)
        assert of["volume_wafer"][i] == pytest.approx(-parts["nre"] * loaded / whole, rel=1e-9)
        assert of["utilisation"][i] == pytest.approx(-(whole - parts["energy"]) / whole, rel=1e-9)
        assert of["server_usd"][i] <= parts["system"] * loaded / whole * (1 + 1e-9)
        if float(d.chip.system_usd) == 0:
            prices = ("energy_usd_per_j", "facility_usd_per_j", "unit_cost_usd", "nre_usd", "server_usd")
            assert sum(of[p][i] for p in prices) == pytest.approx(1, rel=1e-9)  # all prices doubled double the cost


def test_a_block_longer_or_shorter_than_the_compiled_one_changes_nothing(deployments, found):
    again = elasticities([deployments[1]] * 17 + [deployments[0]])
    np.testing.assert_allclose(again[[0, 16, 17]], found[[1, 1, 0]], rtol=1e-12, atol=1e-15)
    assert elasticities([]).shape == (0, len(PARAMETERS))


def test_a_deployment_elsewhere_has_other_elasticities(deployments, found):
    one = elasticities([replace(deployments[0], layout=Layout(tp=4, batch=1, format="fp8"))])[0]
    of, alone = (dict(zip(PARAMETERS, x, strict=True)) for x in (found[0], one))
    assert alone["host_time_s"] > of["host_time_s"]


def test_money_shares_sum_to_one(deployments, found):
    """Cost is of degree one in all prices together; each share is that of its parts of the cost."""
    of = dict(zip(PARAMETERS, found.T, strict=True))
    assert sum(of[name] for name in MONEY) == pytest.approx(np.ones(len(CASES)), rel=1e-12)
    for i, d in enumerate(deployments):
        cost = dse.evaluate(d).cost_usd_per_s
        whole = sum(float(x) for x in (cost.capital, cost.system, cost.nre, cost.energy, cost.site, cost.idle))
        assert of["energy_usd_per_j"][i] == pytest.approx(float(cost.energy) / whole, rel=1e-9)


@pytest.fixture(scope="module")
def times(deployments):
    return dict(zip((*RATES, FIXED), time_elasticities(deployments).T, strict=True))


def test_rates_sum_to_minus_one_less_the_share_of_fixed_times(deployments, times):
    """The only units of time are those of rates and of fixed times; that share is taken by central differences too."""
    rates = sum(times[name] for name in RATES)
    assert rates == pytest.approx(-(1 - times[FIXED]), abs=1e-9)
    for share, d in zip(times[FIXED], deployments, strict=True):
        up, down = (float(log_tpot({FIXED: s * STEP}, as_floats(d))) for s in (1, -1))
        assert share == pytest.approx((up - down) / (2 * STEP), abs=AGREES)
        assert 0 < share < 1


def test_a_limit_is_worth_what_a_batch_that_follows_it_saves(deployments):
    """Second way: the batch is moved until the time per token is 0.1 % longer or shorter, and the cost is taken again."""
    from scipy.optimize import brentq

    d = as_floats(deployments[0])
    slack = np.array([[0.0, 1.0, 1.0]])
    exact = limit_elasticities([deployments[0]], slack)[0]
    assert exact[1:].tolist() == [0, 0] and exact[0] < 0

    def metrics(x):
        return dse.evaluate(replace(d, layout=replace(d.layout, batch=d.layout.batch * np.exp(x))))

    base, h = np.log(float(metrics(0.0).tpot_s)), 1e-3
    ends = [brentq(lambda x, s=s: np.log(float(metrics(x).tpot_s)) - base - s * h, -0.1, 0.1) for s in (1, -1)]
    up, down = (np.log(float(metrics(x).usd_per_million_output_token)) for x in ends)
    assert exact[0] == pytest.approx((up - down) / (2 * h), rel=0.02)
    assert LIMITS[0] == "tpot"
