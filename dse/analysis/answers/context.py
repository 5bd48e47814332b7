"""What does context cost? Least cost of a token, requests that an instance holds, and what the cache takes, by context and family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.answers.bands import SAMPLES, banded, draws_of
from dse.analysis.answers.ground import Ground, Kind, table
from dse.analysis.niches import Niche
from dse.analysis.units import value

if TYPE_CHECKING:
    import xarray as xr


def niches(ground: Ground, given: Mapping[str, Any]) -> list[Niche]:
    """One chip for every context."""
    limit = (ground.limit(given),)
    return [Niche(_case(ground, c), limit) for c in given["contexts"]]


def _case(ground: Ground, context: float) -> Any:
    return replace(ground.case, workload=replace(ground.case.workload, input_tokens=float(context)))


def answer(ground: Ground, given: Mapping[str, Any]) -> xr.Dataset:
    """Arrays (family, context) of each family's cheapest unit."""
    limit, contexts, families = ground.limit(given), list(given["contexts"]), list(ground.families)
    names = ("cost", "batch_per_chip", "batch", "chips", "kv_share", "kv_time_share", "prefill_time_share", "kv_byte")
    found = {name: np.full((len(families), len(contexts)), np.nan) for name in names}
    draws, sampled = draws_of(ground, ground.study.seed), np.full((len(families), len(contexts), SAMPLES), np.nan)
    for c, context in enumerate(contexts):
        units = ground.units(limit, workload=_case(ground, context).workload)
        m = units.metrics
        for f, family in enumerate(families):
            if family not in units.families:
                continue
            at = units.best(family)
            chips, batch = float(value(m, "chips")[at]), units.batches[at[1]]
            memory, time = m.memory_byte_per_chip, m.time_s
            row = {
                "cost": float(units.cost()[at]),
                "batch_per_chip": batch / chips,
                "batch": batch,
                "chips": chips,
                "kv_share": float(np.asarray(memory.kv)[at] / np.asarray(memory.capacity)[at]),
                "kv_time_share": float(np.asarray(time.kv)[at] / np.asarray(m.tpot_s)[at]),
                "prefill_time_share": float(np.asarray(time.prefill)[at] / np.asarray(m.tpot_s)[at]),
                "kv_byte": float(np.asarray(memory.kv)[at]) * chips / batch,
            }
            sampled[f, c] = draws.cost(units, at)
            for name, x in row.items():
                found[name][f, c] = x
    values: dict[str, Any] = {name: (("family", "context"), x) for name, x in found.items()}
    values |= banded("cost", ("family", "context"), sampled)
    ds = table(values, {"family": families, "context": [float(x) for x in contexts]}, WORDS)
    ds.attrs = {"tpot_s": limit, "output_tokens": float(ground.case.workload.output_tokens), "ttft_s": float(ground.case.ttft_limit_s)}
    return ds


WORDS = {
    "family": ("family", "1"),
    "context": ("input tokens of a request", "token"),
    "cost": ("least cost of a token", "USD/Mtoken"),
    "batch_per_chip": ("requests at the same time for each chip of the cheapest instance", "request"),
    "batch": ("requests at the same time in the cheapest instance", "request"),
    "chips": ("chips of the cheapest instance", "1"),
    "kv_share": ("share of the memory that the cache takes", "1"),
    "kv_time_share": ("share of a token's time in which the cache is read", "1"),
    "prefill_time_share": ("share of a token's time in which prompts of others are read", "1"),
    "kv_byte": ("cache of one request, over all chips", "byte"),
}
CONTEXT = Kind(answer, niches)
