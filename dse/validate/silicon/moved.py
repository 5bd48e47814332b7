"""How much does each constant move each part of a breakdown? Area, power and cost as trees with intervals and the constants behind them.

A constant is moved to its low and its high end, one at a time; a part's interval is the root of the summed squares of what that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from dse.catalog import Catalog, Quantity

SWITCHES = ("poisson", "murphy")  # choices of a model, not uncertain numbers
NOT_CONSTANTS = ("range.", "published.")
SHOWN = 3  # constants named for each part
LEAST = 1e-3  # of a part, below which a constant is not said to move it
WHOLE = "whole"

Trees = dict[str, dict[str, float]]
Build = Callable[[Catalog], Trees]


@dataclass
class Part:
    """One part of a tree: value, squared deviations, and what moves it."""

    value: float
    down: float = 0.0
    up: float = 0.0
    moved_by: list[tuple[float, str]] = field(default_factory=list)


def with_whole(found: Trees) -> Trees:
    """The trees that are not empty, each with the sum of its parts."""
    return {tree: {**parts, WHOLE: sum(parts.values())} for tree, parts in found.items() if parts}


def parts_of(catalog: Catalog, build: Build, entries: Iterable[tuple[str, str]]) -> dict[str, dict[str, Part]]:
    """Every part of every tree that ``build`` makes of a catalogue, with what moves it.

    Args: the catalogue; what makes trees of one; kind and id of the files whose numbers ``build`` reads.
    """
    parts = {tree: {name: Part(value) for name, value in values.items()} for tree, values in with_whole(build(catalog)).items()}
    for kind, identity in dict.fromkeys(entries):
        for name, quantity in catalog.records[kind][identity].values.items():
            if quantity.low is None or quantity.high is None or quantity.low == quantity.high:
                continue
            if name not in SWITCHES and not name.startswith(NOT_CONSTANTS):
                _move(catalog, build, parts, (kind, identity, name), quantity)
    return parts


def _move(catalog: Catalog, build: Build, parts: dict[str, dict[str, Part]], where: tuple[str, str, str], quantity: Quantity) -> None:
    """Add what one constant does to every part."""
    ends = [with_whole(build(changed(catalog, *where, float(value or 0.0)))) for value in (quantity.low, quantity.high)]
    for tree, values in parts.items():
        for name, part in values.items():
            away = [end[tree].get(name, 0.0) - part.value for end in ends]
            part.down += min(0.0, *away) ** 2
            part.up += max(0.0, *away) ** 2
            if max(map(abs, away)) > LEAST * max(abs(part.value), LEAST):
                label = f"{where[0]}/{where[1]}: {where[2]} ({quantity.text_value:g} {quantity.text_unit}, {quantity.source})"
                part.moved_by.append((max(map(abs, away)), label))


def changed(catalog: Catalog, kind: str, identity: str, name: str, value: float) -> Catalog:
    """The catalogue with one number changed."""
    record = catalog.records[kind][identity]
    other = replace(record, values={**record.values, name: replace(record.values[name], value=value)})
    return Catalog({**catalog.records, kind: {**catalog.records[kind], identity: other}}, catalog.sources, catalog.files)


def text(parts: dict[str, dict[str, Part]], titles: dict[str, str]) -> str:
    """The trees as lines for a terminal: value, 90 % interval, share, and what moves it most."""
    lines: list[str] = []
    for tree, values in parts.items():
        whole = values[WHOLE].value
        lines.append(f"{titles[tree]}: {_interval(values[WHOLE])}")
        for name, part in values.items():
            if name == WHOLE or not part.value:
                continue
            lines.append(f"  {name:<22} {_interval(part):<28} {part.value / whole:>5.0%}")
            lines += [f"      {label}" for _, label in sorted(part.moved_by, reverse=True)[:SHOWN]]
    return "\n".join(lines)


def _interval(part: Part) -> str:
    return f"{part.value:,.4g} ({max(part.value - part.down**0.5, 0.0):,.4g} to {part.value + part.up**0.5:,.4g})"
