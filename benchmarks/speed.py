"""Evaluations a second in CPU time of one core, and how the time grows with chips, layouts, layer groups and design variables.

    taskset -c 1 python benchmarks/speed.py > benchmarks/results/speed.md

``dse bench`` gives the same rates in wall time on all cores; here the clock is the CPU time of the process, which other load disturbs less.
"""

from __future__ import annotations

import platform
import time
from dataclasses import replace

import jax
import numpy as np

from dse import bench
from dse.catalog import load_catalog
from dse.chips import FAMILIES

SECONDS = 2.0


def cpu(count) -> float:
    return bench.rate(count, SECONDS, time.process_time)


def main() -> None:
    catalog = load_catalog()
    print(
        f"Machine: {platform.processor() or platform.machine()}, one core pinned; jax {jax.__version__}, numpy {np.__version__}, ", end=""
    )
    print(f"Python {platform.python_version()}. CPU seconds; million evaluations a second.\n")
    flop, root = bench.peaks(SECONDS, time.process_time)
    print(f"Measured peaks: {flop / 1e9:.1f} GFLOP/s of multiply-adds, {root / 1e9:.2f} G square roots a second, single precision.\n")
    print("| model | FLOP + roots an evaluation | limit | chips x layouts | share | without layout | one by one | NumPy, same text |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for model in bench.MODELS:
        s = bench.setting(catalog, model)
        f, r = bench.operations(s)
        limit = 1 / (f / flop + r / root)
        found, quick = cpu(bench.screening(s)), cpu(bench.screening(s, with_layout=False))
        flat, plain = cpu(bench.flat(s)), cpu(bench.plain_numpy(s))
        cells = [f"{x / 1e6:.2f}" for x in (quick, flat, plain)]
        print(
            f"| {model} | {f:.0f} + {r:.0f} | {limit / 1e6:.1f} | {found / 1e6:.2f} | {found / limit:.0%} | {' | '.join(cells)} |",
            flush=True,
        )
    print("\n| grows with | value | million a second | microseconds a chip |\n|---|--:|--:|--:|")

    def line(what: str, value, s: bench.Setting, chips: int) -> None:
        once = bench.screening(s)
        total = once()
        found = cpu(once)
        print(f"| {what} | {value} | {found / 1e6:.2f} | {total / found / chips * 1e6:.0f} |", flush=True)

    base = bench.setting(catalog, "llama-3-70b")
    for n in (8, 16, 32, 64, 128, 256):
        line("chips of a block", n, bench.setting(catalog, "llama-3-70b", chips=n), n)
    for m in (250, 500, 1000, 2000):
        line("layouts", m, replace(base, table=base.table[:m]), bench.CHIPS)
    for model in ("llama-3-8b", "llama-3-70b", "gpt-oss-120b", "deepseek-r1"):
        s = bench.setting(catalog, model)
        line(f"layer groups ({model})", len(s.case.model.groups), s, bench.CHIPS)
    for family, kind in FAMILIES.items():
        line(f"design variables ({family})", len(kind.variables), bench.setting(catalog, "llama-3-70b", family), bench.CHIPS)
    print(f"\nWarm start of a whole `dse eval` process: {bench.warm_start():.2f} s (wall).")


if __name__ == "__main__":
    main()
