"""Is regret what it says, and does a study with a mix find designs that serve it?"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from dse.analysis import regret as R
from dse.errors import InputError
from dse.questions import questions_of
from dse.search.designs import score
from dse.study.read import parse_study

spec = importlib.util.spec_from_file_location("fake_result", Path(__file__).with_name("fake_result.py"))
assert spec and spec.loader
fake = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fake)

STUDY = """
title = "t"
budget = 8
models = ["llama-3-8b"]
workloads = ["chat", "long-context"]
scenarios = ["owner-2026"]
[limits]
tpot = ["50 ms", "20 ms"]
[families.hbm_gpu]
nodes = ["n5"]
[layouts]
tp = [1, 2]
batch = [1, 16]
formats = ["fp8"]
{more}
"""


@pytest.fixture(scope="module")
def ds():
    return fake.fake_dataset(each=3)


def test_regret_of_a_known_table():
    costs = np.array([[1.0, 4.0, np.inf], [2.0, 2.0, 3.0], [1.5, 3.0, 9.0]])
    found = R.regrets(costs)
    assert found[:, 0].tolist() == [0, 1, 0.5] and found[:, 1].tolist() == [1, 0, 0.5]
    assert np.isinf(found[0, 2]) and found[1, 2] == 0 and found[2, 2] == 2
    assert R.mixed_cost(costs, np.array([0.5, 0.25, 0.25])).tolist() == [np.inf, 2.25, 3.75]


def test_the_table_of_a_result_by_plain_loops(ds):
    scenario, limit = "owner-2026", 0.02
    found = R.regret_of(ds, scenario, limit)
    at = ds.sel(scenario=scenario, tpot_limit=limit)
    names = list(ds["design"].values)
    usable = [i for i, n in enumerate(names) if ds["status"].values[i] == "hypothetical" and ds["family"].values[i] != "burned_in"]

    def cost(i, case):
        cell = at.sel(model=case[0], workload=case[1]).isel(design=i)
        usable = float(cell["feasible"]) > 0 and float(cell["below_4_bit"]) == 0
        return float(cell["usd_per_million_output_token"]) if usable else np.inf

    best = {c: min(cost(i, c) for i in usable) for c in found.cases}
    for row, design, line in zip(found.rows, found.designs, found.values, strict=True):
        i = names.index(design)
        for case, value in zip(found.cases, line, strict=True):
            assert value == pytest.approx(cost(i, case) / best[case] - 1)
            if row == " / ".join(case):
                assert value == 0
    worst = [max(line) for line in found.values]
    by_name = dict(zip(found.rows, worst, strict=True))
    assert by_name[R.WORST] == min(worst)
    everyone = [max(cost(i, c) / best[c] - 1 for c in found.cases) for i in usable]
    assert by_name[R.WORST] == pytest.approx(min(everyone))


def test_the_mix_is_served_at_the_least_weighted_cost(ds):
    """By plain loops: weights times costs of one design, the cheapest of each family; the report says the first two."""
    from dse.report import regret as told

    names = [str(w) for w in ds["workload"].values]
    weights = {w: (k + 1) / sum(range(1, len(names) + 1)) for k, w in enumerate(names)}
    scenario, limit, model = "owner-2026", 0.02, str(ds["model"].values[0])
    found = R.mix_of(ds, scenario, limit, model, weights)
    at = ds.sel(scenario=scenario, tpot_limit=limit, model=model)
    cost = at["usd_per_million_output_token"].where((at["feasible"] > 0) & (at["below_4_bit"] == 0), np.inf)
    whole = sum(w * cost.sel(workload=k) for k, w in weights.items())
    least: dict[str, float] = {}
    for family, status, x in zip(ds["family"].values, ds["status"].values, whole.values, strict=True):
        if status == "hypothetical" and np.isfinite(x):
            least[family] = min(least.get(family, np.inf), float(x))
    assert {r["family"]: r["cost"] for r in found} == pytest.approx(least)
    assert [r["cost"] for r in found] == sorted(least.values())
    row = R.regret_of(ds, scenario, limit, weights)
    assert R.MIX in row.rows and R.MEAN in R.regret_of(ds, scenario, limit).rows
    mixed = ds.assign_attrs(mix=json.dumps({"weights": weights, "families": found}))
    assert f"{found[0]['design'][:6]}) is cheapest" in told.mix_sentence(mixed) and told.mix_sentence(ds) == ""


def test_into_keeps_the_table(ds):
    out = R.into(ds, "owner-2026", 0.02)
    again = R.into(out, "owner-2026", 0.02)
    assert out["regret"].equals(again["regret"])
    assert (out["regret"].values[np.isfinite(out["regret"].values)] >= 0).all()


def test_a_mix_is_a_cell_of_the_search():
    import jax

    import dse
    from dse.search.designs import column, tables
    from dse.search.grid import Grid

    cat = dse.load_catalog()
    plain = parse_study(STUDY.format(more=""), Path("t.toml"), catalog=cat)
    mixed = parse_study(STUDY.format(more='[mix]\nchat = 3\n"long-context" = 1\n'), Path("t.toml"), catalog=cat)
    assert dict(mixed.mix) == {"chat": 0.75, "long-context": 0.25} and not plain.mix
    q, m = questions_of(plain, cat), questions_of(mixed, cat)
    assert m.cells == q.cells + len(q.limits_s)
    grid = Grid(tp=(1, 2), dp=(1,), pp=(1,), batches=(1, 16), formats=("fp8",))
    chips = column(jax.tree.map(lambda x: np.full(2, float(x)), cat.chips["nvidia-h100-sxm"]), 2)
    known = tables(q.cases, grid)
    one, two = score(chips, 2, q, grid, known), score(chips, 2, m, grid, known)
    cells = len(q.limits_s)
    mixed_costs = two.costs[:, 2 * cells : 3 * cells]  # behind both workloads, before the fastest token of each
    assert two.costs[:, : 2 * cells] == pytest.approx(one.costs[:, : 2 * cells])
    assert two.costs[:, 3 * cells :] == pytest.approx(one.costs[:, 2 * cells :])
    assert mixed_costs == pytest.approx(0.75 * one.costs[:, :cells] + 0.25 * one.costs[:, cells : 2 * cells])
    assert two.values[:, 0] == pytest.approx(mixed_costs.min(axis=1))


def test_a_wrong_mix_is_told():
    with pytest.raises(InputError, match=r"mix\.nothing"):
        parse_study(STUDY.format(more="[mix]\nnothing = 1\n"), Path("t.toml"))
    with pytest.raises(InputError, match=r"mix\.chat"):
        parse_study(STUDY.format(more="[mix]\nchat = -1\n"), Path("t.toml"))
