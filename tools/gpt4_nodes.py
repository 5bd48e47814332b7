"""128 A100 40GB as TP 8 x PP 16 beside eight MI300X with weights of 4 bits, a GPT-4-size model. Writes ``reports/serving/gpt4_nodes.md``.

python tools/gpt4_nodes.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import dse

OUT = Path(__file__).resolve().parent.parent / "reports" / "serving" / "gpt4_nodes.md"
MODEL = "gpt-4-like-1.8t"
BATCH = np.array([2.0 ** (k / 2) for k in range(27)])
CLUSTERS = (
    ("128 A100 40GB, TP 8 x PP 16", "nvidia-a100-40gb-sxm", {"tp": 8.0, "pp": 16.0}, ("bf16", "int8")),
    ("8 MI300X, TP 8", "amd-mi300x", {"tp": 8.0}, ("mxfp4", "int4")),
    ("8 MI300X, experts over 8 attention ranks", "amd-mi300x", {"dp": 8.0, "ep": 8.0}, ("mxfp4", "int4")),
)


def main() -> None:
    """Evaluate every batch that fits, and keep the cheapest of each cluster, format and workload."""
    cat = dse.load_catalog()
    lines = [
        "# A GPT-4-size model: sixteen nodes of A100 or one of MI300X",
        "",
        "`python tools/gpt4_nodes.py`. The model is a leak (kind = claim). Owner's view owner-2026; the cheapest batch that fits.",
        "",
        "| cluster | weights | workload | most requests at once | batch | ms a token | token/s a chip | USD/Mtoken | weights GB a chip |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, chip, degrees, formats in CLUSTERS:
        for form in formats:
            for workload in ("chat", "document-qa"):
                m = dse.evaluate(
                    dse.Deployment(
                        chip=cat.chips[chip],
                        model=cat.models[MODEL],
                        workload=cat.workloads[workload],
                        layout=dse.Layout(batch=np.maximum(BATCH, degrees.get("dp", 1.0)), format=form, **degrees),
                        prices=cat.prices["owner-2026"],
                    )
                )
                fits = np.broadcast_to(np.asarray(m.feasible), BATCH.shape)
                weights = float(np.max(np.asarray(m.memory_byte_per_chip.weights))) / 1e9
                if not fits.any():
                    lines.append(f"| {name} | {form} | {workload} | does not fit | | | | | {weights:.1f} |")
                    continue
                cost = np.where(fits, np.asarray(m.usd_per_million_output_token), np.inf)
                i = int(cost.argmin())
                rate, step = (float(np.asarray(x)[i]) for x in (m.output_token_per_s_per_chip, m.tpot_s))
                lines.append(
                    f"| {name} | {form} | {workload} | {BATCH[fits].max():.0f} | {BATCH[i]:.0f} | {step * 1e3:.0f} "
                    f"| {rate:.1f} | {cost[i]:.1f} | {weights:.1f} |"
                )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
