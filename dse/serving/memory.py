"""What does an instance hold in memory, and how far is it from its limits?"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dse.equations import layout as cut
from dse.equations import speculation
from dse.formats import computed_in, default_format
from dse.types import LLM, Chip, Format, Layout, MemoryParts, Number, SlackParts, Workload


def memory_parts(chip: Chip, model: LLM, workload: Workload, layout: Layout, fmt: Format, serving_mode: str) -> tuple[MemoryParts, Number]:
    """Bytes on the fullest chip, and the cache of all its requests."""
    s = chip.kernels.system
    held = {"decode": 0.0, "prefill": 0.0, "static": 1.0}.get(serving_mode, s.kv_fill)
    kv = cut.all_caches_byte(model, workload, held * workload.output_tokens, layout, fmt)
    weights = cut.weight_byte(model, layout, fmt)
    if workload.speculation is not None:
        guess = workload.speculation.draft
        draft = speculation.extra_layer(model) if guess is None else guess
        form = fmt if guess is None else computed_in(chip, default_format(chip, guess.native))
        kv = kv + cut.all_caches_byte(draft, workload, held * workload.output_tokens, layout, form)
        weights = weights + cut.weight_byte(draft, layout, form)
    general, reserve = cut.capacity_byte(chip, s)
    tokens = workload.input_tokens if serving_mode != "decode" else cut.ranks(layout)
    parts = MemoryParts(
        weights=weights,
        kv=kv,
        activations=cut.activation_byte(model, layout, s, tokens, fmt),
        reserve=reserve,
        capacity=general + chip.weight_store.capacity_byte,
    )
    return parts, kv


def slack_parts(chip: Chip, model: LLM, layout: Layout, memory: MemoryParts) -> SlackParts:
    spilled = jnp.maximum(memory.weights - chip.weight_store.capacity_byte, 0.0)
    general = memory.capacity - chip.weight_store.capacity_byte
    used = spilled + memory.kv + memory.activations + memory.reserve
    return SlackParts(
        memory=(general - used) / jnp.maximum(memory.capacity, 1.0),
        divisibility=cut.shape_slack(model, layout),
        reticle=chip.slack.reticle,
        beachfront=chip.slack.beachfront,
        heat=chip.slack.heat,
        package=chip.slack.package,
    )


def both_slacks(
    chip: Chip, first: Chip, model: LLM, layout: Layout, plan: Layout, memory: MemoryParts, pre_memory: MemoryParts
) -> SlackParts:
    """The tighter limits of the decoding and of the prefill instance."""
    return jax.tree.map(jnp.minimum, slack_parts(chip, model, layout, memory), slack_parts(first, model, plan, pre_memory))
