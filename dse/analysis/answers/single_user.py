"""Can the imbalance be engineered away? One user alone on a chip made for that, against the price of a token of a batched GPU.

For each promised speed: cost for one user on every family, over the least cost of the reference family at its best batch. And for every
parameter the factor by which it would have to change until a user alone pays no more than ``level`` times the batched price. What belongs
to the chip is changed on the chip for one user alone, against the reference as it is; what the site and the owner ask is changed for both.
Each side takes the chip that is then cheapest; layouts are held.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.answers.bands import SAMPLES, banded, draws_of
from dse.analysis.answers.ground import Ground, Kind, table
from dse.analysis.elasticity import PARAMETERS
from dse.analysis.many import costs, crossed, rows_of
from dse.analysis.niches import Niche
from dse.analysis.units import Units

if TYPE_CHECKING:
    import xarray as xr

STEPS = 25  # factors tried between 1 / reach and reach
COMMON = ("server_usd", "energy_usd_per_j", "facility_usd_per_j", "discount_per_year", "life_year", "utilisation")  # changed for both
RATING = "tdp_w"  # says what a chip may draw; alone it can be cut, but not where all else speeds up
NEAR = 8  # chips of a family whose units are changed: the cheapest ones


def niches(ground: Ground, given: Mapping[str, Any]) -> list[Niche]:
    """One user at every limit, and any number at the limit that the answer is about."""
    limits = tuple(ground.study.limits.tpot)
    return [Niche(ground.case, limits, (1.0,)), Niche(ground.case, limits)]


def cheapest_units(units: Units, family: str, batch: int | None) -> list[tuple[int, int]]:
    """(chip, batch) of the cheapest units of a family, one for each chip, at one batch or each at its best."""
    cost = units.cost()
    if batch is not None:
        cost = np.where(np.arange(len(units.batches)) == batch, cost, np.inf)
    at = cost.argmin(axis=1)
    least = np.where(units.of(family), cost[np.arange(len(at)), at], np.inf)
    order = [int(i) for i in np.argsort(least, kind="stable") if np.isfinite(least[i])]
    return [(i, int(at[i])) for i in order[:NEAR]]


def crossing(factors: np.ndarray, ratio: np.ndarray, level: float) -> float:
    """The factor nearest to 1 at which a ratio comes down to the level, by a power law between points; nan where none does."""
    ratio = np.where(np.isfinite(ratio), ratio, 1 / np.finfo(np.float32).tiny)
    x, y = np.log(factors), np.log(ratio / level)
    below = y <= 0
    found = [x[i] for i in np.flatnonzero(y == 0)]
    for i in np.flatnonzero(below[1:] != below[:-1]):
        share = y[i] / (y[i] - y[i + 1])
        found.append(x[i] + share * (x[i + 1] - x[i]))
    return float(np.exp(min(found, key=abs))) if found else float("nan")


def answer(ground: Ground, given: Mapping[str, Any]) -> xr.Dataset:
    """Ratios by limit and family, and the factors on parameters that would close the gap at the headline limit."""
    limits, against, head = list(ground.study.limits.tpot), given["against"], ground.study.headline.tpot
    families = list(ground.families)
    shape = (len(families), len(limits))
    alone, batched, own = np.full(shape, np.nan), np.full(len(limits), np.nan), np.full(shape, np.nan)
    for t, limit in enumerate(limits):
        units = ground.units(limit)
        batched[t] = units.curve(against).min()
        for f, family in enumerate(families):
            curve = units.curve(family)
            alone[f, t], own[f, t] = curve[0], curve.min()
    clean = {n: np.where(np.isfinite(v), v, np.nan) for n, v in {"alone": alone, "batched": batched, "best": own}.items()}
    factors = np.exp(np.linspace(-np.log(given["reach"]), np.log(given["reach"]), 2 * (STEPS // 2) + 1))
    closing, gain, gain_at, together = _break_evens(ground, families, against, head, factors, given["level"])
    values = {
        "alone": (("family", "limit"), clean["alone"]),
        "best": (("family", "limit"), clean["best"]),
        "batched": ("limit", clean["batched"]),
        "ratio": (("family", "limit"), clean["alone"] / clean["batched"]),
        "own_ratio": (("family", "limit"), clean["alone"] / clean["best"]),
        "closing": (("family", "changed"), closing),
        "gain": (("family", "changed"), gain),
        "gain_at": (("family", "changed"), gain_at),
        "together": ("family", together),
    }
    coords = {"family": families, "limit": [float(x) for x in limits], "changed": list(PARAMETERS)}
    values |= uncertain(ground, families, limits, against)
    ds = table(values, coords, WORDS)
    ds.attrs = {"common": list(COMMON), "against": against, "level": given["level"], "reach": given["reach"], "tpot_s": head}
    return ds


def uncertain(ground: Ground, families: list[str], limits: list[float], against: str) -> dict[str, Any]:
    """Band of the ratio: the units behind it held, every input drawn for both sides alike."""
    draws = draws_of(ground, ground.study.seed)
    found = np.full((len(families), len(limits), SAMPLES), np.nan)
    for t, limit in enumerate(limits):
        units = ground.units(limit)
        if against not in units.families:
            continue
        batched = draws.cost(units, units.best(against))
        for f, family in enumerate(families):
            if np.isfinite(units.curve(family)[0]):
                found[f, t] = draws.cost(units, units.best(family, 0)) / batched
    return dict(banded("ratio", ("family", "limit"), found))


def _break_evens(
    ground: Ground, families: list[str], against: str, limit_s: float, factors: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """By family and parameter: factor that closes the gap, least ratio within reach and where. By family: the same for all at once."""
    units = ground.units(limit_s)
    reference = [units.deployment(*at) for at in cheapest_units(units, against, None)]
    shape = (len(families), len(PARAMETERS))
    closing, gain, gain_at = (np.full(shape, np.nan) for _ in range(3))
    sides = {f: [units.deployment(*at) for at in cheapest_units(units, f, 0)] for f in families}
    held = float(_least(reference, COMMON[0], np.ones(1))[0])
    for p, name in enumerate(PARAMETERS):
        other = _least(reference, name, factors) if name in COMMON else held
        for f, family in enumerate(families):
            if sides[family]:
                ratio = _least(sides[family], name, factors) / other
                best = int(np.argmin(ratio))
                closing[f, p], gain[f, p], gain_at[f, p] = crossing(factors, ratio, level), float(ratio[best]), factors[best]
    own = np.array([name not in (*COMMON, RATING) for name in PARAMETERS])
    together = np.full(len(families), np.nan)
    for f, family in enumerate(families):
        if sides[family]:
            good = {n: 1.0 if gain_at[f, p] > 1 else -1.0 for p, n in enumerate(PARAMETERS) if own[p] and gain_at[f, p] != 1}
            together[f] = crossing(factors, _least_of_all(sides[family], good, factors) / held, level)
    return closing, gain, gain_at, together


def _least_of_all(deployments: list[Any], directions: Mapping[str, float], factors: np.ndarray) -> np.ndarray:
    """Least cost over deployments with every parameter changed at once by each factor, in its direction."""
    rows, tiled = crossed(rows_of(deployments), len(factors)), np.tile(factors, len(deployments))
    for name, direction in directions.items():
        rows = PARAMETERS[name](rows, tiled**direction)
    return costs(rows).reshape(len(deployments), len(factors)).min(axis=0)


def _least(deployments: list[Any], name: str, factors: np.ndarray) -> np.ndarray:
    """Least cost over deployments with one parameter scaled by each factor."""
    rows = crossed(rows_of(deployments), len(factors))
    changed = PARAMETERS[name](rows, np.tile(factors, len(deployments)))
    return costs(changed).reshape(len(deployments), len(factors)).min(axis=0)


WORDS = {
    "family": ("family", "1"),
    "limit": ("limit on the time per output token", "s"),
    "changed": ("parameter that is changed", "1"),
    "alone": ("least cost of a token for one user", "USD/Mtoken"),
    "best": ("least cost of a token at the best batch", "USD/Mtoken"),
    "batched": ("least cost of a token of the reference family at its best batch", "USD/Mtoken"),
    "ratio": ("cost for one user over the batched cost of the reference family", "1"),
    "own_ratio": ("cost for one user over the family's own cost at the best batch", "1"),
    "closing": ("factor on a parameter at which one user pays no more than the level times the batched price", "1"),
    "gain_at": ("factor on the parameter at which that ratio is least", "1"),
    "together": ("factor by which every parameter of the chip must improve at once", "1"),
    "gain": ("least ratio with the parameter anywhere within reach", "1"),
}
SINGLE_USER = Kind(answer, niches)
