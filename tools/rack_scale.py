"""Does a scale-up domain of 72 pay? Throughput of GB200 NVL72 over an 8-GPU B200 box at equal limits on the time per token.

    python tools/rack_scale.py

Writes ``reports/serving/rack_scale.csv`` and ``.png``. Each side takes its best layout of whole instances within its domain, serving
aggregated or disaggregated; Llama-3.1-405B in nvfp4.
"""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import dse

OUT = Path(__file__).resolve().parent.parent / "reports" / "serving"
BOX, RACK = ("nvidia-b200-sxm", 8), ("nvidia-gb200-nvl72", 72)
WORKLOADS = ("document-qa", "chat")
LIMITS_MS = (200, 150, 120, 100, 80, 70, 60, 50, 45, 40, 35, 30, 27, 25, 22, 20, 18)
BATCH = np.array([2.0 ** (k / 2) for k in range(24)])
FORMAT = "nvfp4"


def points(cat: Any, chip: str, most: int, isl: float, osl: float) -> list[tuple[float, float]]:
    """(time per token, output tokens a second and chip) of everything that fits into one domain."""
    found: list[tuple[float, float]] = []
    for tp in (t for t in (2, 4, 8, 16, 32, 64) if t <= most):
        d = dse.Deployment(
            chip=cat.chips[chip],
            model=cat.models["llama-3.1-405b"],
            workload=dse.Workload(input_tokens=isl, output_tokens=osl),
            layout=dse.Layout(tp=float(tp), batch=BATCH, format=FORMAT),
            prices=cat.prices["owner-2026"],
        )
        m = dse.evaluate(d)
        found += [(t, x) for t, x, ok in zip(np.asarray(m.tpot_s), np.asarray(m.output_token_per_s_per_chip), _fits(m), strict=True) if ok]
        for first in (2, 4, 8):
            plan = dse.Layout(tp=float(first), format=FORMAT)
            m = dse.evaluate(replace(d, serving="disaggregated", prefill_layout=plan, prefill_chip=cat.chips[chip]))
            rate = np.asarray(m.output_token_per_s_per_chip) * np.asarray(m.chips)
            for i in np.flatnonzero(_fits(m)):
                best = 0.0
                for n in range(1, most // tp + 1):
                    chips = n * tp + math.ceil(n * float(m.prefill_chips[i]) / first - 1e-9) * first
                    if chips <= most:
                        best = max(best, float(rate[i]) * n / chips)
                if best:
                    found.append((float(m.tpot_s[i]), best))
    return found


def _fits(m: Any) -> np.ndarray:
    return np.broadcast_to(np.asarray(m.feasible), BATCH.shape)


def best(found: list[tuple[float, float]], limit_s: float) -> float:
    """Most output tokens a second and chip within a limit; 0 where nothing meets it."""
    return max((x for t, x in found if t <= limit_s), default=0.0)


def main() -> None:
    """Compute, write the table, draw."""
    cat = dse.load_catalog()
    rows = []
    for identity in WORKLOADS:
        w = cat.workloads[identity]
        isl, osl = float(w.input_tokens), float(w.output_tokens)
        name = f"{identity}: {isl:,.0f} in, {osl:,.0f} out"
        box, rack = points(cat, *BOX, isl, osl), points(cat, *RACK, isl, osl)
        for limit in (None, *LIMITS_MS):
            a, b = (best(side, math.inf if limit is None else limit / 1e3) for side in (box, rack))
            rows.append(
                {
                    "workload": name,
                    "tpot_limit_ms": limit or "none",
                    "box": f"{a:.4g}",
                    "rack": f"{b:.4g}",
                    "ratio": f"{b / a:.3f}" if a else "",
                }
            )
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "rack_scale.csv").open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, colour, mark in zip(dict.fromkeys(r["workload"] for r in rows), ("#0072B2", "#D55E00"), "os", strict=True):
        mine = [
            (float(r["tpot_limit_ms"]), float(r["ratio"]))
            for r in rows
            if r["workload"] == name and r["tpot_limit_ms"] != "none" and r["ratio"]
        ]
        offline = next(float(r["ratio"]) for r in rows if r["workload"] == name and r["tpot_limit_ms"] == "none")
        axis.plot(*zip(*mine, strict=True), color=colour, marker=mark, label=f"{name} (no limit: {offline:.2f})")
    axis.axhline(1.0, color="grey", linewidth=0.8)
    axis.set(xscale="log", ylim=(0.9, 4.0), xlabel="Limit on the time per output token [ms]", ylabel="GB200 NVL72 over an 8-GPU B200 box")
    axis.set_xticks([20, 30, 40, 60, 80, 100, 150, 200], labels=["20", "30", "40", "60", "80", "100", "150", "200"])
    axis.minorticks_off()
    axis.invert_xaxis()
    axis.set_title(
        "A domain of 72 pays where users are promised speed\n(Llama-3.1-405B, nvfp4, output tokens per second and chip)", fontsize=10
    )
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(OUT / "rack_scale.png", dpi=150)


if __name__ == "__main__":
    main()
