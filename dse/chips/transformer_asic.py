"""A transformer ASIC: systolic arrays with little control, a scratchpad of SRAM, HBM along the die's edge.

Heat binds long before area: the array could do several times a GPU's FLOP/s, and could not be cooled.
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
    spatial_mac_mm2,
    spatial_vectors,
    sram_store,
)
from dse.space import Variable
from dse.types import FamilyConstants, Process, Technology

VARIABLES = (*COMMON, *SITES, Variable("compute_share"))


def build(values: Mapping[str, Any], process: Process, technology: Technology, family: FamilyConstants) -> Built:
    """A transformer ASIC from its design variables."""
    dies, sites, share = values["dies"], values["stacks"], values["compute_share"]
    site = memory_site(values["memory"], technology)
    edge = edge_blocks(values, dies, sites, site, process, technology)
    die, rest, overhead = floor_plan(values["die_area_mm2"], edge["memory_phy"] + edge["links"], family.overhead_share, technology)
    unit, control = spatial_mac_mm2(process, technology, family)
    macs = share * rest / (unit + control)
    enabled = dies * macs * family.enabled_share
    hertz = clock(values, process, technology, family)
    vector, exponentials = spatial_vectors(enabled, hertz, family)
    sram, sram_rate = sram_store((1 - share) * rest, die, dies, family.bank_byte, values, process, technology, family)
    memory, memory_rate, memory_usd = off_chip(site, sites)
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
        memory=memory,
        memory_byte_per_s=memory_rate,
        memory_usd=memory_usd,
        sites=sites,
        site=site,
    )
    return assemble(values, parts, process, technology, family)


FAMILY = Family("transformer_asic", VARIABLES, build)
