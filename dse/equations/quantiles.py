"""How are lengths and waits distributed? Quadrature over lognormal lengths, tails of sums, and percentiles by bisection."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import erfc

from dse.equations.smooth import TINY
from dse.types import Number

LENGTHS = 20  # quadrature nodes over a lognormal length
SHORTEST, LONGEST = -4.5, 5.0  # of them, in standard deviations of the logarithm
HALVINGS = 30  # of the bisection for a percentile
STEEP = 1e-3  # least relative width of a distribution
SMALLEST = 1e-9  # of a ratio under a root, whose slope is infinite at 0
QUANTILES = (0.5, 0.9, 0.99)


def column(values, like: Number) -> Number:
    """Constants of the leading axis, shaped to broadcast with ``like``."""
    return jnp.reshape(jnp.asarray(values, jnp.result_type(like)), (-1,) + (1,) * (jnp.ndim(like)))


def row(x: Number, like: Number) -> Number:
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
    sigma = row(_spread(cv), whole)
    z = column(jnp.linspace(SHORTEST, LONGEST, LENGTHS), whole)
    return row(mean, whole) * jnp.exp(sigma * z - sigma * sigma / 2.0)


def length_weights(like: Number) -> Number:
    """Probability of each node of ``lengths``; they sum to 1."""
    z = jnp.linspace(SHORTEST, LONGEST, LENGTHS)
    w = jnp.exp(-z * z / 2.0)
    return column(w / jnp.sum(w), like[0])


def gamma_above(t: Number, mean: Number, variance: Number) -> Number:
    """Probability that a gamma variable of given mean and variance exceeds t (Wilson and Hilferty's cube root) [1].

    References: wilson-hilferty-1931

    >>> round(float(gamma_above(2.0, 1.0, 1.0)), 3)  # an exponential variable has exp(-2) = 0.135
    0.133
    """
    shape = jnp.maximum(mean * mean / jnp.maximum(variance, TINY), TINY)
    spread = 1.0 / (9.0 * shape)
    z = (jnp.cbrt(jnp.maximum(t / jnp.maximum(mean, TINY), SMALLEST)) - 1.0 + spread) / jnp.sqrt(spread)
    return jnp.where(t > 0.0, erfc(z / jnp.sqrt(2.0)) / 2.0, 1.0)


def quantile(above, lowest: Number, highest: Number) -> Number:
    """Values that ``above`` says are exceeded with probability 1 - ``QUANTILES``; leading axis ``QUANTILES``.

    Bisection in the logarithm with a fixed number of halvings; the derivatives are those of the root (implicit function).
    """
    wanted = 1.0 - column(QUANTILES, lowest)
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
