"""How much would a search anew change a sample? Its costs beside those of the front's designs, into the Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def compared(ds: Any, names: Sequence[str], chosen: np.ndarray, again: np.ndarray) -> Any:
    """The Dataset with costs of the same samples by both ways: ``cost_rechosen`` and ``cost_reoptimised``, (redesigned, resample).

    Args:
        ds: Dataset. names: Families. chosen, again: Costs, arrays (families, samples) [USD/Mtoken]; inf where nothing is feasible.
    """
    drop = [d for d in ("redesigned", "resample") if d in ds.dims]
    out = ds.drop_dims(drop).assign_coords(redesigned=list(names), resample=np.arange(chosen.shape[1]))
    said = {"cost_rechosen": "designs of the front, layouts chosen anew", "cost_reoptimised": "designs searched anew"}
    for name, values in (("cost_rechosen", chosen), ("cost_reoptimised", again)):
        attrs = {"units": "USD/Mtoken", "better": "lower", "long_name": f"cost of a sample, {said[name]}"}
        out[name] = (("redesigned", "resample"), np.where(np.isfinite(values), values, np.nan), attrs)
    for dim, text in (("redesigned", "family"), ("resample", "sample of all uncertain inputs")):
        out[dim].attrs = {"units": "1", "better": "none", "long_name": text}
    return out
