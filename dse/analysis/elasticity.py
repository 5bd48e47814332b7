"""By how many per cent does the cost of a token move if a parameter moves by one? Exact, by automatic differentiation.

Each parameter is a group of leaves scaled together (all peaks, say). Layout and batch stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from dse.evaluate import as_floats, evaluate
from dse.types import Chip, Deployment, Layout, Number

if TYPE_CHECKING:
    import xarray as xr

Change = Callable[[Deployment, Number], Deployment]


def _chip(**changes: Callable[[Any, Number], Any]) -> Change:
    """Change of some fields of the chip by a factor."""

    def apply(d: Deployment, x: Number) -> Deployment:
        return replace(d, chip=replace(d.chip, **{k: f(getattr(d.chip, k), x) for k, f in changes.items()}))

    return apply


def _times(tree: Any, x: Number) -> Any:
    return jax.tree.map(lambda leaf: leaf * x, tree)


def _faster(record: Any, x: Number) -> Any:
    """A store or link with x times the bandwidth."""
    return replace(record, s_per_byte=record.s_per_byte / x)


def _prices(*names: str) -> Change:
    def apply(d: Deployment, x: Number) -> Deployment:
        return replace(d, prices=replace(d.prices, **{n: getattr(d.prices, n) * x for n in names}))

    return apply


def _system(*names: str) -> Change:
    def apply(d: Deployment, x: Number) -> Deployment:
        k = d.chip.kernels
        system = replace(k.system, **{n: getattr(k.system, n) * x for n in names})
        return replace(d, chip=replace(d.chip, kernels=replace(k, system=system)))

    return apply


PARAMETERS: dict[str, Change] = {
    "peak_flop_per_s": _chip(peak_flop_per_s=_times),
    "memory_bandwidth_byte_per_s": _chip(memory=_faster),
    "sram_bandwidth_byte_per_s": _chip(sram=_faster, weight_store=_faster),
    "scale_up_bandwidth_byte_per_s": _chip(scale_up=_faster),
    "scale_out_bandwidth_byte_per_s": _chip(scale_out=_faster),
    "layer_time_s": _system("layer_s", "layer_token_s"),
    "host_time_s": _system("host_s", "sequence_s"),
    "small_kernel_s": _system("small_kernel_s"),
    "energy_per_operation_j": _chip(flop_j=_times),
    "unit_cost_usd": _chip(unit_cost_usd=_times, street_usd=_times),
    "nre_usd": _chip(nre_usd=_times, nre_model_usd=_times),
    "tdp_w": _chip(tdp_w=_times),
    "volume_wafer": _prices("volume_wafer", "model_volume_wafer"),
    "server_usd": _prices("server_usd", "network_usd", "storage_usd"),
    "energy_usd_per_j": _prices("energy_usd_per_j"),
    "facility_usd_per_j": _prices("facility_usd_per_j"),
    "discount_per_year": _prices("discount_per_year"),
    "life_year": _prices("life_year"),
    "model_life_year": _prices("model_life_year"),
    "utilisation": _prices("utilisation"),
}


def log_cost(logs: dict[str, Number], deployment: Deployment) -> Number:
    """Logarithm of the cost per output token with each parameter scaled by ``exp(logs[name])``."""
    for name, x in logs.items():
        deployment = PARAMETERS[name](deployment, jnp.exp(x))
    return jnp.log(evaluate(deployment).usd_per_million_output_token)


@jax.jit
def _gradients(deployment: Deployment) -> dict[str, jax.Array]:
    shape = jnp.shape(deployment.layout.batch)
    logs = {name: jnp.zeros(shape) for name in PARAMETERS}
    return jax.grad(lambda x: jnp.sum(log_cost(x, deployment)))(logs)


def elasticities(deployments: Sequence[Deployment]) -> np.ndarray:
    """Elasticities of the cost per output token, one row a deployment in the order of ``PARAMETERS`` [1].

    All deployments must share model and workload structure; they are differentiated together.
    """
    rows = [np.empty((0, len(PARAMETERS)))]
    for start in range(0, len(deployments), BLOCK):
        block = [as_floats(d) for d in deployments[start : start + BLOCK]]
        padded = block + block[-1:] * (BLOCK - len(block))
        found = _gradients(jax.tree.map(lambda *xs: jnp.stack([jnp.asarray(x, float) for x in xs]), *padded))
        rows.append(np.stack([np.asarray(found[name]) for name in PARAMETERS], axis=1)[: len(block)])
    return np.concatenate(rows)


BLOCK = 16  # deployments differentiated together: one compiled shape


def winner_elasticities(
    ds: xr.Dataset, chips: Mapping[str, Chip], cases: Mapping[tuple[str, str], tuple[Any, Any]], prices: Mapping[str, Any], limit_s: float
) -> xr.Dataset:
    """The Dataset with the elasticities of cost at every family's winner at one limit (nan where a family has none).

    Args:
        ds: Result of a study. chips: Hypothetical chips by design id. cases: (model id, workload id) to their pytrees.
        prices: Scenario id to prices. limit_s: Limit on the time per output token [s].
    """
    at = ds.sel(tpot_limit=limit_s)
    candidates = (ds["status"] == "hypothetical") & (ds["below_4_bit"] == 0)
    families = list(dict.fromkeys(ds["family"].values[candidates.values]))
    shape = (len(families), ds.sizes["model"], ds.sizes["workload"], ds.sizes["scenario"])
    values, who = np.full((*shape, len(PARAMETERS)), np.nan), np.full(shape, "", object)
    for (model, workload), (llm, load) in cases.items():
        jobs, places = [], []
        for f, s in np.ndindex(len(families), ds.sizes["scenario"]):
            scenario = str(ds["scenario"].values[s])
            cell = at.sel(model=model, workload=workload, scenario=scenario)
            mine = candidates & (ds["family"] == families[f]) & (cell["feasible"] > 0)
            if not mine.any():
                continue
            best = cell.isel(design=int(np.argmin(cell["usd_per_million_output_token"].where(mine, np.inf).values)))
            design = str(best["design"].values)
            degrees = {d: float(best[d]) for d in ("tp", "pp", "cp", "dp", "ep", "batch")}
            layout = Layout(**degrees, format=str(best["format_weights"].values))
            jobs.append(Deployment(chip=chips[design], model=llm, workload=load, layout=layout, prices=prices[scenario]))
            places.append((f, list(ds["model"].values).index(model), list(ds["workload"].values).index(workload), s))
            who[places[-1]] = design
        for place, row in zip(places, elasticities(jobs), strict=True):
            values[place] = row
    dims = ("elasticity_family", "model", "workload", "scenario")
    text = "elasticity of the cost per output token at the family's winner at the headline limit"
    found = ds.assign_coords(parameter=list(PARAMETERS), elasticity_family=families)
    found["parameter"].attrs = {"long_name": "parameter that moves by one per cent", "units": "1", "better": "none"}
    found["elasticity_family"].attrs = {"long_name": "family", "units": "1", "better": "none"}
    found["elasticity"] = ((*dims, "parameter"), values, {"long_name": text, "units": "1", "better": "none"})
    found["elasticity_design"] = (dims, who, {"long_name": "design at which the elasticities were taken", "units": "1", "better": "none"})
    return found
