"""What does a ``Metrics`` look like to a program or a person? Plain dictionaries with names instead of codes."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np

from dse import glossary
from dse.types import SLACK_TOLERANCE, Format, PerFormat, SlackParts, TimeParts

DEGREES = ("tp", "pp", "cp", "dp", "ep")
BOUNDS = tuple(f.name for f in fields(TimeParts))
LIMIT_UNITS = {"memory": "byte", "divisibility": "1", "reticle": "1", "beachfront": "1", "heat": "1", "package": "1"}


def format_names(fmt: Format) -> dict[str, str]:
    """Names of the weight, cache and arithmetic formats of a numeric ``Format`` (scalars)."""
    hot = {f.name: float(getattr(fmt.kernel, f.name)) for f in fields(fmt.kernel)}
    kernel = max(hot, key=hot.__getitem__)
    rules = glossary.load().formats
    same = [name for name, rule in rules.items() if rule.kernel == kernel and math.isclose(rule.weight_byte, float(fmt.weight_byte))]
    compute = {f.name: float(getattr(fmt.compute, f.name)) for f in fields(PerFormat)}
    cache = {1.0: "fp8", 2.0: "bf16", 4.0: "fp32"}
    kv = float(fmt.kv_byte)
    return {
        "weights": same[0] if same else f"{float(fmt.weight_byte) * 8:g}-bit",
        "kv": cache.get(kv, f"{kv * 8:g}-bit"),
        "compute": max(compute, key=compute.__getitem__),
    }


def _number(value: Any) -> float | None:
    x = float(np.asarray(value))
    return x if math.isfinite(x) else None


def _parts(record: Any) -> dict[str, float | None]:
    return {f.name: _number(getattr(record, f.name)) for f in fields(record)}


def _degrees(layout: Any) -> list[tuple[str, Any]]:
    return [(n, x) for n in ("tp", "pp", "cp", "dp", "ep") if (x := getattr(layout, n)) is not None]


def violations(m: Any) -> list[dict[str, Any]]:
    """Every limit that is not met: ``{limit, value, allowed, unit, message}`` each."""
    found = []
    memory = _parts(m.memory_byte_per_chip)
    need = sum(v or 0.0 for k, v in memory.items() if k != "capacity")
    for f in fields(SlackParts):
        slack = float(np.asarray(getattr(m.slack, f.name)))
        if slack >= SLACK_TOLERANCE:
            continue
        if f.name == "memory":
            have = memory["capacity"] or 0.0
            text = f"one chip needs {need / 1e9:.4g} GB and holds {have / 1e9:.4g} GB; use more chips, fewer requests or a narrower format"
            if need <= have:
                text = "another part is full: a prefill instance with its weights and prompts (use more chips for it), or the host's memory"
            found.append({"limit": "memory", "value": need, "allowed": have, "unit": "byte", "message": text})
        else:
            text = f"{f.name} is exceeded by {-slack:.1%} of its limit"
            if f.name == "divisibility":
                asked = ", ".join(f"{n} {float(np.asarray(x)):g}" for n, x in _degrees(m.layout))
                text = (
                    f"a degree of {asked} exceeds what it divides: tp the heads, pp the layers, ep the experts and the stage, tp x cp x dp"
                )
            found.append({"limit": f.name, "value": 1.0 - slack, "allowed": 1.0, "unit": LIMIT_UNITS[f.name], "message": text})
    if m.arrivals is not None and float(m.arrivals.load) >= 1.0:
        text = "requests arrive faster than they can be served; fewer arrivals, a larger batch or more chips"
        found.append({"limit": "load", "value": float(m.arrivals.load), "allowed": 1.0, "unit": "1", "message": text})
    return found


FOLLOW_TPOT = ("tpot_s", "usd_per_million_output_token", "usd_per_million_token", "j_per_output_token")


def intervals(values: dict[str, Any], tpot_error: float, ttft_error: float) -> tuple[dict[str, float] | None, dict[str, float] | None]:
    """Ends of the 90 % intervals of latency and money, from the errors that the constants showed against measurements.

    Cost and energy of a token follow its time. None where no error is known.

    >>> intervals({"tpot_s": 0.01, "ttft_s": None}, 0.25, 0.0)
    ({'tpot_s': 0.008}, {'tpot_s': 0.0125})
    """
    errors = {**dict.fromkeys(FOLLOW_TPOT, tpot_error), "ttft_s": ttft_error}
    known = {k: (values[k], e) for k, e in errors.items() if e > 0.0 and values.get(k) is not None}
    if not known:
        return None, None
    return {k: v / (1.0 + e) for k, (v, e) in known.items()}, {k: v * (1.0 + e) for k, (v, e) in known.items()}


def arrivals_dict(seen: Any) -> dict[str, Any]:
    """What users see under random arrivals, and whether such a case was compared with a simulation."""
    from dse.catalog.workloads import outside

    parts = _parts(seen)
    beyond = outside(parts)
    return {**parts, "validated": not beyond, "outside": beyond}


def metrics_dict(m: Any) -> dict[str, Any]:
    """The JSON of ``dse eval`` for one deployment (scalar leaves); see the glossary for each key."""
    decodes = float(m.tpot_s) > 0.0
    prefills = float(m.ttft_s) > 0.0
    result: dict[str, Any] = {
        "feasible": bool(m.feasible),
        "violations": violations(m),
        "chips": _number(m.chips),
        "batch": _number(m.batch),
        "layout": {d: 1.0 if getattr(m.layout, d) is None else _number(getattr(m.layout, d)) for d in DEGREES},
        "format": format_names(m.format),
    }
    scalars = (
        "tpot_s ttft_s tpot_p99_s ttft_p99_s interactivity_token_per_s output_token_per_s_per_chip total_token_per_s_per_chip "
        "usd_per_million_output_token usd_per_million_token usd_per_chip_hour j_per_output_token facility_power_w mfu mbu mfu_prefill"
    )
    for name in scalars.split():
        value = getattr(m, name)
        result[name] = None if value is None else _number(value)
    result["cost_usd_per_s"] = _parts(m.cost_usd_per_s)
    result["bound"] = BOUNDS[int(m.bound)] if decodes else None
    result["bound_prefill"] = BOUNDS[int(m.bound_prefill)] if prefills else None
    result["time_s"] = _parts(m.time_s)
    result["memory_byte_per_chip"] = _parts(m.memory_byte_per_chip)
    result["constants"] = "calibrated" if float(m.calibrated) > 0.0 else "ideal"
    for name in ("prefill_chips", "host_byte_per_chip", "quality", "usd_per_million_adjusted_token"):
        value = getattr(m, name)
        if value is not None:
            result[name] = _number(value)
    if m.arrivals is not None:
        result["arrivals"] = arrivals_dict(m.arrivals)
    absent = (
        "tpot_s interactivity_token_per_s usd_per_million_output_token j_per_output_token mfu mbu time_s" if not decodes else ""
    ).split()
    absent += ("ttft_s mfu_prefill" if not prefills else "").split()
    for name in absent:
        result[name] = None
    result["low"], result["high"] = intervals(result, float(m.tpot_error), float(m.ttft_error))
    return result
