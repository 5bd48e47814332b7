"""What do users see when requests arrive at random? The stream of one attention rank, and the answer in percentiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from dse.equations import layout as cut
from dse.equations import queueing
from dse.equations.transformer import Machine
from dse.serving.modes import Loop, Passes
from dse.serving.passes import prefill_step, token_step
from dse.types import LLM, Arrivals, Chip, Layout, MemoryParts, Number, Workload, pytree


@pytree()
class Arrived:
    """What users see when requests arrive at random; beside the means and the 99th percentiles of ``Metrics``."""

    rate_per_s: Number
    load: Number  # over the rate at which all slots stay busy
    slots: Number  # requests at the same time at most, on one attention rank: as asked, or what the cache has room for
    concurrency: Number  # requests decoding at the same time, mean of one attention rank
    full: Number  # probability that a newcomer finds no slot
    prefill_share: Number  # of the time
    tpot_p50_s: Number
    tpot_p90_s: Number
    tpot_p99_s: Number
    ttft_p50_s: Number
    ttft_p90_s: Number
    ttft_p99_s: Number
    input_tokens: Number
    output_tokens: Number
    input_cv: Number
    output_cv: Number
    pp: Number


def stream_of(
    mc: Machine, model: LLM, workload: Workload, layout: Layout, memory: MemoryParts, kv: Number, a: Arrivals
) -> tuple[Any, Number]:
    """What one attention rank is asked to do, its steps tabulated over concurrency and prompt lengths; and its rate at full slots."""
    s, isl, osl = mc.chip.kernels.system, workload.input_tokens, workload.output_tokens
    answer = osl * (1.0 + a.output_cv**2)  # of a request in service: long answers stay longer
    room = memory.capacity - memory.weights - memory.activations - memory.reserve
    shape = jnp.zeros_like(isl * osl * a.input_cv * a.output_cv * room * layout.batch * layout.tp * layout.pp)
    slots = jnp.clip(room / cut.cache_byte(model, isl + answer, layout, mc.fmt), 1.0, cut.ranks(layout)) + shape
    width = cut.one(layout.dp)

    def decoding(requests: Number) -> Number:
        busy = replace(layout, batch=requests * width)
        return token_step(mc, model, workload, busy, isl + answer / 2.0, kv).time.total

    def prefilling(tokens: Number, prompts: Number) -> Number:
        one = replace(workload, input_tokens=tokens + isl - cut.fresh_tokens(workload))
        return prefill_step(mc, model, one, layout, prompts).stage_s * s.interference

    tokens = queueing.lengths(cut.fresh_tokens(workload) + shape, a.input_cv + shape)
    pairs = jax.vmap(prefilling)(jnp.concatenate([tokens, tokens]), jnp.concatenate([0.0 * tokens + 1.0, 0.0 * tokens + 2.0]))
    alone, pair = jnp.split(pairs, 2)
    steps = jax.vmap(decoding)(queueing.counts(slots))
    whole = jnp.sum(queueing.length_weights(alone) * alone, axis=0)
    most = slots / (jnp.maximum(osl - 1.0, 0.0) * steps[-1] + slots * whole)
    rate = most * a.load if a.rate_per_s is None else a.rate_per_s / width
    stream = queueing.Stream(
        rate_per_s=rate,
        slots=slots,
        output_tokens=osl,
        output_cv=a.output_cv,
        step_s=steps,
        prefill_s=alone,
        pair_s=pair,
        prompt_tokens=tokens,
        chunk_tokens=s.chunk_token,
    )
    return stream, most


def open_loop(chip: Chip, workload: Workload, layout: Layout, p: Passes, stream: Any, w: Any) -> Loop:
    """Continuous batching under random arrivals; ``layout.batch`` is the mean concurrency."""
    s, width = chip.kernels.system, cut.one(layout.dp)
    through = p.prefill.time.total - p.prefill.stage_s  # of the stages behind the first
    requests = stream.rate_per_s * width
    steps = stream.rate_per_s * jnp.maximum(workload.output_tokens - 1.0, 0.0) / w.concurrency
    return Loop(
        tpot_s=w.tpot_s,
        ttft_s=s.first_token_s + through + w.ttft_s,
        requests_per_s=requests,
        chips=p.chips,
        power_w=steps * p.decode.energy_j + stream.rate_per_s / p.prompts * p.prefill.energy_j,
        interference_s=w.tpot_s - w.step_s,
    )


def arrived(workload: Workload, layout: Layout, a: Arrivals, stream: Any, most: Number, w: Any, fixed_s: Number) -> Arrived:
    (t50, t90, t99), (f50, f90, f99) = w.tpot_quantile_s, w.ttft_quantile_s + fixed_s
    return Arrived(
        rate_per_s=stream.rate_per_s * cut.one(layout.dp),
        load=stream.rate_per_s / most,
        slots=stream.slots,
        concurrency=w.concurrency,
        full=w.full,
        prefill_share=w.prefill_share,
        tpot_p50_s=t50,
        tpot_p90_s=t90,
        tpot_p99_s=t99,
        ttft_p50_s=f50,
        ttft_p90_s=f90,
        ttft_p99_s=f99,
        input_tokens=cut.fresh_tokens(workload),
        output_tokens=workload.output_tokens,
        input_cv=a.input_cv,
        output_cv=a.output_cv,
        pp=layout.pp,
    )
