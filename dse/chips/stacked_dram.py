"""DRAM bonded on the logic: bandwidth by area instead of by edge, under the tightest heat limit.

The share of the bonded bandwidth that is driven is a variable: all of it would leave hardly a watt for arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from dse.equations import silicon
from dse.space import Variable
from dse.types import FamilyConstants, Process, Store, Technology

VARIABLES = (*COMMON, Variable("layers", kind="int"), Variable("drive_share"), Variable("compute_share"))


def build(values: Mapping[str, Any], process: Process, technology: Technology, family: FamilyConstants) -> Built:
    """A chip with DRAM on its logic dies, from its design variables."""
    dies, share, stack = values["dies"], values["compute_share"], technology.stacked
    edge = edge_blocks(values, dies, 0.0, None, process, technology)
    die, rest, overhead = floor_plan(values["die_area_mm2"], edge["links"], family.overhead_share, technology)
    unit, control = spatial_mac_mm2(process, technology, family)
    macs = share * rest / (unit + control)
    enabled = dies * macs * family.enabled_share
    hertz = clock(values, process, technology, family)
    vector, exponentials = spatial_vectors(enabled, hertz, family)
    sram, sram_rate = sram_store((1 - share) * rest, die, dies, family.bank_byte, values, process, technology, family)
    capacity = silicon.stacked_capacity_byte(dies * die, values["layers"], stack.byte_per_mm2)
    rate = silicon.stacked_bandwidth_byte_per_s(dies * die, values["drive_share"], stack.byte_per_s_mm2)
    parts = Parts(
        die_mm2=die,
        dies=dies,
        area_mm2={**edge, "compute": macs * unit, "control": macs * control, "sram": (1 - share) * rest, "other": overhead},
        peak=peaks(enabled, hertz, vector, family.fp4_rate),
        computes=formats(family.fp4_rate),
        flop_j=energies(operation_j(family.flop_j, values, process, technology), family.fp4_rate, technology),
        vector_flop_per_s=vector,
        exp_per_s=exponentials,
        sram=sram,
        sram_byte_per_s=sram_rate * family.sram_model_share,
        weight_store=EMPTY,
        memory=Store(capacity_byte=capacity, s_per_byte=1 / rate, j_per_byte=stack.j_per_byte),
        memory_byte_per_s=rate,
        memory_usd=capacity * stack.usd_per_byte,
        layers=values["layers"],
    )
    return assemble(values, parts, process, technology, family)


FAMILY = Family("stacked_dram", VARIABLES, build)
