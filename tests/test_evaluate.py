"""The whole model: known answers, limits, conservation, directions, gradients, and the same answer by two ways."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dse
from dse.evaluate import SERVING, as_floats, ideal
from dse.types import CostParts, Deployment, Layout, TimeParts, Workload, named_format

EVAL_KEYS = set(
    "feasible violations chips batch layout format tpot_s ttft_s tpot_p99_s ttft_p99_s interactivity_token_per_s "
    "output_token_per_s_per_chip "
    "total_token_per_s_per_chip cost_usd_per_s usd_per_million_output_token usd_per_million_token usd_per_chip_hour j_per_output_token "
    "facility_power_w mfu mbu mfu_prefill bound bound_prefill time_s memory_byte_per_chip constants low high".split()
)


@pytest.fixture(scope="module")
def cat():
    return dse.load_catalog()


def deployment(cat, chip="nvidia-h100-sxm", model="llama-3-70b", isl=1024, osl=1024, prices="owner-2026", serving="aggregated", **layout):
    return Deployment(
        chip=cat.chips[chip],
        model=cat.models[model],
        workload=Workload(input_tokens=isl, output_tokens=osl),
        layout=Layout(**{"tp": 8, "batch": 64, **layout}),
        prices=cat.prices[prices],
        serving=serving,
    )


def answer_of(d):
    """One answer without compiling, which takes longer than the answer; other tests here ask the compiled function."""
    with jax.disable_jit():
        return dse.evaluate(d)


def total(record):
    return sum(float(getattr(record, f.name)) for f in fields(record))


# --- known answers -------------------------------------------------------------------------------------------------------


def seed(cat, chips=20, batch=1, isl=1, osl=1):
    chip = ideal(cat.chips["seed-h100"])
    return answer_of(replace(deployment(cat, "seed-h100", "seed-dense-1.6t", isl, osl, serving="decode", tp=chips, batch=batch), chip=chip))


def test_weights_of_the_rounded_model_just_fit_twenty_chips(cat):
    twenty, nineteen = seed(cat), seed(cat, chips=19)
    assert bool(twenty.feasible)
    assert float(twenty.memory_byte_per_chip.weights) == pytest.approx(80e9, rel=1e-12)
    assert not bool(nineteen.feasible)
    assert [v["limit"] for v in nineteen.as_dict()["violations"]] == ["memory"]


def test_the_rounded_model_is_memory_bound_at_27_ms_and_uses_a_fifth_of_a_per_cent(cat):
    m = seed(cat)
    assert float(m.tpot_s) == pytest.approx(1.6e12 / 60e12, rel=1e-3)
    assert float(m.mfu * m.tpot_s) == pytest.approx(3.2e12 / (20 * 3e15), rel=1e-3)  # about 0.05 ms of computing
    assert float(m.mfu) == pytest.approx(0.002, rel=0.01)
    assert float(m.mbu) == pytest.approx(1.0, rel=1e-3)
    assert m.as_dict()["bound"] == "weights"


def test_a_hundred_users_lift_the_rounded_model_to_a_fifth(cat):
    assert float(seed(cat, batch=100).mfu) == pytest.approx(0.2, rel=0.05)


def test_a_petaflop_chip_needs_a_millisecond_for_500_billion_weights(cat):
    chip = ideal(cat.chips["seed-1pflops"])
    many = replace(deployment(cat, "seed-1pflops", "seed-dense-500b", 1, 1, serving="decode", tp=1, batch=4096), chip=chip)
    m = answer_of(many)
    assert float(m.tpot_s) / 4096 == pytest.approx(1e-3, rel=0.01)
    assert m.as_dict()["bound"] == "compute"


# --- the contract ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serving", SERVING)
def test_every_mode_gives_every_key(cat, serving):
    found = answer_of(deployment(cat, serving=serving)).as_dict()
    missing = EVAL_KEYS - set(found)
    assert not missing
    json.dumps(found, allow_nan=False)
    assert (found["tpot_s"] is None) == (serving == "prefill")
    assert (found["ttft_s"] is None) == (serving == "decode")


def test_shares_sum_to_their_wholes(cat):
    for model in ("llama-3-70b", "deepseek-r1"):
        for batch in (1, 64, 512):
            m = dse.evaluate(deployment(cat, "nvidia-h200-sxm", model, tp=8, batch=batch))
            assert total(m.time_s) == pytest.approx(float(m.tpot_s), rel=1e-9)
            rate = float(m.output_token_per_s_per_chip * m.chips)
            assert total(m.cost_usd_per_s) / rate * 1e6 == pytest.approx(float(m.usd_per_million_output_token), rel=1e-12)
            assert float(m.usd_per_chip_hour) == pytest.approx(total(m.cost_usd_per_s) / float(m.chips) * 3600, rel=1e-12)
            assert all(float(getattr(m.time_s, f.name)) >= 0 for f in fields(TimeParts))
            assert all(float(getattr(m.cost_usd_per_s, f.name)) >= 0 for f in fields(CostParts))


def test_broadcasting_and_jit_give_the_scalar_answers(cat):
    names = ("nvidia-h100-sxm", "nvidia-b200-sxm", "amd-mi300x")
    layouts = [Layout(tp=8, batch=64, format="fp8"), Layout(tp=4, pp=2, batch=17, format="fp8")]
    d = deployment(cat)
    grid = replace(d, chip=dse.stack([cat.chips[n] for n in names], axis=0), layout=dse.stack(layouts, axis=1))
    together, jitted = answer_of(grid), jax.jit(dse.evaluate)(as_floats(grid))
    for i, name in enumerate(names):
        for j, layout in enumerate(layouts):
            alone = answer_of(replace(d, chip=cat.chips[name], layout=layout))
            for key in ("tpot_s", "ttft_s", "usd_per_million_output_token", "mfu", "j_per_output_token"):
                one = float(getattr(alone, key))
                assert float(getattr(together, key)[i, j]) == pytest.approx(one, rel=1e-12), key
                assert float(getattr(jitted, key)[i, j]) == pytest.approx(one, rel=1e-12), key


def test_models_of_different_depth_stack(cat):
    both = dse.stack([cat.models["llama-3-70b"], cat.models["deepseek-r1"]], axis=0)
    d = replace(deployment(cat, "nvidia-b200-sxm", format="fp8", serving="decode"), model=both)
    together = answer_of(d)
    for i, name in enumerate(("llama-3-70b", "deepseek-r1")):
        alone = answer_of(replace(d, model=cat.models[name]))
        assert float(together.tpot_s[i, 0]) == pytest.approx(float(alone.tpot_s), rel=1e-9)


# --- gradients -------------------------------------------------------------------------------------------------------------


GRADIENTS = [
    ("nvidia-h100-sxm", "llama-3-70b"),
    pytest.param("groq-lpu-v1", "llama-3-8b", marks=pytest.mark.long),
    pytest.param("nvidia-b200-sxm", "deepseek-r1", marks=pytest.mark.long),
]


@pytest.mark.parametrize(("chip", "model"), GRADIENTS)
def test_the_gradient_of_cost_is_finite_in_every_leaf(cat, chip, model):
    d = as_floats(deployment(cat, chip, model, tp=8.0, batch=64.0, format="fp8"))
    with jax.disable_jit():  # a third of the time that compiling it takes
        gradient = jax.grad(lambda x: dse.evaluate(x).usd_per_million_output_token)(d)
    bad = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(gradient) if not np.isfinite(leaf).all()]
    assert not bad


def test_gradients_agree_with_finite_differences(cat):
    d = as_floats(deployment(cat, format="fp8"))

    def cost(x, y, z):
        chip = replace(d.chip, tdp_w=d.chip.tdp_w * z, memory=replace(d.chip.memory, s_per_byte=d.chip.memory.s_per_byte / x))
        return dse.evaluate(replace(d, chip=chip, layout=replace(d.layout, batch=d.layout.batch * y))).usd_per_million_output_token

    exact = jax.grad(cost, argnums=(0, 1, 2))(1.0, 1.0, 1.0)
    h = 1e-5
    for i in range(3):
        up, down = [1.0] * 3, [1.0] * 3
        up[i], down[i] = 1 + h, 1 - h
        assert float(exact[i]) == pytest.approx(float(cost(*up) - cost(*down)) / (2 * h), rel=1e-5, abs=1e-9)


# --- directions --------------------------------------------------------------------------------------------------------------

CHIPS = st.sampled_from(("nvidia-h100-sxm", "amd-mi300x", "groq-lpu-v1", "google-tpu-v6e", "d-matrix-corsair"))
MODELS = st.sampled_from(("llama-3-8b", "llama-3-70b", "deepseek-r1", "gpt-oss-120b"))
DEGREES = st.sampled_from((1.0, 2.0, 8.0))


@settings(max_examples=25)
@given(
    chip=CHIPS,
    model=MODELS,
    tp=DEGREES,
    batch=st.sampled_from((1.0, 32.0, 500.0)),
    factor=st.floats(1.01, 4.0),
    prompt=st.sampled_from((128, 8192)),
)
def test_more_of_a_resource_is_never_slower(cat, chip, model, tp, batch, factor, prompt):
    d = as_floats(deployment(cat, chip, model, isl=prompt, tp=tp, batch=batch))
    c, before = d.chip, dse.evaluate(as_floats(d))
    better = (
        replace(
            c,
            memory=replace(c.memory, s_per_byte=c.memory.s_per_byte / factor),
            sram=replace(c.sram, s_per_byte=c.sram.s_per_byte / factor),
        ),
        replace(c, peak_flop_per_s=jax.tree.map(lambda x: x * factor, c.peak_flop_per_s)),
        replace(c, scale_up=replace(c.scale_up, s_per_byte=c.scale_up.s_per_byte / factor)),
    )
    for chip_ in better:
        after = dse.evaluate(replace(d, chip=chip_))
        assert float(after.tpot_s) <= float(before.tpot_s) * (1 + 1e-12)
        assert float(after.time_s.prefill) <= float(before.time_s.prefill) * (1 + 1e-12)


@settings(max_examples=25)
@given(chip=CHIPS, model=MODELS, tp=DEGREES, pp=DEGREES, batch=st.sampled_from((1.0, 48.0, 1000.0)))
def test_utilisations_are_at_most_one_and_larger_batches_never_faster_for_a_user(cat, chip, model, tp, pp, batch):
    d = as_floats(deployment(cat, chip, model, tp=tp, pp=pp, batch=batch))
    m = dse.evaluate(d)
    assert 0 < float(m.mfu) <= 1
    assert 0 <= float(m.mbu) <= 1 + 1e-9
    assert 0 < float(m.mfu_prefill) <= 1
    larger = dse.evaluate(replace(d, layout=replace(d.layout, batch=batch * 1.5)))
    assert float(larger.tpot_s) >= float(m.tpot_s) * (1 - 1e-12)


def test_a_single_user_pays_more_than_the_best_batch(cat):
    batches = np.array([1.0, 4.0, 16.0, 64.0, 256.0])
    m = answer_of(deployment(cat, batch=batches, format="fp8"))
    cost = np.asarray(m.usd_per_million_output_token)
    assert cost[0] > 10 * cost.min()
    assert (np.diff(cost) < 0).all()


def test_more_tensor_parallelism_never_needs_less_communication(cat):
    d = deployment(cat, "nvidia-gb200-nvl72", tp=np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]), batch=64.0, format="fp8")
    parts = np.asarray(answer_of(d).time_s.collectives)
    assert parts[0] == 0
    assert (np.diff(parts) >= 0).all()


def test_a_feasible_layout_fits_the_memory_and_more_requests_overflow_it(cat):
    batches = 2.0 ** np.arange(14)
    m = answer_of(deployment(cat, batch=batches, format="bf16"))
    memory = m.memory_byte_per_chip
    used = np.asarray(memory.weights + memory.kv + memory.activations + memory.reserve)
    fits = used <= np.asarray(memory.capacity) * (1 + 1e-6)
    assert (np.asarray(m.feasible) == fits).all()
    assert fits[0]
    assert not fits[-1]


def test_kv_bytes_follow_kv_heads_and_not_query_heads(cat):
    with np.errstate(divide="ignore"):  # no output: a closed loop would have no next prompt
        m = answer_of(deployment(cat, tp=1, batch=1, isl=1000, osl=0, serving="decode", format="bf16"))
    assert float(m.memory_byte_per_chip.kv) == 2 * 80 * 8 * 128 * 2 * 1000


def test_ideal_constants_are_never_slower_than_calibrated_ones(cat):
    for batch in (1, 16, 256):
        real = answer_of(deployment(cat, batch=batch))
        best = answer_of(replace(deployment(cat, batch=batch), chip=ideal(cat.chips["nvidia-h100-sxm"])))
        assert float(best.tpot_s) < float(real.tpot_s)
        assert float(best.memory_byte_per_chip.reserve) == 0


def test_widening_a_format_that_the_chip_lacks(cat):
    a100 = deployment(cat, "nvidia-a100-80gb-sxm", format="fp8")
    assert answer_of(a100).as_dict()["format"]["compute"] == "bf16"
    native = answer_of(deployment(cat, "nvidia-a100-80gb-sxm", "deepseek-r1", tp=8, pp=4)).as_dict()
    assert native["format"]["weights"] == "bf16"
    assert answer_of(deployment(cat, "nvidia-h100-sxm", "deepseek-r1", tp=8, pp=4)).as_dict()["format"]["weights"] == "fp8_block"


def test_disaggregation_takes_prefill_out_of_the_decoding_step(cat):
    mixed, split = (answer_of(deployment(cat, isl=8192, serving=s)) for s in ("aggregated", "disaggregated"))
    assert float(split.time_s.prefill) == 0
    assert float(split.tpot_s) < float(mixed.tpot_s)
    assert float(split.chips) > float(mixed.chips)


def test_names_of_formats_become_numbers():
    layout = Layout(format="fp8/bf16")
    assert layout.format.weight_byte == 1.0
    assert layout.format.kv_byte == 2.0
    with pytest.raises(dse.errors.InputError, match="did you mean 'fp8'"):
        named_format("fp88")


def test_single_precision_agrees_with_double(cat):
    d = as_floats(deployment(cat, batch=2.0 ** np.arange(10), format="fp8"))
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), d)
    exact, rough = answer_of(d), answer_of(single)
    assert rough.tpot_s.dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(rough.usd_per_million_output_token), np.asarray(exact.usd_per_million_output_token), rtol=2e-5)
