"""What do the passes of a deployment add up to in its serving mode: latencies, requests a second, chips, power?"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp

from dse.equations import layout as cut
from dse.equations import serving
from dse.serving.passes import Step
from dse.types import LLM, Chip, Format, Layout, Number, Workload, pytree


@pytree()
class Loop:
    """What the passes of one deployment add up to in its serving mode."""

    tpot_s: Number
    ttft_s: Number
    requests_per_s: Number
    chips: Number
    power_w: Number  # dynamic, of all chips
    interference_s: Number = 0.0
    prefill_chips: Number | None = None  # of another kind
    prefill_w: Number | None = None  # dynamic, of these


@pytree()
class Passes:
    """The two passes of a deployment and what its serving modes need of them."""

    decode: Step
    prefill: Step
    prompts: Number  # answers for which a rank prefills together
    per_request_s: Number  # that one prefill takes of a rank
    plan: Layout  # of the prefill
    chips: Number  # of the (decoding) instance
    other: Chip | None = None  # that prefills, where it is another kind


def _aggregated(chip: Chip, workload: Workload, layout: Layout, p: Passes, model: LLM, fmt: Format) -> Loop:
    """Continuous batching: prefills of others share the chips with everybody's decoding."""
    s, osl, rank = chip.kernels.system, workload.output_tokens, cut.ranks(layout)
    held = s.interference
    if s.uneven_prompts is not None and layout.dp is not None:
        held = held * serving.uneven_prefill(s.uneven_prompts, layout.dp, cut.fresh_tokens(workload), s.chunk_token)
    shared = serving.interference_s(rank, osl, p.per_request_s, held)
    tpot = p.decode.time.total + shared
    load = serving.prefill_load(rank, osl, p.per_request_s, tpot)
    slot = serving.slot_wait_s(s.waiting, osl, tpot, layout.batch)
    steps = s.pickup_steps
    if s.balance_steps is not None and layout.dp is not None:
        steps = steps + serving.balance_wait_steps(s.balance_steps, layout.dp, rank, osl)
    if s.wait_steps is not None:
        steps = steps + serving.gathering_wait_steps(s.wait_steps, rank, osl)
    if s.poll_steps is not None:
        steps = steps + serving.polling_wait_steps(s.poll_steps)
    ttft = serving.first_token_s(s.first_token_s, tpot, p.prefill.time.total, load, s.queue, rank, slot, steps)
    power_w = (p.decode.energy_j + rank / osl / p.prompts * p.prefill.energy_j) / tpot
    requests = serving.requests_per_s(layout.batch, ttft, tpot, osl)
    return Loop(tpot_s=tpot, ttft_s=ttft, requests_per_s=requests, chips=p.chips, power_w=power_w, interference_s=shared)


def _disaggregated(chip: Chip, workload: Workload, layout: Layout, p: Passes, model: LLM, fmt: Format) -> Loop:
    """Prefill on instances of its own, in the ratio that keeps both sides busy; the cache travels over the scale-out links."""
    s, tpot = chip.kernels.system, p.decode.time.total
    first, load = (chip, s.prefill_load) if p.other is None else (p.other, p.other.kernels.system.prefill_load)
    requests = layout.batch / (jnp.maximum(workload.output_tokens - 1.0, 1.0) * tpot)
    instances = requests / (cut.one(p.plan.dp) / p.per_request_s * load)
    slower = chip.scale_out.s_per_byte if p.other is None else jnp.maximum(chip.scale_out.s_per_byte, first.scale_out.s_per_byte)
    moved = cut.cache_byte(model, workload.input_tokens, p.plan, fmt) * slower
    ttft = s.first_token_s + serving.queue_s(p.prefill.stage_s, load) + p.prefill.time.total + moved + tpot
    decode_w = p.decode.energy_j / tpot
    prefill_w = requests / cut.one(p.plan.dp) / p.prompts * p.prefill.energy_j
    prefill_chips = instances * cut.instance_chips(p.plan)
    loop = Loop(tpot_s=tpot, ttft_s=ttft, requests_per_s=requests, chips=p.chips + prefill_chips, power_w=decode_w + prefill_w)
    return loop if p.other is None else replace(loop, prefill_chips=prefill_chips, prefill_w=prefill_w)


def _static(chip: Chip, workload: Workload, layout: Layout, p: Passes, model: LLM, fmt: Format) -> Loop:
    """One batch after another: all prompts together, then all tokens."""
    tpot, osl = p.decode.time.total, workload.output_tokens
    ttft = chip.kernels.system.first_token_s + p.prefill.time.total
    requests = serving.requests_per_s(layout.batch, ttft, tpot, osl)
    power_w = requests / layout.batch * (osl * p.decode.energy_j + p.prefill.energy_j)
    return Loop(tpot_s=tpot, ttft_s=ttft, requests_per_s=requests, chips=p.chips, power_w=power_w)


def _decode_only(chip: Chip, workload: Workload, layout: Layout, p: Passes, model: LLM, fmt: Format) -> Loop:
    """One decoding step at the prompt's context, nothing else."""
    tpot = p.decode.time.total
    requests = layout.batch / tpot / workload.output_tokens
    return Loop(tpot_s=tpot, ttft_s=0.0, requests_per_s=requests, chips=p.chips, power_w=p.decode.energy_j / tpot)


def _prefill_only(chip: Chip, workload: Workload, layout: Layout, p: Passes, model: LLM, fmt: Format) -> Loop:
    """Prompts after prompts; nothing is decoded."""
    busy = p.prefill.stage_s
    return Loop(
        tpot_s=0.0, ttft_s=p.prefill.time.total, requests_per_s=layout.batch / busy, chips=p.chips, power_w=p.prefill.energy_j / busy
    )


MODES = {
    "aggregated": _aggregated, "disaggregated": _disaggregated, "decode": _decode_only, "prefill": _prefill_only, "static": _static,
}  # fmt: skip


SERVING = tuple(MODES)
OPEN = ("aggregated", "disaggregated")  # modes that may have random arrivals


def prompts_together(chip: Chip, workload: Workload, layout: Layout, plan: Layout, mode: str) -> Number:
    """Prompts that are prefilled together on one rank."""
    if mode in ("static", "prefill"):
        return cut.ranks(layout)
    if mode == "disaggregated":
        return jnp.maximum(cut.ranks(plan), 1.0)
    chunk = jnp.maximum(chip.kernels.system.chunk_token / cut.fresh_tokens(workload), 1.0)
    return jnp.clip(cut.ranks(layout) / workload.output_tokens, 1.0, chunk)
