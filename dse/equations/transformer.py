"""How long does a model's forward pass take on a stage of chips? One text for prefill and decode, for every family and model.

``forward`` walks the groups of identical layers: projections, attention, output, feed-forward or experts, reductions, small kernels,
and the output head. The phase is told apart by numbers alone: tokens of a sequence in this pass, and the context already cached.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp

from dse.equations import collectives, roofline
from dse.equations.layout import Placement, cached_values, context_seen, kv_shards, one, stage_chips
from dse.equations.roofline import Time, add, only, scale, times, total_of
from dse.equations.smooth import TINY, present
from dse.types import (
    LLM,
    AttentionDecode,
    AttentionPrefill,
    Chip,
    Collective,
    Format,
    Gemm,
    LayerGroup,
    Layout,
    Moe,
    Number,
    Workload,
    pytree,
)


@pytree()
class Machine:
    """One chip as seen by one format and placement: every choice among formats and stores is made."""

    chip: Chip
    fmt: Format
    placement: Placement
    peak_flop_per_s: Number
    head_flop_per_s: Number  # for output head and router, in the wider format
    attention_flop_per_s: Number
    flop_j: Number
    attention_flop_j: Number
    gemm: Gemm
    head: Gemm
    moe: Moe
    decode: AttentionDecode
    prefill: AttentionPrefill


@pytree("causal")
class Pass:
    """What goes through the layers together, on one attention rank."""

    gemm_tokens: Number  # tokens in a projection
    sequences: Number  # sequences whose attention a stage computes together
    query_tokens: Number  # tokens of each sequence (1 decoding; the prompt in prefill)
    context: Number  # decoding: tokens attended to; prefill: tokens of a shared prefix that are cached already
    head_tokens: Number  # tokens that need logits
    split_tokens: Number  # parts into which context parallelism cuts the tokens (cp in prefill, 1 in decode)
    causal: bool  # attention over the prompt itself (prefill), or to the cache (decode)


@pytree()
class Work:
    """What one pass does on one chip of each stage, summed over the stages, and its time."""

    time: Time
    flop: Number
    attention_flop: Number
    weight_byte: Number
    moved_byte: Number
    kv_byte: Number
    link_byte: Number


COUNTS = ("flop", "attention_flop", "weight_byte", "moved_byte", "kv_byte", "link_byte")


def _add_work(*works: Work) -> Work:
    totals = {f: total_of([getattr(w, f) for w in works]) for f in COUNTS}
    return Work(time=add(*(w.time for w in works)), **totals)


def _repeat(n: Number, work: Work) -> Work:
    return Work(time=scale(n, work.time), **{f: times(n, getattr(work, f)) for f in COUNTS})


def _work(time: Time, **counts: Number) -> Work:
    """Work of which only the named counts are not zero."""
    return Work(time=time, **{f: counts.get(f, 0.0) for f in COUNTS})


def _communication(time: Number, sent_byte: Number) -> Work:
    """Work of an exchange alone."""
    return _work(only(collectives=time), link_byte=sent_byte)


def _projection(mc: Machine, m: Number, n: Number, k: Number, constants: Gemm, byte: Number, peak: Number) -> Work:
    """One GEMM with its work."""
    time = roofline.gemm(m, n, k, byte, mc.fmt.activation_byte, constants, peak, mc.placement.weight_s_per_byte, mc.chip.kernels.blend)
    moved = mc.fmt.activation_byte * (m * k + m * n)
    return _work(time, flop=2.0 * m * n * k, weight_byte=byte * n * k, moved_byte=moved)


def _gemm(mc: Machine, m: Number, n: Number, k: Number) -> Work:
    """A layer's GEMM; one without columns or rows costs nothing, not even its floor."""
    return _repeat(jnp.clip(n * k, 0.0, 1.0), _projection(mc, m, n, k, mc.gemm, mc.fmt.weight_byte, mc.peak_flop_per_s))


def _reduce(mc: Machine, n: Number, size: Number) -> Work:
    chip, k = mc.chip, mc.chip.kernels
    time = collectives.hierarchical_all_reduce(
        n, size, chip.scale_up.chips, chip.scale_up.s_per_byte, chip.scale_out.s_per_byte, k.all_reduce, k.scale_out, k.blend
    )
    return _communication(time, 2.0 * (n - 1.0) / n * size)


def _exchange(mc: Machine, n: Number, size: Number, constants: Collective, beside: Number) -> Work:
    """Exchange between n chips; ``beside``: chips of another group next to each, which fill its domain first."""
    up, out, far = mc.chip.scale_up, mc.chip.scale_out, mc.chip.kernels.scale_out
    time = collectives.hierarchical_exchange(n, size, up.chips / beside, up.s_per_byte, out.s_per_byte, constants, far)
    return _communication(time, (n - 1.0) / n * size)


def _deal(mc: Machine, n: Number, size: Number, far_size: Number, constants: Collective) -> Work:
    """Tokens to the ranks of their experts, or back; ``far_size`` is what the scale-out links see of ``size``."""
    up, out, far = mc.chip.scale_up, mc.chip.scale_out, mc.chip.kernels.scale_out
    longer = collectives.passing(jnp.minimum(n, up.chips), up.dimensions, up.open_ends)
    time = collectives.hierarchical_deal(n, size, far_size, up.chips, up.s_per_byte * longer, out.s_per_byte, constants, far)
    return _communication(time, (n - 1.0) / n * size)


def _attention(mc: Machine, group: LayerGroup, layout: Layout, p: Pass) -> Work:
    """Attention of one layer on one chip: over the prompt itself, or to the cache."""
    return _prompt_attention(mc, group, layout, p) if p.causal else _cache_attention(mc, group, layout, p)


def _cache_attention(mc: Machine, group: LayerGroup, layout: Layout, p: Pass) -> Work:
    """New tokens attend to the cache (and advance a recurrent state)."""
    a = group.attention
    seen = context_seen(a, p.context)
    read = seen * a.kv_values / kv_shards(a, layout) / one(layout.cp) + p.context * a.index_values
    values = jnp.minimum(cached_values(group, p.context, layout), read)
    kv_byte = p.sequences * (values * mc.fmt.kv_byte + 2.0 * a.state_byte / layout.tp)
    tokens = p.sequences * p.query_tokens
    flop = tokens * ((seen * a.decode_flop + p.context * a.index_flop) / one(layout.cp) + a.state_flop) / layout.tp
    query_byte = tokens * a.query_values / layout.tp * mc.fmt.activation_byte
    time = roofline.attention_decode(
        p.sequences, seen, flop, kv_byte, query_byte, a.kv_heads / kv_shards(a, layout), mc.decode,
        mc.attention_flop_per_s, mc.placement.kv_s_per_byte, mc.placement.weight_s_per_byte, mc.chip.kernels.blend,
    )  # fmt: skip
    return _work(time, attention_flop=flop, moved_byte=query_byte, kv_byte=kv_byte)


def _prompt_attention(mc: Machine, group: LayerGroup, layout: Layout, p: Pass) -> Work:
    """Prompts attend to themselves causally, within windows and chunks; their keys and values are written to the cache."""
    a = group.attention
    tokens = p.sequences * p.query_tokens / p.split_tokens
    window = jnp.minimum(p.query_tokens, a.window)
    sliding = 2.0 * a.window_mean - 1.0
    own = window * (p.query_tokens * (1.0 + sliding) / 2.0 - sliding * window / 2.0)
    pairs = p.sequences * (own + p.query_tokens * jnp.minimum(p.context, a.window)) / one(layout.cp)
    chosen = jnp.minimum(1.0, a.index_topk / jnp.maximum(p.query_tokens / 2.0, 1.0))
    flop = (pairs * (chosen * a.prefill_flop + a.index_flop) + tokens * a.state_flop) / layout.tp
    moved = tokens * a.prefill_values / layout.tp * mc.fmt.activation_byte
    written = tokens * a.kv_values / kv_shards(a, layout)
    time = roofline.attention_prefill(
        p.query_tokens, flop, pairs * chosen * a.heads * a.scored / layout.tp, moved, mc.prefill,
        mc.attention_flop_per_s, mc.chip.exp_per_s, mc.placement.weight_s_per_byte, mc.chip.kernels.blend, written,
    )  # fmt: skip
    return _work(time, attention_flop=flop, moved_byte=moved, kv_byte=written * mc.fmt.kv_byte)


def _mixer(mc: Machine, model: LLM, group: LayerGroup, layout: Layout, p: Pass) -> Work:
    """Projections, attention, output projection and their reduction."""
    a, tp = group.attention, layout.tp
    m = p.gemm_tokens / p.split_tokens
    columns = a.in_columns / (1.0 + a.in_sharded * (tp - 1.0))
    parts = [_gemm(mc, m, columns, model.d_model)]
    if a.up_rank is not None:
        parts.append(_gemm(mc, m, a.up_columns / tp, a.up_rank))
    if a.latent_rank is not None:
        parts.append(_gemm(mc, m, a.latent_columns / tp, a.latent_rank))
    parts.append(_attention(mc, group, layout, p))
    if layout.cp is not None:
        # what is less: queries' partial results of all parts, or the cache of all tokens, which goes from rank to rank
        partial = layout.cp * m * a.query_values / tp * mc.fmt.activation_byte
        passed = p.sequences * (p.query_tokens + p.context) * a.kv_values / kv_shards(a, layout) * mc.fmt.kv_byte
        parts.append(_exchange(mc, layout.cp, jnp.minimum(partial, passed), mc.chip.kernels.all_gather, beside=tp))
    parts.append(_gemm(mc, m, model.d_model, a.out_rows / tp))
    parts.append(_reduce(mc, tp, m * model.d_model * mc.fmt.activation_byte))
    return _add_work(*parts)


def _dense(mc: Machine, model: LLM, group: LayerGroup, layout: Layout, tokens: Number) -> list[Work]:
    """Gate, up and down projections of the dense part, split over the whole stage."""
    f = group.ffn
    if f.width is None:
        return []
    width = f.width / stage_chips(layout)
    return [_gemm(mc, tokens, (f.matrices - 1.0) * width, model.d_model), _gemm(mc, tokens, model.d_model, width)]


def _experts(mc: Machine, model: LLM, group: LayerGroup, layout: Layout, p: Pass, tokens: Number, workload: Workload) -> list[Work]:
    """Router and routed experts of one rank."""
    f, d, stage = group.ffn, model.d_model, stage_chips(layout)
    if f.experts is None:
        return []
    router = _projection(mc, p.gemm_tokens / p.split_tokens, f.experts, d, mc.head, mc.fmt.activation_byte, mc.head_flop_per_s)
    ep = one(layout.ep)
    distinct = roofline.distinct_tokens(tokens, mc.chip.kernels.system.routing_exponent)
    time = roofline.experts_ffn(
        tokens, d, f.expert_width * ep / stage, f.matrices, f.experts, f.experts_per_token, ep, workload.uneven_routing,
        mc.fmt.weight_byte, mc.moe, mc.peak_flop_per_s, mc.placement.weight_s_per_byte, mc.chip.kernels.blend, distinct,
        layout.redundant_experts,
    )  # fmt: skip
    copies = f.experts if layout.redundant_experts is None else f.experts + layout.redundant_experts
    rows, hit = tokens * f.experts_per_token, roofline.experts_hit(copies, f.experts_per_token, distinct)
    share = f.matrices * d * f.expert_width / stage
    moved = rows * (4.0 * d + 6.0 * f.expert_width) / stage
    routed = _work(time, flop=2.0 * share * rows, weight_byte=share * hit * mc.fmt.weight_byte, moved_byte=moved)
    return [_repeat(jnp.clip(f.experts, 0.0, 1.0), _add_work(router, routed))]


def _crossing(mc: Machine, model: LLM, group: LayerGroup, layout: Layout, tokens: Number) -> list[Work]:
    """Tokens of several attention ranks: gathered and scattered, or sent to the ranks of their experts and back.

    They are sent where every rank holds whole experts. Where several chips share an expert each of them needs the token, which soon is
    more than every token once: engines gather there, at no less than the exchange between the groups that hold the experts takes (4 chips
    with experts over 2: measured 10 % above the gather alone). One copy crosses to each scale-up domain and is passed on inside of it.
    """
    if layout.dp is None:
        return []
    f, kernels, d = group.ffn, mc.chip.kernels, model.d_model
    gather = _exchange(mc, layout.dp, tokens * d * mc.fmt.activation_byte, kernels.all_gather, beside=stage_chips(layout) / layout.dp)
    if f.experts is None or layout.ep is None:
        return [_repeat(2.0 * present(layout.dp), gather)]
    whole = jnp.clip(2.0 - stage_chips(layout) / layout.ep, 0.0, 1.0)
    spread = jnp.clip(f.experts, 0.0, 1.0) * present(layout.ep)
    own = tokens / stage_chips(layout) * d
    sent, domains = own * f.experts_per_token, collectives.split_levels(layout.ep, mc.chip.scale_up.chips)[1]
    far = own * collectives.domains_reached(domains, f.experts_per_token, f.groups, f.groups_per_token)
    there = _deal(mc, layout.ep, sent, far, kernels.dispatch)
    back = _deal(mc, layout.ep, sent * mc.fmt.activation_byte, far * mc.fmt.activation_byte, kernels.combine)
    gathers, trip = _repeat(2.0, gather), _add_work(there, back)
    least = whole * trip.time.total + (1.0 - whole) * jnp.maximum(gathers.time.total, trip.time.total)
    moved = (1.0 - spread * whole) * gathers.link_byte + spread * whole * trip.link_byte
    return [_repeat(present(layout.dp), _communication((1.0 - spread) * gathers.time.total + spread * least, moved))]


def _feed_forward(mc: Machine, model: LLM, group: LayerGroup, layout: Layout, p: Pass, workload: Workload) -> Work:
    """Dense part, experts, exchange between attention ranks, and the reduction (none of its own where attention runs beside it)."""
    tokens = p.gemm_tokens * one(layout.dp)
    m = p.gemm_tokens / p.split_tokens
    reduction = _reduce(mc, layout.tp if layout.cp is None else layout.tp * layout.cp, m * model.d_model * mc.fmt.activation_byte)
    return _add_work(
        *_dense(mc, model, group, layout, tokens),
        *_experts(mc, model, group, layout, p, tokens, workload),
        *_crossing(mc, model, group, layout, tokens),
        _repeat(group.syncs - 1.0, reduction),
    )


def _small(mc: Machine, model: LLM, group: LayerGroup, layout: Layout, p: Pass, compute_s: Number) -> Work:
    """Norms, activations, rotary, routing: a floor each, their traffic, and the fixed time of a layer where kernels are not resolved.

    The fixed time of a hardwired layer contains its computing (``compute_s``); that of other machines comes on top.
    """
    s, kernels = mc.chip.kernels.system, mc.chip.kernels
    m = p.gemm_tokens / p.split_tokens
    count = s.dense_kernels + s.latent_kernels * group.attention.latent
    if group.ffn.experts is not None:
        count = count + s.moe_kernels * jnp.clip(group.ffn.experts, 0.0, 1.0)
    moved = count * 2.0 * m * model.d_model * mc.fmt.activation_byte
    time = roofline.elementwise(count, moved, s.small_kernel_s, kernels.elementwise_efficiency, mc.placement.weight_s_per_byte)
    whole = s.layer_s + s.layer_token_s * jnp.maximum(m - 1.0, 0.0)
    layer = whole - s.layer_pipelined * jnp.minimum(whole, compute_s)
    return _work(add(time, only(overhead=layer)), moved_byte=moved)


def _hop(mc: Machine, model: LLM, layout: Layout, p: Pass) -> Work:
    """Sends between pipeline stages; over the scale-out network to the extent that the instance leaves a scale-up domain."""
    chip, m = mc.chip, p.gemm_tokens / p.split_tokens
    chips = stage_chips(layout) * layout.pp
    outside = jnp.maximum(1.0 - chip.scale_up.chips / chips, 0.0)
    size = m * model.d_model * mc.fmt.activation_byte / layout.tp
    s_per_byte = outside * chip.scale_out.s_per_byte + (1.0 - outside) * chip.scale_up.s_per_byte
    time = (layout.pp - 1.0) * collectives.send(size, s_per_byte, chip.kernels.point_to_point)
    return _communication(time, (layout.pp - 1.0) * size)


def forward(mc: Machine, model: LLM, layout: Layout, p: Pass, workload: Workload) -> Work:
    """Time and work of one pass through all stages.

    Args:
        mc: The chip in its format and placement. model, layout, workload: As in the deployment.
        p: What passes together.

    Returns: ``Work``: times [s], FLOP, bytes of one chip of each stage, summed over the stages.

    References: dse-operator-fit, pope2022
    """
    head = _projection(mc, p.head_tokens, model.vocab / layout.tp, model.d_model, mc.head, mc.fmt.head_byte, mc.head_flop_per_s)
    work = _repeat(jnp.clip(model.head_params, 0.0, 1.0), head)
    for group in model.groups:
        present_mixer = jnp.clip(group.attention.out_rows, 0.0, 1.0)
        mixer, feed = _mixer(mc, model, group, layout, p), _feed_forward(mc, model, group, layout, p, workload)
        small = _small(mc, model, group, layout, p, mixer.time.compute + feed.time.compute)
        work = _add_work(work, _repeat(group.mixers * present_mixer, mixer), _repeat(group.ffns, feed))
        work = _add_work(work, _repeat(jnp.maximum(group.mixers, group.ffns), small))
    return _add_work(work, _hop(mc, model, layout, p))


def overlapped(time: Time, overlap: Number) -> Time:
    """Hide a share of the communication behind the rest, or the rest behind communication: ``T - o min(T - C, C)``, parts in proportion.

    >>> t = Time(total=3.0, compute=1.0, weights=0.0, kv=0.0, collectives=2.0, overhead=0.0)
    >>> float(overlapped(t, 1.0).total), float(overlapped(t, 0.0).total)
    (2.0, 3.0)
    """
    other = time.total - time.collectives
    total = time.total - overlap * jnp.minimum(other, time.collectives)
    return replace(scale(total / jnp.maximum(time.total, TINY), time), total=total)


def flop_per_token(model: LLM, context: Number) -> Number:
    """FLOP of the model for one decoded token at a context: weights and attention, as the model defines them [FLOP/token]."""
    attention = sum(
        g.mixers * (context_seen(a, context) * a.prefill_flop + context * a.index_flop + a.state_flop)
        for g, a in ((g, g.attention) for g in model.groups)
    )
    return 2.0 * model.active_params + attention
