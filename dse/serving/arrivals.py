"""What do users see when requests arrive at random? The stream of one attention rank, and the answer in percentiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from dse.equations import layout as cut
from dse.equations import queueing
from dse.equations.smooth import TINY
from dse.equations.transformer import Machine
from dse.serving.modes import Loop, Passes
from dse.serving.passes import prefill_step, token_step
from dse.types import LLM, Arrivals, Chip, Layout, MemoryParts, Number, Workload, pytree


@pytree()
class Arrived:
    """What users see when requests arrive at random; beside the means and the 99th percentiles of ``Metrics``."""

    rate_per_s: Number
    load: Number  # over the rate at which all slots stay busy, or prompts enter one chunk after another
    slots: Number  # requests at the same time at most, on one attention rank: as asked, or what the cache has room for
    concurrency: Number  # requests decoding at the same time, mean of one attention rank
    full: Number  # probability that a newcomer finds no slot
    prefill_share: Number  # of the time; of a prefill rank where these are apart
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
    stages: Number  # that a token passes one after another: pipeline stages, or layers with hardware of their own
    spare: Number  # room beside the caches of all slots asked for, in standard deviations of what these take
    separate_prefill: Number  # 1 where another instance prefills, else 0


def stream_of(
    mc: Machine,
    model: LLM,
    workload: Workload,
    layout: Layout,
    memory: MemoryParts,
    kv: Number,
    a: Arrivals,
    before: tuple[Machine, Layout] | None = None,
) -> tuple[Any, Number, Number]:
    """What one attention rank is asked to do, its steps tabulated over concurrency and prompt lengths.

    Also its rate at full slots, and the room beside the caches of all slots asked for, in standard deviations of what these take.
    ``before`` is the machine and layout of a prefill instance where another one prefills.
    """
    s, isl, osl = mc.chip.kernels.system, workload.input_tokens, workload.output_tokens
    answer = osl * (1.0 + a.output_cv**2)  # of a request in service: long answers stay longer
    room = memory.capacity - memory.weights - memory.activations - memory.reserve
    shape = jnp.zeros_like(isl * osl * a.input_cv * a.output_cv * room * layout.batch * layout.tp * layout.pp)
    each = cut.cache_byte(model, isl + answer, layout, mc.fmt)
    fit = room / each
    if layout.offload is not None:
        x = layout.offload.share
        fit = jnp.minimum(fit / jnp.maximum(1.0 - x, TINY), layout.offload.host.capacity_byte / (each * jnp.maximum(x, TINY)))
    slots = jnp.clip(fit, 1.0, cut.ranks(layout)) + shape
    spread = ((isl * a.input_cv) ** 2 + (answer * a.output_cv) ** 2) / (isl + answer) ** 2
    spare = (fit - cut.ranks(layout)) / jnp.sqrt(cut.ranks(layout) * jnp.maximum(spread, TINY))
    uneven = jnp.where(fit < cut.ranks(layout), spread, 0.0)  # caches of unequal length fill a room that binds
    width = cut.one(layout.dp)

    context, unlike = _contexts(workload, a)

    def decoding(requests: Number, seen: Number) -> Number:
        return token_step(mc, model, workload, replace(layout, batch=requests * width), seen, kv).time.total

    def prefilling(tokens: Number, prompts: Number) -> Number:
        one = replace(workload, input_tokens=tokens + isl - cut.fresh_tokens(workload))
        return prefill_step(mc, model, one, layout, prompts).stage_s * s.interference

    tokens = queueing.lengths(cut.fresh_tokens(workload) + shape, a.input_cv + shape)
    pairs = jax.vmap(prefilling)(jnp.concatenate([tokens, tokens]), jnp.concatenate([0.0 * tokens + 1.0, 0.0 * tokens + 2.0]))
    alone, pair = jnp.split(pairs, 2)
    number = queueing.counts(slots)
    usual, wide = (jnp.broadcast_to(x, number.shape) for x in (context, context + unlike))
    steps, longer = jnp.split(jax.vmap(decoding)(jnp.concatenate([number, number]), jnp.concatenate([usual, wide])), 2)
    rise = longer - steps
    if before is not None:
        return *_decoding_stream(mc, model, workload, layout, a, before, slots, uneven, steps, rise, tokens), spare
    whole = jnp.sum(queueing.length_weights(alone) * alone, axis=0)
    kept_full = slots / (jnp.maximum(osl - 1.0, 0.0) * steps[-1] + slots * whole)
    entering = 1.0 / (whole + steps[-1] * cut.fresh_tokens(workload) / s.chunk_token)
    most = jnp.minimum(kept_full, entering)
    rate = _rate(a, most, width)
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
        uneven=uneven,
        rise_s=rise,
    )
    return stream, most, spare


def _contexts(workload: Workload, a: Arrivals) -> tuple[Number, Number]:
    r"""Context of a request that decodes, long answers seen as long as they stay: mean and standard deviation [token].

    With answers of mean :math:`s` and :math:`v = 1 + c^2`, lognormal, :math:`s v / 2` tokens of the answer are out on average, and
    :math:`s^2 (v^3 / 3 - v^2 / 4)` is their variance.
    """
    isl, osl = workload.input_tokens, workload.output_tokens
    v = 1.0 + a.output_cv**2
    return isl + osl * v / 2.0, jnp.sqrt((isl * a.input_cv) ** 2 + osl**2 * (v**3 / 3.0 - v**2 / 4.0))


def _rate(a: Arrivals, most: Number, width: Number) -> Number:
    """Arrivals of one rank: stated for all ranks together, or as a share of the most."""
    return most * a.load if a.rate_per_s is None else a.rate_per_s / width


def _decoding_stream(
    mc: Machine,
    model: LLM,
    workload: Workload,
    layout: Layout,
    a: Arrivals,
    before: tuple[Machine, Layout],
    slots: Number,
    uneven: Number,
    steps: Number,
    rise: Number,
    tokens: Number,
) -> tuple[Any, Number]:
    """The same for a rank that only decodes: prompts come from ranks of their own, so many that these are busy as provisioned."""
    other, plan = before
    s, isl, fresh = other.chip.kernels.system, workload.input_tokens, cut.fresh_tokens(workload)
    nothing = steps[0] * TINY + 0.0 * tokens  # prefill takes no time of this rank

    def prefilling(length: Number) -> tuple[Number, Number]:
        work = prefill_step(other, model, replace(workload, input_tokens=length + isl - fresh), plan, 1.0)
        return work.stage_s, work.time.total

    occupied, through = jax.vmap(prefilling)(tokens)
    slower = jnp.maximum(mc.chip.scale_out.s_per_byte, other.chip.scale_out.s_per_byte)
    moved = cut.cache_byte(model, tokens + isl - fresh, plan, mc.fmt) * slower
    most = slots / (jnp.maximum(workload.output_tokens - 1.0, 1.0) * steps[-1])
    rate = _rate(a, most, cut.one(layout.dp))
    stream = queueing.Stream(
        rate_per_s=rate,
        slots=slots,
        output_tokens=workload.output_tokens,
        output_cv=a.output_cv,
        step_s=steps,
        prefill_s=nothing,
        pair_s=2.0 * nothing,
        prompt_tokens=0.0 * tokens + 1.0,
        chunk_tokens=s.chunk_token,
        uneven=uneven,
        rise_s=rise,
        ahead=queueing.Ahead(load=rate / most * s.prefill_load, service_s=occupied + 0.0 * tokens, own_s=through + moved),
    )
    return stream, most


def _open_apart(chip: Chip, workload: Workload, layout: Layout, p: Passes, stream: Any, w: Any, most: Number) -> Loop:
    """Disaggregated serving under random arrivals: prefill ranks for the rate at which the decoding ranks are full."""
    first = chip if p.other is None else p.other
    width, each = cut.one(layout.dp), cut.one(p.plan.dp)
    weights = queueing.length_weights(stream.ahead.service_s)
    busy_s = jnp.sum(weights * stream.ahead.service_s, axis=0)
    instances = most * width * busy_s / (each * first.kernels.system.prefill_load)
    prefill_chips = instances * cut.instance_chips(p.plan)
    requests = stream.rate_per_s * width
    steps = stream.rate_per_s * jnp.maximum(workload.output_tokens - 1.0, 0.0) / w.concurrency
    decode_w, prefill_w = steps * p.decode.energy_j, requests / each / p.prompts * p.prefill.energy_j
    loop = Loop(
        tpot_s=w.tpot_s,
        ttft_s=chip.kernels.system.first_token_s + w.ttft_s,
        requests_per_s=requests,
        chips=p.chips + prefill_chips,
        power_w=decode_w + prefill_w,
        interference_s=w.tpot_s - w.step_s,
    )
    return loop if p.other is None else replace(loop, prefill_chips=prefill_chips, prefill_w=prefill_w)


def open_loop(chip: Chip, workload: Workload, layout: Layout, p: Passes, stream: Any, w: Any, most: Number | None = None) -> Loop:
    """Serving under random arrivals; ``layout.batch`` is the mean concurrency, ``most`` the full rate where another instance prefills."""
    if most is not None:
        return _open_apart(chip, workload, layout, p, stream, w, most)
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


def arrived(
    workload: Workload, layout: Layout, a: Arrivals, stream: Any, most: Number, spare: Number, w: Any, fixed_s: Number, stages: Number
) -> Arrived:
    """The answer under random arrivals: how full the rank is, and percentiles with the fixed part of the time to first token."""
    (t50, t90, t99), (f50, f90, f99) = w.tpot_quantile_s, w.ttft_quantile_s + fixed_s
    return Arrived(
        rate_per_s=stream.rate_per_s * cut.one(layout.dp),
        load=stream.rate_per_s / most,
        slots=stream.slots,
        concurrency=w.concurrency,
        full=w.full,
        prefill_share=w.prefill_share if stream.ahead is None else stream.ahead.load,
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
        stages=stages,
        spare=spare,
        separate_prefill=0.0 if stream.ahead is None else 1.0,
    )
