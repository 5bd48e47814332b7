"""How is a model cut over chips? Local widths, microbatches, placement over the stores of a chip, and memory.

Degrees are real numbers inside; the enumerator of layouts and the command line use whole ones.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp

from dse.equations.smooth import TINY
from dse.types import LLM, Attention, Chip, FeedForward, Format, LayerGroup, Layout, Number, Offload, Store, System, Workload, pytree


@pytree()
class Placement:
    """Where weights and cache of one chip lie, as average seconds and joules per byte, and the bytes that found no place."""

    weight_s_per_byte: Number
    weight_j_per_byte: Number
    kv_s_per_byte: Number
    kv_j_per_byte: Number


def one(degree: Number | None) -> Number:
    """A degree, 1 where it is off."""
    return 1.0 if degree is None else degree


def planned(layout: Layout, workload: Workload) -> Layout:
    """The layout with what its workload fixes for all layouts: cache in the host's memory, copies of busy experts (none where ep = 1).

    >>> float(planned(Layout(ep=8.0), Workload(input_tokens=1.0, output_tokens=1.0, copies_per_rank=1.0)).redundant_experts)
    8.0
    """
    if layout.offload is None and workload.offload is not None:
        layout = replace(layout, offload=workload.offload)
    if layout.redundant_experts is None and workload.copies_per_rank is not None and layout.ep is not None:
        layout = replace(layout, redundant_experts=workload.copies_per_rank * layout.ep * jnp.minimum(layout.ep - 1.0, 1.0))
    return layout


def ranks(layout: Layout) -> Number:
    """Requests of one attention rank: the batch over the data-parallel ranks [1]."""
    return layout.batch if layout.dp is None else layout.batch / layout.dp


def stage_chips(layout: Layout) -> Number:
    """Chips of one pipeline stage, tp x cp x dp [1]."""
    stage = layout.tp if layout.cp is None else layout.tp * layout.cp
    return stage if layout.dp is None else stage * layout.dp


def trimmed(model: LLM) -> LLM:
    """The same model with what it lacks set to ``None``, where that is known (plain numbers): the compiled version leaves it out."""

    def off(x: Number | None) -> Number | None:
        return None if isinstance(x, float) and x == 0.0 else x

    def unlimited(f: FeedForward) -> FeedForward:
        plain = isinstance(f.groups, float) and isinstance(f.groups_per_token, float) and f.groups <= f.groups_per_token
        return replace(f, groups=None, groups_per_token=None) if plain else f

    groups = [
        replace(
            g,
            attention=replace(g.attention, up_rank=off(g.attention.up_rank), latent_rank=off(g.attention.latent_rank)),
            ffn=unlimited(replace(g.ffn, width=off(g.ffn.width), experts=off(g.ffn.experts))),
        )
        for g in model.groups
    ]
    return replace(model, groups=tuple(groups))


def instance_chips(layout: Layout) -> Number:
    """Chips of the instance, tp x pp x cp x dp [1].

    >>> instance_chips(Layout(tp=8.0, pp=2.0))
    16.0
    """
    return stage_chips(layout) * layout.pp


def layers(model: LLM) -> Number:
    """Layers of the model: the larger of mixers and feed-forwards in each group, summed [1]."""
    return sum(jnp.maximum(g.mixers, g.ffns) for g in model.groups)


def microbatch(sequences: Number, depth: Number) -> Number:
    """Sequences that pass a stage together when ``sequences`` are spread over a pipeline of ``depth`` stages, at least one.

    >>> float(microbatch(64.0, 4.0)), float(microbatch(2.0, 4.0))
    (16.0, 1.0)
    """
    return jnp.maximum(sequences / depth, 1.0)


def stage_imbalance(model_layers: Number, pp: Number) -> Number:
    """Load of the fullest pipeline stage over the mean, ``ceil(L/p) p / L`` [1].

    >>> float(stage_imbalance(80.0, 4.0)), float(stage_imbalance(61.0, 2.0)) == 62 / 61
    (1.0, True)
    """
    return jnp.ceil(model_layers / pp - 1e-6) * pp / model_layers


def kv_shards(attention: Attention, layout: Layout) -> Number:
    """Parts into which tensor parallelism cuts the cache: no more than there are KV heads [1]."""
    return jnp.minimum(layout.tp, attention.kv_heads)


def context_seen(attention: Attention, context: Number) -> Number:
    """Tokens that a new token attends to: window, chunk and sparse choice taken into account [token].

    >>> from types import SimpleNamespace as N
    >>> float(context_seen(N(window=128.0, window_mean=1.0, index_topk=1e9), 4096.0))
    128.0
    """
    return jnp.minimum(jnp.minimum(context, attention.window * attention.window_mean), attention.index_topk)


def cached_values(group: LayerGroup, context: Number, layout: Layout) -> Number:
    """Values cached on one chip for one sequence of ``context`` tokens in one layer of the group [1]."""
    a = group.attention
    held = jnp.minimum(context, a.window) * a.kv_values / kv_shards(a, layout) + context * a.index_values
    return held if layout.cp is None else held / layout.cp


def cache_byte(model: LLM, context: Number, layout: Layout, fmt: Format) -> Number:
    """Cache and recurrent state of one sequence on one chip, all layers of its stage [byte]."""
    total = sum(g.mixers * (cached_values(g, context, layout) * fmt.kv_byte + g.attention.state_byte / layout.tp) for g in model.groups)
    return total / layout.pp


def fresh_tokens(workload: Workload) -> Number:
    """Prompt tokens that must be computed: all but a prefix that is cached already [token]."""
    return workload.input_tokens if workload.shared_prefix_tokens is None else workload.input_tokens - workload.shared_prefix_tokens


def all_caches_byte(model: LLM, workload: Workload, generated: Number, layout: Layout, fmt: Format) -> Number:
    """Cache of all requests of a rank on one chip, ``generated`` output tokens each [byte].

    A shared prefix is held once; an input of several samples once for all of them.
    """
    prefix = 0.0 if workload.shared_prefix_tokens is None else cache_byte(model, workload.shared_prefix_tokens, layout, fmt)
    own = cache_byte(model, fresh_tokens(workload) + generated, layout, fmt)
    if workload.samples is not None:
        own = own - cache_byte(model, fresh_tokens(workload), layout, fmt) * (1.0 - 1.0 / workload.samples)
    return ranks(layout) * own + prefix


def weight_byte(model: LLM, layout: Layout, fmt: Format) -> Number:
    """Weights on the fullest chip: its share of the layers, and embedding and head of the first and last stage [byte]."""
    stage = stage_chips(layout)
    total = 0.0
    for g in model.groups:
        whole = model.d_model * g.attention.in_columns * (1.0 - g.attention.in_sharded)  # every rank holds these
        mixer = whole + (g.attention.params - whole) / layout.tp
        experts = g.ffn.expert_params
        if layout.redundant_experts is not None and g.ffn.experts is not None:
            experts = experts * (1.0 + layout.redundant_experts / jnp.maximum(g.ffn.experts, 1.0))
        total = total + g.mixers * mixer + g.ffns * (g.ffn.params + experts) / stage
    imbalance = stage_imbalance(layers(model), layout.pp)
    ends = jnp.maximum(model.embedding_params / layout.pp, model.embedding_params - model.head_params) / layout.tp
    return total / layout.pp * imbalance * fmt.weight_byte + ends * fmt.head_byte


def place(chip: Chip, weights: Number, kv: Number) -> Placement:
    """Fill the stores of one chip, fastest first: weights into the weight store, then SRAM, then memory; then the cache into what is left.

    Layers are read one after another, so seconds per byte average over the bytes. What does not fit anywhere is charged to the last store
    (the memory limit says so).

    Args:
        chip: Stores of the chip. weights, kv: Bytes to place on it [byte].

    Returns: Average seconds and joules per byte of weights and of cache.
    """
    in_store = jnp.minimum(weights, chip.weight_store.capacity_byte)
    w_sram = jnp.minimum(weights - in_store, chip.sram.capacity_byte)
    w_mem = weights - in_store - w_sram
    kv_sram = jnp.minimum(kv, chip.sram.capacity_byte - w_sram)
    kv_mem = kv - kv_sram
    stores = (chip.weight_store, chip.sram, chip.memory)

    def mean(unit: str, parts: tuple[Number, ...], within: tuple[Store, ...]) -> Number:
        return sum(x * getattr(s, unit) for x, s in zip(parts, within, strict=True)) / jnp.maximum(sum(parts), TINY)

    w, k = (in_store, w_sram, w_mem), (kv_sram, kv_mem)
    return Placement(
        weight_s_per_byte=mean("s_per_byte", w, stores),
        weight_j_per_byte=mean("j_per_byte", w, stores),
        kv_s_per_byte=mean("s_per_byte", k, stores[1:]),
        kv_j_per_byte=mean("j_per_byte", k, stores[1:]),
    )


def offloaded(placement: Placement, offload: Offload) -> Placement:
    """The same placement with a share of the cache behind the host's link, read after the rest (no overlap is assumed).

    What prefill writes there is some per mille of the link's bandwidth and is not charged in time.

    >>> host = Store(capacity_byte=2.5e11, s_per_byte=1 / 64e9, j_per_byte=0.0)
    >>> near = Placement(weight_s_per_byte=0.0, weight_j_per_byte=0.0, kv_s_per_byte=1 / 3.2e12, kv_j_per_byte=0.0)
    >>> round(1e-9 / offloaded(near, Offload(share=0.5, host=host, usd_per_byte=0.0)).kv_s_per_byte, 1)  # 2 / (1/3200 + 1/64)
    125.5
    """
    x = offload.share
    return replace(
        placement,
        kv_s_per_byte=(1.0 - x) * placement.kv_s_per_byte + x * offload.host.s_per_byte,
        kv_j_per_byte=(1.0 - x) * placement.kv_j_per_byte + x * offload.host.j_per_byte,
    )


def capacity_byte(chip: Chip, system: System) -> tuple[Number, Number]:
    """Bytes that a chip can hold besides pure weight stores, and what is kept in reserve of them [byte]."""
    general = chip.sram.capacity_byte + chip.memory.capacity_byte
    return general, general * system.reserve_share


def activation_byte(model: LLM, layout: Layout, system: System, tokens: Number, fmt: Format) -> Number:
    """Activations of one prefill chunk on one chip [byte]."""
    return jnp.minimum(tokens, system.chunk_token) / one(layout.cp) * model.d_model * system.activation_copies * fmt.activation_byte


def shape_slack(model: LLM, layout: Layout) -> Number:
    """Room left by the rules of what divides what: tp within the heads, ep within stage and experts, pp within the layers [1]."""
    absent = 1e9  # no limit from a mixer that is not there
    heads = largest_of(g.attention.heads + absent * (1.0 - jnp.clip(g.attention.out_rows, 0.0, 1.0)) for g in model.groups)
    degrees = jnp.minimum(heads / layout.tp - 1.0, layers(model) / layout.pp - 1.0)
    if layout.ep is None:
        return degrees
    experts = largest_of(0.0 if g.ffn.experts is None else g.ffn.experts for g in model.groups)
    spread = jnp.minimum(stage_chips(layout) / layout.ep - 1.0, jnp.maximum(experts, 1.0) / layout.ep - 1.0)
    return jnp.minimum(degrees, spread)


def largest_of(values) -> Number:
    """Largest of several numbers that broadcast."""
    result: Number = 0.0
    for value in values:
        result = jnp.maximum(result, value)
    return result
