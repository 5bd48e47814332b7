"""Does one Dataset hold what was evaluated, with units and provenance, and survive the disk and come back?"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import fields, replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import dse
from dse.errors import DseError, InputError
from dse.report.export import write_designs_csv
from dse.results import DIMS, Cells, Design, load, on_front, save, sweep, to_dataset
from dse.types import CostParts, Deployment, Layout, TimeParts, Workload

KEYS = (
    "feasible chips batch tpot_s ttft_s tpot_p99_s ttft_p99_s interactivity_token_per_s output_token_per_s_per_chip "
    "total_token_per_s_per_chip usd_per_million_output_token usd_per_million_token usd_per_chip_hour j_per_output_token "
    "facility_power_w mfu mbu mfu_prefill bound bound_prefill constants"
).split()
BRACED = {
    "layout": "tp pp cp dp ep",
    "format": "weights kv compute",
    "cost_usd_per_s": "capital nre energy site idle",
    "time_s": "compute weights kv collectives overhead prefill",
    "memory_byte_per_chip": "weights kv activations reserve capacity",
    "low": "tpot_s usd_per_million_output_token",
    "high": "tpot_s usd_per_million_output_token",
}
FIRST = "design_id family chip status model workload scenario tpot_limit_s on_front".split()
CASES = [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 1, 1)]  # design, scenario, limit


@pytest.fixture(scope="module")
def deployment():
    cat = dse.load_catalog()
    return Deployment(
        chip=cat.chips["nvidia-h100-sxm"],
        model=cat.models["llama-3-8b"],
        workload=Workload(input_tokens=1024, output_tokens=512),
        layout=Layout(tp=np.array([1.0, 2.0, 4.0, 8.0]), batch=np.array([64.0, 16.0, 4.0, 1.0]), format="fp8"),
        prices=cat.prices["owner-2026"],
    )


@pytest.fixture(scope="module")
def ds(deployment):
    """Two designs, two owners, two limits; four cells, of which the last breaks a limit."""
    m = dse.evaluate(deployment)
    d, s, t = np.array(CASES).T
    index = (d, np.zeros(4, int), np.zeros(4, int), s, t)
    text = np.array(["fp8"] * 4, object)
    cells = Cells(index, m, text, text, np.array([True, True, True, False]))
    designs = [
        Design(
            id="0123456789ab",
            family="sram",
            chip="SRAM machine 012345",
            status="hypothetical",
            decisions={"node": "n5", "dies": 2},
            area_mm2={"sram": 400.0, "compute": 300.0},
            unit_cost_usd={"dies": 90.0, "test": 10.0},
            body={"tdp_w": 300.0},
        ),
        Design("nvidia-h100-sxm", "hbm_gpu", "NVIDIA H100", "existing", False, {"node": "n4"}, body={"tdp_w": 700.0}),
    ]
    coordinates = {"model": ["llama-3-8b"], "workload": ["chat"], "scenario": ["owner-2026", "street-2026"], "tpot_limit": [0.05, 0.01]}
    headline = {"model": "llama-3-8b", "workload": "chat", "scenario": "owner-2026", "tpot_limit": 0.01}
    return to_dataset(designs, coordinates, [cells], {"seed": 3, "headline": headline, "title": "t", "assumptions": []})


# --- one Dataset ---------------------------------------------------------------------------------------------------------------


def test_every_cell_holds_what_evaluate_said(ds, deployment):
    m = dse.evaluate(deployment)
    for k, (d, s, t) in enumerate(CASES[:3]):
        cell = ds.isel(design=d, model=0, workload=0, scenario=s, tpot_limit=t)
        assert float(cell["feasible"]) == 1
        assert (float(cell["tp"]), float(cell["batch"])) == (2.0**k, 4.0 ** (3 - k))
        for name in ("tpot_s", "ttft_s", "usd_per_million_output_token", "mfu", "facility_power_w", "chips"):
            assert float(cell[name]) == float(np.broadcast_to(getattr(m, name), 4)[k]), name
        for part in fields(TimeParts):
            assert float(cell["time_s"].sel(component=part.name)) == float(getattr(m.time_s, part.name)[k])
        for part in fields(CostParts):
            assert float(cell["cost_usd_per_s"].sel(component=part.name)) == float(getattr(m.cost_usd_per_s, part.name)[k])
        alone = dse.evaluate(replace(deployment, layout=Layout(tp=2.0**k, batch=4.0 ** (3 - k), format="fp8"))).as_dict()
        assert str(cell["bound"].values) == alone["bound"]
        assert str(cell["format_compute"].values) == alone["format"]["compute"]
        assert str(cell["constants"].values) == alone["constants"]
        for end in ("low", "high"):
            for key, value in alone[end].items():
                assert float(cell[f"{end}.{key}"]) == pytest.approx(value, rel=1e-12), key
                assert (value < alone[key]) == (end == "low")
    broken = ds.isel(design=1, model=0, workload=0, scenario=1, tpot_limit=1)
    assert float(broken["feasible"]) == 0
    assert np.isnan(float(broken["tpot_s"]))
    assert str(broken["bound"].values) == ""
    assert float(ds["feasible"].sum()) == 3


def test_dimensions_and_attributes_are_those_of_the_contract(ds):
    assert set(ds.sizes) == {*DIMS, "component"}
    for name in ds.variables:
        assert {"units", "long_name", "better"} <= set(ds[name].attrs), name
        assert ds[name].attrs["better"] in ("lower", "higher", "none"), name
        assert ds[name].attrs["units"], name
    assert ds["tpot_s"].dims == DIMS
    assert ds["time_s"].dims == (*DIMS, "component")
    assert ds["low.tpot_s"].attrs["units"] == ds["tpot_s"].attrs["units"] == "s"
    assert json.loads(ds.attrs["headline"])["tpot_limit"] == 0.01
    assert ds["node"].attrs["role"] == "decision"
    assert ds["node"].values.tolist() == ["n5", "n4"]
    assert np.isnan(ds["dies"].values[1])


def test_the_table_has_the_columns_of_the_contract_and_blanks_where_nothing_applies(ds, tmp_path):
    with write_designs_csv(ds, tmp_path / "designs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0])
    assert columns[: len(FIRST)] == FIRST
    wanted = [*KEYS, *(f"{key}.{part}" for key, parts in BRACED.items() for part in parts.split())]
    assert not [key for key in wanted if key not in columns]
    assert len(columns) == len(set(columns))
    assert columns.index("node") < columns.index("tpot_s")  # decisions first
    assert {(r["design_id"], r["scenario"], r["tpot_limit_s"]) for r in rows} == {
        ("0123456789ab", "owner-2026", "0.01"), ("nvidia-h100-sxm", "owner-2026", "0.05"), ("0123456789ab", "owner-2026", "0.05"),
    }  # fmt: skip
    for row in rows:
        assert row["tpot_p99_s"] == ""
        cell = ds.sel(design=row["design_id"], scenario=row["scenario"], tpot_limit=float(row["tpot_limit_s"])).isel(model=0, workload=0)
        assert float(row["tpot_s"]) == pytest.approx(float(cell["tpot_s"]), rel=1e-6)
        assert float(row["time_s.kv"]) == pytest.approx(float(cell["time_s"].sel(component="kv")), rel=1e-6)
        assert row["format.weights"] == "fp8"


# --- fronts ----------------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(arrays(float, (5, 4), elements=st.sampled_from([1.0, 2.0, 3.0, np.nan])), st.lists(st.sampled_from("ab"), min_size=5, max_size=5))
def test_the_front_of_a_family_is_brute_force(cost, families):
    found = on_front(cost[:, None, None, None, :], families)[:, 0, 0, 0, :]
    for family in set(families):
        rows = [i for i in range(5) if families[i] == family]
        for t in range(4):
            finite = [cost[i, t] for i in rows if np.isfinite(cost[i, t])]
            best = min(finite, default=np.inf)
            as_fast_and_cheap = any(cost[i, later] <= best for i in rows for later in range(t + 1, 4))
            expected = [i for i in rows if cost[i, t] == best][:1] if finite and not as_fast_and_cheap else []
            assert [i for i in rows if found[i, t]] == expected


# --- disk ------------------------------------------------------------------------------------------------------------------------


def test_a_result_comes_back_as_it_was(ds, tmp_path):
    path = save(ds, tmp_path / "deep" / "result.nc")
    again = load(path)
    xr.testing.assert_identical(again.drop_attrs(), ds.drop_attrs())
    assert again.attrs == ds.attrs
    for name in ds.variables:
        assert again[name].attrs == ds[name].attrs, name
    xr.testing.assert_identical(load(path.parent), again)
    assert [p.name for p in path.parent.iterdir()] == ["result.nc"]
    save(again.isel(design=[0]), path)  # an open result is no lock
    assert load(path).sizes["design"] == 1


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "other"])
def test_a_damaged_file_is_refused_in_words(ds, tmp_path, damage):
    path = save(ds, tmp_path / "result.nc")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "other":
        xr.Dataset({"x": ("time", [1.0])}).to_netcdf(path, engine="h5netcdf")
    else:
        path.write_text("not a result" if damage == "text" else "", encoding="utf-8")
    with pytest.raises(InputError, match=r"result\.nc: result — (cannot be read as NetCDF|lacks the dimensions design, model)"):
        load(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match="not found"):
        load(tmp_path / "result.nc")
    with pytest.raises(InputError, match="not found"):
        load(tmp_path)


def test_a_full_disk_harms_nothing(ds, tmp_path, monkeypatch):
    path = save(ds.isel(design=[0]), tmp_path / "result.nc")
    before = path.read_bytes()

    def full(self, target, **_):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device", os.fspath(target))

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    with pytest.raises(DseError, match=r"cannot be written .*No space left.*free space or name another --out") as error:
        save(ds, path)
    assert error.value.exit_code == 1
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["result.nc"]


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(ds, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DseError, match="cannot be written"):
        save(ds, tmp_path / "file" / "result.nc")


# --- sweeps ----------------------------------------------------------------------------------------------------------------------


def test_a_sweep_is_the_grid_of_single_answers(deployment):
    base = replace(deployment, layout=Layout(tp=1.0, batch=1.0, format="fp8"))
    found = sweep(base, {"layout.batch": [1, 32], "chip.tdp_w": [300.0, 700.0, 900.0]})
    assert dict(found.sizes) == {"layout.batch": 2, "chip.tdp_w": 3}
    for b in (1.0, 32.0):
        for w in (300.0, 900.0):
            one = dse.evaluate(replace(base, layout=replace(base.layout, batch=b), chip=replace(base.chip, tdp_w=w)))
            cell = found.sel({"layout.batch": b, "chip.tdp_w": w})
            assert float(cell["usd_per_million_output_token"]) == pytest.approx(float(one.usd_per_million_output_token), rel=1e-12)
            assert float(cell["cost_usd_per_s.site"]) == pytest.approx(float(one.cost_usd_per_s.site), rel=1e-12)
    with pytest.raises(InputError, match="did you mean 'batch'"):
        sweep(base, {"layout.bach": [1]})
    with pytest.raises(InputError, match="found a record"):
        sweep(base, {"chip.memory": [1]})
