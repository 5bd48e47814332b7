"""Does the command line do what its contract says: product on stdout, words on stderr, exit codes, one JSON object?"""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import dse
from dse.cli import main
from dse.cli.deployment import Asked, deployment
from dse.cli.progress import plain_lines
from dse.errors import InfeasibleError, InputError

spec = importlib.util.spec_from_file_location("fake_result", Path(__file__).with_name("fake_result.py"))
assert spec and spec.loader
fake = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fake)
H100 = ["--chip", "nvidia-h100-sxm", "--model", "llama-3-70b", "--isl", "1024", "--osl", "1024"]


@pytest.fixture
def cli(capsys):
    """Run one command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        return (code, *capsys.readouterr())

    return run


@pytest.fixture
def ask(cli):
    """Run one command with ``--json``: (exit code, the one object on stdout)."""

    def run(*arguments: object) -> tuple[int, dict]:
        code, out, _ = cli(*arguments, "--json")
        return code, json.loads(out)

    return run


def plain_chip(path: Path, **changes: str) -> Path:
    """A chip file of a user's own, with plain values."""
    values = {
        "family": '"hbm_gpu"',
        "peak_bf16": '"989 TFLOP/s"',
        "memory_capacity": '"80 GB"',
        "memory_bandwidth": '"3.35 TB/s"',
        "link_bandwidth": '"450 GB/s"',
        "link_domain": "8",
        "tdp": '"700 W"',
        "price": '"27500 USD"',
    } | changes
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(f"{key} = {value}" for key, value in values.items()), encoding="utf-8")
    return path


# --- the command itself ------------------------------------------------------------------------------------------------


def test_help_loads_nothing_heavy():
    heavy = "jax numpy scipy optuna xarray matplotlib pint rich".split()
    script = f"import sys; from dse.cli import main; main(['--help']); print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for name in "run eval best sweep validate calibrate catalog check report explain diff cite new certify analyse bench worker".split():
        assert f"\n  {name} " in done.stdout


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "dse", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"dse {dse.__version__}\n"


@pytest.mark.parametrize("arguments", [["nope"], ["eval", "--chip", "x"], ["eval", *H100, "--batch", "many"], ["cite"]])
def test_wrong_usage_is_2_and_says_where_help_is(cli, arguments):
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert "--help' shows what is allowed" in err


def test_unexpected_errors_are_one_line_and_the_traceback_on_request(cli, monkeypatch):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("dse.study.read_study", broken)
    code, out, err = cli("check", "quick")
    assert (code, out) == (1, "")
    assert err.splitlines() == ["RuntimeError: a bug", "DSE_DEBUG=1 shows the traceback"]
    monkeypatch.setenv("DSE_DEBUG", "1")
    with pytest.raises(RuntimeError, match="a bug"):
        main(["check", "quick"])


def test_errors_are_one_json_object_too(ask):
    code, answer = ask("check", "quik")
    assert code == 2
    assert answer["error"]["type"] == "InputError"
    assert "did you mean 'quick'?" in answer["error"]["problems"][0]
    code, answer = ask("nope")
    assert (code, answer["error"]["type"]) == (2, "UsageError")


# --- eval, best, sweep ---------------------------------------------------------------------------------------------------


def test_eval_says_what_python_says(ask):
    code, answer = ask("eval", *H100, "--tp", 8, "--batch", 64)
    cat = dse.load_catalog()
    d = dse.Deployment(
        chip=cat.chips["nvidia-h100-sxm"],
        model=cat.models["llama-3-70b"],
        workload=dse.Workload(input_tokens=1024, output_tokens=1024),
        layout=dse.Layout(tp=8, batch=64),
        prices=cat.prices["owner-2026"],
    )
    expected = dse.evaluate(d).as_dict()
    assert code == 0
    assert {key: answer[key] for key in expected} == json.loads(json.dumps(expected))
    assert answer["constants"] == "calibrated"
    assert {"low", "high"} <= set(answer)
    assert sum(answer["time_s"].values()) == pytest.approx(answer["tpot_s"], rel=1e-9)


def test_an_infeasible_deployment_is_answered_in_full_with_3(cli, ask):
    code, answer = ask("eval", *H100, "--batch", 64)
    assert code == 3
    assert answer["feasible"] is False
    assert answer["violations"][0]["limit"] == "memory"
    assert answer["tpot_s"] > 0
    code, out, _ = cli("eval", *H100, "--batch", 64)
    assert code == 3
    assert "NOT FEASIBLE" in out
    assert "Cost per million output tokens" in out


def test_ideal_constants_are_faster_and_formats_are_taken(ask):
    _, plain = ask("eval", *H100, "--tp", 8, "--batch", 64)
    _, ideal = ask("eval", *H100, "--tp", 8, "--batch", 64, "--constants", "ideal")
    assert ideal["constants"] == "ideal"
    assert ideal["tpot_s"] < plain["tpot_s"]
    assert ideal["mbu"] <= 1.0
    _, fp8 = ask("eval", *H100, "--tp", 8, "--batch", 64, "--format", "fp8", "--kv-format", "bf16")
    assert fp8["format"] == {"weights": "fp8", "kv": "bf16", "compute": "fp8"}
    _, narrow = ask("eval", *H100, "--tp", 8, "--batch", 64, "--kv-format", "fp8")
    assert narrow["format"] == {**plain["format"], "kv": "fp8"}
    assert narrow["memory_byte_per_chip"]["kv"] == pytest.approx(plain["memory_byte_per_chip"]["kv"] / 2)


def test_aliases_named_workloads_and_one_phase(ask):
    _, by_id = ask("eval", *H100, "--tp", 8, "--batch", 8)
    _, by_alias = ask("eval", "--chip", "H100", "--model", "llama-3-70b", "--workload", "1k1k", "--tp", 8, "--batch", 8)
    assert by_alias["question"]["chip"] == "nvidia-h100-sxm"
    assert by_alias["question"]["workload"] == "chat"
    assert by_alias["tpot_s"] == by_id["tpot_s"]
    short = [part for part in H100 if part not in ("--osl",)][:-1]
    code, step = ask("eval", *short, "--tp", 8, "--batch", 8, "--serving", "decode")
    assert code == 0
    assert step["ttft_s"] is None


def test_all_mistakes_of_a_deployment_come_at_once(cli):
    code, out, err = cli(
        "eval", "--chip", "nvidia-h100-smx", "--model", "llama-3-70", "--batch", -1, "--tp", 0.5, "--isl", 0, "--osl", 5,
        "--serving", "agregated", "--format", "fp9", "--constants", "idea", "--prices", "owned-2026",
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 9
    for part in ("'nvidia-h100-sxm'", "'llama-3-70b'", "--batch", "--tp", "--isl", "'aggregated'", "'fp8'", "'ideal'", "'owner-2026'"):
        assert part in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tp": 2.5}, "^--tp — found 2.5, allowed a whole number from 1$"),
        ({"tp": 8.0, "ep": 3.0}, "--ep — found 3, allowed a divisor of tp x cp x dp = 8"),
        ({"samples": 0.0}, "--samples — found 0, allowed a number of answers from 1"),
        ({"prefix": 2000.0}, "--prefix — found 2000, allowed 0 to the input of 512 tokens"),
        ({"uneven_routing": 2.0}, "--uneven-routing — found 2, allowed 0"),
        ({"redundant_experts": 8.0}, "--redundant-experts — found 8, allowed with a mixture of experts, which llama-3-70b is not"),
        ({"prefill_dp": 8.0}, "--prefill-dp — found with aggregated serving, allowed with disaggregated"),
        ({"prefill_ep": 0.0, "serving": "disaggregated"}, "--prefill-ep — found 0, allowed a whole number from 1"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_reason(options, message):
    with pytest.raises(InputError, match=message):
        deployment(Asked(chip="nvidia-h100-sxm", model="llama-3-70b", isl=512.0, osl=64.0, **options), CATALOG())


def test_prefix_routing_and_prefill_instances_reach_the_deployment():
    asked = Asked(
        chip="nvidia-h100-sxm", model="deepseek-v3", isl=512.0, osl=64.0, dp=8.0, ep=8.0, serving="disaggregated",
        prefix=100.0, uneven_routing=0.0, prefill_dp=16.0, prefill_ep=16.0,
    )  # fmt: skip
    made, question = deployment(asked, CATALOG())
    assert (made.workload.shared_prefix_tokens, made.workload.uneven_routing) == (100.0, 0.0)
    assert (made.prefill_layout.dp, made.prefill_layout.ep, made.prefill_layout.tp) == (16.0, 16.0, 1.0)
    assert question["prefix"] == 100.0 and question["prefill_dp"] == 16.0


CATALOG = functools.cache(dse.load_catalog)


def test_a_workload_and_lengths_exclude_each_other():
    with pytest.raises(InputError, match="--workload — found --isl or --osl beside it"):
        deployment(Asked(chip="nvidia-h100-sxm", model="llama-3-70b", workload="chat", isl=5.0), dse.load_catalog())


def test_a_chip_of_ones_own_by_path_and_by_overlay(ask, tmp_path):
    path = plain_chip(tmp_path / "mine" / "chips" / "my-chip.toml")
    rest = [*H100[2:], "--tp", 8, "--batch", 8]
    code, by_path = ask("eval", "--chip", path, *rest)
    assert code == 0
    assert by_path["question"]["chip"] == "my-chip"
    assert by_path["chip_values_from_family"]
    code, by_overlay = ask("eval", "--chip", "my-chip", *rest, "--catalog", tmp_path / "mine")
    assert code == 0
    assert by_overlay["usd_per_million_output_token"] == by_path["usd_per_million_output_token"]
    faster = plain_chip(tmp_path / "fast.toml", memory_bandwidth='"6.7 TB/s"')
    assert ask("eval", "--chip", faster, *rest)[1]["tpot_s"] < by_path["tpot_s"]
    wrong = plain_chip(tmp_path / "wrong.toml", memory_bandwidth='"3.35 TB"')
    code, answer = ask("eval", "--chip", wrong, *rest)
    assert code == 2
    assert "memory_bandwidth — found 'TB'" in answer["error"]["problems"][0]


def test_best_is_what_eval_says_of_its_layout_and_keeps_the_limits(ask, cli):
    small = ["--chip", "nvidia-h100-sxm", "--model", "llama-3-8b", "--isl", "1024", "--osl", "1024"]
    code, best = ask("best", *small, "--max-tpot", "10ms", "--max-ttft", "1s", "--max-chips", 8)
    assert code == 0
    assert best["tpot_s"] <= 0.010
    assert best["ttft_s"] <= 1.0
    assert best["chips"] <= 8
    degrees = [part for name, value in best["layout"].items() for part in (f"--{name}", value)]
    _, same = ask("eval", *small, *degrees, "--batch", best["batch"], "--format", best["format"]["weights"])
    assert same["usd_per_million_output_token"] == pytest.approx(best["usd_per_million_output_token"], rel=1e-9)
    code, out, err = cli("best", *small, "--max-tpot", "1 us")
    assert (code, out) == (3, "")
    assert "tpot" in err
    assert ask("best", *small, "--max-tpot", "30")[0] == 2


def test_sweep_writes_a_dataset(ask, tmp_path):
    import xarray as xr

    out = tmp_path / "new" / "grid.nc"
    code, answer = ask("sweep", *H100, "--over", "batch=1,8,64", "--over", "tp=4,8", "--out", out)
    assert code == 0
    assert answer["evaluated"] == 6
    with xr.open_dataset(out, engine="h5netcdf") as ds:
        assert dict(ds.sizes) == {"layout.batch": 3, "layout.tp": 2}
        single = ask("eval", *H100, "--tp", 8, "--batch", 8)[1]
        assert float(ds["tpot_s"].sel({"layout.batch": 8, "layout.tp": 8})) == pytest.approx(single["tpot_s"], rel=1e-9)
    code, answer = ask("sweep", "quick", "--over", "prices.utilisation=0.4,0.8", "--out", tmp_path / "use.nc")
    assert code == 0
    assert answer["question"]["model"] == "llama-3-8b"


def test_sweep_names_every_wrong_axis(cli, tmp_path):
    axes = ["--over", "bacth=1,2", "--over", "tp", "--over", "tp=1,x", "--over", "tp=1", "--over", "layout.tp=2", "--over", "prices=1"]
    code, _, err = cli("sweep", *H100, *axes, "--out", tmp_path / "x.nc")
    assert code == 2
    assert len(err.splitlines()) == 5
    assert "did you mean 'batch'?" in err
    assert not (tmp_path / "x.nc").exists()


# --- studies and results ---------------------------------------------------------------------------------------------------


def test_check_and_new(cli, ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ask("check", "quick")[1]["families"] == ["hbm_gpu", "sram"]
    assert cli("new", "mine", "--from", "quick")[1] == "studies/mine.toml\n"
    assert cli("check", "mine")[0] == 0
    path = Path("studies/mine.toml")
    path.write_text(path.read_text(encoding="utf-8").replace("seed = 1", "sed = 1").replace("llama-3-8b", "llama-3-8c"), encoding="utf-8")
    code, out, err = cli("check", "mine")
    assert (code, out) == (2, "")
    assert "sed — found an unknown field" in err


def test_run_hands_everything_over_and_prints_the_summary(cli, ask, tmp_path, monkeypatch):
    pytest.importorskip("dse.run")
    seen: dict = {}

    def pretended(study, progress, **options):
        seen.update(options, study=study.name)
        progress(32, 64, "sram")
        options["out"].mkdir(parents=True, exist_ok=True)
        (options["out"] / "result.nc").touch()
        return fake.fake_dataset(each=2)

    monkeypatch.setattr("dse.run.run_study", pretended)
    code, out, err = cli("run", "quick", "--out", tmp_path / "r", "--budget", 9, "--seed", 4, "--add-chip", "nvidia-a100-80gb-sxm,H200 SXM")
    assert code == 0
    assert out.rstrip().endswith(str(tmp_path / "r" / "result.nc"))
    assert "sram: 32/64" in err
    assert (seen["study"], seen["budget"], seen["seed"], seen["workers"]) == ("quick", 9, 4, 1)
    assert seen["add_chips"] == ["nvidia-a100-80gb-sxm", "H200 SXM"]
    code, answer = ask("run", "quick", "--out", tmp_path / "r", "--force")
    assert (code, answer["feasible"]) == (0, True)
    assert answer["files"]["result"] == str(tmp_path / "r" / "result.nc")
    code, _, err = cli("run", "quick", "--out", tmp_path / "s", "--add-chip", "nvidia-h100-smx")
    assert code == 2
    assert "--add-chip — chips: 'nvidia-h100-smx'" in err
    assert cli("run", "quick", "--force", "--resume")[0] == 2


def test_an_interrupted_run_tells_how_to_go_on_and_an_empty_one_is_3(cli, tmp_path, monkeypatch):
    pytest.importorskip("dse.run")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("dse.run.run_study", interrupted)
    code, out, err = cli("run", "quick", "--out", tmp_path)
    assert (code, out) == (130, "")
    assert f"dse run quick --out {tmp_path} --resume" in err

    def nothing(*_, **__):
        raise InfeasibleError("no design meets the limits of the study")

    monkeypatch.setattr("dse.run.run_study", nothing)
    code, out, err = cli("run", "quick", "--out", tmp_path)
    assert (code, out) == (3, "")
    assert "no design meets" in err


def test_a_run_is_not_overwritten_by_mistake(cli, tmp_path):
    pytest.importorskip("dse.run")
    (tmp_path / "result.nc").write_text("old", encoding="utf-8")
    code, _, err = cli("run", "quick", "--out", tmp_path)
    assert code == 2
    assert "--resume" in err
    assert "--force" in err
    assert (tmp_path / "result.nc").read_text(encoding="utf-8") == "old"


def test_report_cite_diff_and_explain_read_a_result(cli, ask, tmp_path, monkeypatch):
    from dse.results import save

    monkeypatch.chdir(tmp_path)
    ds = fake.fake_dataset(each=2)
    save(ds, Path("reports/a/result.nc"))
    save(fake.fake_dataset(each=2, seed=1), Path("reports/b/result.nc"))
    assert "@" in cli("cite", "a")[1]
    code, answer = ask("diff", "a", "reports/b/result.nc")
    assert code == 0
    assert answer["differences"]
    design = str(ds["design"].values[0])
    assert design in cli("explain", "reports/a", "--design", design)[1]
    monkeypatch.setattr("dse.report.write_report", lambda ds, folder: folder / f"{ds.sizes['design']}.html")  # drawing is tested elsewhere
    code, answer = ask("report", "a", "--out", tmp_path)
    assert code == 0
    assert answer["report"] == str(tmp_path / f"{ds.sizes['design']}.html")
    assert answer["designs"] == str(tmp_path / "designs.csv")
    code, _, err = cli("cite", "c")
    assert code == 2
    assert "a, b" in err


# --- catalogue ---------------------------------------------------------------------------------------------------------------


def test_explain_knows_terms_fields_and_chips(cli):
    assert "Time per output token" in cli("explain", "tpot_s")[1]
    assert "byte/s" in cli("explain", "memory_bandwidth")[1]
    code, out, _ = cli("explain", "nvidia-h100-sxm")
    assert code == 0
    assert "3.35 TB/s" in out
    code, _, err = cli("explain", "tpto_s")
    assert code == 2
    assert "did you mean 'tpot_s'?" in err


def test_catalog_lists_shows_and_checks(cli, ask, tmp_path):
    listed = ask("catalog", "list", "chips")[1]["chips"]
    assert {"nvidia-h100-sxm", "groq-lpu-v1"} <= {entry["id"] for entry in listed}
    assert ask("catalog", "list", "chipz")[0] == 2
    assert "lacks:" in cli("catalog", "list", "--missing")[1]
    shown = ask("catalog", "show", "H100")[1]
    assert shown["values"]["memory_bandwidth"]["value"] == 3.35e12
    assert shown["values"]["memory_bandwidth"]["source"]
    assert shown["filled"]
    assert ask("catalog", "check")[1]["ok"] is True
    plain_chip(tmp_path / "bad.toml", tdp='"700 V"', memory_bandwith='"1 TB/s"')
    code, answer = ask("catalog", "check", tmp_path)
    assert code == 2
    joined = "\n".join(answer["error"]["problems"])
    assert "tdp — found 'V'" in joined
    assert "memory_bandwith — found an unknown field" in joined


@pytest.mark.parametrize("family", ["hbm_gpu", "sram", "stacked_dram"])
def test_a_new_chip_can_be_evaluated_at_once(cli, ask, tmp_path, family):
    path = tmp_path / "mine" / "chips" / "my-chip.toml"
    code, out, _ = cli("catalog", "new-chip", "my-chip", "--family", family, "--catalog", tmp_path / "mine")
    assert (code, out) == (0, f"{path}\n")
    assert ask("eval", "--chip", path, *H100[2:], "--tp", 8, "--batch", 4)[0] == 0
    assert cli("catalog", "new-chip", "my-chip", "--catalog", tmp_path / "mine")[0] == 2  # never overwrites
    assert cli("catalog", "new-chip", "other", "--family", "gpu", "--out", tmp_path / "x.toml")[0] == 2


def test_import_model_prints_a_file_that_loads(cli, ask, tmp_path):
    config = {
        "model_type": "llama", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8, "num_attention_heads": 16,
        "num_key_value_heads": 4, "vocab_size": 32000, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
    }  # fmt: skip
    source = tmp_path / "tiny" / "config.json"
    source.parent.mkdir()
    source.write_text(json.dumps(config), encoding="utf-8")
    target = tmp_path / "tiny.toml"
    code, out, _ = cli("catalog", "import-model", source, "--out", target)
    assert (code, out) == (0, f"{target}\n")
    code, answer = ask("eval", "--chip", "nvidia-h100-sxm", "--model", target, "--isl", 128, "--osl", 128, "--batch", 4)
    assert code == 0
    assert answer["chips"] == 1
    code, shown, _ = cli("catalog", "show", target, "--json")  # a model's file is not taken for a chip's
    assert code == 0 and json.loads(shown)["counts"]["params"] == pytest.approx(0.2e9, rel=0.1)


# --- small things --------------------------------------------------------------------------------------------------------------


def test_plain_progress_is_sparse_and_ends(capsys):
    now = [0.0]
    report = plain_lines(lambda: now[0], 10.0)
    for done in range(0, 101, 5):
        now[0] = float(done)
        report(done, 100, "chips")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "chips: 0/100 after 0 s"
    assert lines[1] == "chips: 10/100 after 10 s, about 90 s left"
    assert lines[-1] == "chips: 100/100 after 100 s"
    assert len(lines) == 11


def test_a_wrong_field_is_not_reported_as_missing_too(cli, tmp_path):
    path = plain_chip(tmp_path / "bad.toml", family='"gpu"')
    code, _, err = cli("eval", "--chip", tmp_path / "bad.toml", *H100[2:], "--batch", 4)
    assert code == 2, path
    assert err.count("family — found") == 1
    assert "did you mean 'hbm_gpu'" in err


def test_explain_of_a_study_says_where_to_ask(cli):
    code, _, err = cli("explain", "quick")
    assert code == 2
    assert "dse check quick" in err and "--design ID" in err


def test_intervals_are_printed_with_what_they_rest_on(cli):
    code, out, _ = cli("eval", *H100, "--tp", 8, "--batch", 64)
    assert code == 0
    line = next(x for x in out.splitlines() if "Time per output token " in x)
    low, high = (float(x) for x in line.rpartition("[")[2].rstrip("]").split(" to "))
    assert low < float(line.split()[4]) < high
    assert "errors of predicted times" in out
