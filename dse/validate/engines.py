"""Which engine ran a measured run, and what does it pay beside its kernels? The table ``hw_catalog/constants/_engines.toml``.

An engine's constants act on the host's time, on the wait for the first token and on the interference of prefill, never on work.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from dse.paths import data_dir
from dse.types import Chip
from dse.units import to_si

TABLE = Path("constants") / "_engines.toml"


@dataclass(frozen=True)
class Engine:
    """An engine: the names under which runs report it, and its leaves of ``types.System`` in SI."""

    id: str
    names: tuple[str, ...]
    values: Mapping[str, float]


@cache
def read_engines(path: Path | None = None) -> dict[str, Engine]:
    """The engines of the table, by id."""
    with (path or data_dir("hw_catalog") / TABLE).open("rb") as file:
        raw = tomllib.load(file)
    found = {}
    for identity, table in raw.items():
        numbers = {k: to_si(float(v["value"]), v["unit"]) for k, v in table.items() if isinstance(v, dict)}
        found[identity] = Engine(identity, tuple(table["names"]), numbers)
    return found


def engine_of(software: str) -> str:
    """Id of the engine that a software column names, or an empty string; versions never seen are their engine.

    >>> engine_of("vllm 0.99"), engine_of("TensorRT-LLM 0.14.0 (trtllm-bench)"), engine_of("MLC")
    ('vllm', 'trtllm', '')
    """
    word = software.lower().split(" ")[0]
    return next((e.id for e in read_engines().values() if word in e.names), "")


def in_engine(chip: Chip, engine: str, leaves: Mapping[str, float], burst: bool) -> Chip:
    """The chip as an engine runs it, with some ``leaves`` of the system given.

    Without ``burst`` no request waits for others that arrived with it: so does the median one, where a run begins with a wave.
    """
    values = {**(read_engines()[engine].values if engine else {}), **leaves, **({} if burst else {"queue": 0.0})}
    if not values:
        return chip
    return replace(chip, kernels=replace(chip.kernels, system=replace(chip.kernels.system, **values)))
