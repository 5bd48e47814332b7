"""An SRAM machine: weights and KV in banked SRAM beside the multipliers, no off-chip memory, one die or a whole wafer.

Bank size trades capacity against bandwidth; the multipliers take new weights only every few clocks, which caps the weight traffic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from dse.chips.common import (
    COMMON,
    EMPTY,
    Built,
    Family,
    Parts,
    assemble,
    clock,
    edge_blocks,
    energies,
    floor_plan,
    formats,
    operation_j,
    peaks,
    spatial_mac_mm2,
    spatial_vectors,
    sram_store,
)
from dse.space import Variable
from dse.types import FamilyConstants, Process, Technology

INTEGRATIONS = ("die", "wafer")
NOT_OF_A_WAFER = ("die_area_mm2", "dies", "link_byte_per_s")  # it has one size and the input and output of its system
VARIABLES = (
    *(dataclasses.replace(v, absent_with=("integration", "wafer") if v.name in NOT_OF_A_WAFER else None) for v in COMMON),
    Variable("integration", kind="choice", choices=INTEGRATIONS),
    Variable("compute_share"),
    Variable("bank_byte", unit="byte", log=True),
)


def build(values: Mapping[str, Any], process: Process, technology: Technology, family: FamilyConstants) -> Built:
    """An SRAM machine from its design variables; a wafer has one "die" of its own size and ignores ``die_area_mm2`` and ``dies``."""
    wafer, share = values["integration"], values["compute_share"]
    dies = (1 - wafer) * values["dies"] + wafer
    area = (1 - wafer) * values["die_area_mm2"] + wafer * technology.packaging.wafer_scale_area_mm2
    edge = edge_blocks(values, dies, 0.0, None, process, technology)
    die, rest, overhead = floor_plan(area, edge["links"], family.overhead_share, technology)
    unit, control = spatial_mac_mm2(process, technology, family)
    macs = share * rest / (unit + control)
    sold = 1 - wafer * (1 - technology.packaging.wafer_scale_enabled)  # spare cores, their memory with them, repair a wafer
    enabled = dies * macs * family.enabled_share * sold
    hertz = clock(values, process, technology, family)
    vector, exponentials = spatial_vectors(enabled, hertz, family)
    sram, banks = sram_store(sold * (1 - share) * rest, die, dies, values["bank_byte"], values, process, technology, family)
    rate = jnp.minimum(banks, 2 * enabled * hertz / family.special["install_cycle"])  # two 8-bit weights for each bf16 multiply-add
    parts = Parts(
        die_mm2=die,
        dies=dies,
        area_mm2={**edge, "compute": macs * unit, "control": macs * control, "sram": (1 - share) * rest, "other": overhead},
        peak=peaks(enabled, hertz, vector, family.fp4_rate),
        computes=formats(family.fp4_rate),
        flop_j=energies(operation_j(family.flop_j, values, process, technology), family.fp4_rate, technology),
        vector_flop_per_s=vector,
        exp_per_s=exponentials,
        sram=dataclasses.replace(sram, s_per_byte=1 / rate),
        sram_byte_per_s=rate,
        weight_store=EMPTY,
        memory=EMPTY,
        memory_byte_per_s=0.0,
        memory_usd=0.0,
        wafer=wafer,
    )
    return assemble(values, parts, process, technology, family)


FAMILY = Family("sram", VARIABLES, build)
