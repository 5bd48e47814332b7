"""Is what the map calls binding also what helps most when it grows?"""

from __future__ import annotations

import numpy as np
import pytest

import dse
from dse.analysis.elasticity import RATES, time_elasticities
from dse.analysis.limits import CAPACITY, POWER, STATES, binding
from dse.types import Deployment, Layout, Workload

CONTEXTS, BATCHES = (1024.0, 32768.0, 262144.0), (1.0, 16.0, 256.0, 4096.0)


@pytest.fixture(scope="module")
def deployment():
    cat = dse.load_catalog()
    return Deployment(
        chip=cat.chips["nvidia-h100-sxm"],
        model=cat.models["llama-3-8b"],
        workload=Workload(input_tokens=1024, output_tokens=1024),
        layout=Layout(tp=4, batch=1, format="fp8"),
        prices=cat.prices["owner-2026"],
        serving="decode",  # no prefill, whose resources would mix with those of the step
    )


@pytest.fixture(scope="module")
def found(deployment):
    return binding(deployment, CONTEXTS, BATCHES)


def at(deployment, context, batch):
    from dataclasses import replace

    return replace(deployment, workload=replace(deployment.workload, input_tokens=context), layout=replace(deployment.layout, batch=batch))


def test_memory_is_full_exactly_where_the_deployment_is_infeasible(deployment, found):
    codes, _ = found
    for i, j in np.ndindex(codes.shape):
        m = dse.evaluate(at(deployment, CONTEXTS[i], BATCHES[j]))
        assert (STATES[int(codes[i, j])] == CAPACITY) == (float(m.slack.memory) < -1e-6)
    full = codes == STATES.index(CAPACITY)
    assert full.any() and not full.all()
    assert (np.diff(full.astype(int), axis=1) >= 0).all() and (np.diff(full.astype(int), axis=0) >= 0).all()  # more needs more


def test_what_binds_has_the_largest_elasticity_of_time(deployment, found):
    """Second way: automatic differentiation of the time per token, resource by resource, against the shares of the step."""
    codes, times = found
    groups = {
        "compute": ["peak_flop_per_s", "vector_flop_per_s"],
        "memory": ["memory_bandwidth_byte_per_s"],
        "link": ["scale_up_bandwidth_byte_per_s"],
    }
    of_state = {"compute": "compute", "weights": "memory", "kv": "memory"}
    checked = 0
    for i, j in np.ndindex(codes.shape):
        state = STATES[int(codes[i, j])]
        if state not in of_state:
            continue
        d = at(deployment, CONTEXTS[i], BATCHES[j])
        slopes = dict(zip([*RATES, "fixed"], time_elasticities([d])[0], strict=True))
        gain = {g: -sum(slopes[r] for r in rates) for g, rates in groups.items()}
        m = dse.evaluate(d)
        shares = {k: float(getattr(m.time_s, k)) / float(times[i, j]) for k in ("compute", "weights", "kv")}
        grouped = {"compute": shares["compute"], "memory": shares["weights"] + shares["kv"]}
        if abs(grouped["compute"] - grouped["memory"]) < 0.2:
            continue
        assert max(gain, key=gain.get) == max(grouped, key=grouped.get) == of_state[state]
        checked += 1
    assert checked >= 3


def test_a_throttled_chip_is_bound_by_power(deployment):
    from dataclasses import replace

    chip = deployment.chip
    weak = replace(deployment, chip=replace(chip, tdp_w=chip.static_w + 0.05 * (chip.tdp_w - chip.static_w)))
    codes, slow = binding(weak, (1024.0,), (1.0, 256.0))
    plain, fast = binding(deployment, (1024.0,), (1.0, 256.0))
    assert STATES[int(codes[0, 1])] == POWER and slow[0, 1] > fast[0, 1]
    assert STATES[int(plain[0, 0])] != POWER
