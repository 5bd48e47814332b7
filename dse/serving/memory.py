"""What does an instance hold in memory, and how far is it from its limits?"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp

from dse.equations import layout as cut
from dse.equations import speculation
from dse.formats import computed_in, default_format
from dse.types import LLM, Chip, Format, Layout, MemoryParts, Number, SlackParts, Workload


def host_byte(chip: Chip, model: LLM, workload: Workload, layout: Layout, fmt: Format, serving_mode: str) -> Number | None:
    """Cache of all requests in the host's memory, of one chip's share [byte]; None where all of it lies on the chips."""
    if layout.offload is None:
        return None
    here, _ = memory_parts(chip, model, workload, replace(layout, offload=None), fmt, serving_mode)
    return layout.offload.share * here.kv


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
    if layout.offload is not None:
        kv = (1.0 - layout.offload.share) * kv
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


def slack_parts(chip: Chip, model: LLM, layout: Layout, memory: MemoryParts, outside: Number | None = None) -> SlackParts:
    """Distance to every limit; ``outside`` is the cache in the host's memory, whose room counts as memory too."""
    spilled = jnp.maximum(memory.weights - chip.weight_store.capacity_byte, 0.0)
    general = memory.capacity - chip.weight_store.capacity_byte
    used = spilled + memory.kv + memory.activations + memory.reserve
    room = (general - used) / jnp.maximum(memory.capacity, 1.0)
    if layout.offload is not None:
        room = jnp.minimum(room, 1.0 - outside / layout.offload.host.capacity_byte)
    return SlackParts(
        memory=room,
        divisibility=cut.shape_slack(model, layout),
        reticle=chip.slack.reticle,
        beachfront=chip.slack.beachfront,
        heat=chip.slack.heat,
        package=chip.slack.package,
    )


def both_slacks(
    chip: Chip,
    first: Chip,
    model: LLM,
    layout: Layout,
    plan: Layout,
    memory: MemoryParts,
    pre_memory: MemoryParts,
    outside: Number | None = None,
) -> SlackParts:
    """The tighter limits of the decoding and of the prefill instance (whose prompts stay on its chips)."""
    here = replace(plan, offload=None)
    return jax.tree.map(jnp.minimum, slack_parts(chip, model, layout, memory, outside), slack_parts(first, model, here, pre_memory))
