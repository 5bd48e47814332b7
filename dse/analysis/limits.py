"""What limits where? The binding resource of a family's best designs over promised speed, context and batch.

A design of the front keeps its layout; context and batch are varied. What binds is the memory where the batch does not fit, the power
where the chip is throttled, else the largest part of the time per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.elasticity import Point
from dse.evaluate import TIME_PARTS, as_floats, evaluate
from dse.types import SLACK_TOLERANCE, Deployment

if TYPE_CHECKING:
    import xarray as xr

CAPACITY, POWER = "capacity", "power"
STATES = (*TIME_PARTS, CAPACITY, POWER)  # codes of the map
CONTEXTS = tuple(float(2**k) for k in range(10, 19))  # tokens of a prompt: 1 ki to 256 ki
BATCHES = tuple(float(2**k) for k in range(13))
EASED = 2.0  # a chip is throttled if it would be faster with this many times its power
FASTER = 1e-6  # relative


def binding(
    deployment: Deployment, contexts: Sequence[float] = CONTEXTS, batches: Sequence[float] = BATCHES
) -> tuple[np.ndarray, np.ndarray]:
    """Code of what binds, and time per token [s], arrays (contexts, batches).

    Args:
        deployment: A design in its layout. contexts: Input tokens of a request. batches: Requests at the same time.
    """
    d = as_floats(deployment)
    work = replace(d.workload, input_tokens=np.asarray(contexts, float)[:, None])
    layout = replace(d.layout, batch=np.asarray(batches, float)[None, :])
    m, cool = (evaluate(replace(d, workload=work, layout=layout, chip=replace(d.chip, tdp_w=d.chip.tdp_w * x))) for x in (1.0, EASED))
    shape = (len(contexts), len(batches))
    code = np.broadcast_to(np.asarray(m.bound), shape).copy()
    tpot = np.broadcast_to(np.asarray(m.tpot_s), shape)
    throttled = np.broadcast_to(np.asarray(cool.tpot_s), shape) < tpot * (1 - FASTER)
    code[throttled] = STATES.index(POWER)
    code[np.broadcast_to(np.asarray(m.slack.memory), shape) < SLACK_TOLERANCE] = STATES.index(CAPACITY)
    return code, tpot


def into(ds: xr.Dataset, points: Sequence[Point], families: Sequence[str]) -> xr.Dataset:
    """The Dataset with the map of the headline case: ``limit_map`` (codes, see its attribute) and ``limit_map_tpot_s``.

    Args:
        ds: Result with elasticities. points: Front points of one case and owner. families: In the order of the points' first index.
    """
    shape = (len(families), ds.sizes["tpot_limit"], len(CONTEXTS), len(BATCHES))
    codes, times = np.full(shape, -1.0), np.full(shape, np.nan)
    known: dict[tuple[Any, ...], tuple[np.ndarray, np.ndarray]] = {}
    for p in points:
        key = (
            p.design,
            *(float(getattr(p.deployment.layout, n) or 1.0) for n in ("tp", "pp", "cp", "dp", "ep")),
            str(p.deployment.layout.format),
        )
        if key not in known:
            known[key] = binding(p.deployment)
        codes[p.place[0], p.place[-1]], times[p.place[0], p.place[-1]] = known[key]
    out = ds.drop_vars([n for n in ("limit_map", "limit_map_tpot_s") if n in ds])
    out = out.assign_coords(elasticity_family=list(families), context=list(CONTEXTS), map_batch=list(BATCHES))
    for dim, text, unit in (("context", "input tokens of a request", "token"), ("map_batch", "requests at the same time", "request")):
        out[dim].attrs = {"units": unit, "long_name": text, "better": "none"}
    dims = ("elasticity_family", "tpot_limit", "context", "map_batch")
    meaning = " ".join(STATES)
    text = "what binds the family's winner at a limit, its layout kept, at other contexts and batches"
    out["limit_map"] = (dims, codes, {"units": "1", "better": "none", "long_name": text, "flag_meanings": meaning})
    out["limit_map_tpot_s"] = (dims, times, {"units": "s", "better": "lower", "long_name": "time per output token there"})
    return out
