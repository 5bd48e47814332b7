"""At how many users does a service pay? From users to requests at the same time to batch, and back.

Plain formulas of numbers or arrays; costs come from the model.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DAY_S = 24.0 * 3600.0


def users_of(concurrent: float, use_s_per_day: float, load: float = 1.0) -> float:
    """Users of a service that has ``concurrent`` requests at the same time.

    Args:
        concurrent: Requests at the same time. use_s_per_day: Use of one user in a day [s].
        load: Concurrency at the moment that counts, over its mean of the day (1: the mean; below 1: the quiet hours).

    >>> round(users_of(1000.0, 600.0))
    144000
    """
    return concurrent / load * DAY_S / use_s_per_day


def concurrent_of(users: float, use_s_per_day: float, load: float = 1.0) -> float:
    """Requests at the same time of a number of users; the inverse of ``users_of``.

    >>> round(concurrent_of(144000.0, 600.0))
    1000
    """
    return users * use_s_per_day / DAY_S * load


def centralisation(costs: Any) -> float:
    """Cost of a token for the fewest users over the least cost, ``c[0] / min(c)`` [1]; costs are in ascending order of batch.

    >>> centralisation([10.0, 4.0, 2.5, 3.0])
    4.0
    """
    return float(costs[0] / np.min(costs))


def batch_within(batches: Any, costs: Any, factor: float = 2.0) -> float:
    """Smallest batch at which a token costs no more than ``factor`` times the least, between grid points by a power law [request].

    >>> batch_within([1.0, 4.0, 16.0], [8.0, 2.0, 1.0])
    4.0
    """
    b, c = np.log(np.asarray(batches, float)), np.log(np.asarray(costs, float))
    level = c.min() + np.log(factor)
    first = int(np.argmax(c <= level))
    if first == 0:
        return float(np.exp(b[0]))
    share = (c[first - 1] - level) / (c[first - 1] - c[first])
    return float(np.exp(b[first - 1] + share * (b[first] - b[first - 1])))
