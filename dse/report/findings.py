"""What do the analyses of a result say, in a sentence and in numbers each? For the terminal and for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import xarray as xr

from dse.report import uncertainty
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


FINDERS: dict[str, Callable[[xr.Dataset], Finding]] = {"uncertainty": _uncertainty}


def findings(ds: xr.Dataset, what: Sequence[str]) -> dict[str, Finding]:
    """What some analyses found."""
    return {name: FINDERS[name](ds) for name in what if name in FINDERS}
