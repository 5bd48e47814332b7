"""How many configurations a second does another analytical model of LLM inference evaluate, side by side with this one?

    taskset -c 1 python benchmarks/peers.py > benchmarks/results/peers.md

The peer is ``llm-analysis`` (the fastest of its kind that installs with pip): prefill, decoding, memory and cost of one GPU, layout
and batch a call, without area, power or chips that do not exist. Install it anywhere (``pip install --target DIR llm-analysis``) and put it
on PYTHONPATH; without it that is said and nothing is compared. CPU seconds of one core.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec

from dse import bench
from dse.catalog import load_catalog

SECONDS = 2.0
MODEL = "llama-3-70b"
BATCHES, DEGREES = (1, 8, 64), (1, 2, 4, 8)
EACH = 50  # calls between two looks at the clock


def peer() -> Callable[[], float]:
    """Calls of the peer on an H100 and the same model, inputs and outputs of the workload ``chat``."""
    from llm_analysis.analysis import LLMAnalysis
    from llm_analysis.config import DtypeConfig, GPUConfig, ModelConfig, ParallelismConfig

    logging.disable(logging.CRITICAL)  # it writes a page for each configuration
    catalog = load_catalog()
    model, work = catalog.models[MODEL], catalog.workloads["chat"]
    attention, ffn = model.groups[0].attention, model.groups[0].ffn
    config = ModelConfig(
        name=MODEL,
        num_layers=int(model.groups[0].mixers),
        n_head=int(attention.heads),
        hidden_dim=int(model.d_model),
        vocab_size=int(model.vocab),
        num_key_value_heads=int(attention.kv_heads),
        num_key_value_groups=int(attention.heads / attention.kv_heads),
        ffn_embed_dim=int(ffn.width),
        expansion_ratio=float(ffn.width / model.d_model),
        model_type="llama",
    )
    h100 = GPUConfig("h100", 80, 3350, 450, 8e-6, 989)
    turns = itertools.cycle(itertools.product(BATCHES, DEGREES))

    def once() -> float:
        for _ in range(EACH):
            batch, tp = next(turns)
            plan = ParallelismConfig(tp_size=tp, pp_size=1, dp_size=1)
            model_of = LLMAnalysis(config, h100, DtypeConfig("w8a8", 8, 8, 8), plan, flops_efficiency=0.6, hbm_memory_efficiency=0.8)
            model_of.inference(batch, int(work.input_tokens), int(work.output_tokens), cost_per_gpu_hour=2.0)
        return EACH

    return once


def main() -> None:
    if not find_spec("llm_analysis"):
        print("llm-analysis is not installed: nothing to compare with (pip install --target DIR llm-analysis, and DIR on PYTHONPATH).")
        return
    s = bench.setting(load_catalog(), MODEL)
    print(f"{MODEL}, chat; CPU seconds of one core.\n\n| what | evaluations a second | times the peer |\n|---|--:|--:|")
    base = bench.rate(peer(), SECONDS, time.process_time)
    print(f"| llm-analysis {version('llm-analysis')}, a call each | {base:,.0f} | 1 |")
    ours = {"chips x layouts, best of ten limits with layout": bench.screening(s), "one by one": bench.flat(s)}
    for name, count in {**ours, "the same text in NumPy": bench.plain_numpy(s)}.items():
        found = bench.rate(count, SECONDS, time.process_time)
        print(f"| dse, {name} | {found:,.0f} | {found / base:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
