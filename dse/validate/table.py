"""How far are predictions from measurements? Groups of rows by operator, chip, model and format, with all their margins."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

ROW_COLUMNS = (
    "file", "id", "chip", "model", "op", "metric", "unit", "measured", "predicted", "flag", "chip_resolved_by", "skipped_reason",
    "excluded_by",
)  # fmt: skip
KEYS = ("level", "op", "chip", "model", "format")
ANY = "*"


@dataclass(frozen=True)
class Outcome:
    """One input row after prediction; ``predicted`` is None with a ``skipped_reason`` where the model says nothing."""

    file: str
    id: str
    level: str
    chip: str
    model: str
    op: str
    format: str
    metric: str
    unit: str
    measured: float | None
    predicted: float | None
    flag: str = ""
    chip_resolved_by: str = ""
    skipped_reason: str = ""
    excluded_by: str = ""
    row: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)  # as it was read

    @property
    def error(self) -> float:
        """Signed relative error of a compared row."""
        assert self.predicted is not None and self.measured is not None
        return self.predicted / self.measured - 1.0

    @property
    def compared(self) -> bool:
        """Whether the row enters the errors: predicted, measured and without a flag."""
        return self.predicted is not None and self.measured is not None and self.measured > 0 and not self.flag


PAIRS_AT_ONCE = 300  # rows up to which all pairs are compared at once; beyond it sorting is quicker


def kendall(x: Sequence[float | None], y: Sequence[float | None]) -> float:
    """Kendall's tau (b: ties shared) of two orders; nan below two rows, or where one of them has ties only.

    >>> kendall([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])
    0.3333333333333333
    """
    a, b = np.array(x, dtype=float), np.array(y, dtype=float)
    if len(a) > PAIRS_AT_ONCE:
        from scipy.stats import kendalltau

        return float(kendalltau(a, b).statistic)
    up, right = np.sign(a[:, None] - a), np.sign(b[:, None] - b)
    pairs = np.sqrt(float((up * up).sum()) * float((right * right).sum()))
    return float((up * right).sum() / pairs) if pairs else float("nan")


def errors(rows: Sequence[Outcome]) -> dict[str, Any]:
    """Error figures of rows; error = \\|predicted - measured\\| / measured, bias the median of the signed error."""
    signed = np.array([r.error for r in rows])
    if not len(signed):
        return {"n": 0, "median_abs_error": None, "p90_abs_error": None, "mean_abs_error": None, "bias": None, "kendall_tau": None}
    tau = kendall([r.predicted for r in rows], [r.measured for r in rows])
    size = np.abs(signed)
    return {
        "n": len(rows),
        "median_abs_error": float(np.median(size)),
        "p90_abs_error": float(np.percentile(size, 90)),
        "mean_abs_error": float(size.mean()),
        "bias": float(np.median(signed)),
        "kendall_tau": None if np.isnan(tau) else float(tau),
    }


def groups(rows: Iterable[Outcome]) -> list[dict[str, Any]]:
    """One entry for each combination of level, operator, chip, model and format that occurs, and for its margins (``"*"``).

    The errors leave out excluded rows; ``with_excluded`` has them in. Rows with a flag are counted only.
    """
    cells: dict[tuple[str, ...], list[Outcome]] = defaultdict(list)
    for r in rows:
        if r.predicted is None or r.measured is None:
            continue
        for mask in product((False, True), repeat=len(KEYS) - 1):
            name = (r.level, *(ANY if hidden else getattr(r, k) for k, hidden in zip(KEYS[1:], mask, strict=True)))
            cells[name].append(r)
        cells[(ANY,) * len(KEYS)].append(r)
    made = []
    for name in sorted(cells):
        members = cells[name]
        compared = [r for r in members if r.compared]
        kept = [r for r in compared if not r.excluded_by]
        entry = {**dict(zip(KEYS, name, strict=True)), **errors(kept), "n_flagged": sum(bool(r.flag) for r in members)}
        entry["n_excluded"] = len(compared) - len(kept)
        entry["with_excluded"] = errors(compared) if len(kept) < len(compared) else None
        made.append(entry)
    return made


def skipped(rows: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Rows without a prediction by file and reason, with the first ids."""
    cells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for r in rows:
        if r.skipped_reason:
            cells[(r.file, r.skipped_reason)].append(r.id)
    first = 5
    return [{"file": f, "reason": why, "count": len(ids), "first_ids": ids[:first]} for (f, why), ids in sorted(cells.items())]


def write_rows(rows: Iterable[Outcome], path: Path) -> None:
    """One CSV line for each input row."""
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(ROW_COLUMNS)
        for r in rows:
            out.writerow(["" if (v := getattr(r, c)) is None else v for c in ROW_COLUMNS])
