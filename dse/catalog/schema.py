"""Which fields may a catalogue file have, in which dimension, and what do they mean?

The tables are data (``schema.toml``); they are what a loader checks against and what ``dse catalog check`` and ``dse explain`` print.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

CONFIDENCE = ("datasheet", "measured", "fit", "estimate", "assumption", "claim")
WITH_INTERVAL = ("fit", "estimate", "assumption")
COMMON_META = ("id", "name", "kind", "aliases", "note")
EXAMPLES = {
    "FLOP/s": "989 TFLOP/s",
    "byte/s": "3.35 TB/s",
    "byte": "80 GB",
    "W": "700 W",
    "s": "25 us",
    "USD": "27500 USD_2026",
    "USD/s": "1.30 USD_2026/hour",
    "1/s": "1.755 GHz",
    "mm2": "814 mm2",
    "J/FLOP": "0.49 pJ/FLOP",
    "J/byte": "5.5 pJ/bit",
    "1": '8 (unit "1")',
    "W/mm2": "0.08 W/mm2",
    "USD/mm2": "0.38 USD_2026/mm2",
    "USD/byte": "15 USD_2026/GB",
    "USD/J": "0.08 USD_2026/kWh",
    "J": "10 pJ",
    "m": "11 mm",
    "V": "0.75 V",
}


@dataclass(frozen=True)
class Field:
    """One number of a kind: its SI unit, the values that make sense (positive, nonnegative, share, any) and its meaning."""

    unit: str
    sign: str
    meaning: str


@dataclass(frozen=True)
class Kind:
    """One folder of the catalogue."""

    name: str
    meaning: str
    fields: dict[str, Field] = field(default_factory=dict)  # names may end in a pattern, e.g. ``leakage.*``
    meta: dict[str, str] = field(default_factory=dict)  # plain strings, lists and whole numbers: name -> meaning
    choices: dict[str, list[str]] = field(default_factory=dict)
    needs: tuple[tuple[str, ...], ...] = ()  # of each group of fields one is needed
    expected: tuple[str, ...] = ()  # what a good description has; listed where missing
    open_fields: bool = False  # numbers of any name and unit
    open_meta: bool = False  # plain values of any name
    plain_tables: bool = False  # tables of plain numbers under one stated source (architectures)
    underscore_ids: bool = False  # ids are names of families, which are Python names too

    def find(self, name: str) -> Field | None:
        """The field called ``name``; an exact name wins over a pattern."""
        if name in self.fields:
            return self.fields[name]
        return next((spec for pattern, spec in self.fields.items() if "*" in pattern and fnmatchcase(name, pattern)), None)

    def has_meta(self, name: str) -> bool:
        return name in COMMON_META or any(fnmatchcase(name, pattern) for pattern in self.meta)

    def names(self) -> list[str]:
        return [*COMMON_META, *self.meta, *self.fields]


@cache
def kinds() -> dict[str, Kind]:
    """All kinds by name, read from ``schema.toml`` beside this file."""
    table = tomllib.loads((Path(__file__).parent / "schema.toml").read_text(encoding="utf-8"))
    return {name: _kind(name, entry) for name, entry in table.items()}


def _kind(name: str, entry: dict) -> Kind:
    return Kind(
        name=name,
        meaning=entry["meaning"],
        fields={key: Field(*row) for key, row in entry.get("fields", {}).items()},
        meta=entry.get("meta", {}),
        choices=entry.get("choices", {}),
        needs=tuple(tuple(group) for group in entry.get("needs", ())),
        expected=tuple(entry.get("expected", ())),
        open_fields=entry.get("open_fields", False),
        open_meta=entry.get("open_meta", False),
        plain_tables=entry.get("plain_tables", False),
        underscore_ids=entry.get("underscore_ids", False),
    )


def sign_problem(value: float, sign: str) -> str | None:
    """What is wrong with a number, or None."""
    if not math.isfinite(value):
        return "a finite number"
    if sign == "positive" and value <= 0:
        return "a number above 0"
    if sign == "nonnegative" and value < 0:
        return "0 or more"
    if sign == "share" and not 0 <= value <= 1:
        return "0 to 1"
    return None
