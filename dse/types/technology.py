"""What chips are made of: processes, memories, logic, links, packages, and what a family fixes."""

from __future__ import annotations

from dse.types.base import Number, pytree
from dse.types.kernels import Kernels


@pytree()
class Process:
    """One logic process (node). ``energy``, ``speed`` and ``design`` are relative to the nodes named at each."""

    density_transistor_per_mm2: Number  # peak logic density
    sram_byte_per_mm2: Number  # large SRAM macro
    energy: Number  # dynamic energy of one operation at nominal voltage (N7 = 1)
    speed: Number  # clock of the same design at nominal voltage (N7 = 1)
    leakage_w_per_mm2: Number
    wafer_usd: Number
    defects_per_mm2: Number
    mask_set_usd: Number
    mask_usd: Number  # one mask of a customised layer
    design: Number  # design cost of the same chip (N5 = 1)


@pytree()
class MemoryTechnology:
    """One site of off-chip memory: an HBM stack, or a group of GDDR or LPDDR channels."""

    capacity_byte: Number
    bandwidth_byte_per_s: Number  # maximum of the generation
    rate_share: Number  # share of it at which parts are shipped
    j_per_byte: Number  # device and interface together
    phy_mm2: Number  # on the logic die
    controller_transistor: Number
    edge_m: Number  # die edge that one site takes
    package_mm2: Number  # footprint in the package
    usd_per_byte: Number
    interposer: Number  # 1 if it needs a silicon interposer


@pytree()
class Logic:
    """Transistor counts of arithmetic and control, and how they become area."""

    utilisation: Number  # of the peak density in real layouts
    reference_transistor_per_mm2: Number  # density of N7, at which areas below are stated
    fp32_transistor: Number
    int32_transistor: Number
    fp64_transistor: Number
    gpu_core_transistor: Number  # control of one GPU core (SM or CU)
    crossbar_transistor: Number  # of one GPU core, at peak density
    alu_transistor: Number  # one vector unit of a spatial machine
    spatial_core_transistor: Number  # router and sequencer of a small autonomous core
    other_mm2: Number  # what else a GPU die carries, at N7
    least_share: Number  # of a die left to compute and memory; a die too small for its edge blocks grows


@pytree()
class Sram:
    """How SRAM density, area of caches and read energy depend on the size of a bank."""

    periphery_byte: Number  # bank size at which half of the area is periphery
    register_density: Number  # of a register file, relative to a large macro
    l1_density: Number
    cache_overhead: Number  # tags, error correction and redundancy of a shared cache
    cache_port_mm2_per_byte: Number  # of one byte per clock of cache bandwidth, at N7
    j_per_byte: Number  # read, at N7 and the reference bank
    reference_bank_byte: Number
    bank_exponent: Number  # of the read energy in the bank size
    whole_die_share: Number  # most SRAM that a die holds, relative to a die full of macros


@pytree()
class Rom:
    """Weights burned into the metal of the die, arithmetic included."""

    byte_per_mm2: Number  # of whole die
    array_share: Number  # share of the die that the array takes in the chips behind that density


@pytree()
class StackedDram:
    """DRAM bonded on top of the logic."""

    byte_per_mm2: Number  # of one layer
    byte_per_s_mm2: Number  # of bonded area, all of it driven
    j_per_byte: Number
    usd_per_byte: Number
    bond_yield: Number  # of a stack of ``reference_layers``
    reference_layers: Number
    bond_usd: Number  # for each bonded layer of a die


@pytree()
class LinkTechnology:
    """Serial links off the package, host interface, and links between dies."""

    phy_mm2_s_per_byte: Number
    controller_transistor_s_per_byte: Number
    j_per_byte: Number
    host_phy_mm2: Number
    host_controller_transistor: Number
    die_area_mm2_s_per_byte: Number
    die_edge_byte_per_s_m: Number  # bandwidth between dies for each metre of edge
    scale_out_j_per_byte: Number
    scale_out_chips: Number


@pytree()
class PowerTechnology:
    """Voltage and clock, energy by format, what counts for the TDP, limits of heat."""

    threshold_v: Number
    nominal_v: Number
    clock_exponent: Number
    fp32: Number  # energy per FLOP relative to bf16
    fp8: Number
    fp4: Number
    tdp_sram: Number  # share of the SRAM bandwidth that counts for the TDP
    tdp_link: Number
    heat_liquid_w_per_mm2: Number
    heat_air_w_per_mm2: Number
    heat_stacked_w_per_mm2: Number
    package_liquid_w: Number
    package_air_w: Number
    leakage_exponent_per_v: Number  # of the leakage current in the supply
    slot_w: Number  # chip power of a reference server slot


@pytree()
class Packaging:
    """Wafers, yield models, packages, assembly and test."""

    wafer_mm: Number  # diameter
    reticle_mm2: Number
    aspect: Number  # long over short edge of a die
    clustering: Number
    poisson: Number  # 1: Poisson yield instead of the negative binomial one
    murphy: Number  # 1: Murphy's
    interposer_fixed_usd: Number
    interposer_area_usd_per_mm2: Number
    interposer_fill: Number  # interposer area over the silicon on it
    interposer_max_mm2: Number
    interposer_test_usd: Number
    substrate_usd: Number
    substrate_die_usd: Number
    substrate_test_usd: Number
    component_yield: Number  # of placing one die or stack
    wafer_scale_area_mm2: Number
    wafer_scale_yield: Number
    wafer_scale_enabled: Number  # cores that work in a sold wafer
    wafer_scale_system_usd: Number
    wafer_scale_power_w: Number  # most power of one wafer-scale part
    wafer_scale_io_byte_per_s: Number


@pytree()
class Technology:
    """All technology constants that do not depend on the node."""

    memories: dict[str, MemoryTechnology]
    logic: Logic
    sram: Sram
    rom: Rom
    stacked: StackedDram
    link: LinkTechnology
    power: PowerTechnology
    packaging: Packaging


@pytree()
class FamilyConstants:
    """What a family fixes for all of its chips."""

    mac_transistor: Number  # one bf16 multiply-accumulate, which does two in 8 bit
    flop_j: Number  # energy of one bf16 FLOP at N7 and nominal voltage, all in
    clock_hz: Number  # at N7 and nominal voltage
    fp4_rate: Number  # fp4 rate over fp8 rate (1: no fp4 datapath)
    vector_per_mac: Number  # vector units for each bf16 multiply-accumulate
    exp_per_vector: Number  # exponentials per clock for each vector unit
    macs_per_core: Number
    overhead_share: Number  # of the die outside of the floor plan's blocks
    enabled_share: Number  # units that work in a sold part
    repairable: Number  # share of the die in which a defect is repaired or switched off
    bank_byte: Number
    port_byte: Number  # bytes per clock and bank
    sram_model_share: Number  # share of the SRAM that may hold weights and KV
    link_domain: Number  # chips
    scale_out_byte_per_s: Number
    host_share_min: Number
    design_usd: Number  # at N5
    layer_s: Number
    layer_token_s: Number
    layer_pipelined: Number
    special: dict[str, Number]  # what only this family has
    kernels: Kernels | None = None
