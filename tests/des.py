"""An independent discrete-event simulation of continuous batching with chunked prefill: the judge of the queueing formulas.

Nothing here comes from ``dse.equations.queueing``. Requests arrive at random, wait for a slot, are prefilled first come first served
with at most ``chunk`` tokens a step beside the decoding of everybody, and then get one token a step. Only the length of one step comes
from the model under test: tables of its own decoding step and prefill, which it does not simulate.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Engine:
    """One attention rank: how long a step takes and what limits admission."""

    decode_s: Callable[[int, float], float]  # requests decoding, their mean context
    prefill_s: Callable[[list[tuple[float, float]]], float]  # pieces of one step: (tokens of it, tokens of its whole prompt)
    slots: int
    chunk: float  # prompt tokens of one step
    room_token: float = np.inf  # tokens of cache; a request is admitted when its whole prompt and output have room


@dataclass(frozen=True)
class Seen:
    """What users saw, warm-up left out."""

    ttft_s: np.ndarray
    tpot_s: np.ndarray
    output: np.ndarray
    concurrency: float  # decoding, time average


def lognormal(rng: np.random.Generator, mean: float, cv: float, size: int, least: float = 1.0) -> np.ndarray:
    """Whole numbers of tokens with a mean and a coefficient of variation."""
    variance = np.log1p(cv**2)
    return np.maximum(np.rint(rng.lognormal(np.log(mean) - variance / 2, np.sqrt(variance), size)), least)


def simulate(
    engine: Engine,
    rate: float,
    prompts: np.ndarray,
    outputs: np.ndarray,
    rng: np.random.Generator,
    warm: float = 0.1,
    arrival: np.ndarray | None = None,
) -> Seen:
    """Serve requests of given lengths that arrive as a Poisson process of ``rate`` a second, or at the times ``arrival``."""
    size = len(prompts)
    arrival = (np.cumsum(rng.exponential(1.0 / rate, size)) if arrival is None else arrival).tolist()
    prompts, outputs = prompts.tolist(), outputs.tolist()
    left = list(prompts)  # tokens that are still to be prefilled
    first, last = np.zeros(size), np.zeros(size)
    queue: deque[int] = deque()
    running: list[tuple[float, int]] = []  # (index of the step that gives the last token, request)
    t, step, context, held, nxt, area = 0.0, 0.0, 0.0, 0.0, 0, 0.0
    while nxt < size or queue or running:
        while nxt < size and arrival[nxt] <= t:
            queue.append(nxt)
            nxt += 1
        n = len(running)
        pieces, done, budget, taken = [], [], engine.chunk, 0
        while queue and budget > 0:
            i = queue[0]
            fresh = left[i] == prompts[i]
            if fresh and (n + taken >= engine.slots or (held + prompts[i] + outputs[i] > engine.room_token and n + taken > 0)):
                break
            if fresh:
                held += prompts[i] + outputs[i]
            x = min(budget, left[i])
            pieces.append((x, prompts[i]))
            budget -= x
            taken += 1
            left[i] -= x
            if left[i] > 0:
                break
            done.append(queue.popleft())
        if pieces:
            many = 1
            length = (engine.decode_s(n, context / n) if n else 0.0) + engine.prefill_s(pieces)
        elif n:
            length = engine.decode_s(n, context / n)
            until = running[0][0] - step
            if not queue and nxt < size:  # no step may begin after the next arrival: contexts, and so steps, grow meanwhile
                gap = arrival[nxt] - t
                until = min(until, gap // length + 1.0)
                until = min(until, gap // engine.decode_s(n, context / n + until / 2.0) + 1.0)
            many = max(until, 1.0)
            length = many * engine.decode_s(n, context / n + many / 2.0)
        else:
            t = arrival[nxt]
            continue
        t += length
        area += n * length
        step += many
        context += n * many
        while running and running[0][0] <= step:
            _, i = heapq.heappop(running)
            last[i] = t
            context -= prompts[i] + outputs[i]
            held -= prompts[i] + outputs[i]
        for i in done:
            first[i] = t
            if outputs[i] > 1:
                heapq.heappush(running, (step + outputs[i] - 1, i))
                context += prompts[i] + 1
            else:
                last[i] = t
                held -= prompts[i] + outputs[i]
    keep = slice(int(warm * size), int((1 - warm / 2) * size))
    out = np.asarray(outputs)[keep]
    ttft = (first - np.asarray(arrival))[keep]
    tpot = ((last - first)[keep] / np.maximum(out - 1, 1))[out > 1]
    return Seen(ttft, tpot, out, area / t)
