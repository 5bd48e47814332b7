"""What does a token cost for one user, for a hundred, for a million? By requests at the same time, and by users with their hours.

Two curves of each family. *By load*: one instance that is always busy, on the chip and layout that are cheapest for that many requests;
more requests than its best batch are served by more instances, so the curve never rises. *By users*: so many people, each for some time a
day, with a peak; instances are bought for the peak in whole numbers and paid around the clock, so utilisation follows from demand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis import demand as formulas
from dse.analysis.answers.bands import SAMPLES, Draws, banded, draws_of
from dse.analysis.answers.ground import Ground, Kind, table
from dse.analysis.niches import Niche
from dse.analysis.units import Units, value
from dse.catalog import Catalog
from dse.evaluate import as_floats, evaluate
from dse.search.finalists import Finalist
from dse.types import Deployment, Layout

if TYPE_CHECKING:
    import xarray as xr

MILLION = 1e6
FIXED = ("capital", "system", "nre", "site")
WITHIN = 2.0  # demand is said for this multiple of the least cost


def niches(ground: Ground, given: Mapping[str, Any]) -> list[Niche]:
    """One chip for each number of requests, every second one of the grid."""
    limit = ground.limit(given)
    return [Niche(ground.case, (limit,), (b,)) for b in ground.batches()[::2]]


def service(units: Units, family: str, token_per_s: np.ndarray, peak: float) -> dict[str, np.ndarray]:
    """The cheapest way of one family to serve a mean rate of output tokens that peaks ``peak`` times as high: arrays (rate,).

    Whole instances carry the peak and are paid for always; energy is paid for tokens. Returns cost [USD/Mtoken], instances, chips,
    batch at the peak, utilisation (mean), and the position of the unit (chip, batch).
    """
    mine = units.feasible & units.of(family)[:, None]
    who, at = np.nonzero(mine)
    if not len(who):
        return {}
    m = units.metrics
    fixed = sum(value(m, f"cost.{name}")[who, at] for name in FIXED)
    chips = value(m, "chips")[who, at]
    rate = value(m, "output_token_per_s_per_chip")[who, at] * chips
    energy = value(m, "cost.energy")[who, at] / rate  # USD per token
    count = np.maximum(np.ceil(peak * token_per_s[:, None] / rate), 1.0)
    cost = count * fixed / token_per_s[:, None] + energy
    best = np.argmin(cost, axis=1)
    pick = np.arange(len(best)), best
    share = peak * token_per_s / (count[pick] * rate[best])  # of an instance's batch in use at the peak
    return {
        "cost": cost[pick] * MILLION,
        "instances": count[pick],
        "chips": count[pick] * chips[best],
        "peak_batch": share * np.array(units.batches)[at[best]],
        "utilisation": share / peak,
        "chip": who[best].astype(float),
        "at": at[best].astype(float),
        "energy": energy[best] * MILLION,
        "floor": np.full(len(best), float(np.min(peak * fixed / rate + energy)) * MILLION),
    }


def users_within(users: np.ndarray, cost: np.ndarray, floor: float, factor: float = WITHIN) -> float:
    """Fewest users at which a token costs at most ``factor`` times the floor, by a power law between points; nan where none does."""
    met = np.flatnonzero(cost <= factor * floor)
    if not len(met):
        return float("nan")
    i = int(met[0])
    if i == 0:
        return float(users[0])
    level, x, y = np.log(factor * floor), np.log(users), np.log(cost)
    share = (y[i - 1] - level) / (y[i - 1] - y[i])
    return float(np.exp(x[i - 1] + share * (x[i] - x[i - 1])))


def answer(ground: Ground, given: Mapping[str, Any]) -> xr.Dataset:
    """Curves by load and by users, and what stands beside them for contrast."""
    limit = ground.limit(given)
    units = ground.units(limit)
    families = units.families
    loads, users = np.array(units.batches), np.array(given["users"])
    per_user = given["use_time"] / limit / formulas.DAY_S  # tokens a second of one user at the promised speed, mean of a day
    curves = np.array([np.minimum.accumulate(units.curve(f)) for f in families])
    met = [np.isfinite(c) for c in curves]
    alone = curves[:, 0]
    best = curves[:, -1]
    needed = [formulas.batch_within(loads[k], c[k], WITHIN) if k.any() else np.nan for k, c in zip(met, curves, strict=True)]
    served = [service(units, f, users * per_user, given["peak"]) for f in families]
    smallest = [float(np.nanmin(value(units.metrics, "chips")[units.of(f)])) for f in families]
    joule = value(units.metrics, "j_per_output_token")
    first = [joule[units.best(f, 0)] if np.isfinite(a) else np.nan for f, a in zip(families, alone, strict=True)]
    names = ("cost", "instances", "chips", "peak_batch", "utilisation", "energy")
    by_users = {f"users_{n}": (("family", "users"), np.array([s[n] for s in served])) for n in names}
    floors = np.array([s["floor"][0] for s in served])
    values = {
        "load_cost": (("family", "load"), np.where(np.isfinite(curves), curves, np.nan)),
        "alone_cost": ("family", np.where(np.isfinite(alone), alone, np.nan)),
        "best_cost": ("family", best),
        "ratio": ("family", np.where(np.isfinite(alone), alone / best, np.nan)),
        "load_needed": ("family", np.array(needed)),
        "smallest_chips": ("family", np.array(smallest)),
        "alone_j": ("family", np.array(first)),
        "best_j": ("family", np.array([joule[units.best(f)] for f in families])),
        "users_floor": ("family", floors),
        "users_needed": ("family", np.array([users_within(users, s["cost"], f) for s, f in zip(served, floors, strict=True)])),
        **by_users,
    }
    values |= uncertain(ground, units, families, dict(zip(families, served, strict=True)), users * per_user, given["peak"])
    values |= contrast(ground, given["contrast"])
    ds = table(values, {"family": list(families), "load": loads, "users": users, "contrast": list(given["contrast"]) or ["none"]}, WORDS)
    ds.attrs = {"tpot_s": limit, "use_s": given["use_time"], "peak": given["peak"], "token_per_user_day": given["use_time"] / limit}
    return ds


def uncertain(
    ground: Ground, units: Units, families: tuple[str, ...], served: Mapping[str, Mapping[str, np.ndarray]], rate: np.ndarray, peak: float
) -> dict[str, Any]:
    """Bands of the costs by load and by users, of the ratio and of the demand for twice the floor: units held, every input drawn."""
    draws, loads = draws_of(ground, ground.study.seed), np.array(units.batches)
    kept: dict[str, list[np.ndarray]] = {"load_cost": [], "ratio": [], "load_needed": [], "users_cost": []}
    for f in families:
        curve = units.curve(f)
        at = [units.best(f, b) if np.isfinite(curve[b]) else None for b in range(len(loads))]
        raw = np.array([draws.cost(units, x) if x is not None else np.full(SAMPLES, np.inf) for x in at])
        fallen = np.minimum.accumulate(raw, axis=0)
        known = np.isfinite(curve)
        kept["load_cost"].append(np.where(np.isfinite(fallen), fallen, np.nan))
        kept["ratio"].append(fallen[0] / fallen[-1] if known[0] else np.full(SAMPLES, np.nan))
        kept["users_cost"].append(_served(draws, units, served[f], rate, peak))
        kept["load_needed"].append(np.array([formulas.batch_within(loads[known], c[known], WITHIN) for c in fallen.T]))
    dims = {"load_cost": ("family", "load"), "ratio": "family", "load_needed": "family", "users_cost": ("family", "users")}
    return {k: v for name, x in kept.items() for k, v in banded(name, dims[name], np.array(x)).items()}


def _served(draws: Draws, units: Units, served: Mapping[str, np.ndarray], token_per_s: np.ndarray, peak: float) -> np.ndarray:
    """Cost by users under all draws, array (users, samples): the unit of each number of users held, instances counted anew."""
    places = list(zip(served["chip"].astype(int).tolist(), served["at"].astype(int).tolist(), strict=True))
    found = {}
    for at in dict.fromkeys(places):
        m = draws.metrics(units, at)
        rate = value(m, "output_token_per_s_per_chip") * value(m, "chips")
        found[at] = sum(value(m, f"cost.{name}") for name in FIXED), rate, value(m, "cost.energy") / rate
    rows = []
    for at, mean in zip(places, token_per_s, strict=True):
        fixed, rate, energy = found[at]
        rows.append((np.maximum(np.ceil(peak * mean / rate), 1.0) * fixed / mean + energy) * MILLION)
    return np.array(rows)


def contrast(ground: Ground, chips: tuple[str, ...]) -> dict[str, Any]:
    """Chips that are set beside the families: operations per byte, power, and the energy of a token for one user, with ideal constants."""
    rows = [_contrast_row(ground.catalog, ground, name) for name in chips] or [(np.nan,) * 3]
    return {
        name: ("contrast", np.array(column))
        for name, column in zip(("contrast_balance", "contrast_w", "contrast_j"), zip(*rows, strict=True), strict=True)
    }


def _contrast_row(catalog: Catalog, ground: Ground, name: str) -> tuple[float, float, float]:

    identity = catalog.resolve("chips", name)
    chip = as_floats(catalog.chips[identity])
    chip = replace(chip, kernels=as_floats(catalog.constants["ideal"]), host_share=0.0)
    own = Finalist(chip, ("fp8",))
    layout = Layout(tp=1.0, pp=1.0, cp=1.0, dp=1.0, ep=1.0, batch=1.0, format=own.formats[0])
    m = evaluate(Deployment(chip=chip, model=ground.case.model, workload=ground.case.workload, layout=layout, prices=ground.case.prices[0]))
    store = chip.memory if float(chip.memory.capacity_byte) > 0 else chip.sram
    return float(chip.peak_flop_per_s.fp8 * store.s_per_byte), float(chip.tdp_w), float(m.j_per_output_token)


WORDS = {
    "family": ("family", "1"),
    "load": ("requests at the same time", "request"),
    "users": ("users of the service", "user"),
    "contrast": ("contrast", "1"),
    "load_cost": ("least cost of a token by requests at the same time, instances always busy", "USD/Mtoken"),
    "alone_cost": ("cost of a token for one user who keeps an instance busy", "USD/Mtoken"),
    "best_cost": ("least cost of a token at the best batch", "USD/Mtoken"),
    "ratio": ("centralisation ratio: cost for one user over cost at the best batch", "1"),
    "load_needed": ("requests at the same time at which a token costs twice its least", "request"),
    "smallest_chips": ("chips of the smallest instance that keeps the limit", "1"),
    "alone_j": ("energy of a token for one user at the meter", "J"),
    "best_j": ("energy of a token at the best batch at the meter", "J"),
    "users_floor": ("cost of a token with very many users and the same peak", "USD/Mtoken"),
    "users_needed": ("users at which a token costs twice the floor", "user"),
    "users_cost": ("cost of a token by users, instances bought for the peak", "USD/Mtoken"),
    "users_instances": ("instances", "1"),
    "users_chips": ("chips of the service", "1"),
    "users_energy": ("energy of one more token: its marginal cost while the instances have room", "USD/Mtoken"),
    "users_peak_batch": ("requests in one instance at the peak", "request"),
    "users_utilisation": ("share of the capacity in use, mean of a day", "1"),
    "contrast_balance": ("operations for each byte of the store that holds the weights", "FLOP/byte"),
    "contrast_w": ("power", "W"),
    "contrast_j": ("energy of a token for one user, ideal constants", "J"),
}

DEMAND = Kind(answer, niches)
