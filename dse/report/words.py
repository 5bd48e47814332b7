"""How are numbers and findings said in words? Number formats, layouts in one line, and the sentences of the headline.

Every sentence is computed from the Dataset, never typed.
"""

from __future__ import annotations

import math
import re
from typing import Any

import xarray as xr

from dse import glossary, units
from dse.report import view as V

LARGE, GIGA = 1e6, 1e9
DIGITS = 3
DAY_S = 86400
YEAR_S = 365 * DAY_S
PER_AREA = {"W/mm2": (1, "W/mm²"), "byte/mm2/s": (1e-9, "GB/s/mm²"), "byte/s/mm2": (1e-9, "GB/s/mm²")}
PEOPLE = PER_AREA | {"s": (1 / YEAR_S, "year"), "1/s": (YEAR_S, "1/year"), "USD/J": (3.6e6, "USD/kWh"), "USD/s": (3600, "USD/h")}
NARROW = "\u202f"  # a space that does not break
NEARLY = 99.5  # per cent, from which a third digit is shown
CLOSE = 0.1  # a lead below this share is called close


def number(value: float | None, digits: int = DIGITS) -> str:
    """A number for people: significant digits, thousands apart, a dash for nothing.

    >>> number(1234567.0), number(0.012345), number(57.26), number(None), number(20000.0)
    ('1.23e6', '0.0123', '57.3', '–', '20,000')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if abs(value) >= LARGE or exponent < -DIGITS - 1:
        mantissa = f"{value / 10.0**exponent:.{digits}g}"
        return f"{mantissa}e{exponent}"
    if abs(value) >= 10**digits:
        return f"{round(value, digits - 1 - exponent):,.0f}"
    text = f"{value:.{digits}g}"
    return text if "e" not in text else f"{float(text):,.0f}"


def shown(name: str, value: Any) -> str:
    """A value of a glossary name in the unit in which people see it (without the unit).

    >>> shown("tpot_s", 0.02), shown("bound", "kv"), shown("mfu", None)
    ('20', 'KV cache', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, str):
        return glossary.part(value) if name.startswith("bound") else value
    return number(value * glossary.scale(name))


def quantity(name: str, value: float) -> str:
    """A value with its unit.

    >>> quantity("tpot_s", 0.02)
    '20 ms'
    """
    return f"{shown(name, value)} {glossary.unit(name)}".strip()


def physical(value: float | None, unit: str) -> str:
    """A value in an SI unit as people say it; long times in years, energy prices per kWh.

    >>> physical(126144000.0, "s"), physical(2e-8, "USD/J"), physical(3.35e12, "byte/s"), physical(0.6, "1"), physical(3.17098e-9, "1/s")
    ('4 year', '0.072 USD/kWh', '3.35 TB/s', '0.6', '0.1 1/year')
    >>> physical(1.05e9, "1/s"), physical(3.5e8, "USD"), physical(0.5, "W/mm2")
    ('1.05 GHz', '350 million USD', '0.5 W/mm²')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if unit == "1/s" and abs(value) >= LARGE:
        return f"{number(value / GIGA)} GHz"
    if unit == "USD" and abs(value) >= LARGE:
        return f"{number(value / LARGE)} million USD"
    slow = unit not in ("s", "1/s") or (unit == "s" and abs(value) >= DAY_S) or (unit == "1/s" and abs(value) * DAY_S <= 1)
    if unit in PEOPLE and slow:
        factor, said = PEOPLE[unit]
        return f"{number(value * factor)} {said}"
    if unit.partition("/")[0] in ("byte", "FLOP", "s", "W", "J"):
        return units.format_si(value, unit)
    return f"{number(value)} {unit}" if unit not in ("", "1") else number(value)


def percent(share: float, signed: bool = False) -> str:
    """A share as per cent.

    >>> [percent(x, signed=True).replace(NARROW, " ") for x in (0.123, -0.05)]
    ['+12 %', '−5 %']
    >>> percent(0.9986).replace(NARROW, " ")
    '99.9 %'
    """
    hundred = abs(share) * 100
    text = f"{hundred:.2g}" if hundred < NEARLY else f"{hundred:.3g}" if abs(share) < 1 else f"{hundred:,.0f}"
    sign = "−" if share < 0 else ("+" if signed else "")
    return f"{sign}{text}{NARROW}%"


def times(ratio: float, than: str = "") -> str:
    """How much more: in per cent below a factor of two, else as a factor.

    >>> [times(x, "X").replace(NARROW, " ") for x in (1.25, 3.333, 0.75, 1.002)]
    ['25 % more than X', '3.3 times as much as X', '25 % less than X', 'within 1 % of X']
    """
    if abs(ratio - 1) < 0.01:
        return f"within 1 % of {than}" if than else "the same within 1 %"
    if ratio < 2:
        return f"{percent(abs(ratio - 1))} {'more' if ratio > 1 else 'less'}" + (f" than {than}" if than else "")
    return f"{number(ratio, 2)} times as much" + (f" as {than}" if than else "")


def short(name: str) -> str:
    """A chip's name for a crowded figure: capacity and brackets left out.

    >>> short("NVIDIA H100 SXM5 80 GB (PCIe)")
    'NVIDIA H100 SXM5'
    """
    return re.sub(r"\s*\(.*?\)|,?\s*\d+ ?Gi?B\b", "", name).strip() or name


def design_name(v: V.CaseView, design: int) -> str:
    """The chip's name, or family and first digits of the id of a hypothetical one."""
    if v.status[design] == "hypothetical" or not v.chip[design]:
        return f"{glossary.label(str(v.family[design]))} {str(v.ids[design])[:6]}"
    return str(v.chip[design])


def degrees_text(v: V.CaseView, design: int, limit: int) -> str:
    """Degrees of parallelism above 1: ``TP 8 × PP 2``; empty for one chip."""
    degrees = {k.upper(): V.cell(v, k, design, limit) for k in ("tp", "pp", "cp", "dp", "ep")}
    return " × ".join(f"{k} {x:g}" for k, x in degrees.items() if x is not None and x > 1)


def layout(v: V.CaseView, design: int, limit: int) -> str:
    """Layout in one line, degrees of 1 left out: ``16 chips, TP 8 × PP 2, batch 64, fp8 / KV fp8``."""
    chips, batch = V.cell(v, "chips", design, limit), V.cell(v, "batch", design, limit)
    weights, kv = V.cell(v, "format_weights", design, limit), V.cell(v, "format_kv", design, limit)
    pieces = [
        f"{chips:g} chip{'s' if chips != 1 else ''}" if chips else "",
        degrees_text(v, design, limit),
        f"batch {number(batch)}",
        weights or "",
        f"KV {kv}" if kv else "",
    ]
    return ", ".join(p for p in pieces if p)


def speed_range(regime: V.Regime) -> str:
    """Where a regime lies, in token/s/user."""
    slow, fast = number(regime.slow_token_per_s), number(regime.fast_token_per_s)
    return f"at {slow} token/s/user" if slow == fast else f"from {slow} to {fast} token/s/user"


def regimes_sentence(v: V.CaseView) -> str:
    """Who wins at which speed, in one sentence."""
    found = V.regimes(v)
    if not found:
        return "No design meets any of the limits."
    pieces = [
        f"{glossary.label(r.family)} {speed_range(r)} "
        f"({number(r.cost_slow_usd)}{'' if r.cost_slow_usd == r.cost_fast_usd else ' to ' + number(r.cost_fast_usd)} USD/Mtoken)"
        for r in found
    ]
    only = " (the only family here)" if len(set(v.family[v.candidate])) == 1 else ""
    return "Cheapest by promised speed: " + "; ".join(pieces) + only + "."


def winner_sentence(ds: xr.Dataset, v: V.CaseView, limit: int) -> str:
    """Who wins at one limit, by how much, at what cost."""
    ranking = V.winners(v, limit)
    speed = number(1 / v.limits_s[limit])
    promise = f"at {speed} token/s/user or faster (at most {quantity('tpot_limit', v.limits_s[limit])} per token)"
    if not ranking:
        return f"{V.case_name(ds, v.case)}: nothing is feasible {promise}."
    family, _, cost = ranking[0]
    text = f"{V.case_name(ds, v.case)}, {promise}: {glossary.label(family)} is cheapest, {number(cost)} USD per million output tokens"
    if len(ranking) > 1:
        text += f"; the next family, {glossary.label(ranking[1][0])}, costs {times(ranking[1][2] / cost)}"
    return text + "."


def design_sentence(v: V.CaseView, limit: int) -> str:
    """Which design wins at one limit, in which layout; empty where nothing is feasible."""
    ranking = V.winners(v, limit)
    if not ranking:
        return ""
    design = ranking[0][1]
    return f"The design is {design_name(v, design)}: {layout(v, design, limit)}."


def existing_sentence(v: V.CaseView, limit: int) -> str:
    """Where the chips that exist stand against the winner."""
    ranking, best = V.winners(v, limit), V.cheapest_existing(v, limit)
    if best is None:
        return "No existing chip in this study meets the limit."
    cost = float(v.grid(V.COST)[best, limit])
    chip = short(str(v.chip[best]) or str(v.ids[best]))
    if not ranking or not (v.status == "hypothetical").any():
        return f"The cheapest chip that exists is {chip} at {number(cost)} USD/Mtoken."
    return f"Of the chips that exist, {chip} is cheapest at {number(cost)} USD/Mtoken: {times(cost / ranking[0][2], 'the winner')}."


def close_sentence(v: V.CaseView) -> str:
    """At which speeds the choice of family is close; empty if nowhere."""
    found: dict[tuple[str, str], list[str]] = {}
    for limit in sorted(range(len(v.limits_s)), key=lambda t: -v.limits_s[t]):
        ranking = V.winners(v, limit)
        for family, _, cost in ranking[1:]:
            if cost < ranking[0][2] * (1 + CLOSE):
                found.setdefault((family, ranking[0][0]), []).append(number(1 / v.limits_s[limit]))
    if not found:
        return f"At no promised speed does another family come within {percent(CLOSE)} of the cheapest."
    said = [f"{glossary.label(a)} (cheapest: {glossary.label(b)}) at {', '.join(speeds)} token/s/user" for (a, b), speeds in found.items()]
    return f"Within {percent(CLOSE)} of the cheapest: " + "; ".join(said) + "."


def first_token_sentence(ds: xr.Dataset) -> str:
    """The limits on the time to first token, where the study has any."""
    limits = V.attr(ds, "ttft_limit_s", {})
    said = [f"{quantity('ttft_s', float(x))} ({V.name_of(ds, k)})" for k, x in sorted(limits.items())] if isinstance(limits, dict) else []
    return f"The mean time to first token is at most {', '.join(said)}." if said else ""


def below_sentence(v: V.CaseView, limit: int) -> str:
    """Whether weights below 4 bit would change the winner; empty if not."""
    ranking, below = V.winners(v, limit), V.cheapest(v, limit, v.candidate, below_4_bit=True)
    if below is None:
        return ""
    cost = float(v.grid(V.COST)[below, limit])
    if ranking and cost >= ranking[0][2]:
        return ""
    return (
        f"With weights below 4 bit, whose loss of accuracy is not priced here, {glossary.label(str(v.family[below]))} would cost "
        f"{number(cost)} USD/Mtoken; such points are dashed and never win."
    )


def _listed(families: tuple[str, ...]) -> str:
    names = [glossary.label(f) for f in families]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def evidence_sentence(ds: xr.Dataset, v: V.CaseView, limit: int) -> str:
    """Which families rest on measurements and which on assumptions, with the winner's assumed values."""
    known, ranking = V.evidence(ds), V.winners(v, limit)
    text = "Model estimates, not measurements. " if ranking and (v.status == "hypothetical").any() else ""
    if not known.assumed:
        return text.strip()
    fitted = f"Of these families only {_listed(known.fitted)} carries engine constants fitted to measurements; " if known.fitted else ""
    text += fitted + f"those of {_listed(known.assumed)} are assumed"
    if ranking and ranking[0][0] in known.assumed:
        said = [f"{name} {value}" for name, value in assumed_values(ds, ranking[0][0])]
        text += f" ({glossary.label(ranking[0][0])}, values with 90{NARROW}% ranges: {'; '.join(said)})" if said else ""
    return text + "."


ASSUMED = {
    "layer": "fixed time of a layer",
    "compute efficiency of GEMM": "compute efficiency",
    "memory efficiency of GEMM": "memory efficiency",
    "host time of a step": "host time of a step",
    "bandwidth": "bandwidth",
    "heat_stacked": "heat limit",
}


def span(row: dict[str, Any]) -> str:
    """The interval of an assumption, its unit said once; a dash where there is none.

    >>> span({"low": 5e-6, "high": 3e-5, "unit": "s"}), span({"low": 0.6, "high": 0.9}), span({"low": None})
    ('5 to 30 us', '0.6 to 0.9', '–')
    """
    if row.get("low") is None or row.get("high") is None:
        return "–"
    low, high = (physical(row[end], str(row.get("unit", ""))) for end in ("low", "high"))
    same = low.rpartition(" ")[2] == high.rpartition(" ")[2] and " " in low
    return f"{low.rpartition(' ')[0] if same else low} to {high}"


def assumed_values(ds: xr.Dataset, family: str) -> list[tuple[str, str]]:
    """The family's assumptions that a reader should know first, as (name, value with range)."""
    found = {}
    for row in V.attr(ds, "assumptions", []):
        last = V.group_and_value(row["name"])[1]
        if row.get("family") == family and last in ASSUMED and row.get("value"):
            found[last] = (ASSUMED[last], f"{physical(row['value'], str(row.get('unit', '')))} [{span(row)}]")
    return [found[k] for k in ASSUMED if k in found]


def _kept(name: str, cost: float, before: float, after: float) -> str:
    """What is left of a lead over ``name``, whose cost is ``cost``, when one's own goes from ``before`` to ``after``."""
    if cost <= after:
        return f"no lead over {name} would be left"
    share = math.log(cost / after) / math.log(cost / before)
    return f"{name} would still cost {times(cost / after)} ({percent(share)} of the lead survives)"


def survival(ds: xr.Dataset, v: V.CaseView, limit: int) -> tuple[str, ...]:
    """What is left of the winner's lead when its own assumptions turn out badly, in sentences; empty where the result cannot tell."""
    ranking = V.winners(v, limit)
    known = V.worst(ds, v.case, ranking[0][0]) if ranking else None
    spread = V.spread(ds, v.case, ranking[0][0], own=True) if ranking else None
    if not known or not spread:
        return ()
    family, _, cost = ranking[0]
    factor, count = known
    others = [(glossary.label(ranking[1][0]), ranking[1][2])] if len(ranking) > 1 else []
    existing = V.cheapest_existing(v, limit)
    if existing is not None:
        others.append((short(str(v.chip[existing])), float(v.grid(V.COST)[existing, limit])))

    def kept(times_: float) -> str:
        return "; ".join(_kept(name, other, cost, cost * times_) for name, other in others)

    return (
        f"The {count} values that {glossary.label(family)} alone rests on, varied independently over their 90{NARROW}% ranges, "
        f"may raise its cost to {number(cost * spread[1])} USD/Mtoken: {kept(spread[1])}.",
        f"All of them at their unfavourable ends at once: {number(cost * factor)} USD/Mtoken; {kept(factor)}.",
        "First order, from the elasticities: design and layout held fixed, all others at their central values; "
        "shares of a lead are of its logarithm.",
    )


def sureness(ds: xr.Dataset, v: V.CaseView, limit: int) -> str:
    """How far the headline's cost itself may be off: interval from stated ranges, kinds of the values it rests on."""
    rows = V.attr(ds, "assumptions", [])
    kinds = {kind: sum(r.get("kind") == kind for r in rows) for kind in ("estimate", "assumption", "fit", "claim")}
    counted = ", ".join(f"{n} of kind {k}" for k, n in kinds.items() if n)
    text = f"The study rests on {sum(kinds.values())} values that are no datasheet facts ({counted}). " if counted else ""
    ranking = V.winners(v, limit)
    known = V.spread(ds, v.case, ranking[0][0]) if ranking else None
    if not known:
        return text.strip()
    low, high, n = known
    cost = ranking[0][2]
    return text + (
        f"The ranges of the {n} of them whose effect is known, shared ones such as utilisation and prices included, put the winner's "
        f"cost between {number(cost * low)} and {number(cost * high)} USD/Mtoken (90{NARROW}%, first order, independent)."
    )
