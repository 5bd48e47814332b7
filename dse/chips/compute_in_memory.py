"""Compute in memory: weights stay in arrays that multiply in place; the KV cache is in plain SRAM, LPDDR or HBM.

Digital arrays carry a multiplier for so many bytes stored; analog ones carry converters, leave cells unused, and still need digital logic
to shift and add. Arrays of non-volatile cells (``nvm``) are analog ones of denser cells, which keep weights and wear out too soon for KV.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from dse.chips.common import (
    COMMON,
    SITES,
    Built,
    Family,
    Parts,
    assemble,
    clock,
    edge_blocks,
    energies,
    floor_plan,
    formats,
    is_choice,
    memory_site,
    off_chip,
    operation_j,
    peaks,
    present,
    spatial_mac_mm2,
    spatial_vectors,
    sram_store,
)
from dse.equations import silicon
from dse.space import Variable
from dse.types import FamilyConstants, Number, Process, Store, Technology

VARIANTS = ("digital", "analog", "nvm")
VARIABLES = (
    *COMMON,
    *SITES,
    Variable("variant", kind="choice", choices=VARIANTS),
    Variable("array_share"),
    Variable("byte_per_mac", unit="byte", log=True),
)


def converted(values: Mapping[str, Any]) -> Number:
    """1 where sums are analog and need converters, 0 where they are digital."""
    return jnp.minimum(values["variant"], 1)


def array(
    area_mm2: Number, values: Mapping[str, Any], hertz: Number, process: Process, technology: Technology, family: FamilyConstants
) -> tuple[Number, Number]:
    """Bytes of weights that arrays of this area hold, and their 8-bit multiply-adds; an analog array fills only some of its cells."""
    s, analog, nvm = family.special, converted(values), is_choice(values["variant"], VARIANTS.index("nvm"))
    sram = silicon.sram_density_byte_per_mm2(process.sram_byte_per_mm2, family.bank_byte, technology.sram.periphery_byte)
    cells = silicon.nvm_density_byte_per_mm2(s["nvm_cell"], s["nvm_feature"] * 1e3, s["nvm_cells"], s["nvm_array"])
    dense = (1 - nvm) * sram + nvm * cells
    unit, control = spatial_mac_mm2(process, technology, family)
    converters = analog * s["conversions_per_mac"] * hertz / s["adc_rate"] * s["adc_area"]
    multiplier = ((1 - analog) * unit + control) / 2  # an 8-bit multiplier is half of a bf16 one
    physical = silicon.cim_capacity_byte(area_mm2, dense, 1 / values["byte_per_mac"], multiplier, converters)
    used = physical * (1 - analog * (1 - s["utilisation_analog"]))
    return used, used / values["byte_per_mac"]


def flop_j(values: Mapping[str, Any], process: Process, technology: Technology, family: FamilyConstants) -> Number:
    """Energy of a bf16 FLOP (twice that of an 8-bit one): digital, or the remaining digital share plus conversions, J."""
    s, analog = family.special, converted(values)
    digital = operation_j(family.flop_j, values, process, technology)
    conversion = s["conversions_per_mac"] * s["adc_energy"] / 2 / technology.power.fp8  # two FLOP a multiply-add; does not shrink
    return (1 - analog) * digital + analog * (s["digital_rest"] * digital + conversion)


def build(values: Mapping[str, Any], process: Process, technology: Technology, family: FamilyConstants) -> Built:
    """A compute-in-memory chip from its design variables."""
    dies, share = values["dies"], values["array_share"]
    site = memory_site(values["memory"], technology)
    sites = values["stacks"] * present(site)
    edge = edge_blocks(values, dies, sites, site, process, technology)
    die, rest, overhead = floor_plan(values["die_area_mm2"], edge["memory_phy"] + edge["links"], family.overhead_share, technology)
    hertz = clock(values, process, technology, family)
    capacity, macs = array(share * rest, values, hertz, process, technology, family)
    enabled = dies * macs * family.enabled_share
    vector, exponentials = spatial_vectors(enabled / 2, hertz, family)
    sram, sram_rate = sram_store((1 - share) * rest, die, dies, family.special["kv_bank"], values, process, technology, family)
    memory, memory_rate, memory_usd = off_chip(site, sites)
    read = silicon.sram_bandwidth_byte_per_s(dies * capacity, family.bank_byte, family.port_byte, hertz)
    parts = Parts(
        die_mm2=die,
        dies=dies,
        area_mm2={**edge, "weights": share * rest, "sram": (1 - share) * rest, "other": overhead},
        peak=peaks(enabled / 2, hertz, vector, family.fp4_rate),
        computes=formats(family.fp4_rate),
        flop_j=energies(flop_j(values, process, technology, family), family.fp4_rate, technology),
        vector_flop_per_s=vector,
        exp_per_s=exponentials,
        sram=sram,
        sram_byte_per_s=sram_rate,
        weight_store=Store(capacity_byte=dies * capacity, s_per_byte=1 / read, j_per_byte=0.0),
        memory=memory,
        memory_byte_per_s=memory_rate,
        memory_usd=memory_usd,
        sites=sites,
        site=site,
    )
    return assemble(values, parts, process, technology, family)


FAMILY = Family("compute_in_memory", VARIABLES, build)
