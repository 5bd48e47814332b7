"""What is one request? Builds ``dse.types.Workload`` from a workload file; the latency limit of the file stays in the record."""

from __future__ import annotations

from typing import Any

from dse import types
from dse.errors import InputError


def build_workload(record: Any) -> types.Workload:
    """The numbers of a workload record: tokens of one request [token], evenness of routing [1].

    Raises InputError if input or output tokens are missing, or more tokens are shared than there are.
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
    )


def ttft_limit_s(record: Any) -> float | None:
    """Longest mean time to the first token that a user of this workload accepts [s]; None where the file states none."""
    limit = record.values.get("ttft_limit")
    return None if limit is None else limit.value
