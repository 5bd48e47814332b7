"""What does one deployment achieve and cost? The only composition of the equations: ``evaluate(Deployment) -> Metrics``.

``performance`` says how fast and at what power (independent of money), ``money`` what an owner pays for it; ``evaluate`` is both, jitted.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dse.equations import finance, power, queueing, serving, speculation
from dse.equations import layout as cut
from dse.equations.roofline import Time, add, scale
from dse.equations.smooth import TINY
from dse.equations.transformer import Machine, Pass, Work, flop_per_token, forward, overlapped
from dse.errors import InputError
from dse.formats import computed_in, default_format, pick
from dse.types import (
    LLM,
    SLACK_TOLERANCE,
    Arrivals,
    Chip,
    CostParts,
    Deployment,
    Format,
    Layout,
    MemoryParts,
    Number,
    Prices,
    SlackParts,
    Speculation,
    TimeParts,
    Workload,
    pytree,
)

T = TypeVar("T")
TIME_PARTS = tuple(f.name for f in fields(TimeParts))


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


@pytree()
class Performance:
    """Speed, power and memory of one deployment: everything but money."""

    chips: Number
    decode_chips: Number
    tpot_s: Number
    ttft_s: Number
    output_token_per_s: Number
    input_token_per_s: Number
    mean_w: Number  # of one chip, while serving
    mfu: Number
    mbu: Number
    mfu_prefill: Number
    time: TimeParts
    prefill_time: Time
    memory: MemoryParts
    slack: SlackParts
    format: Format
    arrivals: Arrived | None = None
    prefill_chips: Number | None = None  # of another kind, and the mean power of one of them
    prefill_w: Number | None = None


@pytree()
class Metrics:
    """What ``evaluate`` says of a deployment; the fields are the keys of ``dse eval --json`` (SI units, see the glossary)."""

    feasible: Number
    chips: Number
    batch: Number
    layout: Layout
    format: Format
    tpot_s: Number
    ttft_s: Number
    tpot_p99_s: Number | None  # None without arrivals
    ttft_p99_s: Number | None
    interactivity_token_per_s: Number
    output_token_per_s_per_chip: Number
    total_token_per_s_per_chip: Number
    cost_usd_per_s: CostParts
    usd_per_million_output_token: Number
    usd_per_million_token: Number
    usd_per_chip_hour: Number
    j_per_output_token: Number
    facility_power_w: Number
    mfu: Number
    mbu: Number
    mfu_prefill: Number
    bound: Number  # index into TIME_PARTS
    bound_prefill: Number
    time_s: TimeParts
    memory_byte_per_chip: MemoryParts
    calibrated: Number  # 1 with fitted constants, 0 with ideal ones
    tpot_error: Number  # relative error that 90 % of predictions stay within, 0 where it is not known
    ttft_error: Number
    slack: SlackParts
    arrivals: Arrived | None = None
    prefill_chips: Number | None = None  # of another kind than those that decode

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``dse eval``: plain numbers, names instead of codes, ``None`` where a key does not apply."""
        from dse.present import metrics_dict

        return metrics_dict(self)


# --- the chip in one format --------------------------------------------------------------------------------------------


def machine(chip: Chip, model: LLM, layout: Layout, kv_byte: Number) -> Machine:
    """The chip as one format and placement see it: kernel constants chosen, floors as an engine pays them."""
    asked = layout.format if layout.format is not None else default_format(chip, model.native)
    fmt = computed_in(chip, asked)  # type: ignore[arg-type]
    k, s = chip.kernels, chip.kernels.system
    base = k.gemm.bf16
    gemm = pick(fmt.kernel, k.gemm)
    engine_floor = s.kernel_floor * (base.floor_s + s.quantise_floor * jnp.maximum(gemm.floor_s - base.floor_s, 0.0))
    moe = pick(fmt.kernel, k.moe)
    latent = cut.largest_of(g.attention.latent for g in model.groups)

    def choose(plain, fp8, mla):
        mixed = jax.tree.map(lambda a, b: (1.0 - fmt.kv_fp8) * a + fmt.kv_fp8 * b, plain, fp8)
        mixed = jax.tree.map(lambda a, b: (1.0 - latent) * a + latent * b, mixed, mla)
        return replace(mixed, floor_s=mixed.floor_s * s.kernel_floor)

    weights = cut.weight_byte(model, layout, fmt)
    own_layer = _depth(chip, model, layout) / layout.pp  # where layers have hardware of their own, each has its share of the chip
    placement = cut.place(chip, weights, kv_byte)
    return Machine(
        chip=chip,
        fmt=fmt,
        placement=replace(placement, weight_s_per_byte=placement.weight_s_per_byte * own_layer),
        peak_flop_per_s=pick(fmt.compute, chip.peak_flop_per_s) / own_layer,
        head_flop_per_s=pick(fmt.attention, chip.peak_flop_per_s) / own_layer,
        attention_flop_per_s=pick(fmt.attention, chip.peak_flop_per_s),
        flop_j=pick(fmt.compute, chip.flop_j),
        attention_flop_j=pick(fmt.attention, chip.flop_j),
        gemm=replace(gemm, floor_s=engine_floor),
        head=replace(base, floor_s=base.floor_s * s.kernel_floor),
        moe=replace(moe, floor_s=moe.floor_s * s.moe_floor),
        decode=choose(k.decode, k.decode_fp8, k.mla_decode),
        prefill=choose(k.prefill, k.prefill_fp8, k.mla_prefill),
    )


# --- the two passes ------------------------------------------------------------------------------------------------------


@pytree()
class Step:
    """One pass of everybody through an instance: its time, what it occupies of a stage, and what it draws."""

    time: Time
    stage_s: Number  # time for which it occupies a stage
    energy_j: Number  # of the whole instance, without static power
    moved_s: Number  # time in which weights and cache would move at datasheet bandwidth, of one chip
    work: Work


def _depth(chip: Chip, model: LLM, layout: Layout) -> Number:
    """Microbatches in flight: pipeline stages, or all layers where each has hardware of its own."""
    hardwired = chip.kernels.system.layer_pipelined
    return layout.pp + hardwired * (jnp.maximum(cut.layers(model), layout.pp) - layout.pp)


def _energy(mc: Machine, layout: Layout, work: Work, passes: Number, attention_passes: Number) -> Number:
    weights = work.weight_byte * mc.placement.weight_j_per_byte
    wires = work.link_byte * mc.chip.scale_up.j_per_byte
    gemms = passes * (work.flop * mc.flop_j + weights + wires)
    activations = work.moved_byte * mc.placement.weight_j_per_byte
    cache = attention_passes * (work.attention_flop * mc.attention_flop_j + work.kv_byte * mc.placement.kv_j_per_byte)
    return cut.stage_chips(layout) * (gemms + passes * activations + cache)


def _throttle(mc: Machine, layout: Layout, energy_j: Number, time_s: Number) -> Number:
    return power.throttle(energy_j, time_s, cut.instance_chips(layout), mc.chip.tdp_w, mc.chip.static_w)


def decode_step(mc: Machine, model: LLM, workload: Workload, layout: Layout, context: Number, query: Number = 1.0) -> Step:
    """One decoding step of all requests: every request gets one token, or verifies ``query`` tokens."""
    s = mc.chip.kernels.system
    rank = cut.ranks(layout)
    depth = _depth(mc.chip, model, layout)
    b, together = cut.microbatch(rank, depth), cut.microbatch(rank, layout.pp)
    p = Pass(
        gemm_tokens=b * query,
        sequences=together,
        query_tokens=query,
        context=context,
        head_tokens=b * query,
        causal=False,
        split_tokens=1.0,
    )
    work = forward(mc, model, layout, p, workload)
    imbalance = cut.stage_imbalance(cut.layers(model), layout.pp)
    host = s.host_s + s.sequence_s * rank
    walked = overlapped(scale(s.factor * imbalance, work.time), s.overlap)
    time = replace(walked, total=walked.total + host, overhead=walked.overhead + host)
    passes, attention_passes = rank / b, rank / together
    moved = (
        passes * layout.pp / depth * work.weight_byte * mc.placement.weight_s_per_byte
        + attention_passes * work.kv_byte * mc.placement.kv_s_per_byte
    )
    energy = _energy(mc, layout, work, passes, attention_passes)
    time = scale(_throttle(mc, layout, energy, time.total), time)
    return Step(time=time, stage_s=time.total, energy_j=energy, moved_s=moved / layout.pp, work=work)


def _drafting(mc: Machine, model: LLM, s: Speculation, layout: Layout, kv: Number) -> tuple[Machine, LLM]:
    """The machine as the draft sees it (scheduled together with the step that verifies: no host time of its own), and the draft."""
    chip = mc.chip
    quiet = replace(chip.kernels.system, host_s=0.0, sequence_s=0.0)
    draft = speculation.extra_layer(model) if s.draft is None else s.draft
    plan = layout if s.draft is None else replace(layout, format=None)
    return machine(replace(chip, kernels=replace(chip.kernels, system=quiet)), draft, plan, kv), draft


def token_step(mc: Machine, model: LLM, workload: Workload, layout: Layout, context: Number, kv: Number) -> Step:
    """What one token of every request costs: a decoding step, or its share of a step that drafts and verifies several."""
    s = workload.speculation
    if s is None:
        return decode_step(mc, model, workload, layout, context)
    verify = decode_step(mc, model, workload, layout, context, s.tokens + 1.0)
    small, draft = _drafting(mc, model, s, layout, kv)
    guess = decode_step(small, draft, replace(workload, speculation=None), layout, context)
    share = 1.0 / speculation.tokens_per_step(s.acceptance, s.tokens)
    time = scale(share, add(verify.time, scale(s.tokens, guess.time)))
    return Step(
        time=time,
        stage_s=time.total,
        energy_j=share * (verify.energy_j + s.tokens * guess.energy_j),
        moved_s=share * (verify.moved_s + s.tokens * guess.moved_s),
        work=verify.work,
    )


def prefill_step(mc: Machine, model: LLM, workload: Workload, layout: Layout, requests: Number) -> Step:
    """Prefill of ``requests`` prompts together on each attention rank."""
    s = mc.chip.kernels.system
    hardwired, prompt = s.layer_pipelined, cut.fresh_tokens(workload)
    depth = _depth(mc.chip, model, layout)
    stream = 1.0 + hardwired * (depth - 1.0)
    tokens = requests * prompt / stream
    together = requests / (1.0 + hardwired * (layout.pp - 1.0))
    p = Pass(
        gemm_tokens=tokens,
        sequences=together,
        query_tokens=prompt,
        context=0.0 if workload.shared_prefix_tokens is None else workload.shared_prefix_tokens,
        head_tokens=requests,
        causal=True,
        split_tokens=cut.one(layout.cp),
    )
    work = forward(mc, model, layout, p, workload)
    energy = _energy(mc, layout, work, stream, requests / together)
    time = overlapped(scale(s.factor, work.time), s.overlap)
    share = stream / depth * cut.stage_imbalance(cut.layers(model), layout.pp)  # of the time for which a stage is occupied
    time = scale(_throttle(mc, layout, energy, time.total * share), time)
    occupied = time.total * share
    return Step(time=time, stage_s=occupied, energy_j=energy, moved_s=0.0, work=work)


# --- performance -----------------------------------------------------------------------------------------------------------


def _memory(chip: Chip, model: LLM, workload: Workload, layout: Layout, fmt: Format, serving_mode: str) -> tuple[MemoryParts, Number]:
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


def _slack(chip: Chip, model: LLM, layout: Layout, memory: MemoryParts) -> SlackParts:
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


def _both(chip: Chip, first: Chip, model: LLM, layout: Layout, plan: Layout, memory: MemoryParts, pre_memory: MemoryParts) -> SlackParts:
    """The tighter limits of the decoding and of the prefill instance."""
    return jax.tree.map(jnp.minimum, _slack(chip, model, layout, memory), _slack(first, model, plan, pre_memory))


def _mean_w(chip: Chip, loop: Loop) -> Number:
    """Mean power of one chip; of one that decodes, where others prefill [W]."""
    if loop.prefill_chips is None or loop.prefill_w is None:
        return loop.power_w / loop.chips + chip.static_w
    return (loop.power_w - loop.prefill_w) / (loop.chips - loop.prefill_chips) + chip.static_w


def _time_parts(decode: Time, prefill: Number) -> TimeParts:
    return TimeParts(
        compute=decode.compute,
        weights=decode.weights,
        kv=decode.kv,
        collectives=decode.collectives,
        overhead=decode.overhead,
        prefill=prefill,
    )


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
    shared = serving.interference_s(rank, osl, p.per_request_s, s.interference)
    tpot = p.decode.time.total + shared
    load = serving.prefill_load(rank, osl, p.per_request_s, tpot)
    slot = serving.slot_wait_s(s.waiting, osl, tpot, layout.batch)
    ttft = serving.first_token_s(s.first_token_s, tpot, p.prefill.time.total, load, s.queue, rank, slot, s.pickup_steps)
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


def _stream(
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


def _open(chip: Chip, workload: Workload, layout: Layout, p: Passes, stream: Any, w: Any) -> Loop:
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


def _arrived(workload: Workload, layout: Layout, a: Arrivals, stream: Any, most: Number, w: Any, fixed_s: Number) -> Arrived:
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


MODES = {
    "aggregated": _aggregated, "disaggregated": _disaggregated, "decode": _decode_only, "prefill": _prefill_only, "static": _static,
}  # fmt: skip


SERVING = tuple(MODES)
OPEN = ("aggregated",)  # modes that may have random arrivals


def _prompts_together(chip: Chip, workload: Workload, layout: Layout, plan: Layout, mode: str) -> Number:
    """Prompts that are prefilled together on one rank."""
    if mode in ("static", "prefill"):
        return cut.ranks(layout)
    if mode == "disaggregated":
        return jnp.maximum(cut.ranks(plan), 1.0)
    chunk = jnp.maximum(chip.kernels.system.chunk_token / cut.fresh_tokens(workload), 1.0)
    return jnp.clip(cut.ranks(layout) / workload.output_tokens, 1.0, chunk)


def performance(
    chip: Chip,
    model: LLM,
    workload: Workload,
    layout: Layout,
    prefill_layout: Layout | None = None,
    mode: str = "aggregated",
    arrivals: Arrivals | None = None,
    prefill_chip: Chip | None = None,
) -> Performance:
    """Speed, power and memory of a deployment (money apart); broadcasting, differentiable, total.

    Args:
        chip, model, workload, layout: As in ``Deployment``. prefill_layout: Of a prefill instance when disaggregated.
        mode: One of ``SERVING``. arrivals: None for a closed loop. prefill_chip: Of a prefill instance; None: ``chip``.
    """
    asked = layout.format if layout.format is not None else default_format(chip, model.native)
    memory, kv = _memory(chip, model, workload, layout, asked, mode)  # type: ignore[arg-type]
    mc = machine(chip, model, layout, kv)
    isl, osl, fresh = workload.input_tokens, workload.output_tokens, cut.fresh_tokens(workload)
    context = isl if mode == "decode" else isl + osl / 2.0
    if arrivals is not None:
        stream, most = _stream(mc, model, workload, layout, memory, kv, arrivals)
        waits = queueing.everywhere(stream)
        full, layout = layout, replace(layout, batch=waits.concurrency * cut.one(layout.dp))
        context = isl + osl * (1.0 + arrivals.output_cv**2) / 2.0
    step = token_step(mc, model, workload, layout, context, kv)
    plan = layout if prefill_layout is None or mode != "disaggregated" else prefill_layout
    prompts = _prompts_together(chip, workload, layout, plan, mode)
    other = prefill_chip if mode == "disaggregated" else None
    first = chip if other is None else other
    pre_memory = None
    if other is not None:
        at_once = replace(plan, batch=prompts * cut.one(plan.dp))
        form = plan.format if plan.format is not None else default_format(first, model.native)
        pre_memory, kv = _memory(first, model, workload, at_once, form, "prefill")  # type: ignore[arg-type]
    pre_mc = mc if plan is layout and other is None else machine(first, model, plan, kv)
    pre = prefill_step(pre_mc, model, workload, plan, prompts)
    chips = cut.instance_chips(layout)
    served = prompts if workload.samples is None else prompts * workload.samples  # answers that one prefill is for
    passes = Passes(decode=step, prefill=pre, prompts=served, per_request_s=pre.stage_s / served, plan=plan, chips=chips, other=other)
    if arrivals is None:
        loop = MODES[mode](chip, workload, layout, passes, model, mc.fmt)
    else:
        loop = _open(chip, workload, layout, passes, stream, waits)
        passes = replace(passes, decode=replace(step, time=scale(waits.step_s / step.time.total, step.time)))
    zero = jnp.zeros_like(step.time.total + pre.time.total)  # one shape for all, whatever the mode leaves out
    peak = pick(mc.fmt.compute, chip.peak_flop_per_s)
    prompt_flop = prompts * cut.one(plan.dp) * fresh * flop_per_token(model, isl - fresh / 2.0)
    return Performance(
        chips=loop.chips + zero,
        decode_chips=chips,
        tpot_s=loop.tpot_s + zero,
        ttft_s=loop.ttft_s + zero,
        output_token_per_s=loop.requests_per_s * osl * (0.0 if mode == "prefill" else 1.0),
        input_token_per_s=loop.requests_per_s * isl * (0.0 if mode == "decode" else 1.0) / cut.one(workload.samples),
        mean_w=_mean_w(chip, loop),
        mfu=layout.batch * flop_per_token(model, context) / (step.time.total * peak * chips),
        mbu=step.moved_s / step.time.total,
        mfu_prefill=prompt_flop / (pre.stage_s * pick(pre_mc.fmt.compute, first.peak_flop_per_s) * cut.instance_chips(plan)),
        time=_time_parts(passes.decode.time, loop.interference_s + zero),
        prefill_time=pre.time,
        memory=memory,
        slack=_slack(chip, model, layout, memory) if pre_memory is None else _both(chip, first, model, layout, plan, memory, pre_memory),
        prefill_chips=loop.prefill_chips,
        prefill_w=None if loop.prefill_w is None or other is None else loop.prefill_w / cut.one(loop.prefill_chips) + other.static_w,
        format=mc.fmt,
        arrivals=None if arrivals is None else _arrived(workload, full, arrivals, stream, most, waits, loop.ttft_s - waits.ttft_s),
    )


def money(chip: Chip, prices: Prices, p: Performance, prefill_chip: Chip | None = None) -> CostParts:
    """USD per second of serving, by part, of one owner; chips of both kinds where another kind prefills."""
    if p.prefill_chips is None or prefill_chip is None:
        return finance.cost_parts(chip, prices, p.chips, p.decode_chips, p.mean_w)
    decode = finance.cost_parts(chip, prices, p.chips - p.prefill_chips, p.decode_chips, p.mean_w)
    prefill = finance.cost_parts(prefill_chip, prices, p.prefill_chips, p.decode_chips, p.prefill_w)
    return jax.tree.map(jnp.add, decode, prefill)


def facility_w(chip: Chip, prices: Prices, p: Performance, prefill_chip: Chip | None = None) -> Number:
    """Power at the meter of the whole instance [W]."""
    if p.prefill_chips is None or prefill_chip is None:
        return p.chips * finance.provisioned_w(chip, prices, p.mean_w)
    decode = (p.chips - p.prefill_chips) * finance.provisioned_w(chip, prices, p.mean_w)
    return decode + p.prefill_chips * finance.provisioned_w(prefill_chip, prices, p.prefill_w)


def total_cost(parts: CostParts) -> Number:
    """Sum of the cost parts [USD/s]."""
    return sum(getattr(parts, f.name) for f in fields(CostParts))


def worst_slack(slack: SlackParts) -> Number:
    """The tightest of all limits [1]."""
    return functools.reduce(jnp.minimum, (getattr(slack, f.name) for f in fields(SlackParts)))


def _evaluate(d: Deployment) -> Metrics:
    p = performance(d.chip, d.model, d.workload, d.layout, d.prefill_layout, d.serving, d.arrivals, d.prefill_chip)
    seen = p.arrivals
    parts = money(d.chip, d.prices, p, d.prefill_chip)
    cost = total_cost(parts)
    times = jnp.stack(jnp.broadcast_arrays(*(getattr(p.time, name) for name in TIME_PARTS)))
    prefill = jnp.stack(jnp.broadcast_arrays(*(getattr(p.prefill_time, name) for name in TIME_PARTS[:-1])))
    tokens = p.output_token_per_s + p.input_token_per_s
    facility = facility_w(d.chip, d.prices, p, d.prefill_chip)
    per_million = 1e6
    return Metrics(
        feasible=(worst_slack(p.slack) >= SLACK_TOLERANCE) & (p.mean_w > 0.0) & (True if seen is None else seen.load < 1.0),
        chips=p.chips,
        batch=d.layout.batch,
        layout=d.layout,
        format=p.format,
        tpot_s=p.tpot_s,
        ttft_s=p.ttft_s,
        tpot_p99_s=None if seen is None else seen.tpot_p99_s,
        ttft_p99_s=None if seen is None else seen.ttft_p99_s,
        interactivity_token_per_s=1.0 / jnp.maximum(p.tpot_s, TINY),
        output_token_per_s_per_chip=p.output_token_per_s / p.chips,
        total_token_per_s_per_chip=tokens / p.chips,
        cost_usd_per_s=parts,
        usd_per_million_output_token=cost / jnp.maximum(p.output_token_per_s, TINY) * per_million,
        usd_per_million_token=cost / jnp.maximum(tokens, TINY) * per_million,
        usd_per_chip_hour=cost / p.chips * 3600.0,
        j_per_output_token=facility / jnp.maximum(p.output_token_per_s, TINY),
        facility_power_w=facility,
        mfu=p.mfu,
        mbu=p.mbu,
        mfu_prefill=p.mfu_prefill,
        bound=jnp.argmax(times, axis=0),
        bound_prefill=jnp.argmax(prefill, axis=0),
        time_s=p.time,
        memory_byte_per_chip=p.memory,
        calibrated=d.chip.kernels.blend,
        tpot_error=d.chip.kernels.tpot_error,
        ttft_error=d.chip.kernels.ttft_error,
        slack=p.slack,
        arrivals=seen,
        prefill_chips=p.prefill_chips,
    )


def as_floats(tree: T) -> T:
    """Plain numbers and integer arrays become float64 (promotion is strict inside); float arrays keep their precision."""

    def convert(x):
        if isinstance(x, (bool, int, float)):
            return np.float64(x)
        return x * 1.0 if hasattr(x, "dtype") and np.issubdtype(x.dtype, np.integer) else x

    return jax.tree.map(convert, tree)


_jitted = jax.jit(_evaluate)


def evaluate(deployment: Deployment) -> Metrics:
    """Predict one deployment (or a broadcasting grid of them); jitted, and differentiable in every continuous leaf.

    Args:
        deployment: Leaves are numbers, or arrays that broadcast (chips ``(n, 1)``, layouts ``(1, m)``).

    Returns: ``Metrics`` with leaves of the broadcast shape, SI units.

    References: dse-operator-fit, inferencex-app
    """
    single = any(getattr(x, "dtype", None) == jnp.float32 for x in jax.tree.leaves(deployment))
    if deployment.arrivals is not None and deployment.serving not in OPEN:
        raise InputError(f"arrivals — found with {deployment.serving} serving, allowed with {', '.join(OPEN)}")
    if deployment.prefill_chip is not None and deployment.serving != "disaggregated":
        raise InputError(f"prefill_chip — found with {deployment.serving} serving, allowed with disaggregated")
    d = deployment if single else as_floats(deployment)
    layout = d.layout if _varies(d.layout.cp) else replace(d.layout, cp=None)
    return _jitted(replace(d, model=cut.trimmed(d.model), layout=layout))


def _varies(degree: Number | None) -> bool:
    """Whether a degree is anything but a plain 1."""
    return not (isinstance(degree, (float, np.floating)) and degree == 1.0)


def stack(items: Sequence[T], axis: int = 0) -> T:
    """Stack pytrees of one structure along an axis: leaves ``(n, 1)`` for axis 0, ``(1, n)`` for axis 1.

    Models with fewer layer groups are padded with groups of count 0.
    """
    shape = (-1, 1) if axis == 0 else (1, -1)
    padded = [_pad_groups(item, items) for item in items]
    return jax.tree.map(lambda *xs: jnp.stack([jnp.asarray(x, float) for x in xs]).reshape(shape), *padded)


def _pad_groups(item: Any, items: Sequence[Any]) -> Any:
    if not isinstance(item, LLM):
        return item
    most = max(len(m.groups) for m in items)
    empty = replace(item.groups[0], mixers=0.0, ffns=0.0)
    return replace(item, groups=item.groups + (empty,) * (most - len(item.groups)))


def ideal(chip: Chip) -> Chip:
    """The same chip at its datasheet: peaks reached, no fixed time, no latency, overlap complete, nothing reserved."""
    from dse.catalog import load_catalog

    return replace(chip, kernels=load_catalog().constants["ideal"])
