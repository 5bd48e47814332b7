"""Stated clusters against each other: the figures are evaluations, the cheapest is the cheapest, and the report leads with both."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import dse
from dse.analysis.answers.clusters import BATCH, answer
from dse.errors import InputError
from dse.report.answers import clusters as told
from dse.study import parse_study, read_study, shipped_studies


@pytest.fixture(scope="module")
def cat():
    return dse.load_catalog()


@pytest.fixture(scope="module")
def study(cat):
    return read_study("gpt4_cluster", cat)


@pytest.fixture(scope="module")
def found(study, cat):
    return answer(SimpleNamespace(study=study, catalog=cat), study.analyses[0].given)


def test_each_figure_is_that_of_one_evaluation_and_none_is_cheaper(found, study, cat):
    given = study.analyses[0].given["clusters"]
    for cluster, limit in ((given[0], 0.1), (given[1], 0.05)):
        at = found.sel(workload="chat", cluster=cluster["name"]).sel(limit=limit)
        layout = dse.Layout(tp=float(cluster["tp"]), pp=float(cluster.get("pp", 1)), batch=BATCH, format=str(at.format.item()))
        m = dse.evaluate(
            dse.Deployment(
                chip=cat.chips[cluster["chip"]],
                model=cat.models["gpt-4-like-1.8t"],
                workload=cat.workloads["chat"],
                layout=layout,
                prices=cat.prices["owner-2026"],
            )
        )
        ok = np.asarray(m.feasible) & (np.asarray(m.tpot_s) <= limit)
        cost = np.asarray(m.usd_per_million_output_token)
        assert float(at.usd_per_million_output_token) == pytest.approx(cost[ok].min())
        k = int(np.flatnonzero(float(at.batch) == BATCH)[0])
        assert cost[k] == cost[ok].min() and float(at.tpot_s) == pytest.approx(float(m.tpot_s[k]))


def test_a_tighter_promise_is_never_cheaper_and_neither_limit_nor_memory_is_broken(found):
    cost = found.usd_per_million_output_token
    assert bool(((cost.diff("limit") >= -1e-9) | cost.diff("limit").isnull()).all())
    held = found.tpot_s.where(np.isfinite(found["limit"]))
    assert bool(((held <= found["limit"]) | held.isnull()).all()) and bool((found.batch.isel(limit=0) <= found.most * (1 + 1e-9)).all())
    assert found.chips.values.tolist() == [128.0, 8.0]


def test_the_first_sentence_says_cost_and_speed_of_both_and_their_ratio(found):
    text = told.sentence(found, found.attrs)
    a, b = (float(found.usd_per_million_output_token.sel(workload="chat", cluster=c, limit=np.inf)) for c in found.cluster.values)
    assert "128 A100 40GB, TP 8 x PP 16" in text and "8 MI300X" in text and f"costs {a / b:.2f} times less" in text
    assert text.count("ms a token") == 3 and "hypothetical" not in text
    section = told.section(found, found, "nodes", found.attrs)
    assert len(section.blocks) == 2 and "not met" in section.blocks[0] and section.drawn[0].rows


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("clusters = []", "two or more tables"),
        ('clusters = [{ name = "a", chip = "amd-mi300x" }, { name = "b", chip = "amd-mi300x", formats = ["fp8"] }]', "with formats"),
        ('clusters = [{ name = "a", chip = "amd-mi300x", tpp = 8, formats = ["fp8"] }, {}]', "without tpp; did you mean 'tp'"),
    ],
)
def test_a_cluster_that_is_half_described_is_an_error(study, line, message):
    source = study.path.read_text(encoding="utf-8")
    start, end = source.index("clusters = ["), source.index("\n]\n", source.index("clusters = [")) + 2
    with pytest.raises(InputError, match=message):
        parse_study(source[:start] + line + source[end:], study.path)


def test_an_unknown_chip_of_a_cluster_is_named(study, cat):
    source = study.path.read_text(encoding="utf-8").replace('chip = "amd-mi300x"', 'chip = "amd-mi300"')
    with pytest.raises(InputError, match=r"found 'amd-mi300', allowed an id of the catalogue's chips"):
        parse_study(source, study.path, catalog=cat)
    assert "gpt4_cluster" in shipped_studies()
