"""What does the model predict that its fits have not seen? Chips, models and engines left out, and a chip with few measured rows.

Minutes of work: `dse calibrate --cross FILE.json` writes what the validation page shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from dse.calibrate.engine import LEFT_OUT, SystemFit, fit_system
from dse.calibrate.fit import Fitted, Members, problem_of, solve
from dse.calibrate.plan import Plan
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
SYSTEM_KINDS = {
    "tpot_s": "TPOT, aggregated",
    "ttft_s": "TTFT, aggregated",
    "latency_s": "static batch, NeMo",
    "offline_s": "offline, TensorRT-LLM 0.14 and 0.15",
}


def kind_of(part: str, chip: str) -> str:
    """Kind of the validation that a part of the constants belongs to, or an empty string."""
    kind = KINDS.get(part.split(".")[0].removesuffix("_fp8"), "")
    return GEMM_AMD if kind.startswith("GEMM") and chip.startswith("amd") else kind


def constants_by_kind(results: Sequence[Fitted], plan: Plan) -> dict[str, int]:
    """Free constants by kind, all chips and implementations together; a shared one counts once."""
    found: dict[str, int] = defaultdict(int)
    for r in results:
        for chips in r.free:
            for kind in {kind_of(r.fit.part, chip) for chip in chips if chip not in APART}:
                found[kind] += 1
    found.pop("", None)
    return dict(found)


def constants_by_chip(results: Sequence[Fitted], plan: Plan) -> dict[str, dict[str, int]]:
    """Free constants of each chip: its own (that no other chip's rows move), and those that it shares with others."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"own": 0, "shared": 0})
    for r in results:
        for chips in r.free:
            for chip in chips:
                found[chip]["own" if len(chips) == 1 else "shared"] += 1
    return {chip: found[chip] for chip in sorted(found)}


APART_ENGINE = "vllm"


def _apart(done: Fitted, chip: str) -> str:
    """Attention kernels of vLLM are others in each generation: they stand apart, also where a chip has no others (the A100 in decoding)."""
    own = done.ran.get(chip, (done.fit.name,)) == (APART_ENGINE,)
    return ", vLLM" if own and "attention" in kind_of(done.fit.part, "") else ""


def left_out(results: Sequence[Fitted]) -> dict[str, dict[str, float]]:
    """Mean over fits and chips of median and 90th percentile with shapes, with the chip, and with its whole generation left out."""
    cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    counted = set()
    for r in results:
        for chip, residual in r.residuals.items():
            kind = kind_of(r.fit.part, chip) + _apart(r, chip)
            rows = (r.fit.part, r.ran.get(chip, (r.fit.name,)), chip)
            if rows in counted:  # a chip's own constants and those of the one implementation that it has rows of
                continue
            counted.add(rows)
            if kind and chip not in APART and residual.n >= ENOUGH:
                for name in ("by_shape", "by_shape_p90", "same", "same_p90", "other", "other_p90"):
                    value = getattr(residual, name)
                    if not np.isnan(value):
                        cells[kind][LEFT_OUT_NAMES.get(name, name)].append(value)
    return {kind: {name: float(np.mean(v)) for name, v in each.items()} for kind, each in cells.items()}


def few_rows(chosen: Members, plan: Plan, enough: int = ENOUGH, only: Sequence[str] = ()) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Median error of each fit's path and chip (or of some chips) against how many rows of each of the chip's fits were fitted.

    A chip counts where another of its group runs the same implementation. Every chip has offsets of its own here, as a new one would.
    """
    problem = problem_of(chosen, replace(plan, new=frozenset(plan.chips)))
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for chip in problem.chips:
        told = {}
        for (fit, _), place in zip(chosen, problem.place, strict=True):
            own = problem.cells[place[chip]] if chip in place else None
            mine = np.flatnonzero(problem.index == place.get(chip, -1))
            peers = [c for c in problem.cells if own and c.kernel == own.kernel and c.group == own.group]
            if len(peers) > 1 and len(mine) >= enough and (not only or chip in only):
                told[fit.path] = mine[np.argsort([problem.samples[int(i)].seconds for i in mine], kind="stable")]
        for count in FEW if told else ():
            weights = (~problem.of_chip(chip)).astype(float)
            shown = {
                path: rows[np.linspace(0, len(rows) - 1, count).round().astype(int)] if count else rows[:0]
                for path, rows in told.items()
                if 2 * count <= len(rows)
            }
            weights[[i for rows in shown.values() for i in rows]] = 1.0
            errors = problem.errors(solve(problem, weights, plan.procedure)) if shown else np.array([])
            for path, rows in shown.items():
                rest = np.setdiff1d(told[path], rows)
                found.setdefault((path, chip), []).append((count, float(np.median(errors[rest]))))
    return found


def _mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    return [(n, float(np.mean([c[i][1] for c in curves]))) for i, n in enumerate(FEW)]


def rows_of_a_new_chip(chosen: Sequence[Members], plan: Plan) -> dict[str, list[tuple[int, float]]]:
    """Error against rows by kind: the mean over fits and chips."""
    curves: dict[str, list[list[tuple[int, float]]]] = defaultdict(list)
    for members in chosen:
        kind = kind_of(members[0][0].part, "")
        if kind:
            curves[kind] += few_rows(members, plan).values()
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


def cross_validation(folder: Path, catalog: Catalog, plan: Plan, results: Sequence[Fitted], chosen: Sequence[Members]) -> dict[str, Any]:
    """Everything the validation page shows of unseen chips, models and engines.

    Args:
        folder: The measurements. results: Fits with shapes and chips left out. chosen: The fits of each kind with their rows.
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
