"""What is a table of the report? Columns, rows, what was asked, what was reached, and what to know when reading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """One question with its rows; ``reached`` is computed from them."""

    name: str  # of its file
    title: str
    asked: str
    reached: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))


def error(predicted: float, published: float) -> float:
    """Relative difference.

    >>> round(error(110.0, 100.0), 3)
    0.1
    """
    return predicted / published - 1


def judged(row: Row, allowed: float | None) -> Row:
    """The row with its error, the error that is allowed, and whether it is within it; a prediction alone stays without."""
    if row.get("published") is None or row.get("predicted") is None:
        return {**row, "error": None, "allowed": allowed, "within": None}
    away = error(row["predicted"], row["published"])
    return {**row, "error": away, "allowed": allowed, "within": None if allowed is None else bool(abs(away) <= allowed + 5e-4)}


def counted(rows: Sequence[Row]) -> str:
    """How many of the rows with a published figure are within what is allowed, and which are not."""
    tested = [row for row in rows if row.get("within") is not None]
    out = [
        f"{row.get('chip', row.get('block', ''))} {row.get('quantity', '')} {row['error']:+.1%}".replace("  ", " ")
        for row in tested
        if not row["within"]
    ]
    text = f"{len(tested) - len(out)} of {len(tested)} figures within"
    return text + (f"; outside: {', '.join(out)}" if out else "")
