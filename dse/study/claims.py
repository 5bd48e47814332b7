"""What does a row of a study of claims say? A published figure, how near ours must come, and what it is checked with.

The verdict needs no judgement: it follows from our figure, the claim, the relation and the two widths that stand in the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

RELATIONS = ("equal", "at_least", "at_most")
TEXTS = ("id", "document", "system", "statement", "unit", "how")


@dataclass(frozen=True, kw_only=True)
class ClaimRow:
    """One claim. ``rounding`` and ``tolerance`` are relative: 0.1 lets a ratio lie between 1/1.1 and 1.1."""

    id: str
    document: str
    system: str
    statement: str
    claim: float
    unit: str
    how: str
    relation: str = "equal"
    rounding: float = 0.01  # of the claim as it is printed
    tolerance: float = 0.1  # what "about" is taken to mean
    given: Mapping[str, Any] = field(default_factory=dict)  # chips, models, batches and assumptions of the check


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def read_rows(tables: Any, problem: Callable[[str, Any, str], None]) -> tuple[ClaimRow, ...]:
    """The rows of a study file; ``problem`` is told of every mistake (field, what was found, what is allowed)."""
    if not isinstance(tables, list):
        problem("rows", repr(tables), "tables, [[rows]]")
        return ()
    found: list[ClaimRow] = []
    for number, table in enumerate(tables):
        row = _row(table, f"rows[{number}]", problem)
        if row is not None and row.id in {r.id for r in found}:
            problem(f"rows[{number}].id", repr(row.id), "each id once")
        elif row is not None:
            found.append(row)
    return tuple(found)


def _row(table: Any, where: str, problem: Callable[[str, Any, str], None]) -> ClaimRow | None:
    known = set(ClaimRow.__dataclass_fields__)
    if not isinstance(table, dict):
        problem(where, repr(table), "a table")
        return None
    wrong = [(key, "an unknown field", ", ".join(sorted(known))) for key in table if key not in known]
    wrong += [(key, repr(table.get(key)), "text in quotes") for key in TEXTS if not isinstance(table.get(key), str) or not table[key]]
    if not _number(table.get("claim")) or table["claim"] <= 0:
        wrong.append(("claim", repr(table.get("claim")), "a number above 0"))
    wrong += [
        (k, repr(table[k]), "0 or more") for k in ("rounding", "tolerance") if k in table and not (_number(table[k]) and table[k] >= 0)
    ]
    if table.get("relation", "equal") not in RELATIONS:
        wrong.append(("relation", repr(table["relation"]), ", ".join(RELATIONS)))
    if not isinstance(table.get("given", {}), dict):
        wrong.append(("given", repr(table["given"]), "a table"))
    for key, what, allowed in wrong:
        problem(f"{where}.{key}", what, allowed)
    return None if wrong else ClaimRow(**{**table, "claim": float(table["claim"])})
