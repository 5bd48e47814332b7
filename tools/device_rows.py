"""Measures kernels and whole decoding steps on this machine's NVIDIA card, written as rows that ``dse validate`` compares.

    python tools/device_rows.py FOLDER [--chip H100-SXM5-80GB]
    dse validate FOLDER

Needs PyTorch with CUDA, which the project itself does not. The rows are a check of predictions by somebody else than the authors of the
calibration rows; they never enter a fit. Kernels are those of PyTorch (cuBLAS, FlashAttention, cuDNN), replayed from a CUDA graph over
rotating buffers larger than the second-level cache, so that weights and caches come from memory as they do in a model.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

ROTATE_BYTE = 256e6  # of buffers used in turn: five times the second-level cache of an H100
MOST_SETS, CALLS, REPLAYS = 32, 8, 7
LARGEST_BYTE = 12e9  # of the buffers of one measurement
BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn
ONE = torch.ones((), device="cuda")
SOFTWARE = f"PyTorch {torch.__version__} (CUDA {torch.version.cuda}), CUDA graph"

WEIGHTS = (
    (6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (10240, 8192), (8192, 8192), (57344, 8192), (8192, 28672),
    (2560, 8192), (7168, 8192), (7168, 2048), (2112, 7168), (18432, 7168),
)  # fmt: skip
TOKENS = (1, 8, 32, 64, 128, 512, 2048, 8192)
HEADS = ((32, 8, 128), (64, 8, 128), (8, 1, 128), (40, 40, 128))


def seconds(calls: list[Callable[[], Any]], least: int = CALLS) -> float:
    """Time of one call: a graph of at least so many calls in turn, the median of some replays."""
    per_graph = max(least, len(calls))
    torch.cuda.synchronize()  # the buffers are written before another stream reads them
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for call in calls[:2]:
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(per_graph):
            calls[i % len(calls)]()
    for _ in range(2):
        graph.replay()
    times = []
    for _ in range(REPLAYS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / per_graph)
    return median(times)


def sets(byte: float) -> int:
    """How many sets of buffers are used in turn."""
    return int(min(max(math.ceil(ROTATE_BYTE / byte), 1), MOST_SETS))


def rand(*shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=BF16).to(dtype)


def linear_fp8(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """``x w^T`` of quantised matrices with one scale each."""
    return torch._scaled_mm(x, w.t(), scale_a=ONE, scale_b=ONE, out_dtype=BF16, use_fast_accum=True)


def gemms() -> Iterator[dict[str, Any]]:
    """``y[M, N] = x[M, K] w[K, N]`` in bf16, and in fp8 on inputs that are quantised already."""
    for n, k in WEIGHTS:
        for m in TOKENS:
            for fmt, dtype, each in (("bfloat16", BF16, 2), ("fp8", FP8, 1)):
                rows = max(m, 16) if fmt == "fp8" else m
                count = sets(each * n * k)
                xs = [rand(rows, k, dtype=dtype) for _ in range(count)]
                ws = [rand(n, k, dtype=dtype) for _ in range(count)]

                product = linear_fp8 if fmt == "fp8" else F.linear
                time = seconds([partial(product, x, w) for x, w in zip(xs, ws, strict=True)])
                act = "bf16" if fmt == "bfloat16" else "fp8"
                yield {"op": "gemm", "m": m, "n": n, "k": k, "precision_weights": fmt, "precision_act": act, "value": time * 1e6}


def best(choices: dict[str, list[Callable[[], Any]]], least: int = CALLS) -> tuple[float, str]:
    """The fastest of the kernels that run, and its name."""
    found = {}
    for name, calls in choices.items():
        try:
            found[name] = seconds(calls, least)
        except RuntimeError:  # this kernel does not take the shape
            torch.cuda.synchronize()
    name = min(found, key=found.__getitem__)
    return found[name], name


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, backend: SDPBackend, causal: bool = False) -> torch.Tensor:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


def attends(q: torch.Tensor, caches: Iterable[Sequence[torch.Tensor]], backend: SDPBackend, causal: bool) -> list[Callable[[], Any]]:
    """One call for each cache."""
    return [partial(attention, q, k, v, backend, causal) for k, v in caches]


BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def decoding() -> Iterator[dict[str, Any]]:
    """One new token of each sequence; query heads of a group stand as rows of one product, as serving kernels do."""
    for heads, kv_heads, dim in HEADS:
        for batch in (1, 8, 32, 128):
            for context in (512, 2048, 8192, 32768):
                byte = 4 * batch * context * kv_heads * dim
                count = sets(byte)
                if byte * count > LARGEST_BYTE:
                    continue
                caches = [[rand(batch, kv_heads, context, dim) for _ in range(2)] for _ in range(count)]
                grouped, plain = rand(batch, kv_heads, heads // kv_heads, dim), rand(batch, heads, 1, dim)
                choices = {}
                for name, backend in BACKENDS.items():
                    for form, q in (("grouped", grouped), ("plain", plain)):
                        choices[f"{name} {form}"] = attends(q, caches, backend, causal=False)
                time, name = best(choices)
                yield {
                    "op": "attention_decode", "phase": "decode", "batch": batch, "seq_q": 1, "context_len": context, "num_heads": heads,
                    "num_kv_heads": kv_heads, "head_dim": dim, "precision_act": "bfloat16", "precision_kv": "bfloat16",
                    "value": time * 1e6, "note": f"fastest of PyTorch's kernels: {name}",
                }  # fmt: skip


def prompts() -> Iterator[dict[str, Any]]:
    """Causal attention over whole prompts."""
    for heads, kv_heads, dim in HEADS:
        for batch in (1, 4):
            for prompt in (512, 1024, 2048, 4096, 8192, 16384):
                q = rand(batch, heads, prompt, dim)
                k, v = (rand(batch, kv_heads, prompt, dim) for _ in range(2))
                time, name = best({n: attends(q, [(k, v)], b, causal=True) for n, b in BACKENDS.items()})
                yield {
                    "op": "attention_prefill_causal", "phase": "prefill", "batch": batch, "seq_q": prompt, "context_len": prompt,
                    "num_heads": heads, "num_kv_heads": kv_heads, "head_dim": dim, "precision_act": "bfloat16",
                    "precision_kv": "bfloat16", "value": time * 1e6, "note": f"fastest of PyTorch's kernels: {name}",
                }  # fmt: skip


@torch.compile(dynamic=True)
def _normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, weight.shape, weight)


def traffic() -> Iterator[dict[str, Any]]:
    """Kernels that only move values: normalisation and addition of activations, and streams of arrays of 1 GiB."""
    for n in (4096, 8192):
        weight = rand(n)
        for m in (1, 32, 256, 2048, 8192, 32768):
            xs = [rand(m, n) for _ in range(sets(4 * m * n))]
            ys = [torch.empty_like(x) for x in xs]
            norm = [partial(_normed, x, weight) for x in xs]
            add = [partial(torch.add, x, z, out=y) for x, y, z in zip(xs, ys, [*xs[1:], rand(m, n)], strict=True)]
            yield {"op": "input_layernorm", "m": m, "n": n, "precision_act": "bf16", "value": seconds(norm) * 1e6}
            yield {"op": "add", "m": m, "n": n, "precision_act": "bf16", "value": seconds(add) * 1e6}
    a, b, c = (torch.rand(2**27, device="cuda", dtype=torch.float64) for _ in range(3))
    streams = {
        "stream_copy": (2, lambda: c.copy_(a)),
        "stream_mul": (2, lambda: torch.mul(c, 0.5, out=b)),
        "stream_add": (3, lambda: torch.add(a, b, out=c)),
        "stream_triad": (3, lambda: torch.add(b, c, alpha=0.5, out=a)),
    }
    for op, (arrays, call) in streams.items():
        rate = arrays * a.nbytes / seconds([call])
        yield {"op": op, "m": a.numel(), "metric": "bandwidth", "value": rate / 1e9, "unit": "GB/s"}


MODELS = {  # width, layers, heads, heads of the cache, width of the feed-forward, vocabulary
    "Llama-3.1-8B": (4096, 32, 32, 8, 14336, 128256),
    "Llama-2-13B": (5120, 40, 40, 40, 13824, 32000),
}


@torch.compile(dynamic=True)
def _norm(x: torch.Tensor, add: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x + add
    wide = x.float()
    return x, (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)).to(BF16) * weight


@torch.compile(dynamic=True)
def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


@torch.compile(dynamic=True)
def _gated(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.chunk(2, -1)
    return F.silu(gate) * up


class Dense:
    """A dense transformer with random weights: every layer, the vocabulary and the choice of the next token."""

    def __init__(self, d: int, layers: int, heads: int, kv_heads: int, wide: int, vocabulary: int) -> None:
        self.d, self.heads, self.kv_heads, self.dim = d, heads, kv_heads, d // heads
        shapes = (((heads + 2 * kv_heads) * self.dim, d), (d, d), (2 * wide, d), (d, wide))
        self.layers = [tuple(rand(n, k) / k**0.5 for n, k in shapes) for _ in range(layers)]
        self.table, self.weight = rand(vocabulary, d), torch.ones(d, device="cuda", dtype=BF16)
        self.cos, self.sin = rand(1, 1, 1, self.dim // 2), rand(1, 1, 1, self.dim // 2)

    def caches(self, batch: int, context: int) -> list[list[torch.Tensor]]:
        return [[rand(batch, self.kv_heads, context, self.dim) for _ in range(2)] for _ in self.layers]

    def step(self, tokens: torch.Tensor, caches: list[list[torch.Tensor]], backend: SDPBackend) -> None:
        """The next token of every sequence, put in place of the last; its keys and values go to the end of the cache."""
        batch, groups = len(tokens), self.heads // self.kv_heads
        x, add = self.table[tokens], torch.zeros(batch, self.d, device="cuda", dtype=BF16)
        for (wqkv, wo, wup, wdown), (keys, values) in zip(self.layers, caches, strict=True):
            x, y = _norm(x, add, self.weight)
            q, k, v = F.linear(y, wqkv).view(batch, -1, 1, self.dim).split((self.heads, self.kv_heads, self.kv_heads), 1)
            keys[:, :, -1:] = _rotated(k, self.cos, self.sin)
            values[:, :, -1:] = v
            q = _rotated(q, self.cos, self.sin).reshape(batch, self.kv_heads, groups, self.dim)
            add = F.linear(attention(q, keys, values, backend).reshape(batch, self.d), wo)
            x, y = _norm(x, add, self.weight)
            add = F.linear(_gated(F.linear(y, wup)), wdown)
        _, y = _norm(x, add, self.weight)
        tokens.copy_(F.linear(y, self.table).argmax(-1))

    def prompt(self, tokens: torch.Tensor, backend: SDPBackend) -> torch.Tensor:
        """The first new token of whole prompts ``tokens[batch, length]``; keys and values are written as a cache takes them."""
        batch, length = tokens.shape
        x, add = self.table[tokens], torch.zeros(batch, length, self.d, device="cuda", dtype=BF16)
        for wqkv, wo, wup, wdown in self.layers:
            x, y = _norm(x, add, self.weight)
            heads = F.linear(y, wqkv).view(batch, length, -1, self.dim).transpose(1, 2)
            q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), 1)
            q, k = _rotated(q, self.cos, self.sin), _rotated(k, self.cos, self.sin)
            out = attention(q, k, v.contiguous(), backend, causal=True)
            add = F.linear(out.transpose(1, 2).reshape(batch, length, self.d), wo)
            x, y = _norm(x, add, self.weight)
            add = F.linear(_gated(F.linear(y, wup)), wdown)
        _, y = _norm(x[:, -1], add[:, -1], self.weight)
        return F.linear(y, self.table).argmax(-1)


def steps() -> Iterator[dict[str, Any]]:
    """Whole decoding steps of dense models."""
    for name, sizes in MODELS.items():
        model = Dense(*sizes)
        for batch in (1, 4, 16, 64, 128):
            for context in (256, 1024, 4096):
                if 4 * batch * context * model.kv_heads * model.dim * len(model.layers) > 3 * LARGEST_BYTE:
                    continue
                tokens, caches = torch.zeros(batch, device="cuda", dtype=torch.long), model.caches(batch, context)
                time, kernel = best({n: [partial(model.step, tokens, caches, b)] for n, b in BACKENDS.items()})
                yield {
                    "model": name, "mode": "static batch decode", "precision_weights": "bf16", "precision_kv": "bf16", "tp": 1, "pp": 1,
                    "ep": 1, "spec_decoding": "none", "batch_or_concurrency": batch, "isl": context - 1, "osl": 1, "metric": "tpot",
                    "value": time * 1e3, "unit": "ms", "note": f"kernels only, without host or scheduler; attention: {kernel}",
                }  # fmt: skip
                del tokens, caches
        del model
        torch.cuda.empty_cache()


def whole_prompts() -> Iterator[dict[str, Any]]:
    """Prompts of dense models from their tokens to the first new one."""
    for name, sizes in MODELS.items():
        model = Dense(*sizes)
        for batch, length in ((1, 128), (1, 512), (1, 2048), (1, 8192), (4, 512), (4, 2048), (16, 512)):
            tokens = torch.zeros(batch, length, device="cuda", dtype=torch.long)
            time, kernel = best({n: [partial(model.prompt, tokens, b)] for n, b in BACKENDS.items()}, 1)
            yield {
                "model": name, "mode": "static batch prefill", "precision_weights": "bf16", "precision_kv": "bf16", "tp": 1, "pp": 1,
                "ep": 1, "spec_decoding": "none", "batch_or_concurrency": batch, "isl": length, "osl": 1, "metric": "ttft",
                "value": time * 1e3, "unit": "ms", "note": f"kernels only, without host or scheduler; attention: {kernel}",
            }  # fmt: skip
        del model
        torch.cuda.empty_cache()


EXPERTS = (("Mixtral-8x7B", 4096, 14336, 8, 2), ("Qwen3-30B-A3B", 2048, 768, 128, 8))


def mixed(x: torch.Tensor, chosen: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Routed experts as two grouped products: tokens are sorted by expert, multiplied, and summed again."""
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    ends = (flat == torch.arange(len(up), device="cuda")[:, None]).sum(1).cumsum(0).to(torch.int32)  # counted without a look at the values
    taken = order // chosen.shape[1]
    out = torch._grouped_mm(_gated(torch._grouped_mm(x[taken], up.transpose(1, 2), offs=ends)), down.transpose(1, 2), offs=ends)
    return torch.zeros_like(x).index_add_(0, taken, out)


def experts() -> Iterator[dict[str, Any]]:
    """Feed-forward of routed experts in bf16, uniform routing."""
    for name, h, wide, count, chosen in EXPERTS:
        up, down = rand(count, 2 * wide, h), rand(count, h, wide)
        for tokens in TOKENS:
            x = rand(tokens, h)
            routes = [torch.rand(tokens, count, device="cuda").topk(chosen).indices for _ in range(4)]
            time = seconds([partial(mixed, x, route, up, down) for route in routes])
            yield {
                "op": "moe_ffn_fused", "tokens": tokens, "hidden_size": h, "inter_size": wide, "topk": chosen, "num_experts": count,
                "moe_tp": 1, "moe_ep": 1, "routing": "uniform", "precision_weights": "bfloat16", "value": time * 1e6, "model": name,
                "note": "two grouped products with sorting before and summing after",
            }  # fmt: skip


TABLES: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "ops_gemm": gemms, "ops_attention_decode": decoding, "ops_attention_prefill": prompts, "ops_traffic": traffic,
    "system_steps": steps, "system_prompts": whole_prompts, "ops_moe": experts,
}  # fmt: skip


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A table of rows with all their columns, put in place in one move."""
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chip", default="H100-SXM5-80GB", help="name of this card in the catalogue")
    parser.add_argument("--tables", nargs="+", choices=sorted(TABLES), default=list(TABLES), help="what to measure")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for table in given.tables:
        measure = TABLES[table]
        level = {"level": "system" if table.startswith("system") else "op", "chip": given.chip, "n_chips": 1, "software": SOFTWARE}
        rows: list[dict[str, Any]] = []
        for i, row in enumerate(measure()):
            rows.append({"id": f"{table}-{i:03}", **level, "metric": "latency", "unit": "us", **row, "value": f"{row['value']:.5g}"})
            write(given.folder / f"{table}.csv", rows)  # whole each time: what was measured stays if the card's time ends
        print(f"{table}: {len(rows)} rows", flush=True)


if __name__ == "__main__":
    main()
