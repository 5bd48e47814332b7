"""What do stated clusters cost and how fast are they, each in its own layout? Every batch and format: the cheapest, and by limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.answers.ground import Ground, Kind, table
from dse.evaluate import as_floats, evaluate
from dse.types import Deployment, Layout

if TYPE_CHECKING:
    import xarray as xr

BATCH = np.array([2.0 ** (k / 4) for k in range(57)])  # requests at the same time: quarters of octaves
GIGA = 1e-9
KEYS = ("usd_per_million_output_token", "tpot_s", "output_token_per_s_per_chip", "batch")


def answer(ground: Ground, given: Mapping[str, Any]) -> xr.Dataset:
    """Cost, time per token, throughput and batch of each cluster at its cheapest, without a limit and under each of the study's."""
    study, catalog = ground.study, ground.catalog
    clusters, limits = given["clusters"], (np.inf, *study.limits.tpot)
    shape = (len(study.workloads), len(clusters), len(limits))
    found = {name: np.full(shape, np.nan) for name in KEYS}
    form = np.full(shape, "", object)
    most, weights = np.zeros(shape[:2]), np.full(shape[:2], np.nan)
    for j, cluster in enumerate(clusters):
        degrees: dict[str, Any] = {name: float(cluster.get(name, 1)) for name in ("tp", "pp", "dp", "ep")}
        for i, workload in enumerate(study.workloads):
            for name in cluster["formats"]:
                m = evaluate(
                    Deployment(
                        chip=as_floats(catalog.chips[cluster["chip"]]),
                        model=as_floats(catalog.models[study.headline.model]),
                        workload=as_floats(catalog.workloads[workload]),
                        layout=Layout(batch=np.maximum(BATCH, degrees["dp"]), format=name, **degrees),
                        prices=as_floats(catalog.prices[study.headline.scenario]),
                    )
                )
                fits = np.broadcast_to(np.asarray(m.feasible), BATCH.shape)
                most[i, j] = max(most[i, j], float(np.max(np.asarray(m.batch), where=fits, initial=0.0)))
                weights[i, j] = np.fmin(weights[i, j], float(np.max(np.asarray(m.memory_byte_per_chip.weights))) * GIGA)
                values = {key: np.broadcast_to(np.asarray(getattr(m, key)), BATCH.shape) for key in KEYS}
                for t, limit in enumerate(limits):
                    cost = np.where(fits & (values["tpot_s"] <= limit), values["usd_per_million_output_token"], np.inf)
                    k = int(cost.argmin())
                    if cost[k] < np.nan_to_num(found["usd_per_million_output_token"][i, j, t], nan=np.inf):
                        form[i, j, t] = name
                        for key in KEYS:
                            found[key][i, j, t] = values[key][k]
    dims = ("workload", "cluster", "limit")
    said: dict[str, Any] = {key: (dims, value) for key, value in found.items()}
    said |= {"format": (dims, form), "most": (dims[:2], most), "weights": (dims[:2], weights)}
    said["chips"] = ("cluster", np.array([float(np.prod([c.get(n, 1) for n in ("tp", "pp", "dp")])) for c in clusters]))
    names = {"workload": list(study.workloads), "cluster": [c["name"] for c in clusters], "limit": [float(x) for x in limits]}
    out = table(said, names, WORDS)
    head = study.headline
    out.attrs = {
        "workload": head.workload,
        "scenario": head.scenario,
        "tpot_s": head.tpot,
        "model": catalog.records["models"][head.model].name,
    }
    return out


WORDS = {
    "workload": ("workload", "1"),
    "cluster": ("stated cluster", "1"),
    "limit": ("limit on the time per output token, infinite for none", "s"),
    "usd_per_million_output_token": ("cost of a million output tokens", "USD"),
    "tpot_s": ("time per output token", "s"),
    "output_token_per_s_per_chip": ("output tokens a second and chip", "1/s"),
    "batch": ("requests at the same time", "1"),
    "format": ("format of the weights", "1"),
    "most": ("most requests that fit at the same time", "1"),
    "weights": ("weights on the fullest chip, narrowest format", "GB"),
    "chips": ("chips", "1"),
}
CLUSTERS = Kind(answer)
