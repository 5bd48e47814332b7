"""What does each name mean? Reads glossary.toml into frozen records: entries, components, families, formats.

Axis labels, table heads, tooltips and directions of better come from here and from nowhere else. Pure and cached.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from dse.errors import InputError, closest

T = TypeVar("T")
BETTER = ("lower", "higher", "none")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name of the contract. ``unit`` is what is stored (SI); ``display_unit`` what people see after ``display_scale``."""

    name: str
    label: str
    unit: str
    definition: str
    better: str = "none"
    symbol: str = ""
    display_unit: str = ""
    display_scale: float = 1.0
    equation: str = ""
    references: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Component:
    """A part of a breakdown."""

    name: str
    label: str
    colour: str
    definition: str


@dataclass(frozen=True, kw_only=True)
class FamilyStyle:
    """A chip family as pictures and tables show it."""

    name: str
    label: str
    colour: str
    marker: str
    definition: str


@dataclass(frozen=True, kw_only=True)
class FormatRule:
    """A weight format and what it implies (see the head of the section in glossary.toml)."""

    name: str
    bits: int
    weight_byte: float
    kernel: str
    compute: str
    compute_gpu: str
    without: str
    kv: str
    reason: str


@dataclass(frozen=True)
class Glossary:
    """All names, by kind."""

    entries: Mapping[str, Entry]
    components: Mapping[str, Component]
    families: Mapping[str, FamilyStyle]
    formats: Mapping[str, FormatRule]


def _records(table: Mapping[str, Any], section: str, cls: Callable[..., T], problems: list[str]) -> Mapping[str, T]:
    """Turn one section into records; problems are collected, not raised."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    required = {n for n, f in fields.items() if f.default is dataclasses.MISSING and n != "name"}
    records: dict[str, T] = {}
    for name, row in table.get(section, {}).items():
        where = f"glossary.toml: {section}.{name}"
        unknown, missing = set(row) - set(fields), required - set(row)
        problems += [f"{where} — found {k!r}, allowed {sorted(fields)}{closest(k, fields)}" for k in sorted(unknown)]
        problems += [f"{where} — {k!r} is missing" for k in sorted(missing)]
        if row.get("better", "none") not in BETTER:
            problems.append(f"{where}.better — found {row['better']!r}, allowed {list(BETTER)}")
        if not unknown and not missing:
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
            records[name] = cls(name=name, **values)
    return MappingProxyType(records)


def parse(text: str) -> Glossary:
    """Read the text of a glossary; raises InputError with every problem found."""
    table = tomllib.loads(text)
    problems: list[str] = []
    entries = _records(table, "entry", Entry, problems)
    components = _records(table, "component", Component, problems)
    families = _records(table, "family", FamilyStyle, problems)
    formats = _records(table, "format", FormatRule, problems)
    if problems:
        raise InputError(problems)
    return Glossary(entries, components, families, formats)


@functools.cache
def load() -> Glossary:
    """The glossary of the package."""
    return parse((Path(__file__).parent / "glossary.toml").read_text(encoding="utf-8"))


def find(name: str) -> Entry | None:
    """The entry of a name; ``layout.tp``, ``format.kv`` and ``time_s.compute`` are found by their parts. None if unknown.

    >>> find("layout.tp").label
    'Tensor parallel'
    >>> find("time_s.compute").name
    'time_s'
    """
    entries = load().entries
    parts = name.split(".")
    for candidate in (name, name.replace(".", "_"), parts[-1] if parts[0] in ("layout", "design") else name, parts[0]):
        if candidate in entries:
            return entries[candidate]
    return None


def label(name: str) -> str:
    """Short name for people, of an entry, component or family; an unknown name loses its underscores.

    >>> label("tpot_s"), label("hbm_gpu"), label("kv"), label("cache_share")
    ('Time per output token', 'HBM GPU', 'KV cache', 'cache share')
    """
    glossary = load()
    for table in (glossary.entries, glossary.families, glossary.components):
        if name in table:
            return table[name].label  # type: ignore[attr-defined]
    return name.replace("_", " ")


def part(name: str) -> str:
    """Short name of a part of a breakdown; an unknown one loses its underscores.

    >>> part("kv"), part("sram"), part("hbm_phy")
    ('KV cache', 'SRAM', 'hbm phy')
    """
    known = load().components.get(name)
    return known.label if known else name.replace("_", " ")


def unit(name: str) -> str:
    """The unit in which people see a name (empty for pure numbers).

    >>> unit("tpot_s"), unit("mfu")
    ('ms', '')
    """
    entry = find(name)
    shown = (entry.display_unit or entry.unit) if entry else ""
    return "" if shown == "1" else shown


def scale(name: str) -> float:
    """Factor from the stored value (SI) to the shown one.

    >>> scale("tpot_s")
    1000.0
    """
    entry = find(name)
    return entry.display_scale if entry else 1.0


def better(name: str) -> str:
    """``lower``, ``higher`` or ``none``.

    >>> better("usd_per_million_output_token")
    'lower'
    """
    entry = find(name)
    return entry.better if entry else "none"


def axis(name: str) -> str:
    """Title of an axis or table column: label and unit.

    >>> axis("interactivity_token_per_s")
    'Interactivity (token/s/user)'
    """
    shown = unit(name)
    return f"{label(name)} ({shown})" if shown else label(name)


def attrs(name: str) -> dict[str, str]:
    """Attributes of a Dataset variable: ``units, long_name, better`` and, where known, ``symbol, equation, references``.

    >>> attrs("mfu")["long_name"]
    'Model FLOP utilisation, decoding'
    """
    entry = find(name)
    if entry is None:
        return {"units": "1", "long_name": label(name), "better": "none"}
    rest = {"symbol": entry.symbol, "equation": entry.equation, "references": ", ".join(entry.references)}
    return {"units": entry.unit, "long_name": entry.label, "better": entry.better} | {k: v for k, v in rest.items() if v}


def _known() -> list[str]:
    glossary = load()
    return [*glossary.entries, *glossary.components, *glossary.families, *glossary.formats]


def _explain_format(rule: FormatRule) -> list[str]:
    gpu = "" if rule.compute_gpu == rule.compute else f" ({rule.compute_gpu} in GPU kernels)"
    lacking = "" if rule.without == rule.compute else f"; {rule.without} on a chip without it"
    return [
        f"{rule.name}: weight format of {rule.bits} bit",
        f"  weights {rule.weight_byte:g} byte each, scales included; kernel class {rule.kernel}",
        f"  arithmetic {rule.compute}{gpu}{lacking}; KV cache {rule.kv} unless asked otherwise",
        f"  why: {rule.reason}",
    ]


def explain(name: str) -> str:
    """Everything the glossary says of a name (entry, component, family or format), as text. Raises InputError if unknown.

    >>> print(explain("int4").splitlines()[2])
      arithmetic int8 (bf16 in GPU kernels); bf16 on a chip without it; KV cache fp8 unless asked otherwise
    """
    glossary = load()
    blocks: list[str] = []
    entry = find(name)
    if entry is not None:
        symbol = f", {entry.symbol}" if entry.symbol else ""
        shown = f" (shown in {entry.display_unit})" if entry.display_unit else ""
        blocks += [f"{entry.name}: {entry.label}{symbol}", f"  unit {entry.unit}{shown}; better: {entry.better}", f"  {entry.definition}"]
        blocks += [f"  equation: {entry.equation}"] if entry.equation else []
        blocks += [f"  references: {', '.join(entry.references)}"] if entry.references else []
    last = name.split(".")[-1]
    for table, kind in ((glossary.components, "part of a breakdown"), (glossary.families, "chip family")):
        if last in table:
            record = table[last]
            blocks += [f"{last}: {record.label}, {kind}", f"  {record.definition}"]  # type: ignore[attr-defined]
    if last in glossary.formats:
        blocks += _explain_format(glossary.formats[last])
    if not blocks:
        raise InputError(f"{name} — not in the glossary{closest(name, _known())}")
    return "\n".join(blocks)
