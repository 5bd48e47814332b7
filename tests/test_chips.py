"""Do design variables become chips that add up, differentiate, move in the right direction, and resemble real ones?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dse.catalog import load_catalog
from dse.catalog.silicon import build_family, build_process, build_range, build_technology
from dse.chips import FAMILIES, Built
from dse.chips.common import AREAS, MEMORIES, NODES, is_choice, memory_site, off_chip
from dse.space import space_of, take
from dse.types import Process

CATALOG = load_catalog()
TECHNOLOGY = build_technology(CATALOG.records)
PROCESSES = {node: build_process(CATALOG.records["processes"][node]) for node in NODES}
CONSTANTS = {name: build_family(CATALOG.records["families"][name], CATALOG.constants[name]) for name in FAMILIES}
SPACES = {name: space_of(family, build_range(CATALOG.records["families"][name])) for name, family in FAMILIES.items()}


def make(name: str, **named: object) -> Built:
    """A chip of a family at its defaults but for what is named."""
    values = SPACES[name].from_named(named)
    return FAMILIES[name].build(values, PROCESSES[str(SPACES[name].named(values)["node"])], TECHNOLOGY, CONSTANTS[name])


def random_designs(name: str, count: int, seed: int = 0, corners: bool = False) -> tuple[dict[str, np.ndarray], Process]:
    """Random points of the design box; with ``corners`` every second one is a corner."""
    cube = np.random.default_rng(seed).random((count, SPACES[name].dimension))
    if corners:
        cube[1::2] = np.round(cube[1::2])
    values = SPACES[name].decode(cube)
    return values, take([PROCESSES[node] for node in NODES], values["node"])


def slack_of(built: Built) -> np.ndarray:
    return np.min([np.asarray(leaf, dtype=float) for leaf in np.broadcast_arrays(*jax.tree.leaves(built.chip.slack))], axis=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_breakdowns_add_up_and_every_leaf_is_finite(name):
    values, process = random_designs(name, 300)
    built = jax.jit(FAMILIES[name].build)(values, process, TECHNOLOGY, CONSTANTS[name])
    chip = built.chip
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(built))
    np.testing.assert_allclose(sum(built.cost_usd.values()), chip.unit_cost_usd, rtol=1e-9)
    np.testing.assert_allclose(sum(built.power_w.values()), chip.tdp_w, rtol=1e-9)
    assert set(built.area_mm2) == set(AREAS)
    if name != "sram":  # a wafer has no die of its own
        total = np.maximum(sum(built.area_mm2.values()), values["die_area_mm2"] * values["dies"])
        np.testing.assert_allclose(sum(built.area_mm2.values()), total, rtol=1e-9)
        np.testing.assert_allclose(1 - sum(built.area_mm2.values()) / values["dies"] / 858, chip.slack.reticle, atol=1e-9)
    for breakdown in (built.area_mm2, built.power_w, built.cost_usd):
        assert all(np.all(np.asarray(part) >= -1e-9) for part in breakdown.values())
    assert np.all(np.asarray(chip.peak_flop_per_s.bf16) > 1e11)
    assert np.all(np.asarray(chip.unit_cost_usd) > 50)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_slope_is_finite_and_values_broadcast(name):
    values, process = random_designs(name, 20, seed=1, corners=True)
    continuous = [variable.name for variable in SPACES[name].variables if variable.kind == "real"]

    def scores(real, fixed, node):
        built = FAMILIES[name].build({**fixed, **real}, node, TECHNOLOGY, CONSTANTS[name])
        return jnp.stack([jnp.log1p(jnp.abs(jnp.asarray(leaf))) for leaf in jax.tree.leaves(built)])

    def one(value, node):
        real = {key: value[key] for key in continuous}
        return jax.jacfwd(scores)(real, {key: value[key] for key in value if key not in continuous}, node)

    slopes = jax.jit(jax.vmap(one))(values, process)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))
    column = {key: value[:, None] for key, value in values.items()}
    wide = FAMILIES[name].build(column, jax.tree.map(lambda leaf: leaf[:, None], process), TECHNOLOGY, CONSTANTS[name])
    single = {key: float(value[3]) for key, value in values.items()}
    alone = FAMILIES[name].build(single, jax.tree.map(lambda leaf: float(leaf[3]), process), TECHNOLOGY, CONSTANTS[name])
    assert wide.chip.tdp_w.shape == (20, 1)
    for leaf, expected in zip(jax.tree.leaves(wide), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(np.broadcast_to(leaf, (20, 1))[3, 0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("name", FAMILIES)
def test_every_slope_is_finite_at_ten_thousand_points_of_the_design_box(name):
    values, process = random_designs(name, 10_000, seed=7, corners=True)
    real = {variable.name for variable in SPACES[name].variables if variable.kind == "real"}

    def scores(moving, fixed, node):
        built = FAMILIES[name].build({**fixed, **moving}, node, TECHNOLOGY, CONSTANTS[name])
        return sum(jnp.log1p(jnp.abs(jnp.asarray(leaf))) for leaf in jax.tree.leaves(built))

    moving, fixed = ({k: v for k, v in values.items() if (k in real) == wanted} for wanted in (True, False))
    slopes = jax.jit(jax.vmap(jax.grad(scores)))(moving, fixed, process)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("name", FAMILIES)
def test_float32_gives_the_same_chip(name):
    values, process = random_designs(name, 20, seed=2)
    narrow = jax.tree.map(lambda leaf: np.asarray(leaf, dtype=np.float32), (values, process, TECHNOLOGY, CONSTANTS[name]))
    wide = FAMILIES[name].build(values, process, TECHNOLOGY, CONSTANTS[name])
    for leaf, expected in zip(jax.tree.leaves(FAMILIES[name].build(*narrow)), jax.tree.leaves(wide), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=2e-4, atol=2e-4)
        assert getattr(leaf, "dtype", np.float32) == np.float32


@pytest.mark.parametrize("name", FAMILIES)
def test_most_of_the_space_can_be_built(name):
    values, process = random_designs(name, 1000, seed=3)
    good = slack_of(FAMILIES[name].build(values, process, TECHNOLOGY, CONSTANTS[name])) >= 0
    assert np.mean(good) > 0.1, np.mean(good)
    default = make(name)
    assert float(slack_of(default)) >= 0


def h100(**more: object) -> Built:
    fixed = {"node": "n5", "die_area_mm2": 814, "dies": 1, "stacks": 5, "memory": "hbm3", "datapath": "small-tile", "cooling": "air"}
    return make("hbm_gpu", **{**fixed, "link_byte_per_s": 450e9, "compute_share": 0.97, "voltage_v": 0.75, **more})


def test_variables_of_an_h100_give_an_h100():
    built = h100()
    chip = built.chip
    assert float(chip.peak_flop_per_s.bf16) == pytest.approx(989e12, rel=0.10)
    assert float(chip.peak_flop_per_s.fp8) == pytest.approx(1979e12, rel=0.10)
    assert float(chip.vector_flop_per_s) == pytest.approx(
        66.9e12 * 1.83 / 1.98, rel=0.15
    )  # published at 1.98 GHz, the matrix rates at 1.83
    assert float(chip.tdp_w) == pytest.approx(700, rel=0.12)
    assert float(chip.unit_cost_usd) == pytest.approx(3320, rel=0.12)
    assert float(1 / chip.memory.s_per_byte) == pytest.approx(3.35e12, rel=0.10)
    assert float(chip.memory.capacity_byte) == 80e9
    assert float(built.cost_usd["dies"]) == pytest.approx(300, rel=0.05)
    assert float(chip.computes.fp4) == 0 and float(chip.peak_flop_per_s.fp4) == float(chip.peak_flop_per_s.fp8)
    assert float(slack_of(built)) >= 0


def test_variables_of_a_b200_give_a_b200():
    cache_mm2 = 63.25 * 2**20 * TECHNOLOGY.sram.cache_overhead / PROCESSES["n4"].sram_byte_per_mm2  # of one die, as published
    variables = {"node": "n4", "dies": 2, "stacks": 8, "memory": "hbm3e", "cooling": "liquid", "die_area_mm2": 800}
    half = make("hbm_gpu", compute_share=0.5, **variables).area_mm2["sram"] / 2
    built = make("hbm_gpu", compute_share=float(1 - 0.5 * cache_mm2 / half), **variables)
    chip = built.chip
    assert float(chip.peak_flop_per_s.bf16) == pytest.approx(2250e12, rel=0.05)
    assert float(chip.peak_flop_per_s.fp4) == pytest.approx(4 * float(chip.peak_flop_per_s.bf16))
    assert float(chip.computes.fp4) == 1
    assert float(chip.tdp_w) == pytest.approx(1000, rel=0.12)
    assert float(1 / chip.memory.s_per_byte) == pytest.approx(8e12, rel=0.05)
    assert float(chip.unit_cost_usd) == pytest.approx(6400, rel=0.12)
    assert float(slack_of(built)) >= 0


def test_a_burned_in_die_like_hc1_holds_its_model():
    chip = make("burned_in", node="n6", die_area_mm2=815, rom_share=0.8, stacks=0, cooling="air", link_byte_per_s=1e11).chip
    assert float(chip.weight_store.capacity_byte) == pytest.approx(8.03e9 / 2, rel=0.2)
    assert float(chip.weight_store.s_per_byte) == 0 and float(chip.model_bound) == 1
    assert 0.3e6 <= float(chip.nre_model_usd) <= 2.5e6
    assert float(chip.memory.capacity_byte) == 0
    arithmetic = 2 * float(chip.weight_store.capacity_byte) / 0.5 / float(chip.kernels.system.layer_token_s)
    assert float(chip.peak_flop_per_s.bf16) == pytest.approx(arithmetic)  # what the layers can do,
    assert float(chip.tdp_w) < arithmetic * float(chip.flop_j.bf16)  # which is more than heat allows for long


def test_a_wafer_like_wse_3():
    built = make("sram", integration="wafer", bank_byte=6000, compute_share=0.35, node="n5")
    chip = built.chip
    assert float(chip.sram.capacity_byte) == pytest.approx(44e9, rel=0.15)
    assert float(sum(built.area_mm2.values())) == pytest.approx(46225, rel=1e-9)
    assert float(chip.system_usd) == 450e3 and float(chip.unit_cost_usd) < 20e3
    assert float(chip.wafers) == pytest.approx(1 / 0.95)
    assert 10e3 < float(chip.tdp_w) < 23e3
    assert 1 / float(chip.scale_up.s_per_byte) == pytest.approx(150e9)
    assert float(chip.slack.reticle) == pytest.approx(0, abs=1e-12)


def test_a_wafer_has_one_id_whatever_a_die_would_be():
    space = SPACES["sram"]
    same = [space.from_named({"integration": "wafer", "die_area_mm2": area, "dies": dies}) for area, dies in ((300, 1), (800, 4))]
    assert same[0] == same[1] and space.ids(same[0]) == space.ids(same[1])
    apart = [space.from_named({"integration": "die", "die_area_mm2": area}) for area in (300, 800)]
    assert space.ids(apart[0]) != space.ids(apart[1])
    cube = np.random.default_rng(5).random((200, space.dimension))
    decoded = space.decode(cube)
    wafers = decoded["integration"] == 1
    assert 50 < wafers.sum() < 150 and len(set(decoded["die_area_mm2"][wafers])) == 1 and len(set(decoded["die_area_mm2"][~wafers])) > 50
    np.testing.assert_allclose(space.decode(space.encode(decoded))["bank_byte"], decoded["bank_byte"], rtol=1e-12)


def test_spare_cores_of_a_wafer_hold_and_compute_nothing():
    whole = replace(TECHNOLOGY, packaging=replace(TECHNOLOGY.packaging, wafer_scale_enabled=1.0))
    values = SPACES["sram"].from_named({"integration": "wafer", "node": "n5", "bank_byte": 6000, "compute_share": 0.35})
    with_spares, without = (FAMILIES["sram"].build(values, PROCESSES["n5"], t, CONSTANTS["sram"]).chip for t in (TECHNOLOGY, whole))
    for path in ("sram.capacity_byte", "peak_flop_per_s.bf16"):
        a, b = (leaf_of(chip, path) for chip in (with_spares, without))
        assert a / b == pytest.approx(900 / 970, rel=1e-3)


def leaf_of(chip: Any, path: str) -> float:
    leaf = chip
    for part in path.split("."):
        leaf = getattr(leaf, part)
    return float(leaf)


def test_non_volatile_arrays_hold_more_and_do_not_shrink_with_the_logic():
    variants = {name: make("compute_in_memory", variant=name, node="n7").chip.weight_store.capacity_byte for name in ("analog", "nvm")}
    assert float(variants["nvm"]) > float(variants["analog"])
    low = {"variant": "nvm", "byte_per_mac": 10000}
    small, large = (float(make("compute_in_memory", node=node, **low).chip.weight_store.capacity_byte) for node in ("n7", "n3"))
    assert large / small < 1.2 < PROCESSES["n3"].sram_byte_per_mm2 / PROCESSES["n7"].sram_byte_per_mm2


def test_leakage_grows_with_voltage_faster_than_the_voltage():
    low, high = (float(make("hbm_gpu", voltage_v=v).power_w["leakage"]) for v in (0.6, 0.9))
    assert high / low > 0.9 / 0.6
    assert float(make("hbm_gpu", voltage_v=0.75).power_w["leakage"]) == pytest.approx(1600 * PROCESSES["n5"].leakage_w_per_mm2, rel=1e-6)


def test_an_electron_beam_trades_masks_for_wafer_cost():
    values = SPACES["burned_in"].from_named({"node": "n6"})
    masks = FAMILIES["burned_in"].build(values, PROCESSES["n6"], TECHNOLOGY, CONSTANTS["burned_in"])
    special = {**CONSTANTS["burned_in"].special, "written_share": 1.0}
    beam = FAMILIES["burned_in"].build(values, PROCESSES["n6"], TECHNOLOGY, replace(CONSTANTS["burned_in"], special=special))
    assert float(beam.chip.nre_model_usd) == 0 < float(masks.chip.nre_model_usd)
    assert float(beam.cost_usd["dies"]) > float(masks.cost_usd["dies"])


def test_room_for_updates_is_taken_from_the_kv_cache():
    values = SPACES["burned_in"].from_named({"node": "n6"})
    kept = {}
    for share in (0.0, 0.01, 0.1):
        special = {**CONSTANTS["burned_in"].special, "update_share": share}
        chip = FAMILIES["burned_in"].build(values, PROCESSES["n6"], TECHNOLOGY, replace(CONSTANTS["burned_in"], special=special)).chip
        kept[share] = float(chip.sram.capacity_byte)
        rom = float(chip.weight_store.capacity_byte)
    assert kept[0.0] - kept[0.01] == pytest.approx(0.01 * rom)
    assert 0 < kept[0.1] < kept[0.01]


def test_compute_in_memory_like_corsair():
    built = make("compute_in_memory", node="n6", dies=8, die_area_mm2=400, array_share=0.85, memory="lpddr5x", stacks=3, cooling="liquid")
    chip = built.chip
    assert float(chip.weight_store.capacity_byte) == pytest.approx(2e9, rel=0.3)
    assert float(chip.peak_flop_per_s.int8) == pytest.approx(2400e12, rel=0.3)
    assert float(1 / chip.memory.s_per_byte) == pytest.approx(0.4e12, rel=0.1)
    assert float(chip.tdp_w) == pytest.approx(600, rel=0.3)
    analog = make("compute_in_memory", variant="analog").chip
    digital = make("compute_in_memory", variant="digital").chip
    assert float(analog.weight_store.capacity_byte) < float(digital.weight_store.capacity_byte)
    ratio = float(digital.flop_j.int8 / analog.flop_j.int8)
    assert 1 / 2 < ratio < 4  # of whole chips, analog gains at most fourfold
    without = make("compute_in_memory", memory="none", stacks=8)
    assert float(without.chip.memory.capacity_byte) == 0 and float(without.area_mm2["memory_phy"]) == 0


def number(name: str, path: str, **named: object) -> float:
    leaf: Any = make(name, **named)
    for part in path.split("."):
        leaf = leaf[part] if isinstance(leaf, dict) else getattr(leaf, part)
    return float(leaf)


@pytest.mark.parametrize(
    ("name", "path", "low", "high", "direction"),
    [
        ("hbm_gpu", "chip.peak_flop_per_s.bf16", {"voltage_v": 0.6}, {"voltage_v": 0.8}, 1),
        ("hbm_gpu", "chip.flop_j.bf16", {"voltage_v": 0.6}, {"voltage_v": 0.8}, 1),
        ("hbm_gpu", "chip.slack.heat", {"voltage_v": 0.6}, {"voltage_v": 0.9}, -1),
        ("hbm_gpu", "chip.memory.s_per_byte", {"stacks": 4}, {"stacks": 8}, -1),
        ("hbm_gpu", "chip.slack.beachfront", {"stacks": 4}, {"stacks": 8}, -1),
        ("hbm_gpu", "chip.slack.package", {"stacks": 4}, {"stacks": 16}, -1),
        ("hbm_gpu", "chip.unit_cost_usd", {"die_area_mm2": 600}, {"die_area_mm2": 800}, 1),
        ("hbm_gpu", "chip.peak_flop_per_s.bf16", {"link_byte_per_s": 2e11}, {"link_byte_per_s": 1.8e12}, -1),
        ("hbm_gpu", "chip.flop_j.bf16", {"node": "n5"}, {"node": "n3"}, -1),
        ("hbm_gpu", "chip.memory.s_per_byte", {"memory": "hbm3e"}, {"memory": "hbm4"}, -1),
        ("hbm_gpu", "chip.slack.heat", {"cooling": "air"}, {"cooling": "liquid"}, 1),
        ("transformer_asic", "chip.sram.capacity_byte", {"compute_share": 0.6}, {"compute_share": 0.85}, -1),
        ("transformer_asic", "chip.slack.heat", {"compute_share": 0.2}, {"compute_share": 0.9}, -1),
        ("sram", "chip.sram.capacity_byte", {"bank_byte": 4e3}, {"bank_byte": 16e3}, 1),
        ("sram", "chip.sram.capacity_byte", {"compute_share": 0.5}, {"compute_share": 0.7}, -1),
        ("sram", "chip.wafers", {"die_area_mm2": 400}, {"die_area_mm2": 800}, 1),
        ("compute_in_memory", "chip.weight_store.capacity_byte", {"byte_per_mac": 5000}, {"byte_per_mac": 250}, -1),
        ("compute_in_memory", "chip.peak_flop_per_s.int8", {"byte_per_mac": 5000}, {"byte_per_mac": 250}, 1),
        ("burned_in", "chip.sram.capacity_byte", {"rom_share": 0.6}, {"rom_share": 0.85}, -1),
        ("burned_in", "chip.kernels.system.layer_s", {"voltage_v": 0.6}, {"voltage_v": 0.9}, -1),
        ("burned_in", "chip.tdp_w", {"heat_share": 0.3}, {"heat_share": 0.9}, 1),
        ("burned_in", "chip.nre_model_usd", {"dies": 1}, {"dies": 2}, 1),
        ("stacked_dram", "chip.slack.heat", {"drive_share": 0.2}, {"drive_share": 1.0}, -1),
        ("stacked_dram", "chip.memory.s_per_byte", {"drive_share": 0.2}, {"drive_share": 1.0}, -1),
        ("stacked_dram", "chip.unit_cost_usd", {"layers": 2}, {"layers": 8}, 1),
        ("stacked_dram", "chip.wafers", {"layers": 2}, {"layers": 8}, 1),
    ],
)
def test_a_variable_moves_what_it_should(name, path, low, high, direction):
    assert (number(name, path, **high) - number(name, path, **low)) * direction > 0


def test_a_fixed_function_array_is_stopped_by_heat_before_area():
    hot = make("transformer_asic", compute_share=0.9, voltage_v=0.9, stacks=8)
    assert float(hot.chip.peak_flop_per_s.bf16) > 2 * float(make("hbm_gpu", stacks=8).chip.peak_flop_per_s.bf16)
    assert float(hot.chip.slack.heat) < 0 < float(hot.chip.slack.reticle)


def test_stacked_bandwidth_and_arithmetic_compete_for_heat():
    assert float(make("stacked_dram", drive_share=1.0, compute_share=0.4).chip.slack.heat) < 0
    power = make("stacked_dram", die_area_mm2=800, dies=1, drive_share=1.0, compute_share=0.05).power_w
    assert float(power["memory"]) == pytest.approx(230, rel=0.01)  # 24 TB/s at 1.2 pJ/bit


def test_a_die_too_small_for_its_edge_blocks_grows():
    built = make("hbm_gpu", die_area_mm2=100, dies=1, stacks=16, link_byte_per_s=1.8e12)
    assert float(sum(built.area_mm2.values())) > 150
    assert float(built.chip.peak_flop_per_s.bf16) > 0 and float(built.chip.slack.beachfront) < 0


def test_the_time_per_layer_is_the_familys():
    for name, constants in CONSTANTS.items():
        system = make(name).chip.kernels.system
        assert float(system.layer_s) == pytest.approx(constants.layer_s)
        assert float(system.layer_pipelined) == (1 if name == "burned_in" else 0)
        assert constants.kernels is not None and system.host_s == constants.kernels.system.host_s
    faster = replace(CONSTANTS["sram"], layer_s=5e-6)
    values = SPACES["sram"].defaults()
    assert float(FAMILIES["sram"].build(values, PROCESSES["n5"], TECHNOLOGY, faster).chip.kernels.system.layer_s) == 5e-6


def test_choices_are_numbers():
    assert [float(is_choice(2.0, position)) for position in range(4)] == [0, 0, 1, 0]
    site = memory_site(float(MEMORIES.index("hbm4")), TECHNOLOGY)
    assert float(site.bandwidth_byte_per_s) == TECHNOLOGY.memories["hbm4"].bandwidth_byte_per_s
    store, rate, price = off_chip(memory_site(0.0, TECHNOLOGY), 4.0)
    assert [float(x) for x in (store.capacity_byte, store.s_per_byte, rate, price)] == [0, 0, 0, 0]
