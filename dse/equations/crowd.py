r"""How many requests decode at the same time when they arrive at random? The state of a processor-sharing queue.

References: kleinrock1975, bonald-proutiere-2003
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from dse.equations.quantiles import column, row
from dse.equations.smooth import TINY
from dse.types import Number, pytree

COUNTS = 17  # numbers of requests at which a step is evaluated, growing with the square
BETWEEN = 4  # of the finer grid over which probabilities are summed
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
    ahead: Ahead | None = None  # None: prompts are prefilled beside the decoding of others


def counts(slots: Number) -> Number:
    """Numbers of requests at which a decoding step must be known: leading axis ``COUNTS``, from 1 to half above the slots, by squares."""
    return grid(slots, COUNTS) + 0.5


def grid(slots: Number, points: int) -> Number:
    """Numbers of requests from a half to the slots, growing with the square: probabilities are summed between them."""
    x = column(jnp.linspace(0.0, 1.0, points), slots)
    return 0.5 + row(slots - 0.5, slots) * x * x


def finer(table: Number) -> Number:
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
    k = grid(q.slots, points)
    log_step = finer(jnp.log(jnp.maximum(q.step_s, TINY)))
    step = jnp.exp(log_step)
    held = jnp.log(step + backlog_s / jnp.maximum(q.output_tokens - 1.0, 1.0))
    log_a = jnp.log(q.rate_per_s * jnp.maximum(q.output_tokens - 1.0, TINY) / (1.0 - prefill_share))
    gap = k[1:] - k[:-1]
    area = jnp.cumsum(gap * (held[1:] + held[:-1]) / 2.0, axis=0)
    area = jnp.concatenate([jnp.zeros_like(area[:1]), area]) + held[:1] / 2.0
    log_p = k * log_a + area - gammaln(k + 1.0)
    top = jax.lax.stop_gradient(jnp.maximum(jnp.max(log_p, axis=0), 0.0))
    p, none = jnp.exp(log_p - top), jnp.exp(-top)  # of some requests, and of none
    x = column(jnp.linspace(0.0, 1.0, points), q.slots)
    width = 2.0 * (q.slots - 0.5) * x / (points - 1)
    weight = jnp.concatenate([width[:-1], width[-1:] / 2.0 + 0.5])  # a sum over whole numbers from 1 to the slots
    mass = p * weight
    last = step[-1]
    ratio = jnp.minimum(jnp.exp(log_a + held[-1]) / q.slots, BUSIEST)
    wider = (
        1.0 / (1.0 - prefill_share) ** 2
    )  # variance of the number: an arrival adds itself and, by its prefill, keeps others from leaving
    taken = wider if q.uneven is None else wider * (1.0 + q.uneven)  # the same of the room that they take
    flat, flat_none = jnp.exp((log_p - top) / taken), jnp.exp(-top / taken)
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
