"""Which engine ran a measured run, and what does it pay beside its kernels? The table ``hw_catalog/constants/_engines.toml``.

An engine's constants act on the host's time, on the wait for the first token and on the interference of prefill, never on work.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from dse.paths import data_dir
from dse.types import AllReduce, Chip
from dse.units import to_si

TABLE = Path("constants") / "_engines.toml"
SAME = {
    "balance_steps": 0.0,
    "uneven_prompts": 0.0,
    "wait_steps": 0.0,
    "poll_steps": 0.0,
}  # leaves that are off, so that the chips of all engines have one structure and compile once
VERSION = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True)
class Engine:
    """An engine, or one generation of it: the names and releases under which runs report it, and its leaves of ``types.System`` in SI.

    A generation holds its engine's leaves where it has none of its own; ``all_reduce`` names an implementation of the chip's constants.
    """

    id: str
    names: tuple[str, ...]
    values: Mapping[str, float]
    base: str = ""  # the engine that this is a generation of
    releases: tuple[str, ...] = ()  # prefixes of the version; none: the latest, and every one that no generation names
    all_reduce: str = ""


@cache
def read_engines(path: Path | None = None) -> dict[str, Engine]:
    """The engines of the table and their generations, by id."""
    with (path or data_dir("hw_catalog") / TABLE).open("rb") as file:
        raw = tomllib.load(file)
    own = {e: {k: to_si(float(v["value"]), v["unit"]) for k, v in t.items() if isinstance(v, dict)} for e, t in raw.items()}
    found = {}
    for identity, table in raw.items():
        base = table.get("base", identity)
        names = tuple(table.get("names", raw[base]["names"]))
        releases = tuple(table.get("releases", ()))
        found[identity] = Engine(identity, names, {**own[base], **own[identity]}, base, releases, table.get("all_reduce", ""))
    return found


def base_of(engine: str) -> str:
    """The engine that an id is a generation of: ``trtllm`` for ``trtllm-0-14``."""
    return read_engines()[engine].base if engine else ""


def engine_of(software: str) -> str:
    """Id of the engine, in the generation, that a software column names, or an empty string; a version never seen is its engine's latest.

    >>> engine_of("vllm 0.99"), engine_of("TensorRT-LLM 0.14.0 (trtllm-bench)"), engine_of("MLC")
    ('vllm', 'trtllm-0-14', '')
    """
    words = software.lower().split(" ")
    version = VERSION.search(software.partition(" ")[2])
    named = [e for e in read_engines().values() if words[0] in e.names]
    for e in named:
        if version and any((version[0] + ".").startswith(r + ".") for r in e.releases):
            return e.id
    return next((e.id for e in named if not e.releases), "")


def in_engine(chip: Chip, engine: str, leaves: Mapping[str, float], burst: bool, all_reduce: AllReduce | None = None) -> Chip:
    """The chip as an engine runs it, with some ``leaves`` of the system given, and the constants of its own ``all_reduce``.

    Without ``burst`` no request waits for others that arrived with it: so does the median one, where a run begins with a wave.
    """
    own = {**SAME, **read_engines()[engine].values} if engine else {}
    values = {**own, **leaves, **({} if burst else {"queue": 0.0, "waiting": 0.0})}
    if not values and all_reduce is None:
        return chip
    kernels = replace(chip.kernels, all_reduce=all_reduce or chip.kernels.all_reduce)
    return replace(chip, kernels=replace(kernels, system=replace(kernels.system, **values)))
