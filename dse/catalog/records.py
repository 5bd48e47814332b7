"""What does one catalogue file say, and what is wrong with it?

A TOML text becomes a ``Record`` of plain words (``meta``) and sourced numbers in SI (``values``); every problem is collected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from dse.catalog.schema import CONFIDENCE, EXAMPLES, WITH_INTERVAL, Field, Kind, sign_problem
from dse.errors import InputError, closest
from dse.units import currency_year, dimension, to_si

QUANTITY_KEYS = ("value", "unit", "source", "kind", "low", "high", "where", "as_of", "note")
_ID = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*\Z")
_KEY_ID = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*\Z")  # names of families are Python names too
_TEXT = re.compile(r"\s*([-+]?(?:\d[\d_,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*\Z")


@dataclass(frozen=True)
class Quantity:
    """One number with its source: ``value``, ``low`` and ``high`` in ``unit`` (SI); as written in ``text_value``, ``text_unit``."""

    value: float
    unit: str
    text_value: float
    text_unit: str
    low: float | None
    high: float | None
    source: str
    kind: str
    where: str | None = None
    as_of: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Record:
    """One checked file of the catalogue."""

    id: str
    kind: str
    name: str
    file: str
    meta: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Quantity] = field(default_factory=dict)

    @property
    def aliases(self) -> list[str]:
        return list(self.meta.get("aliases", []))


@dataclass
class Reader:
    """What reading one file needs to know, and the problems found so far."""

    file: str
    kind: Kind
    sources: dict[str, dict[str, str]]
    overlay: bool
    problems: list[str]

    def problem(self, name: str, text: str) -> None:
        self.problems.append(f"{self.file}: {name} — {text}")


def read_record(table: dict[str, Any], reader: Reader) -> Record | None:
    """The record in a parsed TOML table; None (with problems noted in ``reader``) if its id is missing or wrong."""
    meta: dict[str, Any] = {}
    values: dict[str, Quantity] = {}
    for key, raw in table.items():
        _read_field(key, raw, meta, values, reader)
    identity = meta.get("id")
    pattern = _KEY_ID if reader.kind.underscore_ids else _ID
    if not isinstance(identity, str) or not pattern.match(identity):
        reader.problem("id", f"found {identity!r}, allowed lower-case letters and digits with dashes, such as 'nvidia-h100-sxm'")
        return None
    return Record(identity, reader.kind.name, str(meta.get("name", identity)), reader.file, meta, values)


def incomplete(record: Record, kind: Kind) -> list[str]:
    """Problems of a record that lacks a field which its kind needs (one of each group)."""
    have = {*record.meta, *record.values}
    return [
        f"{record.file}: {group[0]} — found nothing, allowed {_wanted(group[0], kind)}"
        + (f" (or {', '.join(group[1:])})" if len(group) > 1 else "")
        for group in kind.needs
        if not have.intersection(group)
    ]


def _wanted(name: str, kind: Kind) -> str:
    spec = kind.find(name)
    if spec is None:
        return "one of " + ", ".join(kind.choices[name]) if name in kind.choices else kind.meta.get(name, "a value")
    return f"{spec.meaning}, such as {EXAMPLES.get(spec.unit, spec.unit)}"


def _read_field(name: str, raw: Any, meta: dict[str, Any], values: dict[str, Quantity], reader: Reader) -> None:
    kind = reader.kind
    spec = kind.find(name)
    if isinstance(raw, dict) and "value" in raw:
        _add_quantity(name, raw, spec, values, reader)
    elif isinstance(raw, dict) and (_has_quantity(raw) or (name not in kind.meta and not kind.plain_tables)):
        for key, inner in raw.items():
            _read_field(f"{name}.{key}", inner, meta, values, reader)
    elif spec is not None:
        _add_plain_number(name, raw, spec, values, reader)
    elif kind.has_meta(name) or kind.plain_tables or (kind.open_meta and not reader.overlay):
        _add_meta(name, raw, meta, reader)
    else:
        reader.problem(name, f"found an unknown field, allowed the fields of {kind.name}{closest(name, kind.names())}")


def _has_quantity(table: dict[str, Any]) -> bool:
    return any(isinstance(inner, dict) and ("value" in inner or _has_quantity(inner)) for inner in table.values())


def _add_meta(name: str, raw: Any, meta: dict[str, Any], reader: Reader) -> None:
    if name in reader.kind.choices and raw not in reader.kind.choices[name]:
        allowed = reader.kind.choices[name]
        reader.problem(name, f"found {raw!r}, allowed {', '.join(allowed)}{closest(str(raw), allowed)}")
    elif name == "aliases" and not (isinstance(raw, list) and all(isinstance(alias, str) for alias in raw)):
        reader.problem(name, f"found {raw!r}, allowed a list of names")
    elif name in ("name", "note", "vendor", "generation", "node") and not isinstance(raw, str):
        reader.problem(name, f"found {raw!r}, allowed text in quotes")
    else:
        meta[name] = raw


def _add_plain_number(name: str, raw: Any, spec: Field, values: dict[str, Quantity], reader: Reader) -> None:
    """A number without a source: a problem, except in an overlay, where it is an assumption of that file."""
    example = EXAMPLES.get(spec.unit, spec.unit)
    if not reader.overlay:
        reader.problem(name, f"found {raw!r}, allowed a number with value, unit, source and kind, such as {example}")
        return
    match = _TEXT.match(raw) if isinstance(raw, str) else None
    if match:
        entry = {"value": float(match.group(1).replace(",", "").replace("_", "")), "unit": match.group(2) or "1"}
        _add_quantity(name, entry, spec, values, reader)
    elif isinstance(raw, int | float) and not isinstance(raw, bool) and spec.unit == "1":
        _add_quantity(name, {"value": raw, "unit": "1"}, spec, values, reader)
    else:
        reader.problem(name, f'found {raw!r}, allowed a number with its unit, such as "{example}"')


def _add_quantity(name: str, entry: dict[str, Any], spec: Field | None, values: dict[str, Quantity], reader: Reader) -> None:
    before = len(reader.problems)
    if spec is None and (not reader.kind.open_fields or (reader.overlay and not reader.kind.plain_tables)):
        names = [*reader.kind.fields, *reader.kind.meta]
        reader.problem(name, f"found an unknown field, allowed the fields of {reader.kind.name}{closest(name, names)}")
        return
    for key in entry:
        if key not in QUANTITY_KEYS:
            reader.problem(name, f"found the key '{key}', allowed {', '.join(QUANTITY_KEYS)}{closest(key, QUANTITY_KEYS)}")
    if reader.overlay:
        entry = {"source": reader.file, "kind": "assumption", **entry}
    else:
        _check_words(name, entry, reader)
    unit = _check_unit(name, entry, spec, reader)
    numbers = _check_numbers(name, entry, spec, reader)
    if len(reader.problems) == before and unit is not None and numbers is not None:
        values[name] = _quantity(entry, unit, numbers)


def _check_words(name: str, entry: dict[str, Any], reader: Reader) -> None:
    """Source and kind of a shipped number."""
    source, kind, note = entry.get("source"), entry.get("kind"), entry.get("note")
    if kind not in CONFIDENCE:
        reader.problem(name, f"found kind {kind!r}, allowed {', '.join(CONFIDENCE)}{closest(str(kind), CONFIDENCE)}")
    if not source or not isinstance(source, str):
        reader.problem(name, 'found no source, allowed a key of sources.bib, or "assumption" or "derived" with a note')
    elif source in ("assumption", "derived"):
        if not note:
            reader.problem(name, f'found source "{source}" without a note, allowed a note that says why or names the arithmetic')
    elif source not in reader.sources:
        reader.problem(name, f"found source '{source}', allowed a key of sources.bib{closest(source, reader.sources)}")
    if kind in WITH_INTERVAL and ("low" not in entry or "high" not in entry):
        reader.problem(name, f"found kind {kind} without low and high, allowed both (90 % interval)")


def _check_unit(name: str, entry: dict[str, Any], spec: Field | None, reader: Reader) -> str | None:
    text = entry.get("unit")
    if not isinstance(text, str):
        reader.problem(name, f"found no unit, allowed one such as {EXAMPLES.get(spec.unit, spec.unit) if spec else 'GB/s'}")
        return None
    try:
        unit = dimension(text)
    except InputError as error:
        reader.problem(name, error.problems[0].removeprefix("unit — "))
        return None
    if spec is not None and unit != spec.unit and spec.unit != "*":
        reader.problem(name, f"found '{text}' ({unit}), allowed a unit of {spec.unit}, such as {EXAMPLES.get(spec.unit, spec.unit)}")
        return None
    if "USD" in text and not reader.overlay:
        if currency_year(text) is None:
            reader.problem(name, f"found '{text}', allowed dollars of a stated year, such as {text.replace('USD', 'USD_2026')}")
        if "as_of" not in entry:
            reader.problem(name, 'found no as_of, allowed the date of the price, such as as_of = "2026-04"')
    return unit


def _check_numbers(name: str, entry: dict[str, Any], spec: Field | None, reader: Reader) -> tuple[float, ...] | None:
    """``(value,)`` or ``(value, low, high)`` as written; None if one of them is wrong."""
    fine = True
    for key in ("value", "low", "high"):
        if key not in entry:
            continue
        number = entry[key]
        wrong: str | None = "a number"
        if isinstance(number, int | float) and not isinstance(number, bool):
            wrong = sign_problem(float(number), spec.sign if spec else "any")
        if wrong:
            fine = False
            reader.problem(name, f"found {key} = {number!r}, allowed {wrong}")
    if not fine:
        return None
    if ("low" in entry) != ("high" in entry):
        reader.problem(name, "found one of low and high, allowed both or none")
        return None
    if "low" not in entry:
        return (float(entry["value"]),)
    value, low, high = float(entry["value"]), float(entry["low"]), float(entry["high"])
    if not low <= value <= high:
        reader.problem(name, f"found low {low:g}, value {value:g}, high {high:g}, allowed low <= value <= high")
        return None
    return value, low, high


def _quantity(entry: dict[str, Any], unit: str, numbers: tuple[float, ...]) -> Quantity:
    text = entry["unit"]
    low, high = (to_si(numbers[1], text), to_si(numbers[2], text)) if len(numbers) > 1 else (None, None)
    words = {key: str(entry[key]) for key in ("where", "as_of", "note") if key in entry}
    return Quantity(to_si(numbers[0], text), unit, numbers[0], text, low, high, entry["source"], entry["kind"], **words)
