"""Weights burned into metal or mask ROM: no weight traffic, arithmetic beside every weight, KV in SRAM or HBM, one model for life.

Each layer has hardware of its own, which passes a token every time per layer; what it could do at once, heat does not allow.
"""

from __future__ import annotations

import dataclasses
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
    floor_plan,
    heat_limit_w,
    memory_site,
    off_chip,
    operation_j,
    power_parts_w,
    sram_store,
)
from dse.equations import fabrication, power, silicon
from dse.space import Variable
from dse.types import FamilyConstants, Number, PerFormat, Process, Store, Technology

VARIABLES = (*COMMON, *SITES, Variable("rom_share"), Variable("heat_share"))


def all_formats(value: Number, fp32: Number) -> PerFormat:
    """One number for every format: the arithmetic is built for the weights it stands beside; fp32 runs on the vector units."""
    return PerFormat(fp32=fp32, bf16=value, fp8=value, fp4=value, int8=value)


def layer_scale(values: Mapping[str, Any], technology: Technology) -> Number:
    """Time per layer relative to that at nominal voltage."""
    p = technology.power
    nominal = power.speed_at(p.nominal_v, p.threshold_v, p.clock_exponent)
    return nominal / power.speed_at(values["voltage_v"], p.threshold_v, p.clock_exponent)


def without_updates(sram: Store, rom_byte: Number, technology: Technology, family: FamilyConstants) -> Store:
    """SRAM that rewritable layers or adapters leave to the KV cache; a tenth at least, so that the capacity stays positive."""
    left = sram.capacity_byte - family.special["update_share"] * rom_byte
    return dataclasses.replace(sram, capacity_byte=jnp.maximum(left, sram.capacity_byte * technology.logic.least_share))


def cooled(values: Mapping[str, Any], parts: Parts, process: Process, technology: Technology) -> Parts:
    """The same parts with the arithmetic at a chosen share of what heat and power delivery allow: what the TDP provides for."""
    p, liquid = technology.power, values["cooling"]
    heat = heat_limit_w(values, parts.dies * parts.die_mm2, False, technology)
    limit = jnp.minimum(heat, liquid * p.package_liquid_w + (1 - liquid) * p.package_air_w)
    watts = power_parts_w(values, parts, process, technology)
    other = sum(watt for name, watt in watts.items() if name != "compute")
    rate = power.heat_limited_rate(limit * values["heat_share"], other, parts.flop_j.bf16, parts.peak.bf16)
    return dataclasses.replace(parts, peak=all_formats(rate, parts.peak.fp32))


def build(values: Mapping[str, Any], process: Process, technology: Technology, family: FamilyConstants) -> Built:
    """A burned-in chip from its design variables."""
    dies, sites, share, s = values["dies"], values["stacks"], values["rom_share"], family.special
    site = memory_site(values["memory"], technology)
    edge = edge_blocks(values, dies, sites, site, process, technology)
    die, rest, _ = floor_plan(values["die_area_mm2"], edge["memory_phy"] + edge["links"], 0.0, technology)
    rom = dies * silicon.rom_capacity_byte(share * rest, technology.rom.byte_per_mm2, technology.rom.array_share)
    beside = (1 - share) * rest
    hertz, scale = clock(values, process, technology, family), layer_scale(values, technology)
    arithmetic = 2 * rom / s["weight_byte"] / (family.layer_token_s * scale)
    units = dies * die * s["vector_per_mm2"]
    whole, rate = sram_store(beside * (1 - family.overhead_share), die, dies, family.bank_byte, values, process, technology, family)
    sram = without_updates(whole, rom, technology, family)
    memory, memory_rate, memory_usd = off_chip(site, sites)
    joule = operation_j(family.flop_j, values, process, technology)
    parts = Parts(
        die_mm2=die,
        dies=dies,
        area_mm2={**edge, "weights": share * rest, "sram": beside * (1 - family.overhead_share), "other": beside * family.overhead_share},
        peak=all_formats(arithmetic, 2 * units * hertz),
        computes=all_formats(1.0, 1.0),
        flop_j=all_formats(joule, joule * technology.power.fp32),
        vector_flop_per_s=2 * units * hertz,
        exp_per_s=units * family.exp_per_vector * hertz,
        sram=sram,
        sram_byte_per_s=rate,
        weight_store=Store(capacity_byte=rom, s_per_byte=0.0, j_per_byte=0.0),
        memory=memory,
        memory_byte_per_s=memory_rate,
        memory_usd=memory_usd,
        sites=sites,
        site=site,
        layer_scale=scale,
        nre_model_usd=fabrication.model_nre_usd(s["custom_masks"], process.mask_usd, dies, s["written_share"]),
        wafer_extra_usd=fabrication.written_wafer_usd(s["custom_masks"], s["written_share"], s["written_hour"], s["written_rate"]),
        model_bound=1.0,
    )
    # power is provisioned for a share of what the layers could do; how fast they then run at an operating point, the throttle says
    built = assemble(values, cooled(values, parts, process, technology), process, technology, family)
    return dataclasses.replace(built, chip=dataclasses.replace(built.chip, peak_flop_per_s=parts.peak))


FAMILY = Family("burned_in", VARIABLES, build)
