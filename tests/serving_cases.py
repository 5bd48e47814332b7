"""Configurations at random for the comparison of the queueing formulas with a simulation, and the simulated engine of each.

Seed ``TUNED`` (and others, 11 to 15 and 20261201) were looked at while the formulas were made; ``FRESH`` is for the one report. Chips
of three kinds beside GPUs are drawn too. A draw goes on until ``COUNT`` of its configurations are such that the model itself calls its
answer validated; the others stay in it. Where a simulated figure is noisy, the simulation goes on four times as long.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from dse.catalog.models import pad_groups
from dse.equations import layout as cut
from dse.evaluate import as_floats, decode_step, evaluate, machine, prefill_step
from dse.types import Arrivals, Deployment, Layout, Workload
from tests.des import Engine, lognormal, simulate

TUNED, FRESH, COUNT = 20261127, 20261202, 40
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
GROUPS = 2  # kinds of layers, at most
RARE = 1e-3  # arrivals a second at which nothing waits


@dataclass(frozen=True, eq=False)  # compared and hashed as the object that it is
class Case:
    """One configuration: a deployment, the spread of its lengths, and how busy it is."""

    name: str
    deployment: Deployment
    input_cv: float
    output_cv: float
    load: float


@dataclass(frozen=True)
class Job:
    """What a simulation needs to know of a case: plain numbers and tables, for a process of its own."""

    name: str
    input_tokens: float
    output_tokens: float
    input_cv: float
    output_cv: float
    load: float
    rate_per_s: float  # of one attention rank
    ranks: float
    slots: int
    chunk: float
    room_token: float
    decode_s: np.ndarray  # by requests and by mean context
    width_token: float  # between two contexts of it, from 1
    tokens: np.ndarray  # of a prompt
    alone_s: np.ndarray  # its prefill
    prompts: np.ndarray  # of a step
    together: np.ndarray  # by tokens and prompts: time over that of as many steps


def of_one_make(model: Any) -> Any:
    """The same model with as many groups of layers as any here, as arrays: nothing is left out, one compiled function serves all."""
    return jax.tree.map(np.asarray, pad_groups(model, GROUPS))


def draw(seed: int, catalog: Any, count: int = COUNT) -> list[Case]:
    """Feasible configurations at random, until ``count`` of them are validated."""
    rng = np.random.default_rng(seed)
    cases: list[Case] = []
    validated = 0
    while validated < count:
        chip, model, degrees = SYSTEMS[rng.integers(len(SYSTEMS))]
        isl, osl = (float(np.rint(np.exp(rng.uniform(*np.log(bounds))))) for bounds in (INPUT, OUTPUT))
        slots = float(SLOTS[rng.integers(len(SLOTS))]) * degrees.get("dp", 1.0)
        input_cv, output_cv, load = (float(rng.uniform(*bounds)) for bounds in (CV, CV, LOAD))
        made = Deployment(
            chip=catalog.chips[chip],
            model=of_one_make(catalog.models[model]),
            workload=Workload(input_tokens=isl, output_tokens=osl),
            layout=Layout(batch=slots, **degrees),
            prices=catalog.prices["owner-2026"],
        )
        text = " ".join(f"{k}={v:g}" if isinstance(v, float) else v for k, v in degrees.items())
        case = Case(f"{chip} {model} {text} b={slots:g}", made, input_cv, output_cv, load)
        if bool(asked(case, RARE).feasible):
            cases.append(case)
            validated += not outside(case)
    return cases


def outside(case: Case) -> list[str]:
    """What the model says of its own answer: empty where it calls it validated."""
    job = job_of(case)
    said = asked(case, job.rate_per_s * job.ranks)
    return list(said.as_dict()["arrivals"]["outside"])


@functools.cache
def asked(case: Case, rate: float) -> Any:
    """The model's answer at an arrival rate: one compiled function for all."""
    return evaluate(replace(case.deployment, arrivals=Arrivals(rate_per_s=rate, input_cv=case.input_cv, output_cv=case.output_cv)))


@jax.jit
def _tables(d: Deployment, counts: Any, contexts: Any, tokens: Any, prompts: Any):
    """Length of a decoding step by requests (rows) and mean context, and of the prefill of equal prompts by tokens and number."""
    mc = machine(d.chip, d.model, d.layout, d.layout.batch * 0.0 + 1.0)  # a cache of some size lies in the memory
    layout = replace(d.layout, batch=counts[:, None] * cut.one(d.layout.dp))
    decode = decode_step(mc, d.model, d.workload, layout, contexts[None, :]).time.total
    length = replace(d.workload, input_tokens=tokens[:, None])
    prefill = prefill_step(mc, d.model, length, d.layout, prompts[None, :]).stage_s * d.chip.kernels.system.interference
    return decode, prefill


@functools.cache
def job_of(case: Case) -> Job:
    """One attention rank of a case: tables of its steps, and its arrivals a second at the load of the case."""
    d = as_floats(case.deployment)
    isl, osl = float(d.workload.input_tokens), float(d.workload.output_tokens)
    slots = int(float(cut.ranks(d.layout)))
    contexts = np.linspace(1.0, (isl + osl) * 12.0, NODES)
    counts = np.arange(1.0, max(SLOTS) + 1.0)  # one shape for all cases
    tokens = np.exp(np.linspace(0.0, np.log(isl * 30.0), 4 * NODES))
    prompts = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0])
    decode, prefill = (np.asarray(x) for x in _tables(d, counts, contexts, tokens, prompts))
    free = asked(case, RARE).memory_byte_per_chip
    per_token = float(cut.cache_byte(d.model, isl + osl, d.layout, named(case))) / (isl + osl)
    made = Job(
        name=case.name,
        input_tokens=isl,
        output_tokens=osl,
        input_cv=case.input_cv,
        output_cv=case.output_cv,
        load=case.load,
        rate_per_s=0.0,
        ranks=float(cut.one(d.layout.dp)),
        slots=slots,
        chunk=float(d.chip.kernels.system.chunk_token),
        room_token=float(free.capacity - free.weights - free.activations - free.reserve) / per_token,
        decode_s=decode[:slots],
        width_token=float(contexts[1] - contexts[0]),
        tokens=tokens,
        alone_s=prefill[:, 0],
        prompts=prompts,
        together=prefill / (prompts[None, :] * prefill[:, :1]),
    )
    return replace(made, rate_per_s=case.load * most_per_s(made))


def named(case: Case) -> Any:
    """The format that the case computes in."""
    return asked(case, RARE).format


def most_per_s(job: Job) -> float:
    """Requests a second that the rank can serve at most: slots kept full, or prompts entering one chunk after another."""
    longer = 1.0 + job.output_cv**2  # long answers are there longer
    full = max(min(job.slots, job.room_token / (job.input_tokens + job.output_tokens * longer)), 1.0)
    engine = engine_of(job)
    step = engine.decode_s(int(full), job.input_tokens + job.output_tokens * longer / 2.0)
    alone = engine.prefill_s([(job.input_tokens, job.input_tokens)])
    busy = (job.output_tokens - 1.0) * step + full * alone
    return min(full / busy, 1.0 / (alone + step * job.input_tokens / job.chunk))


def engine_of(job: Job) -> Engine:
    """The simulated engine of one attention rank."""
    rows, alone, discount = job.decode_s.tolist(), job.alone_s, job.together
    log_tokens, width, last = np.log(job.tokens), job.width_token, len(job.decode_s[0]) - 2

    def decode_s(n: int, context: float) -> float:
        x = (context - 1.0) / width
        j = min(int(x), last)
        row = rows[n - 1]
        return row[j] + (x - j) * (row[j + 1] - row[j])

    def prefill_s(pieces: list[tuple[float, float]]) -> float:
        total = sum(x / whole * float(np.interp(np.log(whole), log_tokens, alone)) for x, whole in pieces)
        if len(pieces) == 1:
            return total
        mean = sum(x for x, _ in pieces) / len(pieces)
        i = int(np.clip(np.searchsorted(log_tokens, np.log(mean)), 0, len(log_tokens) - 1))
        return total * float(np.interp(np.log(len(pieces)), np.log(job.prompts), discount[i]))

    return Engine(decode_s, prefill_s, job.slots, job.chunk, job.room_token)


KEYS = ("tpot_mean", "tpot_p50", "tpot_p90", "tpot_p99", "ttft_mean", "ttft_p50", "ttft_p90", "ttft_p99")
GOALS = {"tpot_mean": 0.05, "tpot_p99": 0.10, "ttft_mean": 0.10, "ttft_p99": 0.20}
BLOCKS = 10
NOISY = 0.25  # of the goal: a standard error above it makes the simulation longer
LONGER = 4


def simulated(job: Job, requests: int, seed: int = 7) -> tuple[dict[str, float], dict[str, float]]:
    """As ``simulated_once``; once more with more requests where a figure that has a goal is noisy."""
    found = simulated_once(job, requests, seed)
    noisy = any(found[1][key] > NOISY * goal for key, goal in GOALS.items())
    return simulated_once(job, LONGER * requests, seed) if noisy else found


def simulated_once(job: Job, requests: int, seed: int = 7) -> tuple[dict[str, float], dict[str, float]]:
    """What the simulated users of a case see, and the standard error of each figure (from blocks of time)."""
    rng = np.random.default_rng(seed)
    prompts = lognormal(rng, job.input_tokens, job.input_cv, requests)
    outputs = lognormal(rng, job.output_tokens, job.output_cv, requests, least=2.0)
    seen = simulate(engine_of(job), job.rate_per_s, prompts, outputs, rng)

    def figures(tpot: np.ndarray, ttft: np.ndarray) -> list[float]:
        return [f for x in (tpot, ttft) for f in (float(x.mean()), *(float(q) for q in np.percentile(x, [50, 90, 99])))]

    whole = figures(seen.tpot_s, seen.ttft_s)
    blocks = [figures(a, b) for a, b in zip(np.array_split(seen.tpot_s, BLOCKS), np.array_split(seen.ttft_s, BLOCKS), strict=True)]
    noise = np.std(blocks, axis=0, ddof=1) / np.sqrt(BLOCKS) / np.asarray(whole)
    return dict(zip(KEYS, whole, strict=True)), dict(zip(KEYS, noise.tolist(), strict=True))


def predicted(case: Case) -> dict[str, float]:
    """What the model says of the same users; the fixed time of the host, which the simulation leaves out, is taken off."""
    d, job = case.deployment, job_of(case)
    m = asked(case, job.rate_per_s * job.ranks)
    a, host = m.arrivals, float(d.chip.kernels.system.first_token_s)
    tpot = [m.tpot_s, a.tpot_p50_s, a.tpot_p90_s, a.tpot_p99_s]
    ttft = [float(x) - host for x in (m.ttft_s, a.ttft_p50_s, a.ttft_p90_s, a.ttft_p99_s)]
    return dict(zip(KEYS, [*map(float, tpot), *ttft], strict=True))
