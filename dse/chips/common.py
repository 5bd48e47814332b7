"""What do all families share? Choices as numbers, edge blocks, clocks and energies, and the way from blocks to a ``Chip``.

A family fills ``Parts``; ``assemble`` turns it into chip, areas, powers, costs and slacks. Everything broadcasts and differentiates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dse.equations import fabrication, power, silicon
from dse.space import Variable
from dse.types import (
    Chip,
    FamilyConstants,
    Link,
    MemoryTechnology,
    Number,
    PerFormat,
    Process,
    Slacks,
    Store,
    Technology,
    pytree,
)

NODES = ("n16", "n12", "n7", "n6", "n5", "n4", "n3", "n2")
COOLING = ("air", "liquid")
MEMORIES = ("none", "hbm2e", "hbm3", "hbm3e", "hbm4", "gddr6", "gddr7", "lpddr5x")
COMMON = (
    Variable("node", kind="choice", choices=NODES),
    Variable("die_area_mm2", unit="mm2"),
    Variable("dies", kind="int"),
    Variable("voltage_v", unit="V"),
    Variable("cooling", kind="choice", choices=COOLING),
    Variable("link_byte_per_s", unit="byte/s", log=True),
)
SITES = (Variable("memory", kind="choice", choices=MEMORIES), Variable("stacks", kind="int"))
AREAS = ("compute", "control", "weights", "sram", "memory_phy", "links", "other")


@pytree()
class Built:
    """A chip and where its area (mm2 of the package), its power at TDP and its unit cost go; each breakdown sums to the whole."""

    chip: Chip
    area_mm2: dict[str, Number]
    power_w: dict[str, Number]
    cost_usd: dict[str, Number]


@dataclass(frozen=True)
class Family:
    """A chip family: its name, its design variables (bounds are in the catalogue), and how values become a chip."""

    name: str
    variables: tuple[Variable, ...]
    build: Callable[[Mapping[str, Any], Process, Technology, FamilyConstants], Built]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a family decides of one package, before money, power and limits."""

    die_mm2: Number
    dies: Number
    area_mm2: dict[str, Number]  # of one die
    peak: PerFormat
    computes: PerFormat
    flop_j: PerFormat
    vector_flop_per_s: Number
    exp_per_s: Number
    sram: Store
    sram_byte_per_s: Number  # that counts for the TDP
    weight_store: Store
    memory: Store
    memory_byte_per_s: Number
    memory_usd: Number
    sites: Number = 0.0
    site: MemoryTechnology | None = None
    layers: Number | None = None  # bonded on each die
    wafer: Number = 0.0  # 1 for a wafer-scale part
    layer_scale: Number = 1.0  # of the family's time per layer
    nre_model_usd: Number = 0.0
    wafer_extra_usd: Number = 0.0  # on top of the price of a wafer
    model_bound: Number = 0.0


EMPTY = Store(capacity_byte=0.0, s_per_byte=0.0, j_per_byte=0.0)


def is_choice(index: Number, position: int) -> Number:
    """1 where the choice is at ``position``, 0 at the others; straight lines between.

    >>> float(is_choice(2.0, 2)), float(is_choice(1.0, 2))
    (1.0, 0.0)
    """
    away = jnp.maximum(index - position, position - index)
    return jnp.maximum(1 - away, 0)


def blend(weights: Sequence[Number], items: Sequence[Any]) -> Any:
    """Weighted sum of pytrees of numbers: a choice by one-hot weights."""
    return jax.tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)), *items)


def memory_site(index: Number, technology: Technology) -> MemoryTechnology:
    """The chosen off-chip memory; all zeros for "none"."""
    names = [name for name in MEMORIES if name in technology.memories]
    weights = [is_choice(index, MEMORIES.index(name)) for name in names]
    return blend(weights, [technology.memories[name] for name in names])


def present(site: MemoryTechnology) -> Number:
    """1 where there is an off-chip memory, 0 where the choice is "none"."""
    return jnp.minimum(site.capacity_byte, 1)


def off_chip(site: MemoryTechnology, stacks: Number) -> tuple[Store, Number, Number]:
    """Store, bandwidth (byte/s) and price (USD) of a number of sites; without sites the store is empty and its time finite."""
    rate = site.bandwidth_byte_per_s * site.rate_share
    there = present(site)
    seconds = there / (jnp.maximum(stacks, 1) * (rate + 1 - there))
    capacity = stacks * site.capacity_byte
    return Store(capacity_byte=capacity, s_per_byte=seconds, j_per_byte=site.j_per_byte), stacks * rate, capacity * site.usd_per_byte


def clock(values: Mapping[str, Any], process: Process, technology: Technology, family: FamilyConstants) -> Number:
    """Clock of the family at this node and voltage, 1/s."""
    p = technology.power
    return power.clock_hz(family.clock_hz, process.speed, values["voltage_v"], p.nominal_v, p.threshold_v, p.clock_exponent)


def operation_j(nominal_j: Number, values: Mapping[str, Any], process: Process, technology: Technology) -> Number:
    """Energy of an operation at this node and voltage, J."""
    return power.dynamic_energy_j(nominal_j, process.energy, values["voltage_v"], technology.power.nominal_v)


def peaks(macs: Number, clock_hz: Number, vector_flop_per_s: Number, fp4_rate: Number) -> PerFormat:
    """Dense rates of ``macs`` bf16 multiply-adds that do two in 8 bit and ``2 * fp4_rate`` in 4 bit; fp32 runs on the vector units."""
    bf16 = 2 * macs * clock_hz
    return PerFormat(fp32=vector_flop_per_s, bf16=bf16, fp8=2 * bf16, int8=2 * bf16, fp4=2 * bf16 * fp4_rate)


def formats(fp4_rate: Number) -> PerFormat:
    """1 for the formats that the datapath has; fp4 only where it is faster than fp8 (rate 2)."""
    return PerFormat(fp32=1.0, bf16=1.0, fp8=1.0, int8=1.0, fp4=jnp.minimum(fp4_rate - 1, 1))


def energies(bf16_j: Number, fp4_rate: Number, technology: Technology) -> PerFormat:
    """Energy per FLOP by format; without an fp4 datapath (rate 1) fp4 costs what fp8 does."""
    p = technology.power
    fp4 = p.fp8 + (fp4_rate - 1) * (p.fp4 - p.fp8)
    return PerFormat(fp32=bf16_j * p.fp32, bf16=bf16_j, fp8=bf16_j * p.fp8, int8=bf16_j * p.fp8, fp4=bf16_j * fp4)


def edge_blocks(
    values: Mapping[str, Any], dies: Number, sites: Number, site: MemoryTechnology | None, process: Process, technology: Technology
) -> dict[str, Number]:
    """Area on one die of memory interfaces and of links (off the package, to the host, to other dies), mm2."""
    link, density = technology.link, process.density_transistor_per_mm2
    serial = silicon.phy_area_mm2(values["link_byte_per_s"] / dies, link.phy_mm2_s_per_byte, link.controller_transistor_s_per_byte, density)
    host = silicon.phy_area_mm2(1 / dies, link.host_phy_mm2, link.host_controller_transistor, density)
    joint = silicon.long_edge_m(values["die_area_mm2"], technology.packaging.aspect) * jnp.minimum(dies - 1, 1)
    between = joint * link.die_edge_byte_per_s_m * link.die_area_mm2_s_per_byte
    memory = 0.0 if site is None else silicon.phy_area_mm2(sites / dies, site.phy_mm2, site.controller_transistor, density)
    return {"memory_phy": memory, "links": serial + host + between}


def floor_plan(die_area_mm2: Number, edge_mm2: Number, overhead_share: Number, technology: Technology) -> tuple[Number, Number, Number]:
    """Area of the die, area left to compute and memory, and overhead. A die too small for its edge blocks grows."""
    usable = die_area_mm2 * (1 - overhead_share)
    rest = jnp.maximum(usable - edge_mm2, usable * technology.logic.least_share)
    die = (edge_mm2 + rest) / (1 - overhead_share)
    return die, rest, die * overhead_share


def spatial_mac_mm2(process: Process, technology: Technology, family: FamilyConstants) -> tuple[Number, Number]:
    """Area of one bf16 multiply-add of a spatial machine, and of its share of vector units and control, mm2."""
    logic, density = technology.logic, process.density_transistor_per_mm2
    control = family.vector_per_mac * logic.alu_transistor + logic.spatial_core_transistor / family.macs_per_core
    unit = silicon.logic_area_mm2(family.mac_transistor, density, logic.utilisation)
    return unit, silicon.logic_area_mm2(control, density, logic.utilisation)


def spatial_vectors(macs: Number, clock_hz: Number, family: FamilyConstants) -> tuple[Number, Number]:
    """Vector FLOP/s and exponentials/s of a spatial machine with this many enabled multiply-adds."""
    units = macs * family.vector_per_mac
    return 2 * units * clock_hz, units * family.exp_per_vector * clock_hz


def sram_store(
    area_mm2: Number,
    die_mm2: Number,
    dies: Number,
    bank_byte: Number,
    values: Mapping[str, Any],
    process: Process,
    technology: Technology,
    family: FamilyConstants,
) -> tuple[Store, Number]:
    """SRAM that may hold weights and KV, and its bandwidth (byte/s): density by bank, at most what shipped dies hold."""
    s = technology.sram
    dense = silicon.sram_density_byte_per_mm2(process.sram_byte_per_mm2, bank_byte, s.periphery_byte)
    capacity = dies * jnp.minimum(area_mm2 * dense, die_mm2 * s.whole_die_share * process.sram_byte_per_mm2)
    rate = silicon.sram_bandwidth_byte_per_s(capacity, bank_byte, family.port_byte, clock(values, process, technology, family))
    energy = power.sram_energy_j_per_byte(s.j_per_byte, bank_byte, s.reference_bank_byte, s.bank_exponent)
    joule = operation_j(energy, values, process, technology)
    return Store(capacity_byte=capacity * family.sram_model_share, s_per_byte=1 / rate, j_per_byte=joule), rate


def heat_limit_w(values: Mapping[str, Any], area_mm2: Number, stacked: bool, technology: Technology) -> Number:
    """Heat that can leave the logic dies, W."""
    p, liquid = technology.power, values["cooling"]
    surface = liquid * p.heat_liquid_w_per_mm2 + (1 - liquid) * p.heat_air_w_per_mm2
    return area_mm2 * (jnp.minimum(surface, p.heat_stacked_w_per_mm2) if stacked else surface)


def link_byte_per_s(values: Mapping[str, Any], parts: Parts, technology: Technology) -> Number:
    """Scale-up bandwidth of one package, one direction; a wafer has the input and output of its system."""
    return (1 - parts.wafer) * values["link_byte_per_s"] + parts.wafer * technology.packaging.wafer_scale_io_byte_per_s


def power_parts_w(values: Mapping[str, Any], parts: Parts, process: Process, technology: Technology) -> dict[str, Number]:
    """What adds up to the TDP: compute and off-chip memory at full rate, SRAM and links at their shares."""
    p = technology.power
    links = 2 * p.tdp_link * link_byte_per_s(values, parts, technology)
    return {
        "leakage": power.leakage_w(
            parts.dies * parts.die_mm2, process.leakage_w_per_mm2, values["voltage_v"], p.nominal_v, p.leakage_exponent_per_v
        ),
        "compute": power.rate_power_w(parts.peak.bf16, parts.flop_j.bf16),
        "memory": power.rate_power_w(parts.memory_byte_per_s, parts.memory.j_per_byte),
        "sram": power.rate_power_w(p.tdp_sram * parts.sram_byte_per_s, parts.sram.j_per_byte),
        "links": power.rate_power_w(links, technology.link.j_per_byte),
    }


def good_dies(die_mm2: Number, process: Process, technology: Technology, family: FamilyConstants) -> tuple[Number, Number]:
    """Gross dies of a wafer and their yield."""
    k = technology.packaging
    defects = fabrication.critical_defects(die_mm2, process.defects_per_mm2, family.repairable)
    return fabrication.dies_per_wafer(die_mm2, k.wafer_mm), fabrication.die_yield(defects, k.clustering, k.poisson, k.murphy)


def _placed(parts: Parts) -> tuple[Number, Number, Number]:
    """Silicon in the package (mm2), stacks of memory, and 1 where it needs an interposer (memory that does, or several dies)."""
    single = jnp.minimum(parts.dies - 1, 1)
    if parts.site is None:
        return parts.dies * parts.die_mm2, 0.0, single
    silicon_mm2 = parts.dies * parts.die_mm2 + parts.sites * parts.site.package_mm2
    interposer = jnp.maximum(parts.site.interposer * jnp.minimum(parts.sites, 1), single)
    return silicon_mm2, parts.sites * parts.site.interposer, interposer


def cost_parts_usd(parts: Parts, process: Process, technology: Technology, family: FamilyConstants) -> tuple[dict[str, Number], Number]:
    """Bill of materials of one package, and wafers started for it."""
    k = technology.packaging
    gross, good = good_dies(_one_die_mm2(parts, technology), process, technology, family)
    wafer_usd = process.wafer_usd + parts.wafer_extra_usd
    dies = parts.dies * fabrication.die_cost_usd(wafer_usd, gross, good)
    layers = 0.0 if parts.layers is None else parts.layers
    stack = technology.stacked
    bond = parts.dies * layers * stack.bond_usd
    joined = dies + parts.memory_usd + bond
    bonding = fabrication.bonded_cost_usd(joined, layers, stack.reference_layers, stack.bond_yield) - joined + bond
    silicon_mm2, stacks, on = _placed(parts)
    package = on * fabrication.interposer_package_usd(
        silicon_mm2, k.interposer_fixed_usd, k.interposer_area_usd_per_mm2, k.interposer_fill
    ) + (1 - on) * fabrication.substrate_package_usd(parts.dies, k.substrate_usd, k.substrate_die_usd)
    # bonded memory is placed with its die, stacks after the dies, memory on the board is not at stake
    bonded, beside = (parts.memory_usd, 0.0) if parts.site is None else (0.0, parts.memory_usd * parts.site.interposer)
    loss = fabrication.assembly_loss_usd(package, dies + bonded + bonding, parts.dies, beside, stacks, k.component_yield)
    test = on * k.interposer_test_usd + (1 - on) * k.substrate_test_usd
    one, whole = 1 - parts.wafer, parts.wafer / k.wafer_scale_yield
    cost = {
        "dies": one * dies + whole * wafer_usd,
        "memory": one * parts.memory_usd,
        "bonding": one * bonding,
        "package": one * package,
        "assembly": one * loss,
        "test": one * test,
    }
    return cost, one * parts.dies / (gross * good) * stack.bond_yield ** (-layers / stack.reference_layers) + whole


def _one_die_mm2(parts: Parts, technology: Technology) -> Number:
    """Area of a die for the wafer map: of a wafer-scale part, any size will do (its weight is 0 there)."""
    return (1 - parts.wafer) * parts.die_mm2 + parts.wafer * technology.packaging.reticle_mm2


def slacks(values: Mapping[str, Any], parts: Parts, tdp_w: Number, technology: Technology) -> Slacks:
    """Relative distance to reticle, die edge, heat and package (interposer area and power delivery)."""
    k, p, liquid = technology.packaging, technology.power, values["cooling"]
    die = _one_die_mm2(parts, technology)
    silicon_mm2, _, on = _placed(parts)
    heat = heat_limit_w(values, parts.dies * parts.die_mm2, parts.layers is not None, technology)
    edge = 0.0 if parts.site is None else parts.sites * parts.site.edge_m
    watt = liquid * p.package_liquid_w + (1 - liquid) * p.package_air_w
    watt = (1 - parts.wafer) * watt + parts.wafer * k.wafer_scale_power_w
    area = power.slack((1 - parts.wafer) * on * k.interposer_fill * silicon_mm2, k.interposer_max_mm2)
    return Slacks(
        reticle=power.slack(die, k.reticle_mm2),
        beachfront=power.slack(edge, silicon.beachfront_m(die, parts.dies, k.aspect)),
        heat=power.slack(tdp_w, heat),
        package=jnp.minimum(area, power.slack(tdp_w, watt)),
    )


def kernels_of(family: FamilyConstants, scale: Number) -> Any:
    """Kernel constants of the family, with its time per layer in place of theirs; None where the family carries none."""
    if family.kernels is None:
        return None
    layer_s, token_s = family.layer_s * scale, family.layer_token_s * scale
    system = dataclasses.replace(family.kernels.system, layer_s=layer_s, layer_token_s=token_s, layer_pipelined=family.layer_pipelined)
    return dataclasses.replace(family.kernels, system=system)


def assemble(values: Mapping[str, Any], parts: Parts, process: Process, technology: Technology, family: FamilyConstants) -> Built:
    """Chip, areas, powers and costs of what a family decided."""
    watts = power_parts_w(values, parts, process, technology)
    tdp = sum(watts.values())
    cost, wafers = cost_parts_usd(parts, process, technology, family)
    link, k = technology.link, technology.packaging
    chip = Chip(
        peak_flop_per_s=parts.peak,
        computes=parts.computes,
        vector_flop_per_s=parts.vector_flop_per_s,
        exp_per_s=parts.exp_per_s,
        weight_store=parts.weight_store,
        sram=parts.sram,
        memory=parts.memory,
        scale_up=Link(chips=family.link_domain, s_per_byte=1 / link_byte_per_s(values, parts, technology), j_per_byte=link.j_per_byte),
        scale_out=Link(chips=link.scale_out_chips, s_per_byte=1 / family.scale_out_byte_per_s, j_per_byte=link.scale_out_j_per_byte),
        flop_j=parts.flop_j,
        static_w=watts["leakage"],
        tdp_w=tdp,
        host_share=jnp.maximum(family.host_share_min, jnp.minimum(tdp / technology.power.slot_w, 1)),
        liquid_cooled=values["cooling"],
        unit_cost_usd=sum(cost.values()),
        nre_usd=fabrication.design_nre_usd(family.design_usd, process.design, process.mask_set_usd),
        nre_model_usd=parts.nre_model_usd,
        wafers=wafers,
        system_usd=parts.wafer * k.wafer_scale_system_usd,
        street_usd=0.0,
        has_street=0.0,
        rent_usd_per_s=0.0,
        has_rent=0.0,
        model_bound=parts.model_bound,
        slack=slacks(values, parts, tdp, technology),
        kernels=kernels_of(family, parts.layer_scale),
    )
    areas = {name: parts.dies * parts.area_mm2.get(name, 0.0) for name in AREAS}
    return Built(chip=chip, area_mm2=areas, power_w=watts, cost_usd=cost)
