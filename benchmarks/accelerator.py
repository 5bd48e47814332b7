"""Evaluations a second of the same model text on an accelerator: blocks of chips x layouts, and flat batches of growing size.

    python benchmarks/accelerator.py > benchmarks/results/accelerator.md

Runs on whatever device JAX finds first; wall time, compilation apart.
"""

from __future__ import annotations

import platform

import jax
import numpy as np

from dse import bench
from dse.catalog import load_catalog
from dse.search.kernel import compiled, priced

SECONDS = 1.0
SIZES = (2**14, 2**17, 2**20, 2**22)


def flat(s: bench.Setting, size: int):
    """A batch of independent configurations that stays on the device; what leaves it is one least cost."""
    rng = np.random.default_rng(1)
    chips, *rest = bench.arguments(s, rng.integers(len(s.table), size=size), axis=None)
    who = rng.integers(bench.CHIPS, size=size)
    each = jax.tree.map(lambda x: x[who, 0] if np.size(x) > 1 else x, chips)
    inputs = jax.device_put((each, *rest))

    def least(*xs):
        tpot, (cost, *_) = priced(*xs)
        return cost.min(), tpot.min()

    run = compiled(least)

    def once() -> float:
        jax.block_until_ready(run(*inputs))
        return size

    return once


def line(model: str, form: str, size: str, count) -> None:
    print(f"| {model} | {form} | {size} | {bench.rate(count, SECONDS) / 1e6:.1f} |", flush=True)


def main() -> None:
    catalog = load_catalog()
    device = jax.devices()[0]
    print(f"Device: {device.device_kind} ({device.platform}), host {platform.machine()}, jax {jax.__version__}. Wall time; ", end="")
    print("million evaluations a second (prefill + decode + money of one chip, layout and case), single precision.\n")
    print("| model | form | size | million a second |\n|---|---|--:|--:|")
    for model in bench.MODELS:
        for chips in (64, 512):
            s = bench.setting(catalog, model, chips=chips)
            line(model, "chips x layouts, best of ten limits", f"{chips} chips a block", bench.screening(s))
        s = bench.setting(catalog, model)
        for size in SIZES:
            line(model, "one by one, least cost", f"{size} a batch", flat(s, size))


if __name__ == "__main__":
    main()
