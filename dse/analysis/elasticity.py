"""By how many per cent does the cost of a token move if a parameter moves by one? Exact, by automatic differentiation.

Each parameter is a group of leaves scaled together (all peaks, say). Layout and batch stay as they are.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    "unit_cost_usd": _chip(unit_cost_usd=_times, street_usd=_times, rent_usd_per_s=_times),
    "nre_usd": _chip(nre_usd=_times, nre_model_usd=_times),
    "system_usd": _chip(system_usd=_times),
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


MONEY = ("unit_cost_usd", "nre_usd", "system_usd", "server_usd", "energy_usd_per_j", "facility_usd_per_j")  # all prices: shares of cost

# Everything that has a unit of time, in two: what is a rate (power is energy per time), and what is a time.
RATES: dict[str, Change] = {
    "peak_flop_per_s": PARAMETERS["peak_flop_per_s"],
    "vector_flop_per_s": _chip(vector_flop_per_s=_times, exp_per_s=_times),
    "memory_bandwidth_byte_per_s": PARAMETERS["memory_bandwidth_byte_per_s"],
    "sram_bandwidth_byte_per_s": PARAMETERS["sram_bandwidth_byte_per_s"],
    "scale_up_bandwidth_byte_per_s": PARAMETERS["scale_up_bandwidth_byte_per_s"],
    "scale_out_bandwidth_byte_per_s": PARAMETERS["scale_out_bandwidth_byte_per_s"],
    "tdp_w": _chip(tdp_w=_times, static_w=_times),
}
FIXED = "fixed_time_s"


def _is_time(path: Any) -> bool:
    """Whether a leaf of the kernel constants is a time, by its name: ``floor_s``, ``serial_s_per_k``."""
    name = str(getattr(path[-1], "name", ""))
    return name.endswith("_s") or "_s_per_" in name


def _slower(d: Deployment, x: Number) -> Deployment:
    """All fixed times of the chip's constants multiplied by x."""
    kernels = jax.tree_util.tree_map_with_path(lambda path, leaf: leaf * x if _is_time(path) else leaf, d.chip.kernels)
    return replace(d, chip=replace(d.chip, kernels=kernels))


def log_tpot(logs: dict[str, Number], deployment: Deployment) -> Number:
    """Logarithm of the time per output token with rates, and all fixed times together, scaled by ``exp(logs[name])``."""
    for name, x in logs.items():
        deployment = (_slower if name == FIXED else RATES[name])(deployment, jnp.exp(x))
    return jnp.log(evaluate(deployment).tpot_s)


def time_elasticities(deployments: Sequence[Deployment]) -> np.ndarray:
    """Elasticities of the time per token to every rate, and last to all fixed times: rows sum to minus one if the last is turned round.

    A model without a hidden unit of time obeys: rates together do minus one less the share of fixed times (that share is the last column).
    """
    return slopes_of(deployments, TIMES, ("tpot",))[..., 0]


LIMITS = ("tpot", "ttft", "memory")  # what keeps a batch from growing


def limit_elasticities(deployments: Sequence[Deployment], slack: np.ndarray) -> np.ndarray:
    """By how many per cent the cost falls if the limit that holds the batch is one per cent wider, and the batch follows it.

    Args:
        deployments: At their best batches. slack: (n, LIMITS) relative distance to each limit; the smallest is the one that holds.

    Returns: (n, LIMITS), zero for limits that do not hold, at most 0: a wider limit never costs more.
    """
    return _gains(slopes_of(deployments, (BATCH,))[:, 0], slack)


def _gains(slopes: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """``limit_elasticities`` of slopes by the batch (n, OUTPUTS)."""
    held = np.argmin(slack, axis=1)
    out = np.zeros((len(slopes), len(LIMITS)))
    rows = np.arange(len(slopes))
    steep = slopes[rows, 1 + held]
    gain = np.minimum(slopes[:, 0], 0.0) / np.where(steep > 0, steep, np.inf)
    out[rows, held] = np.where(slack[rows, held] < HELD, gain, 0.0)
    return out


HELD = 1 / 10  # relative slack below which a limit holds the batch: batches are whole and their grid is coarse


def log_cost(logs: dict[str, Number], deployment: Deployment) -> Number:
    """Logarithm of the cost per output token with each parameter scaled by ``exp(logs[name])``."""
    for name, x in logs.items():
        deployment = PARAMETERS[name](deployment, jnp.exp(x))
    return jnp.log(evaluate(deployment).usd_per_million_output_token)


def elasticities(deployments: Sequence[Deployment]) -> np.ndarray:
    """Elasticities of the cost per output token, one row a deployment in the order of ``PARAMETERS`` [1]."""
    return slopes_of(deployments, tuple(PARAMETERS), ("cost",))[..., 0]


# --- all derivatives at once -----------------------------------------------------------------------------------------------------

BATCH = "batch"
OUTPUTS = ("cost", *LIMITS)  # what is differentiated: logarithms of the cost, of times, and of the memory used
RATES_OF = {f"rate {name}": change for name, change in RATES.items()}  # some rates take more leaves along than the parameter of their name


def _larger(d: Deployment, x: Number) -> Deployment:
    return replace(d, layout=replace(d.layout, batch=d.layout.batch * x))


TIMES = (*RATES_OF, FIXED)
DIRECTIONS: dict[str, Change] = {**PARAMETERS, **RATES_OF, FIXED: _slower, BATCH: _larger}


def _outputs(logs: dict[str, Number], d: Deployment) -> tuple[Number, ...]:
    for name, x in logs.items():
        d = DIRECTIONS[name](d, jnp.exp(x))
    m = evaluate(d)
    return tuple(jnp.log(v) for v in (m.usd_per_million_output_token, m.tpot_s, m.ttft_s, 1.0 - m.slack.memory))


def slopes_of(deployments: Sequence[Deployment], directions: Sequence[str], outputs: Sequence[str] = OUTPUTS) -> np.ndarray:
    """d ln (output) / d ln (direction) of every deployment: array (deployments, directions, outputs).

    Deployments of one structure are stacked, and all directions are pushed forwards through one evaluation, operation by operation:
    seconds, where compiling the derivative takes minutes.
    """
    found = np.empty((len(deployments), len(directions), len(outputs)))
    plain = _plain(deployments)
    groups: dict[Any, list[int]] = {}
    for i, d in enumerate(plain):
        groups.setdefault(jax.tree.structure(d), []).append(i)
    chosen = [OUTPUTS.index(o) for o in outputs]
    for at in groups.values():
        stacked = jax.tree.map(lambda *xs: jnp.asarray(np.array(xs, float)), *[plain[i] for i in at])
        zero = {name: jnp.zeros(len(at)) for name in directions}
        shape = (len(directions), len(at))
        one = {name: jnp.broadcast_to(jnp.eye(shape[0])[:, k : k + 1], shape) for k, name in enumerate(directions)}

        def pushed(tangent: Any, zero: Any = zero, stacked: Any = stacked) -> Any:
            slopes = jax.jvp(functools.partial(_outputs, d=stacked), (zero,), (tangent,))[1]
            return tuple(slopes[o] for o in chosen)

        with jax.disable_jit():
            slopes = jax.vmap(pushed)(one)
        found[at] = np.moveaxis(np.stack([np.broadcast_to(np.asarray(x), shape) for x in slopes]), 0, -1).swapaxes(0, 1)
    return found


def _plain(deployments: Sequence[Deployment]) -> list[Deployment]:
    """Deployments with plain numbers; what several share is converted once."""
    known: dict[int, Any] = {}

    def once(part: Any) -> Any:
        if id(part) not in known:
            known[id(part)] = as_floats(part)
        return known[id(part)]

    return [
        replace(d, chip=once(d.chip), model=once(d.model), prices=once(d.prices), workload=once(d.workload), layout=as_floats(d.layout))
        for d in deployments
    ]


@dataclass(frozen=True)
class Point:
    """A family's cheapest design at one limit of one case: where it stands in the Dataset, and its deployment."""

    place: tuple[int, ...]  # family, model, workload, scenario, limit
    design: str
    deployment: Deployment
    slack: tuple[float, ...]  # relative distance to LIMITS


def front_points(
    ds: xr.Dataset,
    chips: Mapping[str, Chip],
    cases: Mapping[tuple[str, str], tuple[Any, Any]],
    prices: Mapping[str, Any],
    families: Sequence[str],
    limits: Sequence[int] | None = None,
) -> list[Point]:
    """The cheapest design of every family at every limit of every case (or at some limits, by position)."""
    candidates = ((ds["status"] == "hypothetical") & (ds["below_4_bit"] == 0)).values
    family = ds["family"].values
    order = ("design", "model", "workload", "scenario", "tpot_limit")
    cost = ds["usd_per_million_output_token"].where(ds["feasible"] > 0, np.inf).transpose(*order).values
    columns = {
        n: ds[n].transpose(*order).values
        for n in ("tp", "pp", "cp", "dp", "ep", "batch", "format_weights", "tpot_s", "ttft_s", "slack_memory")
    }
    first_token = json.loads(ds.attrs.get("ttft_limit_s", "{}"))
    models, workloads, scenarios = (list(ds[d].values) for d in order[1:4])
    found = []
    for (model, workload), (llm, load) in cases.items():
        m, w = models.index(model), workloads.index(workload)
        for f, s, t in np.ndindex(len(families), len(scenarios), ds.sizes["tpot_limit"]):
            if limits is not None and t not in limits:
                continue
            mine = np.where(candidates & (family == families[f]), cost[:, m, w, s, t], np.inf)
            d = int(np.argmin(mine))
            if not np.isfinite(mine[d]):
                continue
            at = (d, m, w, s, t)
            degrees = {n: float(columns[n][at]) for n in ("tp", "pp", "cp", "dp", "ep", "batch")}
            layout = Layout(**degrees, format=str(columns["format_weights"][at]))  # type: ignore[arg-type]
            slack = (
                1.0 - float(columns["tpot_s"][at]) / float(ds["tpot_limit"].values[t]),
                1.0 - float(columns["ttft_s"][at]) / float(first_token.get(workload, np.inf)),
                float(columns["slack_memory"][at]),
            )
            design = str(ds["design"].values[d])
            deployment = Deployment(chip=chips[design], model=llm, workload=load, layout=layout, prices=prices[scenarios[s]])
            found.append(Point((f, m, w, s, t), design, deployment, slack))
    return found


def winner_elasticities(
    ds: xr.Dataset,
    chips: Mapping[str, Chip],
    cases: Mapping[tuple[str, str], tuple[Any, Any]],
    prices: Mapping[str, Any],
    limit_s: float,
    full: bool = False,
) -> xr.Dataset:
    """The Dataset with elasticities of cost and of time, and shadow prices of limits, at every family's winner at every limit.

    Args:
        ds: Result of a study. chips: Hypothetical chips by design id. cases: (model id, workload id) to their pytrees.
        prices: Scenario id to prices. limit_s: The headline's limit on the time per output token [s]: ``elasticity`` is taken there,
            ``front_elasticity`` everywhere (nan where a family has no winner).
        full: Also the elasticities of time, and what limits are worth.
    """
    candidates = (ds["status"] == "hypothetical") & (ds["below_4_bit"] == 0)
    families = list(dict.fromkeys(ds["family"].values[candidates.values]))
    shape = (len(families), ds.sizes["model"], ds.sizes["workload"], ds.sizes["scenario"], ds.sizes["tpot_limit"])
    arrays = {
        "front_elasticity": np.full((*shape, len(PARAMETERS)), np.nan),
        "tpot_elasticity": np.full((*shape, len(RATES) + 1), np.nan),
        "limit_elasticity": np.full((*shape, len(LIMITS)), np.nan),
    }
    who = np.full(shape, "", object)
    points = front_points(ds, chips, cases, prices, families)
    where = tuple(np.array([p.place for p in points], int).reshape(-1, 5).T)
    directions, outputs = (tuple(DIRECTIONS), OUTPUTS) if full else (tuple(PARAMETERS), ("cost",))
    slopes = slopes_of([p.deployment for p in points], directions, outputs)  # all at once: most of their time is paid by operation
    arrays["front_elasticity"][where] = slopes[:, [directions.index(n) for n in PARAMETERS], outputs.index("cost")]
    if full:
        arrays["tpot_elasticity"][where] = slopes[:, [directions.index(n) for n in TIMES], outputs.index("tpot")]
        slack = np.array([p.slack for p in points]).reshape(-1, len(LIMITS))
        arrays["limit_elasticity"][where] = _gains(slopes[:, directions.index(BATCH)], slack)
    for p in points:
        who[p.place] = p.design
    dims = ("elasticity_family", "model", "workload", "scenario", "tpot_limit")
    at = int(np.argmin(np.abs(ds["tpot_limit"].values - limit_s)))
    text = "elasticity of the cost per output token at the family's winner"
    plain = {"units": "1", "better": "none"}
    more: dict[str, Any] = {"rate": [*RATES, FIXED], "held_by": list(LIMITS)} if full else {}
    found = ds.assign_coords(parameter=list(PARAMETERS), elasticity_family=families, **more)
    for name, said in COORDINATES.items():
        if name in found.coords:
            found[name].attrs = plain | {"long_name": said}
    found["elasticity"] = (
        (*dims[:4], "parameter"),
        arrays["front_elasticity"][..., at, :],
        plain | {"long_name": f"{text} at the headline limit"},
    )
    found["elasticity_design"] = (dims[:4], who[..., at], plain | {"long_name": "design at which the elasticities were taken"})
    found["front_elasticity"] = ((*dims, "parameter"), arrays["front_elasticity"], plain | {"long_name": text})
    if full:
        said = "elasticity of the time per output token at the family's winner"
        found["tpot_elasticity"] = ((*dims, "rate"), arrays["tpot_elasticity"], plain | {"long_name": said})
        said = "elasticity of the cost to the limit that holds the batch, the batch following it"
        found["limit_elasticity"] = ((*dims, "held_by"), arrays["limit_elasticity"], plain | {"long_name": said})
    return found


COORDINATES = {
    "parameter": "parameter that moves by one per cent",
    "elasticity_family": "family",
    "rate": "rate that moves by one per cent, and all fixed times together",
    "held_by": "limit that holds the batch",
}
