"""From which volume and model life do chips pay that die with their model? Masks of a few layers, of more, or a beam instead of masks.

Cost of a token on the family's best chip for each (wafers of one model, life of a model, way of writing the weights), over that of the best
chip that can be reprogrammed; and for each volume the shortest life at which both cost the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.answers.bands import SAMPLES, banded, draws_of
from dse.analysis.answers.ground import Ground, Kind, table
from dse.analysis.answers.single_user import cheapest_units, crossing
from dse.analysis.many import costs, crossed, rows_of
from dse.analysis.niches import Niche
from dse.analysis.units import Units
from dse.catalog import Catalog
from dse.types import Deployment, Prices
from dse.units import to_si

if TYPE_CHECKING:
    import xarray as xr

MASKS, WRITTEN, RATE = "special.custom_masks", "special.written_share", "special.written_rate"
ENDS = 2  # corners of volume and life for which chips are bred


def years(lives_s: Sequence[float]) -> list[float]:
    """Lives in years."""
    return [x / to_si(1.0, "year") for x in lives_s]


def priced(prices: Prices, wafers: Any, life_year: Any) -> Prices:
    """An owner who makes so many wafers of one model, which lives so long."""
    return replace(prices, model_volume_wafer=wafers, model_life_year=life_year)


def niches(ground: Ground, given: Mapping[str, Any]) -> list[Niche]:
    """Corners of the map of volume and life."""
    limit, prices = (ground.limit(given),), ground.case.prices[0]
    lives = years(given["lives"])
    corners = [(w, life) for w in (given["wafers"][0], given["wafers"][-1]) for life in (lives[0], lives[-1])]
    return [Niche(replace(ground.case, prices=(priced(prices, w, life),)), limit) for w, life in corners]


def ways(ground: Ground, given: Mapping[str, Any]) -> dict[str, Catalog]:
    """How the weights come onto the wafer: name to the catalogue in which they do."""
    record = ground.catalog.records["families"][given["family"]]

    def changed(**values: float) -> Catalog:
        new = {name: replace(record.values[name], value=x) for name, x in values.items()}
        families = {**ground.catalog.records["families"], record.id: replace(record, values={**record.values, **new})}
        return Catalog({**ground.catalog.records, "families": families}, ground.catalog.sources, ground.catalog.files)

    found = {f"{count:g} masks a die": changed(**{MASKS: count}) for count in given["masks"]}
    beam = {f"beam, {rate:g} wafer/h a layer": changed(**{WRITTEN: 1.0, RATE: to_si(rate, "1/hour")}) for rate in given["beam_rates"]}
    return found | beam


def answer(ground: Ground, given: Mapping[str, Any]) -> xr.Dataset:
    """Ratio of costs over wafers, lives and ways; break-even lives; what longer life by update layers would save."""
    limit, family = ground.limit(given), given["family"]
    units, lives, wafers = ground.units(limit), years(given["lives"]), np.array(given["wafers"])
    reference = {f: float(units.curve(f).min()) for f in (given["against"], *(["existing"] if "existing" in ground.families else []))}
    at = cheapest_units(units, family, None)
    named = ways(ground, given)
    ratio = np.full((len(named), len(wafers), len(lives)), np.nan)
    for k, catalog in enumerate(named.values()):
        if at and np.isfinite(reference[given["against"]]):
            own = [replace(units.deployment(*x), chip=ground.rebuild(units.known[x[0]], catalog)) for x in at]
            ratio[k] = _map(own, wafers, lives) / reference[given["against"]]
    needed = np.array([[shortest_life(np.array(lives), row) for row in rows] for rows in ratio])
    prices = ground.case.prices[0]
    values: dict[str, Any] = {
        "ratio": (("way", "wafers", "life"), ratio),
        "life_needed": (("way", "wafers"), needed),
        "reference": ("against", np.array(list(reference.values()))),
        "share_rewritable": ((), _rewritable(units, at)),
    }
    if at and np.isfinite(reference[given["against"]]):
        values |= uncertain(ground, units, given, wafers, lives, needed.shape[0])
    coords = {"way": list(named), "wafers": wafers, "life": np.array(lives), "against": list(reference)}
    ds = table(values, coords, WORDS)
    ds.attrs = {
        "family": family, "against": given["against"], "tpot_s": limit, "wafers": float(prices.model_volume_wafer),
        "life_year": float(prices.model_life_year), "update_life": given["update_life"],
        "masks": float(ground.catalog.records["families"][family].values[MASKS].value),
    }  # fmt: skip
    return ds


def uncertain(
    ground: Ground, units: Units, given: Mapping[str, Any], wafers: np.ndarray, lives: Sequence[float], count: int
) -> dict[str, Any]:
    """Bands for the family's own masks, cheapest units of both sides held: ratio and break-even life; nan for the other ways."""
    draws = draws_of(ground, ground.study.seed)
    mine, other = units.best(given["family"]), units.best(given["against"])
    owner, batched = draws.prices(ground.study.headline.scenario), draws.cost(units, other)
    dims = (count, len(wafers), len(lives))
    ratio, needed = np.full((*dims, SAMPLES), np.nan), np.full((*dims[:2], SAMPLES), np.nan)
    own = list(ways(ground, given)).index(own_way(ground, given))
    for w, volume in enumerate(wafers):
        for y, life in enumerate(lives):
            ratio[own, w, y] = draws.cost(units, mine, priced(owner, np.full(SAMPLES, volume), np.full(SAMPLES, life))) / batched
        needed[own, w] = [shortest_life(np.array(lives), row) for row in ratio[own, w].T]
    found = dict(banded("ratio", ("way", "wafers", "life"), ratio))
    return found | dict(banded("life_needed", ("way", "wafers"), np.where(np.isinf(needed), 1 / np.finfo(np.float32).tiny, needed)))


def own_way(ground: Ground, given: Mapping[str, Any]) -> str:
    """The way with the family's own number of masks; the first where the study does not ask for it."""
    own = f"{ground.catalog.records['families'][given['family']].values[MASKS].value:g} masks a die"
    names = [f"{count:g} masks a die" for count in given["masks"]]
    return own if own in names else names[0]


def shortest_life(lives: np.ndarray, ratio: np.ndarray) -> float:
    """Life at which a falling ratio of costs comes down to 1: 0 where it is below throughout, inf where nowhere, nan if not known."""
    if not np.isfinite(ratio).all():
        return float("nan")
    if (ratio <= 1).all():
        return 0.0
    return crossing(lives, ratio, 1.0) if (ratio <= 1).any() else float("inf")


def _map(deployments: Sequence[Deployment], wafers: np.ndarray, lives: Sequence[float]) -> np.ndarray:
    """Least cost over deployments at every volume and life: array (wafers, lives)."""
    w, life = (x.ravel() for x in np.meshgrid(wafers, lives, indexing="ij"))
    rows = crossed(rows_of(deployments), len(w))
    rows = replace(rows, prices=priced(rows.prices, np.tile(w, len(deployments)), np.tile(life, len(deployments))))
    return costs(rows).reshape(len(deployments), len(wafers), len(lives)).min(axis=0)


def _rewritable(units: Any, at: Sequence[tuple[int, int]]) -> float:
    """Rewritable store beside the weights of the cheapest design, as a share of their store."""
    if not at:
        return float("nan")
    chip = units.known[at[0][0]].chip
    return float(chip.sram.capacity_byte / chip.weight_store.capacity_byte) if float(chip.weight_store.capacity_byte) > 0 else float("nan")


WORDS = {
    "way": ("how the weights come onto the wafer", "1"),
    "wafers": ("wafers of one model", "wafer"),
    "life": ("life of a model", "year"),
    "against": ("what is compared with", "1"),
    "ratio": ("cost of a token over that of the reference family", "1"),
    "life_needed": ("life of a model at which both cost the same; 0: always cheaper, inf: never within the range", "year"),
    "reference": ("least cost of a token of what is compared with", "USD/Mtoken"),
    "share_rewritable": ("rewritable store over the store of burned-in weights", "1"),
}
VOLUME = Kind(answer, niches)
