"""What is one request? Builds ``dse.types.Workload`` from a workload file; the latency limit of the file stays in the record."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import isinf
from typing import TYPE_CHECKING, Any

from dse import types
from dse.errors import InputError
from dse.paths import data_dir

if TYPE_CHECKING:
    from dse.catalog import Catalog

SPREADS = ("input_cv", "output_cv")
VALIDATED = "_validated.toml"


SELF = "self"  # the draft is an extra layer of the model
GUESS = ("draft", "draft_tokens", "acceptance")


def build_workload(record: Any, catalog: Catalog) -> types.Workload:
    """The numbers of a workload record: tokens of one request [token], evenness of routing [1], samples, and how tokens are guessed.

    Raises InputError if input or output tokens are missing, more tokens are shared than there are, or a guess is only half described.
    """
    values = record.values
    problems = [f"{record.file}: {n} — missing, allowed a number of tokens" for n in ("input_tokens", "output_tokens") if n not in values]
    if problems:
        raise InputError(problems)
    tokens = values["input_tokens"].value
    shared = values["shared_prefix_tokens"].value if "shared_prefix_tokens" in values else None
    if shared is not None and shared > tokens:
        raise InputError(f"{record.file}: shared_prefix_tokens — found {shared:g}, allowed at most input_tokens = {tokens:g}")
    return types.Workload(
        input_tokens=tokens,
        output_tokens=values["output_tokens"].value,
        uneven_routing=values["uneven_routing"].value if "uneven_routing" in values else 1.0,
        shared_prefix_tokens=shared,
        samples=values["samples"].value if "samples" in values else None,
        speculation=_guessed(record, catalog),
    )


def _guessed(record: Any, catalog: Catalog) -> types.Speculation | None:
    """Speculative decoding of a record; None without it. Nothing about the draft is assumed."""
    given = {"draft": record.meta.get("draft")} | {n: record.values[n].value for n in GUESS[1:] if n in record.values}
    if given == {"draft": None}:
        return None
    problems = [f"{record.file}: {n} — missing, allowed a value beside {', '.join(m for m in GUESS if m != n)}"
                for n in GUESS if given.get(n) is None]  # fmt: skip
    if problems:
        raise InputError(problems)
    name = given["draft"]
    draft = None if name == SELF else catalog.models[catalog.resolve("models", str(name))]
    return types.Speculation(tokens=given["draft_tokens"], acceptance=given["acceptance"], draft=draft)


def ttft_limit_s(record: Any) -> float | None:
    """Longest mean time to the first token that a user of this workload accepts [s]; None where the file states none."""
    limit = record.values.get("ttft_limit")
    return None if limit is None else limit.value


def spreads(record: Any) -> dict[str, float]:
    """How much input and output lengths of this workload differ, as ``Arrivals`` takes them.

    Raises InputError if the file states none: a spread is never assumed silently.
    """
    missing = [f"{record.file}: {n} — missing, allowed a number such as 1" for n in SPREADS if n not in record.values]
    if missing:
        raise InputError(missing)
    return {name: record.values[name].value for name in SPREADS}


@dataclass(frozen=True)
class Compared:
    """Where percentiles under arrivals were compared with a simulation: between two values, or beyond them (a hole)."""

    name: str
    low: float
    high: float
    hole: bool
    reason: str

    def covers(self, value: float) -> bool:
        """Whether a value lies where the comparison holds."""
        return (self.low * (1.0 - EDGE) <= value <= self.high * (1.0 + EDGE)) != self.hole


@cache
def validated() -> tuple[Compared, ...]:
    """Ranges in which percentiles under arrivals were compared with a simulation, and holes in them."""
    table = tomllib.loads((data_dir("hw_catalog") / "workloads" / VALIDATED).read_text(encoding="utf-8"))
    return tuple(
        Compared(name, float(low), float(high), kind == "hole", table["reason"].get(name, ""))
        for kind in ("range", "hole")
        for name, (low, high) in table[kind].items()
    )


def outside(answer: Mapping[str, float | None]) -> list[str]:
    """What of an answer under arrivals lies outside the validated ranges, in words.

    >>> outside({"load": 0.9, "stages": 1.0, "full": 0.001})
    ['load 0.9 (compared with simulation from 0.02 to 0.85)']
    """
    beyond = [(c, v) for c in validated() if (v := answer.get(c.name)) is not None and not c.covers(v)]
    return [
        f"{c.name} {value:.4g} ({'not relied on' if c.hole else 'compared with simulation'} from {c.low:g}"
        f"{'' if isinf(c.high) else f' to {c.high:g}'}{f': {c.reason}' if c.reason else ''})"
        for c, value in beyond
    ]


EDGE = 1e-6  # rounding
