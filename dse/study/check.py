"""Does the catalogue have what a study names? Every missing name, chip that cannot be built and wrong design range, one line each."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from dse.errors import InputError
from dse.study.analyses import named
from dse.study.record import Study

if TYPE_CHECKING:
    from dse.catalog import Catalog


def check_study(study: Study, catalog: Catalog) -> list[str]:
    """Every name of the study that the catalogue does not have, every chip it cannot build, every wrong design range; one line each."""
    problems = [
        *_ids(study, catalog, "models", "models", study.models),
        *_ids(study, catalog, "workloads", "workloads", study.workloads),
        *_ids(study, catalog, "scenarios", "prices", study.scenarios),
        *_ids(study, catalog, "real_chips", "chips", study.real_chips),
    ]
    for name in study.workloads:
        record = catalog.records["workloads"].get(name)
        if record is not None and name not in study.limits.ttft and "ttft_limit" not in record.values:
            where = f"{study.label}: limits.ttft.{name}"
            problems.append(f'{where} — found nothing, allowed a time such as "2 s" (the workload has no limit of its own)')
    for i, analysis in enumerate(study.analyses):
        problems += [line for kind, ids in named(analysis).items() for line in _ids(study, catalog, f"analyses[{i}]", kind, ids)]
    problems += [line for chip in study.real_chips if chip in catalog.records["chips"] for line in _buildable(study, catalog, chip)]
    return problems + [line for family in study.families for line in _space(study, catalog, family)]


def _ids(study: Study, catalog: Catalog, where: str, kind: str, names: tuple[str, ...]) -> list[str]:
    records = catalog.records[kind]
    alias = {alias.lower(): record.id for record in records.values() for alias in record.aliases}
    known = [*records, *alias]

    def meant(name: str) -> str:
        if name.lower() in alias:
            return f"; did you mean '{alias[name.lower()]}'?"
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        return f"; did you mean '{alias.get(near[0], near[0])}'?" if near else ""

    allowed = f"an id of the catalogue's {kind}"
    return [f"{study.label}: {where} — found '{name}', allowed {allowed}{meant(name)}" for name in names if name not in records]


def _buildable(study: Study, catalog: Catalog, chip: str) -> list[str]:
    try:
        catalog.chips[chip]
    except InputError as error:
        return [f"{study.label}: real_chips — found '{chip}', allowed a chip that is complete: {problem}" for problem in error.problems]
    return []


def _space(study: Study, catalog: Catalog, family: str) -> list[str]:
    """What the family itself says against the study's nodes and design ranges, and formats of which it takes none."""
    if family not in catalog.records["families"]:
        return [f"{study.label}: families.{family} — found no such file in the catalogue's families"]
    from dse.catalog.silicon import build_range
    from dse.chips import FAMILIES
    from dse.space import space_of

    record = catalog.records["families"][family]
    problems = []
    usable = record.meta.get("formats", study.layouts.formats)
    if not set(usable) & set(study.layouts.formats):
        problems.append(f"{study.label}: layouts.formats — found none that {family} takes, allowed {', '.join(usable)}")
    try:
        space_of(FAMILIES[family], build_range(record), study.families[family])
    except InputError as error:
        problems += [f"{study.label}: families.{problem.replace(': ', '.', 1)}" for problem in error.problems]
    return problems
