"""Are the verdicts on the source documents computed, from the model and the catalogue of now, and from nothing else?"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import dse
from dse.analysis import demand
from dse.analysis.claims import CHECKS, VERDICTS, Candidate, Finding, bench_of, judge, settle_all, verdict
from dse.analysis.claims.bench import largest_batch, smallest_batch
from dse.analysis.claims.silicon import built
from dse.analysis.claims.verdict import settle
from dse.analysis.inputs import scaled
from dse.catalog import load_catalog
from dse.chips import FAMILIES
from dse.cli import main
from dse.errors import InputError
from dse.paths import data_dir
from dse.report import write_report
from dse.report.claims import build, counts, headline
from dse.settle import candidates, known_designs
from dse.study import parse_study, read_study
from dse.study.claims import ClaimRow

STUDY = read_study("seed_claims")
ROWS = {row.id: row for row in STUDY.rows}
DESIGNS = {"burned_in": {"dies": 4, "stacks": 2, "memory": "hbm3e"}}


def row(claim: float = 10.0, **changes: object) -> ClaimRow:
    texts = dict.fromkeys(("id", "document", "system", "statement", "unit", "how"), "x")
    return ClaimRow(claim=claim, **{**texts, "rounding": 0.05, "tolerance": 0.5, **changes})  # type: ignore[arg-type]


def bench_with(catalog, **designs):
    """A bench whose families are their default designs, with some decisions changed."""
    bench = bench_of(STUDY, catalog, [])
    chips = []
    for family in FAMILIES:
        formats = tuple(f for f in STUDY.layouts.formats if f in catalog.records["families"][family].meta["formats"])
        chips.append(Candidate(family, family, built(bench, family, **designs.get(family, {})).chip, formats))
    chips += [Candidate("existing", c, bench.chip(c), ("bf16", "fp8")) for c in STUDY.real_chips]
    return bench_of(STUDY, catalog, chips)


@pytest.fixture(scope="module")
def bench():
    return bench_with(load_catalog(), **DESIGNS)


@pytest.fixture(scope="module")
def settled(bench):
    return {s.row.id: s for s in settle_all(bench)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run from the command line, small and away from any result of the main study."""
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)
        ds = dse.run_study("seed_claims", budget=96, out=out / "claims")
    return ds, out / "claims"


# --- the rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "relation", "said"),
    [
        (10.4, "equal", "holds"),
        (9.6, "equal", "holds"),
        (14.9, "equal", "holds within tolerance"),
        (10 / 1.49, "equal", "holds within tolerance"),
        (15.1, "equal", "wrong"),
        (10 / 1.51, "equal", "wrong"),
        (1e6, "at_least", "holds"),
        (7.0, "at_least", "holds within tolerance"),
        (6.0, "at_least", "wrong"),
        (0.0, "at_most", "holds"),
        (14.0, "at_most", "holds within tolerance"),
        (16.0, "at_most", "wrong"),
        (float("inf"), "at_least", "holds"),
        (float("inf"), "at_most", "wrong"),
        (float("inf"), "equal", "wrong"),
        (float("nan"), "equal", "wrong"),
    ],
)
def test_a_verdict_follows_from_ratio_relation_and_widths(ours, relation, said):
    assert judge(ours, row(relation=relation)) == said


def test_cases_that_disagree_make_it_depend():
    assert verdict(Finding(ours=10.0, why="", cases={"a": 11.0}), row()) == "holds"
    assert verdict(Finding(ours=10.0, why="", cases={"a": 11.0, "b": 30.0}), row()) == "depends"
    assert verdict(Finding(ours=30.0, why="", cases={"b": 31.0}), row()) == "wrong"
    assert settle(Finding(ours=5.0, why=""), row()).ratio == 0.5


def test_batches_are_found_by_bisection():
    assert largest_batch(lambda b: b <= 796) == 796 and largest_batch(lambda b: False) == 0
    assert smallest_batch(lambda b: b >= 341) == 341


def test_demand_goes_there_and_back():
    assert demand.users_of(1000, 600) == pytest.approx(144_000)
    assert demand.concurrent_of(demand.users_of(37.0, 250.0, 0.3), 250.0, 0.3) == pytest.approx(37.0)
    assert demand.batch_within([1, 2, 4, 8], [8, 4, 2, 1]) == pytest.approx(4.0)
    assert demand.batch_within([1, 16], [16, 1], 4.0) == pytest.approx(4.0)  # between the points, a power law


# --- the study file --------------------------------------------------------------------------------------------------


def test_every_claim_has_a_row_and_a_check():
    assert len(ROWS) == 34 and set(ROWS) == set(CHECKS)
    assert {r.document for r in STUDY.rows} == {"economies", "compute-bound", "MLP", "discussion"}


def test_mistakes_in_rows_are_named_all_at_once(tmp_path):
    text = (
        STUDY.text.replace('id = "brain"', 'id = "imbalance"')
        .replace("claim = 5e-5", "claim = -1")
        .replace('relation = "at_most"', 'relation = "below"', 1)
    )
    with pytest.raises(InputError) as caught:
        parse_study(text, tmp_path / "x.toml", "x.toml")
    problems = "\n".join(caught.value.problems)
    for part in ("rows[9].id", "each id once", "rows[2].claim", "a number above 0", "relation", "equal, at_least, at_most"):
        assert part in problems
    with pytest.raises(InputError, match="kind"):
        parse_study(STUDY.text.replace('kind = "claims"', 'kind = "search"'), tmp_path / "x.toml")


def test_a_row_that_lacks_what_its_check_needs_is_bad_input(bench):
    broken = replace(bench, study=replace(STUDY, rows=(replace(ROWS["memory-27ms"], given={"chip": "seed-h100"}),)))
    with pytest.raises(InputError, match=r"rows\.memory-27ms\.given"):
        settle_all(broken)
    with pytest.raises(InputError, match="no-such"):
        settle_all(replace(bench, study=replace(STUDY, rows=(replace(ROWS["brain"], id="no-such"),))))


# --- the rows --------------------------------------------------------------------------------------------------------


def test_every_row_has_a_figure_a_verdict_and_a_reason_with_numbers(settled):
    assert list(settled) == list(ROWS)
    for identity, s in settled.items():
        assert s.verdict in VERDICTS and s.verdict == verdict(s.finding, s.row), identity
        assert s.finding.ours > 0 and s.ratio == s.finding.ours / s.row.claim, identity
        assert re.search(r"\d", s.finding.why) and "nan" not in s.finding.why and "\n" not in s.finding.why, (identity, s.finding.why)


ARITHMETIC = {  # worked out by hand from the documents' figures
    "imbalance": 3e15 / 3e12,
    "fit-20": 1.6e12 / 80e9,
    "compute-0.05ms": 3.2e12 / (20 * 3e15),
    "memory-27ms": 1.6e12 / 60e12,
    "util-0.2pct": (3.2e12 / 6e16) / (1.6e12 / 60e12),
    "users-144k": 1000 * 24 * 60 / 10,
    "brain": 700 / 20,
    "500B-1ms": 1e12 / 1e15,
    "500B-1PBs": 1e12 / 1e-3,
    "mlp-tc": 32 * 4096 * 8192 * 2 * 3 / 312e12,
    "mlp-cuda": 32 * 8192 * 2 / 19.5e12,
    "tokens-1e6": 1e7 / (100 * 3e15 / 3e9),
    "gpt4-100k-chips": 1e7 / 0.01 * 3e12 / 3e15,
}


@pytest.mark.parametrize("identity", ARITHMETIC)
def test_plain_arithmetic_comes_out_of_the_model(settled, identity):
    assert settled[identity].finding.ours == pytest.approx(ARITHMETIC[identity], rel=2e-3)


def test_what_is_wrong_is_said_to_be_wrong(settled):
    said = {identity: s.verdict for identity, s in settled.items()}
    assert said["tokens-1e6"] == said["gpt4-100k-chips"] == said["mask-1M"] == "wrong"
    assert settled["tokens-1e6"].ratio == settled["gpt4-100k-chips"].ratio == pytest.approx(10.0)
    assert said["gpt4-128"] == "depends"  # the stated parameters do not fit the stated bytes
    assert {said[i] for i in ("fit-20", "memory-27ms", "util-0.2pct", "500B-1ms", "500B-1PBs", "mlp-tc", "mlp-mem")} == {"holds"}


def test_calibrated_figures_stand_beside_and_are_worse(settled):
    for identity in (
        "compute-0.05ms",
        "memory-27ms",
        "500B-1ms",
        "mlp-tc",
        "mlp-cuda",
        "mlp-mem",
        "tokens-1e6",
        "gpt4-100k-chips",
        "fit-20",
    ):
        assert settled[identity].finding.calibrated > settled[identity].finding.ours, identity
    for identity in ("imbalance", "util-0.2pct", "util-20pct", "thousandfold", "quantisation"):
        assert settled[identity].finding.calibrated < settled[identity].finding.ours, identity


def test_the_block_on_an_a100_is_near_its_measurement(settled):
    assert settled["mlp-measured"].finding.ours == pytest.approx(191e-6, rel=0.15)
    assert settled["mlp-mem"].finding.ours == pytest.approx(129e-6, rel=0.03)


def changed(tmp_path: Path, kind: str, identity: str, **lines: str):
    """The catalogue with some numbers of one file changed."""
    folder = tmp_path / kind
    folder.mkdir()
    text = "".join(f'{name} = "{value}"\n' for name, value in lines.items())
    (folder / f"{identity}.toml").write_text(f'id = "{identity}"\n{text}')
    return load_catalog(tmp_path)


PERTURBED = [
    ("chips", "seed-h100", {"memory_bandwidth": "30 TB/s"}, {"imbalance": "wrong", "memory-27ms": "wrong", "util-0.2pct": "wrong"}),
    ("chips", "seed-h100", {"memory_capacity": "85 GB"}, {"fit-20": "wrong"}),
    ("chips", "seed-h100", {"peak_fp8": "30000 TFLOP/s"}, {"tokens-1e6": "holds", "gpt4-100k-chips": "holds", "compute-0.05ms": "wrong"}),
    ("chips", "seed-1pflops", {"peak_bf16": "3 PFLOP/s"}, {"500B-1ms": "wrong", "500B-1PBs": "wrong"}),
    ("chips", "taalas-hc1", {"layer_time": "8 us"}, {"burned-in": "wrong"}),
    ("processes", "n5", {"mask_set": "1 MUSD_2026"}, {"mask-1M": "depends"}),
    ("chips", "nvidia-a100-40gb-pcie", {"memory_bandwidth": "3 TB/s"}, {"mlp-mem": "wrong", "mlp-measured": "wrong", "mlp-tc": "holds"}),
    ("chips", "nvidia-a100-40gb-sxm", {"memory_capacity": "80 GB"}, {"kv-balloon": "depends"}),
    ("chips", "etched-sohu", {"memory_capacity": "50 GB"}, {"etched-batch": "wrong"}),
    ("chips", "human-brain", {"tdp": "200 W"}, {"brain": "wrong"}),
    ("chips", "seed-h100", {"memory_bandwidth": "30.1 TB/s"}, {"users-144k": "wrong", "util-20pct": "wrong", "thousandfold": "wrong"}),
    ("chips", "seed-h100", {"link_bandwidth": "1000 TB/s"}, {"comm-worse": "wrong"}),
    ("chips", "nvidia-a100-40gb-pcie", {"vector_fp32": "195 TFLOP/s"}, {"mlp-cuda": "wrong"}),
    ("chips", "amd-mi300x", {"memory_capacity": "120 GB"}, {"mi300x-gpt4": "wrong"}),
    ("processes", "n5", {"mask_set": "0.001 MUSD_2026"}, {"ebeam": "wrong"}),
]


@pytest.mark.parametrize(("kind", "identity", "lines", "said"), PERTURBED)
def test_perturbing_the_catalogue_moves_the_verdict(tmp_path, bench, settled, kind, identity, lines, said):
    other = replace(bench, catalog=changed(tmp_path, kind, identity, **lines))
    for name, expected in said.items():
        found = settle(CHECKS[name](other, ROWS[name]), ROWS[name])
        assert found.verdict == expected, (name, found)
        assert found.finding.ours != settled[name].finding.ours or name == "mlp-tc"


SCALED = [  # (kind, ids, number), its multiple, what is said then
    ("prefill-bound", [("chips", c, "memory_bandwidth") for c in ROWS["prefill-bound"].given["chips"]], 1 / 50, "wrong"),
    ("quantisation", [("chips", "nvidia-b200-sxm", "peak_fp4")], 1 / 2000, "wrong"),
    ("cim", [("families", "compute_in_memory", "flop")], 10.0, "holds"),  # too hot to keep any limit
    ("train-spend", [("families", "transformer_asic", "design")], 100.0, "wrong"),
    ("tree-search", [("families", "hbm_gpu", "design")], 2000.0, "holds within tolerance"),
]


@pytest.mark.parametrize(("identity", "places", "multiple", "said"), SCALED)
def test_scaling_numbers_of_the_catalogue_moves_the_verdict(settled, identity, places, multiple, said):
    """Chips of the families are built anew, and screened again, from the changed catalogue."""
    other = bench_with(scaled(load_catalog(), places, multiple), **DESIGNS)
    found = settle(CHECKS[identity](other, ROWS[identity]), ROWS[identity])
    assert found.verdict == said != settled[identity].verdict
    assert found.finding.ours != settled[identity].finding.ours


def test_a_deeper_model_moves_the_verdict_on_its_cluster(tmp_path, bench, settled):
    """144 layers instead of 120: nine layers a stage instead of eight."""
    (tmp_path / "models").mkdir()
    file = "models/gpt-4-like-1.8t.toml"
    (tmp_path / file).write_text(
        (data_dir("hw_catalog") / file).read_text().replace("n_layers = 120", "n_layers = 144").replace("[[120,", "[[144,")
    )
    found = settle(CHECKS["gpt4-128"](replace(bench, catalog=load_catalog(tmp_path)), ROWS["gpt4-128"]), ROWS["gpt4-128"])
    assert found.verdict == "wrong" != settled["gpt4-128"].verdict
    assert found.finding.ours == pytest.approx(settled["gpt4-128"].finding.ours * 9 / 8, rel=0.02)


@pytest.mark.parametrize(
    "places",
    [
        [("technology", "packaging", "aspect")],
        [("memories", "hbm4", "edge"), ("memories", "hbm3e", "edge")],
        [("processes", "n5", "density")],
    ],
)
def test_the_edge_grows_with_the_root_of_the_area_whatever_the_catalogue_says(bench, settled, places):
    """That row is geometry: no number moves it, so its verdict moves with the claim alone."""
    row = ROWS["scaling-geometry"]
    finding = CHECKS["scaling-geometry"](replace(bench, catalog=scaled(bench.catalog, places, 2.0)), row)
    assert finding.ours == pytest.approx(settled["scaling-geometry"].finding.ours, abs=1e-9)
    assert settle(finding, row).verdict == "holds" and settle(finding, replace(row, claim=1.0)).verdict == "wrong"


@pytest.mark.parametrize(
    ("identity", "family", "said"), [("engineered-away", "burned_in", "holds"), ("update-layers", "burned_in", "wrong")]
)
def test_a_cheaper_family_moves_the_verdicts_that_compare_families(bench, settled, identity, family, said):
    """The same chips at a hundredth of their cost."""
    costs = bench.families
    members = [c.family == family for c in costs.candidates]
    cheap = replace(bench, families=replace(costs, cost=np.where(members, costs.cost / 1e2, costs.cost)))
    found = settle(CHECKS[identity](cheap, ROWS[identity]), ROWS[identity])
    assert found.verdict == said != settled[identity].verdict and found.finding.ours < settled[identity].finding.ours


def test_a_price_moves_the_families(bench, settled):
    """Sram chips at a hundredth of their price would pay, at every limit."""
    costs = bench.families
    members = [c.family == "sram" for c in costs.candidates]
    cheap = replace(bench, families=replace(costs, cost=np.where(members, costs.cost / 1e3, costs.cost)))
    assert settle(CHECKS["sram-chips"](cheap, ROWS["sram-chips"]), ROWS["sram-chips"]).verdict == "wrong"
    assert settled["sram-chips"].verdict != "wrong"


# --- the run, its Dataset and its report -----------------------------------------------------------------------------


def test_a_run_gives_a_dataset_of_rows_and_a_page(run):
    ds, out = run
    assert ds.sizes["row"] == 34 and list(ds["row"].values) == list(ROWS)
    assert np.allclose(ds["ratio"], ds["ours"] / ds["claim"])
    assert sum(counts(ds).values()) == 34 and headline(ds).startswith("Of 34 claims")
    assert ds.attrs["designs_from"].startswith("a search of 96 chips")
    assert "seed-economies-of-scale" in json.loads(ds.attrs["bibliography"])
    page = (out / "report.html").read_text()
    for identity in ROWS:
        assert f'id="{identity}"' in page
    assert not re.search(r'(src|href)="https?://[^"]*\.(js|css|png|svg)["?#]|<script', page)
    assert len((out / "claims.csv").read_text().splitlines()) == 35
    assert {p.name for p in (out / "figures").iterdir()} >= {
        "utilisation.svg",
        "utilisation.csv",
        "centralisation.svg",
        "centralisation.csv",
    }


def test_a_saved_result_gives_the_same_page(run, tmp_path):
    ds, out = run
    again = dse.load(out)
    assert build(again)[0] == (out / "report.html").read_text()
    write_report(again, tmp_path)
    assert (tmp_path / "claims.csv").read_bytes() == (out / "claims.csv").read_bytes()
    assert set(ds.data_vars) == set(again.data_vars)


def test_the_command_prints_one_object_with_all_rows(run, monkeypatch, capsys):
    ds, out = run
    monkeypatch.setattr("dse.run.run_study", lambda *a, **k: ds)
    assert main(["run", "seed_claims", "--out", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["rows"]) == 34
    for found in printed["rows"]:
        assert {"id", "claim", "ours", "ratio", "verdict", "why"} <= set(found) and found["verdict"] in VERDICTS
    assert main(["run", "seed_claims", "--out", str(out)]) == 0
    assert "34 claims" in capsys.readouterr().out


def test_two_results_are_compared_row_by_row(run, tmp_path, capsys):
    ds, out = run
    assert main(["diff", str(out), str(out)]) == 0 and "no difference" in capsys.readouterr().out
    other = ds.copy(deep=True)
    other["verdict"].loc[{"row": "brain"}] = "wrong"
    dse.save(other, tmp_path / "result.nc")
    assert main(["diff", str(out), str(tmp_path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("brain: 35 (holds within tolerance) -> 35 (wrong)")


def test_designs_come_from_a_result_where_there_is_one(tmp_path, bench):
    catalog, study = bench.catalog, replace(STUDY, families={"sram": {}})
    assert known_designs(study, catalog, tmp_path) == []
    coordinates = {"design": ["a", "b"], "model": ["llama-3-70b"], "workload": ["chat"], "scenario": ["owner-2026"], "tpot_limit": [0.02]}
    front = xr.DataArray(np.array([1.0, 0.0]).reshape(2, 1, 1, 1, 1), coords=coordinates, dims=tuple(coordinates))
    words = {
        k: ("design", np.array(v, object)) for k, v in {"family": ["sram"] * 2, "chip": ["A", "B"], "status": ["hypothetical"] * 2}.items()
    }
    decided = {
        "die_area_mm2": ("design", np.array([500.0, 300.0]), {"role": "decision"}),
        "node": ("design", np.array(["n6", "n5"], object), {"role": "decision"}),
        "stacks": ("design", np.array([4.0, 4.0]), {"role": "decision"}),  # of other families
    }
    ds = xr.Dataset({"on_front": front, "below_4_bit": ("design", np.zeros(2)), **words, **decided})
    dse.save(ds, tmp_path / STUDY.designs_from / "result.nc")
    (found,) = known_designs(study, catalog, tmp_path)
    assert (found.family, found.name) == ("sram", "A")
    assert found.chip.unit_cost_usd == pytest.approx(float(built(bench, "sram", die_area_mm2=500.0, node="n6").chip.unit_cost_usd))
    assert known_designs(STUDY, catalog, tmp_path) == []  # a family of the study has none there
    assert candidates([]) == []
