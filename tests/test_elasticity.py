"""Are the elasticities those of the model itself: central differences of re-evaluated deployments, and shares of the money?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dse
from dse.analysis.elasticity import PARAMETERS, elasticities, log_cost
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
