"""What do serving features cost where they are off? The dense aggregated path of two checkouts, interleaved; CPU time.

    python benchmarks/features_off.py BEFORE AFTER [ROUNDS]

Each checkout runs in a process of its own, kept alive and asked in turn, so that a busy machine is busy for both. Prints the
instructions of the compiled path and the median CPU time of one call (128 chips x 1,024 layouts, single precision).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

WORKER = """
import sys, time
import jax, numpy as np
import dse
from dse.evaluate import as_floats, money, performance, total_cost
from dse.types import Layout, Workload, named_format
cat = dse.load_catalog()
single = lambda tree: jax.tree.map(lambda x: np.asarray(x, np.float32), tree)
chip = single(as_floats(cat.chips["nvidia-h100-sxm"]))
chips = jax.tree.map(lambda x: x * np.linspace(0.9, 1.1, 128, dtype=np.float32)[:, None], chip)
model, prices = single(as_floats(cat.models["llama-3-70b"])), single(as_floats(cat.prices["owner-2026"]))
model = dse.equations.layout.trimmed(model) if hasattr(dse, "equations") else model
work = single(Workload(input_tokens=1024.0, output_tokens=1024.0))
grid = np.stack(np.meshgrid([1, 2, 4, 8], [1, 2, 4, 8], 2.0 ** (np.arange(64) / 5)), -1).reshape(-1, 3).T.astype(np.float32)[:, None, :]
layout = Layout(tp=grid[0], pp=grid[1], cp=None, dp=None, ep=None, batch=grid[2], format=single(named_format("fp8")))

@jax.jit
def path(chips, model, work, layout, prices):
    p = performance(chips, model, work, layout)
    return p.tpot_s, total_cost(money(chips, prices, p)) / p.output_token_per_s

compiled = path.lower(chips, model, work, layout, prices).compile()
print(sum(" = " in line for line in compiled.as_text().splitlines()), flush=True)
for line in sys.stdin:
    start = time.process_time()
    for _ in range(3):
        jax.block_until_ready(compiled(chips, model, work, layout, prices))
    print((time.process_time() - start) / 3, flush=True)
"""


def main() -> None:
    """Ask both in turn and compare."""
    checkouts, rounds = [Path(p).resolve() for p in sys.argv[1:3]], int(sys.argv[3]) if len(sys.argv) > 3 else 15
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            cwd=p,
            env={**os.environ, "PYTHONPATH": str(p)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for p in checkouts
    ]
    counts = [int(w.stdout.readline()) for w in started]
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for i, w in enumerate(started):
            w.stdin.write("go\n")
            w.stdin.flush()
            times[i].append(float(w.stdout.readline()))
    for w in started:
        w.stdin.close()
        w.wait()
    before, after = (statistics.median(t) for t in times)
    print(f"before {before * 1e3:.2f} ms, {counts[0]} instructions; after {after * 1e3:.2f} ms, {counts[1]}; ratio {after / before:.3f}")


if __name__ == "__main__":
    main()
