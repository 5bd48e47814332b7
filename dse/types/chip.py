"""One packaged chip, whatever its family: rates, stores, links, power, cost."""

from __future__ import annotations

from dse.types.base import Number, pytree
from dse.types.formats import PerFormat
from dse.types.kernels import Kernels


@pytree()
class Store:
    """A memory of one chip. Infinite bandwidth is zero seconds per byte."""

    capacity_byte: Number
    s_per_byte: Number
    j_per_byte: Number


@pytree()
class Link:
    """The links of one chip into one network level, one direction."""

    chips: Number  # chips in the domain that these links span
    s_per_byte: Number
    j_per_byte: Number
    dimensions: Number = 0.0  # of a torus or mesh, whose chips pass messages on to each other; 0: a switch
    open_ends: Number = 0.0  # 1: a mesh, whose ends are not joined; 0: a torus


@pytree()
class Slacks:
    """Distance of a chip to its physical limits, relative to the limit: >= 0 is feasible. Zero for chips that exist."""

    reticle: Number
    beachfront: Number
    heat: Number
    package: Number


@pytree()
class Chip:
    """What the performance and cost equations need to know of one packaged chip, whatever its family."""

    peak_flop_per_s: PerFormat  # dense, 2 FLOP a multiply-add; a format it lacks carries the next wider one's rate
    computes: PerFormat  # 1 where the datapath has the format, else 0
    vector_flop_per_s: Number
    exp_per_s: Number  # exponentials a second of the special-function units
    weight_store: Store  # holds nothing but weights: ROM, compute-in-memory arrays
    sram: Store  # capacity that may hold weights and KV (zero where it is a cache)
    memory: Store  # off-chip or stacked memory
    scale_up: Link
    scale_out: Link
    flop_j: PerFormat  # joule per FLOP
    static_w: Number
    tdp_w: Number
    host_share: Number  # share of a reference server slot that one chip needs (1 for a GPU of 700 W)
    liquid_cooled: Number  # 1 or 0
    unit_cost_usd: Number  # to make one tested package, memory included
    nre_usd: Number  # design and full mask set, once
    nre_model_usd: Number  # masks of one distinct die for one model (burned-in weights)
    wafers: Number  # wafers started for one package
    system_usd: Number  # of one package beside silicon and server slot (wafer-scale power and cooling)
    street_usd: Number  # street price, where there is one
    has_street: Number  # 1 or 0
    rent_usd_per_s: Number  # rent of one chip, all in, where there is one
    has_rent: Number  # 1 or 0
    model_bound: Number  # 1 if the chip dies with its model, else 0
    slack: Slacks
    kernels: Kernels
