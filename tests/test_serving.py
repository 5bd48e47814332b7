"""Serving as users see it: the closed form against the simulation, speculation, samples, two kinds of chip; what is off costs nothing."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

import dse
from dse.equations import layout as cut
from dse.equations.speculation import extra_layer, tokens_per_step
from dse.errors import InputError
from dse.types import Arrivals, Layout, Speculation, Workload
from tests.serving_cases import COUNT, FRESH, GOALS, TUNED, draw, job_of, outside, predicted, simulated


@pytest.fixture(scope="module")
def cat():
    return dse.load_catalog()


@pytest.fixture(scope="module")
def base(cat):
    return dse.Deployment(
        chip=cat.chips["nvidia-h100-sxm"],
        model=cat.models["llama-3-70b"],
        workload=Workload(input_tokens=1024.0, output_tokens=1024.0),
        layout=Layout(tp=8.0, batch=64.0),
        prices=cat.prices["owner-2026"],
    )


def answer_of(d):
    """One answer without compiling, which takes longer than the answer."""
    with jax.disable_jit():
        return dse.evaluate(d)


# --- random arrivals -----------------------------------------------------------------------------------------------------


def test_percentiles_agree_with_the_simulation(cat):
    """A slice of the comparison; all of it is `make long`, its result reports/serving."""
    cases = [case for case in draw(TUNED, cat, 3) if not outside(case)]
    assert len(cases) == 3
    for case in cases:
        (seen, noise), said = simulated(job_of(case), 20_000), predicted(case)
        for key, goal in GOALS.items():
            assert abs(said[key] / seen[key] - 1.0) < goal + 3.0 * noise[key], (case.name, key)


@pytest.mark.long
@pytest.mark.parametrize("seed", [TUNED, FRESH])
def test_percentiles_agree_with_the_simulation_over_a_whole_draw(cat, seed):
    found = []
    for case in draw(seed, cat):
        if not outside(case):
            (seen, noise), said = simulated(job_of(case), 60_000), predicted(case)
            beyond = [abs(said[key] / seen[key] - 1.0) - goal for key, goal in GOALS.items()]
            found.append([[x <= 0.0, x <= 2.0 * noise[key]] for x, key in zip(beyond, GOALS, strict=True)])
    share, with_noise = np.mean(found, axis=0).T
    assert len(found) == COUNT and min(share) >= 0.9 and min(with_noise) >= 0.95, (share, with_noise)


def test_arrivals_fill_the_percentiles_and_leave_the_closed_loop_alone(base):
    closed = answer_of(base)
    assert closed.tpot_p99_s is None and closed.ttft_p99_s is None and closed.arrivals is None
    m = dse.evaluate(replace(base, arrivals=Arrivals(load=0.7, input_cv=1.0, output_cv=1.0)))
    answer = m.as_dict()
    assert answer["tpot_s"] < answer["tpot_p99_s"] and answer["ttft_s"] < answer["ttft_p99_s"]
    assert sum(v for v in answer["time_s"].values()) == pytest.approx(answer["tpot_s"], rel=1e-6)
    a = answer["arrivals"]
    assert a["load"] == pytest.approx(0.7) and a["validated"] and a["concurrency"] < 64
    assert answer["output_token_per_s_per_chip"] * 8 == pytest.approx(a["rate_per_s"] * 1024)
    again = answer_of(replace(base, arrivals=Arrivals(rate_per_s=a["rate_per_s"], input_cv=1.0, output_cv=1.0)))
    assert float(again.ttft_p99_s) == pytest.approx(answer["ttft_p99_s"])


def test_outside_the_compared_range_the_answer_says_so(base):
    a = dse.evaluate(replace(base, arrivals=Arrivals(load=0.95, input_cv=1.0, output_cv=2.0))).as_dict()["arrivals"]
    assert not a["validated"] and len(a["outside"]) == 2 and a["outside"][0].startswith("load 0.95")


@pytest.mark.parametrize(
    ("change", "load", "word"),
    [
        ({"workload": Workload(input_tokens=8000.0, output_tokens=100.0)}, 0.7, "prefill_share"),
        (
            {"layout": Layout(tp=4.0, format="fp8", batch=256.0), "workload": Workload(input_tokens=8000.0, output_tokens=500.0)},
            0.2,
            "spare",
        ),
    ],
)
def test_what_the_formula_does_not_follow_is_named_with_its_reason(base, change, load, word):
    answer = answer_of if "layout" in change else dse.evaluate  # another layout would be compiled for it alone
    a = answer(replace(base, **change, arrivals=Arrivals(load=load, input_cv=0.8, output_cv=0.8))).as_dict()["arrivals"]
    assert not a["validated"] and any(text.startswith(word) and ": " in text for text in a["outside"]), a


def test_the_edge_between_those_who_wait_for_a_slot_and_the_rest_is_not_relied_on(base):
    """Somewhere on the way to full slots one request in a hundred waits: there, and only there, the answer says so."""
    full, beyond = [], []
    for load in np.linspace(0.5, 0.85, 15):
        a = dse.evaluate(replace(base, arrivals=Arrivals(load=float(load), input_cv=0.5, output_cv=0.5))).as_dict()["arrivals"]
        full.append(a["full"])
        beyond.append(any(text.startswith("full") for text in a["outside"]))
    assert full == sorted(full) and beyond == [0.005 <= f <= 0.02 for f in full] and any(beyond) and not all(beyond)


def test_more_arrivals_than_can_be_served_are_not_feasible(base):
    answer = dse.evaluate(replace(base, arrivals=Arrivals(load=1.1, input_cv=1.0, output_cv=1.0))).as_dict()
    assert not answer["feasible"] and [v["limit"] for v in answer["violations"]] == ["load"]


def test_arrivals_belong_to_continuous_batching(base):
    with pytest.raises(InputError, match="arrivals — found with static serving"):
        dse.evaluate(replace(base, serving="static", arrivals=Arrivals(load=0.5, input_cv=1.0, output_cv=1.0)))


# --- speculative decoding ------------------------------------------------------------------------------------------------


def speculating(base, **options):
    return replace(base, workload=replace(base.workload, speculation=Speculation(**options)))


def test_a_guess_costs_what_it_costs_and_saves_what_it_saves(cat, base):
    """Nothing accepted: slower than without. All accepted at batch 1: nearly five tokens for the bytes of one."""
    one = replace(base, layout=Layout(tp=8.0, batch=1.0))
    plain = float(answer_of(one).tpot_s)
    draft = cat.models["llama-3-8b"]
    never, always = (float(answer_of(speculating(one, tokens=4.0, acceptance=a, draft=draft)).tpot_s) for a in (0.0, 1.0))
    assert never > plain > always and never / always == pytest.approx(5.0, rel=0.02)


def test_a_guess_pays_less_in_a_large_batch(cat, base):
    def gain(batch):
        d = replace(base, layout=Layout(tp=8.0, batch=batch))
        guess = speculating(d, tokens=4.0, acceptance=0.8, draft=cat.models["llama-3-8b"])
        return float(answer_of(d).tpot_s / answer_of(guess).tpot_s)

    gains = [gain(b) for b in (1.0, 64.0, 256.0)]
    assert gains == sorted(gains, reverse=True) and gains[0] > 1.5


def test_tokens_of_a_step_are_a_geometric_sum():
    for a in (0.1, 0.5, 0.9):
        assert float(tokens_per_step(a, 3.0)) == pytest.approx(1 + a + a**2 + a**3)


def test_the_draft_takes_memory(cat, base):
    plain, with_draft = answer_of(base), answer_of(speculating(base, tokens=4.0, acceptance=0.8, draft=cat.models["llama-3-8b"]))
    more = float(with_draft.memory_byte_per_chip.weights - plain.memory_byte_per_chip.weights)
    assert more == pytest.approx(2.0 * float(cat.models["llama-3-8b"].params) / 8.0, rel=0.01)
    kv = float(with_draft.memory_byte_per_chip.kv / plain.memory_byte_per_chip.kv)
    assert kv == pytest.approx(1.0 + 32 / 80)  # layers of both; heads and widths of the cache are equal


def test_an_extra_layer_is_one_layer_with_the_shared_head(cat):
    module = extra_layer(cat.models["deepseek-r1"])
    assert float(cut.layers(module)) == 1.0 and module.embedding_params == 0.0 and module.head_params > 0


# --- several samples of one input ------------------------------------------------------------------------------------------


def test_samples_share_the_prefill_and_the_cache_of_their_input(base):
    plain, many = (answer_of(replace(base, workload=replace(base.workload, samples=n))) for n in (1.0, 16.0))
    assert float(many.time_s.prefill) == pytest.approx(float(plain.time_s.prefill) / 16.0)
    share = (1024 / 16 + 0.55 * 1024) / (1024 + 0.55 * 1024)
    assert float(many.memory_byte_per_chip.kv / plain.memory_byte_per_chip.kv) == pytest.approx(share, rel=0.02)
    off = answer_of(base)
    assert float(off.tpot_s) == float(plain.tpot_s)


# --- prefill on another kind of chip ---------------------------------------------------------------------------------------


def test_the_same_chip_named_twice_changes_nothing(base):
    d = replace(base, serving="disaggregated")
    one, two = answer_of(d), answer_of(replace(d, prefill_chip=d.chip))
    for name in ("tpot_s", "ttft_s", "chips", "usd_per_million_output_token", "facility_power_w"):
        assert float(getattr(one, name)) == pytest.approx(float(getattr(two, name)), rel=1e-9), name


def test_a_chip_that_prefills_faster_needs_fewer(cat, base):
    d = replace(base, serving="disaggregated", prefill_layout=Layout(tp=4.0), prefill_chip=base.chip)
    slow, fast = answer_of(d), answer_of(replace(d, prefill_chip=cat.chips["nvidia-b200-sxm"]))
    assert float(fast.prefill_chips) < float(slow.prefill_chips) and float(fast.ttft_s) < float(slow.ttft_s)
    assert float(fast.tpot_s) == float(slow.tpot_s)
    sides = [float(fast.cost_usd_per_s.capital) - float(slow.cost_usd_per_s.capital)]
    assert sides[0] != 0.0


def test_the_prefill_chip_must_hold_the_weights(cat, base):
    d = replace(base, serving="disaggregated", prefill_layout=Layout(tp=1.0), prefill_chip=cat.chips["nvidia-l40s"])
    assert not bool(answer_of(d).feasible)


def test_a_prefill_instance_of_the_same_chip_must_hold_the_weights_too(base):
    one, four = (answer_of(replace(base, serving="disaggregated", prefill_layout=Layout(tp=tp))) for tp in (1.0, 4.0))  # 141 GB of weights
    assert not bool(one.feasible) and bool(four.feasible)


def test_another_prefill_chip_belongs_to_disaggregation(base):
    with pytest.raises(InputError, match="prefill_chip — found with aggregated serving"):
        dse.evaluate(replace(base, prefill_chip=base.chip))


# --- traps -----------------------------------------------------------------------------------------------------------------


def test_cache_follows_the_kv_heads_in_every_path(cat, base):
    """Eight times the query heads' share: a model with as many KV heads as query heads moves and holds eight times the cache."""
    wide = base.model.groups[0]
    a = wide.attention
    many = replace(a, kv_heads=a.heads, kv_values=a.kv_values * a.heads / a.kv_heads)
    model = replace(base.model, groups=(replace(wide, attention=many),))
    for serving in ("aggregated", "decode", "static", "prefill"):
        few_kv, many_kv = (float(answer_of(replace(base, model=m, serving=serving)).memory_byte_per_chip.kv) for m in (base.model, model))
        assert many_kv / few_kv == pytest.approx(8.0)
    hand = 80 * 2 * 8 * 128 * 2 * 64 * (1024 + 0.55 * 1024) / 8
    assert float(answer_of(base).memory_byte_per_chip.kv) == pytest.approx(hand, rel=0.02)


def test_a_token_costs_the_whole_over_the_throughput_once(base):
    m = answer_of(base)
    whole = sum(float(getattr(m.cost_usd_per_s, n)) for n in ("capital", "system", "nre", "energy", "site", "idle"))
    assert float(m.usd_per_million_output_token) == pytest.approx(whole / (float(m.output_token_per_s_per_chip) * float(m.chips)) * 1e6)
    assert float(m.batch) == 64.0


def test_experts_that_are_read_are_the_distinct_ones_hit(cat):
    """One token reads its eight experts; a large batch reads all of them once, not once a token."""
    model = cat.models["deepseek-r1"]
    moved = []
    for batch in (1.0, 512.0):
        d = dse.Deployment(
            chip=cat.chips["nvidia-h200-sxm"],
            model=model,
            workload=Workload(input_tokens=1.0, output_tokens=1.0, uneven_routing=0.0),
            layout=Layout(tp=16.0, batch=batch),
            prices=cat.prices["owner-2026"],
            serving="decode",
        )
        m = answer_of(d)
        moved.append(float(m.mbu * (m.tpot_s)))
    assert 10 < moved[1] / moved[0] < 256 / 8
