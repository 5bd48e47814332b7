"""Where do area, power and cost of a real chip come from? Each part with its share, its 90 % interval, and the constants that set it.

A constant is moved to its low and its high end, one at a time; a part's interval is the root of the summed squares of what that does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from dse.catalog import Catalog, Quantity, Record
from dse.errors import InputError, closest
from dse.validate.silicon.chips import Rebuilt, rebuild
from dse.validate.silicon.floor import constants

SWITCHES = ("poisson", "murphy")  # choices of a model, not uncertain numbers
FAMILIES = {"gpu": "hbm_gpu", "spatial": "sram", "burned_in": "burned_in"}
SHOWN = 3  # constants named for each part
LEAST = 1e-3  # of a part, below which a constant is not said to move it
WHOLE = "whole"
TITLES = {"area": "area of one die, mm2", "power": "power at its limit, W", "cost": "cost of one package, USD"}


@dataclass
class Part:
    """One part of a tree: value, squared deviations, and what moves it."""

    value: float
    down: float = 0.0
    up: float = 0.0
    moved_by: list[tuple[float, str]] = field(default_factory=list)


def design_of(catalog: Catalog, chip: str) -> Record | None:
    """The record of design variables of a chip, or None."""
    for record in catalog.records["rebuild"].values():
        if chip in (record.meta.get("chip"), record.id) and record.meta["style"] in FAMILIES:
            return record
    return None


def _entries(catalog: Catalog, record: Record) -> Iterator[tuple[str, str]]:
    """Kind and id of the files that the rebuilding of this chip reads."""
    yield from (("technology", name) for name in ("logic", "link", "packaging", "power"))
    yield from (("memories", name) for name in ("sram", "rom", str(record.meta.get("memory", ""))) if name in catalog.records["memories"])
    yield from (("processes", str(record.meta[key])) for key in ("node", "base_node") if key in record.meta)
    yield "families", FAMILIES[str(record.meta["style"])]
    yield from (("rebuild", name) for name in ("constants", record.id))


def _moved(catalog: Catalog, kind: str, identity: str, name: str, value: float) -> Catalog:
    """The catalogue with one number changed."""
    record = catalog.records[kind][identity]
    changed = replace(record, values={**record.values, name: replace(record.values[name], value=value)})
    return Catalog({**catalog.records, kind: {**catalog.records[kind], identity: changed}}, catalog.sources, catalog.files)


def _trees(made: Rebuilt) -> dict[str, dict[str, float]]:
    parts = {"area": made.area_mm2, "power": made.power_w, "cost": made.cost_usd}
    return {tree: {**values, WHOLE: sum(values.values())} for tree, values in parts.items() if values}


def trees(catalog: Catalog, chip: str) -> dict[str, dict[str, Part]]:
    """Area, power and cost of a real chip in parts, with intervals.

    Raises:
        InputError: no design variables of that chip are in the catalogue.
    """
    record = design_of(catalog, chip)
    if record is None:
        known = [str(r.meta["chip"]) for r in catalog.records["rebuild"].values() if "chip" in r.meta]
        raise InputError(f"explain — found '{chip}', allowed a chip with design variables: {', '.join(known)}{closest(chip, known)}")
    middle = _trees(rebuild(record, constants(catalog)))
    parts = {tree: {name: Part(value) for name, value in values.items()} for tree, values in middle.items()}
    for kind, identity in dict.fromkeys(_entries(catalog, record)):
        for name, quantity in catalog.records[kind][identity].values.items():
            if quantity.low is None or quantity.high is None or name in SWITCHES or name.startswith(("range.", "published.")):
                continue
            _move(catalog, record, parts, (kind, identity, name), quantity)
    return parts


def _move(catalog: Catalog, record: Record, parts: dict[str, dict[str, Part]], where: tuple[str, str, str], quantity: Quantity) -> None:
    """Add what one constant does to every part."""
    ends = []
    for value in (quantity.low, quantity.high):
        changed = _moved(catalog, *where, float(value or 0.0))
        same = next(r for r in changed.records["rebuild"].values() if r.id == record.id)
        ends.append(_trees(rebuild(same, constants(changed))))
    for tree, values in parts.items():
        for name, part in values.items():
            away = [end[tree].get(name, 0.0) - part.value for end in ends]
            part.down += min(0.0, *away) ** 2
            part.up += max(0.0, *away) ** 2
            if max(map(abs, away)) > LEAST * max(abs(part.value), LEAST):
                label = f"{where[0]}/{where[1]}: {where[2]} ({quantity.text_value:g} {quantity.text_unit}, {quantity.source})"
                part.moved_by.append((max(map(abs, away)), label))


def text(catalog: Catalog, chip: str) -> str:
    """The trees as lines for a terminal."""
    lines: list[str] = []
    for tree, values in trees(catalog, chip).items():
        whole = values[WHOLE].value
        lines.append(f"{TITLES[tree]}: {_interval(values[WHOLE])}")
        for name, part in values.items():
            if name == WHOLE or not part.value:
                continue
            lines.append(f"  {name:<22} {_interval(part):<28} {part.value / whole:>5.0%}")
            lines += [f"      {label}" for _, label in sorted(part.moved_by, reverse=True)[:SHOWN]]
    return "\n".join(lines)


def _interval(part: Part) -> str:
    return f"{part.value:,.4g} ({max(part.value - part.down**0.5, 0.0):,.4g} to {part.value + part.up**0.5:,.4g})"
