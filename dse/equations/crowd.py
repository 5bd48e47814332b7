r"""How many requests decode at the same time when they arrive at random? The state of a processor-sharing queue.

References: kleinrock1975, bonald-proutiere-2003
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from dse.equations.quantiles import column, length_weights, row
from dse.equations.smooth import TINY
from dse.types import Number, pytree

COUNTED = 64  # whole numbers of requests that are summed one by one from 1; above, the grid widens with the cube
KNOWN = (0, 1, 2, 3, 4, 6, 8, 11, 14, 18, 23, 29, 35, 42, 49, 56, 64)  # of the grid, where a step is evaluated
COUNTS = len(KNOWN)
BELOW = tuple(
    sum(known <= i for known in KNOWN) - 1 for i in range(COUNTED)
)  # for each point of the grid but the last, the known one at or below it
BUSIEST = 0.995  # loads are held below this, so that the answer stays finite beyond saturation


@pytree()
class Ahead:
    """Prefill on ranks of its own, each serving one prompt after another; the cache then travels to the rank that decodes."""

    load: Number  # of such a rank
    service_s: Number  # (LENGTHS, ...) for which a prompt occupies it
    own_s: Number  # (LENGTHS, ...) from its start there until the cache has arrived


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
    uneven: Number | None = None  # variance of what a request takes of a slot, over its mean squared; None: slots are counted
    rise_s: Number | None = None  # (COUNTS, ...) of a step where contexts are longer by the standard deviation of one; None: all alike
    ahead: Ahead | None = None  # None: prompts are prefilled beside the decoding of others


def counts(slots: Number) -> Number:
    """Numbers of requests at which a decoding step must be known: leading axis ``COUNTS``, from 1 to the slots."""
    return grid(slots)[jnp.asarray(KNOWN)]


def grid(slots: Number) -> Number:
    """Numbers of requests from 1 to the slots: one by one as far as ``COUNTED``, then widening; the last repeat where slots are fewer."""
    x = column(jnp.arange(COUNTED + 1.0), slots)
    wide = jnp.maximum(row(slots, slots) - 1.0 - COUNTED, 0.0) / COUNTED**3
    return jnp.minimum(1.0 + x + wide * x**3, row(slots, slots))


def finer(table: Number, k: Number) -> Number:
    """The table at ``KNOWN`` points of the grid ``k`` on all of it, by straight lines."""
    below = jnp.asarray(BELOW)
    a, b = jnp.asarray(KNOWN)[below], jnp.asarray(KNOWN)[below + 1]
    share = (k[:-1] - k[a]) / jnp.maximum(k[b] - k[a], TINY)
    return jnp.concatenate([table[below] + share * (table[below + 1] - table[below]), table[-1:]])


@pytree()
class Crowd:
    """How many requests decode at the same time."""

    mean: Number
    full: Number  # probability of no free slot
    wait_s: Number  # mean wait for a slot of those who wait
    wait_s2: Number  # its variance
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
    k = grid(q.slots)
    log_step = finer(jnp.log(jnp.maximum(q.step_s, TINY)), k)
    step = jnp.exp(log_step)
    last = step[-1]
    held = jnp.log(step + backlog_s / jnp.maximum(q.output_tokens - 1.0, 1.0))
    log_a = jnp.log(q.rate_per_s * jnp.maximum(q.output_tokens - 1.0, TINY) / (1.0 - prefill_share))
    gap = k[1:] - k[:-1]
    one = jnp.ones_like(gap[:1])
    area = jnp.concatenate([0.0 * one, jnp.cumsum(gap * (held[1:] + held[:-1]) / 2.0, axis=0)]) + (held + held[:1]) / 2.0
    log_p = k * log_a + area - gammaln(k + 1.0)
    weight = (jnp.concatenate([one, gap]) + jnp.concatenate([gap, one])) / 2.0  # a sum over whole numbers from 1 to the slots
    top = jax.lax.stop_gradient(jnp.maximum(jnp.max(log_p, axis=0), 0.0))
    p, none = jnp.exp(log_p - top), jnp.exp(-top)  # of some requests, and of none
    mass = p * weight
    ratio = jnp.minimum(jnp.exp(log_a + held[-1]) / q.slots, BUSIEST)
    tail = p[-1] * ratio / (1.0 - ratio)
    total = jnp.sum(mass, axis=0) + none + tail
    tokens, token_tail = mass * k / step, tail * q.slots / last
    through = jnp.sum(tokens, axis=0) + token_tail

    def per_token(values: Number) -> Number:
        return (jnp.sum(tokens * values, axis=0) + token_tail * values[-1]) / through

    token_step = per_token(step)
    # arrivals come in clusters while nothing is decoded, and steps stay longer as long as long contexts are there
    wider = (1.0 + 1.0 / (1.0 - prefill_share) ** 2) / 2.0
    mixed = jnp.zeros_like(through)
    if q.rise_s is not None:
        wider = wider + (q.rise_s[-1] / last) ** 2 / 2.0
        mixed = per_token(finer(q.rise_s, k) ** 2 / k)
    busy = _full_slots(q, prefill_share, last)
    taken = wider if q.uneven is None else wider * (1.0 + q.uneven)  # of the room that requests take
    flat, flat_none = jnp.exp((log_p - top) / taken), jnp.exp(-top / taken)
    flat_tail = flat[-1] * busy.load / (1.0 - busy.load)
    entering = jnp.minimum(q.rate_per_s * entry_s, q.slots / 2.0)  # slots of those that do not decode yet
    full = (flat[-1] + flat_tail) / (jnp.sum(flat * weight, axis=0) + flat_none + flat_tail) * ratio**-entering
    return Crowd(
        mean=(jnp.sum(mass * k, axis=0) + q.slots * tail) / total,
        full=jnp.minimum(full, 1.0),
        wait_s=busy.wait_s,
        wait_s2=busy.wait_s2,
        step_s=(jnp.sum(mass * step, axis=0) + tail * last) / total,
        token_step_s=token_step,
        token_var=jnp.maximum(per_token(step * step) - token_step**2, 0.0) * wider + mixed,
        stiffness=jnp.clip(_slope(k, log_step, mass, total), 0.0, BUSIEST),
    )


@pytree()
class Full:
    """What happens while no slot is free."""

    load: Number  # arrivals over the answers that leave
    wait_s: Number  # mean wait for a slot
    wait_s2: Number  # its variance


def _full_slots(q: Stream, prefill_share: Number, step_s: Number) -> Full:
    """For each answer that leaves a prompt enters: an answer that holds a slot sits out as many prefills as there are slots."""
    chunks = jnp.sum(length_weights(q.prompt_tokens) * jnp.maximum(q.prompt_tokens / q.chunk_tokens, 1.0), axis=0)
    steps_s = (jnp.maximum(q.output_tokens - 1.0, TINY) + chunks) * step_s
    held_s = steps_s + q.slots * prefill_share / q.rate_per_s
    load = jnp.minimum(q.rate_per_s * held_s / q.slots, BUSIEST)
    mean, variance = slot_wait(q.slots, load, (q.output_cv * steps_s / held_s) ** 2)
    drain_s = held_s / q.slots / (1.0 - load)
    return Full(load=load, wait_s=mean * drain_s, wait_s2=variance * drain_s**2)


def slot_wait(servers: Number, load: Number, scv: Number) -> tuple[Number, Number]:
    r"""Wait of those who find all of many servers taken: mean and variance, in units of the mean with exponential services.

    Between equal services (Cosmetatos' formula for their share of it) and exponential ones, by the squared coefficient of variation;
    the variance as for one server.

    .. math:: c^2 + \frac{1 - c^2}{2}\left(1 + \frac{(1-\rho)(s-1)(\sqrt{4+5s}-2)}{16\rho s}\right)

    References: kimura-1991, kimura-1994

    >>> mean, variance = slot_wait(1.0, 0.5, 0.0)  # the M/D/1 queue waits half as long as the M/M/1 queue
    >>> round(float(mean), 3), round(float(variance), 4)
    (0.5, 0.1667)
    """
    slack = 1.0 - load
    equal = slack * (servers - 1.0) * (jnp.sqrt(4.0 + 5.0 * servers) - 2.0) / (16.0 * jnp.maximum(load, TINY) * servers)
    mean = scv + (1.0 - scv) / 2.0 * (1.0 + jnp.minimum(equal, 1.0))
    return mean, mean**2 * (1.0 - slack * (2.0 - 4.0 / 3.0 * (1.0 + scv)))


def _slope(k: Number, log_step: Number, mass: Number, total: Number) -> Number:
    """Mean of d log D / d log n over the distribution."""
    rise = (log_step[1:] - log_step[:-1]) / jnp.maximum(k[1:] - k[:-1], TINY) * (k[1:] + k[:-1]) / 2.0
    return jnp.sum(mass[1:] * rise, axis=0) / total
