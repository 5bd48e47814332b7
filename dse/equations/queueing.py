r"""How long do users wait when requests arrive at random? Mean and percentiles of TTFT and TPOT of continuous batching, in closed form.

The instance is a processor-sharing queue whose speed depends on how many requests it holds: with :math:`n` of them decoding a step takes
:math:`D(n)`, and a share :math:`\rho` of the time goes to the prefills of newcomers. Such a queue is insensitive: the number of requests
follows from the *mean* length of an answer alone,

.. math:: \pi(n) \propto \prod_{k=1}^{n} \frac{\lambda\,(\bar s - 1)\,D(k)}{(1-\rho)\,k}

up to the slots; beyond them newcomers wait (geometric tail; ``crowd``). Prefills wait for the step that runs and for those before them
(M/G/1 with vacations). Spread of lengths enters through quadrature over lognormal lengths. Tails: a sum of many prompts is a gamma
variable, and a prompt so long that few answers meet one is counted by itself (one large jump). Percentiles are solved by bisection of
fixed length. ``reports/serving`` compares all of it with a simulation.

References: kleinrock1975, bonald-proutiere-2003, wilson-hilferty-1931, foss-2013
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import erfc

from dse.equations.crowd import BUSIEST, COUNTS, Ahead, Crowd, Stream, counts, crowd
from dse.equations.quantiles import LENGTHS, QUANTILES, STEEP, gamma_above, length_weights, lengths, quantile
from dse.equations.smooth import TINY
from dse.types import Number, pytree

__all__ = ["COUNTS", "LENGTHS", "QUANTILES", "Ahead", "Stream", "Waits", "counts", "everywhere", "length_weights", "lengths", "waits"]

ROUNDS = 4  # of the fixed point between load by prefills and concurrency
LARGE = 3.0  # standard deviations of a step over its mean that a long one has
FAR = 40.0  # standard deviations above the mean at which it starts
SELDOM = 0.03  # probability of meeting a prompt as long or longer, below which it is counted by itself
PARTS = (0.5 - 0.75**0.5 / 3.0, 0.5 + 0.75**0.5 / 3.0)  # of a prompt that are left to do: Gauss' two points, of equal weight
STRAIGHT = 1e-2  # skewness, or age over life, below which its formula would lose digits


@pytree()
class Waits:
    """What users see: means [s], percentiles (leading axis ``QUANTILES``) [s], and how full the rank is."""

    tpot_s: Number
    ttft_s: Number  # without the fixed part of the host
    tpot_quantile_s: Number
    ttft_quantile_s: Number
    concurrency: Number  # requests decoding at the same time, mean
    prefill_share: Number  # of the time
    full: Number  # probability that a newcomer finds no slot
    step_s: Number  # decoding step, mean over tokens


def waits(q: Stream) -> Waits:
    """Mean and percentiles of the time to first token and per output token at an arrival rate."""
    weights = length_weights(q.prefill_s)
    marginal = jnp.clip(q.pair_s - q.prefill_s, 0.0, q.prefill_s)
    fixed = q.prefill_s - marginal  # shared by prompts that go together

    def mean_of(values: Number) -> Number:
        return jnp.sum(weights * values, axis=0)

    chunks = mean_of(q.prompt_tokens) / q.chunk_tokens
    single = jnp.minimum(chunks, 1.0)  # prompts of one chunk are few: what they share is paid by each

    def once(together: Number, backlog: Number, entry: Number) -> tuple[Number, Crowd, First, Answers]:
        share = jnp.minimum(q.rate_per_s * mean_of(marginal + fixed * together), BUSIEST)
        c = crowd(q, share, backlog, entry)
        f = first(q, c, marginal + fixed * single, mean_of(fixed) * (1.0 - single), chunks, weights)
        return share, c, f, answers(q, c, f, share)

    def improve(_: Number, known: tuple[Any, Any]) -> tuple[Any, Any]:
        found = once(*known[0])
        _, _, f, t = found
        company = jnp.maximum(jnp.minimum(q.rate_per_s * f.seen_s, 1.0 / chunks), TINY)  # prompts beside one's own in a step
        return (-jnp.expm1(-company) / company, t.sat_out_s, mean_of(f.own_s) + 2.0 * f.behind_s), found

    nothing = jnp.zeros_like(mean_of(fixed) * q.rate_per_s * q.output_tokens)
    guess = nothing + 1.0, nothing, nothing
    blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(once, *guess))
    share, c, f, t = jax.lax.fori_loop(0, ROUNDS + 1, improve, (guess, blank))[1]  # the last round answers; compiled once
    if q.ahead is not None:
        f = after(f, q.ahead, weights)
    return Waits(
        tpot_s=t.token_s,
        ttft_s=mean_of(f.own_s) + f.mean_s + c.full * f.slot_s,
        tpot_quantile_s=_token_quantile(t),
        ttft_quantile_s=_first_quantile(c, f, weights),
        concurrency=c.mean,
        prefill_share=share,
        full=c.full,
        step_s=c.token_step_s,
    )


def everywhere(q: Stream) -> Waits:
    """``waits`` for any broadcasting shape of deployments."""
    axes = LEADING if q.ahead is None else replace(LEADING, ahead=Ahead(load=0, service_s=1, own_s=1))
    if q.uneven is not None:
        axes = replace(axes, uneven=0)
    if q.rise_s is not None:
        axes = replace(axes, rise_s=1)
    shape = jnp.broadcast_shapes(*(jnp.shape(x)[n:] for x, n in zip(jax.tree.leaves(q), jax.tree.leaves(axes), strict=True)))

    def flat(x: Number, leading: int) -> Number:
        return jnp.moveaxis(jnp.reshape(jnp.broadcast_to(x, jnp.shape(x)[:leading] + shape), (*jnp.shape(x)[:leading], -1)), -1, 0)

    found = jax.vmap(waits)(jax.tree.map(flat, q, axes))
    return jax.tree.map(lambda y: jnp.reshape(jnp.moveaxis(y, 0, -1), (*jnp.shape(y)[1:], *shape)), found)


LEADING = Stream(
    rate_per_s=0, slots=0, output_tokens=0, output_cv=0, step_s=1, prefill_s=1, pair_s=1, prompt_tokens=1, chunk_tokens=0
)  # axes before those of the deployments


@pytree()
class Cycle:
    """Steps of a rank: every prompt that arrives in one is prefilled in the next."""

    seen_s: Number  # length of the step that a newcomer meets, longer than the mean step
    seen_s2: Number  # its variance
    busy: Number  # share of the time in steps with prompts
    load: Number  # share of the time that is prefill
    gain: Number  # prefill time that a second of delay brings, at the margin
    met_s: Number  # variance of the prefill time that arrives in a second [s^2/s]
    met_s2: Number  # its third cumulant [s^3/s]


def cycle(rate_per_s: Number, decode_s: Number, fixed_s: Number, p1: Number, p2: Number, p3: Number) -> Cycle:
    r"""Lengths of steps: decoding, a fixed part where any prompt is in the step, and a part of each prompt.

    The number of prompts is Poisson with mean :math:`\lambda L`, L the step before; L's cumulants follow from those of the sum.

    Args:
        decode_s: Of a step [s]. fixed_s: Shared by the prompts of a step [s]. p1, p2, p3: Moments of what one more adds [s, s^2, s^3].
    """
    own = jnp.minimum(rate_per_s * p1, BUSIEST)
    mean = decode_s / (1.0 - own)
    for _ in range(ROUNDS):
        mean = (decode_s + fixed_s * -jnp.expm1(-rate_per_s * mean)) / (1.0 - own)
    mean = jnp.maximum(mean, TINY)
    m = rate_per_s * mean
    some = -jnp.expm1(-m)
    y1 = m * p1
    y2, y3 = m * p2 + y1**2, m * p3 + 3.0 * y1 * m * p2 + y1**3
    x1 = fixed_s * some + y1
    x2 = fixed_s**2 * some + 2.0 * fixed_s * y1 + y2
    x3 = fixed_s**3 * some + 3.0 * fixed_s**2 * y1 + 3.0 * fixed_s * y2 + y3
    variance, third = x2 - x1**2, x3 - 3.0 * x1 * x2 + 2.0 * x1**3
    gain = jnp.minimum(own + rate_per_s * fixed_s * jnp.exp(-m), BUSIEST)
    wide = variance / (1.0 - gain**2)
    skew = (third + 3.0 * gain * variance / mean * wide) / (1.0 - gain**3)
    return Cycle(
        seen_s=mean + wide / mean,
        seen_s2=jnp.maximum(skew / mean + wide - (wide / mean) ** 2, 0.0),
        busy=jnp.minimum((some * decode_s + x1) / mean, BUSIEST),
        load=x1 / mean,
        gain=gain,
        met_s=variance / mean,
        met_s2=third / mean,
    )


def seldom(met: Number) -> Number:
    """Which prompts, shortest first, are met so seldom that two of them at a time need not be counted: 1 those, 0 the others.

    >>> import jax.numpy as jnp
    >>> [round(float(x), 3) for x in seldom(jnp.asarray([0.5, 0.02, 0.001]))]
    [0.0, 0.613, 0.999]
    """
    longer = jnp.flip(jnp.cumsum(jnp.flip(met, axis=0), axis=0), axis=0)
    return jnp.exp(-((longer / SELDOM) ** 2))


@pytree()
class First:
    """Parts of the time to first token, and what they leave behind for the tokens after it."""

    own_s: Number  # (LENGTHS, ...) own prefill and the decoding of others beside it
    mean_s: Number  # wait for the running step and the prompts ahead, and prompts in the same step behind
    variance_s2: Number
    quiet_s: Number  # the same wait where the running step has no prompts: mean, variance
    quiet_s2: Number
    quiet: Number  # probability of that
    slot_s: Number  # wait for a slot of those who find none
    seen_s: Number  # step that a newcomer meets
    share: Number  # of the time in prefills, without what is shared by those of one step
    left_s: Number  # prefills of others that wait when the first token is out
    left_s2: Number  # variance of that
    chunk_s: Number  # prefill of a full chunk
    behind_s: Number  # prompts behind in the same step
    met_s: Number  # variance of the prefills that arrive in a second [s^2/s]
    met_s2: Number  # their third cumulant [s^3/s]
    whole_s: Number  # mean of own part and wait
    added_s: Number  # (LENGTHS, ...) to a step by one prompt of each length
    met_per_s: Number  # (LENGTHS, ...) prompts of each length that come while others decode
    rare: Number  # (LENGTHS, ...) probability of finding a rare long prompt of each length at work
    rare_s: Number  # (LENGTHS, ...) for which it is at work


def first(q: Stream, c: Crowd, added_s: Number, fixed_s: Number, chunks: Number, weights: Number) -> First:
    """What a newcomer waits for before its first token.

    Args:
        added_s: What one more prompt adds to a step, by length. fixed_s: What a step with prompts takes beside that.
        chunks: Mean prompt over the chunk.
    """
    p1, p2, p3 = (jnp.sum(weights * added_s**i, axis=0) for i in (1, 2, 3))
    load = jnp.minimum(q.rate_per_s * (p1 + c.step_s * chunks), BUSIEST)
    share = jnp.minimum(q.rate_per_s * p1, BUSIEST)
    y = cycle(q.rate_per_s, c.step_s, fixed_s, p1, p2, p3)
    few = 1.0 - c.full  # who waited for a slot finds no prompts ahead; where slots are full, prompts enter as others leave
    base = c.step_s + fixed_s * -jnp.expm1(-q.rate_per_s * c.step_s / (1.0 - share))
    served = added_s + c.step_s * q.prompt_tokens / q.chunk_tokens  # with the decoding beside each chunk
    s2, s3 = (jnp.sum(weights * served**i, axis=0) for i in (2, 3))
    queue = q.rate_per_s * s2 / (2.0 * (1.0 - load)) * few
    residual = base / 2.0
    chunk = p1 / jnp.maximum(chunks, TINY)
    behind = 1.0 / (2.0 / jnp.maximum(share * y.seen_s, TINY) + 2.0 / chunk)
    own = q.prefill_s + c.step_s * jnp.maximum(q.prompt_tokens / q.chunk_tokens, 1.0)
    half = 0.5 + share
    per_s = q.rate_per_s * weights
    found = per_s * served / (1.0 - load)
    alone = jnp.minimum(chunks, 1.0)  # few prompts a chunk: one after the other; many: all go together after the running step
    mean = alone * (queue + residual + behind) + (1.0 - alone) * half * y.seen_s
    gated = (y.seen_s2 + y.seen_s**2) / 12.0 + q.rate_per_s * p2 * y.seen_s + half**2 * y.seen_s2
    single = queue**2 + q.rate_per_s * s3 / (3.0 * (1.0 - load)) * few + (residual**2 + behind**2) / 3.0 + behind / p1 * p2
    variance = alone * single + (1.0 - alone) * gated
    whole = jnp.sum(weights * own, axis=0)
    own_variance = jnp.sum(weights * own * own, axis=0) - whole**2
    left = jnp.maximum(y.load * (whole + mean) - behind, 0.0) * few
    quiet_s = half * c.step_s
    return First(
        own_s=own,
        mean_s=mean,
        variance_s2=variance,
        slot_s=c.wait_s,
        quiet_s=quiet_s,
        quiet_s2=c.step_s**2 / 12.0 + q.rate_per_s * p2 * c.step_s,
        quiet=1.0 - jnp.clip(alone * load + (1.0 - alone) * y.busy, STRAIGHT, BUSIEST),
        seen_s=y.seen_s,
        share=y.gain,
        left_s=left,
        left_s2=(share**2 * (variance + own_variance) + y.met_s * (whole + mean)) * few,
        chunk_s=chunk,
        behind_s=behind,
        met_s=y.met_s * few**2,
        met_s2=y.met_s2 * few**3,
        whole_s=whole + mean,
        added_s=added_s,
        met_per_s=per_s * few**2,
        rare=alone * few * seldom(found) * found,
        rare_s=served,
    )


def after(f: First, ahead: Ahead, weights: Number) -> First:
    r"""The time to first token where prompts pass a rank of their own before: its wait by Pollaczek and Khinchine.

    .. math:: W = \frac{\rho\,E[S^2]}{2\,E[S]\,(1-\rho)},\quad Var(W) = W^2 + \frac{\rho\,E[S^3]}{3\,E[S]\,(1-\rho)}

    References: kleinrock1975
    """
    s1, s2, s3 = (jnp.sum(weights * ahead.service_s**i, axis=0) for i in (1, 2, 3))
    busy = jnp.clip(ahead.load, STRAIGHT, BUSIEST)
    wait = busy * s2 / (2.0 * s1 * (1.0 - busy))
    variance = wait**2 + busy * s3 / (3.0 * s1 * (1.0 - busy))
    found = busy / s1 * weights * ahead.service_s / (1.0 - busy)
    return replace(
        f,
        rare=seldom(found) * found,
        rare_s=ahead.service_s,
        own_s=f.own_s + ahead.own_s,
        mean_s=f.mean_s + wait,
        variance_s2=f.variance_s2 + variance,
        quiet_s=f.mean_s,
        quiet_s2=f.variance_s2,
        quiet=1.0 - busy,
    )


@pytree()
class Answers:
    """Time per token of requests by the length of their answer (leading axis ``LENGTHS``)."""

    weights: Number
    mean_s: Number  # without the rare long prompts, as the next two
    variance_s2: Number
    third_s3: Number  # third cumulant
    rare: Number  # (LENGTHS of prompts, LENGTHS of answers, ...) how many rare long prompts an answer meets
    rare_s: Number  # what one adds to the time per token
    most_s: Number  # a step with a full chunk
    token_s: Number  # mean over requests of their time per token
    sat_out_s: Number  # decoding time lost to prefills that waited at the first token, mean over requests


def answers(q: Stream, c: Crowd, f: First, share: Number) -> Answers:
    r"""Time per token: long answers average over what short ones meet, and every answer sits out the prefills behind its own.

    The time for s steps with prefills arriving meanwhile is a first passage. A second of prefill, by what arrives in it and so on, grows
    to :math:`g = (1 - \rho^s) / (1 - \rho)`: what arrives in the last step comes after the answer. Mean
    :math:`s D / (1 - \rho) + (left - \rho D / (1 - \rho))\, g`, variance :math:`\lambda E[P^2] t g^2`, of :math:`P` without the
    prompts that are counted by themselves. No step is longer than one with a full chunk.
    """
    steps = jnp.maximum(lengths(q.output_tokens, q.output_cv) - 1.0, 1.0)
    weights = length_weights(steps)
    rest = 1.0 / (1.0 - share)
    grown = (1.0 - jnp.maximum(f.share, TINY) ** steps) / (1.0 - f.share)
    step_s = c.token_step_s * rest
    time = steps * step_s + (f.left_s - share * step_s) * grown
    during = jnp.maximum(time - step_s, TINY)  # prompts that come then are sat out
    life = (q.output_tokens - 1.0) * step_s * (1.0 + q.output_cv**2) / 2.0 / (1.0 - c.stiffness)
    x = jnp.maximum(time / life, STRAIGHT)
    averaged = 2.0 * (jnp.expm1(-x) + x) / (x * x)
    least = (STEEP * c.token_step_s) ** 2
    variance = c.token_var * averaged * rest**2 + (f.met_s * during + f.left_s2) * grown**2 / steps**2 + least
    most = c.token_step_s + LARGE * jnp.sqrt(c.token_var) + f.chunk_s
    spread = jnp.sqrt(variance)
    z = (most - time / steps) / spread
    above = erfc(z / jnp.sqrt(2.0)) / 2.0
    mean = time / steps * (1.0 - above) + most * above - spread * jnp.exp(-z * z / 2.0) / jnp.sqrt(2.0 * jnp.pi)
    whole = jnp.sum(weights * mean * steps, axis=0)
    met = f.met_per_s[:, None] * (during + f.whole_s)[None]
    apart = seldom(met)
    adds = f.added_s[:, None] * (grown / steps)[None]
    left = [jnp.sum(apart * (f.met_per_s * f.added_s**i)[:, None], axis=0) for i in (2, 3)]
    met_s, met_s2 = f.met_s - left[0], f.met_s2 - left[1]
    return Answers(
        weights=weights,
        mean_s=time / steps - jnp.sum(apart * met * adds, axis=0),
        variance_s2=jnp.maximum(variance - jnp.sum(apart * met * adds**2, axis=0), least),
        third_s3=jnp.maximum((met_s2 * grown**3 + 3.0 * met_s**2 * grown**4) * during / steps**3, 0.0),
        rare=apart * met,
        rare_s=jnp.minimum(adds, f.chunk_s),
        most_s=most,
        token_s=jnp.sum(weights * mean, axis=0),
        sat_out_s=jnp.maximum(whole / rest - jnp.sum(weights * steps, axis=0) * c.token_step_s, 0.0),
    )


def _token_quantile(t: Answers) -> Number:
    """Percentiles of the mean time per token of one request."""
    skew = t.third_s3 / jnp.maximum(t.variance_s2, TINY) ** 1.5
    scale = jnp.sqrt(t.variance_s2) * jnp.maximum(skew, STRAIGHT) / 2.0
    shift = t.mean_s - t.variance_s2 / scale
    usual_mean, usual_var = (t.mean_s - shift)[None], t.variance_s2[None]
    rare = jnp.sum(t.rare, axis=0)
    some = -jnp.expm1(-rare) / jnp.maximum(rare, TINY)

    def above(x: Number) -> Number:
        over = x[:, None] - shift[None]
        jumps = jnp.sum(t.rare[None] * gamma_above(over[:, None] - t.rare_s[None], usual_mean[None], usual_var[None]), axis=1)
        none = jnp.exp(-rare)[None] * gamma_above(over, usual_mean, usual_var)
        return jnp.sum(t.weights[None] * (none + some[None] * jumps), axis=1)

    middle = jnp.sum(t.weights * t.mean_s, axis=0)
    return jnp.minimum(quantile(above, middle / FAR, middle + FAR * jnp.sqrt(jnp.max(t.variance_s2, axis=0))), t.most_s)


def _first_quantile(c: Crowd, f: First, weights: Number) -> Number:
    """Percentiles of the time to first token: own length by quadrature, a rare long prompt at work, waits by their mean and variance."""
    rare = jnp.sum(f.rare, axis=0)
    mean = f.mean_s - jnp.sum(f.rare * f.rare_s, axis=0) / 2.0
    variance = jnp.maximum(f.variance_s2 - jnp.sum(f.rare * f.rare_s**2, axis=0) / 3.0, f.quiet_s2)
    some = 1.0 - f.quiet
    behind = jnp.maximum((mean - f.quiet * f.quiet_s) / some, f.quiet_s)
    square = (variance + mean**2 - f.quiet * (f.quiet_s2 + f.quiet_s**2)) / some - behind**2
    spread = jnp.maximum(square, f.quiet_s2)

    def usual(t: Number) -> Number:
        return f.quiet * gamma_above(t, f.quiet_s, f.quiet_s2) + some * gamma_above(t, behind, spread)

    def above(t: Number) -> Number:
        left = t[:, None] - f.own_s[None]
        jumps = [jnp.sum(f.rare[None, None] * usual(left[:, :, None] - part * f.rare_s[None, None]), axis=2) for part in PARTS]
        free = (1.0 - rare) * usual(left) + sum(jumps) / len(PARTS)
        waiting = gamma_above(left, f.mean_s + f.slot_s, f.variance_s2 + c.wait_s2)
        return jnp.sum(weights[None] * ((1.0 - c.full) * free + c.full * waiting), axis=1)

    longest = jnp.max(f.own_s, axis=0) + f.mean_s + f.slot_s + FAR * (jnp.sqrt(f.variance_s2) + f.slot_s)
    return quantile(above, jnp.min(f.own_s, axis=0), longest)
