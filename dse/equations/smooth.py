"""Smooth extrema and a few monotone helpers: the non-polynomial pieces that the other equations are built from.

A function that is monotone though its formula repeats an argument carries its directions (``@monotone``), so that an
interval evaluation may take it at the ends of the box, exactly. Its name appears in the jaxpr as a ``jit`` of that name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dse.types import Number

MONOTONE: dict[str, tuple[int, ...]] = {}

SMALL_POWER = 2  # up to here powers of times stay well inside the range of float32
LEAST: Number = 1e-36  # square of a time that no operator comes near; its root has a finite gradient
TINY: Number = 1e-30  # a time or count no operator comes near; keeps 0/0 out of ratios in float32


def monotone(*directions: int) -> Callable:
    """Declare that a function rises (+1) or falls (-1) in each positional array argument, and keep its name in the jaxpr."""

    def register(function: Callable) -> Callable:
        MONOTONE[function.__name__] = directions
        return functools.wraps(function)(jax.jit(function, inline=False))

    return register


def power(x: Number, p: int) -> Number:
    """``x**p`` for p in 1, 2, 4, 8, 16, by repeated squaring (a real exponent costs 26 times the speed).

    >>> power(3.0, 4)
    81.0
    """
    while p > 1:
        x, p = x * x, p // 2
    return x


def root(x: Number, p: int) -> Number:
    """``x**(1/p)`` for p in 1, 2, 4, 8, 16 and x > 0, by repeated square roots.

    >>> float(root(81.0, 4))
    3.0
    """
    while p > 1:
        x, p = jnp.sqrt(x), p // 2
    return x


def largest(terms: tuple[Number, ...]) -> Number:
    """Largest of the terms, at least ``TINY``."""
    return functools.reduce(lambda a, b: jnp.maximum(a, b), terms, TINY)


def smooth_max(p: int, blend: Number, *terms: Number) -> Number:
    r"""p-norm of non-negative terms with a blend towards the hard maximum.

    .. math::
        m \left(1 + w \sum_{i \ne \max} (x_i/m)^p\right)^{1/p} = \left((1 - w)\, m^p + w \sum x_i^p\right)^{1/p}

    with m the largest term. The first form neither underflows in float32 at microseconds nor loses its gradient; for p of 1 and 2 the
    second does not either (squares of nanoseconds are far from the smallest number), has no division, and rises in every term, also on
    intervals.

    Args:
        p: Exponent, one of 1, 2, 4, 8, 16 (static). 1 adds, large values take the maximum.
        blend: w [1]: 1 is the p-norm, 0 the hard maximum.
        terms: Non-negative times [s], any broadcasting shapes.

    References: dse-operator-fit

    >>> round(float(smooth_max(2, 1.0, 3e-6, 4e-6)) * 1e6, 6)
    5.0
    >>> round(float(smooth_max(2, 0.0, 3e-6, 4e-6)) * 1e6, 6)
    4.0
    """
    if p <= SMALL_POWER:
        powers = [power(x, p) for x in terms]
        total, most = jnp.maximum(sum(powers), LEAST), functools.reduce(jnp.maximum, powers, LEAST)
        return root((1.0 - blend) * most + blend * total, p)
    m = largest(terms)
    scale = 1.0 / m
    total = sum(power(x * scale, p) for x in terms)
    return m * root(1.0 + blend * (jnp.maximum(total, 1.0) - 1.0), p)


def smooth_min(p: int, blend: Number, *terms: Number) -> Number:
    r"""Smooth minimum of positive terms, ``(sum x_i^-p)^(-1/p)``; the hard minimum with ``blend`` 0.

    References: dse-operator-fit

    >>> round(float(smooth_min(16, 0.0, 3.0, 4.0)), 6)
    3.0
    >>> float(smooth_min(16, 1.0, 3.0, 4.0)) < 3.0
    True
    """
    return 1.0 / smooth_max(p, blend, *(1.0 / jnp.maximum(x, TINY) for x in terms))


def shares(p: int, *terms: Number) -> tuple[Number, ...]:
    """Share of each term in the p-norm, ``x_i^p / sum x^p``; they sum to 1 where any term is positive.

    >>> [round(float(s), 2) for s in shares(2, 3.0, 4.0)]
    [0.36, 0.64]
    """
    scale = None if p <= SMALL_POWER else 1.0 / largest(terms)
    powers = [power(x if scale is None else x * scale, p) for x in terms]
    whole = jnp.maximum(sum(powers), LEAST)
    return tuple(x / whole for x in powers)


@monotone(+1, +1)
def lesser(x: Number, y: Number) -> Number:
    r"""About the lesser of two times where they differ much, half of it where they are equal: :math:`xy / (x + y)`.

    Twice both is twice as much, so that a time to which it is added still grows no faster than its terms.

    >>> float(lesser(3.0, 6.0)), float(lesser(0.0, 5.0)), float(lesser(0.0, 0.0))
    (2.0, 0.0, 0.0)
    """
    return x * (y / jnp.maximum(x + y, TINY))


@monotone(+1, +1)
def filled_share(tokens: Number, share: Number) -> Number:
    r"""Probability that at least one of ``tokens`` draws hits something of probability ``share``: :math:`1-(1-s)^T`.

    The share is kept below one so that the logarithm stays finite.

    >>> round(float(filled_share(16.0, 0.25)), 4)
    0.99
    """
    bounded = jnp.minimum(share, 1.0 - 1e-6)
    return -jnp.expm1(tokens * jnp.log1p(-bounded))


@monotone(+1, +1)
def distinct(places: Number, draws: Number) -> Number:
    r"""Expected number of distinct places among n, one at least, that independent draws hit: :math:`n (1 - (1 - 1/n)^k)`.

    >>> round(float(distinct(8.0, 2.0)), 4), round(float(distinct(1.0, 8.0)), 4)  # 8 (1 - 49/64); one place
    (1.875, 1.0)
    """
    n = jnp.maximum(places, 1.0)
    return n * filled_share(draws, 1.0 / n)


def present(n: Number) -> Number:
    """0 for a group of one chip, 1 from two chips on, linear between: switches a collective on without a branch.

    >>> [float(present(n)) for n in (1.0, 2.0, 8.0)]
    [0.0, 1.0, 1.0]
    """
    return jnp.clip(n - 1.0, 0.0, 1.0)
