"""A simulator of one's own in the model's place: its answers decide, and one that says what the model says changes nothing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dse
from dse.catalog import load_catalog
from dse.errors import DseError, InputError
from dse.questions import grid_of, questions_of, shop_of
from dse.run import run_study
from dse.search.designs import block_scorer
from dse.search.simulator import Simulator, load_simulator, measured
from dse.search.simulator import block_scorer as simulated_scorer
from dse.study import read_study

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_simulator"
CHIPS = 4


def _questions():
    catalog, study = load_catalog(), read_study(EXAMPLE / "study.toml")
    shop = shop_of("sram", study.families["sram"], catalog)
    values = shop.space.decode(np.random.default_rng(3).random((CHIPS, shop.space.dimension)))
    return shop, questions_of(study, catalog), grid_of(study, ("fp8",)), values


def _scores(function):
    shop, questions, grid, values = _questions()
    return simulated_scorer(Simulator("test", "", function), shop, questions, grid, CHIPS)(values), questions


def test_a_simulator_that_agrees_with_the_model_finds_the_costs_of_the_model():
    shop, questions, grid, values = _questions()
    model = block_scorer(shop, questions, grid, CHIPS)(values)
    asked = []

    def same(d: dse.Deployment):
        asked.append(d)
        m = dse.evaluate(d)
        return {"tpot_s": float(m.tpot_s), "ttft_s": float(m.ttft_s)}

    found, _ = _scores(same)
    assert np.isfinite(model.costs).sum() > CHIPS
    np.testing.assert_array_equal(np.isfinite(found.costs), np.isfinite(model.costs))
    costs = slice(0, -1)  # the last cell is the fastest token, here among the layouts that were asked for
    np.testing.assert_allclose(found.costs[:, costs], model.costs[:, costs], rtol=1e-4)  # single precision there
    assert (found.costs[:, -1] >= model.costs[:, -1] * (1 - 1e-4)).all()
    assert found.evaluations == len(asked)


def test_what_the_simulator_refuses_is_infeasible_and_slower_answers_cost_more():
    none, _ = _scores(lambda d: None)
    assert not np.isfinite(none.costs).any()
    plain, questions = _scores(lambda d: {})
    slow, _ = _scores(lambda d: {"tpot_s": 1.3 * float(dse.evaluate(d).tpot_s)})
    both = np.isfinite(slow.costs) & np.isfinite(plain.costs)
    assert both.any()
    assert (slow.costs[both] > plain.costs[both]).all()
    assert np.isfinite(slow.costs).sum() <= np.isfinite(plain.costs).sum()
    assert len(questions.limits_s) == 2


def test_the_rate_follows_from_measured_times_by_littles_law_and_money_from_the_rate():
    catalog = load_catalog()
    workload = dse.Workload(input_tokens=1000.0, output_tokens=101.0)
    d = dse.Deployment(
        chip=catalog.chips["nvidia-h100-sxm"],
        model=catalog.models["llama-3-8b"],
        workload=workload,
        layout=dse.Layout(tp=1, batch=64),
        prices=catalog.prices["owner-2026"],
    )
    m = dse.evaluate(d)
    nothing = {name: np.array(np.nan) for name in ("tpot_s", "ttft_s", "output_token_per_s_per_chip")}
    same = measured(m, 101.0, nothing)
    assert float(same.usd_per_million_output_token) == pytest.approx(float(m.usd_per_million_output_token), rel=1e-12)
    twice = measured(m, 101.0, nothing | {"tpot_s": 2 * np.asarray(m.tpot_s), "ttft_s": 2 * np.asarray(m.ttft_s)})
    assert float(twice.output_token_per_s_per_chip) == pytest.approx(float(m.output_token_per_s_per_chip) / 2)
    assert float(twice.usd_per_million_output_token) == pytest.approx(2 * float(m.usd_per_million_output_token))
    assert sum(twice.as_dict()["time_s"].values()) == pytest.approx(float(twice.tpot_s))
    rated = measured(m, 101.0, nothing | {"output_token_per_s_per_chip": 3 * np.asarray(m.output_token_per_s_per_chip)})
    assert float(rated.usd_per_million_output_token) == pytest.approx(float(m.usd_per_million_output_token) / 3)


def test_answers_that_cannot_be_are_named():
    with pytest.raises(DseError, match="tpot_s = -1"):
        _scores(lambda d: {"tpot_s": -1.0})
    with pytest.raises(DseError, match="latency"):
        _scores(lambda d: {"latency": 1.0})
    with pytest.raises(InputError, match=r"FILE\.py:FUNCTION"):
        load_simulator("nothing.py:measure", EXAMPLE)
    with pytest.raises(InputError, match="no function 'gauge'"):
        load_simulator("simulator.py:gauge", EXAMPLE)


@pytest.mark.parametrize("more", ["finish = 5", "certify = 100"])
def test_what_is_said_of_the_model_alone_is_refused_beside_a_simulator(tmp_path, more):
    (tmp_path / "study.toml").write_text((EXAMPLE / "study.toml").read_text() + f"\n{more}\n")
    with pytest.raises(InputError, match=r"search\.simulator"):
        read_study(tmp_path / "study.toml")


def test_the_example_runs_and_another_version_of_its_simulator_is_refused(tmp_path):
    home, out = tmp_path / "own", tmp_path / "out"
    shutil.copytree(EXAMPLE, home, ignore=shutil.ignore_patterns("__pycache__"))
    ds = run_study(home / "study.toml", budget=16, out=out)
    here = ds.isel(model=0, workload=0, scenario=0)
    served = here["feasible"] > 0
    assert bool(served.any())
    assert bool((here["tpot_s"].where(served) <= here["tpot_limit"] * (1 + 1e-9)).where(served, True).all())
    parts = here["time_s"].sum("component").where(served)
    np.testing.assert_allclose(parts.values[served.values], here["tpot_s"].values[served.values])
    chip = here.sel(design="nvidia-h100-sxm").isel(tpot_limit=0)
    catalog = load_catalog()
    layout = dse.Layout(**{k: float(chip[k]) for k in ("tp", "pp", "batch")}, format=str(chip["format_weights"].item()))
    alone = dse.evaluate(
        dse.Deployment(
            chip=catalog.chips["nvidia-h100-sxm"],
            model=catalog.models["llama-3-8b"],
            workload=catalog.workloads["chat"],
            layout=layout,
            prices=catalog.prices["owner-2026"],
        )
    )
    assert float(chip["tpot_s"]) == pytest.approx(1.15 * float(alone.tpot_s))
    assert "simulator.py:measure" in str(ds.attrs["simulator"])
    assert "simulator.py:measure" in (out / "report.html").read_text()
    again = run_study(home / "study.toml", budget=16, out=out, resume=True)
    np.testing.assert_array_equal(again["usd_per_million_output_token"].values, ds["usd_per_million_output_token"].values)
    file = home / "simulator.py"
    file.write_text(file.read_text().replace("1.15", "1.2"))
    with pytest.raises(InputError, match="simulator_sha256"):
        run_study(home / "study.toml", budget=16, out=out, resume=True)
    assert replace(read_study(home / "study.toml").search, simulator="").finish == 0
