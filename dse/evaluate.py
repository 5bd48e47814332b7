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

from dse._jax import quickly
from dse.equations import finance, queueing
from dse.equations import layout as cut
from dse.equations.roofline import Time, scale
from dse.equations.smooth import TINY
from dse.equations.transformer import flop_per_token
from dse.errors import InputError
from dse.formats import default_format, pick
from dse.serving.arrivals import Arrived, arrived, open_loop, stream_of
from dse.serving.memory import both_slacks, host_byte, memory_parts, slack_parts
from dse.serving.modes import MODES, OPEN, SERVING, Loop, Passes, prompts_together
from dse.serving.passes import Step, decode_step, depth, machine, prefill_step, token_step
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
    Slacks,
    TimeParts,
    Workload,
    pytree,
)

__all__ = [
    "MODES", "OPEN", "SERVING", "TIME_PARTS", "Arrived", "Loop", "Metrics", "Passes", "Performance", "Step", "as_floats",
    "decode_step", "evaluate", "facility_w", "ideal", "machine", "money", "performance", "prefill_step", "stack", "token_step",
    "total_cost", "worst_slack",
]  # fmt: skip

T = TypeVar("T")
TIME_PARTS = tuple(f.name for f in fields(TimeParts))
SMALL = 256  # elements of a grid below which compiling takes most of the time


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
    host_byte: Number | None = None  # of cache in the host's memory, one chip's share
    host_usd: Number | None = None  # of the memory that holds it


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
    host_byte_per_chip: Number | None = None  # cache in the host's memory
    quality: Number | None = None  # as stated by the user
    usd_per_million_adjusted_token: Number | None = None  # output tokens weighed by that

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``dse eval``: plain numbers, names instead of codes, ``None`` where a key does not apply."""
        from dse.present import metrics_dict

        return metrics_dict(self)


# --- performance -----------------------------------------------------------------------------------------------------------


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
    layout = cut.planned(layout, workload)
    if prefill_layout is not None:
        prefill_layout = cut.planned(prefill_layout, workload)
    asked = layout.format if layout.format is not None else default_format(chip, model.native)
    memory, kv = memory_parts(chip, model, workload, layout, asked, mode)  # type: ignore[arg-type]
    outside = host_byte(chip, model, workload, layout, asked, mode)  # type: ignore[arg-type]
    mc = machine(chip, model, layout, kv)
    isl, osl, fresh = workload.input_tokens, workload.output_tokens, cut.fresh_tokens(workload)
    context = isl if mode == "decode" else isl + osl / 2.0
    apart = mode == "disaggregated"
    plan = layout if prefill_layout is None or not apart else prefill_layout
    prompts = 1.0 if apart and arrivals is not None else prompts_together(chip, workload, layout, plan, mode)
    other = prefill_chip if apart else None
    first = chip if other is None else other
    pre_memory, pre_kv = None, kv
    if other is not None or plan is not layout:
        at_once = replace(plan, batch=prompts * cut.one(plan.dp), offload=None)
        form = plan.format if plan.format is not None else default_format(first, model.native)
        pre_memory, pre_kv = memory_parts(first, model, workload, at_once, form, "prefill")  # type: ignore[arg-type]
    pre_mc = mc if plan is layout and other is None else machine(first, model, plan, pre_kv)
    if arrivals is not None:
        stream, most, spare = stream_of(mc, model, workload, layout, memory, kv, arrivals, (pre_mc, plan) if apart else None)
        waits = queueing.everywhere(stream)
        full, layout = layout, replace(layout, batch=waits.concurrency * cut.one(layout.dp))
        context = isl + osl * (1.0 + arrivals.output_cv**2) / 2.0
        if not apart:
            plan = layout
            prompts = prompts_together(chip, workload, layout, plan, mode)
    step = token_step(mc, model, workload, layout, context, kv)
    pre = prefill_step(pre_mc, model, workload, plan, prompts)
    chips = cut.instance_chips(layout)
    served = prompts if workload.samples is None else prompts * workload.samples  # answers that one prefill is for
    passes = Passes(decode=step, prefill=pre, prompts=served, per_request_s=pre.stage_s / served, plan=plan, chips=chips, other=other)
    if arrivals is None:
        loop = MODES[mode](chip, workload, layout, passes, model, mc.fmt)
    else:
        loop = open_loop(chip, workload, layout, passes, stream, waits, most if apart else None)
        passes = replace(passes, decode=replace(step, time=scale(waits.step_s / step.time.total, step.time)))
    zero = jnp.zeros_like(step.time.total + pre.time.total)  # one shape for all, whatever the mode leaves out
    seen = None
    if arrivals is not None:
        stages, fixed = depth(chip, model, full), loop.ttft_s - waits.ttft_s
        seen = arrived(workload, full, arrivals, stream, most, spare, waits, fixed, stages)
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
        slack=slack_parts(chip, model, layout, memory, outside)
        if pre_memory is None
        else both_slacks(chip, first, model, layout, plan, memory, pre_memory, outside),
        host_byte=outside,
        host_usd=None if layout.offload is None or outside is None else outside * layout.offload.usd_per_byte,
        prefill_chips=loop.prefill_chips,
        prefill_w=None if loop.prefill_w is None or other is None else loop.prefill_w / cut.one(loop.prefill_chips) + other.static_w,
        format=mc.fmt,
        arrivals=seen,
    )


def money(chip: Chip, prices: Prices, p: Performance, prefill_chip: Chip | None = None) -> CostParts:
    """USD per second of serving, by part, of one owner; chips of both kinds where another kind prefills."""
    if p.prefill_chips is None or prefill_chip is None:
        return finance.cost_parts(chip, prices, p.chips, p.decode_chips, p.mean_w, p.host_usd)
    decode = finance.cost_parts(chip, prices, p.chips - p.prefill_chips, p.decode_chips, p.mean_w, p.host_usd)
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


def worst_slack(slack: SlackParts | Slacks) -> Number:
    """The tightest of all limits, those of a deployment or of a chip alone [1]."""
    return functools.reduce(jnp.minimum, (getattr(slack, f.name) for f in fields(slack)))


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
    per_token = cost / jnp.maximum(p.output_token_per_s, TINY) * per_million
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
        usd_per_million_output_token=per_token,
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
        host_byte_per_chip=p.host_byte,
        quality=d.quality,
        usd_per_million_adjusted_token=None if d.quality is None else per_token / jnp.maximum(d.quality, TINY),
    )


def as_floats(tree: T) -> T:
    """Plain numbers and integer arrays become float64 (promotion is strict inside); float arrays keep their precision."""

    def convert(x):
        if isinstance(x, (bool, int, float)):
            return np.float64(x)
        return x * 1.0 if hasattr(x, "dtype") and np.issubdtype(x.dtype, np.integer) else x

    return jax.tree.map(convert, tree)


_jitted = quickly(_evaluate, most=SMALL)


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
    return _jitted(replace(d, model=cut.trimmed(d.model), workload=_trimmed(d.workload), layout=layout))


def _trimmed(workload: Workload) -> Workload:
    guess = workload.speculation
    if guess is None or guess.draft is None:
        return workload
    return replace(workload, speculation=replace(guess, draft=cut.trimmed(guess.draft)))


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
