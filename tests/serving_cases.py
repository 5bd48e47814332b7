"""Configurations at random for the comparison of the queueing formulas with a simulation, and the simulated engine of each.

Seed ``TUNED`` was looked at while the formulas were made (beside engines of made-up constants); ``FRESH`` is for the one report. Chips
of three kinds beside GPUs are drawn too. Where a simulated figure is noisy, the simulation goes on four times as long.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from dse.equations import layout as cut
from dse.evaluate import as_floats, decode_step, evaluate, machine, prefill_step
from dse.types import Arrivals, Deployment, Layout, Workload
from tests.des import Engine, lognormal, simulate

TUNED, FRESH, COUNT = 20261127, 20261201, 40
SYSTEMS = (
    ("nvidia-h100-sxm", "llama-3-8b", {"tp": 1.0}),
    ("nvidia-h100-sxm", "llama-3-70b", {"tp": 8.0}),
    ("nvidia-h100-sxm", "llama-3-70b", {"tp": 4.0, "format": "fp8"}),
    ("nvidia-h100-sxm", "mixtral-8x7b", {"tp": 4.0}),
    ("nvidia-h100-sxm", "gpt-oss-120b", {"tp": 4.0}),
    ("nvidia-b200-sxm", "llama-3-70b", {"tp": 2.0, "format": "fp8"}),
    ("nvidia-b200-sxm", "deepseek-r1", {"tp": 8.0}),
    ("nvidia-b200-sxm", "deepseek-r1", {"dp": 8.0, "ep": 8.0}),
    ("amd-mi355x", "llama-3-70b", {"tp": 2.0}),
    ("amd-mi355x", "gpt-oss-120b", {"tp": 1.0}),
    ("nvidia-a100-80gb-sxm", "llama-2-13b", {"tp": 1.0}),
    ("google-tpu-v6e", "llama-3-70b", {"tp": 8.0}),
    ("cerebras-wse-3", "llama-3-8b", {}),
    ("etched-sohu", "llama-3-70b", {"tp": 8.0}),
)
SLOTS = (8, 16, 32, 64, 128, 256)
INPUT, OUTPUT, CV, LOAD = (128.0, 8192.0), (64.0, 2048.0), (0.3, 1.2), (0.02, 0.85)
NODES = 24
RARE = 1e-3  # arrivals a second at which nothing waits


@dataclass(frozen=True)
class Case:
    """One configuration: a deployment, the spread of its lengths, and how busy it is."""

    name: str
    deployment: Deployment
    input_cv: float
    output_cv: float
    load: float


def draw(seed: int, catalog: Any, count: int = COUNT) -> list[Case]:
    """Feasible configurations at random."""
    rng = np.random.default_rng(seed)
    cases: list[Case] = []
    while len(cases) < count:
        chip, model, degrees = SYSTEMS[rng.integers(len(SYSTEMS))]
        isl, osl = (float(np.rint(np.exp(rng.uniform(*np.log(bounds))))) for bounds in (INPUT, OUTPUT))
        slots = float(SLOTS[rng.integers(len(SLOTS))]) * degrees.get("dp", 1.0)
        input_cv, output_cv, load = (float(rng.uniform(*bounds)) for bounds in (CV, CV, LOAD))
        made = Deployment(
            chip=catalog.chips[chip],
            model=catalog.models[model],
            workload=Workload(input_tokens=isl, output_tokens=osl),
            layout=Layout(batch=slots, **degrees),
            prices=catalog.prices["owner-2026"],
        )
        if bool(asked(made, RARE, input_cv, output_cv).feasible):
            text = " ".join(f"{k}={v:g}" if isinstance(v, float) else v for k, v in degrees.items())
            cases.append(Case(f"{chip} {model} {text} b={slots:g}", made, input_cv, output_cv, load))
    return cases


def asked(d: Deployment, rate: float, input_cv: float, output_cv: float) -> Any:
    """The model's answer at an arrival rate: one compiled function a system."""
    return evaluate(replace(d, arrivals=Arrivals(rate_per_s=rate, input_cv=input_cv, output_cv=output_cv)))


@jax.jit
def _tables(d: Deployment, counts: Any, contexts: Any, tokens: Any, prompts: Any):
    """Length of a decoding step by requests (rows) and mean context, and of the prefill of equal prompts by tokens and number."""
    mc = machine(d.chip, d.model, d.layout, d.layout.batch * 0.0 + 1.0)  # a cache of some size lies in the memory
    layout = replace(d.layout, batch=counts[:, None] * cut.one(d.layout.dp))
    decode = decode_step(mc, d.model, d.workload, layout, contexts[None, :]).time.total
    length = replace(d.workload, input_tokens=tokens[:, None])
    prefill = prefill_step(mc, d.model, length, d.layout, prompts[None, :]).stage_s * d.chip.kernels.system.interference
    return decode, prefill


def engine_of(case: Case) -> tuple[Engine, float]:
    """The simulated engine of one attention rank, and its arrivals a second at the load of the case."""
    d = as_floats(case.deployment)
    isl, osl = float(d.workload.input_tokens), float(d.workload.output_tokens)
    slots = int(float(cut.ranks(d.layout)))
    longest = (isl + osl) * 12.0
    counts = np.arange(1.0, max(SLOTS) + 1.0)  # one shape for all cases
    contexts = np.linspace(1.0, longest, NODES)
    tokens = np.exp(np.linspace(0.0, np.log(isl * 30.0), 4 * NODES))
    prompts = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    chunk = float(d.chip.kernels.system.chunk_token)
    decode, prefill = (np.asarray(x) for x in _tables(d, counts, contexts, tokens, prompts))
    width = contexts[1] - contexts[0]
    rows, log_tokens = decode.tolist(), np.log(tokens)
    alone = prefill[:, 0]
    discount = prefill / (prompts[None, :] * alone[:, None])  # of prompts that go together

    def decode_s(n: int, context: float) -> float:
        x = (context - 1.0) / width
        j = min(int(x), NODES - 2)
        row = rows[n - 1]
        return row[j] + (x - j) * (row[j + 1] - row[j])

    def prefill_s(pieces: list[tuple[float, float]]) -> float:
        total = sum(x / whole * float(np.interp(np.log(whole), log_tokens, alone)) for x, whole in pieces)
        if len(pieces) == 1:
            return total
        mean = sum(x for x, _ in pieces) / len(pieces)
        i = int(np.clip(np.searchsorted(log_tokens, np.log(mean)), 0, len(tokens) - 1))
        return total * float(np.interp(np.log(len(pieces)), np.log(prompts), discount[i]))

    idle = asked(case.deployment, RARE, case.input_cv, case.output_cv)
    free = idle.memory_byte_per_chip
    room = float(free.capacity - free.weights - free.activations - free.reserve)
    middle = isl + osl
    per_token = float(cut.cache_byte(d.model, middle, d.layout, idle.format)) / middle
    room_token = room / per_token
    context = isl + osl * (1.0 + case.output_cv**2) / 2.0
    held = isl + osl * (1.0 + case.output_cv**2)
    full = max(min(slots, room_token / held), 1.0)
    busy = (osl - 1.0) * decode_s(int(full), context) + full * float(np.interp(np.log(isl), log_tokens, alone))
    pieces = decode_s(int(full), context) * isl / chunk  # prompts cannot enter faster than their chunks go through
    most = min(full / busy, 1.0 / (float(np.interp(np.log(isl), log_tokens, alone)) + pieces))
    rate = case.load * most
    return Engine(decode_s, prefill_s, slots, chunk, room_token), rate


KEYS = ("tpot_mean", "tpot_p50", "tpot_p90", "tpot_p99", "ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99")
GOALS = {"tpot_mean": 0.05, "tpot_p99": 0.10, "ttft_mean": 0.10, "ttft_p99": 0.20}
BLOCKS = 10
NOISY = 0.25  # of the goal: a standard error above it makes the simulation longer
LONGER = 4


def simulated(case: Case, requests: int, seed: int = 7) -> tuple[dict[str, float], dict[str, float], float]:
    """As ``simulated_once``; once more with more requests where a figure that has a goal is noisy."""
    found = simulated_once(case, requests, seed)
    noisy = any(found[1][key] > NOISY * goal for key, goal in GOALS.items())
    return simulated_once(case, LONGER * requests, seed) if noisy else found


def simulated_once(case: Case, requests: int, seed: int = 7) -> tuple[dict[str, float], dict[str, float], float]:
    """What the simulated users of a case see, the standard error of each figure (from blocks of time), and the arrivals of the instance."""
    engine, rate = engine_of(case)
    w, rng = case.deployment.workload, np.random.default_rng(seed)
    prompts = lognormal(rng, float(w.input_tokens), case.input_cv, requests)
    seen = simulate(engine, rate, prompts, lognormal(rng, float(w.output_tokens), case.output_cv, requests, least=2.0), rng)

    def figures(tpot: np.ndarray, ttft: np.ndarray) -> list[float]:
        return [f for x in (tpot, ttft) for f in (float(x.mean()), *(float(q) for q in np.percentile(x, [50, 90, 99])))]

    whole = figures(seen.tpot_s, seen.ttft_s)
    blocks = [figures(a, b) for a, b in zip(np.array_split(seen.tpot_s, BLOCKS), np.array_split(seen.ttft_s, BLOCKS), strict=True)]
    noise = np.std(blocks, axis=0, ddof=1) / np.sqrt(BLOCKS) / np.asarray(whole)
    width = float(cut.one(case.deployment.layout.dp)) if "dp" in case.name else 1.0
    return dict(zip(KEYS, whole, strict=True)), dict(zip(KEYS, noise.tolist(), strict=True)), rate * width


def predicted(case: Case, rate: float) -> dict[str, float]:
    """What the model says of the same users; the fixed time of the host, which the simulation leaves out, is taken off."""
    d = case.deployment
    m = asked(d, rate, case.input_cv, case.output_cv)
    a, host = m.arrivals, float(d.chip.kernels.system.first_token_s)
    tpot = [m.tpot_s, a.tpot_p50_s, a.tpot_p90_s, a.tpot_p99_s]
    ttft = [float(x) - host for x in (m.ttft_s, a.ttft_p50_s, a.ttft_p90_s, a.ttft_p99_s)]
    return dict(zip(KEYS, [*map(float, tpot), *ttft], strict=True))
