"""The nouns of the model: frozen pytrees of numbers, in SI units, with the unit at the end of each name.

What a chip, a network, a language model, a workload, a layout, an owner's prices, one deployment and its metrics are.
A leaf is one number (or an array that broadcasts with its neighbours); names, sources and prose stay in the catalogue.
A feature that is off is ``None``: another compiled version without it. Nothing is computed here but the look-up of a format's name.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

import jax

import dse._jax  # noqa: F401  sets 64-bit mode and the compilation cache
from dse import glossary
from dse.errors import InputError, closest

T = TypeVar("T")
Number = Any  # float, numpy scalar or JAX array, of any shape that broadcasts


@dataclass_transform(frozen_default=True, kw_only_default=True)
def pytree(*static: str):
    """Class decorator: a frozen, keyword-only dataclass registered with JAX; the fields named in ``static`` are not leaves."""

    def register(cls: type[T]) -> type[T]:
        cls = dataclass(frozen=True, kw_only=True)(cls)
        data = [f.name for f in dataclasses.fields(cls) if f.name not in static]  # type: ignore[arg-type]
        return jax.tree_util.register_dataclass(cls, data_fields=data, meta_fields=list(static))

    return register


# --- formats -------------------------------------------------------------------------------------------------------


@pytree()
class PerFormat:
    """One number for each arithmetic format. A choice among them is a one-hot ``PerFormat``."""

    fp32: Number
    bf16: Number
    fp8: Number
    fp4: Number
    int8: Number


@pytree()
class PerKernel:
    """One value (a number or a record) for each kernel class, that is, weight format as the kernels see it."""

    bf16: Any
    fp8: Any
    fp8_block: Any
    int8: Any
    nvfp4: Any
    mxfp4: Any
    int4: Any


@pytree()
class Format:
    """Which numbers are stored and multiplied in which format."""

    weight_byte: Number  # byte per weight in the layers, scales included
    head_byte: Number  # byte per weight of embedding and output head
    kv_byte: Number  # byte per cached value
    activation_byte: Number  # byte per activation value entering a GEMM
    kernel: PerKernel  # one-hot: which kernel class multiplies the weights
    compute: PerFormat  # one-hot: arithmetic format of the weight GEMMs
    attention: PerFormat  # one-hot: arithmetic format of attention scores and values
    kv_fp8: Number  # 1 if the cache is 8 bit, else 0 (selects the attention constants)
    weight_only: Number  # 1 if the weights are widened before they are multiplied (any chip can compute it)


BF16_BYTE = 2.0


def _one_hot(cls: type, name: str) -> Any:
    return cls(**{f.name: float(f.name == name) for f in dataclasses.fields(cls)})


def named_format(weights: str, kv: str | None = None) -> Format:
    """The ``Format`` of a weight format's name; cache, arithmetic and activations follow the glossary's table.

    Args:
        weights: One of the glossary's formats (``"fp8"``). kv: Format of the cache, or None for the table's default.

    Raises:
        InputError: unknown name.

    >>> named_format("fp8").weight_byte, named_format("fp8", "bf16").kv_byte
    (1.0, 2.0)
    """
    table = glossary.load().formats
    problems = [f"format — {name!r} is not a format; one of {', '.join(table)}{closest(name, table)}"
                for name in (weights, kv) if name is not None and name not in table]  # fmt: skip
    if problems:
        raise InputError(problems)
    rule, cache = table[weights], table[kv or table[weights].kv]
    weight_only = rule.compute_gpu == "bf16" and rule.compute != "bf16"
    widest = max(rule.weight_byte, BF16_BYTE)
    return Format(
        weight_byte=rule.weight_byte,
        head_byte=rule.weight_byte if weight_only else widest,  # quantised checkpoints leave embedding and head in bf16
        kv_byte=cache.weight_byte,
        activation_byte=widest,
        kernel=_one_hot(PerKernel, rule.kernel),
        compute=_one_hot(PerFormat, rule.compute_gpu),
        attention=_one_hot(PerFormat, "fp32" if rule.weight_byte > BF16_BYTE else "bf16"),
        kv_fp8=float(cache.weight_byte < BF16_BYTE),
        weight_only=float(weight_only),
    )


# --- the chip ------------------------------------------------------------------------------------------------------


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


@pytree()
class Gemm:
    """Constants of a matrix multiplication ``y[M,N] = x[M,K] w[K,N]`` (equations.roofline.gemm)."""

    floor_s: Number
    compute_efficiency: Number
    memory_efficiency: Number
    serial_s_per_k: Number  # one thread block walks K serially: seconds for each element of K
    quantise_pass: Number  # passes over 2 M K bytes that quantise the activations, at full bandwidth (1.5 / e_q, or 0)
    ramp_flop: Number = 0.0  # FLOP at which small GEMMs reach 1/sqrt(2) of the compute efficiency (0: at once)
    fill_k: Number = 0.0  # inner length that filling and draining the pipeline of a tile costs
    tail_output: Number = 0.0  # outputs whose time the last, partly filled wave of tiles wastes


@pytree()
class Moe:
    """Constants of a fused mixture-of-experts feed-forward (equations.roofline.experts)."""

    floor_s: Number
    compute_efficiency: Number
    memory_efficiency: Number
    activation_efficiency: Number
    tile_token: Number  # tokens an expert's tile is padded by
    imbalance: Number  # extra work of the busiest rank under uneven routing, at many tokens an expert
    imbalance_token: Number  # tokens an expert at which half of it is reached
    hit_s: Number = 0.0  # seconds for each expert hit: its tile starts and its weights are fetched from another place


@pytree()
class AttentionDecode:
    """Constants of attention of one new token to a cache (equations.roofline.attention_decode)."""

    floor_s: Number
    compute_efficiency: Number
    memory_efficiency: Number
    query_efficiency: Number  # bandwidth efficiency of the query and output traffic
    head_s: Number  # seconds for each (sequence, KV head) over the whole chip
    latency_s: Number  # latency of one sequence of 1024 tokens; grows with the square root of the context


@pytree()
class AttentionPrefill:
    """Constants of causal attention over a prompt (equations.roofline.attention_prefill)."""

    floor_s: Number
    compute_efficiency: Number
    memory_efficiency: Number
    exp_efficiency: Number  # of the chip's special-function rate
    ramp_token: Number  # cost linear in the prompt, as tokens added to it
    serial_s_per_token: Number


@pytree()
class AllReduce:
    """Constants of the three regimes of an all-reduce (equations.collectives.all_reduce)."""

    one_shot_s: Number
    peer_s: Number
    one_shot_efficiency: Number
    two_shot_s: Number
    two_shot_efficiency: Number
    ring_s: Number
    ring_peer_s: Number
    ring_efficiency: Number
    in_switch: Number
    ramp: Number = 0.0  # of the ring: weight of the geometric mean of latency and transfer time


@pytree()
class Collective:
    """Constants of all-gather, reduce-scatter, all-to-all and point to point: latency, latency a peer, share of the link."""

    base_s: Number
    peer_s: Number
    efficiency: Number
    ramp: Number = 0.0  # weight of the geometric mean of latency and transfer time: messages between the two regimes


@pytree()
class System:
    """What an engine pays beside its kernels (equations.serving)."""

    host_s: Number  # a decoding step: scheduling and sampling
    sequence_s: Number  # a decoding step, for each sequence of the rank
    layer_s: Number  # fixed time of a layer where single kernels are not resolved (spatial and hardwired machines)
    layer_token_s: Number  # time after which a hardwired layer accepts its next token
    layer_pipelined: Number  # 1 if every layer has hardware of its own, so that a token in each layer is in flight
    small_kernel_s: Number  # an element-wise or routing kernel
    dense_kernels: Number  # small kernels of a dense layer
    moe_kernels: Number  # further ones of a layer with routed experts
    latent_kernels: Number  # further ones of latent attention
    kernel_floor: Number  # share of the benchmarked floors of GEMM and attention that an engine pays
    quantise_floor: Number  # share of the extra floor of activation-quantising GEMMs that an engine pays (the rest is fused)
    moe_floor: Number  # the same for fused experts
    interference: Number  # prefill work of others inside a decoding step, relative to its plain bookkeeping
    queue: Number  # share of the other requests' prefills that a new request waits for
    first_token_s: Number  # fixed part of the time to first token
    prefill_load: Number  # share of its time for which a separate prefill instance is provisioned
    factor: Number  # software generation: multiplies the step
    reserve_share: Number  # memory kept free
    kv_fill: Number  # share of the output that a request's cache holds on average, with a margin
    activation_copies: Number  # model-width vectors held for each token of a prefill chunk
    chunk_token: Number  # tokens of a prefill chunk
    overlap: Number  # share of communication hidden behind compute
    pickup_steps: Number = 2.0  # decoding steps that a new request waits through until it is taken up and its first token is out
    waiting: Number = 0.0  # requests of a closed loop that stand outside the running batch
    routing_exponent: Number = 1.0  # tokens of a batch choose experts alike: T of them count as T to this power (1: independently)


@pytree()
class Kernels:
    """All constants of how a chip falls short of its datasheet. ``calibrated`` ones are fits; ``ideal`` ones are 1 and 0."""

    blend: Number  # 1: smooth maximum; 0: hard maximum
    gemm: PerKernel  # of Gemm
    moe: PerKernel  # of Moe
    decode: AttentionDecode
    decode_fp8: AttentionDecode
    mla_decode: AttentionDecode
    prefill: AttentionPrefill
    prefill_fp8: AttentionPrefill
    mla_prefill: AttentionPrefill
    elementwise_efficiency: Number
    all_reduce: AllReduce
    all_gather: Collective
    dispatch: Collective
    combine: Collective
    scale_out: Collective
    point_to_point: Collective
    system: System
    tpot_error: Number = 0.0  # 90 % of measured times per token lie within this relative error (0: not known)
    ttft_error: Number = 0.0  # the same of the time to first token


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


# --- the language model ----------------------------------------------------------------------------------------------


@pytree()
class Attention:
    """Token mixer of a layer, as numbers: MHA, GQA, MQA, MLA, windows and linear layers differ in values, not in code."""

    in_columns: Number  # columns of the first projection (q, k, v; with MLA: compressed q and kv)
    in_sharded: Number  # 1: tensor parallelism splits them; 0: every rank computes them (MLA)
    up_rank: Number | None  # rows of the query up-projection (0 or None: none)
    up_columns: Number
    latent_rank: Number | None  # rows of the KV up-projection (0 or None: none)
    latent_columns: Number
    out_rows: Number  # rows of the output projection
    heads: Number
    kv_heads: Number  # KV heads = how far tensor parallelism can split the cache
    kv_values: Number  # values cached for one token in one layer
    query_values: Number  # query and output values of one token
    prefill_values: Number  # q, k, v, o values of one token as prefill moves them
    decode_flop: Number  # FLOP per token and cached token
    prefill_flop: Number
    window: Number  # tokens attended to at most (huge: all)
    window_mean: Number  # mean filled share of the window (1 sliding, 0.5 chunked)
    index_topk: Number  # tokens chosen by a sparse-attention indexer (huge: none)
    index_flop: Number  # indexer FLOP per token and cached token
    index_values: Number  # indexer values cached for a token
    state_byte: Number  # recurrent state of one sequence in one layer
    state_flop: Number  # per token
    latent: Number  # 1 for MLA, else 0 (selects the attention constants)
    scored: Number  # 1 if scores are computed, 0 for linear and absent mixers
    params: Number  # weights of this mixer in one layer, for memory


@pytree()
class FeedForward:
    """Feed-forward of a layer: a dense part (also shared experts) and routed experts."""

    width: Number | None  # of the dense part (shared experts: all together); 0 or None: none
    matrices: Number  # 3 with a gate, 2 without
    experts: Number | None  # routed experts; 0 or None: none
    experts_per_token: Number
    expert_width: Number
    expert_params: Number  # weights of all routed experts of one layer
    params: Number  # weights of the rest of the feed-forward in one layer (dense part, router)


@pytree()
class LayerGroup:
    """A number of identical layers."""

    mixers: Number  # how many layers of the group have the mixer
    ffns: Number  # how many have the feed-forward
    attention: Attention
    ffn: FeedForward
    syncs: Number  # tensor-parallel reductions in one layer (2; 1 where attention and feed-forward run side by side)


@pytree()
class LLM:
    """A language model: up to four groups of identical layers, and what surrounds them."""

    d_model: Number
    vocab: Number
    params: Number  # all
    active_params: Number  # multiplied for one token, output head included
    embedding_params: Number  # embedding and output head (once if tied)
    head_params: Number  # output head as multiplied
    native: Format  # the format of release
    groups: tuple[LayerGroup, ...]


# --- the question ----------------------------------------------------------------------------------------------------


@pytree()
class Speculation:
    """Tokens are guessed ahead and verified together."""

    tokens: Number  # drafted in a step
    acceptance: Number  # probability that a drafted token is accepted
    draft: LLM | None = None  # the model that guesses; None: an extra layer of the model itself (multi-token prediction)


@pytree()
class Workload:
    """One kind of request."""

    input_tokens: Number
    output_tokens: Number
    uneven_routing: Number = 1.0  # 1: power-law expert load; 0: balanced
    shared_prefix_tokens: Number | None = None  # of the input, already cached and shared by all requests
    samples: Number | None = None  # answers drawn for one input, which is prefilled and cached once; each counts in ``Layout.batch``
    speculation: Speculation | None = None


@pytree()
class Arrivals:
    """Requests that arrive at random (Poisson), with lengths that differ (lognormal); the means are those of the workload."""

    input_cv: Number  # standard deviation of the input over its mean
    output_cv: Number
    rate_per_s: Number | None = None  # requests a second of the instance
    load: Number | None = None  # instead: share of the rate at which all of ``Layout.batch`` stay busy


@pytree()
class Layout:
    """How one instance is cut over chips: ``chips = tp * pp * cp * dp``; ``ep`` re-uses the chips of a stage."""

    tp: Number = 1.0
    pp: Number = 1.0
    cp: Number | None = 1.0  # None: 1, in another compiled version without context parallelism; so also dp and ep
    dp: Number | None = 1.0
    ep: Number | None = 1.0
    batch: Number = 1.0  # requests in the instance at the same time, all chips together
    format: Format | str | None = None  # None: the format of release, or the next wider one that the chip computes

    def __post_init__(self) -> None:
        """Turn the name of a format (``"fp8"``, or ``"fp8/bf16"`` with a cache format) into its numbers."""
        if isinstance(self.format, str):
            object.__setattr__(self, "format", named_format(*self.format.split("/")))


@pytree()
class Prices:
    """An owner's view of money, and the scenario values that belong to it. Prices in USD of one stated year."""

    cost_multiple: Number  # price of a fabricated chip over its unit cost (1: at cost)
    buys_at_street: Number  # 1: street price, where there is one, else unit cost x ``vendor_multiple``
    vendor_multiple: Number
    rents: Number  # 1: everything is rented by the hour
    rent_per_price: Number  # USD per s of rent for one USD of street price, where no rent is known
    nre_share: Number  # 1: the owner pays the NRE
    volume_wafer: Number  # wafers over which design and masks are spread
    model_volume_wafer: Number  # wafers over which the masks of one model are spread (burned-in weights)
    discount_per_year: Number
    life_year: Number  # of a server
    model_life_year: Number  # of a model that is burned in
    server_usd: Number  # server remainder of one reference slot
    network_usd: Number
    storage_usd: Number
    host_w: Number  # host, network and storage power of one reference slot
    conversion_air: Number  # losses as a share of chip power
    conversion_liquid: Number
    pue_air: Number
    pue_liquid: Number
    energy_usd_per_j: Number
    facility_usd_per_j: Number  # building and cooling, by provisioned power
    utilisation: Number  # share of time in which the fleet serves


@pytree("serving")
class Deployment:
    """One chip type, model, workload, layout and owner: everything that ``evaluate`` needs."""

    chip: Chip
    model: LLM
    workload: Workload
    layout: Layout
    prices: Prices
    prefill_layout: Layout | None = None  # disaggregated serving: layout of a prefill instance (None: as ``layout``)
    prefill_chip: Chip | None = None  # disaggregated serving: chip of a prefill instance (None: as ``chip``)
    arrivals: Arrivals | None = None  # None: a closed loop of ``layout.batch`` requests; else at most that many at the same time
    serving: str = "aggregated"  # aggregated | disaggregated | decode | prefill | static


@pytree()
class TimeParts:
    """Parts of one decoding step; they sum to ``tpot_s``."""

    compute: Number
    weights: Number
    kv: Number
    collectives: Number
    overhead: Number
    prefill: Number


@pytree()
class CostParts:
    """USD per second of serving, of the instance; they sum to the whole."""

    capital: Number
    system: Number
    nre: Number
    energy: Number
    site: Number
    idle: Number


@pytree()
class MemoryParts:
    """Bytes on the fullest chip."""

    weights: Number
    kv: Number
    activations: Number
    reserve: Number
    capacity: Number


SLACK_TOLERANCE = -1e-6  # a limit met exactly stays met after rounding; datasheets are rounded more coarsely than one in a million


@pytree()
class SlackParts:
    """Distance to every limit, relative to the limit: all >= 0 means feasible."""

    memory: Number
    divisibility: Number
    reticle: Number
    beachfront: Number
    heat: Number
    package: Number


# --- technology ------------------------------------------------------------------------------------------------------


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
