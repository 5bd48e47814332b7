"""Do the queueing formulas meet what is known: Erlang's formula, the M/D/1 queue, insensitivity, and the ends of the load?"""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dse.equations import queueing as Q


def _sibling(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


des = _sibling("des")
waits = jax.jit(Q.waits)


def stream(
    rate=1.0, slots=16.0, output=101.0, output_cv=0.8, step=lambda n: 0.01 + 0.0 * n, prefill=1e-6, prompt=1000.0, cv=0.5, chunk=8192.0
):
    """A rank whose decoding step is a function of the requests in it, and whose prefill is proportional to the prompt."""
    tokens = Q.lengths(jnp.asarray(prompt), jnp.asarray(cv))
    alone = prefill * tokens / prompt
    return Q.Stream(
        rate_per_s=jnp.asarray(rate),
        slots=jnp.asarray(slots),
        output_tokens=jnp.asarray(output),
        output_cv=jnp.asarray(output_cv),
        step_s=step(Q.counts(jnp.asarray(slots))),
        prefill_s=alone,
        pair_s=2.0 * alone,
        prompt_tokens=tokens,
        chunk_tokens=jnp.asarray(chunk),
    )


def erlang_c(servers: int, offered: float) -> float:
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(terms) + last)


@pytest.mark.parametrize(("slots", "load"), [(8, 0.5), (16, 0.7), (64, 0.85), (128, 0.9)])
def test_waiting_for_a_slot_follows_erlang(slots: int, load: float):
    """Steps that do not slow down make the slots independent servers."""
    residence = 101 * 0.01  # its own first step and a hundred more
    w = waits(stream(rate=load * slots / residence, slots=float(slots)))
    assert float(w.full) == pytest.approx(erlang_c(slots, load * slots), rel=0.08)
    assert float(w.concurrency) == pytest.approx(load * slots * 100 / 101, rel=0.005)


def test_time_per_token_does_not_depend_on_the_spread_of_lengths():
    slow = lambda n: 0.005 + 0.0002 * n  # noqa: E731
    means = [float(waits(stream(rate=8.0, slots=64.0, output_cv=cv, step=slow)).tpot_s) for cv in (0.3, 0.8, 1.2)]
    assert max(means) / min(means) < 1.01


def test_a_rank_that_slows_with_its_load_holds_a_negative_binomial_number():
    """Steps a + b n: the number has mean (d + c) / (1 - c) with c = lambda s b, d = lambda s a."""
    a, b, rate, output = 0.004, 0.0001, 30.0, 101.0
    c, d = rate * 100 * b, rate * 100 * a
    w = waits(stream(rate=rate, slots=256.0, output=output, step=lambda n: a + b * n))
    assert float(w.concurrency) == pytest.approx((d + c) / (1 - c), rel=0.02)


def test_percentiles_are_ordered_and_rise_with_the_load():
    rates = (1.0, 4.0, 8.0, 12.0)
    found = [waits(stream(rate=r, prefill=0.02, step=lambda n: 0.01 + 0.0001 * n)) for r in rates]
    for w in found:
        for q in (w.tpot_quantile_s, w.ttft_quantile_s):
            assert float(q[0]) < float(q[1]) < float(q[2])
    for name in ("tpot_s", "ttft_s"):
        values = [float(getattr(w, name)) for w in found]
        assert values == sorted(values)
    tails = np.array([w.ttft_quantile_s for w in found])
    assert (np.diff(tails, axis=0) > 0).all()


def test_an_idle_rank_serves_at_once():
    w = waits(stream(rate=1e-6, prefill=0.05, cv=0.01))
    assert float(w.ttft_s) == pytest.approx(0.05, rel=0.01) and float(w.tpot_s) == pytest.approx(0.01, rel=0.01)
    assert np.allclose(np.asarray(w.ttft_quantile_s), 0.05, rtol=0.05)


def test_beyond_saturation_the_answer_stays_finite():
    w = waits(stream(rate=50.0))
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(w)) and float(w.full) > 0.9


def test_derivatives_of_percentiles_agree_with_differences():
    def tail(rate):
        w = waits(replace(stream(prefill=0.02, step=lambda n: 0.01 + 0.0001 * n), rate_per_s=rate))
        return w.ttft_quantile_s[2] + w.tpot_quantile_s[2]

    rate, h = jnp.asarray(9.0), 1e-4
    slope = jax.grad(tail)(rate)
    assert float(slope) == pytest.approx(float((tail(rate + h) - tail(rate - h)) / (2 * h)), rel=0.02)


def test_many_deployments_at_once_give_the_answers_of_each():
    one, two = stream(rate=3.0, prefill=0.02), stream(rate=9.0, prefill=0.02)
    both = jax.tree.map(lambda x, y: jnp.stack([x, y], axis=-1), one, two)
    together = jax.jit(Q.everywhere)(both)
    for i, q in enumerate((one, two)):
        for x, y in zip(jax.tree.leaves(together), jax.tree.leaves(waits(q)), strict=True):
            assert np.allclose(np.asarray(x)[..., i], np.asarray(y), rtol=1e-9)


# --- the simulation is checked where the answer is known -----------------------------------------------------------------


def test_the_simulation_is_an_m_d_1_queue_where_nothing_is_decoded():
    service, load, size = 0.1, 0.6, 60_000
    engine = des.Engine(lambda n, c: 0.0, lambda pieces: service * len(pieces), slots=10**9, chunk=100.0)
    rng = np.random.default_rng(1)
    seen = des.simulate(engine, load / service, np.full(size, 100.0), np.full(size, 1.0), rng)
    assert seen.ttft_s.mean() == pytest.approx(service * (1 + load / (2 * (1 - load))), rel=0.02)


def test_the_simulation_conserves_requests_and_obeys_littles_law():
    step, rate, size = 0.01, 20.0, 30_000
    engine = des.Engine(lambda n, c: step, lambda pieces: 0.0, slots=10**6, chunk=1e9)
    rng = np.random.default_rng(2)
    outputs = des.lognormal(rng, 100.0, 0.7, size, least=2.0)
    seen = des.simulate(engine, rate, np.full(size, 10.0), outputs, rng)
    assert np.allclose(seen.tpot_s, step) and seen.concurrency == pytest.approx(rate * 99 * step, rel=0.02)


def test_the_simulation_admits_no_more_than_its_slots():
    rng = np.random.default_rng(3)
    most = []
    engine = des.Engine(lambda n, c: most.append(n) or 0.01, lambda pieces: 0.001, slots=4, chunk=1e9)
    des.simulate(engine, 100.0, np.full(500, 10.0), np.full(500, 50.0), rng)
    assert max(most) == 4


# --- steps with prompts ---------------------------------------------------------------------------------------------------


def test_a_cycle_of_steps_conserves_work_and_is_seen_longer_than_it_is():
    """Without a shared part, prefill takes its share of the time; a rare prompt is met in proportion to the length of its step."""
    y = Q.cycle(8.0, 0.01, 0.0, 0.05, 0.004, 0.0005)
    assert float(y.load) == pytest.approx(0.4, rel=1e-6) and float(y.gain) == pytest.approx(0.4)
    assert float(y.met_s) == pytest.approx(8.0 * 0.004) and float(y.met_s2) == pytest.approx(8.0 * 0.0005)
    assert float(y.seen_s) > 0.01 / (1 - 0.4)
    rare, d, f = 0.1, 0.01, 0.2
    z = Q.cycle(rare, d, f, 0.0, 0.0, 0.0)
    assert float(z.busy) == pytest.approx(rare * (d + f), rel=0.02)
    mean = d + rare * d * f
    assert float(z.seen_s) == pytest.approx((d * d + rare * d * ((d + f) ** 2 - d * d)) / mean, rel=0.1)


def test_a_wait_before_another_station_is_that_of_pollaczek_and_khinchine():
    """Constant service S at load rho: the wait is S rho / (2 (1 - rho)), after which nothing waits for a slot."""
    s = stream(rate=1e-3, slots=64.0)
    service = jnp.full((Q.LENGTHS,), 0.1)
    first = Q.First(**{f: jnp.asarray(0.0) for f in Q.First.__dataclass_fields__})
    after = Q.after(first, Q.Ahead(load=0.5, service_s=service, own_s=service), Q.length_weights(s.prefill_s))
    assert float(after.mean_s) == pytest.approx(0.05) and float(after.quiet) == pytest.approx(0.5)
    assert float(after.variance_s2) == pytest.approx(0.05**2 + 0.5 * 0.1**3 / (3 * 0.1 * 0.5))
