"""How a chip falls short of its datasheet: constants of its kernels, collectives and engine."""

from __future__ import annotations

from dse.types.base import Number, pytree
from dse.types.formats import PerKernel


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
    imbalance: Number  # extra rows of the busiest rank under uneven routing where a rank holds one expert, relative to the mean
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
    start_s: Number = 0.0  # seconds until a cache beyond ``reach_byte`` streams at full rate
    reach_byte: Number = 0.0  # cache that the chip's last-level cache holds from one call to the next
    resident_share: Number = 1.0  # time of a byte that it holds, relative to one from memory


@pytree()
class AttentionPrefill:
    """Constants of causal attention over a prompt (equations.roofline.attention_prefill)."""

    floor_s: Number
    compute_efficiency: Number
    memory_efficiency: Number
    exp_efficiency: Number  # of the chip's special-function rate
    ramp_token: Number  # cost linear in the prompt, as tokens added to those of the exponential
    serial_s_per_token: Number
    write_op: Number = 0.0  # exponentials' worth of time for each key or value written to the cache
    unhidden: Number = 0.0  # part of the lesser of computing and one block's walk along its keys that does not run beside the other


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
    in_switch: Number  # share of the links' rate at which the switch reduces what each chip sends once; 0 without such a switch
    ramp: Number = 0.0  # of the ring: weight of the geometric mean of latency and transfer time
    local: Number = 0.0  # of the ring: pass over a chip's own buffer, in times of the buffer on its links


@pytree()
class Collective:
    """Constants of all-gather, reduce-scatter, all-to-all and point to point: latency, latency a peer, share of the link.

    Of dispatch and combine ``peer_s`` is the latency of each doubling of the group.
    """

    base_s: Number
    peer_s: Number
    efficiency: Number
    ramp: Number = 0.0  # weight of the geometric mean of latency and transfer time: messages between the two regimes
    local: Number = 0.0  # pass over a chip's own buffer (copies, packing), in times of the buffer on its links


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
    uneven_prompts: Number | None = None  # prefill that ranks wait for in vain, where prompts as long as a chunk start on one of them alone
    balance_steps: Number | None = None  # decoding steps after which a new request waits no more for one on each other attention rank
    wait_steps: Number | None = None  # decoding steps that a server holds a new request back for others to be prefilled with, at most
    poll_steps: Number | None = None  # decoding steps from one look for new requests to the next
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
