"""Writes ``reports/serving``: percentiles of the model beside those of the simulation, configuration by configuration.

    python -m tests.serving_report [--requests N] [--processes N]

The tuned draw was looked at while the formulas were made; the fresh one was not. A draw goes on until 40 configurations lie where the
model calls its answer validated; the others are shown apart.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import jax
import numpy as np

import dse
from tests.serving_cases import COUNT, FRESH, GOALS, KEYS, TUNED, draw, job_of, outside, predicted, simulated

OUT = Path(__file__).resolve().parent.parent / "reports" / "serving"
REQUESTS = 60_000
TWO_SIDED = 1.96  # standard errors of a 95 % interval
NAMES = {TUNED: "tuned", FRESH: "fresh"}
Row = dict[str, object]


def compare(seed: int, requests: int, processes: int, count: int = COUNT) -> list[Row]:
    """One row a configuration: what was asked, errors of the model, and the noise of the simulation."""
    cases = draw(seed, dse.load_catalog(), count)
    jobs = [job_of(case) for case in cases]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(partial(simulated, requests=requests), jobs))
    rows: list[Row] = []
    for case, job, (seen, noise) in zip(cases, jobs, found, strict=True):
        said, beyond = predicted(case), outside(case)
        row: Row = {"draw": seed, "case": job.name, "input_tokens": job.input_tokens, "output_tokens": job.output_tokens}
        row |= {"input_cv": round(job.input_cv, 3), "output_cv": round(job.output_cv, 3), "load": round(job.load, 3)}
        row |= {"rate_per_s": round(job.rate_per_s * job.ranks, 4), "validated": not beyond, "outside": "; ".join(beyond)}
        for key in KEYS:
            row |= {f"{key}_simulated_s": f"{seen[key]:.5g}", f"{key}_error": round(said[key] / seen[key] - 1.0, 4)}
            row[f"{key}_noise"] = round(noise[key], 4)
        rows.append(row)
        print(job.name, *(f"{key} {row[f'{key}_error']:+.3f}" for key in GOALS), *beyond[:1], file=sys.stderr, flush=True)
    return rows


def number(row: Row, name: str) -> float:
    return float(str(row[name]))


def summary(rows: list[Row]) -> list[str]:
    """Share of configurations within the goal, median and worst error of each figure."""
    lines = [
        "| draw | figure | goal | within | within, the simulation's own 95 % interval added | median error | worst | its configuration "
        "| median noise of the simulation |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for seed in dict.fromkeys(row["draw"] for row in rows):
        mine = [row for row in rows if row["draw"] == seed]
        for key, goal in GOALS.items():
            errors, noises = (np.abs([number(row, f"{key}_{what}") for row in mine]) for what in ("error", "noise"))
            worst = int(errors.argmax())
            lines.append(
                f"| {NAMES.get(int(str(seed)), seed)} | {key} | {goal:.0%} | {int((errors <= goal).sum())} of {len(mine)} "
                f"| {int((errors <= goal + TWO_SIDED * noises).sum())} of {len(mine)} | {np.median(errors):.1%} "
                f"| {errors[worst]:.0%} | {mine[worst]['case']}, {mine[worst]['input_tokens']:g}/{mine[worst]['output_tokens']:g}, "
                f"load {mine[worst]['load']} | {np.median(noises):.1%} |"
            )
    return lines


def misses(rows: list[Row]) -> list[str]:
    """Every figure beyond its goal: by how much, and whether the simulation's own noise could be why."""
    lines = [
        "| draw | configuration | validated | figure | error | noise of the simulation | beyond goal and noise |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for key, goal in GOALS.items():
            error, noise = number(row, f"{key}_error"), number(row, f"{key}_noise")
            if abs(error) > goal:
                lines.append(
                    f"| {NAMES.get(int(str(row['draw'])), row['draw'])} | {row['case']}, {row['input_tokens']:g}/{row['output_tokens']:g}, "
                    f"load {row['load']} | {'yes' if row['validated'] else str(row['outside']).split(':')[0]} | {key} | {error:+.0%} "
                    f"| {noise:.1%} | {'yes' if abs(error) > goal + TWO_SIDED * noise else 'no'} |"
                )
    return lines


def page(rows: list[Row], requests: int, seconds: float, processes: int) -> str:
    """The report as Markdown."""
    inside, beyond = ([row for row in rows if row["validated"] is ok] for ok in (True, False))
    whole = {NAMES[seed]: sum(row["draw"] == seed for row in rows) for seed in (TUNED, FRESH)}
    return "\n".join(
        [
            "# Percentiles under random arrivals: the model beside a simulation",
            "",
            f"`python -m tests.serving_report --requests {requests}`, {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, "
            f"JAX {jax.__version__}, NumPy {np.__version__}; {seconds:.0f} s with {processes} processes.",
            f"{requests} requests a configuration; draws {TUNED} (looked at while the formulas were made, with five others) and {FRESH} "
            "(first run when they were finished).",
            "Time to first token is compared without the fixed time of the host, which would flatter it.",
            "Noise: standard error of the simulated figure from ten blocks of time, relative; where it is above a quarter of a goal, "
            "four times as many requests were simulated.",
            "Load is over the most that the rank can serve: slots kept full, or prompts entering one chunk a step.",
            "",
            f"## Where the model calls its answer validated (`hw_catalog/workloads/_validated.toml`): {COUNT} of {whole['tuned']} "
            f"configurations drawn, and {COUNT} of {whole['fresh']}",
            "",
            *summary(inside),
            "",
            "## Where it says that its answer is not validated, and why",
            "",
            *summary(beyond),
            "",
            "## Every figure beyond its goal",
            "",
            *misses(rows),
            "",
        ]
    )


def main() -> None:
    """Run both draws and write the table and its summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    start = time.perf_counter()
    rows = [row for seed in (TUNED, FRESH) for row in compare(seed, options.requests, options.processes)]
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "percentiles.csv").open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = page(rows, options.requests, time.perf_counter() - start, options.processes)
    (OUT / "percentiles.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
