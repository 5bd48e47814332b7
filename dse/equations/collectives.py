"""How long do chips take to exchange data? All-reduce in three regimes, gathers, all-to-all, and two network levels.

``n`` chips of a group, ``size`` bytes each rank holds, links by seconds per byte in one direction. A group of one costs nothing.
"""

from __future__ import annotations

import jax.numpy as jnp

from dse.equations.smooth import TINY, distinct, filled_share, present, smooth_max, smooth_min
from dse.types import AllReduce, Collective, Number

Q_REGIMES = 16  # exponent of the smooth minimum over regimes: fits lie between 10 and 20
P_LEVELS = 4  # exponent of the norm of two network levels that carry experts' tokens at the same time
P_LOCAL = 2  # exponent of the norm of link traffic and local pass, which overlap in part: large messages of 2, 4 and 8 chips follow it


def all_reduce(n: Number, size: Number, s_per_byte: Number, constants: AllReduce, blend: Number) -> Number:
    r"""All-reduce inside one scale-up domain: the fastest of one-shot, two-shot and ring (or in-switch) algorithms.

    .. math::
        t = \min\nolimits_q \big( a_1 + a_n(n-1) + (n-1)S/(e_1 B),\ a_2 + a_n(n-1) + r/e_2,\
        l + \max(w + \rho\sqrt{l w}, r) \big), \quad l = a_3 + a_{n3}(n-1), \quad r = 2\tfrac{n-1}{n}\,S/B,

        w = \min\nolimits_q\big(\lVert r/e_3,\ c\,S/B \rVert_2,\ \tfrac{n+1}{n}\,S/(v B)\big)

    The ring's traffic overlaps with passes over the chip's own buffer (c); a switch that reduces takes each buffer once and returns the
    sum (v, 0 without one). That is measured up to eight chips; no group is taken beyond the rate of its links without such a switch.

    Args:
        n: Chips [1]. size: Bytes on each rank [byte]. s_per_byte: One direction of a chip's links [s/byte].
        constants: Fit constants (``AllReduce``). blend: 1 smooth, 0 hard minimum.

    Returns: Time [s]; 0 for one chip.

    References: dse-operator-fit

    >>> from dse.types import AllReduce
    >>> c = AllReduce(one_shot_s=0.0, peer_s=0.0, one_shot_efficiency=1.0, two_shot_s=0.0, two_shot_efficiency=1.0, ring_s=0.0,
    ...               ring_peer_s=0.0, ring_efficiency=1.0, in_switch=0.0)
    >>> round(float(all_reduce(8.0, 450e6, 1 / 450e9, c, 0.0)) * 1e3, 3)
    1.75
    >>> float(all_reduce(1.0, 450e6, 1 / 450e9, c, 0.0))
    0.0
    """
    peers = n - 1.0
    wire = 2.0 * peers / n * size * s_per_byte
    one = constants.one_shot_s + constants.peer_s * peers + peers * size * s_per_byte / constants.one_shot_efficiency
    two = constants.two_shot_s + constants.peer_s * peers + wire / constants.two_shot_efficiency
    ring = smooth_max(P_LOCAL, 1.0, 2.0 * peers / n / constants.ring_efficiency, constants.local)  # in times of the buffer on the links
    gain = smooth_max(Q_REGIMES, blend, 1.0, constants.in_switch * ring * n / (n + 1.0))
    latency, transfer = constants.ring_s + constants.ring_peer_s * peers, ring * size * s_per_byte / gain
    between = constants.ramp * jnp.sqrt(jnp.maximum(latency * transfer, TINY))
    return present(n) * smooth_min(Q_REGIMES, blend, one, two, latency + jnp.maximum(transfer + between, wire))


def exchange(n: Number, size: Number, s_per_byte: Number, constants: Collective) -> Number:
    r"""All-gather, reduce-scatter or all-to-all of a full buffer of ``size`` bytes.

    .. math:: t = l + w + \rho\sqrt{l w}, \quad l = a + a_n(n-1), \quad w = \frac{S}{B}\,\Big\lVert\frac{n-1}{n e},\ c\Big\rVert_2

    c is the pass over the chip's own buffer (the part that stays is copied too), which overlaps with the traffic on the links.

    Args:
        n: Chips [1]. size: Bytes of the full buffer [byte]. s_per_byte: One direction of a chip's links [s/byte].
        constants: Fit constants (``Collective``).

    Returns: Time [s]; 0 for one chip.

    References: dse-operator-fit

    >>> from dse.types import Collective
    >>> round(float(exchange(8.0, 450e6, 1 / 450e9, Collective(base_s=0.0, peer_s=0.0, efficiency=1.0))) * 1e3, 3)
    0.875
    >>> round(float(exchange(2.0, 800.0, 1e-9, Collective(base_s=1e-7, peer_s=0.0, efficiency=1.0, ramp=1.0))) * 1e9, 3)
    700.0
    >>> round(float(exchange(2.0, 800.0, 1e-9, Collective(base_s=0.0, peer_s=0.0, efficiency=0.5, local=0.75))) * 1e9, 3)
    1000.0
    """
    peers = n - 1.0
    latency = constants.base_s + constants.peer_s * peers
    transfer = smooth_max(P_LOCAL, 1.0, peers / n / constants.efficiency, constants.local) * size * s_per_byte
    between = constants.ramp * jnp.sqrt(jnp.maximum(latency * transfer, TINY))
    return present(n) * (latency + transfer + between)


def deal(n: Number, size: Number, s_per_byte: Number, constants: Collective, own_size: Number = 0.0) -> Number:
    r"""Tokens dealt out to the ranks of their experts, or what these return, by kernels that write into every peer's buffer at once.

    .. math:: t = a + a_n \log_2 n + \Big\lVert \frac{(n-1) S}{n e B},\ \frac{c\,O}{B} \Big\rVert_2

    Messages to all peers leave together, so that latency grows with the doublings of the group, not with its members (8 tokens take 11 us
    between 2 GPUs of a rack and 16 us between 64). Kernels that queue tokens in slots also pass over a buffer of the rank's own, c times
    its size O: one slot for every expert of a token, cleared before partial results arrive, whatever crosses the links.

    Args:
        n: Chips [1]. size: Bytes a rank sends, the part that stays among them [byte]. s_per_byte: One direction of a chip's links [s/byte].
        constants: Fit constants (``Collective``); ``peer_s`` is the latency of a doubling. own_size: O [byte].

    Returns: Time [s]; 0 for one chip.

    References: dse-operator-fit, flashinfer-alltoall

    >>> from dse.types import Collective
    >>> round(float(deal(8.0, 450e6, 1 / 450e9, Collective(base_s=1e-5, peer_s=2e-6, efficiency=1.0))) * 1e6, 3)
    891.0
    >>> round(float(deal(2.0, 600.0, 1e-9, Collective(base_s=0.0, peer_s=0.0, efficiency=1.0, local=0.5), 800.0)) * 1e9, 3)
    500.0
    """
    peers = n - 1.0
    latency = constants.base_s + constants.peer_s * jnp.log2(jnp.maximum(n, 1.0))
    links, own = peers / n / constants.efficiency * size, constants.local * own_size
    return present(n) * (latency + smooth_max(P_LOCAL, 1.0, links, own) * s_per_byte)


def levels_together(near: Number, far: Number) -> Number:
    """Time of tokens that cross both network levels: a node hands on what has arrived while more arrives, so the slower level counts [s].

    References: deepep

    >>> round(float(levels_together(1e-5, 1e-4)) * 1e6, 2), round(float(levels_together(1e-4, 0.0)) * 1e6, 2)
    (100.0, 100.0)
    """
    return smooth_max(P_LEVELS, 1.0, near, far)


def passing(n: Number, dimensions: Number, open_ends: Number) -> Number:
    r"""How much longer an all-to-all takes where chips pass messages on: the load of the middle of a torus or mesh, 1 behind a switch.

    Half of all bytes cross the middle, over :math:`2 n^{1 - 1/d}` links of a torus, half as many of a mesh; a chip has 2d of them.

    .. math:: \max\left(1,\ \tfrac{d}{4} n^{1/d} (1 + open)\right)

    References: scaling-book, dally-towles-2003

    >>> [round(float(passing(64.0, d, 0.0)), 3) for d in (0.0, 2.0, 3.0)], round(float(passing(64.0, 2.0, 1.0)), 3)
    ([1.0, 4.0, 3.0], 8.0)
    """
    side = jnp.exp(jnp.log(jnp.maximum(n, 1.0)) / jnp.maximum(dimensions, 1.0))
    there = jnp.minimum(dimensions, 1.0)
    return 1.0 + there * (jnp.maximum(dimensions * side / 4.0 * (1.0 + open_ends), 1.0) - 1.0)


def send(size: Number, s_per_byte: Number, constants: Collective) -> Number:
    """Point to point: latency plus bytes over one link [s].

    References: dse-operator-fit

    >>> from dse.types import Collective
    >>> round(float(send(450e6, 1 / 450e9, Collective(base_s=1e-5, peer_s=0.0, efficiency=1.0))) * 1e3, 3)
    1.01
    """
    return constants.base_s + size * s_per_byte / constants.efficiency


def split_levels(n: Number, domain: Number) -> tuple[Number, Number]:
    """Chips of a group inside one scale-up domain, and the number of such domains.

    >>> [float(x) for x in split_levels(16.0, 8.0)]
    [8.0, 2.0]
    """
    inside = jnp.minimum(n, jnp.maximum(domain, 1.0))
    return inside, n / inside


def hierarchical_all_reduce(
    n: Number,
    size: Number,
    domain: Number,
    up_s_per_byte: Number,
    out_s_per_byte: Number,
    inner: AllReduce,
    outer: Collective,
    blend: Number,
) -> Number:
    """All-reduce over scale-up domains: reduce inside, ring across the scale-out network on 1/n of the data, spread inside [s].

    References: scaling-book

    >>> from dse.types import AllReduce, Collective
    >>> c = AllReduce(one_shot_s=0.0, peer_s=0.0, one_shot_efficiency=1.0, two_shot_s=0.0, two_shot_efficiency=1.0, ring_s=0.0,
    ...               ring_peer_s=0.0, ring_efficiency=1.0, in_switch=0.0)
    >>> o = Collective(base_s=0.0, peer_s=0.0, efficiency=1.0)
    >>> round(float(hierarchical_all_reduce(16.0, 450e6, 8.0, 1 / 450e9, 1 / 50e9, c, o, 0.0)) * 1e3, 3)
    2.875
    """
    inside, domains = split_levels(n, domain)
    across = 2.0 * exchange(domains, size / inside, out_s_per_byte, outer)
    return all_reduce(inside, size, up_s_per_byte, inner, blend) + across


def domains_reached(domains: Number, per_token: Number, groups: Number | None = None, chosen: Number | None = None) -> Number:
    r"""Expected number of scale-up domains in which the experts of one token lie, its own among them.

    A token takes k experts out of M of the G groups into which the router sorts them; c of them, in order, fill one of D domains. The
    chosen groups lie in H domains, of which the k experts hit

    .. math:: H\,\big(1 - (1 - 1/H)^k\big), \quad H = D\,\Big(1 - \big(1 - \tfrac{M}{G - (c - 1)/2}\big)^c\Big), \quad c = \max(G/D, 1)

    (draws without return: the mean of G, G - 1, ... G - c + 1 stands for each). At most M domains where D = G. Within 3 % of simulated
    routers (tests/test_routing); where a domain holds a handful of experts, up to 6 % below.

    Args:
        domains: D, one at least [1]. per_token: k [1]. groups, chosen: G and M; None: no limit [1].

    References: deepseek-v3-2024, deepseek-isca-2025

    >>> round(float(domains_reached(8.0, 8.0, 8.0, 4.0)), 3), round(float(domains_reached(8.0, 8.0)), 3)  # 4 (1 - 0.75^8), 8 (1 - 0.875^8)
    (3.6, 5.251)
    """
    if groups is None or chosen is None:
        return distinct(domains, per_token)
    held = jnp.maximum(groups / domains, 1.0)
    return distinct(domains * filled_share(held, chosen / (groups - (held - 1.0) / 2.0)), per_token)


def hierarchical_deal(
    n: Number,
    size: Number,
    far_size: Number,
    domain: Number,
    up_s_per_byte: Number,
    out_s_per_byte: Number,
    inner: Collective,
    outer: Collective,
) -> Number:
    """Experts' tokens over scale-up domains: ``far_size`` crosses between domains while ``size`` is handed on inside of them [s].

    What several chips of a domain need crosses once.

    References: deepep

    >>> from dse.types import Collective
    >>> o = Collective(base_s=0.0, peer_s=0.0, efficiency=1.0)
    >>> round(float(hierarchical_deal(16.0, 450e6, 450e6, 8.0, 1 / 450e9, 1 / 50e9, o, o)) * 1e3, 3)  # 225 MB at 50 GB/s
    4.502
    """
    inside, domains = split_levels(n, domain)
    far = exchange(domains, far_size, out_s_per_byte, outer)
    return levels_together(deal(inside, size, up_s_per_byte, inner), far)


def hierarchical_exchange(
    n: Number,
    size: Number,
    domain: Number,
    up_s_per_byte: Number,
    out_s_per_byte: Number,
    inner: Collective,
    outer: Collective,
) -> Number:
    """All-gather, reduce-scatter or all-to-all over scale-up domains; the part that leaves a domain runs on the scale-out links [s].

    References: scaling-book

    >>> from dse.types import Collective
    >>> o = Collective(base_s=0.0, peer_s=0.0, efficiency=1.0)
    >>> round(float(hierarchical_exchange(16.0, 450e6, 8.0, 1 / 450e9, 1 / 50e9, o, o)) * 1e3, 3)
    5.375
    """
    inside, domains = split_levels(n, domain)
    return exchange(inside, size, up_s_per_byte, inner) + exchange(domains, size, out_s_per_byte, outer)
