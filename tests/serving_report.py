"""Writes ``reports/serving``: percentiles of the model beside those of the simulation, configuration by configuration.

    python -m tests.serving_report [REQUESTS]

The tuned draw was looked at while the formulas were made; the fresh one was not.
"""

from __future__ import annotations

import csv
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import jax
import numpy as np

import dse
from tests.serving_cases import FRESH, GOALS, KEYS, TUNED, draw, predicted, simulated

OUT = Path(__file__).resolve().parent.parent / "reports" / "serving"
REQUESTS = 60_000
TWO_SIDED = 1.96  # standard errors of a 95 % interval


def compare(seed: int, requests: int, count: int = 40) -> list[dict[str, object]]:
    """One row a configuration: what was asked, errors of the model, and the noise of the simulation."""
    rows: list[dict[str, object]] = []
    for case in draw(seed, dse.load_catalog(), count):
        seen, noise, rate = simulated(case, requests)
        said = predicted(case, rate)
        w = case.deployment.workload
        row: dict[str, object] = {"draw": seed, "case": case.name, "input_tokens": w.input_tokens, "output_tokens": w.output_tokens}
        row |= {"input_cv": round(case.input_cv, 3), "output_cv": round(case.output_cv, 3), "load": round(case.load, 3)}
        row["rate_per_s"] = round(rate, 4)
        for key in KEYS:
            row |= {f"{key}_simulated_s": f"{seen[key]:.5g}", f"{key}_error": round(said[key] / seen[key] - 1.0, 4)}
            row[f"{key}_noise"] = round(noise[key], 4)
        rows.append(row)
        print(case.name, *(f"{key} {row[f'{key}_error']:+.3f}" for key in GOALS), file=sys.stderr, flush=True)
    return rows


def summary(rows: list[dict[str, object]]) -> list[str]:
    """Share of configurations within the goal, median and worst error of each figure."""
    lines = [
        "| draw | figure | goal | within | within, the simulation's own 95 % interval added | median error | worst | its configuration "
        "| median noise of the simulation |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for seed in dict.fromkeys(row["draw"] for row in rows):
        mine = [row for row in rows if row["draw"] == seed]
        for key, goal in GOALS.items():
            errors = np.abs([float(str(row[f"{key}_error"])) for row in mine])
            noises = np.array([float(str(row[f"{key}_noise"])) for row in mine])
            noise = np.median(noises)
            allowed = goal + TWO_SIDED * noises
            worst = int(errors.argmax())
            name = {TUNED: "tuned", FRESH: "fresh"}.get(int(str(seed)), str(seed))
            lines.append(
                f"| {name} | {key} | {goal:.0%} | {int((errors <= goal).sum())} of {len(mine)} "
                f"| {int((errors <= allowed).sum())} of {len(mine)} | {np.median(errors):.1%} "
                f"| {errors[worst]:.0%} | {mine[worst]['case']}, {mine[worst]['input_tokens']:g}/{mine[worst]['output_tokens']:g}, "
                f"load {mine[worst]['load']} | {noise:.1%} |"
            )
    return lines


def main() -> None:
    """Run both draws and write the table and its summary."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    rows = [row for seed in (TUNED, FRESH) for row in compare(seed, requests)]
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "percentiles.csv").open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    head = [
        "# Percentiles under random arrivals: the model beside a simulation",
        "",
        f"`python -m tests.serving_report {requests}`, {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, "
        f"JAX {jax.__version__}, NumPy {np.__version__}.",
        f"{requests} requests a configuration; draws {TUNED} (looked at while the formulas were made) and {FRESH} "
        "(first run when they were finished).",
        "Time to first token is compared without the fixed time of the host, which would flatter it.",
        "Noise: standard error of the simulated figure from ten blocks of time, relative; where it is above a quarter of a goal, "
        "four times as many requests were simulated.",
        "Load is over the most that the rank can serve: slots kept full, or prompts entering one chunk a step.",
        "",
    ]
    (OUT / "percentiles.md").write_text("\n".join([*head, *summary(rows), ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
