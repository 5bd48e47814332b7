"""What do the analyses of a result say, in a sentence and in numbers each? For the terminal and for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import xarray as xr

from dse.report import breakeven, info, limits, redesign, regret, uncertainty
from dse.report import view as V

Finding = dict[str, Any]


def _uncertainty(ds: xr.Dataset) -> Finding:
    case, limit_s = V.headline(ds)
    chance, band, share = uncertainty.chances(ds, case, "probability"), uncertainty.bands(ds, case, "bands"), uncertainty.shares(ds)
    said = " ".join([chance.caption, band.caption, share.caption if share else ""]).strip()
    return {
        "said": said,
        "headline": {"model": case.model, "workload": case.workload, "scenario": case.scenario, "tpot_limit_s": limit_s},
        "probability_cheapest": dict(uncertainty.ranking(ds, case, limit_s)),
        "bands": band.rows,
        "probabilities": chance.rows,
        "variance": share.rows if share else [],
        "facts": V.attr(ds, "uncertainty", {}),
    }


def _elasticity(ds: xr.Dataset) -> Finding:
    record = info.tornado(ds)
    case, limit_s = V.headline(ds)
    here = ds.sel(model=case.model, workload=case.workload, scenario=case.scenario).sel(tpot_limit=limit_s, method="nearest")
    families = [str(f) for f in ds["elasticity_family"].values]
    table = {
        f: {n: _row(here[v].sel(elasticity_family=f), d) for n, v, d in TABLES if v in ds}
        for f in families
    }  # fmt: skip
    return {"said": record.caption if record else "No family meets the headline's limit.", "headline": table}


TABLES = (("cost", "front_elasticity", "parameter"), ("time", "tpot_elasticity", "rate"), ("limit", "limit_elasticity", "held_by"))


def _row(values: xr.DataArray, dim: str) -> dict[str, float]:
    return {str(k): float(x) for k, x in zip(values[dim].values, values.values, strict=True)}


def _redesign(ds: xr.Dataset) -> Finding:
    record = redesign.redesign(ds)
    return {"said": record.caption if record else "One competitor only.", "rows": record.rows if record else []}


def _limits(ds: xr.Dataset) -> Finding:
    record = limits.limit_map(ds)
    return {"said": record.caption if record else "No map in this result.", "rows": record.rows if record else []}


def _breakeven(ds: xr.Dataset) -> Finding:
    found = [breakeven.flips(ds, a) for a in breakeven.comparisons(ds)]
    pairs = [p for a in breakeven.comparisons(ds) if (p := breakeven.pair(ds, a))]
    said = " ".join([*(f.caption for f in found), *(p.caption for p in pairs)])
    return {
        "said": said or "There is one competitor only.",
        "flips": {f.against: f.rows for f in found},
        "never": {f.against: list(f.never) for f in found},
        "pairs": {p.name: p.rows for p in pairs},
    }


def _flips(ds: xr.Dataset) -> Finding:
    return {"said": breakeven.checked(ds) or "No flip was followed.", "rows": breakeven.followed(ds)}


def _regret(ds: xr.Dataset) -> Finding:
    record = regret.regret(ds)
    return {"said": record.caption if record else "No design serves any case.", "rows": record.rows if record else []}


FINDERS: dict[str, Callable[[xr.Dataset], Finding]] = {
    "elasticity": _elasticity,
    "limits": _limits,
    "uncertainty": _uncertainty,
    "redesign": _redesign,
    "breakeven": _breakeven,
    "flips": _flips,
    "regret": _regret,
}


def findings(ds: xr.Dataset, what: Sequence[str]) -> dict[str, Finding]:
    """What some analyses found."""
    return {name: FINDERS[name](ds) for name in what if name in FINDERS}
