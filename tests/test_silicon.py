"""Are area, yield, cost and power equations right at known chips, monotone in the right direction, and smooth?"""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.catalog import load_catalog
from dse.catalog.silicon import build_family, build_memory, build_process, build_technology, field_of
from dse.equations import fabrication, power, silicon
from dse.errors import InputError
from dse.paths import data_dir

CATALOG = load_catalog()
TECHNOLOGY = build_technology(CATALOG.records)
PROCESSES = {name: build_process(record) for name, record in CATALOG.records["processes"].items()}


def test_wafer_yield_and_die_cost_of_an_h100():
    gross = float(fabrication.dies_per_wafer(814.0, 300.0))
    good = float(fabrication.negative_binomial_yield(fabrication.critical_defects(814.0, 0.001, 0.75), 3.0))
    assert gross == pytest.approx(63.48, abs=0.005)
    assert good == pytest.approx(0.82, abs=0.005)
    assert float(fabrication.negative_binomial_yield(0.814, 3.0)) == pytest.approx(0.49, abs=0.005)
    assert float(fabrication.die_cost_usd(16000.0, gross, good)) == pytest.approx(307, abs=0.5)


def test_bill_of_materials_of_an_h100():
    gross = fabrication.dies_per_wafer(814.0, 300.0)
    die = fabrication.die_cost_usd(16000.0, gross, fabrication.negative_binomial_yield(0.2035, 3.0))
    memory = 80 * 16.9
    package = fabrication.interposer_package_usd(814 + 5 * 130, 100.0, 0.35, 1.15)
    loss = fabrication.assembly_loss_usd(package, die, 1.0, memory, 5.0, 0.985)
    assert float(die + memory + package + loss + 480) == pytest.approx(3051, rel=0.03)  # all at stake in every placement: 3051
    everything = (0.985**-6 - 1) * (die + memory + package)
    assert 0.5 < float(loss / everything) < 1


def test_floor_plan_of_an_a100_against_its_die_photograph():
    n7, logic, sram, memory = PROCESSES["n7"], TECHNOLOGY.logic, TECHNOLOGY.sram, TECHNOLOGY.memories["hbm2e"]
    density, u = n7.density_transistor_per_mm2, logic.utilisation
    vector = 64 * logic.fp32_transistor + 64 * logic.int32_transistor + (32 + 16) * logic.fp64_transistor
    parts = {
        "multipliers": silicon.logic_area_mm2(128 * 1024 * 0.093e6, density, u),
        "vector": silicon.logic_area_mm2(128 * vector, density, u),
        "control": silicon.logic_area_mm2(128 * logic.gpu_core_transistor, density, u),
        "registers": 128 * 262144 / (n7.sram_byte_per_mm2 * sram.register_density),
        "l1": 128 * 192 * 1024 / (n7.sram_byte_per_mm2 * sram.l1_density),
        "l2": silicon.cache_area_mm2(48 * 2**20, n7.sram_byte_per_mm2, sram.cache_overhead)
        + silicon.cache_port_area_mm2(5120.0, sram.cache_port_mm2_per_byte, logic.reference_transistor_per_mm2, density),
        "crossbar": silicon.logic_area_mm2(128 * logic.crossbar_transistor, density, 1.0),
        "hbm": silicon.phy_area_mm2(6.0, memory.phy_mm2, memory.controller_transistor, density),
        "nvlink": silicon.phy_area_mm2(300e9, 0.0755e-9, 3.0e6 / 1e9, density),
        "pcie": silicon.phy_area_mm2(1.0, TECHNOLOGY.link.host_phy_mm2, TECHNOLOGY.link.host_controller_transistor, density),
        "other": silicon.scaled_area_mm2(logic.other_mm2, logic.reference_transistor_per_mm2, density),
    }
    expected = {"multipliers": 169, "vector": 94, "control": 165, "registers": 27, "l1": 16, "l2": 119, "crossbar": 73, "hbm": 97}
    expected |= {"nvlink": 32, "pcie": 11, "other": 20}  # host interface and link controllers are blocks of their own
    assert {name: float(area) for name, area in parts.items()} == pytest.approx(expected, abs=1)
    assert float(sum(parts.values())) == pytest.approx(823, abs=2)  # the photograph: 822


def test_spatial_dies_are_rebuilt_within_the_spread_of_their_kind():
    n16, n5, logic, sram = PROCESSES["n16"], PROCESSES["n5"], TECHNOLOGY.logic, TECHNOLOGY.sram
    overhead = 0.21

    def die(process, transistors, byte, bank):
        dense = silicon.sram_density_byte_per_mm2(process.sram_byte_per_mm2, bank, sram.periphery_byte)
        return (silicon.logic_area_mm2(transistors, process.density_transistor_per_mm2, logic.utilisation) + byte / dense) / (1 - overhead)

    groq = die(n16, 409_600 * 16e3 + 5120 * logic.alu_transistor, 230e6 * 9 / 8, 65536.0)
    wafer = die(n5, 900e3 * (8 * 32e3 + logic.spatial_core_transistor), 44e9, 6000.0)
    assert float(groq) == pytest.approx(725, rel=0.3)
    assert float(wafer) == pytest.approx(46225, rel=0.15)


def test_yield_models_agree_without_defects_and_in_the_limit_of_no_clustering():
    many = fabrication.negative_binomial_yield(0.8, 1e7)
    assert float(many) == pytest.approx(float(fabrication.poisson_yield(0.8)), rel=1e-6)
    assert float(fabrication.murphy_yield(1e-9)) == pytest.approx(1.0, abs=1e-8)
    order = [fabrication.poisson_yield(0.8), fabrication.murphy_yield(0.8), fabrication.negative_binomial_yield(0.8, 3.0)]
    assert order == sorted(order)
    switched = [fabrication.die_yield(0.8, 3.0, *switch) for switch in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0))]
    assert [float(y) for y in switched] == pytest.approx([float(y) for y in order])


# function, range of each argument, direction in each (0: not monotone, or of no interest)
MONOTONE = [
    (silicon.logic_area_mm2, ((1e6, 1e11), (20e6, 250e6), (0.5, 1.0)), (1, -1, -1)),
    (silicon.sram_density_byte_per_mm2, ((1e6, 5e6), (1e3, 1e6), (3e3, 12e3)), (1, 1, -1)),
    (silicon.sram_bandwidth_byte_per_s, ((1e6, 1e9), (1e3, 1e6), (8, 128), (0.4e9, 2e9)), (1, -1, 1, 1)),
    (silicon.beachfront_m, ((100, 858), (1, 8), (1.0, 1.3)), (1, 0, 0)),
    (silicon.cim_capacity_byte, ((10, 800), (1e6, 4e6), (1e-4, 5e-3), (1e-5, 1e-3), (0, 1e-3)), (1, 1, -1, -1, -1)),
    (silicon.rom_capacity_byte, ((10, 800), (3e6, 7e6), (0.7, 0.95)), (1, 1, -1)),
    (power.clock_hz, ((0.5e9, 2e9), (0.7, 1.5), (0.5, 1.0), (0.7, 0.8), (0.25, 0.35), (1.2, 1.5)), (1, 1, 1, -1, 0, 0)),
    (power.dynamic_energy_j, ((1e-13, 1e-12), (0.3, 2.3), (0.5, 1.0), (0.7, 0.8)), (1, 1, 1, -1)),
    (power.sram_energy_j_per_byte, ((5e-13, 2e-12), (4e3, 1e6), (8e3, 9e3), (0.1, 0.16)), (1, 1, -1, 0)),
    (power.heat_limited_rate, ((100, 1000), (10, 900), (1e-13, 1e-12), (1e14, 1e16)), (1, -1, -1, 1)),
    (power.slack, ((0, 1000), (100, 1000)), (-1, 1)),
    (fabrication.dies_per_wafer, ((50, 858), (300, 300)), (-1, 0)),
    (fabrication.critical_defects, ((50, 858), (5e-4, 3e-3), (0, 0.95)), (1, 1, -1)),
    (fabrication.negative_binomial_yield, ((1e-3, 3), (1, 10)), (-1, -1)),
    (fabrication.poisson_yield, ((1e-3, 3),), (-1,)),
    (fabrication.murphy_yield, ((1e-3, 3),), (-1,)),
    (fabrication.die_cost_usd, ((3e3, 3e4), (30, 1000), (0.3, 1)), (1, -1, -1)),
    (fabrication.assembly_loss_usd, ((100, 2e3), (100, 3e3), (1, 8), (0, 5e3), (0, 16), (0.95, 0.999)), (1, 1, 1, 1, 1, -1)),
    (fabrication.started_per_good, ((1, 20), (0.95, 0.999)), (1, -1)),
    (fabrication.model_nre_usd, ((2, 10), (5e4, 4e5), (1, 16), (0, 1)), (1, 1, 1, -1)),
    (fabrication.written_wafer_usd, ((2, 10), (0, 1), (500, 3000), (0.01, 5)), (1, 1, 1, -1)),
    (silicon.nvm_density_byte_per_mm2, ((16, 130), (14e-6, 40e-6), (2, 8), (0.3, 0.7)), (-1, -1, -1, 1)),
    (silicon.programming_s, ((1e6, 1e10), (2, 8), (1e-8, 1e-5), (256, 1e6)), (1, 1, 1, -1)),
    (silicon.wear_life_s, ((1e5, 1e9), (1e9, 1e11), (1e6, 1e10)), (1, 1, -1)),
    (power.leakage_w, ((50, 858), (0.03, 0.15), (0.5, 1.0), (0.7, 0.8), (0.8, 2.5)), (1, 1, 1, -1, 0)),
    (fabrication.bonded_cost_usd, ((100, 5e3), (0, 8), (4, 4), (0.8, 0.98)), (1, 1, 0, -1)),
]


@pytest.mark.parametrize(("function", "ranges", "directions"), MONOTONE, ids=[row[0].__name__ for row in MONOTONE])
@given(data=st.data())
def test_each_equation_rises_and_falls_as_it_should_with_finite_slopes(function, ranges, directions, data):
    values = [float(data.draw(st.floats(low, high))) for low, high in ranges]
    slopes = jax.grad(lambda *args: jnp.asarray(function(*args)), argnums=tuple(range(len(values))))(*values)
    assert all(bool(jnp.isfinite(slope)) for slope in slopes)
    for slope, direction in zip(slopes, directions, strict=True):
        assert float(slope) * direction >= 0, (function.__name__, values, slopes)


@given(st.floats(50, 858), st.floats(5e-4, 3e-3), st.floats(0, 0.95), st.floats(1, 10))
def test_yield_is_a_share(area, defects, repairable, clustering):
    killing = fabrication.critical_defects(area, defects, repairable)
    for good in (
        fabrication.negative_binomial_yield(killing, clustering),
        fabrication.poisson_yield(killing),
        fabrication.murphy_yield(killing),
    ):
        assert 0 < float(good) <= 1


def test_a_clock_below_the_threshold_is_zero_with_finite_slope():
    assert float(power.speed_at(0.2, 0.3, 1.3)) == 0
    assert float(jax.grad(power.speed_at)(0.2, 0.3, 1.3)) == 0


@pytest.mark.parametrize("module", [silicon, power, fabrication])
def test_every_equation_names_a_source_that_exists(module):
    keys = set(re.findall(r"@\w+\{([^,]+),", (data_dir("hw_catalog") / "sources.bib").read_text(encoding="utf-8")))
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__:
            text = inspect.getdoc(function) or ""
            found = re.search(r"References: (.+)", text)
            assert found, name
            assert set(found.group(1).split(", ")) <= keys, name
            assert ">>>" in text, name


def test_nodes_get_denser_faster_and_dearer():
    order = [PROCESSES[node] for node in ("n16", "n12", "n7", "n6", "n5", "n4", "n3", "n2")]
    for leaf, direction in (("density_transistor_per_mm2", 1), ("sram_byte_per_mm2", 1), ("speed", 1), ("energy", -1), ("mask_set_usd", 1)):
        values = [direction * getattr(process, leaf) for process in order]
        assert values == sorted(values), leaf
    assert TECHNOLOGY.memories["hbm4"].bandwidth_byte_per_s > TECHNOLOGY.memories["hbm3e"].bandwidth_byte_per_s


def test_names_of_leaves_give_field_and_unit():
    assert field_of("flop_j") == ("flop", "J/FLOP", 1.0)
    assert field_of("periphery_byte") == ("periphery", "byte", 1.0)
    assert field_of("wafer_mm") == ("wafer", "m", 1e3)


def test_all_problems_of_a_file_are_told_at_once():
    record = CATALOG.records["processes"]["n5"]
    values = {name: quantity for name, quantity in record.values.items() if name != "speed"}
    values["wafer"] = record.values["density"]
    with pytest.raises(InputError) as error:
        build_process(replace(record, values=values))
    assert len(error.value.problems) == 2
    assert any("wafer — found MTr/mm2" in problem and "USD" in problem for problem in error.value.problems)


def test_overrides_replace_single_numbers():
    record = CATALOG.records["families"]["sram"]
    plain, changed = build_family(record), build_family(record, overrides={"layer": 5e-6, "special.install_cycle": 1.0})
    assert (changed.layer_s, changed.special["install_cycle"]) == (5e-6, 1.0)
    assert replace(changed, layer_s=plain.layer_s, special=plain.special) == plain
    assert build_memory(CATALOG.records["memories"]["hbm3"], {"rate_share": 1.0}).rate_share == 1.0
