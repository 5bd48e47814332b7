"""Does a study run end to end as promised: repeatable, resumable after SIGKILL, on any number of workers, with chips of one's own?"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from dse import run
from dse.cli import main
from dse.errors import InputError
from dse.results import DIMS, load
from dse.run import run_study
from dse.search.optuna_study import SEALED

STUDY = """
name = "tiny"
title = "GPU against SRAM machine, tiny"
question = "Does everything run?"
seed = 7
budget = 128
models = ["llama-3-8b"]
workloads = ["chat"]
scenarios = ["owner-2026", "street-2026"]
real_chips = ["nvidia-h100-sxm"]
[limits]
tpot = ["50 ms", "10 ms", "1.5 ms"]
max_chips = 64
[headline]
model = "llama-3-8b"
workload = "chat"
scenario = "owner-2026"
tpot = "10 ms"
[families.hbm_gpu]
nodes = ["n5", "n3"]
[families.sram]
nodes = ["n5"]
[layouts]
tp = [1, 2, 4, 8]
pp = [1, 4, 16]
dp = [1]
ep = ["none"]
batch = [1, 8, 32, 128, 256]
formats = ["bf16", "fp8"]
[search]
asked = 4
bred = 12
finish = 20
polish = false
"""
OWN_CHIP = """
name = "My own accelerator"
family = "hbm_gpu"
status = "existing"
node = "n4"
peak_bf16 = "800 TFLOP/s"
peak_fp8 = "1600 TFLOP/s"
peak_int8 = "1600 TOP/s"
vector_fp32 = "50 TFLOP/s"
memory_capacity = "96 GB"
memory_bandwidth = "4 TB/s"
link_bandwidth = "400 GB/s"
link_domain = "8"
tdp = "650 W"
die_area = "700 mm2"
price = "15000 USD_2026"
"""
ROUNDS = 4 + 2  # of each of the two shards, with its first look and its finish
VOLATILE = ("created_utc", "wall_time_s", "cpu_time_s", "first_look_s", "first_look_cpu_s", "git_commit", "git_dirty")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the study and a chip of one's own."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "tiny.toml").write_text(STUDY, encoding="utf-8")
    (folder / "my-chip.toml").write_text(OWN_CHIP, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def base(home):
    """An undisturbed run by the command line, with the chip of one's own; its folder."""
    code = main(["run", str(home / "tiny.toml"), "--add-chip", str(home / "my-chip.toml"), "--out", str(home / "base")])
    assert code == 0
    return home / "base"


def assert_same(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Same designs, same metrics, same provenance but for the clock."""
    plain = [ds.drop_attrs(deep=False) for ds in (found, expected)]
    xr.testing.assert_identical(*plain)
    for name in set(found.attrs) | set(expected.attrs):
        if name not in VOLATILE:
            assert found.attrs.get(name) == expected.attrs.get(name), name


def designs(folder: Path) -> list[dict[str, str]]:
    with (folder / "designs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def sealed(journal: Path) -> dict[int, int]:
    """Rounds that are sealed in a journal, by Optuna study: read as a stranger would, line by line."""
    found: dict[int, int] = {}
    for line in journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []:
        entry = json.loads(line)
        if SEALED in (entry.get("user_attr") or {}):
            found[entry["study_id"]] = entry["user_attr"][SEALED]
    return found


# --- the whole run -----------------------------------------------------------------------------------------------------------


def test_a_run_leaves_what_the_contract_names(base):
    names = {"result.nc", "report.html", "designs.csv", "figures", "study.journal", "answers.json"}
    assert {p.name for p in base.iterdir()} == names
    ds = load(base)
    counts = json.loads(ds.attrs["counts"])
    assert counts["chips_screened"] == ds.attrs["budget"] == 128
    assert counts["evaluations"] > 1000
    assert sorted(sealed(base / "study.journal").values()) == [ROUNDS, ROUNDS]
    assert {"hbm_gpu", "sram"} <= set(ds["family"].values.tolist())
    rows = designs(base)
    assert {r["family"] for r in rows if r["on_front"] == "1"} >= {"hbm_gpu", "sram"}
    assert all(float(r["tpot_s"]) <= float(r["tpot_limit_s"]) * (1 + 1e-6) for r in rows)


def test_every_feasible_cell_keeps_every_limit_and_sums_to_its_whole(base):
    ds = load(base)
    ok = (ds["feasible"] > 0).values
    assert ok.any()
    assert not ok.all()
    ttft = json.loads(ds.attrs["ttft_limit_s"])["chat"]
    for name, limit in (("tpot_s", ds["tpot_limit"]), ("ttft_s", ttft), ("chips", 64)):
        ratio = (ds[name] / limit).transpose(*DIMS).values
        assert np.nanmax(ratio[ok]) <= 1 + 1e-6, name
        assert np.isnan(ratio[~ok]).all()
    for name in ("memory", "divisibility", "reticle", "beachfront", "heat", "package"):
        assert ds[f"slack_{name}"].values[ok].min() >= -1e-6
    np.testing.assert_allclose(ds["time_s"].sum("component").values[ok], ds["tpot_s"].values[ok], rtol=1e-9)
    rate = ds["output_token_per_s_per_chip"] * ds["chips"]
    cost = (ds["cost_usd_per_s"].sum("component") / rate * 1e6).transpose(*DIMS)
    np.testing.assert_allclose(cost.values[ok], ds["usd_per_million_output_token"].values[ok], rtol=1e-9)
    memory = ds["memory_byte_per_chip"]
    used = memory.sel(component=["weights", "kv", "activations", "reserve"]).sum("component").values[ok]
    assert (used <= memory.sel(component="capacity").values[ok] * (1 + 1e-6)).all()
    chips = ds["tp"] * ds["pp"] * ds["cp"] * ds["dp"]
    np.testing.assert_array_equal(chips.values[ok], ds["chips"].values[ok])
    for name in ("mfu", "mbu", "mfu_prefill"):
        assert ds[name].values[ok].min() >= 0
        assert ds[name].values[ok].max() <= 1 + 1e-9


def test_a_chip_of_ones_own_joins_the_study(base):
    ds = load(base)
    assert json.loads(ds.attrs["added_chips"]) == ["my-chip"]
    mine = [r for r in designs(base) if r["design_id"] == "my-chip"]
    assert mine
    assert {r["chip"] for r in mine} == {"My own accelerator"}
    assert all(r["status"] == "existing" and float(r["tdp_w"]) == 650 for r in mine)
    page = (base / "report.html").read_text(encoding="utf-8")
    assert "My own accelerator" in page
    assumptions = [a["name"] for a in json.loads(ds.attrs["assumptions"])]
    assert any("my-chip" in name for name in assumptions)  # plain values are assumptions, and named so


def test_the_same_seed_and_budget_give_the_same_dataset(home, base):
    ds = run_study(home / "tiny.toml", add_chips=[str(home / "my-chip.toml")])
    assert_same(ds, load(base))


def test_two_workers_find_what_one_finds(home, base):
    ds = run_study(home / "tiny.toml", add_chips=[str(home / "my-chip.toml")], workers=2)
    assert_same(ds, load(base))


def test_another_seed_and_another_budget_are_another_search(home, base):
    known = load(base)
    hypothetical = set(known["design"].values[(known["status"] == "hypothetical").values].tolist())
    ds = run_study(home / "tiny.toml", seed=8, budget=64)
    other = set(ds["design"].values[(ds["status"] == "hypothetical").values].tolist())
    assert other
    assert other != hypothetical
    assert (ds.attrs["seed"], ds.attrs["budget"]) == (8, 64)
    assert json.loads(ds.attrs["counts"])["chips_screened"] == 64


# --- kill and resume ------------------------------------------------------------------------------------------------------------

# `dse run` as it is, but for one thing: in the middle of writing the third round of the second shard it waits, to be killed there.
STOPPED = """
import sys, time
from dse.cli import main
from dse.search import optuna_study as ledgers
inner = ledgers.record
def record(book, number, found, generation, counts):
    if book.study.study_name.endswith("/sram") and number == 2:
        book.study.add_trials([ledgers.frozen(book, e, number, generation) for e in found[:3]])
        print("waiting", flush=True)
        time.sleep(600)
    inner(book, number, found, generation, counts)
ledgers.record = record
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_killed_in_the_middle_and_resumed_gives_the_same_front(home, base, capsys):
    out = home / "killed"
    asked = ["run", str(home / "tiny.toml"), "--add-chip", str(home / "my-chip.toml"), "--out", str(out)]
    child = subprocess.Popen([sys.executable, "-c", STOPPED, *asked], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"waiting\n"
        assert sorted(sealed(out / "study.journal").values()) == [2, ROUNDS]
    finally:
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
        child.stdout.close()  # type: ignore[union-attr]
    assert {p.name for p in out.iterdir()} == {"study.journal", "figures"}
    assert [p.name for p in (out / "figures").iterdir()] == ["first_look.png"]  # drawn before the search
    with (out / "study.journal").open("ab") as file:
        file.write(b'{"op_code": 4, "worker_id": "torn in the mid')
    capsys.readouterr()
    assert main(asked) == 2
    assert "--resume continues it" in capsys.readouterr().err
    assert main([*asked, "--resume"]) == 0
    assert_same(load(out), load(base))
    assert (out / "designs.csv").read_bytes() == (base / "designs.csv").read_bytes()
    assert sorted(sealed(out / "study.journal").values()) == [ROUNDS, ROUNDS]


def test_a_finished_run_is_kept_resumed_or_replaced_as_asked(home, base, capsys):
    out = home / "again"
    shutil.copytree(base, out)
    asked = ["run", str(home / "tiny.toml"), "--add-chip", str(home / "my-chip.toml"), "--out", str(out)]
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    assert main(asked) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert str(out) in line
    assert "--force" in line
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before
    with pytest.raises(InputError, match="chips — the storage"):  # the journal of another budget is not continued
        run_study(home / "tiny.toml", out=out, resume=True, budget=64)
    changed = home / "changed.toml"
    changed.write_text(STUDY.replace("1.5 ms", "1.6 ms"), encoding="utf-8")
    with pytest.raises(InputError, match="study_sha256"):
        run_study(changed, out=out, resume=True)
    without = run_study(home / "tiny.toml", out=out, resume=True)  # an added chip is no part of the search: it may leave and join
    assert "my-chip" not in without["design"].values
    assert main([*asked, "--resume"]) == 0
    assert_same(load(out), load(base))
    (out / "study.journal").write_text("no journal\n", encoding="utf-8")
    assert main([*asked, "--resume"]) == 1
    assert "--force" in capsys.readouterr().err


def test_a_time_limit_cuts_the_search_and_is_told(home):
    ds = run_study(home / "tiny.toml", max_seconds=1e-6)
    counts = json.loads(ds.attrs["counts"])
    assert counts["cut_by_time"] == 1
    assert counts["chips_screened"] < 128


# --- wrong and impossible studies -------------------------------------------------------------------------------------------------


def test_an_impossible_study_ends_with_3_and_says_why_and_by_how_much(home, capsys):
    path = home / "impossible.toml"
    text = STUDY.replace('tpot = ["50 ms", "10 ms", "1.5 ms"]', 'tpot = ["0.001 ms"]').replace('tpot = "10 ms"', 'tpot = "0.001 ms"')
    path.write_text(text, encoding="utf-8")
    assert main(["run", str(path), "--out", str(home / "impossible"), "--budget", "32", "--json"]) == 3
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "excludes" in line]
    assert len(lines) == 2
    for family, line in zip(("hbm_gpu", "sram"), lines, strict=True):
        assert family in line
        assert "tpot 0.001 ms excludes every layout: the fastest reaches " in line
        fastest = float(line.rpartition("reaches ")[2].removesuffix(" ms"))
        assert 0.01 < fastest < 50
    assert json.loads(out)["error"]["exit_code"] == 3
    assert not (home / "impossible" / "result.nc").exists()


def test_five_mistakes_of_different_kinds_are_five_lines(home, capsys):
    path = home / "wrong.toml"
    text = STUDY.replace("seed = 7", "sed = 7").replace("budget = 128", "budget = -1").replace('["llama-3-8b"]', '["llama-3-8c"]', 1)
    text = text.replace('model = "llama-3-8b"', 'model = "llama-3-8c"').replace("[families.sram]", "[families.sramm]")
    path.write_text(text.replace('"1.5 ms"', '"3 parsec"').replace('tpot = "10 ms"\n', ""), encoding="utf-8")
    for command in (["run", str(path), "--out", str(home / "wrong")], ["check", str(path)]):
        assert main(command) == 2
        out, err = capsys.readouterr()
        assert out == ""
        lines = err.splitlines()
        assert len(lines) == 5, lines
        assert all(line.startswith(f"{path.as_posix()}: ") and " — found " in line and ", allowed " in line for line in lines)
        for field, near in (("sed", "seed"), ("models", "llama-3-8b"), ("families.sramm", "sram")):
            assert [line for line in lines if f": {field} — " in line and f"did you mean '{near}'?" in line]
    assert not (home / "wrong").exists()


def test_a_folder_that_cannot_be_made_is_told_before_any_work(home):
    (home / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be made"):
        run_study(home / "tiny.toml", out=home / "file" / "inner")


def test_what_another_process_samples_joins_the_result_as_if_it_were_sampled_here(monkeypatch):
    ds = xr.Dataset({"cost": ("limit", [1.0, 2.0])}, {"limit": [0.1, 0.2]}, {"seed": 1, "note": "old"})

    def quick(given, *_):
        out = given.assign_coords(quantile=("quantile", [0.05, 0.95], {"units": "1"}))
        out["band"] = (("limit", "quantile"), np.ones((2, 2)), {"units": "USD"})
        out.attrs |= {"note": "new", "samples": 8}
        return out

    monkeypatch.setattr(run, "quick", quick)
    monkeypatch.setattr(run, "read_again", lambda *_: (None, None))
    monkeypatch.setattr(run, "questions_of", lambda *_: None)
    later = ds.assign(elasticity=("limit", [0.0, 0.0]))  # found here meanwhile
    later.attrs["bibliography"] = "here"
    xr.testing.assert_identical(run._with(later, *run._quick_again(ds, "", None, 0, 0)), quick(later))
