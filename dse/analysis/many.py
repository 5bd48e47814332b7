"""How are many variants of deployments evaluated? As rows of one flat block, in chunks of one shape, so that nothing is compiled twice.

Chip, layout and prices have leaves ``(n,)``; model and workload are those of the first deployment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from dse.evaluate import Metrics, as_floats, evaluate
from dse.types import Deployment

CHUNK = 512  # deployments in one evaluation


def _varied(d: Deployment) -> tuple[Any, Any, Any]:
    return d.chip, d.layout, d.prices


def rows_of(deployments: Sequence[Deployment]) -> Deployment:
    """Deployments of one model and workload as rows."""
    stacked = jax.tree.map(lambda *xs: np.array([float(np.ravel(x)[0]) for x in xs]), *[_varied(as_floats(d)) for d in deployments])
    return _put(deployments[0], stacked)


def _put(d: Deployment, varied: tuple[Any, Any, Any]) -> Deployment:
    chip, layout, prices = varied
    return replace(d, chip=chip, layout=layout, prices=prices)


def crossed(rows: Deployment, count: int) -> Deployment:
    """Every row ``count`` times: row i of the first ``count`` is a variant of row 0, and so on."""
    return _put(rows, jax.tree.map(lambda x: np.repeat(np.asarray(x, float), count), _varied(rows)))


def filled(d: Deployment, n: int) -> Deployment:
    """A deployment whose leaves are numbers or columns of samples, as ``n`` rows."""
    return _put(d, jax.tree.map(lambda x: np.broadcast_to(np.ravel(np.asarray(x, float)), (n,)), _varied(d)))


def measured(rows: Deployment) -> Metrics:
    """Metrics of all rows, leaves ``(n,)``."""
    n = max(np.size(x) for x in jax.tree.leaves(_varied(rows)))
    model, workload = as_floats(rows.model), as_floats(rows.workload)
    found = []
    for start in range(0, n, CHUNK):
        at = np.minimum(np.arange(start, start + CHUNK), n - 1)
        block = jax.tree.map(lambda x: np.asarray(x, float)[at], _varied(rows))  # noqa: B023
        m = evaluate(replace(_put(rows, block), model=model, workload=workload))
        found.append(jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (CHUNK,)), m))
    return jax.tree.map(lambda *xs: np.concatenate(xs)[:n], *found)


def costs(rows: Deployment) -> np.ndarray:
    """USD per million output tokens of all rows, inf where a limit of the chip or its memory is not met."""
    m = measured(rows)
    return np.where(np.asarray(m.feasible), np.asarray(m.usd_per_million_output_token), np.inf)
