"""What does the model predict that its fits have not seen? Chips, models and engines left out, and a chip with few measured rows.

Minutes of work: `dse calibrate --cross FILE.json` writes what the validation page shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from dse.calibrate.engine import LEFT_OUT, SystemFit, fit_system
from dse.calibrate.fit import Fitted, Sample, groups_of, problem_of, solve
from dse.calibrate.plan import Fit, Plan
from dse.catalog import Catalog

KINDS = {  # part of the constants -> kind of the validation
    "gemm": "GEMM, NVIDIA", "decode": "decode attention", "prefill": "prefill attention", "mla_decode": "MLA decode",
    "mla_prefill": "MLA prefill", "moe": "MoE feed-forward", "all_reduce": "all-reduce", "all_gather": "other collectives",
    "dispatch": "expert all-to-all", "combine": "expert all-to-all",
}  # fmt: skip
GEMM_AMD = "GEMM, MI355X"
APART = ("nvidia-l40s",)
LEFT_OUT_NAMES = {"by_shape": "shape", "by_shape_p90": "shape_p90"}
FEW = (0, 3, 8, 20)  # rows of a new chip
ENOUGH = 2 * max(FEW)  # rows of a chip below which an error on the unseen says little
SYSTEM_KINDS = {"tpot_s": "TPOT, aggregated", "ttft_s": "TTFT, aggregated", "latency_s": "static batch, NeMo"}


def kind_of(part: str, chip: str) -> str:
    """Kind of the validation that a part of the constants belongs to, or an empty string."""
    kind = KINDS.get(part.split(".")[0].removesuffix("_fp8"), "")
    return GEMM_AMD if kind.startswith("GEMM") and chip.startswith("amd") else kind


def constants_by_kind(results: Sequence[Fitted], plan: Plan) -> dict[str, int]:
    """Free constants by kind, all chips and implementations together; a shared one counts once."""
    found: dict[str, int] = defaultdict(int)
    for r in results:
        own = sum(leaf.per_chip and not leaf.fixed for leaf in r.fit.leaves)
        shared = sum(not leaf.per_chip and not leaf.fixed for leaf in r.fit.leaves)
        for chip in r.residuals:
            found[kind_of(r.fit.part, chip)] += own if chip not in APART else 0
        for group in {g: c for c, g in r.groups.items() if c not in APART}.values():
            found[kind_of(r.fit.part, group)] += shared
    found.pop("", None)
    return dict(found)


def constants_by_chip(results: Sequence[Fitted], plan: Plan) -> dict[str, dict[str, int]]:
    """Free constants of each chip: its own (fitted to its rows alone), and those that it shares with others of its group."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"own": 0, "shared": 0})
    for r in results:
        groups = [r.groups[c] for c in r.residuals]
        free = [leaf for leaf in r.fit.leaves if not leaf.fixed]
        for chip, group in zip(r.residuals, groups, strict=True):
            alone = groups.count(group) == 1
            own = sum(alone or leaf.per_chip for leaf in free)
            found[chip]["own"] += own
            found[chip]["shared"] += len(free) - own
    return {chip: dict(each) for chip, each in found.items()}


def _one_engines(fit: Fit) -> str:
    """Attention kernels of vLLM are others in each generation: they stand apart."""
    return ", vLLM" if fit.name == "vllm" and "attention" in kind_of(fit.part, "") else ""


def left_out(results: Sequence[Fitted]) -> dict[str, dict[str, float]]:
    """Mean over fits and chips of median and 90th percentile with shapes, with the chip, and with its whole generation left out."""
    cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for r in results:
        for chip, residual in r.residuals.items():
            kind = kind_of(r.fit.part, chip) + _one_engines(r.fit)
            if kind and chip not in APART and residual.n >= ENOUGH:
                for name in ("by_shape", "by_shape_p90", "same", "same_p90", "other", "other_p90"):
                    value = getattr(residual, name)
                    if not np.isnan(value):
                        cells[kind][LEFT_OUT_NAMES.get(name, name)].append(value)
    return {kind: {name: float(np.mean(v)) for name, v in each.items()} for kind, each in cells.items()}


def few_rows(
    fit: Fit, samples: Sequence[Sample], plan: Plan, enough: int = ENOUGH, only: Sequence[str] = ()
) -> dict[str, list[tuple[int, float]]]:
    """Median error of each chip (or of some) that has company in its group, against how many of its rows were fitted."""
    problem, chips = problem_of(fit, samples, plan)
    groups = groups_of(fit, samples, chips, plan)
    found: dict[str, list[tuple[int, float]]] = {}
    for chip, group in zip(chips, groups, strict=True):
        mine = np.flatnonzero([s.chip == chip for s in samples])
        if groups.count(group) < 2 or len(mine) < enough or (only and chip not in only):
            continue
        by_time = mine[np.argsort([samples[int(i)].seconds for i in mine], kind="stable")]
        found[chip] = []
        for count in (n for n in FEW if 2 * n <= len(mine)):
            shown = by_time[np.linspace(0, len(by_time) - 1, count).round().astype(int)] if count else by_time[:0]
            weights = np.ones(len(samples))
            weights[mine] = 0.0
            weights[shown] = 1.0
            x = solve(problem, weights, plan.procedure)
            errors = np.abs(np.expm1(np.asarray(problem.residuals(x, np.ones(problem.rows)))[: problem.rows]))
            rest = np.setdiff1d(mine, shown)
            found[chip].append((count, float(np.median(errors[rest]))))
    return found


def _mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    return [(n, float(np.mean([c[i][1] for c in curves]))) for i, n in enumerate(FEW)]


def rows_of_a_new_chip(chosen: Sequence[tuple[Fit, Sequence[Sample]]], plan: Plan) -> dict[str, list[tuple[int, float]]]:
    """Error against rows by kind: the mean over fits and chips."""
    curves: dict[str, list[list[tuple[int, float]]]] = defaultdict(list)
    for fit, samples in chosen:
        kind = kind_of(fit.part, "")
        if kind and samples:
            curves[kind] += few_rows(fit, samples, plan).values()
    return {kind: _mean_curve(each) for kind, each in curves.items() if each}


def _figures(errors: np.ndarray) -> tuple[float, float]:
    size = np.abs(errors)
    return float(np.median(size)), float(np.percentile(size, 90))


def pair_order(fit: SystemFit, errors: np.ndarray) -> dict[str, float | int]:
    """(Concordant - discordant) / all over pairs of runs on two chips at one model, request, load and number of chips."""
    cells: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, step in enumerate(fit.steps):
        run = step.run
        cells[run.model, run.isl, run.osl, run.batch, run.chips].append(i)
    measured = np.array([s.seconds for s in fit.steps])
    predicted = measured * (1.0 + errors)
    signs = [
        np.sign((predicted[i] - predicted[j]) * (measured[i] - measured[j]))
        for cell in cells.values()
        for i, j in combinations(cell, 2)
        if fit.steps[i].run.chip != fit.steps[j].run.chip and measured[i] != measured[j]
    ]
    return {"tau": float(np.mean(signs)) if signs else float("nan"), "n": len(signs)}


def order_of_chips(fit: SystemFit) -> dict[str, dict[str, float | int]]:
    """Order of pairs of chips by time per output token: in fit, and each chip of a pair predicted without its own runs."""
    return {"fit": pair_order(fit, fit.errors), "chip": pair_order(fit, fit.left_out["chip"])}


def system_rows(fits: dict[str, SystemFit]) -> list[dict[str, Any]]:
    """Errors of serving runs in fit and with chips, models and engines left out."""
    made = []
    for what, fit in fits.items():
        entry: dict[str, Any] = {"what": SYSTEM_KINDS[what], "n": len(fit.steps), "constants": len(fit.values), "fit": _figures(fit.errors)}
        entry |= {name: _figures(fit.left_out[name]) for name in LEFT_OUT}
        made.append(entry)
    return made


def cross_validation(
    folder: Path, catalog: Catalog, plan: Plan, results: Sequence[Fitted], chosen: Sequence[tuple[Fit, Sequence[Sample]]]
) -> dict[str, Any]:
    """Everything the validation page shows of unseen chips, models and engines.

    Args:
        folder: The measurements. results: Fits with shapes and chips left out. chosen: The fits with their rows.
    """
    runs = fit_system(folder, catalog, plan, LEFT_OUT)
    system = system_rows(runs)
    out = left_out(results)
    out |= {s["what"]: {"chip": s["chip"][0], "model": s["model"][0]} for s in system}
    constants = constants_by_kind(results, plan) | {s["what"]: s["constants"] for s in system}
    return {
        "constants": constants,
        "constants_by_chip": constants_by_chip(results, plan),
        "left_out": out,
        "order_of_chips": order_of_chips(runs["tpot_s"]),
        "system": system,
        "rows_of_a_new_chip": rows_of_a_new_chip(chosen, plan),
    }
