"""How many operations does a chip do for each byte of weights that it can read? Winners at each speed, and chips that exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.answers.ground import Ground, Kind, table
from dse.analysis.units import EXISTING
from dse.types import Chip

if TYPE_CHECKING:
    import xarray as xr


def balance(chip: Chip) -> float:
    """8-bit operations for each byte of the store that holds the weights [FLOP/byte]; 0 where weights do not move."""
    burned = float(chip.weight_store.capacity_byte) > 0
    store = chip.weight_store if burned else chip.memory if float(chip.memory.capacity_byte) > 0 else chip.sram
    return float(chip.peak_flop_per_s.fp8 * store.s_per_byte)


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
    for f, family in enumerate(families):
        mine = np.array([i in chips and chips[i].family == family for i in ids])
        for t in range(len(limits)):
            row = np.where(mine & np.isfinite(cost[t]), cost[t], np.inf)
            if np.isfinite(row.min()):
                found[f, t] = balance(chips[ids[int(row.argmin())]].chip)
    real = [k for k in ground.known if k.family == EXISTING]
    values = {
        "balance": (("family", "limit"), found),
        "market_balance": ("market", np.array([balance(k.chip) for k in real] or [np.nan])),
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
