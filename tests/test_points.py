"""Measured systems in the plane of a study: which runs count, and what they say."""

from __future__ import annotations

import csv

import pytest

from dse.catalog import load_catalog
from dse.errors import InputError
from dse.validate.points import MOST, measured_points

BASE = {
    "level": "system", "chip": "H100-SXM5-80GB", "n_chips": "2", "model": "Llama-3.3-70B", "mode": "aggregated", "precision_weights": "fp8",
    "tp": "2", "pp": "1", "ep": "1", "batch_or_concurrency": "64", "isl": "1024", "osl": "1024", "software": "vllm 0.12", "source": "here",
}  # fmt: skip


@pytest.fixture(scope="module")
def catalog():
    return load_catalog()


def points(folder, catalog, *runs, models=("llama-3-70b",)):
    """Points of runs that each report TTFT and TPOT in ms, and what differs from ``BASE``."""
    rows = []
    for i, (ttft, tpot, other) in enumerate(runs):
        for metric, value in (("ttft", ttft), ("tpot", tpot)):
            rows.append({**BASE, "id": f"{i}{metric}", "config_id": str(i), "flag": "", **other, "metric": metric, "value": str(value)})
    with (folder / "runs.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, list(dict.fromkeys(c for r in rows for c in r)))
        out.writeheader()
        out.writerows(rows)
    return measured_points(models, ["chat"], catalog, folder)


def test_throughput_follows_from_the_latencies_of_a_closed_loop(tmp_path, catalog):
    (point,) = points(tmp_path, catalog, (500.0, 20.0, {}))
    assert point["chip"] == "nvidia-h100-sxm" and point["model"] == "llama-3-70b" and point["workload"] == "chat"
    assert point["interactivity_token_per_s"] == pytest.approx(50.0)
    assert point["output_token_per_s_per_chip"] == pytest.approx(64 * 1024 / (2 * (0.5 + 1023 * 0.02)))
    assert "TP2" in point["label"] and point["source"] == "here"


@pytest.mark.parametrize(
    "other",
    [
        {"flag": "nominal concurrency"}, {"isl": "2048"}, {"osl": "900"}, {"model": "Qwen3-32B"}, {"mode": "disagg"}, {"chip": "X9"},
        {"spec_decoding": "mtp"}, {"batch_or_concurrency": "queued"},
    ],
)  # fmt: skip
def test_other_questions_do_not_count(tmp_path, catalog, other):
    assert points(tmp_path, catalog, (500.0, 20.0, other)) == []


def test_beaten_runs_are_left_out(tmp_path, catalog):
    kept = points(tmp_path, catalog, (500.0, 20.0, {}), (500.0, 25.0, {}), (200.0, 10.0, {"batch_or_concurrency": "8"}))
    assert [round(p["interactivity_token_per_s"]) for p in kept] == [50, 100]


def test_an_unknown_model_is_refused(tmp_path, catalog):
    with pytest.raises(InputError, match="llama-9"):
        points(tmp_path, catalog, (500.0, 20.0, {}), models=("llama-9",))


def test_the_shipped_runs_hold_fronts_of_the_shipped_study(catalog):
    found = measured_points(["llama-3-70b", "deepseek-r1"], ["chat", "long-context"], catalog)
    places = {(p["chip"], p["model"]) for p in found}
    assert {("nvidia-h100-sxm", "llama-3-70b"), ("nvidia-b200-sxm", "deepseek-r1"), ("amd-mi355x", "deepseek-r1")} <= places
    for place in places:
        mine = [p for p in found if (p["chip"], p["model"]) == place]
        rates = [p["output_token_per_s_per_chip"] for p in mine]
        speeds = [p["interactivity_token_per_s"] for p in mine]
        assert len(mine) <= MOST and rates == sorted(rates, reverse=True) and speeds == sorted(speeds)
