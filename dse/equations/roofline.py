"""How long does one operator take on one chip? Smooth rooflines of GEMM, attention, experts and element-wise kernels.

Every operator returns a ``Time``: a floor plus a p-norm of its compute, memory and serial terms, and how the total divides.
The exponent p belongs to the form of each equation (the same for all chips); all constants are catalogue entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp

from dse.equations.smooth import TINY, filled_share, lesser, monotone, power, root, shares, smooth_max
from dse.types import AttentionDecode, AttentionPrefill, Gemm, Moe, Number, pytree

# Exponents of the p-norms, fixed by operator kind (free fits scatter around them; see calibrate).
P_GEMM = 2
P_DECODE = 4
P_PREFILL = 2
P_MOE = 4
P_SPREAD = 4  # root of the experts of a rank by which uneven loads even out; power laws of exponent 1 to 2 give 3 to 10
P_REACH = 4  # sharpness with which a cache outgrows the last-level cache


@pytree()
class Time:
    """Seconds of an operator or a step, and the parts that sum to ``total``."""

    total: Number
    compute: Number
    weights: Number
    kv: Number
    collectives: Number
    overhead: Number


def total_of(terms: Sequence[Number]) -> Number:
    """Sum of the terms that are not literally zero: what does not exist keeps its axes out of the result.

    >>> total_of([0.0, 2.0, 3.0]), total_of([0.0, 0.0])
    (5.0, 0.0)
    """
    real = [x for x in terms if not (isinstance(x, float) and x == 0.0)]
    return sum(real[1:], real[0]) if real else 0.0


def times(factor: Number, x: Number) -> Number:
    """Product, kept literally zero where ``x`` is."""
    return x if isinstance(x, float) and x == 0.0 else factor * x


def only(**part: Number) -> Time:
    """A time that consists of one part."""
    ((name, value),) = part.items()
    none = dict.fromkeys(Time.__dataclass_fields__, 0.0)
    return Time(**{**none, "total": value, name: value})


def add(*parts: Time) -> Time:
    """Sum of times that follow each other."""
    return Time(**{name: total_of([getattr(t, name) for t in parts]) for name in Time.__dataclass_fields__})


def scale(factor: Number, time: Time) -> Time:
    """A time repeated ``factor`` times."""
    return Time(**{name: times(factor, getattr(time, name)) for name in Time.__dataclass_fields__})


def _time(p: int, blend: Number, floor: Number, compute: Number, weights: Number, kv: Number, serial: Number) -> Time:
    """Floor plus p-norm of four terms, divided by the shares of the norm; a term that is literally zero takes no part."""
    terms = {"compute": compute, "weights": weights, "kv": kv, "overhead": serial}
    real = {name: x for name, x in terms.items() if not (isinstance(x, float) and x == 0.0)}
    norm = smooth_max(p, blend, *real.values())
    parts = {name: share * norm for name, share in zip(real, shares(p, *real.values()), strict=True)}
    overhead = total_of([floor, parts.pop("overhead", 0.0)])
    return Time(total=floor + norm, **{"compute": 0.0, "weights": 0.0, "kv": 0.0, **parts}, collectives=0.0, overhead=overhead)


def gemm(
    m: Number,
    n: Number,
    k: Number,
    weight_byte: Number,
    activation_byte: Number,
    constants: Gemm,
    peak_flop_per_s: Number,
    s_per_byte: Number,
    blend: Number,
) -> Time:
    r"""Matrix multiplication of activations [M, K] with weights [K, N].

    .. math::
        t = t_0 + \left\| \frac{F}{e_f P} \sqrt{1 + \frac{F_0}{F}},\ \frac{b_w NK + b_a(MK + MN)}{e_b B},\ t_k K \right\|_2
        + \frac{2 q M K}{B}, \quad F = 2 (MN + W)(K + k_0)

    The datapath is busy for more than 2MNK: a tile fills and drains its pipeline (k_0), and the last wave of tiles is partly empty (W).

    Args:
        m, n, k: Rows (tokens), columns and inner length [1].
        weight_byte: Bytes per weight, scales included [byte].
        activation_byte: Bytes per activation read and written [byte].
        constants: Fit constants of the kernel class (``Gemm``).
        peak_flop_per_s: Dense datasheet peak of the arithmetic format [FLOP/s].
        s_per_byte: Seconds per byte of the store that holds the weights [s/byte].
        blend: 1 smooth, 0 hard maximum.

    Returns: Time [s].

    References: dse-operator-fit

    >>> from dse.types import Gemm
    >>> ideal = Gemm(floor_s=0.0, compute_efficiency=1.0, memory_efficiency=1.0, serial_s_per_k=0.0, quantise_pass=0.0)
    >>> t = gemm(32.0, 24576.0, 4096.0, 2.0, 2.0, ideal, 312e12, 1 / 1.555e12, 0.0)
    >>> round(float(t.total) * 1e6, 1)
    130.7
    """
    rate = constants.compute_efficiency * peak_flop_per_s
    full = jnp.maximum(2.0 * (m * n + constants.tail_output) * (k + constants.fill_k), 1.0) / rate
    compute = jnp.sqrt(full * (full + constants.ramp_flop / rate))
    memory = (weight_byte * n * k + activation_byte * (m * k + m * n)) / constants.memory_efficiency * s_per_byte
    quantise = constants.quantise_pass * 2.0 * m * k * s_per_byte
    core = _time(P_GEMM, blend, constants.floor_s, compute, memory, 0.0, constants.serial_s_per_k * k)
    return replace(core, total=core.total + quantise, weights=core.weights + quantise)


@monotone(+1, -1)
def beyond(size_byte: Number, reach_byte: Number) -> Number:
    r"""Share of a buffer read again and again that a last-level cache does not hold: :math:`1 / (1 + (R/V)^4)`.

    Args:
        size_byte: Buffer, V [byte]. reach_byte: What the cache holds, R; 0 for none [byte].

    References: dse-operator-fit

    >>> [round(float(beyond(v, 50e6)), 3) for v in (10e6, 50e6, 250e6)]
    [0.002, 0.5, 0.998]
    """
    return 1.0 / (1.0 + power(reach_byte / jnp.maximum(size_byte, 1.0), P_REACH))


def attention_decode(
    batch: Number,
    context: Number,
    flop: Number,
    kv_byte: Number,
    query_byte: Number,
    kv_heads: Number,
    constants: AttentionDecode,
    peak_flop_per_s: Number,
    s_per_byte: Number,
    query_s_per_byte: Number,
    blend: Number,
    repeated: Number | None = None,
) -> Time:
    r"""Attention of new tokens to a cache, on one chip.

    .. math::
        t = t_0 + u\, t_u + \left\| \frac{F}{e_f P},\ \frac{V}{e_b B} \left(1 - r (1 - u)(1 - \rho)\right),\ t_c b h,\
        t_l \sqrt{L/1024} \right\|_4 + \frac{Q}{e_q B}, \quad u = \frac{1}{1 + (R/V)^4}

    A sequence split over s blocks takes L/s steps and s partial results to merge: the best s makes its latency grow as the root of L.
    Benchmarks call a kernel on the same cache again and again (r = 1), so that one below R is read from the chip's last-level cache; in
    serving the other layers' weights and caches have passed through it since (r absent). What a stream beyond R takes to reach its rate,
    t_u, was measured at 4 to 8 us on four generations.

    Args:
        batch: Sequences [1].
        context: Tokens attended to by each [token].
        flop: Work of all sequences together [FLOP].
        kv_byte: Cache read, all sequences [byte].
        query_byte: Queries in and outputs out [byte].
        kv_heads: KV heads on this chip [1].
        constants: Fit constants (``AttentionDecode``).
        peak_flop_per_s: Peak of the attention arithmetic [FLOP/s].
        s_per_byte: Of the store that holds the cache [s/byte].
        query_s_per_byte: Of the store that holds activations [s/byte].
        blend: 1 smooth, 0 hard maximum. repeated: r, 1 for calls on the same cache one after the other; none in serving [1].

    Returns: Time [s].

    References: dse-operator-fit

    >>> from dse.types import AttentionDecode
    >>> c = AttentionDecode(floor_s=0.0, compute_efficiency=1.0, memory_efficiency=1.0, query_efficiency=1.0, head_s=0.0, latency_s=0.0)
    >>> t = attention_decode(64.0, 1024.0, 0.0, 64 * 1024 * 4096.0, 0.0, 8.0, c, 1e15, 1 / 3.35e12, 1 / 3.35e12, 1.0)
    >>> round(float(t.total) * 1e6, 2)
    80.13
    """
    past = beyond(kv_byte, constants.reach_byte)
    compute = flop / (constants.compute_efficiency * peak_flop_per_s)
    cache = kv_byte / constants.memory_efficiency * s_per_byte
    if repeated is not None:
        cache = cache * (1.0 - repeated * (1.0 - past) * (1.0 - constants.resident_share))
    latency = constants.latency_s * jnp.sqrt(jnp.maximum(context, TINY) / 1024.0)
    serial = smooth_max(P_DECODE, blend, constants.head_s * batch * kv_heads, latency)
    queries = query_byte / constants.query_efficiency * query_s_per_byte
    core = _time(P_DECODE, blend, constants.floor_s + constants.start_s * past, compute, 0.0, cache, serial)
    return add(core, only(kv=queries))


def attention_prefill(
    prompt: Number,
    flop: Number,
    exponentials: Number,
    moved_byte: Number,
    constants: AttentionPrefill,
    peak_flop_per_s: Number,
    exp_per_s: Number,
    s_per_byte: Number,
    blend: Number,
    written: Number = 0.0,
) -> Time:
    r"""Causal attention over whole prompts, on one chip; the softmax exponential runs at the special-function rate.

    .. math::
        t = t_0 + \left\| c,\ \frac{M}{e_b B},\ t_s S \right\|_2 + h \frac{c\, t_s S}{c + t_s S}, \quad
        c = \frac{F}{e_f P} + \frac{X}{e_x R}\left(1 + \frac{S_0}{S}\right) + \frac{w W}{R}

    The walk of one block along its keys does not hide wholly behind the computing of the others: of the lesser of the two a part, h, is
    added (the last blocks walk alone). What costs by the token (rotary embedding, rescaling; cache writes, by the key or value) runs at
    the rate of the vector units, as the exponential does: S_0 comes out alike on chips whose matrix rates differ sevenfold.

    Args:
        prompt: Tokens of one prompt, S [token].
        flop: Work of all prompts together [FLOP].
        exponentials: Scores that pass through the exponential [1].
        moved_byte: Queries, keys, values, outputs [byte].
        constants: Fit constants (``AttentionPrefill``).
        peak_flop_per_s: Peak of the attention arithmetic [FLOP/s].
        exp_per_s: Exponentials a second of the whole chip [1/s].
        s_per_byte: Of the store that holds activations [s/byte].
        blend: 1 smooth, 0 hard maximum. written: Keys and values written to the cache, W [1].

    Returns: Time [s].

    References: dse-operator-fit

    >>> from dse.types import AttentionPrefill
    >>> c = AttentionPrefill(floor_s=0.0, compute_efficiency=1.0, memory_efficiency=1.0, exp_efficiency=1.0, ramp_token=0.0,
    ...                      serial_s_per_token=0.0)
    >>> round(float(attention_prefill(4096.0, 1e12, 0.0, 0.0, c, 1e15, 1e13, 0.0, 1.0).total), 6)
    0.001
    """
    ramp = 1.0 + constants.ramp_token / jnp.maximum(prompt, 1.0)
    softmax = exponentials / (constants.exp_efficiency * exp_per_s)
    compute = flop / (constants.compute_efficiency * peak_flop_per_s) + softmax * ramp + constants.write_op * written / exp_per_s
    memory = moved_byte / constants.memory_efficiency * s_per_byte
    walk = constants.serial_s_per_token * prompt
    core = _time(P_PREFILL, blend, constants.floor_s, compute, 0.0, memory, walk)
    return add(core, only(overhead=constants.unhidden * lesser(compute, walk)))


def experts_hit(experts: Number, per_token: Number, tokens: Number) -> Number:
    r"""Expected number of distinct experts that ``tokens`` tokens use: :math:`E (1 - (1 - k/E)^T)`.

    References: erdil2025

    >>> round(float(experts_hit(256.0, 8.0, 1.0)), 3), round(float(experts_hit(256.0, 8.0, 64.0)), 1)
    (8.0, 222.4)
    """
    count = jnp.maximum(experts, 1.0)
    return experts * filled_share(tokens, per_token / count)


@monotone(+1, +1)
def distinct_tokens(tokens: Number, exponent: Number) -> Number:
    r"""Tokens that choose their experts independently, of a batch whose tokens resemble one another: :math:`T^\gamma`, T below one.

    Requests of one service ask alike and answer alike, so that a batch uses fewer experts than independent choices would. The number is
    that of the traffic, not of the chip: the ideal constants hold the same.

    Args:
        tokens: T [token]. exponent: gamma, 1 for independent choices [1].

    References: dse-system-fit

    >>> round(float(distinct_tokens(64.0, 0.85)), 2), float(distinct_tokens(0.5, 0.85))
    (34.3, 0.5)
    """
    return tokens * jnp.maximum(tokens, 1.0) ** (exponent - 1.0)


def experts_ffn(
    tokens: Number,
    hidden: Number,
    width: Number,
    matrices: Number,
    experts: Number,
    per_token: Number,
    expert_parallel: Number,
    uneven: Number,
    weight_byte: Number,
    constants: Moe,
    peak_flop_per_s: Number,
    s_per_byte: Number,
    blend: Number,
    distinct: Number | None = None,
    redundant: Number | None = None,
) -> Time:
    r"""Fused mixture-of-experts feed-forward of one rank, without communication.

    With R = T k / ep rows on the rank and H = hit experts / ep, each padded by m_0 rows:

    .. math::
        t = t_0 + \left\| \frac{2 a d I}{e_f P}\,(i R + m_0 H),\ \frac{a H d I b_w}{e_b B} \right\|_4
        + \frac{R(4d + 6I) + 8Td}{e_a B} + H t_h

    A token is read once and its sum over experts cleared, read and written: four values of two bytes. The load of the busiest rank under
    uneven routing is :math:`i = 1 + u\, i_0 (1 - 1/ep) (ep/E)^{1/4}`. The more experts a rank holds, the more their loads even out: slower
    than independent loads of one size would (the root), for few experts take most of a power law. It
    does not depend on m: if it grew with the tokens, twice the tokens could take more than twice the time, which two batches one
    after the other never do.

    Args:
        tokens: Tokens of the whole expert-parallel group, T [token].
        hidden, width: Model width d and the width of one expert on this rank, I [1].
        matrices: Matrices of an expert, a (3 with a gate) [1].
        experts, per_token: Routed experts E and experts chosen for a token, k [1].
        expert_parallel: Ranks over which whole experts are spread, ep [1].
        uneven: u: 1 power-law routing, 0 balanced [1].
        weight_byte: Bytes per weight [byte].
        constants: Fit constants (``Moe``).
        peak_flop_per_s: Dense peak of the arithmetic format [FLOP/s].
        s_per_byte: Of the store that holds the weights [s/byte].
        blend: 1 smooth, 0 hard maximum. distinct: Tokens that choose their experts independently; all by default [token].
        redundant: Further copies of experts, R. One for every rank (R = ep) levels a load that is known: the excess of the busiest rank
            falls as 1 - R/ep (tests/test_serving_features replays the placement); what drifts between two placements stays out [1].

    Returns: Time [s].

    References: dse-operator-fit

    >>> from dse.types import Moe
    >>> c = Moe(floor_s=0.0, compute_efficiency=1.0, memory_efficiency=1.0, activation_efficiency=1.0, tile_token=0.0, imbalance=0.0)
    >>> t = experts_ffn(1.0, 7168.0, 2048.0, 3.0, 256.0, 8.0, 1.0, 0.0, 1.0, c, 2e15, 1 / 3.35e12, 0.0)
    >>> round(float(t.total) * 1e6, 1)
    105.3
    """
    copies = experts if redundant is None else experts + redundant
    hit = jnp.maximum(experts_hit(copies, per_token, tokens if distinct is None else distinct) / expert_parallel, TINY)
    rows = tokens * per_token / expert_parallel
    if redundant is not None:
        uneven = uneven * jnp.clip(1.0 - redundant / expert_parallel, 0.0, 1.0)
    alone = jnp.minimum(expert_parallel / jnp.maximum(experts, 1.0), 1.0)  # one over the experts of a rank
    busiest = 1.0 + uneven * constants.imbalance * (1.0 - 1.0 / expert_parallel) * root(alone, P_SPREAD)
    padded = rows * busiest + hit * constants.tile_token
    compute = 2.0 * matrices * padded * hidden * width / (constants.compute_efficiency * peak_flop_per_s)
    weights = matrices * hit * hidden * width * weight_byte / constants.memory_efficiency * s_per_byte
    moved = (rows * (4.0 * hidden + 6.0 * width) + 8.0 * tokens * hidden) / constants.activation_efficiency * s_per_byte
    core = _time(P_MOE, blend, constants.floor_s, compute, weights, 0.0, 0.0)
    return add(core, only(weights=moved), only(overhead=hit * constants.hit_s))


def elementwise(kernels: Number, moved_byte: Number, kernel_s: Number, efficiency: Number, s_per_byte: Number) -> Time:
    r"""A number of element-wise kernels: a floor each, and their traffic.

    .. math:: t = n t_n + M / (e B)

    References: dse-operator-fit

    >>> round(float(elementwise(4.0, 3.35e6, 2e-6, 1.0, 1 / 3.35e12).total) * 1e6, 3)
    9.0
    """
    memory = moved_byte / efficiency * s_per_byte
    floor = kernels * kernel_s
    return add(only(weights=memory), only(overhead=floor))


def machine_balance(peak_flop_per_s: Number, s_per_byte: Number) -> Number:
    """FLOP that a chip can do while it fetches one byte (ridge point) [FLOP/byte].

    References: williams2009

    >>> round(float(machine_balance(3e15, 1 / 3e12)))
    1000
    """
    return peak_flop_per_s * s_per_byte
