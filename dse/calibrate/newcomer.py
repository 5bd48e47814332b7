"""How does a user calibrate a chip of their own on a handful of measured rows?

The rows of the new chip are fitted together with the shipped ones: its constants start from those of its generation (or vendor) and move
as far as its rows ask. They go into a constants file of its own, in the user's catalogue folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dse.calibrate.cross import few_rows
from dse.calibrate.files import put_lines, tables
from dse.calibrate.fit import Fitted, Members
from dse.calibrate.plan import Plan
from dse.catalog import Catalog
from dse.validate.resolve import Chips, Resolved
from dse.validate.rows import read_folder

FEWEST = 2  # rows of a chip in a fit, of which one can be shown and another predicted

Curve = list[tuple[int, float]]  # rows of the new chip in the fit, and the median error of its other rows


@dataclass(frozen=True)
class Newcomer:
    """A chip with measured rows that no fit of the plan names, by the file that its constants go to."""

    file: str
    on: Resolved


def newcomers(folder: Path, catalog: Catalog, plan: Plan) -> list[Newcomer]:
    """Chips of a folder of operator rows that the plan does not fit.

    Raises:
        InputError: the folder cannot be read.
    """
    rows, peaks = read_folder(folder)
    chips, known = Chips(catalog, peaks), set(plan.chips.values())
    names = dict.fromkeys(row.get("chip", "") for each in rows.values() for row in each if row.get("level") == "op")
    found = {on.id: on for on in map(chips.find, names) if on is not None and on.id not in known}
    return [Newcomer(identity.lower().replace(" ", "-"), on) for identity, on in sorted(found.items())]


def _group(plan: Plan, donor: str) -> str:
    """The group of the chip whose constants a newcomer would borrow, or of the first chip that its vendor's file summarises."""
    members = [donor] if donor in plan.chips else plan.pools.get(donor, [])
    groups = [plan.group_of(m) for m in members]
    return max(groups, key=groups.count) if groups else next(iter(plan.groups))


def with_newcomers(plan: Plan, found: Sequence[Newcomer]) -> Plan:
    """The plan with new chips among those of their group, each with offsets of its own."""
    groups = {name: list(members) for name, members in plan.groups.items()}
    chips, generations = dict(plan.chips), dict(plan.generations)
    for new in found:
        groups[_group(plan, new.on.constants.id)].append(new.file)
        chips[new.file] = new.on.id
        generations[new.file] = plan.generations.get(new.on.constants.id, new.file)
    return replace(plan, groups=groups, chips=chips, generations=generations, new=frozenset(new.file for new in found))


def curves(chosen: Sequence[Members], plan: Plan, files: Sequence[str]) -> dict[str, dict[str, Curve]]:
    """By chip and part: the error against how many of its rows are fitted (0, 3, 8 and 20, as far as there are twice as many)."""
    made: dict[str, dict[str, Curve]] = {file: {} for file in files}
    for members in chosen:
        for (path, chip), curve in few_rows(members, plan, FEWEST, files).items():
            made[chip][path] = curve
    return made


def _head(new: Newcomer) -> str:
    lines = (f'id = "{new.file}"', f'name = "{new.on.id}: fitted to measured rows"', f'applies_to_chips = ["{new.on.id}"]')
    return "\n".join((*lines, f'base = "{new.on.constants.id}"', ""))


def write_newcomers(results: Sequence[Fitted], plan: Plan, found: Sequence[Newcomer], folder: Path) -> list[Path]:
    """Put the constants of new chips into files of the user's catalogue folder; what was not measured stays with ``base``."""
    place = folder / "constants"
    place.mkdir(parents=True, exist_ok=True)
    files = {new.file for new in found}
    own = [
        Fitted(r.fit, {f: r.constants[f] for f in files & set(r.constants)}, {f: r.residuals[f] for f in files & set(r.residuals)})
        for r in results
    ]
    for new in found:
        path = place / f"{new.file}.toml"
        if not path.exists():
            path.write_text(_head(new) + "\n", encoding="utf-8")
    return put_lines(tables(own, plan, pools=False), place)
