"""Predicted against measured: what a prediction may read, how chips and layouts are found, and how close the operators come."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dse.calibrate.engine import OFFLINE, steps_of
from dse.catalog import load_catalog
from dse.equations.roofline import experts_hit
from dse.equations.serving import balance_wait_steps
from dse.errors import InputError
from dse.evaluate import ideal
from dse.paths import data_dir
from dse.validate import _outcome, outcomes, validate
from dse.validate.engines import base_of, engine_of, in_engine, read_engines
from dse.validate.figures import Axis
from dse.validate.operators import Job, predict_seconds
from dse.validate.resolve import Chips, Resolved
from dse.validate.rows import Rule, every_row, excluded_by, read_folder, read_rules, read_table
from dse.validate.runs import Cut, Models, Run, layout_of, narrow, run_of, workers_of
from dse.validate.settings import NONE
from dse.validate.shapes import Unpredictable, case
from dse.validate.special import _verdict, remarks, verdicts
from dse.validate.systems import Evaluator, metric_of, predict_systems
from dse.validate.table import KEYS, ROW_COLUMNS

SHIPPED = data_dir("hw_catalog") / "measurements"
DERIVED = ("achieved_", "frac_", "roofline_frac", "algbw_gbs", "busbw_gbs", "reported_gbs")


@pytest.fixture(scope="module")
def catalog():
    return load_catalog()


def write_tables(folder: Path, tables: dict[str, list[dict[str, str]]]) -> Path:
    for name, rows in tables.items():
        columns = list(dict.fromkeys(c for row in rows for c in row))
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            out = csv.DictWriter(file, columns)
            out.writeheader()
            out.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Every 40th shipped row (every 150th of the runs), with the datasheet table."""
    tables, peaks = read_folder(SHIPPED)
    thin = {name: rows[:: 150 if name.startswith("system") else 40] for name, rows in tables.items()}
    return write_tables(tmp_path_factory.mktemp("rows"), {**thin, "chip_peaks": list(peaks.values())})


@pytest.fixture(scope="module")
def report(sample, tmp_path_factory, catalog):
    rows = tmp_path_factory.mktemp("out") / "rows.csv"
    return validate(sample, rows, catalog), rows


def test_every_row_is_predicted_or_skipped_with_a_reason(report):
    result, path = report
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == ROW_COLUMNS
    assert len(rows) == result["rows"]
    assert all(bool(r["predicted"]) != bool(r["skipped_reason"]) for r in rows)
    assert sum(s["count"] for s in result["skipped"]) == result["rows"] - result["predicted"]


def test_groups_have_margins_that_add_up(report):
    groups = report[0]["groups"]
    names = [tuple(g[k] for k in KEYS) for g in groups]
    assert len(set(names)) == len(names)
    by_name = dict(zip(names, groups, strict=True))
    whole = by_name[("op", "gemm", "*", "*", "*")]
    parts = [g for n, g in by_name.items() if n[:2] == ("op", "gemm") and n[2] != "*" and n[3:] == ("*", "*")]
    assert whole["n"] == sum(g["n"] for g in parts) > 50
    assert 0 < whole["median_abs_error"] <= whole["p90_abs_error"]
    assert by_name[("*",) * 5]["n"] == sum(by_name[(level, "*", "*", "*", "*")]["n"] for level in ("op", "system"))


def test_a_prediction_does_not_read_the_measurement(sample, report, tmp_path, catalog):
    tables, peaks = read_folder(sample)
    blank = {}
    for name, rows in tables.items():
        blank[name] = [{c: "" if c == "value" or c.startswith(DERIVED) else v for c, v in row.items()} for row in rows]
    folder = write_tables(tmp_path, {**blank, "chip_peaks": list(peaks.values())})
    before = [o.predicted for o in outcomes(sample, catalog)]
    after = [o.predicted for o in outcomes(folder, catalog)]
    assert before == after
    assert sum(p is not None for p in after) == report[0]["predicted"]


def test_flagged_rows_are_counted_and_not_compared(tmp_path, catalog):
    row = {
        "id": "a",
        "level": "op",
        "op": "gemm",
        "chip": "H100-SXM5-80GB",
        "m": "8",
        "n": "4096",
        "k": "4096",
        "precision_weights": "bf16",
        "unit": "us",
        "value": "9",
    }
    folder = write_tables(tmp_path, {"ops_gemm": [row, {**row, "id": "b", "value": "900", "flag": "cache"}]})
    group = next(
        g for g in validate(folder, catalog=catalog)["groups"] if g["op"] == "gemm" and g["chip"] == g["model"] == g["format"] == "*"
    )
    assert (group["n"], group["n_flagged"]) == (1, 1)
    assert group["median_abs_error"] < 1


PEAK = {
    "peak_bf16_tflops": "1000",
    "peak_fp8_tflops": "2000",
    "hbm_gbs": "4000",
    "hbm_gb": "96",
    "link_gbs_per_dir": "450",
    "tdp_w": "800",
    "memory": "HBM3",
}


@pytest.mark.parametrize(
    ("row", "by", "constants"),
    [
        ({"generation": "hopper", "vendor": "NVIDIA"}, "chip_peaks, generation", "nvidia-h100"),
        ({"generation": "nobody", "vendor": "NVIDIA"}, "chip_peaks, vendor", "nvidia"),
        ({"generation": "nobody", "vendor": "AMD"}, "chip_peaks, vendor", "amd-mi355x"),
        ({"generation": "nobody", "vendor": "Nobody"}, "chip_peaks, family", "hbm_gpu"),
        ({"generation": "nobody", "vendor": "Nobody", "memory": "none"}, "chip_peaks, family", "sram"),
    ],
)
def test_an_unknown_chip_borrows_constants_but_no_numbers(row, by, constants, catalog):
    chips = Chips(catalog, {"H100 NVL-like": {"chip": "H100 NVL-like", **PEAK, **row}})
    found = chips.find("H100 NVL-like")
    assert (found.by, found.constants.id) == (by, constants)
    assert found.peak("bf16") == 1e15 and found.peak("fp8") == 2e15
    assert found.peak("nvfp4") == 1e15  # no 4-bit datapath: widened to bf16
    store = found.chip.sram if row.get("memory") == "none" else found.chip.memory
    assert store.s_per_byte == pytest.approx(1 / 4e12)
    assert chips.find("H100 NVL") is None


def test_an_alias_is_exact_and_beats_the_table(catalog):
    chips = Chips(catalog, {"H100-SXM5-80GB": {"chip": "H100-SXM5-80GB", **PEAK, "generation": "hopper", "vendor": "NVIDIA"}})
    assert (chips.find("H100-SXM5-80GB").id, chips.find("H100-SXM5-80GB").by) == ("nvidia-h100-sxm", "alias")
    assert chips.find("nvidia-h100-sxm").by == "id"


def test_a_rate_is_work_over_the_predicted_time(tmp_path, catalog):
    row = {
        "id": "t",
        "level": "op",
        "op": "gemm",
        "chip": "H100-SXM5-80GB",
        "m": "4096",
        "n": "4096",
        "k": "4096",
        "precision_weights": "bf16",
        "value": "1",
        "unit": "us",
    }
    folder = write_tables(tmp_path, {"ops": [row, {**row, "id": "r", "unit": "TFLOP/s"}]})
    time, rate = (o.predicted for o in outcomes(folder, catalog))
    assert rate == pytest.approx(2 * 4096**3 / (time * 1e-6) / 1e12)
    assert 2 * 4096**3 / 989e12 * 1e6 < time < 2.5 * 2 * 4096**3 / 989e12 * 1e6


def test_a_layer_is_the_sum_of_its_parts(operators):
    tables, _ = read_folder(SHIPPED)
    rows = [r for r in tables["ops_layer_parts"] if r["op"].startswith("layer_") and r["phase"] == "prefill"]
    total = next(r for r in rows if r["op"] == "layer_total")
    found = {o.op: o.predicted for o in operators if o.file == "ops_layer_parts" and o.id in {r["id"] for r in rows}}
    parts = [v for k, v in found.items() if k.startswith("layer_part:")]
    assert found["layer_total"] == pytest.approx(sum(parts))
    assert found["layer_total"] == pytest.approx(float(total["value"]), rel=0.1)


def test_balanced_routing_deals_experts_in_turn():
    row = {"op": "moe_ffn_fused", "hidden_size": "64", "inter_size": "64", "topk": "8", "num_experts": "256", "precision_weights": "fp8"}
    row |= {"moe_ep": "8", "unit": "us"}
    for tokens, dealt in ((1, 8), (4, 32), (16, 128), (32, 256), (64, 256)):
        even, random = (case({**row, "tokens": str(tokens), "routing": r}).sizes for r in ("balanced", ""))
        assert float(experts_hit(256.0, 8.0, even["distinct"])) == pytest.approx(dealt, rel=1e-6)
        assert float(experts_hit(256.0, 8.0, random["distinct"])) <= dealt * (1 + 1e-9)
    for routing in ("balanced", "power_law_1.2"):
        lonely = case({**row, "num_experts": "8", "topk": "2", "tokens": "1", "routing": routing}).sizes
        assert float(experts_hit(8.0, 2.0, lonely["distinct"])) == pytest.approx(8.0)  # the timed rank always has one
    assert case({**row, "tokens": "64", "routing": "power_law_1.2"}).sizes["distinct"] == 64


def test_rows_without_an_equation_say_so():
    with pytest.raises(Unpredictable, match="no equation"):
        case({"op": "fft"})
    with pytest.raises(Unpredictable, match="column n is blank"):
        case({"op": "gemm", "m": "1"})
    with pytest.raises(Unpredictable, match="no kernel class"):
        case({"op": "gemm", "m": "1", "n": "1", "k": "1", "precision_weights": "posit8"})


def test_the_committed_counts_of_exclusions_are_right():
    import tomllib

    tables, _ = read_folder(SHIPPED)
    rules = read_rules()
    found = [excluded_by(rules, file, row) for file, row in every_row(tables)]
    with (data_dir("hw_catalog") / "exclusions.toml").open("rb") as file:
        table = tomllib.load(file)["rule"]
    assert {r["id"]: found.count(r["id"]) for r in table} == {r["id"]: r["count"] for r in table}
    assert all(len(r["reason"]) > 40 for r in table)
    assert 0 < sum(map(bool, found)) < 0.06 * len(found)


def test_rules_compare_columns():
    rule = Rule("x", "because", {"chip": ["A*", "B*"], "batch": "< @n_chips", "k": ">= 8"})
    row = {"chip": "b200", "batch": "4", "n_chips": "8", "k": "8"}
    assert rule.matches("f", row)
    assert not rule.matches("f", {**row, "batch": "8"})
    assert not rule.matches("f", {**row, "k": ""})
    assert not rule.matches("f", {**row, "chip": "H100"})


def test_attention_ranks_are_read_as_the_world():
    assert layout_of({"tp": "8", "dp_attention": "True", "n_chips": "8"}).dp == 8
    spread = layout_of({"tp": "4", "dp": "4", "ep": "4", "dp_attention": "True", "n_chips": "4"})
    assert (spread.tp, spread.dp, spread.ep, spread.chips) == (1, 4, 4, 4)
    plain = layout_of({"tp": "4", "dp": "2", "dp_attention": "False", "n_chips": "8"})
    assert (plain.tp, plain.dp) == (4, 2)
    assert layout_of({"tp": ""}) is None


def test_disaggregated_workers_stand_in_the_note():
    note = (
        "disaggregated: prefill 1 workers x TP4 EP4 dp_attention=false on 4 GPUs; decode 4 workers x TP8 EP8 dp_attention=true on 32 GPUs"
    )
    both = workers_of({"note": note})
    assert both["prefill"][0] == 1 and both["prefill"][1].tp == 4
    count, cut = both["decode"]
    assert (count, cut.tp, cut.dp, cut.ep) == (4, 1, 8, 8)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Llama-3.1-8B", "llama-3.1-8b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.3-70b"),
        ("llama 3 70b", "llama-3-70b"),
        ("DeepSeek-R1 671B", "deepseek-r1"),
        ("Qwen3-235B", "qwen3-235b-a22b"),
    ],
)
def test_models_are_found_by_their_published_names(name, found, catalog):
    assert Models(catalog).find(name) == found


def test_what_a_run_does_not_say_is_not_guessed(catalog):
    models = Models(catalog)
    row = {
        "model": "Llama-3.1-8B",
        "mode": "aggregated",
        "batch_or_concurrency": "8",
        "isl": "1024",
        "osl": "128",
        "tp": "1",
        "n_chips": "1",
    }
    assert run_of(row, "x", models).batch == 8
    with pytest.raises(Unpredictable, match="speculative"):
        run_of({**row, "spec_decoding": "mtp"}, "x", models)
    with pytest.raises(Unpredictable, match="unknown model"):
        run_of({**row, "model": "Nobody-9B"}, "x", models)
    with pytest.raises(Unpredictable, match="isl"):
        run_of({**row, "isl": "avg mix"}, "x", models)


def test_the_wide_table_becomes_rows_of_one_user(catalog):
    wide = {"hardware": "Groq LPU v1", "chips": "8 cards (16 pkg)", "model": "Llama-2-70B", "precision": "FP8", "tok_s_per_user": "290-310"}
    row = narrow(wide)
    assert (row["value"], row["n_chips"], row["metric"]) == ("300.0", "16", "output_speed_per_user")
    run = run_of(row, "groq-lpu-v1", Models(catalog))
    assert (run.serving, run.batch, run.whole, run.format) == ("decode", 1.0, True, "fp8")
    assert narrow({**wide, "tok_s_per_user": ">1000"})["mode"] == "published throughput"


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(InputError, match="no CSV file"):
        validate(tmp_path)
    with pytest.raises(InputError, match="not found"):
        validate(tmp_path / "nowhere")


LIMITS = {  # median error of operators over all shipped rows: the fit's own, and a little room
    "gemm": 0.08, "attention_decode": 0.07, "attention_prefill_causal": 0.06, "mla_decode_absorbed": 0.1, "mla_prefill_causal": 0.07,
    "moe_ffn_fused": 0.11, "all_reduce": 0.08, "all_gather": 0.1, "reduce_scatter": 0.09, "alltoall": 0.1,
    "ep_dispatch_lowlatency": 0.05, "ep_combine_lowlatency": 0.06, "layer_total": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("op", LIMITS)
def test_operators_stay_within_the_error_they_were_fitted_to(op, catalog, operators):
    signed = np.array([o.predicted / o.measured - 1 for o in operators if o.op == op and o.compared and not o.excluded_by])
    assert len(signed) and np.median(np.abs(signed)) < LIMITS[op]
    assert abs(np.median(signed)) < LIMITS[op] / 2


@pytest.fixture(scope="module")
def operators(catalog, tmp_path_factory):
    tables, peaks = read_folder(SHIPPED)
    some = {name: rows for name, rows in tables.items() if name.startswith("ops_")}
    return outcomes(write_tables(tmp_path_factory.mktemp("ops"), {**some, "chip_peaks": list(peaks.values())}), catalog)


# --- what physics says, whatever was measured ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluators(catalog):
    """Runs as calibrated, and on ideal chips: no host, no wait, but the engine's share of prefill that falls between two tokens."""
    names = ("nvidia-h100-sxm", "nvidia-b200-sxm", "amd-mi355x")
    plain = Chips(catalog, {})
    known = {n: dataclasses.replace(on, chip=ideal(on.chip)) for n in names if (on := plain.find(n)) is not None}
    none = {
        "host_s": 0.0,
        "first_token_s": 0.0,
        "queue": 0.0,
        "pickup_steps": 0.0,
        "waiting": 0.0,
        "balance_steps": 0.0,
        "uneven_prompts": 0.0,
        "wait_steps": 0.0,
        "poll_steps": 0.0,
    }
    return Evaluator(plain, catalog), Evaluator(Chips(catalog, {}, known), catalog, lambda chip, engine: none)


def random_runs(count: int, seed: int = 1) -> list[Run]:
    rng = np.random.default_rng(seed)
    pick = lambda *options: options[int(rng.integers(len(options)))]  # noqa: E731
    made = []
    for _ in range(count):
        model, form = pick(("llama-3.1-8b", "bf16"), ("llama-3.3-70b", "fp8"), ("gpt-oss-120b", "mxfp4"), ("deepseek-r1", "fp8_block"))
        tp = pick(1.0, 2.0, 4.0, 8.0)
        lengths = (float(2 ** rng.integers(6, 14)), float(2 ** rng.integers(4, 13)))
        chip, engine = pick("nvidia-h100-sxm", "nvidia-b200-sxm", "amd-mi355x"), pick("", "vllm", "sglang", "trtllm")
        batch = float(2 ** rng.integers(0, 10))
        made.append(Run(chip, model, "aggregated", form, *lengths, batch, Cut(tp=tp), tp, engine=engine))
    return made


def test_no_run_is_predicted_faster_than_on_an_ideal_chip(evaluators):
    calibrated, best = evaluators
    runs = random_runs(100)
    calibrated.settle(runs)
    best.settle(runs)
    for run in runs:
        real, bound = calibrated.metrics(run, run.serving), best.metrics(run, run.serving)
        assert real.tpot_s > bound.tpot_s and real.ttft_s > bound.ttft_s, run


def test_more_load_and_longer_requests_never_speed_a_step_up(evaluators):
    calibrated, _ = evaluators
    runs = random_runs(60, seed=2)
    more = {
        "batch": [dataclasses.replace(r, batch=1.3 * r.batch) for r in runs],  # type: ignore[operator]
        "isl": [dataclasses.replace(r, isl=1.3 * r.isl) for r in runs],
    }
    calibrated.settle([*runs, *more["batch"], *more["isl"]])
    for name, larger in more.items():
        for run, other in zip(runs, larger, strict=True):
            before, after = calibrated.metrics(run, run.serving), calibrated.metrics(other, other.serving)
            assert after.tpot_s >= before.tpot_s * (1 - 1e-9), (name, run)
            assert after.tpot_s <= 2.0 * before.tpot_s, (name, run)  # and no jump


def test_runs_together_are_predicted_as_alone(evaluators, catalog):
    together = evaluators[0]
    runs = random_runs(5, seed=3)
    together.settle(runs)
    alone = Evaluator(Chips(catalog, {}), catalog)
    for run in runs:
        one, other = (dataclasses.asdict(e.metrics(run, run.serving)) for e in (together, alone))
        assert one == pytest.approx(other, rel=1e-12)


def test_no_operator_is_predicted_faster_than_its_ideal(catalog):
    tables, _ = read_folder(SHIPPED)
    chips, best = Chips(catalog, {}), catalog.records["constants"]["ideal"]
    jobs, ideals, known = [], [], {}
    for name, row in every_row(tables):
        on = chips.find(row.get("chip", "")) if name.startswith("ops_") and not row.get("flag") else None
        if on is None or len(jobs) > 4000:
            continue
        try:
            described = case(row)
        except Unpredictable:
            continue
        if on.id not in known:
            known[on.id] = Resolved(on.id, "id", ideal(on.chip), best)
        jobs.append(Job(len(jobs), described, on))
        ideals.append(Job(len(ideals), described, known[on.id]))
    ratio = predict_seconds(jobs, len(jobs)) / predict_seconds(ideals, len(ideals))
    assert len(jobs) > 3000 and ratio.min() >= 1.0, jobs[int(ratio.argmin())].case


# --- engines ---------------------------------------------------------------------------------------------------------------------


def test_an_engine_changes_waiting_and_host_time_but_no_work(catalog):
    chip = catalog.chips["nvidia-h100-sxm"]
    run = in_engine(chip, "sglang", {}, True)
    differs = {f.name for f in dataclasses.fields(chip.kernels.system)
               if getattr(chip.kernels.system, f.name) != getattr(run.kernels.system, f.name)}  # fmt: skip
    waits = {"first_token_s", "queue", "pickup_steps", "waiting", "balance_steps", "uneven_prompts", "wait_steps", "poll_steps"}
    assert differs <= {"host_s", "interference", *waits} and differs and not run.kernels.system.balance_steps
    assert dataclasses.replace(run.kernels, system=chip.kernels.system) == chip.kernels
    assert in_engine(chip, "", {}, False).kernels.system.queue == 0.0 and in_engine(chip, "", {}, True) is chip


def test_settings_of_a_script_hold_for_its_rows_and_lengthen_the_wait_for_the_first_token(catalog):
    row = {"model": "Llama-3.3-70B", "chip": "B200-SXM-180GB", "software": "trtllm", "isl": "1024", "osl": "1024", "tp": "4",
           "n_chips": "4", "mode": "aggregated", "note": "InferenceX 2025-10-29", "batch_or_concurrency": "16",
           "precision_weights": "fp8", "metric": "ttft"}  # fmt: skip
    models, evaluator = Models(catalog), Evaluator(Chips(catalog, {}), catalog)
    held, plain = (run_of(r, r["chip"], models) for r in (row, {**row, "note": "AIC team run"}))
    assert (held.isl, held.osl, plain.isl, plain.osl) == (921.6, 921.6, 1024.0, 1024.0)
    assert not run_of({**row, "tp": "8", "n_chips": "8"}, row["chip"], models).settings.wait_steps
    free = dataclasses.replace(held, settings=NONE)
    waits = metric_of("ttft", held, evaluator) - metric_of("ttft", free, evaluator)
    come = 20 * 16 / 921.6  # while the first one waits its 20 steps; these wait half as long
    assert waits == pytest.approx((20 + come * 10) / (1 + come) * metric_of("tpot", held, evaluator), rel=1e-4)
    assert metric_of("tpot", held, evaluator) == pytest.approx(metric_of("tpot", free, evaluator), rel=1e-6)


def test_an_engine_is_known_by_its_release_and_an_unseen_one_is_the_latest():
    engines = read_engines()
    assert {e.base for e in engines.values() if "uneven_prompts" in e.values} == {"trtllm"}  # the only one with rows that feel it
    assert engine_of("TensorRT-LLM 0.14.0 (trtllm-bench)") == "trtllm-0-14" and engine_of("TensorRT-LLM 0.6.1") == "trtllm-0-5"
    assert engine_of("sglang (lmsysorg/sglang:v0.5.6-cu129-amd64)") == "sglang-0-5-6"
    assert engine_of("trtllm 9.9") == engine_of("TensorRT-LLM") == "trtllm" and engine_of("TensorRT 10.11, CUDA 12.8") == "trtllm"
    older, latest = engines["trtllm-1-0"], engines["trtllm"]
    assert base_of(older.id) == latest.id and older.values.keys() == latest.values.keys()
    assert older.values["host_s"] == latest.values["host_s"] and older.values["waiting"] != latest.values["waiting"]


def test_ranks_that_start_prompts_together_wait_as_long_as_a_simulated_queue():
    rng, batch, answer = np.random.default_rng(0), 16.0, 512.0
    for ranks in (1, 2, 4, 8):
        times = np.cumsum(rng.exponential(answer / batch / ranks, (20_000, ranks)), axis=1)  # of one request a rank, whichever comes
        waits = (times[:, -1:] - times).mean()
        assert balance_wait_steps(1e6, ranks, batch, answer) == pytest.approx(waits, rel=0.03, abs=1e-9)
        capped = [float(balance_wait_steps(t, ranks, batch, answer)) for t in (0.0, 10.0, 60.0, 1e3)]
        assert capped == sorted(capped) and capped[0] == 0.0 and capped[1] <= 10.0 / 2.0


def test_queued_runs_tell_only_of_releases_without_latencies(catalog):
    steps = steps_of(SHIPPED, catalog)
    queued = {s.run.engine for s in steps if s.what == OFFLINE}
    assert queued and not queued & {s.run.engine for s in steps if s.what != OFFLINE}
    assert all(s.seconds > 0 and s.run.queued and "L40S" not in s.run.chip for s in steps if s.what == OFFLINE)


def test_queued_requests_keep_every_place_busy(evaluators):
    calibrated, _ = evaluators
    run = dataclasses.replace(random_runs(1, seed=5)[0], engine="trtllm", batch=64.0)
    name = "output_throughput_total"
    loop, queue = metric_of(name, run, calibrated), metric_of(name, dataclasses.replace(run, queued=True), calibrated)
    assert queue > loop  # a closed loop also waits for first tokens
    assert queue == pytest.approx(64.0 / calibrated.metrics(run, run.serving).tpot_s)


def test_a_decoding_batch_is_what_prefill_keeps_supplied(evaluators):
    calibrated, _ = evaluators
    cut = Cut(tp=4.0)
    run = Run(
        "nvidia-b200-sxm", "gpt-oss-120b", "disaggregated", "mxfp4", 8192.0, 128.0, 2048.0, cut, 8.0, cut, suppliers=1.0, engine="trtllm"
    )
    few, many = (calibrated.settled(dataclasses.replace(run, suppliers=n)) for n in (1.0, 1000.0))
    m, fed = (calibrated.metrics(run, run.serving) for run in (few, many))
    assert few.batch < many.batch < 2048.0
    on_their_way = many.batch * fed.ttft_s / (many.osl * fed.tpot_s)
    assert many.batch + on_their_way == pytest.approx(2048.0, rel=1e-3)  # by Little's law: all users decode, or wait for a first token
    prefill = dataclasses.replace(few, batch=1.0, suppliers=0.0, workers=1.0)
    calibrated.evaluate([(prefill, "prefill")])
    finished, started = few.batch / (few.osl * m.tpot_s), 1.0 / calibrated.metrics(prefill, "prefill").ttft_s
    assert finished == pytest.approx(started, rel=0.02)  # as many requests finish as leave prefill


# --- the page --------------------------------------------------------------------------------------------------------------------


def test_the_page_says_what_was_asked_and_holds_itself(sample, tmp_path, catalog):
    path = tmp_path / "deep" / "report.html"
    answer = validate(sample, report=path, catalog=catalog)
    text = path.read_text(encoding="utf-8")
    assert text.count("<svg") > 10 and "GEMM, NVIDIA" in text and ">nan" not in text and "nan %" not in text
    assert "http" not in text.split("</style>")[1] and "<script" not in text
    assert {r["kind"] for r in answer["reached"]} >= {"GEMM, NVIDIA", "TPOT, aggregated"}


def test_a_verdict_names_the_limit_that_a_claim_would_break():
    assert "agrees" in _verdict(100.0, 90.0, 300.0, "weights", True)
    broken = _verdict(1000.0, 90.0, 300.0, "weights", True)
    assert "not possible" in broken and "weight store" in broken
    assert _verdict(200.0, 90.0, 300.0, "weights", True).startswith("possible: 67 %")


def test_every_published_figure_of_a_special_chip_gets_a_verdict(catalog):
    _, peaks = read_folder(SHIPPED)
    rows = read_table(SHIPPED / "published_special_chips.csv.gz")
    wide = [narrow(row) for row in rows]
    chips = Chips(catalog, peaks)
    numbered = [("published_special_chips", row) for row in wide]
    predicted, reasons = predict_systems(numbered, chips, catalog)
    done = [_outcome(file, row, predicted.get(i), reasons.get(i, ""), chips, read_rules()) for i, (file, row) in enumerate(numbered)]
    found = {(v["chip"], v["model"]): v for v in verdicts(done, catalog)}
    assert len(found) == sum(bool(o.measured) and not o.excluded_by for o in done)
    sohu = found["etched-sohu", "Llama-3-70B"]["verdict"]
    assert sohu.startswith("not possible as described") and "input tokens" in sohu
    assert "speculative decoding" in found["nvidia-b200-sxm", "DeepSeek-R1 671B"]["verdict"]
    assert set(remarks()) <= {row["id"] for row in rows}
    assert all(any(f"({source})" in text for source in catalog.sources) for text in remarks().values())
    for v in found.values():
        assert v["predicted"] is None or v["slow"] <= v["predicted"] <= v["fast"] <= v["ideal"] * (1 + 1e-9), v


def test_axes_have_ticks_inside_their_range():
    for axis in (Axis("x", 3.0, 40000.0), Axis("x", 2.0, 7.0), Axis("y", -0.8, 0.8, log=False), Axis("y", 0.0, 31.0, log=False)):
        ticks = axis.ticks()
        assert len(ticks) >= 2 and all(axis.low <= t <= axis.high for t in ticks), axis
