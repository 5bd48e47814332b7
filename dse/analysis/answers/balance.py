"""How many operations does a chip do for each byte of weights that it can read? Winners at each speed, and chips that exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.answers.bands import SAMPLES, banded, draws_of
from dse.analysis.answers.ground import Ground, Kind, table
from dse.analysis.units import EXISTING
from dse.types import Chip

if TYPE_CHECKING:
    import xarray as xr


def balance(chip: Chip) -> Any:
    """8-bit operations for each byte of the store that holds the weights [FLOP/byte]; 0 where weights do not move."""
    burned = np.max(chip.weight_store.capacity_byte) > 0
    store = chip.weight_store if burned else chip.memory if np.max(chip.memory.capacity_byte) > 0 else chip.sram
    return np.asarray(chip.peak_flop_per_s.fp8) * np.asarray(store.s_per_byte)


def answer(ground: Ground, given: Mapping[str, Any]) -> xr.Dataset:
    """Balance of the cheapest design of each family at every limit of the headline case, and of every chip that exists."""
    head, ds = ground.study.headline, ground.result
    assert ds is not None
    case = ds.sel(model=head.model, workload=head.workload, scenario=head.scenario)
    cost = case["usd_per_million_output_token"].transpose("tpot_limit", "design").values
    chips = {k.id: k for k in ground.known}
    ids = [str(x) for x in ds["design"].values]
    families, limits = [f for f in ground.families if f != EXISTING], [float(x) for x in ds["tpot_limit"].values]
    found = np.full((len(families), len(limits)), np.nan)
    draws, drawn = draws_of(ground, ground.study.seed), np.full((len(families), len(limits), SAMPLES), np.nan)
    place = {k.id: i for i, k in enumerate(ground.known)}
    for f, family in enumerate(families):
        mine = np.array([i in chips and chips[i].family == family for i in ids])
        for t in range(len(limits)):
            row = np.where(mine & np.isfinite(cost[t]), cost[t], np.inf)
            if np.isfinite(row.min()):
                at = place[ids[int(row.argmin())]]
                found[f, t] = balance(ground.known[at].chip)
                draws.need([at])
                drawn[f, t] = balance(draws.chips[at])
    real = [k for k in ground.known if k.family == EXISTING]
    values = {
        "balance": (("family", "limit"), found),
        **banded("balance", ("family", "limit"), drawn),
        "market_balance": ("market", np.array([float(balance(k.chip)) for k in real] or [np.nan])),
        "market_name": ("market", np.array([k.name for k in real] or [""], object)),
    }
    out = table(values, {"family": families, "limit": limits, "market": [k.id for k in real] or ["none"]}, WORDS)
    out.attrs = {"tpot_s": head.tpot}
    return out


WORDS = {
    "family": ("family", "1"),
    "limit": ("limit on the time per output token", "s"),
    "market": ("chip that exists", "1"),
    "market_name": ("name", "1"),
    "balance": ("8-bit operations for each byte of weight bandwidth of the cheapest design", "FLOP/byte"),
    "market_balance": ("8-bit operations for each byte of weight bandwidth", "FLOP/byte"),
}
BALANCE = Kind(answer)
