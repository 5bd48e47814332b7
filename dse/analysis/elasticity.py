"""By how many per cent does the cost of a token move if a parameter moves by one? Exact, by automatic differentiation.

Each parameter is a group of leaves scaled together (all peaks, say). Layout and batch stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dse.evaluate import as_floats, evaluate
from dse.types import Deployment, Number

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
    if not deployments:
        return np.empty((0, len(PARAMETERS)))
    n = -(-len(deployments) // BLOCK) * BLOCK
    padded = [as_floats(d) for d in deployments] + [as_floats(deployments[-1])] * (n - len(deployments))
    together = jax.tree.map(lambda *xs: jnp.stack([jnp.asarray(x, float) for x in xs]), *padded)
    found = _gradients(together)
    return np.stack([np.asarray(found[name]) for name in PARAMETERS], axis=1)[: len(deployments)]


BLOCK = 16  # deployments differentiated together: one compiled shape
