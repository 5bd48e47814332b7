"""How close does the model come to published measurements? Predicted against measured, row by row and in groups.

A prediction uses the catalogue, the fit constants and the row's description: chip, shape, format, layout, software. It never reads
the measured value or what derives from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dse.catalog import Catalog, load_catalog
from dse.errors import InputError
from dse.paths import data_dir
from dse.units import to_si
from dse.validate.operators import Job, predict_seconds
from dse.validate.page import page
from dse.validate.resolve import Chips
from dse.validate.rows import Row, Rule, every_row, excluded_by, read_folder, read_rules
from dse.validate.runs import narrow
from dse.validate.shapes import Case, Unpredictable, case
from dse.validate.special import verdicts
from dse.validate.summary import CONVENTIONS, not_the_models, order, reached
from dse.validate.systems import predict_systems
from dse.validate.table import Outcome, groups, skipped, write_rows
from dse.validate.unseen import FOLDER, by_chip

__all__ = ["outcomes", "validate"]

Progress = Callable[[float, float, str], None]

CROSS = "cross_validation.json"
FORMAT_COLUMNS = ("precision_weights", "precision_kv", "precision_act", "precision")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _unit(row: Row) -> float:
    """SI value of one unit of the row's value."""
    return to_si(1.0, row["unit"].replace("tok/", "token/").replace("/chip", ""))


def _describe(rows: Sequence[tuple[str, Row]], chips: Chips) -> tuple[list[Job], dict[int, str]]:
    """Jobs of the operator rows, and why other rows have none."""
    jobs, reasons = [], {}
    for i, (_, row) in enumerate(rows):
        if row.get("level") == "system" or "op" not in row:
            continue
        on = chips.find(row.get("chip", ""))
        try:
            described = case(row)
            _unit(row)
        except (Unpredictable, InputError, KeyError) as problem:
            reasons[i] = "unknown chip" if on is None else str(problem)
            continue
        if on is None:
            reasons[i] = "unknown chip"
        else:
            jobs.append(Job(i, described, on))
    return jobs, reasons


def _in_units(row: Row, described: Case, seconds: float) -> float:
    """A predicted time in the unit of the row: a time, or work over time."""
    return (described.work / seconds if described.work else seconds) / _unit(row)


def _label(row: Row) -> str:
    return next((row[c] for c in FORMAT_COLUMNS if row.get(c)), "")


def _outcome(file: str, row: Row, predicted: float | None, reason: str, chips: Chips, rules: list[Rule]) -> Outcome:
    name = row.get("chip") or row.get("hardware", "")
    on = chips.find(name)
    operator = bool(row.get("op"))
    return Outcome(
        file=file,
        id=row.get("id", ""),
        level="op" if operator else "system",
        chip=on.id if on else name,
        model=row.get("model", ""),
        op=row["op"] if operator else row.get("metric", ""),
        format=_label(row),
        metric=row.get("metric", ""),
        unit=row.get("unit", ""),
        measured=_number(row.get("value", "")),
        predicted=predicted,
        flag=row.get("flag", ""),
        chip_resolved_by=on.by if on else "",
        skipped_reason=reason,
        excluded_by=excluded_by(rules, file, row),
        row=row,
    )


def outcomes(folder: Path | None = None, catalog: Catalog | None = None, progress: Progress | None = None) -> list[Outcome]:
    """Every row of a folder of measurements with its prediction, or the reason why there is none.

    Args:
        folder: CSV files (plain or gzip) in the form of ``hw_catalog/measurements``, which is the default.
        catalog: The catalogue; the shipped one by default.
        progress: Told how many of how many rows are predicted.

    Raises:
        InputError: the folder cannot be read.
    """
    report = progress or (lambda *_: None)
    tables, peaks = read_folder(folder or data_dir("hw_catalog") / "measurements")
    catalog = catalog or load_catalog()
    chips, rules = Chips(catalog, peaks), read_rules()
    rows = [(file, narrow(row) if "hardware" in row and "level" not in row else row) for file, row in every_row(tables)]
    report(0, len(rows), "rows predicted")
    jobs, reasons = _describe(rows, chips)
    seconds = predict_seconds(jobs, len(rows))
    predicted = {j.row: _in_units(rows[j.row][1], j.case, float(seconds[j.row])) for j in jobs}
    report(len(jobs), len(rows), "rows predicted")
    systems, why = predict_systems(rows, chips, catalog)
    predicted.update(systems)
    reasons.update(why)
    report(len(rows), len(rows), "rows predicted")
    return [_outcome(file, row, predicted.get(i), reasons.get(i, ""), chips, rules) for i, (file, row) in enumerate(rows)]


def answer_of(done: list[Outcome]) -> dict[str, Any]:
    """``groups`` with margins, ``skipped`` with reasons and the exclusions of outcomes."""
    exclusions = [{"id": r.id, "reason": r.reason, "count": sum(o.excluded_by == r.id for o in done)} for r in read_rules()]
    return {
        "rows": len(done),
        "predicted": sum(o.predicted is not None for o in done),
        "groups": groups(done),
        "skipped": skipped(done),
        "exclusions": exclusions,
    }


def validate(
    folder: Path | None = None,
    rows: Path | None = None,
    catalog: Catalog | None = None,
    report: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Errors of the model on a folder of measurements: ``groups`` with margins and ``skipped`` with reasons.

    Args:
        folder: CSV files in the form of ``hw_catalog/measurements``, which is the default.
        rows: Where to write one CSV line for each input row.
        catalog: The catalogue; the shipped one by default.
        report: Where to write the page. A ``cross_validation.json`` beside it (``dse calibrate --cross``) is shown on it, and the errors of
            a folder ``unseen`` of measurements of chips that no fit has seen.
        progress: Told how many of how many rows are predicted.

    Raises:
        InputError: the folder cannot be read.
    """
    catalog = catalog or load_catalog()
    done = outcomes(folder, catalog, progress)
    if rows is not None:
        write_rows(done, rows)
    answer = answer_of(done)
    special = verdicts(done, catalog)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        beside = report.parent / CROSS
        fits = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
        own = report.parent / FOLDER
        unseen = by_chip(outcomes(own, catalog), own, catalog) if own.is_dir() else []
        report.write_text(page(done, answer, special, fits, unseen), encoding="utf-8")
    found = {"reached": reached(done), "order": order(done), "not_the_models": not_the_models(done)}
    return answer | found | {"conventions": list(CONVENTIONS), "special": special}
