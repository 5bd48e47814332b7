"""What do the analyses in a Dataset say? One module a kind; ``sections`` gives each analysis as sentence, figures and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from dse.report import view as V
from dse.report.answers import balance, clusters, context, demand, formats, ownership, single_user, volume
from dse.report.answers.charts import Drawn, Section, likely

__all__ = ["Answer", "Drawn", "Section", "answers", "lead", "sentence"]

KINDS: Mapping[str, Callable[[xr.Dataset, xr.Dataset, str, dict[str, Any]], Section]] = {
    "balance": balance.section,
    "clusters": clusters.section,
    "context": context.section,
    "demand": demand.section,
    "formats": formats.section,
    "ownership": ownership.section,
    "single_user": single_user.section,
    "volume": volume.section,
}


@dataclass(frozen=True)
class Answer:
    """One analysis of a study as the report holds it."""

    kind: str
    name: str
    title: str
    section: Section


def part(ds: xr.Dataset, name: str) -> xr.Dataset:
    """The variables of one analysis under their own names."""
    start = f"{name}."
    mine = ds[[str(v) for v in ds.data_vars if str(v).startswith(start)]]
    mine = mine.drop_vars([str(c) for c in mine.coords if not str(c).startswith(start)])
    return mine.rename({str(v): str(v).removeprefix(start) for v in (*mine.variables, *(d for d in mine.dims if d not in mine.variables))})


def answers(ds: xr.Dataset) -> Iterator[Answer]:
    """Every analysis that this version can tell, in the study's order."""
    for a in V.attr(ds, "analyses", []):
        if a["kind"] in KINDS:
            yield Answer(a["kind"], a["name"], a["title"], KINDS[a["kind"]](ds, likely(part(ds, a["name"])), a["name"], a["facts"]))


def lead(ds: xr.Dataset, found: list[Answer]) -> Answer | None:
    """The analysis that the report answers first; None where the fronts lead."""
    return next((a for a in found if a.name == ds.attrs.get("lead")), None)


def sentence(ds: xr.Dataset) -> str:
    """The finding of the leading analysis; empty where the fronts lead."""
    first = lead(ds, list(answers(ds)))
    return first.section.sentence if first else ""
