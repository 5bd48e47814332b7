"""Which designs does an earlier result give a search to begin with? Those on its fronts, as far as this study's ranges allow them."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dse.errors import InputError
from dse.search.shards import points_of
from dse.space import Space

TABLE, RESULT = "designs.csv", "result.nc"


def find_result(given: str, reports: Path = Path("reports")) -> Path:
    """The table of designs or the Dataset of an earlier study: its folder, one of these files, or its name below ``reports``.

    Raises:
        InputError: there is none.
    """
    for place in (Path(given), reports / given):
        if place.is_file():
            return place
        found = [place / name for name in (TABLE, RESULT) if (place / name).is_file()]
        if found:
            return found[0]
    raise InputError(
        f"search.warm_start — found {given!r}, allowed a folder with {TABLE} or {RESULT}, or the name of a study that has one in {reports}"
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    """Designs as rows of names to values."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        from dse.results import load

        ds = load(path)
        columns = ["family", "status", *(str(n) for n, v in ds.data_vars.items() if v.attrs.get("role") == "decision")]
        rows = [{"design_id": str(i), **{c: ds[c].values[k] for c in columns}} for k, i in enumerate(ds["design"].values)]
    if rows and not {"design_id", "family", "status"} <= set(rows[0]):
        raise InputError(f"{path}: search.warm_start — found a table without design_id, family and status, allowed the {TABLE} of a run")
    return rows


def _decided(row: dict[str, Any], space: Space) -> dict[str, Any] | None:
    """The decisions of a row, moved into the ranges of the space; None where a name is not allowed there."""
    found: dict[str, Any] = {}
    for v in space.variables:
        text = row.get(v.name, "")
        if text is None or str(text) in ("", "nan"):
            continue
        if v.kind == "choice":
            if str(text) not in v.names:
                return None
            found[v.name] = str(text)
        else:
            number = min(max(float(text), v.low), v.high)
            found[v.name] = round(number) if v.kind == "int" else number
    return found


def earlier_designs(given: str, space: Space) -> list[dict[str, Any]]:
    """Hypothetical designs of a family in an earlier result, each once, in its order. Raises InputError where there is no result."""
    path = find_result(given)
    rows = {r["design_id"]: r for r in _rows(path) if r["family"] == space.family and r["status"] == "hypothetical"}
    return [d for r in rows.values() if (d := _decided(r, space)) is not None]


def earlier_points(given: str, space: Space) -> np.ndarray:
    """Points of the unit cube of ``earlier_designs``."""
    designs = earlier_designs(given, space)
    return np.clip(points_of(space, designs)[1], 0.0, 1.0) if designs else np.empty((0, space.dimension))


def digest(points: Sequence[Any] | np.ndarray) -> str:
    """What a ledger remembers of the designs that it began with."""
    return hashlib.sha256(json.dumps(np.round(np.asarray(points, float), 9).tolist()).encode()).hexdigest()
