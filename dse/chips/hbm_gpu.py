"""A GPU with HBM: cores of tensor, vector and control blocks, a shared cache that holds no model, memory along the die's edge.

Two datapaths that exist: small tiles (Hopper: 2048 multiply-adds a core) and large tiles (Blackwell: 4096, fp4, half the energy).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse.chips.common import (
    COMMON,
    EMPTY,
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
    memory_site,
    off_chip,
    operation_j,
    peaks,
)
from dse.equations import silicon
from dse.space import Variable
from dse.types import FamilyConstants, Number, Process, Technology

DATAPATHS = ("small-tile", "large-tile")
VARIABLES = (*COMMON, *SITES, Variable("datapath", kind="choice", choices=DATAPATHS), Variable("compute_share"))


def tiles(large: Number, family: FamilyConstants) -> tuple[Number, Number, Number, Number]:
    """Multiply-adds a core, transistors of one, energy of a bf16 FLOP (J at N7) and fp4 rate of the datapath; ``large`` is 0 or 1."""
    s, small = family.special, 1 - large
    macs = large * family.macs_per_core + small * s["small_macs_per_core"]
    transistors = family.mac_transistor * (large * s["large_mac"] + small)
    return macs, transistors, large * family.flop_j + small * s["small_flop"], 1 + large * (family.fp4_rate - 1)


def core_mm2(
    large: Number, macs: Number, mac_transistor: Number, process: Process, technology: Technology, family: FamilyConstants
) -> tuple[Number, Number]:
    """Area of one core: multiply-adds; and vector units, control, registers, L1, crossbar and cache ports with it, mm2.

    Large tiles bring a store for their sums beside the registers, and integer units for every lane.
    """
    t, m, s, density = technology.logic, technology.sram, family.special, process.density_transistor_per_mm2
    vector = s["fp32_per_core"] * t.fp32_transistor + (s["int32_per_core"] + large * s["large_int32"]) * t.int32_transistor
    wide = (s["fp64_per_core"] + s["sfu_per_core"]) * t.fp64_transistor
    logic = silicon.logic_area_mm2(vector + wide + t.gpu_core_transistor, density, t.utilisation)
    crossbar = silicon.logic_area_mm2(t.crossbar_transistor, density, 1)
    registers = (s["register_per_core"] + large * s["large_register"]) / (process.sram_byte_per_mm2 * m.register_density)
    l1 = s["l1_per_core"] / (process.sram_byte_per_mm2 * m.l1_density)
    ports = silicon.cache_port_area_mm2(s["port_per_core"], m.cache_port_mm2_per_byte, t.reference_transistor_per_mm2, density)
    return silicon.logic_area_mm2(macs * mac_transistor, density, t.utilisation), logic + crossbar + registers + l1 + ports


def build(values: Mapping[str, Any], process: Process, technology: Technology, family: FamilyConstants) -> Built:
    """A GPU from its design variables."""
    dies, sites = values["dies"], values["stacks"]
    site = memory_site(values["memory"], technology)
    edge = edge_blocks(values, dies, sites, site, process, technology)
    density = process.density_transistor_per_mm2
    other = silicon.scaled_area_mm2(technology.logic.other_mm2, technology.logic.reference_transistor_per_mm2, density)
    blocks = edge["memory_phy"] + edge["links"] + other
    die, rest, overhead = floor_plan(values["die_area_mm2"], blocks, family.overhead_share, technology)
    macs, transistors, flop_j, fp4_rate = tiles(values["datapath"], family)
    mac_area, core_rest = core_mm2(values["datapath"], macs, transistors, process, technology, family)
    cores = values["compute_share"] * rest / (mac_area + core_rest)
    enabled = dies * cores * family.enabled_share
    hertz = clock(values, process, technology, family)
    vector = 2 * enabled * family.special["fp32_per_core"] * hertz
    memory, memory_rate, memory_usd = off_chip(site, sites)
    parts = Parts(
        die_mm2=die,
        dies=dies,
        area_mm2={
            **edge,
            "compute": cores * mac_area,
            "control": cores * core_rest,
            "sram": (1 - values["compute_share"]) * rest,
            "other": other + overhead,
        },
        peak=peaks(enabled * macs, hertz, vector, fp4_rate),
        computes=formats(fp4_rate),
        flop_j=energies(operation_j(flop_j, values, process, technology), fp4_rate, technology),
        vector_flop_per_s=vector,
        exp_per_s=enabled * family.special["sfu_per_core"] * hertz,
        sram=EMPTY,
        sram_byte_per_s=0.0,  # inside the energy per FLOP, which is all in
        weight_store=EMPTY,
        memory=memory,
        memory_byte_per_s=memory_rate,
        memory_usd=memory_usd,
        sites=sites,
        site=site,
    )
    return assemble(values, parts, process, technology, family)


FAMILY = Family("hbm_gpu", VARIABLES, build)
