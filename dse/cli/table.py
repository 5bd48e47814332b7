"""How does a person read one evaluated deployment? Groups of named numbers with units, and where time, money and memory go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse import glossary
from dse.units import format_si

GROUPS = {
    "Speed": ("tpot_s", "interactivity_token_per_s", "ttft_s", "output_token_per_s_per_chip", "total_token_per_s_per_chip"),
    "Money": ("usd_per_million_output_token", "usd_per_million_token", "usd_per_chip_hour"),
    "Power": ("j_per_output_token", "facility_power_w"),
    "Use of the hardware": ("mfu", "mbu", "mfu_prefill", "bound", "bound_prefill"),
}
PARTS = {"time_s": "s", "cost_usd_per_s": "USD/s"}
BAR = 24  # characters of a bar that stands for the whole
WIDTH = 42


def shown(name: str, value: Any) -> str:
    """A value of the answer in the unit that people see; ``–`` where it does not apply.

    >>> shown("tpot_s", 0.0172), shown("mfu", None), shown("bound", "weights")
    ('17.2 ms', '–', 'Weights')
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return glossary.label(value)
    unit = glossary.unit(name)
    number = value * glossary.scale(name)
    return f"{number:,.0f} {unit}".strip() if abs(number) >= 1e4 else f"{number:.4g} {unit}".strip()


def metrics_text(answer: Mapping[str, Any]) -> str:
    """The answer of ``dse eval`` as text."""
    lines = [*_head(answer), ""]
    for title, names in GROUPS.items():
        lines += [title, *(f"  {glossary.label(name):<{WIDTH}} {shown(name, answer[name])}{_interval(answer, name)}" for name in names), ""]
    if answer.get("arrivals"):
        lines += [*_arrivals(answer["arrivals"]), ""]
    lines += _stated(answer)
    lines += _memory(answer["memory_byte_per_chip"])
    for name, unit in PARTS.items():
        if answer[name]:
            lines += ["", f"{glossary.label(name)}", *_bars(answer[name], unit)]
    return "\n".join(lines)


def _stated(answer: Mapping[str, Any]) -> list[str]:
    """What was asked beside: cache in the host's memory, and the cost of a token of the stated worth."""
    names = [n for n in ("host_byte_per_chip", "quality", "usd_per_million_adjusted_token") if answer.get(n) is not None]
    return ["As asked", *(f"  {glossary.label(n):<{WIDTH}} {shown(n, answer[n])}" for n in names), ""] if names else []


def _arrivals(seen: Mapping[str, Any]) -> list[str]:
    """Means and percentiles under random arrivals; a case outside the validated range says so."""
    lines = ["Random arrivals"]
    for name in ("rate_per_s", "load", "concurrency", "full", "prefill_share"):
        lines.append(f"  {glossary.label(f'arrivals.{name}'):<{WIDTH}} {shown(f'arrivals.{name}', seen[name])}")
    for what in ("tpot", "ttft"):
        values = " / ".join(shown(f"{what}_s", seen[f"{what}_p{q}_s"]) for q in (50, 90, 99))
        lines.append(f"  {glossary.label(f'{what}_s') + ', p50 / p90 / p99':<{WIDTH}} {values}")
    if not seen["validated"]:
        lines.append("  outside the range that was compared with a simulation: " + "; ".join(seen["outside"]))
    return lines


def _interval(answer: Mapping[str, Any], name: str) -> str:
    """The 90 % interval of a value, where the answer has one."""
    low, high = ((answer.get(end) or {}).get(name) for end in ("low", "high"))
    return "" if low is None or high is None else f"  [{shown(name, low).partition(' ')[0]} to {shown(name, high).partition(' ')[0]}]"


def _head(answer: Mapping[str, Any]) -> list[str]:
    asked, form = answer["question"], answer["format"]
    degrees = " ".join(f"{name}={value:g}" for name, value in answer["layout"].items() if value != 1) or "one chip"
    tokens = f"{asked['input_tokens']:g} tokens in, {asked['output_tokens']:g} out"
    work = f"{asked['workload']} ({tokens})" if asked["workload"] else tokens
    lines = [
        f"{asked['model']} on {answer['chips']:g} x {asked['chip']}, {work}",
        f"  layout {degrees}, batch {answer['batch']:g}; weights {form['weights']}, KV {form['kv']}, arithmetic {form['compute']}",
        f"  prices {asked['prices']}, {asked['serving']} serving, constants {asked['constants']}"
        + (f" ({answer['constants_id']}, by {answer['constants_found_by']})" if answer.get("constants_id") else ""),
    ]
    if answer.get("low"):
        lines.append("  [ ] 90 % interval from the errors of predicted times against measurements; prices and power as stated")
    if answer["feasible"]:
        return [*lines, "  feasible"]
    return [*lines, "  NOT FEASIBLE", *(f"  - {v['limit']}: {v['message']}" for v in answer["violations"])]


def _memory(parts: Mapping[str, float | None]) -> list[str]:
    capacity = parts["capacity"] or 0.0
    used = {name: value or 0.0 for name, value in parts.items() if name != "capacity"}
    lines = [f"{glossary.label('memory_byte_per_chip')} (of {format_si(capacity, 'byte')})"]
    return lines + _bars({**used, "free": max(capacity - sum(used.values()), 0.0)}, "byte")


def _bars(parts: Mapping[str, float | None], unit: str) -> list[str]:
    whole = sum(value or 0.0 for value in parts.values())
    lines = []
    for name, value in parts.items():
        share = (value or 0.0) / whole if whole > 0 else 0.0
        lines.append(
            f"  {glossary.label(name):<{WIDTH}} {format_si(value or 0.0, unit):>14} {share:>6.1%}  {'█' * round(BAR * share)}".rstrip()
        )
    return lines
