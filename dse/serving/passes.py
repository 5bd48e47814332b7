"""How long does one pass of an instance take? The chip in one format, a decoding step (also with guessed tokens), a prefill."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp

from dse.equations import layout as cut
from dse.equations import power, speculation
from dse.equations.roofline import Time, add, scale
from dse.equations.transformer import Machine, Pass, Work, forward, overlapped
from dse.formats import computed_in, default_format, pick
from dse.types import LLM, Chip, Layout, Number, Speculation, Workload, pytree


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
    own_layer = depth(chip, model, layout) / layout.pp  # where layers have hardware of their own, each has its share of the chip
    placement = cut.place(chip, weights, kv_byte)
    if layout.offload is not None:
        placement = cut.offloaded(placement, layout.offload)
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


@pytree()
class Step:
    """One pass of everybody through an instance: its time, what it occupies of a stage, and what it draws."""

    time: Time
    stage_s: Number  # time for which it occupies a stage
    energy_j: Number  # of the whole instance, without static power
    moved_s: Number  # time in which weights and cache would move at datasheet bandwidth, of one chip
    work: Work


def depth(chip: Chip, model: LLM, layout: Layout) -> Number:
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
    deep = depth(mc.chip, model, layout)
    b, together = cut.microbatch(rank, deep), cut.microbatch(rank, layout.pp)
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
        passes * layout.pp / deep * work.weight_byte * mc.placement.weight_s_per_byte
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
    deep = depth(mc.chip, model, layout)
    stream = 1.0 + hardwired * (deep - 1.0)
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
    share = stream / deep * cut.stage_imbalance(cut.layers(model), layout.pp)  # of the time for which a stage is occupied
    time = scale(_throttle(mc, layout, energy, time.total * share), time)
    occupied = time.total * share
    return Step(time=time, stage_s=occupied, energy_j=energy, moved_s=0.0, work=work)
