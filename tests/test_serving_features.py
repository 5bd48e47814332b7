"""Features of serving that are off by default: host memory, redundant experts, a stated worth of a token, guesses in workload files, and
random arrivals where another instance prefills. What is off changes nothing; what is on costs what it costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

import dse
from dse.catalog.host import offload
from dse.certificates import problem_of
from dse.equations.collectives import passing
from dse.equations.roofline import experts_ffn
from dse.errors import InputError
from dse.evaluate import as_floats, machine, prefill_step
from dse.questions import questions_of
from dse.results import of_stated_worth
from dse.search.grid import Grid
from dse.search.layouts import best_layouts
from dse.study import parse_study, read_study
from dse.types import Arrivals, Layout, Moe, Workload
from tests.des import Engine, lognormal, simulate


@pytest.fixture(scope="module")
def cat():
    return dse.load_catalog()


@pytest.fixture(scope="module")
def base(cat):
    return dse.Deployment(
        chip=cat.chips["nvidia-h100-sxm"],
        model=cat.models["llama-3-70b"],
        workload=Workload(input_tokens=4096.0, output_tokens=1024.0),
        layout=Layout(tp=8.0, batch=64.0),
        prices=cat.prices["owner-2026"],
    )


def plain(d):
    """One answer without compiling: a few seconds less for each feature."""
    with jax.disable_jit():
        return dse.evaluate(d)


def held(d, cat, share):
    return replace(d, layout=replace(d.layout, offload=offload(cat, "nvidia-h100-sxm", share)))


# --- cache in host memory ------------------------------------------------------------------------------------------------


def test_a_share_of_the_cache_leaves_the_chip_and_passes_the_link_every_step(cat, base):
    off, none, half = plain(base), plain(held(base, cat, 0.0)), plain(held(base, cat, 0.5))
    assert off.host_byte_per_chip is None and float(none.host_byte_per_chip) == 0.0
    assert float(none.tpot_s) == pytest.approx(float(off.tpot_s), rel=1e-12)
    kv = float(off.memory_byte_per_chip.kv)
    assert float(half.memory_byte_per_chip.kv) == pytest.approx(kv / 2) and float(half.host_byte_per_chip) == pytest.approx(kv / 2)
    read = 80 * 2 * 8 * 128 * 2 / 8 * (4096 + 512) * 64  # byte a step, by hand
    least = read / 2 * (1 / 64e9 - 1 / 3.35e12)
    assert least < float(half.tpot_s - off.tpot_s) < 1.5 * least


def test_host_memory_lets_a_batch_fit_and_is_paid_for(cat, base):
    large = replace(base, layout=replace(base.layout, batch=512.0))
    without, with_host = plain(large), plain(held(large, cat, 0.6))
    assert not bool(without.feasible) and bool(with_host.feasible)
    small, paid = plain(base), plain(held(base, cat, 0.5))
    usd = 8 * float(paid.host_byte_per_chip) * 5e-9
    more = float(paid.cost_usd_per_s.system - small.cost_usd_per_s.system)
    assert 0.2 < more / usd * 365 * 24 * 3600 < 0.4  # an annuity over the life of a server


def test_the_host_is_full_some_time(cat, base):
    full = replace(base, workload=Workload(input_tokens=131072.0, output_tokens=1024.0), layout=replace(base.layout, batch=512.0))
    answer = plain(held(full, cat, 0.95))
    assert float(answer.host_byte_per_chip) > 250e9 and float(answer.slack.memory) < 0 and not bool(answer.feasible)


def test_a_chip_without_a_host_of_its_own_takes_a_marked_default_and_none_is_an_error(cat):
    assert offload(cat, "nvidia-gb200-nvl72", 0.1).host.s_per_byte == pytest.approx(1 / 225e9)
    bare = dse.load_catalog()
    for values in (bare.records["defaults"]["common"].values,):
        values.pop("host_memory")
    with pytest.raises(InputError, match="host_memory — found nothing"):
        offload(bare, "amd-mi300x", 0.1)
    with pytest.raises(InputError, match=r"--kv-offload — found 1\.5"):
        offload(cat, "nvidia-h100-sxm", 1.5)


# --- redundant experts -----------------------------------------------------------------------------------------------------


def placed(rng, experts, ranks, alpha, copies):
    """Excess of the busiest rank over the mean: experts of power-law load, the hottest copied, heaviest first to the emptiest rank."""
    load = rng.pareto(alpha, experts) + 1.0
    load /= load.sum()
    number = np.ones(experts)
    for _ in range(copies):
        number[np.argmax(load / number)] += 1
    parts = np.sort(np.repeat(load / number, number.astype(int)))[::-1]
    total, count = np.zeros(ranks), np.zeros(ranks)
    for x in parts:
        i = np.argmin(np.where(count < (experts + copies) // ranks, total, np.inf))
        total[i] += x
        count[i] += 1
    return total.max() * ranks - 1.0, load.reshape(ranks, -1).sum(1).max() * ranks - 1.0


@pytest.mark.parametrize(("experts", "ranks"), [(256, 8), (256, 32), (128, 8)])
def test_one_further_copy_a_rank_levels_a_known_load(experts, ranks):
    """The rule behind ``redundant_experts``: the excess is gone with as many copies as ranks; without copies most of it stays."""
    rng = np.random.default_rng(1)
    found = np.array([placed(rng, experts, ranks, 1.2, ranks) for _ in range(20)])
    assert found[:, 0].mean() < 0.05 * found[:, 1].mean() and found[:, 1].mean() > 0.5


def test_the_busiest_rank_evens_out_with_the_experts_it_holds():
    """The excess that the equation lets a rank of 32 experts have lies between those of loads drawn from two power laws."""
    c = Moe(floor_s=0.0, compute_efficiency=1.0, memory_efficiency=1.0, activation_efficiency=1e9, tile_token=0.0, imbalance=2.0)

    def excess(experts):  # computing only: 8 ranks, as many rows on each
        even, uneven = (float(experts_ffn(1e6, 1.0, 1.0, 3.0, experts, 1.0, 8.0, u, 0.0, c, 1.0, 1e-12, 0.0).total) for u in (0.0, 1.0))
        return uneven / even - 1.0

    def drawn(alpha, held):
        load = np.random.default_rng(2).pareto(alpha, (3000, 8, held)) + 1.0
        return (load.sum(2).max(1) / load.sum(2).mean(1) - 1.0).mean()

    assert excess(8.0) == pytest.approx(2.0 * 7 / 8, rel=1e-6)
    assert drawn(1.2, 32) / drawn(1.2, 1) > excess(256.0) / excess(8.0) > drawn(2.0, 32) / drawn(2.0, 1)


def test_redundant_experts_trade_memory_for_balance(cat):
    d = dse.Deployment(
        chip=cat.chips["nvidia-h200-sxm"],
        model=cat.models["deepseek-r1"],
        workload=Workload(input_tokens=2048.0, output_tokens=512.0),
        layout=Layout(dp=32.0, ep=32.0, batch=4096.0),
        prices=cat.prices["owner-2026"],
    )
    none, some = plain(d), plain(replace(d, layout=replace(d.layout, redundant_experts=32.0)))
    even = plain(replace(d, workload=replace(d.workload, uneven_routing=0.0)))
    assert float(even.tpot_s) < float(some.tpot_s) < float(none.tpot_s)
    experts = 58 * 256 * 3 * 7168 * 2048 / 32  # weights of routed experts on a chip, in 8 bit with its scales
    more = float(some.memory_byte_per_chip.weights - none.memory_byte_per_chip.weights)
    assert more == pytest.approx(experts * 32 / 256, rel=0.02)
    zero = plain(replace(d, layout=replace(d.layout, redundant_experts=0.0)))
    assert float(zero.tpot_s) == pytest.approx(float(none.tpot_s), rel=1e-12)


# --- a stated worth of a token -----------------------------------------------------------------------------------------------


def test_a_stated_worth_is_shown_beside_and_changes_nothing_else(base):
    without, stated = plain(base).as_dict(), plain(replace(base, quality=0.8)).as_dict()
    assert "quality" not in without and "usd_per_million_adjusted_token" not in without
    assert stated.pop("usd_per_million_adjusted_token") == pytest.approx(without["usd_per_million_output_token"] / 0.8)
    assert stated.pop("quality") == 0.8 and stated == without


# --- guesses and samples in a workload file ------------------------------------------------------------------------------------

FILE = """
id = "guessed"
input_tokens = "1024 token"
output_tokens = "256 token"
{more}
"""


def overlay(tmp_path, more):
    (tmp_path / "workloads").mkdir(exist_ok=True)
    (tmp_path / "workloads" / "guessed.toml").write_text(FILE.format(more=more), encoding="utf-8")
    return dse.load_catalog(tmp_path)


def test_a_workload_file_may_guess_tokens_and_a_search_uses_it(tmp_path):
    known = overlay(tmp_path, 'draft = "self"\ndraft_tokens = "1 token"\nacceptance = 0.8\nsamples = 2.0')
    w = known.workloads["guessed"]
    assert w.speculation.tokens == 1.0 and w.speculation.acceptance == 0.8 and w.speculation.draft is None and w.samples == 2.0
    grid = Grid(tp=(1,), dp=(1,), pp=(1,), batches=(1.0, 8.0), formats=("bf16",))
    chip, model, prices = known.chips["nvidia-h100-sxm"], known.models["llama-3-8b"], known.prices["owner-2026"]
    one = replace(w, samples=None)
    layout, m = best_layouts(chip, model, one, prices, grid=grid)
    again = plain(dse.Deployment(chip=chip, model=model, workload=one, layout=layout, prices=prices))
    assert float(m.tpot_s) == pytest.approx(float(again.tpot_s))
    d = dse.Deployment(chip=chip, model=model, workload=replace(one, speculation=None), layout=layout, prices=prices)
    assert float(m.usd_per_million_output_token) < float(plain(d).usd_per_million_output_token)


def test_half_a_guess_is_an_error(tmp_path):
    known = overlay(tmp_path, 'draft = "llama-3-8b"\nacceptance = 0.8')
    with pytest.raises(InputError, match="draft_tokens — missing"):
        known.workloads["guessed"]
    assert overlay(tmp_path, "").workloads["guessed"].speculation is None


# --- what a study fixes in all layouts -------------------------------------------------------------------------------------------

STUDY = Path(__file__).parent.parent / "examples" / "serving" / "study.toml"


def test_a_study_fixes_host_memory_and_copies_for_every_layout(cat):
    study = read_study(STUDY, cat)
    case = questions_of(study, cat).cases[0]
    layout = Layout(dp=8.0, ep=8.0, batch=64.0, format="fp8")
    d = dse.Deployment(
        chip=cat.chips["nvidia-b200-sxm"], model=case.model, workload=case.workload, layout=layout, prices=cat.prices["owner-2026"]
    )
    said = replace(layout, offload=case.workload.offload, redundant_experts=8.0)
    alone = replace(d, workload=replace(case.workload, offload=None, copies_per_rank=None), layout=said)
    one, two, off = plain(d), plain(alone), plain(replace(alone, layout=layout))
    assert float(one.tpot_s) == pytest.approx(float(two.tpot_s), rel=1e-12) != float(off.tpot_s)
    assert float(one.host_byte_per_chip) == pytest.approx(float(off.memory_byte_per_chip.kv) / 4)
    assert float(plain(replace(d, layout=replace(layout, ep=1.0))).memory_byte_per_chip.weights) == pytest.approx(
        float(plain(replace(alone, layout=Layout(dp=8.0, batch=64.0, format="fp8"))).memory_byte_per_chip.weights)
    )


def test_a_stated_worth_decides_between_formats_and_changes_no_cost(cat):
    chip, model, prices = cat.chips["nvidia-b200-sxm"], cat.models["llama-3-70b"], cat.prices["owner-2026"]
    work = Workload(input_tokens=1024.0, output_tokens=256.0)
    grid = Grid(tp=(1,), dp=(1,), pp=(1,), batches=(8.0,), formats=("bf16", "nvfp4"))
    free, m = best_layouts(chip, model, work, prices, grid=grid)
    held, n = best_layouts(chip, model, work, prices, grid=replace(grid, worth={"nvfp4": 0.1}))
    _, k = best_layouts(chip, model, work, prices, grid=replace(grid, worth={"nvfp4": 0.99}))
    cost = [float(x.usd_per_million_output_token) for x in (m, n, k)]
    assert float(free.format.weight_byte) < 0.7 and float(held.format.weight_byte) >= 1.0 and cost[2] == cost[0] < cost[1] < 10 * cost[0]


def test_a_result_shows_both_costs_where_a_worth_is_stated():
    price, formats = xr.DataArray([1.0, 3.0, np.nan], dims="design"), xr.DataArray(np.array(["nvfp4", "fp8", ""], object), dims="design")
    ds = of_stated_worth(xr.Dataset({"usd_per_million_output_token": price, "format_weights": formats}), {"nvfp4": 0.5})
    assert list(ds.usd_per_million_adjusted_token.values[:2]) == [2.0, 3.0] and np.isnan(ds.quality.values[2])
    assert list(ds.usd_per_million_output_token.values[:2]) == [1.0, 3.0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("kv_offload = 1.5", r"layouts\.kv_offload — found 1\.5, allowed a number from 0 to 1"),
        ("redundant_experts = 0.5", r"layouts\.redundant_experts — found 0\.5, allowed a whole number from 0"),
        ("quality = { nvfp4 = 0 }", r"layouts\.quality\.nvfp4 — found 0, allowed a number above 0"),
        ("quality = { fp9 = 0.9 }", r"layouts\.quality\.fp9"),
        ("quality = 0.9", r"layouts\.quality — found 0\.9, allowed a worth for each format"),
    ],
)
def test_what_a_study_may_not_fix(line, message):
    kept = [x for x in STUDY.read_text(encoding="utf-8").splitlines() if not x.startswith(("kv_offload", "redundant", "quality"))]
    with pytest.raises(InputError, match=message):
        parse_study("\n".join([*kept, line]), STUDY)


def test_no_certificate_of_what_the_bound_does_not_know(cat):
    text = STUDY.read_text(encoding="utf-8") + "\n[search]\ncertify = 10\n"
    with pytest.raises(InputError, match=r"search\.certify — found 10 beside layouts\.kv_offload"):
        parse_study(text, STUDY)
    study = parse_study(STUDY.read_text(encoding="utf-8") + "\n[families.hbm_gpu]\n", STUDY)
    with pytest.raises(InputError, match=r"layouts\.kv_offload — found beside a certificate"):
        problem_of(study, cat, "hbm_gpu", 0.05)


# --- context parallelism -------------------------------------------------------------------------------------------------------


def test_context_parallel_prefill_of_a_published_cluster(cat):
    """128 H100, sixteen nodes of eight: Llama-3-405B reads 128K tokens in 3.8 s and a million in 77 s (yang-context-parallel-2024)."""
    times = []
    for tokens in (131072.0, 1e6):
        d = dse.Deployment(
            chip=cat.chips["nvidia-h100-sxm"],
            model=cat.models["llama-3.1-405b"],
            workload=Workload(input_tokens=tokens, output_tokens=1.0),
            layout=Layout(tp=8.0, cp=16.0, format="fp8/bf16"),
            prices=cat.prices["owner-2026"],
            serving="prefill",
        )
        times.append(float(plain(d).ttft_s))
    assert times[0] == pytest.approx(3.8, rel=0.2) and times[1] == pytest.approx(77.0, rel=0.1)


def test_context_ranks_pass_what_is_less_over_the_network_between_servers(cat, base):
    """By hand: eight tensor ranks fill a server, so the cache of a long prompt (a head a rank) goes over 400 Gbit/s a chip."""
    long = replace(base, workload=Workload(input_tokens=131072.0, output_tokens=1.0), serving="prefill")
    chip = dse.ideal(long.chip)
    chip = replace(chip, kernels=replace(chip.kernels, system=replace(chip.kernels.system, overlap=0.0)))
    free = replace(chip, scale_out=replace(chip.scale_out, s_per_byte=0.0))
    with_net, without = (plain(replace(long, chip=c, layout=Layout(tp=8.0, cp=4.0))) for c in (chip, free))
    passed = 80 * 3 / 4 * 131072 * 2 * 128 * 2 / 50e9
    reduced = 80 * 2 * (3 / 4 * 131072 / 4 * 8192 * 2 / 8) / 50e9  # of the feed-forward, over all 32 chips
    assert float(with_net.ttft_s - without.ttft_s) == pytest.approx(passed + reduced, rel=0.05)


def test_context_parallelism_shares_the_work_of_a_prompt_and_costs_an_exchange(cat, base):
    """By hand: on ideal chips without communication, cp ranks take 1/cp of the time of one."""
    long = replace(base, workload=Workload(input_tokens=131072.0, output_tokens=1.0), layout=Layout(tp=8.0), serving="prefill")
    ideal = replace(long, chip=dse.ideal(long.chip))
    one, four = (plain(replace(ideal, layout=Layout(tp=8.0, cp=n))) for n in (1.0, 4.0))
    fast = replace(ideal.chip.scale_up, s_per_byte=0.0, chips=1e9)
    silent = plain(replace(ideal, chip=replace(ideal.chip, scale_up=fast), layout=Layout(tp=8.0, cp=4.0)))
    alone = plain(replace(ideal, chip=replace(ideal.chip, scale_up=fast), layout=Layout(tp=8.0)))
    assert float(alone.ttft_s) / float(silent.ttft_s) == pytest.approx(4.0, rel=0.01)
    assert 1.0 < float(one.ttft_s) / float(four.ttft_s) < 4.0
    kv = [float(plain(replace(base, layout=Layout(tp=8.0, batch=64.0, cp=n))).memory_byte_per_chip.kv) for n in (1.0, 4.0)]
    assert kv[0] / kv[1] == pytest.approx(4.0)


# --- arrivals where another instance prefills -----------------------------------------------------------------------------------


def two_stations(d, rate, busy, input_cv, output_cv, size, seed=3):
    """What simulated users see: one of many prefill ranks that are ``busy``, first come first served; transfer; a rank that decodes."""
    d = as_floats(d)
    w, rng = d.workload, np.random.default_rng(seed)
    prompts = lognormal(rng, float(w.input_tokens), input_cv, size)
    outputs = lognormal(rng, float(w.output_tokens), output_cv, size, least=2.0)
    arrival = np.cumsum(rng.exponential(1.0 / rate, size))
    lengths = np.exp(np.linspace(0.0, np.log(prompts.max()), 60))
    context = w.input_tokens + w.output_tokens * (1.0 + output_cv**2) / 2.0
    counts = np.arange(1.0, float(d.layout.batch) + 1.0)
    step_of = replace(d, serving="decode", workload=replace(w, input_tokens=context), layout=replace(d.layout, batch=counts))
    with jax.disable_jit():
        mc = machine(d.chip, d.model, d.layout, d.layout.batch * 0.0 + 1.0)
        pre = np.asarray(prefill_step(mc, d.model, replace(w, input_tokens=lengths), d.layout, 1.0).stage_s)
        steps = np.asarray(dse.evaluate(step_of).tpot_s).tolist()
    service = np.interp(np.log(prompts), np.log(lengths), pre)
    kv = 32 * 2 * 8 * 128 * 2 * prompts * float(d.chip.scale_out.s_per_byte)  # Llama-3-8B, by hand
    gaps, wait = rng.exponential(service.mean() / busy, size), np.zeros(size)  # of one prefill rank, whose waits all ranks share
    for i in range(1, size):
        wait[i] = max(wait[i - 1] + service[i - 1] - gaps[i], 0.0)
    ready = arrival + wait + service + kv
    order = np.argsort(ready)
    engine = Engine(lambda n, c: steps[n - 1], lambda pieces: 0.0, slots=int(d.layout.batch), chunk=1e12)
    served = simulate(engine, rate, np.ones(size), outputs[order], rng, arrival=ready[order])
    keep = slice(int(0.1 * size), int(0.95 * size))
    return served.ttft_s + (ready - arrival)[order][keep], served.tpot_s


def test_arrivals_of_disaggregated_serving_agree_with_two_stations_in_a_row(cat):
    d = dse.Deployment(
        chip=cat.chips["nvidia-h100-sxm"],
        model=cat.models["llama-3-8b"],
        workload=Workload(input_tokens=2048.0, output_tokens=256.0),
        layout=Layout(batch=32.0),
        prices=cat.prices["owner-2026"],
        serving="disaggregated",
    )
    probe = plain(replace(d, arrivals=Arrivals(rate_per_s=1.0, input_cv=0.8, output_cv=0.8)))
    rate = 0.6 / float(probe.arrivals.load)
    seen = plain(replace(d, arrivals=Arrivals(rate_per_s=rate, input_cv=0.8, output_cv=0.8)))
    busy = 0.6 * float(d.chip.kernels.system.prefill_load)
    ttft, tpot = two_stations(d, rate, busy, 0.8, 0.8, 30_000)
    host = float(d.chip.kernels.system.first_token_s)
    a = seen.arrivals
    assert float(seen.tpot_s) == pytest.approx(tpot.mean(), rel=0.05) and float(a.tpot_p99_s) == pytest.approx(
        np.percentile(tpot, 99), rel=0.10
    )
    assert float(seen.ttft_s) - host == pytest.approx(ttft.mean(), rel=0.10)
    assert float(a.ttft_p99_s) - host == pytest.approx(np.percentile(ttft, 99), rel=0.20)
    assert not seen.as_dict()["arrivals"]["validated"]  # one case is no range
    assert float(a.prefill_share) == pytest.approx(busy)


# --- torus and mesh -------------------------------------------------------------------------------------------------------------


def test_the_middle_of_a_torus_carries_what_crosses_it():
    """By hand: all pairs of chips exchange a byte each by shortest ways; the busiest link over the mean of 2d busy links a chip."""
    for sides, joined in (((4, 4), True), ((8,), True), ((4, 4), False)):
        n, d, k = int(np.prod(sides)), len(sides), sides[0]
        load = {}
        for a in np.ndindex(*sides):
            for b in np.ndindex(*sides):
                at = list(a)
                for axis in range(d):  # dimension by dimension; two ways of one length share
                    gap = b[axis] - at[axis]
                    ways = (
                        [gap] if not joined or 2 * abs(gap) < k else [gap - k * np.sign(gap)] if 2 * abs(gap) > k else [k // 2, -(k // 2)]
                    )
                    for way in ways:
                        here = list(at)
                        for _ in range(abs(way)):
                            step = int(np.sign(way))
                            key = (tuple(here), axis, step)
                            load[key] = load.get(key, 0.0) + 1.0 / len(ways)
                            here[axis] = (here[axis] + step) % k
                    at[axis] = b[axis]
        behind_a_switch = n / (2 * d)  # of one link, where all of a chip's are busy all the time
        assert float(passing(float(n), float(d), float(not joined))) == pytest.approx(max(load.values()) / behind_a_switch)


def test_experts_on_a_torus_wait_for_its_middle_and_dense_models_do_not(cat):
    torus = cat.chips["google-tpu-v5p"]
    assert torus.scale_up.dimensions == 3.0 and cat.chips["nvidia-h100-sxm"].scale_up.dimensions == 0.0
    switch = replace(torus, scale_up=replace(torus.scale_up, dimensions=0.0))
    for model, layout, slower in (
        ("mixtral-8x7b", Layout(dp=8.0, ep=8.0, batch=512.0), True),
        ("llama-3-70b", Layout(tp=8.0, batch=64.0), False),
    ):
        one, two = (
            plain(
                dse.Deployment(
                    chip=c,
                    model=cat.models[model],
                    workload=Workload(input_tokens=1024.0, output_tokens=256.0),
                    layout=layout,
                    prices=cat.prices["owner-2026"],
                )
            )
            for c in (torus, switch)
        )
        assert (float(one.tpot_s) > float(two.tpot_s)) is slower
