"""Which measured rows does a folder hold, and which of them should no honest model fit?

CSV files (plain or gzip) become dictionaries of text; a committed table of exclusions names rows that measure something else than
their columns say, each rule with its reason.
"""

from __future__ import annotations

import csv
import gzip
import io
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dse.errors import InputError
from dse.paths import data_dir

PEAKS = "chip_peaks"
COMPARISONS = ("<=", ">=", "<", ">")

Row = dict[str, str]


@dataclass(frozen=True)
class Rule:
    """Rows that are left out: every column matches its pattern (text with ``*``, a comparison such as
    ``>= 4`` or ``< @n_chips``, or one of a list)."""

    id: str
    reason: str
    match: dict[str, Any]

    def matches(self, file: str, row: Mapping[str, str]) -> bool:
        """Whether the rule excludes this row."""
        return all(_fits(file if column == "file" else row.get(column) or "", wanted, row) for column, wanted in self.match.items())


def _fits(text: str, wanted: Any, row: Mapping[str, str]) -> bool:
    if isinstance(wanted, list):
        return any(_fits(text, one, row) for one in wanted)
    for sign in COMPARISONS:
        if wanted.startswith(sign):
            try:
                other = wanted[len(sign) :].strip()
                number, limit = float(text), float(row.get(other[1:]) or "" if other.startswith("@") else other)
            except ValueError:
                return False
            return {"<=": number <= limit, ">=": number >= limit, "<": number < limit, ">": number > limit}[sign]
    return fnmatchcase(text.lower(), wanted.lower())


def read_rules(path: Path | None = None) -> list[Rule]:
    """The exclusion table: rules with their reasons."""
    with (path or data_dir("hw_catalog") / "exclusions.toml").open("rb") as file:
        raw = tomllib.load(file)
    return [Rule(r["id"], r["reason"], r["match"]) for r in raw["rule"]]


def excluded_by(rules: list[Rule], file: str, row: Mapping[str, str]) -> str:
    """Id of the first rule that excludes the row, or an empty string."""
    return next((rule.id for rule in rules if rule.matches(file, row)), "")


def _open(path: Path) -> io.TextIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")  # type: ignore[return-value]
    return path.open(encoding="utf-8", newline="")


def file_name(path: Path) -> str:
    """Name of a table without endings: ``ops_gemm`` for ``ops_gemm.csv.gz``.

    >>> file_name(Path("x/ops_gemm.csv.gz"))
    'ops_gemm'
    """
    return path.name.removesuffix(".gz").removesuffix(".csv")


def read_table(path: Path) -> list[Row]:
    """Rows of one CSV file as text; blank where a row is short.

    Raises:
        InputError: the file cannot be read as CSV.
    """
    try:
        with _open(path) as text:
            return [{k: v or "" for k, v in row.items() if k is not None} for row in csv.DictReader(text)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path.name}: file — cannot be read as CSV: {error}") from error


def read_folder(folder: Path) -> tuple[dict[str, list[Row]], dict[str, Row]]:
    """All tables of a folder by name, and the datasheet rows of its ``chip_peaks.csv`` by chip.

    Raises:
        InputError: no such folder, no CSV file in it, or one that cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: folder — not found, allowed a folder of CSV files of measurements")
    paths = sorted([*folder.glob("*.csv"), *folder.glob("*.csv.gz")])
    if not paths:
        raise InputError(f"{folder}: folder — found no CSV file, allowed a folder of CSV files of measurements")
    tables = {file_name(p): read_table(p) for p in paths}
    peaks = {row.get("chip", ""): row for row in tables.pop(PEAKS, [])}
    return tables, peaks


def every_row(tables: Mapping[str, list[Row]]) -> Iterator[tuple[str, Row]]:
    """Each row with the name of its table."""
    for name, rows in tables.items():
        for row in rows:
            yield name, row
