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
from jax.scipy.special import erfc, gammaln

from dse.equations.smooth import TINY
from dse.types import Number, pytree

LENGTHS = 20  # quadrature nodes over a lognormal length
SHORTEST, LONGEST = -4.5, 5.0  # of them, in standard deviations of the logarithm
COUNTS = 17  # numbers of requests at which a step is evaluated, growing with the square
BETWEEN = 4  # of the finer grid over which probabilities are summed
ROUNDS = 4  # of the fixed point between load by prefills and concurrency
HALVINGS = 30  # of the bisection for a percentile
FAR = 40.0  # standard deviations above the mean at which it starts
STRAIGHT = 1e-2  # skewness, or age over life, below which its formula would lose digits
STEEP = 1e-3  # least relative width of a distribution
SMALLEST = 1e-9  # of a ratio under a root, whose slope is infinite at 0
BUSIEST = 0.995  # loads are held below this, so that the answer stays finite beyond saturation
QUANTILES = (0.5, 0.9, 0.99)


@pytree()
class Stream:
    """What one attention rank is asked to do and how long its steps take. Leading axes: lengths, or counts of requests."""

    rate_per_s: Number  # arrivals
    slots: Number  # requests at the same time at most
    output_tokens: Number  # mean
    output_cv: Number
    step_s: Number  # (COUNTS, ...) of decoding at ``counts(slots)``
    prefill_s: Number  # (LENGTHS, ...) of one prompt
    pair_s: Number  # (LENGTHS, ...) of two equal prompts together
    prompt_tokens: Number  # (LENGTHS, ...) that must be computed
    chunk_tokens: Number  # of a step at most


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


def _column(values, like: Number) -> Number:
    """Constants of the leading axis, shaped to broadcast with ``like``."""
    return jnp.reshape(jnp.asarray(values, jnp.result_type(like)), (-1,) + (1,) * (jnp.ndim(like)))


def _row(x: Number, like: Number) -> Number:
    """A number with a leading axis of one, of the rank that ``_column`` gives for ``like``."""
    return jnp.broadcast_to(x, jnp.shape(like))[None]


def _spread(cv: Number) -> Number:
    return jnp.sqrt(jnp.log1p(cv * cv))


def lengths(mean: Number, cv: Number) -> Number:
    """Lengths at the nodes of the quadrature over a lognormal distribution: leading axis ``LENGTHS`` [token].

    >>> import jax.numpy as jnp
    >>> x = lengths(jnp.asarray(1000.0), jnp.asarray(1.0))
    >>> w = length_weights(x)
    >>> round(float((w * x).sum()), 1), round(float((w * x**2).sum() / 1e6), 3)
    (1000.0, 2.0)
    """
    whole = mean * cv
    sigma = _row(_spread(cv), whole)
    z = _column(jnp.linspace(SHORTEST, LONGEST, LENGTHS), whole)
    return _row(mean, whole) * jnp.exp(sigma * z - sigma * sigma / 2.0)


def length_weights(like: Number) -> Number:
    """Probability of each node of ``lengths``; they sum to 1."""
    z = jnp.linspace(SHORTEST, LONGEST, LENGTHS)
    w = jnp.exp(-z * z / 2.0)
    return _column(w / jnp.sum(w), like[0])


def counts(slots: Number) -> Number:
    """Numbers of requests at which a decoding step must be known: leading axis ``COUNTS``, from 1 to half above the slots, by squares."""
    return _grid(slots, COUNTS) + 0.5


def _grid(slots: Number, points: int) -> Number:
    """Numbers of requests from a half to the slots, growing with the square: probabilities are summed between them."""
    x = _column(jnp.linspace(0.0, 1.0, points), slots)
    return 0.5 + _row(slots - 0.5, slots) * x * x


def _finer(table: Number) -> Number:
    """The table on a grid with ``BETWEEN`` steps for each of its own, by straight lines."""
    parts = [table[:-1] * (1.0 - i / BETWEEN) + table[1:] * (i / BETWEEN) for i in range(BETWEEN)]
    inner = jnp.reshape(jnp.stack(parts, axis=1), (-1, *table.shape[1:]))
    return jnp.concatenate([inner, table[-1:]])


@pytree()
class Crowd:
    """How many requests decode at the same time."""

    mean: Number
    full: Number  # probability of no free slot
    wait_s: Number  # mean wait for a slot of those who wait
    step_s: Number  # decoding step that an arrival meets (0 where nobody decodes)
    token_step_s: Number  # mean over tokens
    token_var: Number  # its variance over tokens
    stiffness: Number  # how strongly one more request slows the others, d log D / d log n


def crowd(q: Stream, prefill_share: Number, backlog_s: Number, entry_s: Number) -> Crowd:
    """Number of requests at the same time.

    Args:
        prefill_share: Of the time that prefills take. backlog_s: Of them that a request finds when its first token is out.
        entry_s: For which a request holds its slot before.
    """
    points = (COUNTS - 1) * BETWEEN + 1
    k = _grid(q.slots, points)
    log_step = _finer(jnp.log(jnp.maximum(q.step_s, TINY)))
    step = jnp.exp(log_step)
    held = jnp.log(step + backlog_s / jnp.maximum(q.output_tokens - 1.0, 1.0))
    log_a = jnp.log(q.rate_per_s * jnp.maximum(q.output_tokens - 1.0, TINY) / (1.0 - prefill_share))
    gap = k[1:] - k[:-1]
    area = jnp.cumsum(gap * (held[1:] + held[:-1]) / 2.0, axis=0)
    area = jnp.concatenate([jnp.zeros_like(area[:1]), area]) + held[:1] / 2.0
    log_p = k * log_a + area - gammaln(k + 1.0)
    top = jax.lax.stop_gradient(jnp.maximum(jnp.max(log_p, axis=0), 0.0))
    p, none = jnp.exp(log_p - top), jnp.exp(-top)  # of some requests, and of none
    x = _column(jnp.linspace(0.0, 1.0, points), q.slots)
    width = 2.0 * (q.slots - 0.5) * x / (points - 1)
    weight = jnp.concatenate([width[:-1], width[-1:] / 2.0 + 0.5])  # a sum over whole numbers from 1 to the slots
    mass = p * weight
    last = step[-1]
    ratio = jnp.minimum(jnp.exp(log_a + held[-1]) / q.slots, BUSIEST)
    wider = (1.0 + 1.0 / (1.0 - prefill_share) ** 2) / 2.0  # variance of the number: every prefill also delays departures
    flat, flat_none = jnp.exp((log_p - top) / wider), jnp.exp(-top / wider)
    flat_tail = flat[-1] * ratio / (1.0 - ratio)
    entering = jnp.minimum(q.rate_per_s * entry_s, q.slots / 2.0)  # slots of those that do not decode yet
    full = (flat[-1] + flat_tail) / (jnp.sum(flat * weight, axis=0) + flat_none + flat_tail) * ratio**-entering
    full = jnp.minimum(full, 1.0)
    filled = jnp.minimum(ratio * q.slots / (q.slots - entering), BUSIEST)
    tail = p[-1] * ratio / (1.0 - ratio)
    total = jnp.sum(mass, axis=0) + none + tail
    mean = (jnp.sum(mass * k, axis=0) + q.slots * tail) / total
    tokens, token_tail = mass * k / step, tail * q.slots / last
    through = jnp.sum(tokens, axis=0) + token_tail
    token_step = (jnp.sum(tokens * step, axis=0) + token_tail * last) / through
    token_var = (jnp.sum(tokens * step * step, axis=0) + token_tail * last * last) / through - token_step**2
    met = (jnp.sum(mass * step, axis=0) + tail * last) / total
    return Crowd(
        mean=mean,
        full=full,
        wait_s=filled / (q.rate_per_s * (1.0 - filled)) * (1.0 + filled * ((1.0 + q.output_cv**2) / 2.0 - 1.0)),
        step_s=met,
        token_step_s=token_step,
        token_var=jnp.maximum(token_var, 0.0) * wider,
        stiffness=jnp.clip(_slope(k, log_step, mass, total), 0.0, BUSIEST),
    )


def _slope(k: Number, log_step: Number, mass: Number, total: Number) -> Number:
    """Mean of d log D / d log n over the distribution."""
    rise = (log_step[1:] - log_step[:-1]) / jnp.maximum(k[1:] - k[:-1], TINY) * (k[1:] + k[:-1]) / 2.0
    return jnp.sum(mass[1:] * rise, axis=0) / total


def gamma_above(t: Number, mean: Number, variance: Number) -> Number:
    """Probability that a gamma variable of given mean and variance exceeds t (Wilson and Hilferty's cube root) [1].

    References: wilson-hilferty-1931

    >>> round(float(gamma_above(2.0, 1.0, 1.0)), 3)  # an exponential variable has exp(-2) = 0.135
    0.133
    """
    shape = jnp.maximum(mean * mean / jnp.maximum(variance, TINY), TINY)
    spread = 1.0 / (9.0 * shape)
    z = (jnp.cbrt(jnp.maximum(t / jnp.maximum(mean, TINY), SMALLEST)) - 1.0 + spread) / jnp.sqrt(spread)
    return erfc(z / jnp.sqrt(2.0)) / 2.0


def quantile(above, lowest: Number, highest: Number) -> Number:
    """Values that ``above`` says are exceeded with probability 1 - ``QUANTILES``; leading axis ``QUANTILES``.

    Bisection in the logarithm with a fixed number of halvings; the derivatives are those of the root (implicit function).
    """
    wanted = 1.0 - _column(QUANTILES, lowest)
    low = jnp.log(jnp.broadcast_to(lowest, wanted.shape[:1] + jnp.shape(lowest)))
    high = jnp.log(jnp.broadcast_to(highest, low.shape))

    def halve(_: Number, ends: tuple[Number, Number]) -> tuple[Number, Number]:
        middle = (ends[0] + ends[1]) / 2.0
        more = above(jnp.exp(middle)) > wanted
        return jnp.where(more, middle, ends[0]), jnp.where(more, ends[1], middle)

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
    t = jax.lax.stop_gradient(jnp.exp((low + high) / 2.0))
    value, slope = jax.jvp(above, (t,), (jnp.ones_like(t),))
    slope = jax.lax.stop_gradient(jnp.maximum(-slope, STEEP * wanted / t))
    return t + (value - jax.lax.stop_gradient(value)) / slope


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
