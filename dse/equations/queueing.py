r"""How long do users wait when requests arrive at random? Mean and percentiles of TTFT and TPOT of continuous batching, in closed form.

The instance is a processor-sharing queue whose speed depends on how many requests it holds: with :math:`n` of them decoding a step takes
:math:`D(n)`, and a share :math:`\rho` of the time goes to the prefills of newcomers. Such a queue is insensitive: the number of requests
follows from the *mean* length of an answer alone,

.. math:: \pi(n) \propto \prod_{k=1}^{n} \frac{\lambda\,(\bar s - 1)\,D(k)}{(1-\rho)\,k}

up to the slots; beyond them newcomers wait (geometric tail). Prefills wait for the step that runs and for those before them (M/G/1 with
vacations). Spread of lengths enters through quadrature over lognormal lengths; percentiles are solved by bisection of fixed length.

References: kleinrock1975, bonald-proutiere-2003, wilson-hilferty-1931
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import erfc

from dse.equations.crowd import BUSIEST, COUNTS, Crowd, Stream, counts, crowd
from dse.equations.quantiles import LENGTHS, QUANTILES, STEEP, gamma_above, length_weights, lengths, quantile
from dse.equations.smooth import TINY
from dse.types import Number, pytree

__all__ = ["COUNTS", "LENGTHS", "QUANTILES", "Stream", "Waits", "counts", "everywhere", "length_weights", "lengths", "waits"]

ROUNDS = 4  # of the fixed point between load by prefills and concurrency
FAR = 40.0  # standard deviations above the mean at which it starts
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

    def improve(_: Number, guess: tuple[Number, ...]) -> tuple[Number, ...]:
        _, _, f, t = once(*guess)
        company = jnp.maximum(jnp.minimum(q.rate_per_s * f.seen_s, 1.0 / chunks), TINY)  # prompts beside one's own in a step
        return -jnp.expm1(-company) / company, t.sat_out_s, mean_of(f.own_s) + 2.0 * f.behind_s

    nothing = jnp.zeros_like(mean_of(fixed) * q.rate_per_s * q.output_tokens)
    share, c, f, t = once(*jax.lax.fori_loop(0, ROUNDS, improve, (nothing + 1.0, nothing, nothing)))
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
    shape = jnp.broadcast_shapes(*(jnp.shape(x)[n:] for x, n in zip(jax.tree.leaves(q), jax.tree.leaves(LEADING), strict=True)))

    def flat(x: Number, leading: int) -> Number:
        return jnp.moveaxis(jnp.reshape(jnp.broadcast_to(x, jnp.shape(x)[:leading] + shape), (*jnp.shape(x)[:leading], -1)), -1, 0)

    found = jax.vmap(waits)(jax.tree.map(flat, q, LEADING))
    return jax.tree.map(lambda y: jnp.reshape(jnp.moveaxis(y, 0, -1), (*jnp.shape(y)[1:], *shape)), found)


LEADING = Stream(
    rate_per_s=0, slots=0, output_tokens=0, output_cv=0, step_s=1, prefill_s=1, pair_s=1, prompt_tokens=1, chunk_tokens=0
)  # axes before those of the deployments


@pytree()
class First:
    """Parts of the time to first token, and what they leave behind for the tokens after it."""

    own_s: Number  # (LENGTHS, ...) own prefill and the decoding of others beside it
    mean_s: Number  # wait for the running step and the prompts ahead, and prompts in the same step behind
    variance_s2: Number
    slot_s: Number  # wait for a slot of those who find none
    seen_s: Number  # step that a newcomer meets
    share: Number  # of the time in prefills, without what is shared by those of one step
    left_s: Number  # prefills of others that wait when the first token is out
    left_s2: Number  # variance of that
    chunk_s: Number  # prefill of a full chunk
    behind_s: Number  # prompts behind in the same step
    met_s: Number  # variance of the prefills that arrive in a second [s^2/s]
    met_s2: Number  # their third cumulant [s^3/s]


def first(q: Stream, c: Crowd, added_s: Number, fixed_s: Number, chunks: Number, weights: Number) -> First:
    """What a newcomer waits for before its first token.

    Args:
        added_s: What one more prompt adds to a step, by length. fixed_s: What a step with prompts takes beside that.
        chunks: Mean prompt over the chunk.
    """
    p1, p2, p3 = (jnp.sum(weights * added_s**i, axis=0) for i in (1, 2, 3))
    load = jnp.minimum(q.rate_per_s * (p1 + c.step_s * chunks), BUSIEST)
    share = jnp.minimum(q.rate_per_s * p1, BUSIEST)
    few = 1.0 - c.full  # who waited for a slot finds no prompts ahead
    base = c.step_s + fixed_s * -jnp.expm1(-q.rate_per_s * c.step_s / (1.0 - share))
    queue = q.rate_per_s * p2 / (2.0 * (1.0 - load)) * few
    residual = base * (1.0 + load) / (2.0 * (1.0 - load))
    seen = base / (1.0 - share) + q.rate_per_s * p2 / (1.0 - share**2)  # longer than the mean step
    chunk = p1 / jnp.maximum(chunks, TINY)
    behind = 1.0 / (2.0 / jnp.maximum(share * seen, TINY) + 2.0 / chunk)
    own = q.prefill_s + c.step_s * jnp.maximum(q.prompt_tokens / q.chunk_tokens, 1.0)
    mean = queue + residual + behind
    step = base / (1.0 - share)
    step_var = q.rate_per_s * p2 * step / (1.0 - share**2)
    step_third = (q.rate_per_s * p3 * step + 3.0 * share * q.rate_per_s * p2 * step_var) / (1.0 - share**3)
    seen_var = jnp.maximum(step_third / step + step_var - (step_var / step) ** 2, 0.0)
    half = 0.5 + share
    gate_var = (seen_var + seen**2) / 12.0 + q.rate_per_s * p2 * seen + half**2 * seen_var
    gated = gate_var * (mean / (half * seen)) ** 2  # many prompts a chunk: all go together after the running step
    single = queue**2 + q.rate_per_s * p3 / (3.0 * (1.0 - load)) * few + (residual**2 + behind**2) / 3.0 + behind / p1 * p2
    alone = jnp.minimum(2.0 * chunks, 1.0)  # few: one after the other
    variance = alone * single + (1.0 - alone) * gated
    whole = jnp.sum(weights * own, axis=0)
    own_variance = jnp.sum(weights * own * own, axis=0) - whole**2
    left = jnp.maximum(share * (whole + mean) - behind, 0.0) * few
    return First(
        own_s=own,
        mean_s=mean,
        variance_s2=variance,
        slot_s=c.wait_s,
        seen_s=seen,
        share=share,
        left_s=left,
        left_s2=(share**2 * (variance + own_variance) + q.rate_per_s * p2 * (whole + mean)) * few,
        chunk_s=chunk,
        behind_s=behind,
        met_s=q.rate_per_s * p2 * few,
        met_s2=q.rate_per_s * p3 * few,
    )


@pytree()
class Answers:
    """Time per token of requests by the length of their answer (leading axis ``LENGTHS``)."""

    weights: Number
    mean_s: Number
    variance_s2: Number
    third_s3: Number  # third cumulant
    most_s: Number  # a step with a full chunk
    token_s: Number  # mean time per token
    sat_out_s: Number  # decoding time lost to prefills that waited at the first token, mean over requests


def answers(q: Stream, c: Crowd, f: First, share: Number) -> Answers:
    r"""Time per token: long answers average over what short ones meet, and every answer sits out the prefills behind its own.

    The time for s steps with prefills arriving meanwhile is a first passage: mean :math:`(s D + left) / (1 - \rho)`, variance
    :math:`\lambda E[P^2] t / (1 - \rho)^2`. No step is longer than one with a full chunk.
    """
    steps = jnp.maximum(lengths(q.output_tokens, q.output_cv) - 1.0, 1.0)
    weights = length_weights(steps)
    free, rest = 1.0 / (1.0 - f.share), 1.0 / (1.0 - share)
    time = steps * c.token_step_s * rest + f.left_s * free
    life = (q.output_tokens - 1.0) * c.token_step_s * rest * (1.0 + q.output_cv**2) / 2.0 / (1.0 - c.stiffness)
    x = jnp.maximum(time / life, STRAIGHT)
    averaged = 2.0 * (jnp.expm1(-x) + x) / (x * x)
    variance = c.token_var * averaged * rest**2 + (f.met_s * time + f.left_s2) * free**2 / steps**2 + (STEEP * c.token_step_s) ** 2
    third = (f.met_s2 * free**3 + 3.0 * f.met_s**2 * free**4) * time / steps**3
    most = c.token_step_s + f.chunk_s
    spread = jnp.sqrt(variance)
    z = (most - time / steps) / spread
    above = erfc(z / jnp.sqrt(2.0)) / 2.0
    mean = time / steps * (1.0 - above) + most * above - spread * jnp.exp(-z * z / 2.0) / jnp.sqrt(2.0 * jnp.pi)
    whole = jnp.sum(weights * mean * steps, axis=0)
    return Answers(
        weights=weights,
        mean_s=time / steps,
        variance_s2=variance,
        third_s3=third,
        most_s=most,
        token_s=whole / jnp.sum(weights * steps, axis=0),
        sat_out_s=jnp.maximum(whole / rest - jnp.sum(weights * steps, axis=0) * c.token_step_s, 0.0),
    )


def _token_quantile(t: Answers) -> Number:
    """Percentiles of the mean time per token of one request."""
    skew = t.third_s3 / jnp.maximum(t.variance_s2, TINY) ** 1.5
    scale = jnp.sqrt(t.variance_s2) * jnp.maximum(skew, STRAIGHT) / 2.0
    shift = t.mean_s - t.variance_s2 / scale

    def above(x: Number) -> Number:
        return jnp.sum(t.weights[None] * gamma_above(x[:, None] - shift[None], (t.mean_s - shift)[None], t.variance_s2[None]), axis=1)

    middle = jnp.sum(t.weights * t.mean_s, axis=0)
    return jnp.minimum(quantile(above, middle / FAR, middle + FAR * jnp.sqrt(jnp.max(t.variance_s2, axis=0))), t.most_s)


def _first_quantile(c: Crowd, f: First, weights: Number) -> Number:
    """Percentiles of the time to first token: own length by quadrature, waits by their mean and variance."""

    def above(t: Number) -> Number:
        left = t[:, None] - f.own_s[None]
        free = gamma_above(left, f.mean_s, f.variance_s2)
        waiting = gamma_above(left, f.mean_s + f.slot_s, f.variance_s2 + f.slot_s**2)
        return jnp.sum(weights[None] * ((1.0 - c.full) * free + c.full * waiting), axis=1)

    longest = jnp.max(f.own_s, axis=0) + f.mean_s + f.slot_s + FAR * (jnp.sqrt(f.variance_s2) + f.slot_s)
    return quantile(above, jnp.min(f.own_s, axis=0), longest)
