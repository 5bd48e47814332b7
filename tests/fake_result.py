"""A small synthetic Dataset of the shape that results.py builds, with invented but plausible numbers: for tests of the report only."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

LIMITS = np.array([0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001])
MODELS, WORKLOADS = ["llama-3.1-405b", "deepseek-r1"], ["chat-1k-1k", "agentic-32k-1k"]
SCENARIOS = ["owner-2026", "street-2026"]
TIME = ["compute", "weights", "kv", "collectives", "overhead", "prefill"]
COST = ["capital", "system", "nre", "energy", "site", "idle"]
MEMORY = ["weights", "kv", "activations", "reserve", "capacity"]
AREA = ["tensor", "sram", "phy", "links", "control"]
BOM = ["die", "memory", "package", "test"]
# family: least cost [USD/Mtoken], speed at which the cost has doubled, fastest speed [token/s/user], its share of KV in a step
FAMILIES = {
    "hbm_gpu": (0.55, 80, 320, 0.3),
    "transformer_asic": (0.40, 90, 260, 0.3),
    "sram": (1.3, 700, 1100, 0.1),
    "compute_in_memory": (0.9, 400, 800, 0.2),
    "burned_in": (0.7, 900, 2500, 0.4),
    "stacked_dram": (0.45, 220, 600, 0.3),
}
REAL = {
    "nvidia-h100-sxm": ("NVIDIA H100 SXM 80 GB", "hbm_gpu", "existing", 2.2, 0.7),
    "nvidia-b200-sxm": ("NVIDIA B200 SXM", "hbm_gpu", "existing", 1.3, 0.9),
    "amd-mi355x": ("AMD Instinct MI355X", "hbm_gpu", "existing", 1.35, 0.7),
    "groq-lpu-v1": ("Groq LPU v1", "sram", "existing", 7.0, 0.5),
    "taalas-hc1": ("Taalas HC1", "burned_in", "claim", 1.4, 0.8),
    "human-brain": ("Human brain", "other", "existing", 400.0, 0.01),
}


def _designs(each: int, rng: np.random.Generator) -> list[tuple]:
    rows = [
        (f"{family[:2]}{i:04d}{family[-2:]}abcdef", "", family, "hypothetical", float(rng.uniform(1, 1.7)), float(rng.uniform(0.6, 1.05)))
        for family in FAMILIES
        for i in range(each)
    ]
    return rows + [(k, *v) for k, v in REAL.items()]


def _shares(rng: np.random.Generator, shape: tuple[int, ...], parts: list[str], names: list[str]) -> np.ndarray:
    values = np.full((*shape, len(names)), np.nan)
    raw = rng.gamma(1.0, 1.0, (*shape, len(parts)))
    values[..., [names.index(p) for p in parts]] = raw / raw.sum(-1, keepdims=True)
    return values


def _attrs() -> dict:
    assumptions = [
        {
            "name": "prices owner-2026: utilisation",
            "value": 0.6,
            "unit": "1",
            "low": 0.35,
            "high": 0.85,
            "kind": "assumption",
            "source": "assumption",
            "note": "fleet",
        },
        {
            "name": "owner-2026.model_life_year",
            "value": 31536000.0,
            "unit": "s",
            "low": 15768000.0,
            "high": 63072000.0,
            "kind": "assumption",
            "source": "assumption",
            "note": "",
        },
        {
            "name": "owner-2026.volume_wafer",
            "value": 2e4,
            "unit": "wafer",
            "low": 5e3,
            "high": 8e4,
            "kind": "assumption",
            "source": "assumption",
            "note": "",
        },
        {
            "name": "n3.wafer_usd",
            "value": 1.95e4,
            "unit": "USD",
            "low": 1.7e4,
            "high": 2.3e4,
            "kind": "estimate",
            "source": "fake2025",
            "note": "list",
        },
        {
            "name": "burned_in.layer_s",
            "value": 1e-6,
            "unit": "s",
            "low": 3e-7,
            "high": 4e-6,
            "kind": "estimate",
            "source": "fake2025",
            "note": "",
        },
    ]
    measured = [
        {
            "chip": "nvidia-b200-sxm",
            "model": "deepseek-r1",
            "workload": "chat-1k-1k",
            "interactivity_token_per_s": 55.0,
            "output_token_per_s_per_chip": 900.0,
            "label": "B200, measured",
            "source": "fake2025",
        },
        {
            "chip": "nvidia-h100-sxm",
            "model": "llama-3.1-405b",
            "workload": "chat-1k-1k",
            "interactivity_token_per_s": 30.0,
            "output_token_per_s_per_chip": 210.0,
            "label": "H100, measured",
            "source": "fake2025",
        },
    ]
    return {
        "title": "GPU against SRAM against ASIC",
        "study": "gpu_vs_sram_vs_asic",
        "study_toml": 'name = "gpu_vs_sram_vs_asic"\nseed = 1\n',
        "question": "Which kind of chip serves large models at the lowest cost, at which speed?",
        "headline": json.dumps({"model": "llama-3.1-405b", "workload": "chat-1k-1k", "scenario": "owner-2026", "tpot_limit": 0.02}),
        "seed": 1,
        "budget": 2000,
        "counts": json.dumps({"chips_screened": 240000, "evaluations": 31000000}),
        "wall_time_s": 58.2,
        "versions": json.dumps({"dse": "0.1.0", "jax": "0.10.2"}),
        "study_sha256": "ab" * 32,
        "catalog_sha256": "cd" * 32,
        "git_commit": "0" * 40,
        "created_utc": "2026-11-20T20:00:00Z",
        "assumptions": json.dumps(assumptions),
        "measured": json.dumps(measured),
        "bibliography": json.dumps(
            {"fake2025": {"title": "Invented numbers", "author": "Nobody", "year": "2025", "url": "https://example.org/x"}}
        ),
        "names": json.dumps({"llama-3.1-405b": "Llama 3.1 405B", "deepseek-r1": "DeepSeek R1", "owner-2026": "owner, cost plus margin"}),
    }


def fake_dataset(each: int = 6, seed: int = 0) -> xr.Dataset:
    """``each`` hypothetical designs of every family, the chips of REAL, two models, two workloads, two owners' views."""
    rng = np.random.default_rng(seed)
    rows = _designs(each, rng)
    names = list(dict.fromkeys(TIME + COST + MEMORY + AREA + BOM))
    shape = (len(rows), len(MODELS), len(WORKLOADS), len(SCENARIOS), len(LIMITS))
    dims = ("design", "model", "workload", "scenario", "tpot_limit")
    factor = np.array([[1.0, 4.0], [0.35, 1.6]])[:, :, None, None] * np.geomspace(1.0, 2.4, len(SCENARIOS))[:, None]
    cost, fast = np.empty(shape), np.empty(shape)
    for d, (_, _, family, _, expensive, speed) in enumerate(rows):
        least, double, top, _ = FAMILIES.get(family, (1.0, 10, 12, 0.1))
        tpot = LIMITS * rng.uniform(0.82, 1.0, shape[1:])
        cost[d] = least * expensive * factor * (1 + (1 / (tpot * double * speed)) ** 1.6)
        fast[d] = np.where(top * speed < 1 / LIMITS, np.nan, tpot)
    ok = np.isfinite(fast)

    def masked(values):
        return dims, np.where(ok, values, np.nan)

    def text(options):
        return dims, np.where(ok, np.array(options)[rng.integers(0, len(options), shape)], "")

    chip_hour = rng.uniform(1.5, 6.0, shape)
    rate = chip_hour / 3600 / cost * 1e6
    chips = 2.0 ** rng.integers(3, 7, shape)
    family = np.array([r[2] for r in rows])
    data = {
        "family": ("design", family),
        "chip": ("design", np.array([r[1] for r in rows])),
        "status": ("design", np.array([r[3] for r in rows])),
        "node": ("design", np.array(["n3" if r[3] == "hypothetical" else "n4" for r in rows])),
        "cache_mbyte": (
            "design",
            np.where(family == "hbm_gpu", rng.uniform(30, 200, len(rows)), np.nan),
            {"role": "decision", "units": "1"},
        ),
        "hbm_stacks": (
            "design",
            np.where(np.isin(family, ["hbm_gpu", "transformer_asic"]), rng.integers(4, 12, len(rows)), np.nan),
            {"role": "decision"},
        ),
        "voltage_v": ("design", np.where(family != "other", rng.uniform(0.6, 0.9, len(rows)), np.nan), {"role": "decision", "units": "V"}),
        "die_area_mm2": ("design", rng.uniform(500, 850, len(rows))),
        "tdp_w": ("design", rng.uniform(300, 1400, len(rows))),
        "unit_cost_usd_total": ("design", rng.uniform(2e3, 9e3, len(rows))),
        "memory_capacity_byte": ("design", rng.uniform(0, 3e11, len(rows))),
        "memory_bandwidth_byte_per_s": ("design", rng.uniform(0, 2e13, len(rows))),
        "peak_fp8_flop_per_s": ("design", rng.uniform(1e15, 1e16, len(rows))),
        "area_mm2": (("design", "component"), _shares(rng, (len(rows),), AREA, names) * 800),
        "unit_cost_usd": (("design", "component"), _shares(rng, (len(rows),), BOM, names) * 5000),
        "feasible": (dims, ok.astype(float)),
        "tpot_s": masked(fast),
        "interactivity_token_per_s": masked(1 / fast),
        "ttft_s": masked(rng.uniform(0.1, 3, shape)),
        "usd_per_million_output_token": masked(cost),
        "usd_per_million_token": masked(cost / 2),
        "usd_per_chip_hour": masked(chip_hour),
        "output_token_per_s_per_chip": masked(rate),
        "total_token_per_s_per_chip": masked(rate * 2),
        "chips": masked(chips),
        "tp": masked(chips / 2),
        "pp": masked(np.full(shape, 2.0)),
        "cp": masked(np.ones(shape)),
        "dp": masked(np.ones(shape)),
        "ep": masked(np.ones(shape)),
        "batch": masked(2.0 ** rng.integers(2, 10, shape)),
        "j_per_output_token": masked(cost / 2),
        "facility_power_w": masked(chips * 1000),
        "mfu": masked(rng.uniform(0.02, 0.5, shape)),
        "mbu": masked(rng.uniform(0.2, 0.9, shape)),
        "mfu_prefill": masked(rng.uniform(0.3, 0.7, shape)),
        "format_weights": text(["fp8", "nvfp4", "mxfp4"]),
        "format_kv": text(["fp8"]),
        "bound_prefill": text(["compute"]),
        "slack_memory": masked(rng.uniform(0, 1, shape)),
        "below_4_bit": (dims, ((family == "burned_in")[:, None, None, None, None] & (rng.uniform(size=shape) < 0.15) & ok).astype(float)),
    }
    time = _shares(rng, shape, TIME, names) * np.where(ok, fast, np.nan)[..., None]
    data["time_s"] = ((*dims, "component"), time)
    largest = np.array(TIME)[np.argmax(np.nan_to_num(time[..., : len(TIME)]), axis=-1)]
    data["bound"] = (dims, np.where(ok, largest, ""))
    data["cost_usd_per_s"] = (
        (*dims, "component"),
        _shares(rng, shape, COST, names) * (chip_hour * chips / 3600 * np.where(ok, 1, np.nan))[..., None],
    )
    data["memory_byte_per_chip"] = ((*dims, "component"), _shares(rng, shape, MEMORY, names) * np.where(ok, 2e11, np.nan)[..., None])
    data["on_front"] = (dims, np.zeros(shape))
    parameters = [
        "utilisation",
        "n3.wafer_usd",
        "chip.memory.s_per_byte",
        "burned_in.layer_s",
        "owner-2026.volume_wafer",
        "chip.tdp_w",
    ]
    sign = np.array([-0.9, 0.4, 0.5, 0.15, -0.08, 0.12])
    shape_e = (len(FAMILIES), len(MODELS), len(WORKLOADS), len(SCENARIOS), len(parameters))
    data["elasticity"] = (("elasticity_family", "model", "workload", "scenario", "parameter"), sign * rng.uniform(0.5, 1.1, shape_e))
    coords = {
        "design": [r[0] for r in rows],
        "model": MODELS,
        "workload": WORKLOADS,
        "scenario": SCENARIOS,
        "tpot_limit": LIMITS,
        "component": names,
        "parameter": parameters,
        "elasticity_family": list(FAMILIES),
    }
    return xr.Dataset(data, coords=coords, attrs=_attrs())
