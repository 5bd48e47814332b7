"""Rent, buy, or have a chip made: what do all tokens of a service cost together, and from how many on does a design of one's own pay?

Rent and purchase cost the same for every token. A chip of one's own costs design and masks once (with the same annuity as other capital),
and then less a token; chips that die with their model pay their masks again for each model. What a family's best design is depends on how
many tokens it is for, so each point takes the cheapest of all its chips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.answers.bands import SAMPLES, banded, draws_of
from dse.analysis.answers.ground import Ground, Kind, table
from dse.analysis.units import EXISTING, Units, units_of, value, with_prices
from dse.equations import finance
from dse.types import Prices
from dse.units import to_si

if TYPE_CHECKING:
    import xarray as xr

MILLION = 1e6
NEVER = 1e30  # tokens: more than any service makes
RENTED, BOUGHT = "rented", "bought"


def once_of(chip: Any, chips: Any, prices: Prices, horizon_year: float) -> Any:
    """Design and masks of a chip over the horizon with interest [USD]; ``chips`` of an instance, each its own kind where burned in."""
    models = np.maximum(horizon_year / np.asarray(prices.model_life_year, float), 1.0)
    spread = np.asarray(finance.annuity(prices.discount_per_year, horizon_year)) * horizon_year
    return (np.asarray(chip.nre_usd) + np.asarray(chip.nre_model_usd) * chips * models) * spread


def once_usd(units: Units, prices: Prices, horizon_year: float) -> np.ndarray:
    """Design and masks of each unit's chip over the horizon with interest, array (chip, batch); masks of a model for each model."""
    chips = value(units.metrics, "chips")
    return np.stack([once_of(k.chip, row, prices, horizon_year) for k, row in zip(units.known, chips, strict=True)])


def answer(ground: Ground, given: Mapping[str, Any]) -> xr.Dataset:
    """Total cost by option and lifetime tokens, and where a chip of one's own begins to pay."""
    limit, tokens = ground.limit(given), np.array(given["tokens"])
    horizon = given["horizon"] / to_si(1.0, "year")
    made_by = replace(ground.prices[given["made"]], nre_share=0.0)
    units = ground.units(limit)
    case = with_prices(ground.case, made_by)
    own = units_of(ground.known, case, ground.grid, limit, ground.batches())
    market = {RENTED: ground.units(limit, given["rented"]), BOUGHT: ground.units(limit, given["bought"])}
    families = [f for f in units.families if f != EXISTING]
    slopes = {name: float(u.curve(EXISTING).min()) for name, u in market.items() if EXISTING in u.families}
    fixed = once_usd(own, ground.prices[given["made"]], horizon)
    total, marginal, once, chip_at = [], [], [], []
    for family in families:
        mine = own.feasible & own.of(family)[:, None]
        a, b = fixed[mine], own.cost()[mine] / MILLION
        whole = a[:, None] + b[:, None] * tokens
        best = whole.argmin(axis=0)
        total.append(whole.min(axis=0))
        marginal.append(b[best] * MILLION)
        once.append(a[best])
        chip_at.append(np.nonzero(mine)[0][best].astype(float))
    flat = [np.array(s) / MILLION * tokens for s in slopes.values()]
    needed = np.array([[_crossing(tokens, own_total, line) for line in flat] for own_total in total])
    values: dict[str, Any] = {
        "own_total": (("family", "tokens"), np.array(total)),
        "own_marginal": (("family", "tokens"), np.array(marginal)),
        "own_once": (("family", "tokens"), np.array(once)),
        "market_total": (("option", "tokens"), np.array(flat)),
        "market_cost": ("option", np.array(list(slopes.values()))),
        "tokens_needed": (("family", "option"), needed),
    }
    if slopes:
        values |= uncertain(ground, given, own, market, families, needed)
    ds = table(values, {"family": families, "tokens": tokens, "option": list(slopes)}, WORDS)
    chips = {n: u.known[u.best(EXISTING)[0]].name for n, u in market.items() if n in slopes}
    ds.attrs = {"tpot_s": limit, "horizon_year": horizon, "market_chips": chips, "made": given["made"]}
    return ds


def uncertain(
    ground: Ground, given: Mapping[str, Any], own: Units, market: Mapping[str, Units], families: list[str], needed: np.ndarray
) -> dict[str, Any]:
    """Band of the tokens from which a chip of one's own pays: the units at the central break-even held, every input drawn."""
    draws = draws_of(ground, ground.study.seed)
    horizon = given["horizon"] / to_si(1.0, "year")
    owner = draws.prices(given["made"])
    without = replace(owner, nre_share=np.zeros(SAMPLES))
    fixed, options = once_usd(own, ground.prices[given["made"]], horizon), [n for n, u in market.items() if EXISTING in u.families]
    paid = {n: draws.cost(market[n], market[n].best(EXISTING), draws.prices(given[n])) for n in options}
    found = np.full((len(families), len(options), SAMPLES), np.inf)
    for f, family in enumerate(families):
        for o, name in enumerate(options):
            at = needed[f, o] if np.isfinite(needed[f, o]) else max(given["tokens"])
            total = np.where(own.feasible & own.of(family)[:, None], fixed + own.cost() / MILLION * at, np.inf)
            chip, batch = np.unravel_index(int(np.argmin(total)), total.shape)
            marginal = draws.cost(own, (int(chip), int(batch)), without)
            once = once_of(draws.chips[int(chip)], float(value(own.metrics, "chips")[chip, batch]), owner, horizon)
            saved = (paid[name] - marginal) / MILLION
            found[f, o] = np.where(saved > 0, once / np.where(saved > 0, saved, 1.0), NEVER)
    return dict(banded("tokens_needed", ("family", "option"), found))


def _crossing(tokens: np.ndarray, own: np.ndarray, market: np.ndarray) -> float:
    """Tokens from which one's own chip costs less than the market; inf where it never does, straight lines between points."""
    lead = market - own
    ahead = np.flatnonzero(lead >= 0)
    if not len(ahead):
        return float("inf")
    i = int(ahead[0])
    if i == 0:
        return float(tokens[0])
    share = lead[i - 1] / (lead[i - 1] - lead[i])
    return float(tokens[i - 1] + share * (tokens[i] - tokens[i - 1]))


WORDS = {
    "family": ("family", "1"),
    "tokens": ("output tokens over the horizon", "token"),
    "option": ("how chips of the market are had", "1"),
    "own_total": ("total cost with a chip of one's own", "USD"),
    "own_marginal": ("cost of a token without design and masks", "USD/Mtoken"),
    "own_once": ("design and masks over the horizon, with interest", "USD"),
    "market_total": ("total cost with chips of the market", "USD"),
    "market_cost": ("cost of a token with chips of the market", "USD/Mtoken"),
    "tokens_needed": ("tokens from which a chip of one's own costs less", "token"),
}
OWNERSHIP = Kind(answer)
