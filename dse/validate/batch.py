"""What does ``evaluate`` say of many deployments? Deployments of one structure go through one compiled call, a block at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np

from dse.evaluate import Metrics, evaluate, stack
from dse.types import LLM, Chip, Deployment, Layout, Prices, Workload

BLOCK = 256  # deployments in a call: one shape, so that each serving mode compiles once


@dataclass(frozen=True)
class Answer:
    """What validation reads of ``Metrics``, as plain numbers in SI."""

    feasible: bool
    chips: float
    ttft_s: float
    tpot_s: float
    prefill_s: float  # part of ``tpot_s`` that is prefill of other requests
    output_token_per_s_per_chip: float
    mfu: float
    mfu_prefill: float
    kv_byte: float
    room_byte: float  # of the fullest chip, for caches
    bound: float  # index into ``dse.evaluate.TIME_PARTS``: the largest part of the step

    @staticmethod
    def of(m: Metrics, i: int) -> Answer:
        """The i-th deployment of a block."""
        memory = m.memory_byte_per_chip
        room = memory.capacity - memory.weights - memory.reserve - memory.activations
        values = (
            m.feasible, m.chips, m.ttft_s, m.tpot_s, m.time_s.prefill, m.output_token_per_s_per_chip, m.mfu, m.mfu_prefill, memory.kv, room,
            m.bound,
        )  # fmt: skip
        first, *rest = (float(np.broadcast_to(v, (BLOCK,))[i]) for v in values)
        return Answer(bool(first), *rest)


@dataclass(frozen=True)
class Ask:
    """A deployment by parts that repeat: chip, model and prices are objects shared by many."""

    chip: Chip
    model: LLM
    prices: Prices
    workload: Workload
    layout: Layout
    prefill: Layout | None
    serving: str


def _columns(items: Sequence[Any]) -> Any:
    """Records of one structure as one record of arrays, each distinct object read once."""
    distinct: dict[int, Any] = {id(x): x for x in items}
    place = {key: i for i, key in enumerate(distinct)}
    index = np.array([place[id(x)] for x in items])
    each = list(distinct.values())
    if isinstance(each[0], LLM):
        table = stack(each, axis=0)
        return jax.tree.map(lambda x: np.asarray(x)[index, 0], table)
    return jax.tree.map(lambda *xs: np.array([float(x) for x in xs])[index], *each)


def _structure(ask: Ask) -> Hashable:
    return ask.serving, jax.tree.structure(ask.chip), jax.tree.structure((ask.layout, ask.prefill, ask.workload))


def _block(asks: Sequence[Ask]) -> Deployment:
    padded = [*asks, *(asks[-1],) * (BLOCK - len(asks))]
    parts = {f.name: [getattr(a, f.name) for a in padded] for f in fields(Ask)}
    return Deployment(
        chip=_columns(parts["chip"]),
        model=_columns(parts["model"]),
        workload=_columns(parts["workload"]),
        layout=_columns(parts["layout"]),
        prefill_layout=_columns(parts["prefill"]) if asks[0].prefill is not None else None,
        prices=_columns(parts["prices"]),
        serving=asks[0].serving,
    )


def answers(asks: Sequence[Ask], progress: Callable[[int], None] | None = None) -> list[Answer]:
    """The answers of deployments, in order; ``progress`` is told how many each block held."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, ask in enumerate(asks):
        groups[_structure(ask)].append(i)
    found: list[Answer | None] = [None] * len(asks)
    for members in groups.values():
        for start in range(0, len(members), BLOCK):
            block = members[start : start + BLOCK]
            metrics = jax.tree.map(np.asarray, evaluate(_block([asks[i] for i in block])))
            for j, i in enumerate(block):
                found[i] = Answer.of(metrics, j)
            if progress is not None:
                progress(len(block))
    return found  # type: ignore[return-value]
