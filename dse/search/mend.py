"""What becomes of a child whose chip breaks a limit of its own? It stops where its step meets the limit, as at the end of a range.

Heat, the package and the edge of the die bound chips inside the ranges of their variables, and optima lie on these bounds: in a band too
narrow for a random step to land in.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse._jax import quickly
from dse.chips import FAMILIES
from dse.evaluate import worst_slack
from dse.search.designs import Shop
from dse.space import take
from dse.types import FamilyConstants, Number, Process, Technology

POINTS = 16  # of a step that are looked at together
LOOKS = 4  # each within the part that the one before has found
STEPS = 4  # of Newton towards the limits of a chip
INSIDE = 1e-5  # how far inside they aim
HAIR = 1e-3  # of a range: the least step that a mutation means
END = 1e-6  # of a range: what comes so near to its end stands there


@functools.partial(quickly, static_argnums=(0,))
def _worst(family: str, values: Mapping[str, Any], process: Process, technology: Technology, constants: FamilyConstants) -> Number:
    return worst_slack(FAMILIES[family].build(values, process, technology, constants).chip.slack)


@functools.partial(quickly, static_argnums=(0,))
def _rising(family: str, values: Mapping[str, Any], process: Process, technology: Technology, constants: FamilyConstants) -> Any:
    """The tightest limit of every chip, and its slopes in the design variables."""

    def whole(values: Mapping[str, Any]) -> tuple[Number, Number]:
        found = _worst(family, values, process, technology, constants)
        return jnp.sum(found), found

    (_, found), slopes = jax.value_and_grad(whole, has_aux=True)(values)
    return found, slopes


def eased(shop: Shop, points: np.ndarray) -> np.ndarray:
    """Points moved by Newton steps in their real variables until their chips keep their limits (or not, after some steps)."""
    real = [(i, v) for i, v in enumerate(shop.space.variables) if v.kind == "real" and v.low < v.high]
    points = points.copy()
    for _ in range(STEPS):
        values = {k: np.asarray(v, float) for k, v in shop.space.decode(points).items()}
        slack, slopes = _rising(shop.family, values, take(shop.processes, values["node"]), shop.technology, shop.constants)
        lacks = np.maximum(INSIDE - np.asarray(slack), 0.0)
        if not lacks.any():
            break
        scale = [values[v.name] * np.log(v.high / v.low) if v.log else v.high - v.low for _, v in real]
        rise = np.stack([np.asarray(slopes[v.name]) * x for (_, v), x in zip(real, scale, strict=True)], axis=1)
        at = [i for i, _ in real]
        held = ((points[:, at] <= 0.0) & (rise < 0.0)) | ((points[:, at] >= 1.0) & (rise > 0.0))
        rise = np.where(held | ~np.isfinite(rise), 0.0, rise)
        step = lacks[:, None] * rise / np.maximum((rise**2).sum(axis=1, keepdims=True), 1e-12)
        moved = points[:, at] + step
        points[:, at] = np.where(moved < END, 0.0, np.where(moved > 1.0 - END, 1.0, moved))
    return points


def worst(shop: Shop, points: np.ndarray) -> np.ndarray:
    """The tightest of a chip's own limits, relative, at points of the unit cube: array (n,)."""
    values = shop.space.decode(points)
    found = _worst(shop.family, values, take(shop.processes, values["node"]), shop.technology, shop.constants)
    return np.broadcast_to(np.asarray(found), (len(points),))


def mended(shop: Shop, mothers: np.ndarray, children: np.ndarray) -> np.ndarray:
    """Children as they are where their chips keep their limits, else so near to their mothers that they do (just so).

    Whole numbers and choices stay those of the child; where even the mother's other values break a limit with them, these give way first.
    """
    whole = np.isfinite([v.size for v in shop.space.variables])
    start = np.where(whole, children, mothers)
    if (worst(shop, children) < 0.0).any():
        start = np.where((worst(shop, start) < 0.0)[:, None], eased(shop, start), start)
    n, d = children.shape
    low, high = np.zeros(n), np.ones(n)
    steps = np.linspace(0.0, 1.0, POINTS)
    for look in range(LOOKS):
        t = low[:, None] + (high - low)[:, None] * steps
        points = start[:, None] + t[..., None] * (children - start)[:, None]
        met = worst(shop, points.reshape(-1, d)).reshape(n, POINTS) >= 0.0
        if look == 0:
            alone = met[:, -1] | ~met[:, 0]
            if alone.all():
                return children
        last = np.where(met.all(axis=1), POINTS - 1, np.argmin(met, axis=1) - 1)  # before the first that is broken
        first, after = np.maximum(last, 0), np.minimum(np.maximum(last, 0) + 1, POINTS - 1)
        rows = np.arange(n)
        low, high = t[rows, first], t[rows, after]
    found = np.where(alone[:, None], children, start + low[:, None] * (children - start))
    # a step that was cut short leaves no end of a range by a hair
    ends = ((start == 0.0) | (start == 1.0)) & (np.abs(found - start) < HAIR) & ~alone[:, None]
    stayed = np.where(ends, start, found)
    return np.where((worst(shop, stayed) >= 0.0)[:, None], stayed, found)
