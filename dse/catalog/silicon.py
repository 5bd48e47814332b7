"""What do the files of processes, memories, technology and families say as pytrees?

A leaf ``speed_unit`` of a dataclass is the number called ``speed`` in the file (or ``group.speed``); the ending names the SI unit,
which is checked. What a file leaves out, or says in another dimension, is collected and raised at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dse import types
from dse.errors import InputError, closest
from dse.types import FamilyConstants, Kernels, MemoryTechnology, Process, Technology
from dse.units import dimension

# ending of a leaf's name -> (a unit of that dimension, factor from SI to the leaf); the first that matches counts
ENDINGS = {
    "transistor_s_per_byte": ("transistor*s/byte", 1.0),
    "transistor_per_mm2": ("transistor/mm2", 1.0),
    "mm2_s_per_byte": ("mm2*s/byte", 1.0),
    "mm2_per_byte": ("mm2/byte", 1.0),
    "byte_per_s_mm2": ("byte/s/mm2", 1.0),
    "byte_per_s_m": ("byte/s/m", 1.0),
    "byte_per_mm2": ("byte/mm2", 1.0),
    "byte_per_s": ("byte/s", 1.0),
    "usd_per_mm2": ("USD/mm2", 1.0),
    "usd_per_byte": ("USD/byte", 1.0),
    "defects_per_mm2": ("1/mm2", 1.0),
    "w_per_mm2": ("W/mm2", 1.0),
    "j_per_byte": ("J/byte", 1.0),
    "flop_j": ("J/FLOP", 1.0),
    "transistor": ("transistor", 1.0),
    "mm2": ("mm2", 1.0),
    "mm": ("m", 1e3),
    "byte": ("byte", 1.0),
    "usd": ("USD", 1.0),
    "hz": ("1/s", 1.0),
    "j": ("J", 1.0),
    "per_v": ("1/V", 1.0),
    "v": ("V", 1.0),
    "w": ("W", 1.0),
    "m": ("m", 1.0),
    "s": ("s", 1.0),
}
NAMES = {  # leaves whose whole name is an ending
    "defects_per_mm2": "defects",
    "flop_j": "flop",
    "j_per_byte": "energy",
    "usd_per_byte": "price",
    "byte_per_mm2": "density",
    "byte_per_s_mm2": "bandwidth",
}
GROUPS = {
    "logic": types.Logic,
    "sram": types.Sram,
    "rom": types.Rom,
    "stacked": types.StackedDram,
    "link": types.LinkTechnology,
    "power": types.PowerTechnology,
    "packaging": types.Packaging,
}
FILES = {"sram": ("memories", "sram"), "rom": ("memories", "rom"), "stacked": ("memories", "stacked-dram")}  # else technology/GROUP
NOT_FROM_FILE = ("special", "kernels")


def field_of(leaf: str) -> tuple[str, str, float]:
    """Name in the file, unit and factor of a leaf.

    >>> field_of("wafer_usd"), field_of("edge_m"), field_of("energy")
    (('wafer', 'USD', 1.0), ('edge', 'm', 1.0), ('energy', '1', 1.0))
    """
    for ending, (unit, factor) in ENDINGS.items():
        if leaf == ending or leaf.endswith("_" + ending):
            return NAMES.get(leaf, leaf.removesuffix("_" + ending)), unit, factor
    return leaf, "1", 1.0


def _leaves(cls: type, record: Any, overrides: Mapping[str, float], problems: list[str]) -> dict[str, float]:
    out = {}
    for spec in dataclasses.fields(cls):
        if spec.name in NOT_FROM_FILE:
            continue
        name, unit, factor = field_of(spec.name)
        wanted = f"allowed a unit such as {unit}"
        quantity = record.values.get(name)
        if quantity is None:
            problems.append(f"{record.file}: {name} — found nothing, {wanted}{closest(name, record.values)}")
        elif quantity.unit != dimension(unit):
            problems.append(f"{record.file}: {name} — found {quantity.text_unit} ({quantity.unit}), {wanted}")
        else:
            out[spec.name] = overrides.get(name, quantity.value) * factor
    return out


def _build(cls: Any, record: Any, overrides: Mapping[str, float] | None = None, **more: Any) -> Any:
    problems: list[str] = []
    leaves = _leaves(cls, record, overrides or {}, problems)
    if problems:
        raise InputError(problems)
    return cls(**leaves, **more)


def build_process(record: Any, overrides: Mapping[str, float] | None = None) -> Process:
    """A logic process. ``overrides``: field of the file -> SI value, for what-if and uncertainty. Raises InputError."""
    return _build(Process, record, overrides)


def build_memory(record: Any, overrides: Mapping[str, float] | None = None) -> Any:
    """An off-chip memory as MemoryTechnology; SRAM, ROM and stacked DRAM as their own dataclasses. Raises InputError.

    A memory of which only facts are known (no family builds it) is a mapping from field to SI value.
    """
    own = {identity: GROUPS[group] for group, (_, identity) in FILES.items()}
    if record.id not in own and record.id.startswith("nvm-"):
        return {name: quantity.value for name, quantity in record.values.items()}
    return _build(own.get(record.id, MemoryTechnology), record, overrides)


def is_offchip(record: Any) -> bool:
    """Does this memory file describe sites beside the logic die (HBM, GDDR, LPDDR)?"""
    return "bandwidth" in record.values and "edge" in record.values


def build_technology(records: Mapping[str, Mapping[str, Any]]) -> Technology:
    """All global constants, from ``catalog.records``: kind -> id -> Record. Raises InputError with every problem."""
    problems: list[str] = []
    groups: dict[str, Any] = {}
    for group, cls in GROUPS.items():
        kind, identity = FILES.get(group, ("technology", group))
        record = records[kind].get(identity)
        if record is None:
            problems.append(f"hw_catalog/{kind}/{identity}.toml: file — found nothing, allowed the constants of {group}")
            continue
        leaves = _leaves(cls, record, {}, problems)
        groups[group] = None if problems else cls(**leaves)
    if problems:
        raise InputError(problems)
    memories = {identity: build_memory(record) for identity, record in records["memories"].items() if is_offchip(record)}
    return Technology(memories=memories, **groups)


def build_family(record: Any, kernels: Kernels | None = None, overrides: Mapping[str, float] | None = None) -> FamilyConstants:
    """Constants of a family. Numbers of the file under ``special.`` become the mapping ``special``. Raises InputError."""
    changed = overrides or {}
    special = {
        name.removeprefix("special."): changed.get(name, quantity.value)
        for name, quantity in record.values.items()
        if name.startswith("special.")
    }
    return _build(FamilyConstants, record, changed, special=special, kernels=kernels)


def build_range(record: Any) -> dict[str, dict[str, Any]]:
    """Design range of a family, by variable: default, low and high of a number; names ``allowed`` (first: default) of a choice."""
    out: dict[str, dict[str, Any]] = {}
    for name, quantity in record.values.items():
        if name.startswith("range."):
            out[name.removeprefix("range.")] = {"default": quantity.value, "low": quantity.low, "high": quantity.high}
    for name, allowed in record.meta.items():
        if name.startswith("allowed."):
            out[name.removeprefix("allowed.")] = {"allowed": tuple(allowed)}
    return out
