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
    step_s: Number  # (COUNTS, ...) of decoding, half a request above ``counts(slots)``
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
    """Numbers of requests at which a decoding step must be known: leading axis ``COUNTS``, half a request up, growing with the square."""
    x = _column(jnp.linspace(0.0, 1.0, COUNTS), slots)
    return _row(slots, slots) * x * x + 0.5


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
    wait_s: Number  # mean wait for a slot of those who wait, at exponential lengths
    step_s: Number  # decoding step that an arrival meets (0 where nobody decodes)
    token_step_s: Number  # mean over tokens
    token_var: Number  # its variance over tokens
    stiffness: Number  # how strongly one more request slows the others, d log D / d log n


def crowd(q: Stream, prefill_share: Number, backlog_s: Number) -> Crowd:
    """Number of requests at the same time when prefills take a share of the time, and each finds ``backlog_s`` of them to sit out."""
    x = jnp.linspace(0.0, 1.0, (COUNTS - 1) * BETWEEN + 1)
    x = _column(x, q.slots * q.step_s[0])
    k = q.slots * x * x
    log_step = _finer(jnp.log(jnp.maximum(q.step_s, TINY)))
    step = jnp.exp(log_step)
    held = jnp.log(step + backlog_s / jnp.maximum(q.output_tokens - 1.0, 1.0))
    log_a = jnp.log(q.rate_per_s * jnp.maximum(q.output_tokens - 1.0, TINY) / (1.0 - prefill_share))
    gap = k[1:] - k[:-1]
    area = jnp.cumsum(gap * (held[1:] + held[:-1]) / 2.0, axis=0)
    area = jnp.concatenate([jnp.zeros_like(area[:1]), area])
    log_p = k * log_a + area - gammaln(k + 1.0)
    p = jnp.exp(log_p - jax.lax.stop_gradient(jnp.max(log_p, axis=0)))
    dx = 1.0 / ((COUNTS - 1) * BETWEEN)
    weight = 2.0 * q.slots * x * dx  # dk
    weight = jnp.concatenate([weight[:1] * 0.0 + 0.5, weight[1:-1], weight[-1:] / 2.0 + 0.5])  # a sum over whole numbers, ends included
    mass = p * weight
    last = step[-1]
    ratio = jnp.minimum(jnp.exp(log_a + held[-1]) / q.slots, BUSIEST)
    tail = p[-1] * ratio / (1.0 - ratio)
    total = jnp.sum(mass, axis=0) + tail
    mean = (jnp.sum(mass * k, axis=0) + q.slots * tail) / total
    nobody = p[0] / total
    tokens, token_tail = mass * k / step, tail * q.slots / last
    through = jnp.sum(tokens, axis=0) + token_tail
    token_step = (jnp.sum(tokens * step, axis=0) + token_tail * last) / through
    token_var = (jnp.sum(tokens * step * step, axis=0) + token_tail * last * last) / through - token_step**2
    met = (jnp.sum(mass * step, axis=0) + tail * last) / total - nobody * step[0]
    return Crowd(
        mean=mean,
        full=p[-1] / (1.0 - ratio) / total,
        wait_s=ratio / (q.rate_per_s * (1.0 - ratio)),
        step_s=met,
        token_step_s=token_step,
        token_var=jnp.maximum(token_var, 0.0),
        stiffness=jnp.clip(_slope(k, log_step, mass, total), 0.0, BUSIEST),
    )


def _slope(k: Number, log_step: Number, mass: Number, total: Number) -> Number:
    """Mean of d log D / d log n over the distribution."""
    rise = (log_step[1:] - log_step[:-1]) / jnp.maximum(k[1:] - k[:-1], TINY) * (k[1:] + k[:-1]) / 2.0
    return jnp.sum(mass[1:] * rise, axis=0) / total


def gamma_above(t: Number, mean: Number, variance: Number) -> Number:
    """Probability that a gamma variable of given mean and variance exceeds t (Wilson and Hilferty's cube root) [1].

    References: wilson-hilferty-1931

    >>> round(float(gamma_above(2.0, 1.0, 1.0)), 3)  # exponential: exp(-2) = 0.135
    0.135
    """
    shape = jnp.maximum(mean * mean / jnp.maximum(variance, TINY), TINY)
    spread = 1.0 / (9.0 * shape)
    z = (jnp.cbrt(jnp.maximum(t / jnp.maximum(mean, TINY), SMALLEST)) - 1.0 + spread) / jnp.sqrt(spread)
    return erfc(z / jnp.sqrt(2.0)) / 2.0


def quantile(above, lowest: Number, highest: Number) -> Number:
    """Values that ``above`` says are exceeded with probability 1 - ``QUANTILES``; leading axis ``QUANTILES``.

    Bisection of a fixed number of halvings in the logarithm, then one Newton step, which carries the derivatives.
    """
    wanted = 1.0 - _column(QUANTILES, lowest)
    low = jnp.log(jnp.broadcast_to(jax.lax.stop_gradient(lowest), wanted.shape[:1] + jnp.shape(lowest)))
    high = jnp.log(jnp.broadcast_to(jax.lax.stop_gradient(highest), low.shape))
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        more = jax.lax.stop_gradient(above(jnp.exp(middle))) > wanted
        low, high = jnp.where(more, middle, low), jnp.where(more, high, middle)
    t = jnp.exp((low + high) / 2.0)
    value, slope = jax.jvp(above, (t,), (jnp.ones_like(t),))
    return t + (value - wanted) / jnp.maximum(-jax.lax.stop_gradient(slope), TINY)


def waits(q: Stream) -> Waits:
    """Mean and percentiles of the time to first token and per output token at an arrival rate."""
    weights = length_weights(q.prefill_s)
    marginal = jnp.clip(q.pair_s - q.prefill_s, 0.0, q.prefill_s)
    fixed = q.prefill_s - marginal  # shared by prompts that go together

    def mean_of(values: Number) -> Number:
        return jnp.sum(weights * values, axis=0)

    together, backlog = jnp.ones_like(mean_of(fixed) * q.rate_per_s), 0.0
    for _ in range(ROUNDS):
        prefill = marginal + fixed * together
        p1, p2, p3 = (mean_of(prefill**i) for i in (1, 2, 3))
        share = jnp.minimum(q.rate_per_s * p1, BUSIEST)
        c = crowd(q, share, backlog)
        arrivals = jnp.maximum(q.rate_per_s * c.step_s / (1.0 - share), TINY)  # in one step
        together = -jnp.expm1(-arrivals) / arrivals
        f = first(q, c, share, p1, p2, p3, weights)
        backlog = f.left_s
    return Waits(
        tpot_s=c.mean / (q.rate_per_s * jnp.maximum(q.output_tokens - 1.0, TINY)),
        ttft_s=mean_of(f.own_s) + f.mean_s + c.full * f.slot_s,
        tpot_quantile_s=_token_quantile(q, c, f, share, p2, p3),
        ttft_quantile_s=_first_quantile(q, c, f, weights),
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
    """Parts of the time to first token."""

    own_s: Number  # (LENGTHS, ...) own prefill and the decoding of others beside it
    mean_s: Number  # wait for the running step and the prompts ahead, and prompts in the same step behind
    variance_s2: Number
    slot_s: Number  # wait for a slot of those who find none
    left_s: Number  # prefills of others that wait when the first token is out
    left_s2: Number  # variance of that


def first(q: Stream, c: Crowd, share: Number, p1: Number, p2: Number, p3: Number, weights: Number) -> First:
    """What a newcomer waits for before its first token."""
    chunks = jnp.sum(weights * q.prompt_tokens, axis=0) / q.chunk_tokens
    own = q.prefill_s + c.step_s * jnp.maximum(q.prompt_tokens / q.chunk_tokens, 1.0)
    load = jnp.minimum(q.rate_per_s * (p1 + c.step_s * chunks), BUSIEST)
    queue = q.rate_per_s * p2 / (2.0 * (1.0 - load))
    residual = c.step_s * (1.0 + load) / (2.0 * (1.0 - load))
    seen = c.step_s / (1.0 - share) + q.rate_per_s * p2 / (1.0 - share**2)  # the step that a newcomer meets, longer than the mean
    behind = jnp.minimum(share * seen / 2.0, p1 / jnp.maximum(chunks, TINY) / 2.0)
    mean = queue + residual + behind
    variance = queue**2 + q.rate_per_s * p3 / (3.0 * (1.0 - load)) + residual**2 / 3.0 + behind**2 / 3.0 + behind / p1 * p2
    whole = jnp.sum(weights * own, axis=0)
    own_variance = jnp.sum(weights * own * own, axis=0) - whole**2
    left = jnp.maximum(share * (whole + mean) - behind, 0.0)
    return First(
        own_s=own,
        mean_s=mean,
        variance_s2=variance,
        slot_s=c.wait_s * (1.0 + q.output_cv**2) / 2.0,
        left_s=left,
        left_s2=share**2 * (variance + own_variance) + q.rate_per_s * p2 * (whole + mean),
    )


def _token_quantile(q: Stream, c: Crowd, f: First, share: Number, p2: Number, p3: Number) -> Number:
    """Percentiles of the mean time per token of one request: long answers average over what short ones meet."""
    steps = jnp.maximum(lengths(q.output_tokens, q.output_cv) - 1.0, 1.0)
    weights = length_weights(steps * c.step_s)
    free = 1.0 / (1.0 - share)
    time = (steps * c.token_step_s + f.left_s) * free  # of an answer
    life = (q.output_tokens - 1.0) * c.token_step_s * free * (1.0 + q.output_cv**2) / 2.0 / (1.0 - c.stiffness)
    x = jnp.maximum(time / life, 1e-3)
    averaged = 2.0 * (jnp.expm1(-x) + x) / (x * x)
    met = q.rate_per_s * p2
    crowds = c.token_var * averaged * free**2
    variance = crowds + (met * time + f.left_s2) * free**2 / steps**2
    third = (q.rate_per_s * p3 * free**3 + 3.0 * met**2 * free**4) * time / steps**3
    mean = time / steps
    skew = third / jnp.maximum(variance, TINY) ** 1.5
    scale = jnp.sqrt(variance) * jnp.maximum(skew, 1e-2) / 2.0
    shift = mean - variance / scale

    def above(t: Number) -> Number:
        return jnp.sum(weights[None] * gamma_above(t[:, None] - shift[None], (mean - shift)[None], variance[None]), axis=1)

    middle = jnp.sum(weights * mean, axis=0)
    return quantile(above, middle * 0.1, middle + 40.0 * jnp.sqrt(jnp.max(variance, axis=0)))


def _first_quantile(q: Stream, c: Crowd, f: First, weights: Number) -> Number:
    """Percentiles of the time to first token: own length by quadrature, waits by their mean and variance."""

    def above(t: Number) -> Number:
        left = t[:, None] - f.own_s[None]
        free = gamma_above(left, f.mean_s, f.variance_s2)
        waiting = gamma_above(left, f.mean_s + f.slot_s, f.variance_s2 + f.slot_s**2)
        return jnp.sum(weights[None] * ((1.0 - c.full) * free + c.full * waiting), axis=1)

    longest = jnp.max(f.own_s, axis=0) + f.mean_s + f.slot_s + 40.0 * (jnp.sqrt(f.variance_s2) + f.slot_s)
    return quantile(above, jnp.min(f.own_s, axis=0), longest)
